"""How much one listener gives a peer before it hangs up."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

_SPARE_FILES: Final = 256
"""Descriptors kept for the store, the other listeners and outgoing requests; at most
half of what there may be."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one listener; the defaults are the contract's."""

    head_seconds: float = 5.0
    """From the first byte (or from connecting) to the end of the headers."""
    request_seconds: float = 10.0
    """From the first byte to the end of the body."""
    idle_seconds: float = 60.0
    """Between one answer and the next request on the same connection."""
    write_seconds: float = 30.0
    """How long a peer may leave our answer unread once our buffer is full."""
    head_bytes: int = 16_384
    headers: int = 64
    framing_bytes: int = 4_096
    """Of chunk extensions, trailers and empty lines before a request, none of which
    we use (RFC 9112 sections 2.2, 7.1.1 and 7.1.2)."""
    discarded_bytes: int = 16_777_216
    """Of a body nobody waits for any more, read and dropped so that the answer
    arrives whole (RFC 9112 section 9.6); past that the connection is cut."""
    streamed: tuple[bytes, ...] = ()
    """Prefixes of paths whose bodies may be of any size: each `progress_bytes` have
    ``request_seconds`` to arrive, while they are read."""
    progress_bytes: int = 65_536
    pipelined: int = 8
    """Requests of one connection that may wait for the answer to another (RFC 9112
    section 9.3.2); with more it is cut. Each is kept in memory, and a single read may
    hold thousands."""
    connections: int = 1024


def file_limit(wanted: int) -> int:
    """Raise the soft limit on open files; return how many connections that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    target = wanted + _SPARE_FILES
    if soft < target:
        ceiling = target if hard == resource.RLIM_INFINITY else min(target, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
        soft = ceiling
    return max(min(wanted, soft - min(_SPARE_FILES, soft // 2)), 1)
