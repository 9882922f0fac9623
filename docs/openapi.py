"""Write ``docs/operator-api.json`` from the operators' types: ``make docs``."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from agentvault_tui.operator_api.calls import (
    CALLS,
    EVENT_KINDS,
    EVENTS_PATH,
    Access,
    ApiCall,
)
from agentvault_tui.operator_api.requests import StreamQuery
from agentvault_tui.operator_api.shapes import ProblemInfo

DOCUMENT = Path(__file__).parent / "operator-api.json"
REF = "#/components/schemas/{name}"
PROBLEM = {"schema": {"$ref": REF.format(name="ProblemInfo")}}
REFUSED = {
    "default": {
        "description": "Refused (RFC 9457)",
        "content": {"application/problem+json": PROBLEM},
    }
}


def operator_api() -> str:
    """Return the OpenAPI document of the operators' API, from its types."""
    kinds = {call.answer for call in CALLS} | {*EVENT_KINDS.values(), ProblemInfo}
    asked = {call.asks for call in CALLS if call.asks and call.method == "POST"}
    answered = closure(kinds)
    _, found = msgspec.json.schema_components(
        sorted(answered | asked, key=str), schema_hook=anything, ref_template=REF
    )
    schemas = {name: found[name] for name in sorted(found)}
    for schema in schemas.values():
        if "description" in schema:  # before Python 3.13 a docstring keeps its indent
            schema["description"] = inspect.cleandoc(schema["description"])
    for kind in answered:
        # A broker says every member but those that are absent, which have no value.
        # One that is also written by hand leaves out what is as by default.
        schemas[kind.__name__]["required"] = [
            field.encode_name
            for field in msgspec.structs.fields(kind)
            if field.required
            or (
                field.default is not msgspec.UNSET
                and not kind.__struct_config__.omit_defaults
            )
        ]
    paths: dict[str, dict[str, Any]] = {}
    for call in CALLS:
        path = call.path.replace(":int", "")
        paths.setdefault(path, {})[call.method.lower()] = operation(call)
    paths[EVENTS_PATH] = {"get": stream()}
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "AgentVault operators' API",
            "version": "1",
            "description": "Over a Unix socket of mode 0600: the peer's uid is the "
            "check, and approving takes a second factor besides. From other machines "
            "over TLS 1.3: `POST /api/auth/session` begins a sign-in with a DPoP proof "
            "(RFC 9449), and every other call takes its access token, a proof with a "
            "nonce of the broker's, and a role.",
        },
        "servers": [{"url": "http://agentvault"}],
        "paths": {path: paths[path] for path in sorted(paths)},
        "components": {"schemas": schemas},
    }
    # An `Info` is what the type says beside the broker's own type of that name.
    text = re.sub(r'(#/components/schemas/|")(\w+)Info"', r'\1\2"', dumps(document))
    return f"{text}\n"


def closure(kinds: set[type]) -> set[type]:
    """Return *kinds* and every shape inside them."""
    todo, found = list(kinds), set()
    while todo:
        if (kind := todo.pop()) not in found:
            found.add(kind)
            todo += inner(msgspec.inspect.type_info(kind).fields)
    return found


def inner(value: Any) -> Iterator[type]:
    """Yield the shapes that stand in the types of fields."""
    if isinstance(value, msgspec.inspect.StructType):
        yield value.cls
    elif isinstance(value, tuple):
        for one in value:
            yield from inner(one)
    elif isinstance(value, msgspec.inspect.Type | msgspec.inspect.Field):
        for name in ("type", "types", "item_type", "value_type"):
            yield from inner(getattr(value, name, None))


def operation(call: ApiCall[Any]) -> dict[str, Any]:
    """Return what one call takes and answers."""
    answer = {"schema": {"$ref": REF.format(name=call.answer.__name__)}}
    about = call.answer if call.method == "GET" else call.asks or call.answer
    summary = (about.__doc__ or "").partition("\n")[0].rstrip(".")
    told = {"description": summary, "content": {"application/json": answer}}
    statuses = {call.status: told, **({call.also: told} if call.also else {})}
    if call.access in {Access.EITHER, Access.LOOSEN} and call.also == 202:
        content = {"schema": {"$ref": REF.format(name="ChangeInfo")}}
        about = "It loosens something, and waits for an approver's factor"
        statuses[202] = {"description": about, "content": {"application/json": content}}
    made: dict[str, Any] = {
        "summary": summary,
        "parameters": [*path_parameters(call.path)],
        "x-needs-elsewhere": call.access.value,
        "responses": {**{str(one): said for one, said in statuses.items()}, **REFUSED},
    }
    if call.method == "GET":
        made["parameters"] += query_parameters(call.asks)
    elif call.asks:
        schema = {"$ref": REF.format(name=call.asks.__name__)}
        made["requestBody"] = {
            "content": {"application/json": {"schema": schema}},
            "required": True,
        }
    return made


def path_parameters(path: str) -> Iterator[dict[str, Any]]:
    for name, kind in re.findall(r"{(\w+)(:int)?}", path):
        schema = {"type": "integer", "minimum": 0} if kind else {"type": "string"}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def query_parameters(kind: type | None) -> Iterator[dict[str, Any]]:
    """Yield a query's parameters; the text of a query holds no null."""
    if kind is None:
        return
    schema = msgspec.json.schema(kind, ref_template=REF)["$defs"][kind.__name__]
    for name, each in schema["properties"].items():
        some = [one for one in each.pop("anyOf", []) if one != {"type": "null"}]
        told = {**each, **(some[0] if some else {})}
        if told.get("default", "") is None:
            del told["default"]
        needed = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": needed, "schema": told}


def stream() -> dict[str, Any]:
    """Return the stream of server-sent events."""
    kinds = {
        name: {"$ref": REF.format(name=kind.__name__)}
        for name, kind in EVENT_KINDS.items()
    }
    content = {"text/event-stream": {"schema": {"type": "string"}}}
    last = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "integer"}}
    return {
        "summary": "Follow what happens: server-sent events",
        "description": "The data of each kind of event is in `x-event-kinds`; `id` is "
        "the ledger's sequence number.",
        "parameters": [*query_parameters(StreamQuery), last],
        "responses": {
            "200": {"description": "Events", "content": content},
            **REFUSED,
        },
        "x-event-kinds": kinds,
    }


def anything(kind: type) -> dict[str, Any]:
    """Return the schema of what others choose."""
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError(kind)


def dumps(document: Any) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    DOCUMENT.write_text(operator_api())
