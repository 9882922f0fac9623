"""Headers of an agent's request: which leave, and which are dropped and named.

Only listed headers leave (RFC 9110). A header that limits the effect of a request is
never dropped silently: the service would do more than the agent asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final
from uuid import UUID

from agentvault_tui.encoder import to_json
from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.overrides import check_overrides, is_override
from agentvault_tui.text import visible
from agentvault_tui.web.reply import Header

ALWAYS: Final = frozenset(
    "accept accept-language if-match if-none-match if-modified-since"  # noqa: SIM905
    " if-unmodified-since idempotency-key".split()
)
"""Headers that are always sent, whether or not a service's file lists them."""
_JOINED: Final = frozenset(
    "accept accept-language if-match if-none-match".split()  # noqa: SIM905
)
"""List headers whose values are joined if the header comes twice."""
HOP_BY_HOP: Final = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization"  # noqa: SIM905
    " proxy-connection te trailer transfer-encoding upgrade".split()
)
"""RFC 9110 section 7.6.1."""
_WRITTEN: Final = HOP_BY_HOP | frozenset(
    "accept-encoding agentvault-request authorization content-length"  # noqa: SIM905
    " content-type expect host user-agent".split()
)
"""Headers that we answer or write ourselves: neither forwarded nor named as dropped."""
_REPEATED: Final = frozenset(
    "accept-charset cache-control forwarded pragma prefer tracestate via"  # noqa: SIM905
    " warning".split()
)
"""Lists to which intermediaries add lines; they are not sent."""
_NEVER: Final = (
    _WRITTEN
    | {"content-encoding", "cookie", "forwarded", "via", "x-real-ip"}
    | frozenset(
        "x-envoy-original-path x-host x-http-host-override"  # noqa: SIM905
        " x-original-host x-original-method x-original-uri x-original-url"
        " x-override-url x-rewrite-url".split()
    )
)
"""Headers that frame, route or authenticate a request: no file can list them."""
_NEVER_BEGIN: Final = ("proxy-", "x-forwarded-", "agentvault-")
_LIMITS: Final = re.compile(
    r"if(?:-.*)?|.*-if-.*|.*dry-run.*|.*-account(?:-id)?|.*-context|.*-tenant(?:-id)?"
    r"|overwrite|depth|destination|content-range|upload-offset|.*-idempotency-key"
    r"|.*-on-behalf-of|.*-copy-source|.*-upsert"
    r"|x-(?:.*-)?(?:validate-only|test-mode|sandbox|simulate|no-?op|preview|draft)"
)
"""Headers that limit the effect of a request, by their names."""
_KEY: Final = re.compile(r"(?:.*-)?idempotency-key")
"""Headers by which a service recognizes a request that it has answered already."""
_VERSION_8: Final = 0x8 << 76
_VARIANT: Final = 0b10 << 62
_TEXT: Final = re.compile(rb"[\x20-\x7e]*")
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")
"""RFC 9110 section 5.6.2 without ``_``, which CGI takes for a dash."""
TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
"""W3C Trace Context, section 3.2."""
TRACE_BYTES: Final = 512
"""Of ``traceparent`` and ``tracestate`` as JSON, as a ledger row has them."""
_MOST_DROPPED: Final = 32
_DROPPED_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """The headers of one request that leave, and the names of those that do not."""

    leaving: tuple[tuple[str, str], ...] = ()
    """By name in lower case; under the digest, shown and recorded."""
    trace: tuple[tuple[str, str], ...] = ()
    """Trace context, which leaves and is no part of the call."""
    dropped: tuple[str, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    """Idempotency keys as the agent stated them, once `with_keys_of` replaced them."""

    def value(self, name: str) -> str | None:
        """Return the value of a header that leaves."""
        return dict(self.leaving).get(name)

    def with_keys_of(self, requester: str) -> RequestHeaders:
        """Replace each idempotency key by one that only *requester* has.

        Agents share a service's credential, and so its keys: the service would answer
        one agent with the result of another.

        Args:
            requester: who asks; see `Token.requester`.

        Returns:
            the headers. A key is a UUID made from a hash (RFC 9562 section 5.8), since
            services limit its length and form; a quoted string stays one (RFC 8941).
        """

        def own(name: str, key: str) -> str:
            hashed = hashlib.sha256(to_json([requester, name, key]).encode())
            number = int.from_bytes(hashed.digest()[:16])
            number = number & ~(0xF << 76) & ~(0b11 << 62) | _VERSION_8 | _VARIANT
            quote = '"' if len(key) > 1 and key[0] == key[-1] == '"' else ""
            return f"{quote}{UUID(int=number)}{quote}"

        keys = {name: key for name, key in self.leaving if _KEY.fullmatch(name)}
        if not keys:
            return self
        leaving = ((n, own(n, v) if n in keys else v) for n, v in self.leaving)
        return replace(self, leaving=tuple(leaving), keys=tuple(keys.items()))


def is_listable(name: str) -> bool:
    """Check whether a service file may list the header *name*."""
    lowered = name.lower()
    return (
        _NAME.fullmatch(name) is not None
        and lowered not in _NEVER
        and not lowered.startswith(_NEVER_BEGIN)
        and not is_override(name, None)
    )


def read_headers(
    received: Sequence[Header],
    *,
    method: str,
    listed: frozenset[str],
    ranges: bool,
    overridable: bool,
) -> RequestHeaders:
    """Read the headers of a request.

    Args:
        received: names in lower case, and values; without the agent's token.
        method: of the request.
        listed: further names that the service's file lets leave, in lower case.
        ranges: whether ``Range`` leaves.
        overridable: whether the service may take a method from a header.

    Returns:
        those that leave, and the names of those that are dropped.

    Raises:
        UnreadableRequestError: ``ambiguous_headers``, ``header_not_listed``,
            ``method_override``, or ``invalid_request`` for a value that is not text.
    """
    leaves = (ALWAYS | listed | ({"range"} if ranges else set())) - nominated(received)
    values: dict[str, list[bytes]] = {}
    for raw, value in received:
        values.setdefault(raw.decode("latin-1"), []).append(value)
    if overridable:
        check_overrides(
            "header",
            (
                (name, some[0].decode("latin-1"))
                for name, some in values.items()
                if name not in listed
            ),
        )
    leaving, dropped = {}, []
    for name, some in values.items():
        if len(some) > 1 and not _may_repeat(name):
            raise UnreadableRequestError(
                "ambiguous_headers", f"the header {visible(name, 60)} is there twice"
            )
        if name in {"traceparent", "tracestate"}:
            continue
        if name in leaves and (text := _text(name, some)):
            leaving[name] = text
        elif name not in leaves and not _is_answered(name, some):
            if method not in {"GET", "HEAD"}:
                _check_limit(name)
            dropped.append(name)
    trace, lost = _trace(values)
    return RequestHeaders(tuple(leaving.items()), trace, (*dropped, *lost))


def names_for_record(dropped: Iterable[str]) -> list[str]:
    """Return the first names of dropped parts, as ledger rows and answers have them."""
    first = islice(dropped, _MOST_DROPPED + 1)
    names = [str(visible(name, _DROPPED_LENGTH)) for name in first]
    return [*names[:_MOST_DROPPED], *(["more"] if len(names) > _MOST_DROPPED else [])]


def nominated(received: Sequence[Header]) -> set[str]:
    """Return the headers that ``Connection`` names (RFC 9110 section 7.6.1)."""
    return {
        token.strip().lower()
        for name, value in received
        if name == b"connection"
        for token in value.decode("latin-1").split(",")
    }


def _may_repeat(name: str) -> bool:
    repeatable = _JOINED | _REPEATED | HOP_BY_HOP
    return name in repeatable or name.startswith("x-forwarded-")


def _is_answered(name: str, values: list[bytes]) -> bool:
    """Check whether a header is for the gateway itself."""
    if name == "prefer":
        return not without_ours(b", ".join(values).decode("latin-1"))
    return name in _WRITTEN or name.startswith(("proxy-", "agentvault-"))


def _text(name: str, values: list[bytes]) -> str:
    if not all(map(_TEXT.fullmatch, values)):
        text = f"the header {visible(name, 60)} holds more than visible ASCII"
        raise UnreadableRequestError("invalid_request", text)
    text = ", ".join(value.decode("ascii").strip() for value in values)
    return without_ours(text) if name == "prefer" else text


def _check_limit(name: str) -> None:
    """Refuse a header whose loss would widen the effect of a request.

    Raises:
        UnreadableRequestError: ``header_not_listed``.
    """
    if name == "prefer" or _LIMITS.fullmatch(name):
        shown = "-".join(part.capitalize() for part in visible(name, 60).split("-"))
        line = f'headers = ["{shown}"]'
        raise UnreadableRequestError(
            "header_not_listed",
            f"the header {shown} limits what this request does, and the service's file"
            f" does not list it. An operator can add {line} to the route",
            add=line,
            header=name,
        )


def without_ours(prefer: str) -> str:
    """Return ``Prefer`` without the gateway's own preferences (RFC 7240 section 2)."""
    parts = [part.strip() for part in prefer.split(",")]
    ours = re.compile(r"(?:wait|respond-async)\b(?!-).*", re.IGNORECASE)
    return ", ".join(p for p in parts if p and not ours.fullmatch(p))


def _trace(
    values: Mapping[str, list[bytes]],
) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """Return the trace context that is sent, and the names of dropped headers of it."""
    given = [name for name in ("traceparent", "tracestate") if name in values]
    parent = values.get("traceparent", [b""])[0].decode("latin-1")
    if not TRACEPARENT.fullmatch(parent):
        return (), given
    trace = [("traceparent", parent)]
    state = b",".join(values.get("tracestate", []))
    if state and _TEXT.fullmatch(state):
        whole = [*trace, ("tracestate", state.decode("ascii").strip())]
        if len(to_json(dict(whole))) <= TRACE_BYTES:
            return tuple(whole), []
    return tuple(trace), given[1:]
