"""Prints one line of JSON for each request that a server of Python read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

WATCHED = ("amount", "to", "count")


def sha256(content: bytes) -> str:
    """Return the digest of *content* in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def emit(report: Mapping[str, Any]) -> None:
    """Print *report* in one write, so that threads do not mix their lines."""
    os.write(1, json.dumps(report).encode() + b"\n")


def watched(*places: Any) -> dict[str, list[Any]]:
    """Return the values that a handler may take for the watched names."""
    mappings = [place for place in places if isinstance(place, Mapping)]
    return {
        name: [place[name] for place in mappings if name in place] for name in WATCHED
    }


def file_entry(field: str, name: str, kind: str, content: bytes) -> list[Any]:
    """Return how a report states one file."""
    return [field, name, kind, len(content), sha256(content)]


def wsgi_headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that a WSGI server received, by their names in lower case."""
    found = {
        key[5:].replace("_", "-").lower(): value
        for key, value in environ.items()
        if key.startswith("HTTP_")
    }
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            found[key.replace("_", "-").lower()] = environ[key]
    return found


def listed(pairs: Iterable[tuple[str, Any]]) -> list[list[Any]]:
    """Return names and values in the order in which they were read."""
    return [[name, value] for name, value in pairs]
