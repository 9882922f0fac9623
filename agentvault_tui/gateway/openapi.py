"""Makes a service file of an OpenAPI document: a route an operation, for a person."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from agentvault_tui.errors import UsageError
from agentvault_tui.gateway.content import (
    BODILESS,
    READABLE,
    ContentRule,
)
from agentvault_tui.gateway.headers import ALWAYS, is_listable
from agentvault_tui.gateway.media_types import MediaType
from agentvault_tui.gateway.services import origin_lines
from agentvault_tui.text import visible

MAX_DOCUMENT: Final = 64 * 1024 * 1024
METHODS: Final = ("get", "head", "post", "put", "patch", "delete")
_PAYS: Final = re.compile(
    r"pay(?!load)|payout|charge|transfer|invoice|subscri|refund|withdraw|checkout|topup"
)
_SENDS: Final = re.compile(
    r"send|messages?\b|mail|sms|notif|publish|broadcast|invit|webhook|tweet|post_?message"
)
_REFUNDS: Final = re.compile(r"refund")
_DELETES: Final = re.compile(
    r"delete|remove|destroy|purge|erase|wipe|drop|clear|cancel|trash|revoke|terminate"
)
ACTS: Final = re.compile(
    "(?:accept|activate|add|approve|archive|assign|ban|buy|cancel|capture|charge"
    "|checkout|clear|close|confirm|create|deactivate|decline|delete|deploy|destroy"
    "|disable|discard|drop|edit|enable|erase|exec|execute|import|install|invite|invoke"
    "|kill|launch|lock|logout|merge|move|notify|pause|pay|publish|purge|reboot|refund"
    "|register|reject|remove|rename|reset|restart|restore|resume|revoke|run|save|send"
    "|set|shutdown|start|stop|submit|subscribe|suspend|terminate|transfer|trash|trigger"
    "|uninstall|unlock|unpublish|unsubscribe|update|upgrade|upload|void|wipe|withdraw"
    "|write)(?![a-z])"
)
"""Verbs of operations that change something, as a path names them."""
_STRICT: Final = (
    "delete:records",
    "refund:payment",
    "send:payment",
    "send:email",
    "write:records",
    "read:records",
)
"""The scopes of imported routes; of two operations that no path tells apart the one
that is named first counts."""
_PART: Final = re.compile(r"\{([^{}]*)\}")
_WITH_VERB: Final = re.compile(r"(?:.*/)?\{[^{}]*\}(:[A-Za-z][A-Za-z0-9]*)")
"""A path with a custom verb (AIP-136)."""
_MOST_REFS: Final = 16


@dataclass(frozen=True, slots=True)
class DraftedRoute:
    """One operation of a service, as a route."""

    method: str
    path: str
    scope: str
    parameters: dict[str, str]
    note: str
    """Words that describe it, for a comment."""
    headers: tuple[str, ...] = ()
    """That the document declares, and that may leave."""
    body: str | None = None
    types: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """The key of a route: method and path, with any name of a capture."""
        return self.method, re.sub(r"\{[^}]*\}", "{}", self.path)


def service_file(name: str, path: Path, origin: str | None) -> str:
    """Write a service file with a route for each operation of an OpenAPI document.

    Reads (``GET``, ``HEAD``) get a scope that reads; other operations get one that
    writes, sends, pays or deletes, by the method and the operation's own words. Both
    are guesses that a person checks, and the stricter one where it could be either.

    Args:
        name: the service's name, and its secret's.
        path: OpenAPI 3.0 or 3.1, in JSON or YAML.
        origin: scheme, host and port; None: those of the first server it names.

    Returns:
        TOML.

    Raises:
        UsageError: it is no such document, or names no server.
        ServiceError: the origin is none.
    """
    document = _read(path)
    version = str(document.get("openapi", ""))
    if not re.match(r"3\.[01]\.", version):
        raise UsageError(
            f"{path} is no OpenAPI 3 document",
            "convert a Swagger 2 document first, such as with swagger2openapi",
        )
    server, prefix = _server(document)
    origin = origin or server
    if not origin:
        raise UsageError(f"{path} names no server with a host", "give --origin")
    operations: dict[tuple[str, str], DraftedRoute] = {}
    skipped: list[str] = []
    for one in _operations(document, prefix, skipped):
        other = operations.get(one.key)
        if other is None or _STRICT.index(one.scope) < _STRICT.index(other.scope):
            operations[one.key] = one
    info = _mapping(document.get("info"))
    head = [
        _comment(f"{info.get('title', name)} {info.get('version', '')}".strip()),
        "# Made from its OpenAPI document: check each scope, give resources names that",
        "# rules can use, and remove what agents do not need. An operation that",
        "# changes one thing and no more may say so: parameters = { count = 1 }.",
        "",
        *origin_lines(origin),
        "",
        *_credential(document, name),
    ]
    head += [_comment(f"Left out, for no route can name it: {one}") for one in skipped]
    routes = sorted(operations.values(), key=place_of)
    return (
        "\n".join([*head, *(line for one in routes for line in route_lines(one))])
        + "\n"
    )


def _read(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    if len(content) > MAX_DOCUMENT:
        raise UsageError(f"{path} is larger than {MAX_DOCUMENT // 2**20} MiB")
    try:
        if content.lstrip()[:1] == b"{":
            value = json.loads(content)
        else:
            try:
                yaml = importlib.import_module("yaml")
            except ImportError:
                raise UsageError(
                    f"{path} is YAML, and no YAML reader is installed here",
                    "pip install pyyaml, or convert it to JSON",
                ) from None
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            try:
                value = yaml.load(content, loader)
            except yaml.YAMLError as error:
                raise ValueError(error) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({visible(error, 200)})") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is no OpenAPI document")
    return value


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _resolved(document: dict[str, object], value: object) -> dict[str, object]:
    """Follow references within the document; one that leads elsewhere is nothing."""
    resolved = _mapping(value)
    for _ in range(_MOST_REFS):
        reference = resolved.get("$ref")
        if not isinstance(reference, str):
            return resolved
        if not reference.startswith("#/"):
            return {}
        at: Any = document
        for part in reference[2:].split("/"):
            at = _mapping(at).get(part.replace("~1", "/").replace("~0", "~"))
        resolved = _mapping(at)
    return {}


def _server(document: dict[str, object]) -> tuple[str, str]:
    """Return the origin of the first server, and the path that routes begin with."""
    servers = document.get("servers")
    first = _mapping(servers[0] if isinstance(servers, list) and servers else None)
    url = str(first.get("url", ""))
    for name, variable in _mapping(first.get("variables")).items():
        default = str(_mapping(variable).get("default", ""))
        url = url.replace(f"{{{name}}}", default)
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not parts.netloc:
        return "", parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}".lower(), parts.path.rstrip("/")


def _operations(
    document: dict[str, object], prefix: str, skipped: list[str]
) -> Iterator[DraftedRoute]:
    for template, item in _mapping(document.get("paths")).items():
        operations = _resolved(document, item)
        path = path_template(prefix + str(template))
        for method in METHODS:
            operation = operations.get(method)
            if not isinstance(operation, dict):
                continue
            if path is None:
                skipped.append(f"{method.upper()} {template}")
                continue
            words = f"{operation.get('operationId', '')} {operation.get('summary', '')}"
            scope = guess_scope(method, str(template), words)
            parameters = _parameters(document, operation) if method != "get" else {}
            headers = _headers(document, (operations, operation))
            kind, types = _content(document, operation, method.upper())
            if kind in {"none", "opaque"}:
                parameters = {}
            yield DraftedRoute(
                *(method.upper(), path, scope, parameters, words.strip()),
                headers=headers,
                body=kind,
                types=types,
            )


def path_template(template: str) -> str | None:
    """Return a template of whole segments as captures; None if impossible.

    At its end, a custom verb (``{x}:verb``) is no part of a capture, and a capture has
    no colon.
    """
    segments = []
    template, verb = template.removeprefix("/"), ""
    if match := _WITH_VERB.fullmatch(template):
        template, verb = template[: match.start(1)], match[1]
    for segment in template.split("/"):
        names = _PART.findall(segment)
        if names and ":" in _PART.sub("", segment) and template.endswith(segment):
            return None
        if names:
            name = re.sub(r"[^A-Za-z0-9_-]", "_", "_".join(names))
            if not re.match(r"[A-Za-z_]", name):
                name = f"p_{name}"
            while f"{{{name}}}" in segments:
                name += "_"
            segments.append(f"{{{name}}}")
        else:
            segments.append(segment)
    bad = re.compile(r"[^\x21-\x7e]|[{};\\#?]|%(?:2e|2f|5c|00)", re.IGNORECASE)
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment in {".", ".."} or (not segment and not last):
            return None
        if bad.search(_PART.sub("", segment)):
            return None
    return "/" + "/".join(segments) + verb


def guess_scope(method: str, path: str, note: str = "") -> str:
    """Guess the scope of an operation: the strictest one in its words.

    Args:
        method: in lower case. ``GET`` and ``HEAD`` read, unless the last fixed segment
            of the path begins with a verb that changes something (``/orders/1/pay``).
        path: with captures in braces; or the name of a tool.
        note: further words that describe the operation.

    Returns:
        a scope of the shipped catalogue.
    """
    if method in {"get", "head"} and not _acts(path):
        return "read:records"
    words = f"{path} {note}".lower()
    if method == "delete" or _DELETES.search(words):
        return "delete:records"
    if _REFUNDS.search(words):
        return "refund:payment"
    if _PAYS.search(words):
        return "send:payment"
    return "send:email" if _SENDS.search(words) else "write:records"


def _acts(path: str) -> bool:
    """Check whether the last fixed segment of a path is a verb, such as a payment."""
    segments = [_PART.sub("", one) for one in path.split("/")]
    last = next((one for one in reversed(segments) if one), "")
    return any(ACTS.match(one[:1].lower() + one[1:]) for one in re.split(r"[.:]", last))


def _parameters(
    document: dict[str, object], operation: dict[str, object]
) -> dict[str, str]:
    """Find the policy parameters among the members of a request's body."""
    body = _resolved(document, operation.get("requestBody"))
    for kind, media in _mapping(body.get("content")).items():
        if not re.match(r"application/(?:.*\+?json|x-www-form-urlencoded)", str(kind)):
            continue
        schema = _resolved(document, _mapping(media).get("schema"))
        members = _mapping(schema.get("properties"))
        parameters: dict[str, str] = {
            name: f"body:/{name}"
            for name in ("amount", "currency", "count")
            if name in members
        }
        for name in ("recipients", "to"):
            if name in members:
                parameters["recipients"] = f"count:body:/{name}"
                break
        return parameters
    return {}


