"""Find an injected credential in an answer, also where it is split or compressed."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import zlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final
from urllib.parse import quote, quote_plus

_SHORTEST: Final = 4
"""Bytes: a shorter one would stand in every answer by chance."""


_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_HEADER: Final = 2
"""Bytes by which zlib tells whether there is a header."""
_WINDOW: Final = 262_144
"""Bytes of an unpacked answer that are searched at a time."""


class EchoedError(Exception):
    """An answer holds the credential that its request was given."""


def spellings(secret: bytes) -> list[bytes]:
    """Return how *secret* may stand in an answer.

    Exactly, URL-encoded, as JSON and HTML have it, and inside base64 of a longer text
    at any of the three alignments, in both alphabets.
    """
    if len(secret) < _SHORTEST:
        return []
    text = secret.decode("latin-1")
    found = {secret}
    for encoded in (quote(secret, safe=""), quote_plus(secret), quote(secret)):
        found.add(encoded.encode())
        found.add(_lower_escapes(encoded).encode())
    found |= _escaped(text)
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The digits that also depend on what stands before and after are left out.
            whole = encode(b"\0" * shift + secret)
            first = (shift * 8 + 5) // 6
            last = (shift + len(secret)) * 8 // 6
            if last - first >= _SHORTEST:
                found.add(whole[first:last])
    return sorted(found, key=len)


def _escaped(text: str) -> set[bytes]:
    """Return *text* as programs write it in JSON and HTML."""
    found = set()
    plain = json.dumps(text)[1:-1], text
    for written in (*plain, *(one.replace("/", "\\/") for one in plain)):
        found.add(written)
        # As Go, Rails, PHP and .NET write JSON, and as HTML has it.
        for form in ("\\u%04x", "\\u%04X"):
            for some in ("&<>", "&<>'", "&<>'\"", "&<>'\"+`"):
                found.add(
                    written.translate({ord(one): form % ord(one) for one in some})
                )
    for quotes in ("&#x27;", "&#39;", "&#039;", "&apos;"):
        page = html.escape(text, quote=False).replace("'", quotes)
        for double in ("&quot;", "&#34;"):
            found.add(page.replace('"', double))
    return {one.encode("latin-1") for one in found}


def _lower_escapes(text: str) -> str:
    head, *rest = text.split("%")
    return head + "".join(f"%{one[:2].lower()}{one[2:]}" for one in rest)


def needles(*secrets: bytes) -> tuple[bytes, ...]:
    """Return what to look for in an answer: the spellings that hold no other."""
    kept: list[bytes] = []
    for one in sorted((s for each in secrets for s in spellings(each)), key=len):
        if not any(short in one for short in kept):
            kept.append(one)
    return tuple(kept)


class Echo:
    """Passes an answer on, piece by piece, as long as no credential is in it."""

    def __init__(self, needles: Sequence[bytes] = ()) -> None:
        """Look for what `needles` made of the secrets."""
        self.needles = needles
        self._held = b""

    @property
    def waits(self) -> bool:
        """Whether it holds back what may be the beginning of a credential."""
        return bool(self._held)

    def is_in_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Tell whether a header of the answer holds one."""
        # No secret holds a tab, so none is found where two parts meet.
        head = b"\t".join(chain.from_iterable(headers))
        return any(needle in head for needle in self.needles)

    def pass_on(self, chunk: bytes) -> bytes:
        """Return what may be passed on now that *chunk* has come.

        What may be the beginning of a credential is held back until more has come.

        Raises:
            EchoedError: there is one.
        """
        data = self._held + chunk if self._held else chunk
        keep = 0
        for needle in self.needles:
            if needle in data:
                raise EchoedError
            keep = max(keep, _overlap(data, needle))
        if not keep:
            self._held = b""
            return data
        self._held = data[-keep:]
        return data[:-keep]

    def rest(self) -> bytes:
        """Return what was held back, at the end of the answer."""
        held, self._held = self._held, b""
        return held


class PackedEcho:
    """Searches a compressed answer, which passes as it is, for a credential."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        """Look for what `needles` made of the secrets."""
        self._echo = Echo(needles)
        self._unpacker: Any = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._begun = False
        self._held = b""

    async def pass_on(self, chunk: bytes) -> bytes:
        """Return what may be passed on now that *chunk* has come.

        Others have their turn between two windows of what it unpacks to.

        Raises:
            EchoedError: there is a credential.
        """
        self._held += chunk
        if not self._begun and len(self._held) < _HEADER:
            return b""
        data, full = chunk if self._begun else self._held, False
        while self._unpacker is not None and (data or full):
            try:
                found = self._unpacker.decompress(data, _WINDOW)
            except zlib.error:
                # Deflate without zlib's header, as some servers send it; otherwise no
                # program unpacks any more.
                raw = None if self._begun else zlib.decompressobj(-zlib.MAX_WBITS)
                self._unpacker, self._begun = raw, True
                continue
            self._begun = True
            self._echo.pass_on(found)
            full, data = len(found) == _WINDOW, self._unpacker.unconsumed_tail
            if self._unpacker.eof:
                data = self._unpacker.unused_data
                self._unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
            if full:
                await asyncio.sleep(0)
        return b"" if self._echo.waits else self.rest()

    def rest(self) -> bytes:
        """Return what was held back."""
        held, self._held = self._held, b""
        return held


def _overlap(data: bytes, needle: bytes) -> int:
    """Return how many bytes at the end of *data* are the beginning of *needle*."""
    start = max(len(data) - len(needle) + 1, 0)
    first = needle[:1]
    while (start := data.find(first, start)) >= 0:
        if needle.startswith(data[start:]):
            return len(data) - start
        start += 1
    return 0
