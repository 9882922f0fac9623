"""Compare a call on the wire with its ledger row and with a server's report."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from differential.reading import Call, Message, Part, plain, sha256

Report = Mapping[str, Any]

OURS = frozenset(
    (
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "user-agent",
    )
)
"""Headers that the gateway writes itself, so that the row does not repeat them."""
TRACE = frozenset(("traceparent", "tracestate"))
UNNAMED = frozenset(
    (
        "content-encoding",
        "expect",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "upgrade",
    )
)
"""Headers of one hop (RFC 9110 section 7.6.1), which no intermediary forwards, and the
encoding of a body that is not there or not encoded."""
_NUMERIC = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DROPPED_NAMES, _DROPPED_BYTES = 32, 64


@dataclass(frozen=True)
class Rules:
    """What a server is known to change in its own report, each with its reason."""

    nests: bool = False
    """It builds objects from names with brackets, so names are compared by their base:
    qs, Rack and PHP. Each base has to hold the call's values, and no other base may
    exist: a value that moves between two names is still a difference."""
    last_wins: bool = False
    """Of a name repeated without brackets it keeps the last value: Rack, PHP."""
    php_names: bool = False
    """``.`` and a blank in the name of a variable become ``_``: PHP."""
    unread: frozenset[str] = frozenset()
    """Names that it leaves out: PHP the empty one, qs ``__proto__``."""
    basename: bool = False
    """It keeps the last segment of a file's name: PHP, Go, Django, Rack."""
    strips: bool = False
    """It drops the blanks around the name of a part: Django."""
    unescapes: bool = False
    """It undoes percent-escapes in the name of a file: Rack."""
    forms_by_post: bool = False
    """It reads a multipart body of ``POST`` alone: PHP."""
    multipart: bool = True
    """Whether it has a reader of multipart: Node's http and http.server have none."""
    chunked: bool = True
    """Whether it reads a body without Content-Length: Django does not."""
    lazy: bool = False
    """It leaves bodies unread."""


def cut_and_row(
    message: Message, row: Mapping[str, Any], body: bytes, rules: Rules
) -> Iterator[str]:
    """Yield how a request whose body ends early differs from its row.

    A server that leaves bodies unread may answer before the body was sent; the gateway
    then sends no more of it, and the row says so.

    Args:
        message: the request as it arrived.
        row: the details of its attempt and its result.
        body: as the agent sent it.
        rules: of the server.
    """
    if not rules.lazy or row.get("request_whole") is not False:
        yield f"on the wire: a body that ends early, and the row is {row}"
    given = body[: row.get("body_bytes") or 0]
    if given and sha256(given) != row.get("body_sha256"):
        yield f"the row's digest is not of its first {len(given)} bytes: {row}"
    if not body.startswith(message.body) or len(message.body) > row["bytes_out"]:
        yield f"the wire has {message.body!r} of the body, and the row is {row}"


def wire_and_row(
    message: Message, row: Mapping[str, Any], asked: frozenset[str]
) -> Iterator[str]:
    """Yield how a request on the wire differs from the call in the ledger.

    Args:
        message: the request as it arrived.
        row: the details of its attempt and its result.
        asked: the names of the headers that the agent sent, in lower case.
    """
    path, _, query = message.target.partition("?")
    sent = {n: v for n, v in message.fields if n not in OURS | TRACE}
    pairs = {
        "method": (message.method, row.get("method")),
        "path": (path, row.get("path")),
        "query": (query, row.get("query") or ""),
        "headers": (sent, row.get("headers")),
        "body_bytes": (len(message.body), row.get("body_bytes")),
        "body_sha256": (sha256(message.body), row.get("body_sha256")),
    }
    for name, (wire, ledger) in pairs.items():
        if wire != ledger:
            yield f"{name}: the wire has {wire!r}, the ledger has {ledger!r}"
    if message.body and row.get("request_whole") is False:
        yield "the wire has the whole request, and the row does not"
    names = [name for name, _ in message.fields]
    if len(names) != len(set(names)):
        yield f"a header appears twice on the wire: {message.fields!r}"
    dropped = {name.lower() for name in row.get("dropped") or ()}
    if both := dropped.intersection(names):
        yield f"headers that count as dropped were sent: {both}"
    known = dropped.union(names, OURS, TRACE, UNNAMED)
    gone = {name for name in asked if name[:_DROPPED_BYTES] not in known}
    if gone and len(dropped) < _DROPPED_NAMES:
        yield f"headers that vanished without a word: {sorted(gone)}"


