"""Writes a small MaxMind file (maxmind.github.io/MaxMind-DB, version 2.0)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MARKER = b"\xab\xcd\xefMaxMind.com"


def write_countries(path: Path, networks: Mapping[str, str]) -> None:
    """Write a database of IPv4 *networks* with the country of each."""
    data, offsets = b"", {}
    for code in dict.fromkeys(networks.values()):
        offsets[code] = len(data)
        data += _encoded({"country": {"iso_code": code}})
    nodes: list[list[Any]] = [[None, None]]
    for network, code in networks.items():
        found = ipaddress.IPv4Network(network)
        bits = f"{int(found.network_address):032b}"[: found.prefixlen]
        at = 0
        for bit in bits[:-1]:
            if nodes[at][int(bit)] is None:
                nodes.append([None, None])
                nodes[at][int(bit)] = len(nodes) - 1
            at = nodes[at][int(bit)]
        nodes[at][int(bits[-1])] = code
    count = len(nodes)

    def record(value: Any) -> int:
        if value is None:
            return count
        return count + 16 + offsets[value] if isinstance(value, str) else int(value)

    tree = b"".join(struct.pack(">II", *map(record, node)) for node in nodes)
    about = _encoded(
        {
            "binary_format_major_version": 2,
            "binary_format_minor_version": 0,
            "build_epoch": 1,
            "database_type": "Test-Country",
            "description": {"en": "test"},
            "ip_version": 4,
            "languages": [],
            "node_count": count,
            "record_size": 32,
        }
    )
    path.write_bytes(tree + b"\0" * 16 + data + _MARKER + about)


def _encoded(value: Any) -> bytes:
    match value:
        case str():
            return _control(2, len(value)) + value.encode()
        case int():
            return _control(6, 4) + struct.pack(">I", value)
        case list():
            return bytes([len(value), 11 - 7])
        case dict():
            body = b"".join(_encoded(k) + _encoded(v) for k, v in value.items())
            return _control(7, len(value)) + body
    raise TypeError(value)


def _control(kind: int, size: int) -> bytes:
    if size < 29:
        return bytes([kind << 5 | size])
    return bytes([kind << 5 | 29, size - 29])