def _headers(
    document: dict[str, object], places: Iterable[dict[str, object]]
) -> tuple[str, ...]:
    """Return the header parameters of an operation and of its path item.

    OpenAPI ignores those called Accept, Content-Type and Authorization (3.1, 4.8.12.2),
    and those that frame or route a request or name its method do not leave.
    """
    headers: dict[str, str] = {}
    for place in places:
        declared = place.get("parameters")
        for value in declared if isinstance(declared, list) else ():
            one = _resolved(document, value)
            name = str(one.get("name", ""))
            if one.get("in") == "header" and is_listable(name):
                headers.setdefault(name.lower(), name)
    return tuple(name for lowered, name in headers.items() if lowered not in ALWAYS)


def _content(
    document: dict[str, object], operation: dict[str, object], method: str
) -> tuple[str | None, tuple[str, ...]]:
    """Return ``body`` and ``types`` of a route, by the request's media types.

    JSON and forms need a key only for methods that usually have no body, and a
    ``+json`` type is listed, so that it leaves as it is. Other types are opaque. If an
    operation has several types, a readable one counts.
    """
    body = _resolved(document, operation.get("requestBody"))
    media = [MediaType.parse(str(one)) for one in _mapping(body.get("content"))]
    types = [one.type for one in media if one is not None]
    rule = {kind: ContentRule(kind) for kind in READABLE}
    kinds = {kind for kind in READABLE for one in types if rule[kind].takes(one)}
    for kind in READABLE:
        if kind in kinds:
            usual = kind != "multipart" and method not in BODILESS
            listed = [one for one in types if kind == "json" and one.endswith("+json")]
            return (None if usual else kind), tuple(dict.fromkeys(listed))
    opaque = tuple(dict.fromkeys(one for one in types if "*" not in one))
    return ("opaque", opaque) if opaque else (None, ())


