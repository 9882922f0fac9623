"""A credential never passes in an answer, however it is written or split."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentvault_tui.gateway.echo import (
    Echo,
    EchoedError,
    PackedEcho,
    needles,
    next_turn,
    search_headers,
)

SECRET = b"sk/live+51HqLyj=Wd?rj"
WRITTEN = [
    SECRET,
    quote(SECRET, safe="").encode(),
    base64.b64encode(SECRET),
    base64.b64encode(b"user:" + SECRET),
    base64.urlsafe_b64encode(b"ab" + SECRET + b"c"),
    json.dumps(SECRET.decode())[1:-1].replace("/", "\\/").encode(),
]


MARKS = b"p&ss <w'\"r+d>/"


@pytest.mark.parametrize(
    "written",
    [
        r"""p%26ss%20%3Cw%27%22r%2Bd%3E%2F""",
        r"""p%26ss%20%3cw%27%22r%2bd%3e%2f""",
        r"""p%26ss+%3Cw%27%22r%2Bd%3E%2F""",
        r"""p%26ss%20%3Cw%27%22r%2Bd%3E/""",
        r"""p&ss <w'\"r+d>/""",
        r"""p&ss <w'\"r+d>\/""",
        r"""p\u0026ss \u003cw'\"r+d\u003e/""",
        r"""p\u0026ss \u003Cw\u0027\"r+d\u003E\/""",
        r"""p\u0026ss \u003Cw\u0027\u0022r\u002Bd\u003E/""",
        r"""p&amp;ss &lt;w&#x27;&quot;r+d&gt;/""",
        r"""p&amp;ss &lt;w&#39;&#34;r+d&gt;/""",
        r"""p&amp;ss &lt;w&#039;&quot;r+d&gt;/""",
        r"""p&amp;ss &lt;w&apos;&quot;r+d&gt;/""",
    ],
)
def test_marks_are_found_as_programs_escape_them(written: str) -> None:
    """URLs, JSON and HTML write some marks in their own way, and each library too."""
    with pytest.raises(EchoedError):
        passed(f"you sent {written}".encode(), [], MARKS)


