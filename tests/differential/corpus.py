"""A grammar of hostile requests: each rule that two programs apply differently.

Most parts of a case are sound and one or two are not, so that many cases are forwarded
and each oddity is met alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from differential.reading import Message

Field = tuple[bytes, bytes]

SMUGGLED = (
    b"POST /json/smuggled?amount=9 HTTP/1.1\r\nHost: service.test\r\n"
    b"Content-Length: 0\r\n\r\n"
)


@dataclass(frozen=True)
class Case:
    """One request for a service, as an agent sends it."""

    method: bytes
    target: bytes
    fields: tuple[Field, ...]
    body: bytes
    framing: str
    """``length``, ``chunked`` or ``none``, or an unsound one of `_UNSOUND`."""
    cut: int = 7
    """The size of a chunk."""

    def head(self, base: bytes, *extra: Field) -> bytes:
        """Return the request line and headers, without those that frame the body."""
        line = self.method + b" " + base + self.target + b" HTTP/1.1"
        fields = (*extra, *self.fields)
        return b"\r\n".join([line, *(n + b": " + v for n, v in fields)])

    def request(self, base: bytes, *extra: Field) -> bytes:
        """Return the whole request below *base*."""
        head, size = self.head(base, *extra), len(self.body)
        length = b"\r\nContent-Length: %d" % size
        chunked = b"\r\nTransfer-Encoding: chunked"
        match self.framing:
            case "none":
                return head + b"\r\n\r\n"
            case "chunked":
                return head + chunked + b"\r\n\r\n" + self.chunks(b"")
            case "chunk-extension":
                return head + chunked + b"\r\n\r\n" + self.chunks(b";amount=9")
            case "both":
                return head + length + chunked + b"\r\n\r\n" + self.chunks(b"")
            case "twice":
                return head + length + length + b"\r\n\r\n" + self.body
            case "short":
                stated = b"\r\nContent-Length: %d" % (size // 2)
                return head + stated + b"\r\n\r\n" + self.body
            case "obscure":
                stated = b"\r\nTransfer-Encoding: identity, chunked"
                return head + stated + b"\r\n\r\n" + self.chunks(b"")
            case "trailer":
                end = self.chunks(b"")[:-2] + b"X-HTTP-Method-Override: DELETE\r\n\r\n"
                return head + chunked + b"\r\n\r\n" + end
        return head + length + b"\r\n\r\n" + self.body

    def chunks(self, extension: bytes) -> bytes:
        """Return the body in chunks."""
        pieces = [
            self.body[at : at + self.cut] for at in range(0, len(self.body), self.cut)
        ]
        framed = [b"%x%s\r\n%s\r\n" % (len(p), extension, p) for p in pieces]
        return b"".join(framed) + b"0\r\n\r\n"

    def names(self) -> frozenset[str]:
        """Return the names of its headers in lower case, less those for the gateway."""
        ours = {(b"Prefer", b"respond-async")}
        return frozenset(n.decode().lower() for n, _ in {*self.fields} - ours)

    def asked(self) -> Message | None:
        """Return the request as one who knows its framing reads it; None if unsound."""
        if self.framing not in {"length", "chunked", "none"}:
            return None
        fields = tuple(
            (n.decode().lower(), v.decode("latin-1").strip()) for n, v in self.fields
        )
        body = b"" if self.framing == "none" else self.body
        target = self.target.decode("latin-1")
        return Message(self.method.decode(), target, fields, body)


def _of(*texts: bytes | str) -> st.SearchStrategy[bytes]:
    found = [text if isinstance(text, bytes) else text.encode() for text in texts]
    return st.sampled_from(found)


def _mostly(sound: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> Any:
    """Draw from *odd* one time in ten."""
    return st.integers(0, 9).flatmap(lambda n: sound if n else odd)


# Method, path, query

_METHODS = _mostly(
    _of("POST", "POST", "POST", "PUT", "PATCH", "GET", "DELETE"),
    _of("HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "post", "Get", "M-SEARCH"),
)
_KINDS = ("json", "form", "multipart", "any", "opaque", "read")
_PLAIN_SEGMENT = _of("a", "users", "42", "B", "x.y", "a-b", "t~", "v1.json", "d@e")
_ODD_SEGMENT = _of(
    "%41", "%2f", "%2F", "..", "%2e%2e", "%2E", ".", "", ";v=1", "x%3bb=1", "%25", "+",
    "%252f", "%20", "!$&'()*,=:@", "%21%24", "%00", "%7f", "%0a", "%c3%a9", "%ff", "|",
    "%C3%A9", "\\", "%5c", "é", "%", "%4", "a%2", "ａ".encode(), "%EF%BD%81", "{x}",
    "%C5%BF", '"', "^", "`", "a=b", "%3F", "%23", "index.php", "%E2%80%AE",
)  # fmt: skip
_SEGMENTS = st.lists(_mostly(_PLAIN_SEGMENT, _ODD_SEGMENT), min_size=1, max_size=3)

_NAME = _of("amount", "to", "count", "q", "page", "filter", "a", "id")
_ALIKE = _of(
    "Amount", "AMOUNT", "amount[]", "amount[0]", "amount.x", "amount[x]", "a-mount",
    "amount ", " amount", "a_mount", "_method", "method", "$httpMethod", "_METHOD",
    "to[]", "to.x", "to[a][b]", "To", "ｔｏ", "count[]", "x_y", "x.y", "x y", "x-y",
    "[", "]", "[to]", "to]", "a]b", "", "é", "__proto__", "constructor",
    "hasOwnProperty",
    "to[__proto__]", "_Method", "X-HTTP-Method-Override", "cou\u0000nt", "c\u017f", "0",
)  # fmt: skip
_VALUE = _of("1", "2", "42", "abc", "a b", "x+y", "", "é", "a&b", "a=b", "USD")
_ODD_VALUE = _of(
    "DELETE", "delete", "GET", "1.50", "-0", "01", " 1", "1 ", "1;to=2", "%31",
    "\u2028",
    "\r\nX-A: b", "\n", "\t", "a\x7f", "\u202e", "😀", "'\"<>", "[1]",
    '{"a":1}', "true",
    "null", "1e3", "٣", "#", "?", "%", "\\",
)  # fmt: skip
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


@st.composite
def _escaped(draw: st.DrawFn, text: bytes) -> bytes:
    """Escape a text in one of the ways that mean it."""
    how = draw(st.sampled_from("uuuulap"))
    loose = _SAFE | frozenset(b"[]$@:/;,!*'()?") if how in "pl" else _SAFE
    if how == "a":
        loose = frozenset()
    form = "%%%02x" if how == "l" else "%%%02X"
    found = b"".join(
        bytes([one]) if one in loose else (form % one).encode() for one in text
    )
    return found.replace(b"%20", b"+") if how in "up" else found


_PAIR = st.tuples(_mostly(_NAME, _ALIKE), _mostly(_VALUE, _ODD_VALUE))
_ODD_PIECE = _of(
    "", "a", "=", "=1", "a==", "a=%", "a=%zz", "a=%ff", "a=%00", "%00=1", "a=1;to=2",
    "a=%C3", "a=+%2B", "?a=1", "&", ";", "a=\xff".encode("latin-1"), "a=%u0041", "to",
)  # fmt: skip


@st.composite
def _pairs(draw: st.DrawFn) -> bytes:
    pieces = []
    for name, value in draw(st.lists(_PAIR, max_size=4)):
        pieces.append(draw(_escaped(name)) + b"=" + draw(_escaped(value)))
    if not draw(st.integers(0, 7)):
        pieces.insert(draw(st.integers(0, len(pieces))), draw(_ODD_PIECE))
    return b"&".join(pieces)


_QUERY = st.one_of(
    st.just(b""), st.just(b""), st.just(b"?"), _pairs().map(lambda pairs: b"?" + pairs)
)


@st.composite
def _target(draw: st.DrawFn, kind: str) -> bytes:
    segments = [kind.encode(), *draw(_SEGMENTS)]
    tail = draw(_of("", "", "", "", "/"))
    return b"/" + b"/".join(segments) + tail + draw(_QUERY)


# Headers

_FIELD: st.SearchStrategy[Field] = st.sampled_from(
    [
        (b"Accept", b"application/json"),
        (b"Accept-Language", b"de, en;q=0.5"),
        (b"If-Match", b'"abc"'),
        (b"If-None-Match", b"*"),
        (b"Idempotency-Key", b"5f0c"),
        (b"Stripe-Version", b"2026-01-01"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"tracestate", b"vendor=1"),
        (b"User-Agent", b"agent/1"),
        (b"Accept-Encoding", b"gzip, br"),
        (b"X-Request-Id", b"abc"),
    ]
)
_ODD_FIELD: st.SearchStrategy[Field] = st.sampled_from(
    [
        (b"X-HTTP-Method-Override", b"DELETE"),
        (b"X-HTTP-Method", b"DELETE"),
        (b"x-method-override", b"PUT"),
        (b"X_HTTP_Method_Override", b"DELETE"),
        (b"X-HTTP-Verb", b"DELETE"),
        (b"X-Forwarded-For", b"127.0.0.1"),
        (b"X-Forwarded-Host", b"evil.test"),
        (b"X-Forwarded-Prefix", b"/admin"),
        (b"X-Original-URL", b"/admin"),
        (b"X-Rewrite-URL", b"/admin"),
        (b"Forwarded", b"for=127.0.0.1"),
        (b"Range", b"bytes=0-1"),
        (b"If-Range", b'"abc"'),
        (b"Content-Encoding", b"gzip"),
        (b"Content-Encoding", b"identity"),
        (b"Content-Language", b"en"),
        (b"Content-Disposition", b"attachment"),
        (b"Content-MD5", b"Q2hlY2sgSW50ZWdyaXR5IQ=="),
        (b"Cookie", b"session=1"),
        (b"Connection", b"content-type"),
        (b"Connection", b"Stripe-Version"),
        (b"Proxy-Authorization", b"Basic YTpi"),
        (b"TE", b"trailers"),
        (b"Upgrade", b"h2c"),
        (b"Prefer", b"respond-async"),
        (b"Prefer", b"return=minimal"),
        (b"Depth", b"infinity"),
        (b"Overwrite", b"T"),
        (b"Destination", b"/json/x"),
        (b"Stripe-Account", b"acct_2"),
        (b"X-Dry-Run", b"1"),
        (b"X-Goog-If-Match", b"1"),
        (b"baggage", b"a=1"),
        (b"Accept", b"text/plain"),
        (b"Stripe-Version", b"2025-01-01"),
        (b"Stripe_Version", b"2020-01-01"),
        (b"X-Bytes", b"\xff\xfe"),
        (b"Stripe-Version", b"a\tb"),
        (b"X-Empty", b""),
        (b"Authorization", b"Bearer another"),
        (b"Host", b"evil.test"),
        (b"Expect", b"100-continue"),
        (b"Trailer", b"X-HTTP-Method-Override"),
    ]
)


@st.composite
def _fields(draw: st.DrawFn) -> list[Field]:
    found = draw(st.lists(_FIELD, max_size=2))
    if not draw(st.integers(0, 9)):
        found.append(draw(_ODD_FIELD))
    return found


# Bodies

_JSON_TYPES = _mostly(
    _of("application/json", "application/json", "application/vnd.api+json"),
    _of(
        "application/json; charset=utf-8", "application/json;charset=UTF-8",
        "application/json; charset=utf-7", "application/json; charset=utf-16",
        'application/json; charset="utf-8"', "APPLICATION/JSON", "text/json",
        "application/jsonrequest", "text/plain; a=b/json",
        "application/json, text/plain",
        "application/json; a=urlencoded", "application/x-json", "text/plain",
        "image/png",
        "application/json;", "application/json; charset=utf-8; charset=utf-16",
        "application/x-www-form-urlencoded", "multipart/form-data; boundary=b",
    ),
)  # fmt: skip
_FORM_TYPES = _mostly(
    _of("application/x-www-form-urlencoded"),
    _of(
        "application/x-www-form-urlencoded; charset=utf-8",
        "application/x-www-form-urlencoded; charset=latin-1",
        "application/x-www-form-urlencoded;charset=utf-16", "application/json",
        "APPLICATION/X-WWW-FORM-URLENCODED", "application/x-www-form-urlencoded ,a/b",
        "application/x-www-form-urlencoded; a=/json", "text/plain", "*/*",
        "application/x-www-form-urlencoded; boundary=b",
    ),
)  # fmt: skip

_SCALAR = st.sampled_from(
    ["1", "42", "1.50", "0", "-0", "1e2", "1E+2", "0.1", "9007199254740991", '"a"',
    '""', "true", "null", '"\\u00e9"', '"é"', '"\\u0000"',
     '"\\ud83d\\ude00"', '"a\\/b"', '"\\u2028"', "[]", "{}", "-1.0e-5", '"DELETE"']
)  # fmt: skip
_ODD_SCALAR = st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x10", "1e400", "'a'",
     '"\\ud800"', '"\\udc00\\ud800"', '"a\nb"', '"\\x41"', "undefined", "[1,]", "{,}",
     "9007199254740993", "-123456789012345678901234567890", "9007199254740993.0",
     '"\t"', "1 2", "/* c */ 1", "nul", "[" * 70 + "]" * 70,
     '{"a":' * 65 + "1" + "}" * 65]
)  # fmt: skip
_JSON_ALIKE = st.sampled_from(
    ["Amount", "AMOUNT", "amount ", "a_mount", "am\\u006funt", "\\u0061mount",
    "_method",
     "method", "Method", "amount\\u0000", "ａｍｏｕｎｔ", "to", "TO", "t\\u006f",
     "__proto__", "to[]", "amount[]", "constructor", "", "é", "e\\u0301",
     "$httpMethod", "1", "0",
     "k",
     "K", "\\u017f", "s", "To", "count", "Count"]
)  # fmt: skip
_JSON_NAME = st.sampled_from(["amount", "to", "count", "note", "b", "a", "items", "id"])
_BLANK = st.sampled_from(["", "", "", "", " ", "\n", "\t", "\r\n "])


@st.composite
def _object(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    names = draw(st.lists(_mostly(_JSON_NAME, _JSON_ALIKE), max_size=4))
    if draw(st.integers(0, 7)):
        names = list(dict.fromkeys(names))
    members = [f'"{name}"{draw(_BLANK)}:{draw(_BLANK)}{draw(values)}' for name in names]
    return "{" + ",".join(members) + draw(_BLANK) + "}"


_VALUES = st.integers(0, 9).flatmap(
    lambda n: (
        _ODD_SCALAR
        if n == 0
        else _object(_SCALAR)
        if n == 1
        else st.lists(_SCALAR, max_size=3).map(lambda some: f"[{','.join(some)}]")
        if n == 2
        else _SCALAR
    )
)


@st.composite
def _json(draw: st.DrawFn) -> bytes:
    text = draw(_object(_VALUES))
    match draw(st.integers(0, 30)):
        case 0:
            return b"\xef\xbb\xbf" + text.encode()
        case 1:
            return text.encode("utf-16")
        case 2:
            return text.encode() + draw(_of(" ", "\n", "{}", "//c", "\x00", "]", ",1"))
        case 3:
            return draw(
                _of("1", '"a"', "null", "[]", '[{"amount":1}]', "", " ", "\x00")
            )
        case 4:
            return text.encode()[:-1]
        case 5:
            return text.encode().replace(b"a", b"\xe9", 1)
        case 6:
            return b"&amount=9000&to=eve&" + text.encode()
        case 7:
            return b'{"note":"&amount=9000&"}'
    return text.encode()


@st.composite
def _form(draw: st.DrawFn) -> bytes:
    match draw(st.integers(0, 24)):
        case 0:
            return draw(_of('{"amount":1}', "[1]", " ", "&&", "=", "\xef\xbb\xbfa=1"))
        case 1:
            return draw(_pairs()).decode("latin-1").encode("utf-16")
        case 2:
            return draw(_pairs()) + draw(
                _of("\r\n", "\n", "\x00", "&", "#", "&_method=")
            )
        case 3:
            # PHP, Node and Go read so many fields and no more.
            many = draw(st.sampled_from([990, 999, 1_000, 1_010]))
            return b"&".join(b"f%d=" % number for number in range(many)) + (
                b"&" + draw(_pairs())
            )
    return draw(_pairs())


_FILENAMES = st.sampled_from(
    ["a.txt", "b.png", "../../etc/passwd", "C:\\x\\y.txt", "é.txt", "a%22b", "",
    "a;b=c",
     "a%2fb", "&amp;", "x.php\\u0000.png"]
)  # fmt: skip
_CONTENTS = _of("1", "42", "abc", "", "é", "a\r\nb", "a\nb", SMUGGLED,
    "\xff".encode("latin-1"),
                "--b", "\r\n--bb\r\n", "\r\n--b x\r\n")  # fmt: skip
_PART_EXTRA = st.sampled_from(
    ["", "", "", "", "\r\nContent-Type: text/plain",
    "\r\nContent-Type: application/json",
     "\r\nContent-Type: application/octet-stream", "\r\nContent-Type: image/png",
     "\r\nContent-Type: text/plain; charset=utf-16",
     "\r\nContent-Transfer-Encoding: base64",
     "\r\nX-Other: 1", "\r\nContent-Transfer-Encoding: quoted-printable",
     '\r\nContent-Disposition: form-data; name="to"']
)  # fmt: skip


@st.composite
def _part(draw: st.DrawFn) -> bytes:
    name = draw(_mostly(_NAME, _ALIKE)).decode().replace('"', "%22")
    head = f'Content-Disposition: form-data; name="{name}"'
    match draw(st.integers(0, 39)):
        case 0 | 1 | 2 | 3 | 10 | 11 | 12 | 13 | 14 | 15:
            head += f'; filename="{draw(_FILENAMES)}"\r\nContent-Type: image/png'
        case 4:
            head += "; filename*=UTF-8''a.txt"
        case 5:
            head = head.replace('"', "")
        case 6:
            head = head.replace("form-data", "attachment")
        case 7:
            head += '; name="to"'
        case 8:
            head = head.replace("Content-Disposition: ", "content-disposition:")
        case 9:
            head = "Content-Type: text/plain"
        case _:
            head += draw(_PART_EXTRA)
    return head.encode() + b"\r\n\r\n" + draw(_mostly(_VALUE, _CONTENTS))


_BOUNDED = b"multipart/form-data; boundary=b"
_MULTIPART_TYPES = _of(
    'multipart/form-data; boundary="b"', "multipart/form-data; boundary=b; boundary=c",
    "multipart/form-data", "multipart/mixed; boundary=b",
    "multipart/form-data; boundary=B",
    "multipart/form-data; boundary=b; charset=utf-16", "application/json",
    "Multipart/Form-Data; Boundary=b", "application/x-www-form-urlencoded",
)  # fmt: skip
_MULTIPART_CHANGES: st.SearchStrategy[Callable[[bytes], bytes]] = st.sampled_from(
    [
        lambda body: b"preamble\r\n" + body,
        lambda body: body + b"epilogue",
        lambda body: body.replace(b"--b--\r\n", b""),
        lambda body: body.replace(b"\r\n", b"\n"),
        lambda body: body.replace(b"--b\r\n", b"--b \r\n", 1),
        lambda body: body.replace(b"--b\r\n", b"--b--\r\n--b\r\n", 1),
        lambda _: b"--b--\r\n",
    ]
)


@st.composite
def _multipart(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return a Content-Type and a body."""
    parts = draw(st.lists(_part(), min_size=1, max_size=3))
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    if not draw(st.integers(0, 9)):
        body = draw(_MULTIPART_CHANGES)(body)
    return draw(_mostly(st.just(_BOUNDED), _MULTIPART_TYPES)), body


