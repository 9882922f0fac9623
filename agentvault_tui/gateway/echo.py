"""Find an injected credential in an answer: plain, split, escaped or compressed.

Most of an answer is searched for a few exact texts. Escapes and line ends are decoded
only where their marks are, and only those for a character of the credential.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import zlib
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, product
from typing import Any, Final

_SHORTEST: Final = 4
"""Bytes of a credential; a shorter one would be in every answer by chance."""
_ROUNDS: Final = 3
"""Levels of escapes, one around the other, that are decoded."""
_LINE: Final = 56
"""Characters of the shortest lines that base64 is cut into."""
_LONGEST_ESCAPE: Final = 12
_MOST_HELD: Final = 32_768
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_HEADER: Final = 2
"""Bytes by which zlib tells whether there is a header."""
_WINDOW: Final = 65_536
"""Bytes of an answer that are searched in one turn of the event loop."""
_DENSE: Final = 8_192
"""The same for an answer full of escapes, each of which takes a microsecond."""
_MARKS: Final = (b"\\", b"&", b"%")
_BREAKS: Final = re.compile(rb"(?:(?:(?<!\\)\\++[rn]|[\r\n])[ \t]*)+")
"""Ends of lines, also as JSON writes them, and the indentation of the next line. A run
of backslashes is read once, from its first: an answer may consist of them."""
_PARTIAL: Final = re.compile(
    rb"(?:%(?:25)*(?:2|u[0-9a-fA-F]{0,3}|[0-9a-fA-F])?"
    rb"|\\+(?:u[0-9a-fA-F]{0,3}|u\{0*[0-9a-fA-F]{0,2}|U[0-9a-fA-F]{0,7}|x[0-9a-fA-F]?)?"
    rb"|&(?:amp;)*(?:#(?:[xX]0*[0-9a-fA-F]{0,2}|0*[0-9]{0,3})|[a-zA-Z]{0,10}))\Z"
)
"""The beginning of an escape."""
_ALNUM_PAIR: Final = rb"(?=[0-9A-Za-z](?:[0-9A-Za-z%]|\Z))"
_AMPERSAND: Final = re.compile(rb"&(?:amp;)+(?=#)")
_NAMES: Final = {
    b"amp": b"&",
    b"AMP": b"&",
    b"lt": b"<",
    b"LT": b"<",
    b"gt": b">",
    b"GT": b">",
    b"quot": b'"',
    b"QUOT": b'"',
    b"apos": b"'",
}
_PROBE: Final = 16
"""Characters of a credential by which its beginning is found."""
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_BASE64_MARKS: Final = b"+/-_=\r\n"


class EchoedError(Exception):
    """An answer holds the credential that its request was given."""


async def next_turn() -> None:
    """Let others have their turn of the event loop."""
    await asyncio.sleep(0)


class _OffsetMap:
    """Maps offsets in a decoded text to offsets before its escapes were decoded."""

    def __init__(self) -> None:
        self._views: list[int] = [0]
        self._raws: list[int] = [0]

    def add(self, view: int, raw: int) -> None:
        """Map *view* to *raw*, and the offsets after it likewise."""
        self._views.append(view)
        self._raws.append(raw)

    def raw(self, view: int) -> int:
        """Return the offset before decoding of the byte at *view*."""
        at = bisect_right(self._views, view) - 1
        return self._raws[at] + view - self._views[at]


class _Escapes:
    """The escapes of some characters."""

    def __init__(self, characters: Iterable[int]) -> None:
        self.digits: dict[bytes, bytes] = {}
        """The characters by two digits in any case, as in ``%6B`` and ``\\x6b``."""
        for one in characters:
            for spelt in product(*({d, d.upper()} for d in f"{one:02x}")):
                self.digits["".join(spelt).encode()] = bytes([one])
        wanted = set(self.digits.values())
        self.named = {name: one for name, one in _NAMES.items() if one in wanted}
        self.marks = wanted & {b"/", b'"', b"'", b"`", b"\\"}
        """Characters that are escaped by a backslash alone."""
        pairs = b"|".join(map(re.escape, self.digits))
        codes = [b"%x" % one for one in sorted(set(characters))]
        hexadecimal = b"|".join(
            b"".join(b"[%b%b]" % (d, d.upper()) for d in map(bytes, zip(one)))
            for one in codes
        )
        references = b"|".join(self._references(characters, hexadecimal))
        patterns = {
            # Of several backslashes, as in JSON within JSON, the first begins it.
            b"\\": rb"\\(?<!\\\\)\\*+(?:(?:u00|x|U000000)(?:%b)|u\{0*+(?:%b)\}%b)"
            % (
                pairs,
                hexadecimal,
                b"".join(b"|" + re.escape(one) for one in self.marks),
            ),
            b"&": b"&(?:%b)" % references,
            # RFC 3986 section 2.1, and the same once more: %2573 is %73. JavaScript's
            # escape() writes %u0073 (ECMA-262 section B.2.1.1).
            b"%": b"%%(?:(?>(?:25%b)*)(?:u00)?(?:%b)%b)"
            % (_ALNUM_PAIR, pairs, b"|25" if b"%" in wanted else b""),
        }
        self._kinds = {mark: re.compile(one) for mark, one in patterns.items()}
        """The finder of each escape of these characters, by the mark it begins with."""

    def _references(self, characters: Iterable[int], codes: bytes) -> Iterator[bytes]:
        """Yield patterns of the references of HTML, after their ``&``.

        Args:
            characters: which are looked for.
            codes: the pattern of their hexadecimal codes, without leading zeros.
        """
        decimal = b"|".join(b"%d" % one for one in sorted(set(characters)))
        yield b"#[xX]0*+(?:%b)(?:;|(?![0-9a-fA-F]))" % codes
        yield b"#0*+(?:%b)(?:;|(?![0-9]))" % decimal
        for name in self.named:
            yield name + b";"
        # Some names need no semicolon (HTML section 13.2.5.73).
        for short in self.named.keys() & {b"amp", b"lt", b"gt", b"quot"}:
            yield b"%b(?![^&;]{0,%d};)" % (short, 31 - len(short))

    def decode(self, text: bytes, around: int) -> bytes:
        """Return *text* with these escapes decoded; *text* itself if it has none.

        Between two escapes, only *around* bytes next to each are returned: the rest was
        searched before.
        """
        before = text
        if b"&" in text:
            text = text.replace(b"&amp;#", b"&#")
        for mark in self._kinds:
            if mark in text and (match := self._find(text, mark)):
                pieces: list[bytes] = []
                last = 0
                for begins, ends, character in match:
                    plain = text[last:begins]
                    if len(plain) > 2 * around:
                        plain = plain[:around] + b"\0" + plain[-around:]
                    pieces += plain, character
                    last = ends
                pieces.append(text[last : last + around])
                text = b"".join(pieces)
        return before if text == before else text

    def decode_mapped(self, text: bytes) -> tuple[bytes, list[_OffsetMap]]:
        """Return *text* with these escapes decoded, and maps back to its offsets."""
        maps: list[_OffsetMap] = []
        ampersands = [(*match.span(), b"&") for match in _AMPERSAND.finditer(text)]
        for mark in (b"", *self._kinds):
            if match := self._find(text, mark) if mark else ampersands:
                used, last, view = _OffsetMap(), 0, 0
                pieces: list[bytes] = []
                for begins, ends, character in match:
                    pieces += text[last:begins], character
                    view += begins - last
                    used.add(view, begins)
                    view += 1
                    used.add(view, ends)
                    last = ends
                text = b"".join((*pieces, text[last:]))
                maps.append(used)
        return text, maps

    def _find(self, text: bytes, mark: bytes) -> list[tuple[int, int, bytes]]:
        """Return begin, end and character of the escapes that begin with *mark*."""
        return [
            (*match.span(), self._character(match[0]))
            for match in self._kinds[mark].finditer(text)
        ]

    def _character(self, escape: bytes) -> bytes:
        """Return the character of one escape that was found."""
        if not escape.startswith(b"&"):
            if escape.endswith(b"}"):
                return bytes([int(escape.partition(b"{")[2][:-1], 16)])
            return self.digits.get(escape[-2:]) or escape[-1:]
        name = escape[1:].rstrip(b";")
        if name.startswith(b"#"):
            is_hex = name[1:2] in b"xX"
            digits, base = (name[2:], 16) if is_hex else (name[1:], 10)
            return bytes([int(digits, base)])
        return self.named[name]


@dataclass(frozen=True, slots=True)
class Needles:
    """The texts to look for in an answer, to find some secrets."""

    exact: tuple[bytes, ...] = ()
    """The secrets, and their spellings in forms and JSON."""
    wide: tuple[bytes, ...] = ()
    """The same in UTF-16 and UTF-32, in either byte order."""
    base64: tuple[bytes, ...] = ()
    """The digits that they have in base64 of any text, at each of three alignments."""
    hexadecimal: tuple[bytes, ...] = ()
    """In lower case."""
    digit_runs: tuple[bytes, ...] = ()
    """Their longest parts without a letter, which are there in any case of letters."""
    anchors: tuple[bytes, ...] = ()
    """Parts of `base64`; at least one is in a text that has it unbroken."""
    line_anchors: tuple[bytes, ...] = ()
    """Shorter parts; at least one is in a text that has it cut into lines."""
    escapes: _Escapes | None = field(default=None, repr=False)
    longest: int = 0
    """Bytes of the longest of them."""
    reach: int = 0
    """Bytes of the longest secret if each character is escaped."""

    def __bool__(self) -> bool:
        return bool(self.exact)

    def are_in(self, text: bytes) -> bool:
        """Check whether one of the secrets is in *text*, in any of these spellings."""
        if self._are_plainly_in(text):
            return True
        for _ in range(_ROUNDS if self.escapes else 0):
            decoded = self.escapes.decode(text, self.reach)  # type: ignore[union-attr]
            if decoded is text:
                return False
            if self._are_plainly_in(decoded):
                return True
            text = decoded
        return False

    def _are_plainly_in(self, text: bytes) -> bool:
        if any(needle in text for needle in self.exact):
            return True
        if self.wide and b"\0" in text and any(one in text for one in self.wide):
            return True
        if any(run in text for run in self.digit_runs):
            lower = text.lower()
            if any(needle in lower for needle in self.hexadecimal):
                return True
        if b"\n" in text or b"\r" in text or b"\\" in text:
            if any(anchor in text for anchor in self.line_anchors):
                return self._has_base64(_BREAKS.sub(b"", text))
            return False
        return any(one in text for one in self.anchors) and self._has_base64(text)

    def _has_base64(self, text: bytes) -> bool:
        digits = text.translate(_URL_SAFE)
        return any(needle in digits for needle in self.base64)

    def partial_start(self, text: bytes) -> int:
        """Return the offset at the end of *text* where a secret may begin.

        Whether it is one, the bytes after *text* show. If none can begin there, it is
        the length of *text*.
        """
        tail = view = text[-self.reach :]
        maps: list[_OffsetMap] = []
        earliest = len(view)
        for _ in range(_ROUNDS + 1):
            start = self._plain_partial_start(view)
            if start < len(view):
                for used in reversed(maps):
                    start = used.raw(start)
                earliest = min(earliest, start)
            if self.escapes is None:
                break
            decoded, more = self.escapes.decode_mapped(view)
            if not more:
                break
            view = decoded
            maps += more
        return len(text) - len(tail) + earliest

    def _plain_partial_start(self, view: bytes) -> int:
        partial = _PARTIAL.search(view, max(len(view) - 4 * _LONGEST_ESCAPE, 0))
        end = partial.start() if partial else len(view)
        whole = view[:end]
        start = end - self._overlap(whole)
        if b"\n" in whole or b"\r" in whole or b"\\" in whole:
            joined, used = _joined(whole)
            if overlap := self._overlap(joined):
                start = min(start, used.raw(len(joined) - overlap))
        return start

    def _overlap(self, view: bytes) -> int:
        end = view[-self.longest :]
        digits, lower = end.translate(_URL_SAFE), end.lower()
        return max(
            max((_overlap(end, one) for one in self.exact + self.wide), default=0),
            max((_overlap(digits, one) for one in self.base64), default=0),
            max((_overlap(lower, one) for one in self.hexadecimal), default=0),
        )


def _joined(text: bytes) -> tuple[bytes, _OffsetMap]:
    """Return *text* without the ends of its lines, and the map back to its offsets."""
    out, used, view, raw = [], _OffsetMap(), 0, 0
    for match in _BREAKS.finditer(text):
        out.append(text[raw : match.start()])
        view += match.start() - raw
        raw = match.end()
        used.add(view, raw)
    return b"".join((*out, text[raw:])), used


def needles(*secrets: bytes) -> Needles:
    """Return the texts to look for in an answer, to find one of *secrets*."""
    exact: set[bytes] = set()
    wide: set[bytes] = set()
    based: set[bytes] = set()
    hexed: set[bytes] = set()
    characters: set[int] = set(_BASE64_MARKS)
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            exact |= _exact(secret)
            # Without the zeros at the ends, which differ between byte orders.
            wide |= {bytes(n).join(bytes([one]) for one in secret) for n in (1, 3)}
            based |= _base64(secret)
            hexed.add(secret.hex().encode())
            characters |= set(secret)
    if not exact:
        return Needles()
    parts = set()
    for one in based:
        half = min(len(one), _LINE) // 2
        parts |= _anchors(one[:half]) | _anchors(one[half : 2 * half])
    return Needles(
        exact=_shortest(exact),
        wide=_shortest(wide),
        base64=tuple(based),
        hexadecimal=tuple(hexed),
        digit_runs=tuple(max(re.split(rb"[a-f]", one), key=len) for one in hexed),
        anchors=tuple(set().union(*map(_anchors, based))),
        line_anchors=tuple(parts),
        escapes=_Escapes(characters),
        longest=(longest := max(map(len, exact | wide | based | hexed))),
        reach=max(longest, min(max(map(len, secrets)) * _LONGEST_ESCAPE, _MOST_HELD)),
    )


def _exact(secret: bytes) -> set[bytes]:
    text = json.dumps(secret.decode("latin-1"), ensure_ascii=False)[1:-1]
    return {
        secret,
        secret.replace(b" ", b"+"),  # in a form, once its escapes are decoded
        text.encode("latin-1"),
    }


def _base64(secret: bytes) -> set[bytes]:
    encodings = set()
    for shift in range(3):
        # Digits that also depend on the bytes before and after it are left out.
        whole = base64.b64encode(b"\0" * shift + secret)
        first = (shift * 8 + 5) // 6
        last = (shift + len(secret)) * 8 // 6
        if last - first >= _SHORTEST:
            encodings.add(whole[first:last])
    return encodings


def _anchors(digits: bytes) -> set[bytes]:
    """Return texts of which one is in an answer with these digits of base64.

    Either alphabet may be used. A longer text is found faster.
    """
    run = max(re.split(rb"[+/]", digits), key=len)
    if 2 * len(run) >= len(digits):
        return {run}
    return {digits, digits.replace(b"+", b"-").replace(b"/", b"_")}


def _shortest(candidates: Iterable[bytes]) -> tuple[bytes, ...]:
    """Leave out each text that contains another one."""
    shortest: list[bytes] = []
    for one in sorted(candidates, key=len):
        if not any(short in one for short in shortest):
            shortest.append(one)
    return tuple(shortest)


class Echo:
    """Passes an answer on, piece by piece, as long as no credential is in it."""

    def __init__(self, needles: Needles = Needles()) -> None:
        """Look for the `needles` of the secrets."""
        self.needles = needles
        self.width = 1
        """Bytes of a character: two in UTF-16, four in UTF-32."""
        self.window = _WINDOW
        """Bytes that are searched at a time; fewer in an answer full of escapes."""
        self._held = b""

    def is_slow(self, arrived: bytes) -> bool:
        """Check whether *arrived* is full of escapes, which take long to search.

        It is searched in smaller parts from then on, and so is the rest of the answer.
        """
        view = arrived[: self.window]
        if sum(view.count(mark) for mark in _MARKS) > _DENSE // 8:
            self.window = _DENSE
        return self.window == _DENSE

    @property
    def waits(self) -> bool:
        """Whether it holds back a possible beginning of a credential."""
        return bool(self._held)

    def pass_on(self, chunk: bytes) -> bytes:
        """Return the part that may be passed on now that *chunk* has come.

        A possible beginning of a credential is held back until more has come.

        Raises:
            EchoedError: there is one.
        """
        if not self.needles:
            return chunk
        data = self._held + chunk if self._held else chunk
        start = len(data)
        for view in self._views(data):
            if self.needles.are_in(view):
                raise EchoedError
            width = 1 if view is data else self.width
            start = min(start, self.needles.partial_start(view) * width)
        if self.width > 1:  # so that characters stay whole
            start = min(start, len(data)) // self.width * self.width
        self._held = data[start:]
        return data[:start]

    def _views(self, data: bytes) -> Iterable[bytes]:
        """Yield the data, and its characters' low bytes in either byte order."""
        yield data
        if self.width > 1:
            yield data[:: self.width]
            yield data[self.width - 1 :: self.width]

    def rest(self) -> bytes:
        """Return the part that was held back, at the end of the answer."""
        held, self._held = self._held, b""
        return held