def asked_and_wire(asked: Call, sent: Call) -> Iterator[str]:
    """Yield how the agent's own request differs from the one that was sent."""
    for name in ("method", "segments", "pairs", "kind", "content"):
        mine, theirs = getattr(asked, name), getattr(sent, name)
        if name == "content" and asked.kind == sent.kind == "multipart":
            mine, theirs = (tuple(map(_without_media, c)) for c in (mine, theirs))
        if mine != theirs:
            yield f"{name}: the agent sent {mine!r}, the service got {theirs!r}"


def _without_media(part: Part) -> Part:
    return Part(part.name, part.value, part.filename, "", part.content)


def call_and_report(
    call: Call, message: Message, report: Report, rules: Rules
) -> Iterator[str]:
    """Yield how a server's report differs from the call that arrived."""
    kind = _readable(call, message, rules)
    expected: dict[str, tuple[Any, Any]] = {
        "method": (call.method, report["method"]),
        "path": (call.path, report["path"]),
        "headers": _headers(message, report),
    }
    if call.kind != "opaque":
        expected["kind"] = kind, report["kind"]
    if report["length"] is not None and (rules.chunked or not _in_chunks(message)):
        expected["length"] = len(message.body), report["length"]
        expected["sha256"] = sha256(message.body), report["sha256"]
    if kind == "json":
        expected["json"] = plain(call.content), numbers(report["json"])
    for name, (mine, theirs) in expected.items():
        if mine != theirs:
            yield f"{name}: the call has {mine!r}, the server read {theirs!r}"
    yield from _fields("query", call.pairs, report["query"], rules)
    if kind == "form":
        yield from _fields("form", call.content, report["form"], rules)
    if kind == "multipart":
        yield from _multipart(call.content, report, rules)


def _readable(call: Call, message: Message, rules: Rules) -> str | None:
    """Return the kind of body that the server has to read."""
    left_alone = (
        rules.lazy
        or call.kind in {"none", "opaque"}
        or (not rules.chunked and _in_chunks(message))
        or (call.kind == "multipart" and not rules.multipart)
        or (call.kind == "multipart" and rules.forms_by_post and call.method != "POST")
    )
    return None if left_alone else call.kind


def _in_chunks(message: Message) -> bool:
    return message.field("transfer-encoding") is not None


def _headers(message: Message, report: Report) -> tuple[dict[str, str], dict[str, str]]:
    """Return a message's headers, and those that the server read."""
    mine, theirs = dict(message.fields), dict(report["headers"])
    for found in (mine, theirs):
        found.pop("transfer-encoding", None)
    if "content-length" not in mine:
        # A server that has put chunks together may state the length of the whole.
        theirs.pop("content-length", None)
    return mine, theirs