_OPAQUE = st.one_of(
    st.binary(max_size=64), st.just(SMUGGLED), st.just(SMUGGLED * 3), _json(), _form()
)
_OPAQUE_TYPES = _mostly(
    _of("image/png", "image/jpeg", "image/svg+xml"),
    _of("image/png; charset=utf-8", "image/x+json", "text/plain", "image/",
    "image/png, a/b"),
)  # fmt: skip


@st.composite
def _content(draw: st.DrawFn, kind: str) -> tuple[list[bytes], bytes]:
    """Return the Content-Type lines and a body."""
    if kind in {"any", "read"}:
        kind = draw(st.sampled_from(["json", "form"]))
    if not draw(st.integers(0, 15)):
        kind = draw(st.sampled_from(["json", "form", "multipart", "opaque"]))
    if kind == "multipart":
        media, body = draw(_multipart())
    else:
        types = {"json": _JSON_TYPES, "form": _FORM_TYPES, "opaque": _OPAQUE_TYPES}
        bodies = {"json": _json(), "form": _form(), "opaque": _OPAQUE}
        media, body = draw(types[kind]), draw(bodies[kind])
    match draw(st.integers(0, 24)):
        case 0:
            return [], body
        case 1:
            return [media, draw(st.one_of(_JSON_TYPES, _FORM_TYPES))], body
        case 2:
            return [b""], body
    return [media], body