async def search_headers(
    headers: Iterable[tuple[bytes, bytes]],
    needles: Needles,
    turn: Callable[[], Awaitable[None]],
) -> None:
    """Search the headers of an answer, as its body is searched.

    Args:
        headers: of the answer.
        needles: of the credential.
        turn: waits for a turn; awaited before a part that is full of escapes.

    Raises:
        EchoedError: a header holds the credential.
    """
    echo = Echo(needles)
    # No secret holds a tab, so none is found where two parts meet.
    left = b"\t".join(chain.from_iterable(headers)) if needles else b""
    while left:
        if echo.is_slow(left):
            await turn()
        part, left = left[: echo.window], left[echo.window :]
        echo.pass_on(part)


class PackedEcho:
    """Searches a compressed answer, which passes as it is, for a credential."""

    def __init__(
        self,
        needles: Needles,
        width: int = 1,
        turn: Callable[[], Awaitable[None]] = next_turn,
    ) -> None:
        """Look for the `needles` of the secrets.

        Args:
            needles: of the credential.
            width: see `Echo.width`.
            turn: waits for a turn; awaited before each part is searched.
        """
        self._echo = Echo(needles)
        self._echo.width = width
        self._turn = turn
        self._unpacker: Any = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._begun = False
        self._held = b""

    async def pass_on(self, chunk: bytes) -> bytes:
        """Return the part that may be passed on now that *chunk* has come.

        Others have their turn between two windows of the unpacked content.

        Raises:
            EchoedError: there is a credential.
        """
        self._held += chunk
        if not self._begun and len(self._held) < _HEADER:
            return b""
        data, full = chunk if self._begun else self._held, False
        while self._unpacker is not None and (data or full):
            try:
                unpacked = self._unpacker.decompress(data, _DENSE)
            except zlib.error:
                # Deflate without zlib's header, as some servers send it; otherwise no
                # program unpacks any more.
                raw = None if self._begun else zlib.decompressobj(-zlib.MAX_WBITS)
                self._unpacker, self._begun = raw, True
                continue
            self._begun = True
            await self._turn()
            self._echo.pass_on(unpacked)
            full, data = len(unpacked) == _DENSE, self._unpacker.unconsumed_tail
            if self._unpacker.eof:
                data = self._unpacker.unused_data
                self._unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
        return b"" if self._echo.waits else self.rest()

    def rest(self) -> bytes:
        """Return the part that was held back."""
        held, self._held = self._held, b""
        return held


def _overlap(data: bytes, needle: bytes) -> int:
    """Return how many bytes at the end of *data* are the beginning of *needle*."""
    start = max(len(data) - len(needle) + 1, 0)
    # A service may fill an answer with the first character of a credential.
    first = needle[:_PROBE]
    while (start := data.find(first, start)) >= 0:
        if needle.startswith(data[start:]):
            return len(data) - start
        start += 1
    for size in range(min(len(data), len(first) - 1), 0, -1):
        if data.endswith(first[:size]):
            return size
    return 0
