"""Shapes of the operators' API, to and from the plain JSON of the wire."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.operator_api.calls import EVENT_KINDS
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.operator_api.shapes import AgentInfo, StatusInfo, WireShape
from agentvault_tui.operator_api.stepups import StepUpInfo

MOMENT = "2026-11-24T10:00:00.000000Z"
_type_info = cache(inspect.type_info)
T = TypeVar("T", bound=WireShape)


def as_json(shape: WireShape) -> Any:
    return msgspec.json.decode(encode(shape))


def filled(kind: type[T], given: dict[str, Any]) -> T:
    """Return what a test says of a shape, with blanks where a broker says more."""
    return msgspec.convert(_whole(_type_info(kind), given), kind)


def event_of(kind: str, given: dict[str, Any]) -> WireShape:
    """Return the data of a server-sent event, filled likewise."""
    return filled(EVENT_KINDS[kind], given)


def agent_info(agent_id: str, name: str, **more: Any) -> AgentInfo:
    given = {"id": agent_id, "client_id": agent_id, "name": name, "status": "active"}
    return filled(AgentInfo, {**given, **more})


def _whole(kind: inspect.Type, given: Any) -> Any:
    """Add the required members that lack, at every depth."""
    match kind:
        case inspect.StructType(fields=fields) if isinstance(given, dict):
            known = {one.encode_name for one in fields}
            found = {name: given[name] for name in given if name not in known}
            for one in fields:
                if one.encode_name in given:
                    value = given[one.encode_name]
                    found[one.encode_name] = _whole(one.type, value)
                elif one.required:
                    found[one.encode_name] = _blank(one.type)
            return found
        case inspect.UnionType(types=types):
            for one in types:
                given = _whole(one, given)
            return given
        case inspect.Metadata(type=inner):
            return _whole(inner, given)
        case inspect.VarTupleType(item_type=item) if isinstance(given, list | tuple):
            return [_whole(item, one) for one in given]
        case inspect.DictType(value_type=value) if isinstance(given, dict):
            return {name: _whole(value, one) for name, one in given.items()}
    return given


def _blank(kind: inspect.Type) -> Any:
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            moment = (extra or {}).get("format") == "date-time"
            return MOMENT if moment else _blank(inner)
        case inspect.UnionType(types=types):
            none = any(isinstance(one, inspect.NoneType) for one in types)
            return None if none else _blank(types[0])
        case inspect.StructType():
            return _whole(kind, {})
        case inspect.VarTupleType():
            return []
        case inspect.DictType():
            return {}
    blanks = ((inspect.BoolType, False), (inspect.IntType, 0), (inspect.FloatType, 0.0))
    return next((value for one, value in blanks if isinstance(kind, one)), "")


def tell(mirror: Mirror, kind: str, given: dict[str, Any]) -> None:
    """Let a mirror take a frame of the stream, as the link does."""
    if kind in EVENT_KINDS:
        mirror.apply(event_of(kind, given))


def agents_of(given: Iterable[dict[str, Any]]) -> list[AgentInfo]:
    return [filled(AgentInfo, one) for one in given]


def stepups_of(given: Iterable[dict[str, Any]]) -> list[StepUpInfo]:
    return [filled(StepUpInfo, one) for one in given]


def status_of(given: dict[str, Any]) -> StatusInfo:
    return filled(StatusInfo, given)