_IN_ONE_RUN = 10
_APART = 10_000
_UNSOUND = ("both", "twice", "short", "obscure", "trailer", "chunk-extension")


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    method, kind = draw(_METHODS), draw(st.sampled_from(_KINDS))
    target, fields = draw(_target(kind)), draw(_fields())
    bodiless = method in {b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE"}
    if draw(st.integers(0, 5)) < (5 if bodiless else 1):
        empty = draw(st.sampled_from(["none", "none", "length", "chunked"]))
        if empty != "none" and draw(st.booleans()):
            fields.append((b"Content-Type", draw(_JSON_TYPES)))
        return Case(method, target, tuple(fields), b"", empty)
    types, body = draw(_content(kind))
    framing = draw(
        _mostly(st.sampled_from(["length", "length", "chunked"]), _mostly_sound)
    )
    lines = [(b"Content-Type", one) for one in types]
    cut = draw(st.sampled_from([1, 7, 1000]))
    return Case(method, target, (*lines, *fields), body, framing, cut)


_mostly_sound = st.sampled_from(("length", *_UNSOUND))


def corpus(size: int, number: int) -> Sequence[Case]:
    """Return *size* cases, the same ones for the same *number*.

    They come from many short runs, since examples of one run resemble each other.
    """
    found: dict[Case, None] = {}
    number *= _APART
    while len(found) < size:
        found.update(dict.fromkeys(_run(number)))
        number += 1
    return list(found)[:size]


def _run(number: int) -> list[Case]:
    found: list[Case] = []

    @seed(number)
    @settings(
        max_examples=_IN_ONE_RUN,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(_cases())
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found
