"""Checks OCSF records against the schema's own files, as `ocsf_schema.json` has them.

That file is made from github.com/ocsf/ocsf-schema, version 1.9.0: for the classes and
objects that we write, each attribute with its type, whether it is a list, whether it is
required, and the values of its enumeration.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

SCHEMA: Final = json.loads(Path(__file__).with_name("ocsf_schema.json").read_text())
_TYPES: Final = {"integer_t": int, "long_t": int, "timestamp_t": int, "object": dict}


def faults(record: dict[str, Any]) -> list[str]:
    """Say what in a record is not as its class says."""
    uid, activity = record["class_uid"], record["activity_id"]
    found = list(_of(record, SCHEMA["classes"][str(uid)], "record"))
    if record["type_uid"] != uid * 100 + activity:
        found.append("type_uid is not class and activity")
    if record["category_uid"] != uid // 1000:
        found.append("category_uid is not the class's")
    for name in ("status", "severity"):
        captions = SCHEMA["classes"][str(uid)]["attributes"][f"{name}_id"][3]
        number = str(record[f"{name}_id"])
        if number not in {"0", "99"} and captions[number] != record[name]:
            found.append(f"{name} is not the caption of {number}")
    return found


def _of(value: dict[str, Any], shape: dict[str, Any], where: str) -> Iterator[str]:
    known = shape["attributes"]
    for name in value.keys() - known.keys():
        yield f"{where} has no {name}"
    for name, (_, _, required, *_) in known.items():
        if required and name not in value:
            yield f"{where} lacks {name}"
    if shape["at_least_one"] and not value.keys() & set(shape["at_least_one"]):
        yield f"{where} has none of {shape['at_least_one']}"
    for name in value.keys() & known.keys():
        items = value[name] if known[name][1] else [value[name]]
        if not isinstance(items, list):
            yield f"{where}.{name} is no list"
            continue
        for one in items:
            yield from _typed(one, known[name], f"{where}.{name}")


def _typed(value: Any, attribute: list[Any], where: str) -> Iterator[str]:
    kind, _, _, *enum = attribute
    if kind in SCHEMA["objects"]:
        yield from _of(value, SCHEMA["objects"][kind], where)
    elif not isinstance(value, _TYPES.get(kind, str)):
        yield f"{where} is no {kind}"
    elif enum and str(value) not in enum[0]:
        yield f"{where} may not be {value}"
