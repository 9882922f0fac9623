"""Shapes of the wire with any text in them, and the texts that a record would show."""

from __future__ import annotations

import unicodedata
from typing import Any, TypeVar

from hypothesis import strategies as st
from msgspec import Raw, Struct, UnsetType, convert, inspect, structs
from msgspec.json import encode as to_json

from agentvault_tui.held_body import Described, DocumentInfo
from agentvault_tui.operator_api import displayer
from agentvault_tui.operator_api.shapes import WireShape

T = TypeVar("T", bound=WireShape)
_ON_WIRE = "agentvault_tui.operator_api"
_UNSET = type(inspect.type_info(UnsetType))

_TEXT = st.text(max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def hostile(kind: type[T]) -> st.SearchStrategy[T]:
    """Any shape of a kind: each text in it is any text."""
    return _of(inspect.type_info(kind)).map(lambda given: convert(given, kind))


def _of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType(fields=fields, tag_field=tag_field, tag=tag):
            tags = {} if tag_field is None else {tag_field: st.just(tag)}
            every = {one.encode_name: _of(one.type) for one in fields}
            needed = {one.encode_name for one in fields if one.required}
            return st.fixed_dictionaries(
                tags | {name: every[name] for name in every if name in needed},
                optional={name: every[name] for name in every if name not in needed},
            )
        case inspect.UnionType(types=types):
            known = [one for one in types if not isinstance(one, _UNSET)]
            return st.one_of(*map(_of, known))
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.Metadata(type=inner):
            return _of(inner)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return st.lists(_of(item), max_size=2)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(_of, items))
        case inspect.DictType(value_type=inspect.CustomType() | inspect.AnyType()):
            return st.dictionaries(_TEXT, _JSON, max_size=3)
        case inspect.DictType(value_type=value):
            return st.dictionaries(_TEXT, _of(value), max_size=2)
    simple: dict[type, st.SearchStrategy[Any]] = {
        inspect.BoolType: st.booleans(),
        inspect.IntType: st.integers(),
        inspect.FloatType: st.floats(),
        inspect.StrType: _TEXT,
        inspect.NoneType: st.none(),
        inspect.RawType: _JSON.map(to_json).map(Raw),
    }
    return simple.get(type(kind), _JSON)


def texts(value: Any) -> list[str]:
    """List the displayable texts in *value*."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Described | DocumentInfo):
        return []  # as it came: what draws it makes it visible
    if isinstance(value, WireShape):  # the members that are typed as displayable
        kind = type(value)
        wire = next(one for one in kind.__mro__ if _ON_WIRE in one.__module__)
        own = [*kind.__struct_fields__[len(wire.__struct_fields__) :]]  # a presenter's
        names = [*(name for name, *_ in displayer.plan(wire)), *own]
        value = [getattr(value, name) for name in names]
    if isinstance(value, dict):
        return texts([*value.values()])  # keys are raw, where their type says so
    if isinstance(value, Struct):
        return [text for each in structs.astuple(value) for text in texts(each)]
    if isinstance(value, tuple | list):
        return [text for each in value for text in texts(each)]
    return []


def harmless(record: Any) -> bool:
    """Check that no text in *record* holds a control or invisible character."""
    return not any(
        unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        for text in texts(record)
        for character in text
    )