def _credential(document: dict[str, object], name: str) -> list[str]:
    """Guess the credential from the first security scheme that is one of ours."""
    components = _mapping(document.get("components"))
    schemes = _mapping(components.get("securitySchemes"))
    for value in schemes.values():
        scheme = _resolved(document, value)
        kind, how = scheme.get("type"), str(scheme.get("scheme", "")).lower()
        lines = ["[credential]"]
        if kind == "apiKey" and scheme.get("in") in {"header", "query"}:
            lines.append(f"kind = {_text(scheme['in'])}")
            lines.append(f"name = {_text(scheme.get('name', ''))}")
        elif kind == "http" and how == "basic":
            lines += ['kind = "basic"', 'username = ""']
        elif kind in {"http", "oauth2", "openIdConnect"}:
            lines.append('kind = "bearer"')
        else:
            continue
        return [*lines, f"secret = {_text(name)}"]
    return ["[credential]", 'kind = "none"']


def place_of(one: DraftedRoute) -> list[tuple[bool, str]]:
    """Sort narrower paths before wider ones, so that each route can match."""
    segments = one.path.split("/")
    return [*((part.startswith("{"), part) for part in segments), (False, one.method)]


def route_lines(one: DraftedRoute) -> list[str]:
    """Encode a route as lines of TOML."""
    lines = ["", _comment(one.note)] if one.note else [""]
    lines += [
        "[[routes]]",
        f"method = {_text(one.method)}",
        f"path = {_text(one.path)}",
        f"scope = {_text(one.scope)}",
    ]
    if one.body:
        lines.append(f"body = {_text(one.body)}")
    for key, values in (("types", one.types), ("headers", one.headers)):
        if values:
            lines.append(f"{key} = [{', '.join(map(_text, values))}]")
    if one.parameters:
        lines.append("[routes.parameters]")
        lines += [f"{name} = {_text(where)}" for name, where in one.parameters.items()]
    return lines


def _text(value: object) -> str:
    """Write a TOML string; the document's text may hold anything."""
    return json.dumps(visible(str(value), 300), ensure_ascii=False)


def _comment(text: str) -> str:
    return f"# {visible(' '.join(text.split()), 100)}"