@pytest.mark.parametrize("before", [b"", b"u", b"us"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_no_digit_of_base64_that_depends_on_its_neighbours_is_looked_for(
    encode: Callable[[bytes], bytes], before: bytes
) -> None:
    """Whatever stands around it, and in both alphabets."""
    secret = b"\xfb\xff\xbe key \xfb\xff\xbe"
    for around in (b"\x00", b"\xff"):
        written = encode(around * len(before) + secret + around)
        with pytest.raises(EchoedError):
            passed(written, [], secret)


def test_what_is_too_short_would_stand_in_every_answer() -> None:
    """Four bytes are looked for, three are not."""
    with pytest.raises(EchoedError):
        passed(b"a 4242 b", [], b"4242")
    assert passed(b"a 424 b", [], b"424") == b"a 424 b"


def passed(data: bytes, cuts: list[int], secret: bytes = SECRET) -> bytes:
    echo = Echo(needles(secret))
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[a:b] for a, b in pairwise(places)]
    out = b""
    for piece in pieces:
        out += echo.pass_on(piece)
    return out + echo.rest()


@given(
    st.sampled_from(WRITTEN),
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.lists(st.integers(0, 120), max_size=6),
)
def test_a_written_credential_stops_the_answer(
    written: bytes, before: bytes, after: bytes, cuts: list[int]
) -> None:
    """Whatever stands around it and wherever pieces end, it is found."""
    with pytest.raises(EchoedError):
        passed(before + written + after, cuts)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_what_holds_none_passes_as_it_is(data: bytes, cuts: list[int]) -> None:
    """An answer without the credential is passed on byte for byte."""
    assert passed(data, cuts, b"\x00never in random bytes\x00") == data


def test_the_beginning_of_a_credential_waits_for_the_rest() -> None:
    """No part of a credential that is split has left when it is found."""
    echo = Echo(needles(SECRET))
    assert echo.pass_on(b"data sk/live+5") == b"data "
    with pytest.raises(EchoedError):
        echo.pass_on(b"1HqLyj=Wd?rj")
    echo = Echo(needles(SECRET))
    assert echo.pass_on(b"data sk/live+5") == b"data "
    assert echo.pass_on(b"other") == b"sk/live+5other"
    assert (echo.pass_on(b"more"), echo.rest()) == (b"more", b"")


async def test_a_header_of_the_answer_holds_no_credential() -> None:
    """Neither its name nor its value, among any others."""
    key = needles(b"sk-live-51H")
    for pair in ((b"x-sk-live-51H", b"1"), (b"x-key", b"is sk-live-51H")):
        with pytest.raises(EchoedError):
            await search_headers([(b"a", b"b"), pair], key, next_turn)
    await search_headers([(b"x-sk-live", b"-51H")], key, next_turn)


@given(
    st.sampled_from([31, 15, -15]),
    st.lists(st.integers(0, 120), max_size=8),
    st.booleans(),
)
async def test_a_compressed_credential_is_found_wherever_pieces_end(
    bits: int, cuts: list[int], found: bool
) -> None:
    """Gzip, zlib and bare deflate are searched; all else passes byte for byte."""
    packer = zlib.compressobj(wbits=bits)
    text = b"you sent " + (SECRET if found else SECRET[:-1]) + b"!"
    data = packer.compress(text) + packer.flush()
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    echo, out = PackedEcho(needles(SECRET)), b""
    with pytest.raises(EchoedError) if found else nullcontext():
        for a, b in pairwise(places):
            out += await echo.pass_on(data[a:b])
        assert out + echo.rest() == data


async def until_found(pieces: list[bytes]) -> tuple[bytes, bool]:
    """Return what passes of a packed answer, and whether a credential stopped it."""
    echo, out = PackedEcho(needles(SECRET)), b""
    try:
        for piece in pieces:
            out += await echo.pass_on(piece)
    except EchoedError:
        return out, True
    return out, False


@pytest.mark.parametrize("bits", [31, 15, -15])
async def test_a_compressed_credential_is_found_byte_by_byte(bits: int) -> None:
    """No byte leaves that would unpack to its beginning, in any part of the answer."""
    packer = zlib.compressobj(level=0, wbits=bits)
    data = packer.compress(b"you sent " + SECRET) + packer.flush()
    out, found = await until_found([data[n : n + 1] for n in range(len(data))])
    assert found
    assert out == data[: data.index(SECRET)]


async def test_each_member_of_a_gzip_answer_is_searched() -> None:
    """RFC 1952 section 2.2: a program unpacks all of them."""
    first, second = gzip.compress(b"nothing"), gzip.compress(SECRET)
    for pieces in ([first + second], [first, second]):
        _, found = await until_found(pieces)
        assert found


async def test_an_answer_is_searched_to_the_end_of_what_it_unpacks_to() -> None:
    """Also what zlib still has to give when all of the answer was read."""
    end = b"\xf0" + SECRET[3:] + SECRET
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(b"a" * (262_145 - len(end)) + end) + packer.flush()
    _, found = await until_found([data])
    assert found


def percent(text: bytes, times: int) -> bytes:
    return b"".join(b"%%%b%02x" % (b"25" * (times - 1), one) for one in text)


def mixed_case(text: bytes) -> bytes:
    return bytes(
        one ^ 32 if one in b"abcdef" and at % 3 else one for at, one in enumerate(text)
    )


def mime(text: bytes, line: int, end: bytes, before: int) -> bytes:
    digits = base64.b64encode(b"x" * before + text + b"y" * 40)
    return end.join(digits[at : at + line] for at in range(0, len(digits), line))


def json_lines(text: bytes) -> bytes:
    return json.dumps(base64.encodebytes(b"a" * 40 + text + b"b").decode()).encode()


LONG = b"sk-test_" + bytes(range(48, 58)) * 12
ENCODED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "base64": lambda s: base64.b64encode(b"user:" + s),
    "base64url": lambda s: base64.urlsafe_b64encode(b"u:" + s),
    "base64 in json": lambda s: base64.b64encode(b"u:" + s).replace(b"/", b"\\/"),
    "base64 in url": lambda s: quote(base64.b64encode(s), safe="").encode(),
    "mime 76": lambda s: mime(s, 76, b"\r\n", 31),
    "mime 64": lambda s: mime(s, 64, b"\n", 40),
    "mime indented": lambda s: mime(s, 60, b"\n    ", 25),
    "mime in json": json_lines,
    "hex": lambda s: s.hex().encode(),
    "HEX": lambda s: s.hex().upper().encode(),
    "mixed hex": lambda s: mixed_case(s.hex().encode()),
    "percent": lambda s: percent(s, 1),
    "PERCENT": lambda s: percent(s, 1).upper(),
    "percent twice": lambda s: percent(s, 2),
    "some percent": lambda s: percent(s[:1], 1) + s[1:4] + percent(s[4:5], 1) + s[5:],
    "json": lambda s: b"".join(b"\\u%04x" % one for one in s),
    "JSON": lambda s: b"".join(b"\\u%04X" % one for one in s),
    "json in json": lambda s: b"".join(b"\\\\u%04x" % one for one in s),
    "code points": lambda s: b"".join(b"\\u{%x}" % one for one in s),
    "CODE POINTS": lambda s: b"".join(b"\\u{%06X}" % one for one in s),
    "code points in json": lambda s: b"".join(b"\\\\u{%x}" % one for one in s),
    "mime by code points": lambda s: mime(s, 60, b"\\u{a}", 25),
    "C": lambda s: b"".join(b"\\U%08x" % one for one in s),
    "escape()": lambda s: b"".join(b"%%u%04X" % one for one in s),
    "escape() in url": lambda s: b"".join(b"%%25u%04x" % one for one in s),
    "script": lambda s: b"".join(b"\\x%02x" % one for one in s),
    "decimal": lambda s: b"".join(b"&#%d;" % one for one in s),
    "leading zeros": lambda s: b"".join(b"&#%08d;" % one for one in s),
    "hexadecimal": lambda s: b"".join(b"&#x%x;" % one for one in s),
    "HEXADECIMAL": lambda s: b"".join(b"&#X%04X;" % one for one in s),
    "escaped twice": lambda s: b"".join(b"&amp;#%d;" % one for one in s),
    "some of each": lambda s: b"\\u0073&#107;%2f" + s[3:] if s is SECRET else s,
    "utf-16": lambda s: s.decode().encode("utf-16-le"),
    "UTF-16": lambda s: s.decode().encode("utf-16-be"),
    "utf-32": lambda s: s.decode().encode("utf-32-le"),
    "UTF-32": lambda s: s.decode().encode("utf-32-be"),
}


