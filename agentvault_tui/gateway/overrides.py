"""Requests that an upstream may take for one of another method, path or host."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

from agentvault_tui.gateway.refusals import CallRefusedError

OVERRIDES: Final = frozenset(
    (
        b"x-envoy-original-path",
        b"x-host",
        b"x-http-host-override",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-host",
        b"x-original-method",
        b"x-original-uri",
        b"x-original-url",
        b"x-override-url",
        b"x-rewrite-url",
    )
)
"""Headers that do so: never sent."""
_FIELD: Final = (
    "(?:_(?:http)?method|x[_ ](?:http[_ ]method(?:[_ ]override)?|method[_ ]override))"
)
"""Fields of queries and bodies that do so: Rails, Laravel, Symfony, Spring, CakePHP and
Yii read the first, Salesforce the second, ASP.NET MVC the names of headers."""
_NAMED: Final = re.compile(_FIELD)
_CODES: Final = (b"%", rb"\\u00")
_MARKS: Final = re.compile(r"[.\- +]")
"""What PHP takes for an underscore in a field's name, and what stands for one."""
_CODED: Final = tuple(re.compile(mark + b"([2-7][0-9a-f])") for mark in _CODES)
_IN_BODY: Final = re.compile(
    (
        rf'(?:[&;][_ ]*|" ?){_FIELD} ?(?:[=[&;"]|$)'
        rf"|(?:name|content_id) ?(?:\*? ?[=:] ?[\"'<]? ?(?:\w*'\w*')? ?{_FIELD}\b"
        r"|\* ?[0-9]|= ?[\"']=\?)"
    ).encode()
)
"""A field of a form, a member of JSON, the name of a part: with marks, as decoded. The
name of a part in pieces or words (RFC 2231, RFC 2047) is taken for one as well."""
_SIGNS: Final = (b"method", b"name*", b'"=?', b"'=?")
"""One of these is in what `_IN_BODY` finds."""
_TO_MARKS: Final = bytes.maketrans(b".-+", b"___")
OVERRIDDEN: Final = "the body asks for another method: _method"
_KEPT: Final = 16
"""Words of a body that are looked at again with its next piece."""
_KEPT_BYTES: Final = 512


def is_override(name: str) -> bool:
    """Tell whether upstreams take the field *name* for the request's method."""
    name = name.partition("[")[0].partition("\0")[0].strip().lower()
    return _NAMED.fullmatch(_MARKS.sub("_", name)) is not None


def query_overrides(raw_query: str | None) -> bool:
    """Tell whether a query has a field that upstreams take for the method."""
    return any(
        is_override(unquote_plus(piece.partition("=")[0]))
        for piece in re.split("[&;]", raw_query or "")
    )


class OverrideScan:
    """Looks through a body that is not read otherwise, as it passes.

    Its fields are not parsed, since programs differ in how they do: what could be one
    that upstreams take for the method breaks the request off before its value leaves.
    """

    def __init__(self) -> None:
        """Have seen nothing yet."""
        self._tail = b"&"

    def check(self, piece: bytes) -> None:
        """Look through the next *piece*, before it is passed on.

        Raises:
            CallRefusedError: 400, the body asks for another method.
        """
        # Without NUL it is the same in UTF-16.
        plain = (self._tail + piece.replace(b"\0", b"")).lower()
        # White space may be of any length.
        self._tail = b" ".join(plain.rsplit(None, _KEPT)[-_KEPT:])[-_KEPT_BYTES:]
        for coded in _CODED:
            plain = coded.sub(lambda found: bytes.fromhex(found[1].decode()), plain)
        plain = plain.replace(b"\\", b"").lower()
        if any(sign in plain for sign in _SIGNS):
            marked = b" ".join(plain.split()).translate(_TO_MARKS)
            if _IN_BODY.search(marked):
                code = "unreadable_body"
                raise CallRefusedError(400, code, code, OVERRIDDEN)
