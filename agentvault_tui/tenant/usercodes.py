"""What user codes look like, as the tenant is set, and what is typed for one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

BASE20: Final = "BCDFGHJKLMNPQRSTVWXZ"
"""RFC 8628 section 6.1: no vowels, so no words, and no Y; 20^8 is 34.5 bits."""
DIGITS: Final = "0123456789"
_FEWEST: Final = {"base20": 8, "digits": 9}
_MOST: Final = 20
_MASK: Final = re.compile(r"[* -]+")
_LONGEST: Final = 4 * _MOST
_WIDE: Final = {0xFEE0 + code: code for code in range(0x21, 0x7F)}
"""Full-width forms, and what they are (Unicode, Halfwidth and Fullwidth Forms)."""


@dataclass(frozen=True, slots=True)
class CodeFormat:
    """Letters or digits, in the places that a mask's stars are."""

    charset: str = "base20"
    mask: str = "****-****"

    @classmethod
    def of(cls, setting: Mapping[str, str]) -> CodeFormat:
        """Read ``device_flow`` of the tenant's settings."""
        default = cls()
        return cls(
            setting.get("charset") or default.charset,
            setting.get("mask") or default.mask,
        )

    @property
    def problem(self) -> str | None:
        """What is wrong with it: too few places to guess against, or too many."""
        if not _MASK.fullmatch(self.mask) or len(self.mask) > _MOST:
            return f"The mask has stars, hyphens and spaces, at most {_MOST}"
        fewest = _FEWEST[self.charset]
        if self.mask.count("*") < fewest:
            return f"The mask has at least {fewest} stars for {self.charset}"
        return None

    def make(self) -> str:
        """Return a fresh code."""
        count = self.mask.count("*")
        return self._filled([secrets.choice(self._alphabet) for _ in range(count)])

    def normal(self, typed: str) -> str | None:
        """Map what was typed to the alphabet, or return None: no such code.

        RFC 8628 section 6.1: case is forgiven, and what is neither letter nor digit is
        passed over, such as the hyphens, spaces and line ends of other keyboards and
        of pasted text. Full-width letters and digits, as some input methods write
        them, are read as what they are; no other letter stands for another.
        """
        if len(typed) > _LONGEST:
            return None
        letters = "".join(filter(str.isalnum, typed.translate(_WIDE)))
        if not letters.isascii() or len(letters) != self.mask.count("*"):
            return None
        letters = letters.upper()
        if any(letter not in self._alphabet for letter in letters):
            return None
        return self._filled(list(letters))

    @property
    def _alphabet(self) -> str:
        return DIGITS if self.charset == "digits" else BASE20

    def _filled(self, letters: list[str]) -> str:
        found = iter(letters)
        return "".join(next(found) if mark == "*" else mark for mark in self.mask)