@pytest.mark.parametrize("how", ENCODED)
@given(
    st.sampled_from([SECRET, LONG, b"4242-key"]),
    st.binary(max_size=30),
    st.lists(st.integers(0, 900), max_size=8),
)
@settings(max_examples=15, deadline=None)
def test_each_encoding_is_found_wherever_pieces_end(
    how: str, secret: bytes, before: bytes, cuts: list[int]
) -> None:
    """And no piece that left before holds the first half of it."""
    written = ENCODED[how](secret)
    echo, out = Echo(needles(secret)), b""
    data = before + b"|" + written + b"|" + before
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    with pytest.raises(EchoedError):  # noqa: PT012 - which piece stops is not said
        for a, b in pairwise(places):
            out += echo.pass_on(data[a:b])
    if "mime" not in how:
        start = data.index(written)
        assert len(out) <= start + 4 * len(b"user:")


@pytest.mark.parametrize(
    "how", ["plain", "base64", "mime 76", "json", "decimal", "hex"]
)
@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-16", "utf-32-be"])
@given(st.lists(st.integers(0, 900), max_size=8), st.booleans())
@settings(max_examples=10, deadline=None)
def test_a_declared_charset_is_read(
    how: str, codec: str, cuts: list[int], found: bool
) -> None:
    """With any encoding in it, in both byte orders, wherever pieces end."""
    text = "sent: " + ENCODED[how](SECRET if found else SECRET[::-1]).decode()
    data = text.encode(codec)
    echo, out = Echo(needles(SECRET)), b""
    echo.width = 4 if "32" in codec else 2
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    with pytest.raises(EchoedError) if found else nullcontext():
        for a, b in pairwise(places):
            out += echo.pass_on(data[a:b])
        assert out + echo.rest() == data


PARTS = rb"% 25 73 \ u00 u{ } U000000 &# &amp; x ; 115 k s sk c2sv \n 0 / 736b".split()
PARTS += b"\r\n", b"\0"
ODD = st.lists(st.sampled_from(PARTS), max_size=60).map(b"".join)


@given(ODD, st.lists(st.integers(0, 200), max_size=8), st.sampled_from([1, 2, 4]))
@settings(max_examples=300, deadline=None)
def test_what_looks_like_escapes_passes_as_it_is(
    data: bytes, cuts: list[int], width: int
) -> None:
    """Byte for byte, whatever is held back in between."""
    echo = Echo(needles(SECRET))
    echo.width = width
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    out = b"".join(echo.pass_on(data[a:b]) for a, b in pairwise(places))
    assert out + echo.rest() == data


async def test_a_header_is_searched_in_each_encoding() -> None:
    """As a redirect has it, for instance, also behind many other escapes."""
    for how in ("percent", "percent twice", "hex", "base64url", "decimal"):
        for before in (b"", b"%6b" * 20_000):
            value = b"/x?a=" + before + ENCODED[how](SECRET)
            with pytest.raises(EchoedError):
                await search_headers([(b"location", value)], needles(SECRET), next_turn)


def test_the_end_of_a_stream_is_not_held_back_for_nothing() -> None:
    """An event that ends without the beginning of a credential leaves at once."""
    echo = Echo(needles(SECRET))
    for event in (b"data: 1\n\n", b'data: {"a": "b\\n"}\n\n', b"data: 100%\n\n"):
        assert echo.pass_on(event) == event


def test_an_answer_full_of_escapes_is_searched_in_small_parts() -> None:
    """So that others have their turn before each part, the first one too."""
    echo = Echo(needles(SECRET))
    assert not echo.is_slow(b"plain text " * 6_000)
    assert echo.window == 65_536
    assert echo.is_slow(b"%41a" * 16_000)
    assert echo.window == 8_192
    assert echo.is_slow(b"plain text")


@pytest.mark.parametrize("text", [b"\\", b"\\n ", b"%25", b"&amp;", b"k"])
def test_a_long_credential_is_looked_for_in_linear_time(text: bytes) -> None:
    """Text of the service's choice costs each byte of it the same.

    Where each backslash of a run is read to the end of the run, the first part alone
    takes minutes here.
    """
    echo = Echo(needles(b"k" * 1_000 + bytes(range(97, 123)) * 100))
    data = text * (262_144 // len(text))
    passed_on = [
        echo.pass_on(data[at : at + 8_192]) for at in range(0, len(data), 8_192)
    ]
    assert b"".join((*passed_on, echo.rest())) == data
