"""One of the tenant's APIs behind a bearer token: requests, and lists as iterators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from copy import copy
from typing import Final, NamedTuple, Self
from urllib.parse import urlencode

from agentvault_tui.errors import TenantError, TenantUnreachableError
from agentvault_tui.vault.budget import Budget, Priority
from agentvault_tui.vault.issuer import is_path
from agentvault_tui.vault.refusals import is_scope, read_refusal, refused
from agentvault_tui.vault.reply import Json, TenantReply
from agentvault_tui.vault.tenant import IDEMPOTENT, RetryLimits, Tenant, persist
from agentvault_tui.vault.tokens import AccessToken, TokenSource

Value = str | int | bool | None
Query = Mapping[str, Value]
"""Parameters of a request; None is left out."""

MAX_ANSWER: Final = 4 * 1024 * 1024
"""A hundred log rows with their details are about a megabyte."""
REACHABLE: Final = 1000
"""Rows that Auth0 shows by page; it never shows the rest."""
_MAX_PAGES: Final = 10_000
_MAX_ROWS: Final = 100_000
"""Rows of one list that are held at once; no tenant's lists are longer."""


class Purpose(NamedTuple):
    """The purpose of a request: its verb and object, and the scope that it takes."""

    what: str
    """As in "the tenant would not *what*"."""
    scope: str = ""
    """Used when the tenant names no scope itself."""


class TenantApi:
    """Requests to one API of *tenant*, within its budget, with its errors typed."""

    def __init__(
        self,
        tenant: Tenant,
        base: str,
        tokens: TokenSource,
        *,
        budget: Budget | None = None,
        patience: RetryLimits | None = None,
    ) -> None:
        """Send requests below *base*, such as ``<issuer>api/v2/``.

        It ends in a slash. All clients of this tenant share a *budget* of requests.
        """
        self.tenant: Final = tenant
        self._base = base
        self._tokens = tokens
        self._budget = budget
        self._patience = patience or RetryLimits()
        self._priority = Priority.OPERATOR

    def at(self, priority: Priority) -> Self:
        """Return this client for requests of another *priority*."""
        other = copy(self)
        other._priority = priority  # noqa: SLF001 - it is one of us
        return other

    async def scopes(self) -> frozenset[str]:
        """Return the scopes our token has; empty when the tenant did not say.

        Raises:
            TenantError: it gives us no token.
        """
        return (await self._tokens.access()).scopes

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        expect: Collection[int] = (200,),
        purpose: Purpose | None = None,
        repeatable: bool | None = None,
    ) -> TenantReply:
        """Send one request and return its answer, with a status in *expect*.

        Args:
            method: of HTTP, in capitals.
            path: below the base; ids in it quoted by `issuer.path`.
            query: its parameters.
            body: sent as JSON; nothing when it is None.
            expect: the statuses that are a success.
            purpose: its purpose; by default *method* and *path* are used.
            repeatable: whether twice is as good as once; by default all but POST is.

        Raises:
            TenantUnreachableError: no answer, or none of use.
            TenantBusyError: the rate limit stayed spent.
            TenantRefusedError: the tenant said no; see its kinds.
        """
        if not is_path(path):
            raise ValueError("a path of the API's is quoted by issuer.path")
        given = {name: one for name, one in (query or {}).items() if one is not None}
        pairs = [
            (name, str(one).lower() if isinstance(one, bool) else str(one))
            for name, one in given.items()
        ]
        url = f"{self._base}{path}" + (f"?{urlencode(pairs)}" if pairs else "")
        if repeatable is None:
            repeatable = method in IDEMPOTENT

        async def send() -> TenantReply:
            return await self._send(method, url, body)

        reply = await persist(send, self.tenant, self._patience, repeatable=repeatable)
        if reply.status not in expect:
            now = self.tenant.clock.now()
            what, scope = purpose or Purpose(f"{method} {path}")
            raise refused(reply, what, now, scope=scope)
        return reply

    async def _send(self, method: str, url: str, body: object) -> TenantReply:
        """Send once; with a fresh token once more, when ours is not taken any more."""
        for last in (False, True):
            access = await self._tokens.access()
            if self._budget is not None:
                await self._budget.take(self._priority)
            reply = await self.tenant.send(
                method, url, body=body, bearer=access.token, cap=MAX_ANSWER
            )
            if self._budget is not None:
                self._budget.heed(reply)
            if last or not self._is_outdated(access, reply):
                break
            # RFC 6750 section 3.1: refused before anything was done.
            self._tokens.drop(access)
        return reply

    def _is_outdated(self, access: AccessToken, reply: TenantReply) -> bool:
        """Check whether a fresh token may be accepted where *access* was not.

        A token has the scopes of the moment it was made, not those granted since.
        """
        if reply.status != 403 or access.young is None:
            return reply.status == 401
        return access.young.passed(self.tenant.clock) and is_scope(read_refusal(reply))

    async def by_page(
        self,
        path: str,
        key: str,
        *,
        query: Query | None = None,
        per_page: int = 100,
        totals: bool = True,
        purpose: Purpose | None = None,
    ) -> AsyncIterator[Json]:
        """Yield the rows of a list that is paged by number, under *key* or bare.

        Auth0 refuses parameters it does not know: *totals* asks for ``include_totals``.

        Raises:
            TenantError: as `request`; also after the last row that can be reached, when
                the tenant has more: a list is never cut short silently.
        """
        seen, page, total = 0, 0, None
        while True:
            page_query: Query = {
                "page": page,
                "per_page": per_page,
                "include_totals": totals or None,
            }
            reply = await self.request(
                "GET", path, query={**(query or {}), **page_query}, purpose=purpose
            )
            rows = reply.rows(key)
            if reply.body is not None and type(reply.body.get("total")) is int:
                total = reply.body["total"]
            for row in rows:
                yield row
            seen, page = seen + len(rows), page + 1
            done = len(rows) < per_page if total is None else seen >= total
            if done or not rows:
                break
            if seen >= REACHABLE:
                raise TenantError(
                    f"the tenant shows {REACHABLE} rows of this list and has more",
                    "narrow the question",
                )
        if total is not None and seen < total:
            raise TenantUnreachableError(
                f"the tenant promised {total} rows and showed {seen}", "try again"
            )

    async def by_checkpoint(
        self,
        path: str,
        key: str,
        *,
        query: Query | None = None,
        take: int = 100,
        purpose: Purpose | None = None,
    ) -> AsyncIterator[Json]:
        """Yield the rows of a list under *key* that is paged by a ``next`` mark.

        Raises:
            TenantError: as `request`; also when the marks repeat.
        """
        mark: str | None = None
        marks: set[str] = set()
        seen = 0
        while len(marks) < _MAX_PAGES and seen < _MAX_ROWS:
            reply = await self.request(
                "GET",
                path,
                query={**(query or {}), "take": take, "from": mark},
                purpose=purpose,
            )
            for row in reply.rows(key):
                seen += 1
                yield row
            mark = (reply.body or {}).get("next")
            if not isinstance(mark, str) or not mark:
                return
            if mark in marks:
                break
            marks.add(mark)
        raise TenantUnreachableError("the tenant's list has no end")
