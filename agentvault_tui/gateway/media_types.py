"""Media types of requests: those that programs read in one way."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from agentvault_tui.gateway.target import Pair

_MEDIA_TYPE: Final = re.compile(
    r"([\w!#$&^.+-]+/[\w!#$&^.+-]+)"
    r"((?:[ \t]*+;[ \t]*+(?:[\w.-]+=(?:\"[^\"\\]*\"|[^\s\";,]+))?)*+)",
    re.ASCII,
)
"""RFC 9110 section 8.3.1, without quoted pairs; see tests/test_patterns.py."""
_LONGEST: Final = 512
"""Characters; types that are in use have less than half of it."""
_PARAMETER: Final = re.compile(r";[ \t]*([\w.-]+)=(?:\"([^\"\\]*)\"|([^\s\";,]+))")


class MediaType(NamedTuple):
    """A media type and its parameters; all but the parameters' values in lower case."""

    type: str
    parameters: tuple[Pair, ...] = ()

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, text: str) -> MediaType | None:
        """Parse a media type; return None if programs may read it differently."""
        match = _MEDIA_TYPE.fullmatch(text.strip())
        if match is None or len(text) > _LONGEST:
            return None
        parameters = [
            (name.lower(), quoted or plain)
            for name, quoted, plain in _PARAMETER.findall(match[2])
        ]
        if len({name for name, _ in parameters}) != len(parameters):
            return None
        return cls(match[1].lower(), tuple(parameters))

    @property
    def is_utf8(self) -> bool:
        """Check whether its text is UTF-8, the charset that is read."""
        return dict(self.parameters).get("charset", "utf-8").lower() == "utf-8"

    @property
    def boundary(self) -> str:
        """Return the boundary of a multipart type; empty where it has none."""
        return dict(self.parameters).get("boundary", "")

    def __str__(self) -> str:
        return self.type + "".join(f'; {n}="{v}"' for n, v in self.parameters)