def numbers(value: Any) -> Any:
    """Return a document of a report with its numbers as doubles."""
    if isinstance(value, dict):
        return {name: numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [numbers(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _fields(
    place: str, pairs: tuple[tuple[str, Any], ...], read: Any, rules: Rules
) -> Iterator[str]:
    if isinstance(read, list) or not rules.nests:
        mine, theirs = grouped(pairs), grouped(read)
        if mine != theirs:
            yield f"{place}: the call has {mine!r}, the server read {theirs!r}"
        return
    pairs = tuple(one for one in pairs if rules.unread.isdisjoint(keys(one[0], rules)))
    mine = grouped((base(name, rules), value) for name, value in pairs)
    plain_names = grouped((base(name, rules), name) for name, _ in pairs)
    theirs = {}
    for name, value in (read or {}).items():
        key = name if rules.php_names else base(name, rules)
        if values := list(leaves(value)):  # an object whose keys were left out has none
            theirs.setdefault(key, []).extend(values)
    if set(mine) != set(theirs):
        yield f"{place}: the call has {sorted(mine)}, the server read {sorted(theirs)}"
    for name, values in mine.items():
        found, spelt = theirs.get(name, []), plain_names[name]
        single = len(set(spelt)) == 1 and not set("[]") & set(spelt[0])
        whole = values[-1:] if rules.last_wins and single else values
        # Only a server that keeps the last value may have fewer.
        exact = single or not rules.last_wins
        if Counter(found) - Counter(values) or (
            exact and sorted(found) != sorted(whole)
        ):
            yield f"{place}: {name!r} is {values!r} in the call, {found!r} as read"


def grouped(pairs: Any) -> dict[str, list[Any]]:
    """Return the values of each name, in their order."""
    found: dict[str, list[Any]] = {}
    if isinstance(pairs, dict):  # Go's url.Values
        return {name: list(values) for name, values in pairs.items()}
    for name, value in pairs or ():
        found.setdefault(name, []).append(value)
    return found


def base(name: str, rules: Rules) -> str:
    """Return a name as far as its first bracket."""
    if rules.php_names:
        # php_register_variable_ex in main/php_variables.c
        head, bracket, rest = name.lstrip(" ").partition("[")
        if head and bracket and "]" not in rest:
            head = f"{head}_{rest}"
        return re.sub(r"[. ]", "_", head)
    found = re.fullmatch(r"[\[\]]*([^\[\]]*).*", name, re.DOTALL)
    return found[1] if found else name


def keys(name: str, rules: Rules) -> set[str]:
    """Return a name's base, and its keys in brackets."""
    return {base(name, rules), *re.findall(r"\[([^\[\]]+)\]", name)}


def leaves(value: Any) -> Iterator[str]:
    """Yield the texts in nested objects and lists."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from leaves(one)
    else:
        yield "" if value is None else value


def _multipart(parts: tuple[Part, ...], report: Report, rules: Rules) -> Iterator[str]:
    if rules.strips:
        parts = tuple(replace(part, name=part.name.strip()) for part in parts)
    texts = tuple((p.name, p.value) for p in parts if p.filename is None)
    files = tuple(p for p in parts if p.filename is not None)
    if rules.nests and rules.last_wins:
        # Of a text and a file, or two files, of one name the server has the last alone.
        several = Counter(base(part.name, rules) for part in parts)
        texts = tuple(one for one in texts if several[base(one[0], rules)] == 1)
        files = tuple(one for one in files if several[base(one.name, rules)] == 1)
        once = {name for name, times in several.items() if times == 1}
        read = report["form"] or {}
        read = {n: value for n, value in read.items() if base(n, rules) in once}
        yield from _fields("multipart", texts, read, rules)
        found = [one for one in report["files"] if base(one[0], rules) in once]
        yield from _files(files, found, rules)
        return
    yield from _fields("multipart", texts, report["form"] or [], rules)
    yield from _files(files, report["files"], rules)


def _files(files: tuple[Part, ...], read: Any, rules: Rules) -> Iterator[str]:
    mine = Counter(
        (
            base(part.name, rules) if rules.nests else part.name,
            _filename(part.filename or "", rules),
            len(part.content),
            sha256(part.content),
        )
        for part in files
        if base(part.name, rules) not in rules.unread
    )
    theirs = Counter(
        (base(name, rules) if rules.nests else name, filename, size, digest)
        for name, filename, _, size, digest in read
    )
    if mine != theirs:
        yield f"files: the call has {mine!r}, the server read {theirs!r}"


def _filename(name: str, rules: Rules) -> str:
    name = unquote(name) if rules.unescapes else name
    return re.split(r"[/\\]", name)[-1] if rules.basename else name


def decided_and_report(
    decided: Mapping[str, Any], declared: frozenset[str], report: Report
) -> Iterator[str]:
    """Yield what a handler may take for a parameter that policy read otherwise.

    Args:
        decided: the parameters of the call's row; one that is null is unclear.
        declared: the parameters that the route reads.
        report: with the values under each watched name.
    """
    for name in sorted(declared):
        value = decided.get(name)
        if name in decided and value is None:
            continue
        wrong = [v for v in report["watched"][name] if _same(v) != _same(value)]
        if wrong:
            yield f"{name}: policy decided about {value!r}, the server reads {wrong!r}"


def _same(value: Any) -> str:
    """Return a value as programs compare it: numbers and their texts as doubles."""
    if isinstance(value, list):
        return repr([_same(one) for one in value])
    if isinstance(value, dict):
        return repr(sorted((name, _same(one)) for name, one in value.items()))
    if isinstance(value, str) and _NUMERIC.fullmatch(value):
        value = float(value)
    value = numbers(value)
    return repr(value + 0.0 if isinstance(value, float) else value)
