"""An answer of the tenant: status, JSON, and rate limit headers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from agentvault_tui import strict_json
from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.text import visible

Json = dict[str, Any]
"""A JSON object of the tenant's: untrusted text in it."""

LONGEST_WAIT: Final = 300.0
"""No header makes us wait longer than this at a time, whatever it says."""


@dataclass(frozen=True, slots=True)
class TenantReply:
    """A status, its JSON if any, and the headers about asking again."""

    status: int
    value: object = field(default=None, repr=False)
    """The JSON that came; hidden, for it may hold tokens."""
    retry_after: float | None = None
    """``Retry-After``, in seconds."""
    reset: int | None = None
    """``x-ratelimit-reset``: when the limit is renewed, in seconds since 1970."""
    remaining: int | None = None
    """``x-ratelimit-remaining``: requests left until then."""
    date: datetime | None = None
    """The tenant's own clock, to the second."""
    unread: bytes = field(default=b"", repr=False)
    """The body when it was no JSON that we read."""

    @property
    def body(self) -> Json | None:
        """The JSON object that came, if it was one."""
        return self.value if isinstance(self.value, dict) else None

    @property
    def error(self) -> str:
        """The OAuth error code of a refusal (RFC 6749 section 5.2), or ``""``."""
        error = None if self.body is None else self.body.get("error")
        return error if isinstance(error, str) else ""

    @property
    def description(self) -> str:
        """The tenant's own sentence, made displayable."""
        text = None if self.body is None else self.body.get("error_description")
        return visible(text, 200) if isinstance(text, str) else ""

    def json(self) -> Json:
        """Return the object that must have come.

        Raises:
            TenantUnreachableError: something else did.
        """
        if self.body is None:
            raise _rubbish("an object")
        return self.body

    def rows(self, key: str = "") -> list[Json]:
        """Return the list of objects that must have come, bare or under *key*.

        Raises:
            TenantUnreachableError: something else did.
        """
        value = self.value
        if key and isinstance(value, dict):
            value = value.get(key)
        if not isinstance(value, list) or any(
            not isinstance(one, dict) for one in value
        ):
            raise _rubbish("a list")
        return value

    def shallow(self) -> TenantReply:
        """Return the answer without the parts nested deeper than `strict_json` reads.

        For reading alone: it lacks parts and must not be written back.
        """
        with contextlib.suppress(ValueError):
            value = strict_json.loads(self.unread, mend=True, prune=True)
            return replace(self, value=value, unread=b"")
        return self

    def wait(self, now: datetime) -> float | None:
        """Return the seconds until it is worth asking again, if a header says so.

        ``x-ratelimit-reset`` is an epoch of the tenant's clock, so it is compared with
        the answer's own ``Date``, not with our clock.
        """
        if self.retry_after is not None:
            return self.retry_after
        if self.reset is None:
            return None
        distance = self.reset - (self.date or now).timestamp()
        return min(max(distance, 0.0), LONGEST_WAIT)


def read_reply(status: int, headers: Mapping[str, str], content: bytes) -> TenantReply:
    """Read an answer; nothing in it raises an exception."""
    value, unread = None, b""
    try:
        value = strict_json.loads(content, mend=True)
    except ValueError:
        unread = content
    return TenantReply(
        status=status,
        value=value,
        retry_after=_retry_after(headers.get("retry-after", "")),
        reset=_whole(headers.get("x-ratelimit-reset", "")),
        remaining=_whole(headers.get("x-ratelimit-remaining", "")),
        date=_date(headers.get("date", "")),
        unread=unread,
    )


def _retry_after(value: str) -> float | None:
    """Read ``Retry-After`` in seconds; its date form is not read."""
    seconds = _whole(value)
    return None if seconds is None else min(float(seconds), LONGEST_WAIT)


def _whole(value: str) -> int | None:
    plain = value.isascii() and value.isdigit() and len(value) <= 15
    return int(value) if plain else None


def _date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value) if value else None
    except (ValueError, IndexError, OverflowError):
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def _rubbish(what: str) -> TenantUnreachableError:
    return TenantUnreachableError(
        f"the tenant sent something else than {what}",
        "check that tenant.issuer is the tenant you mean",
    )
