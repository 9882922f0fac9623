"""The pages on a phone: the waiting requests, and the decision about one step-up."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from msgspec import to_builtins
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from agentvault_tui.clock import iso
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.lures import mask_lures
from agentvault_tui.settings import StepUpSettings
from agentvault_tui.tenant.codes import StoredDeviceCode
from agentvault_tui.tenant.details import AskedRepeat, PageDetails
from agentvault_tui.tenant.oauth.wire import page_form
from agentvault_tui.tenant.page_sessions import (
    PATH,
    SCRIPT_PATH,
    PageSessions,
    back,
    cookie_of,
    problem_of,
    script,
    scripted,
)
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.passkeys import Passkeys
from agentvault_tui.tenant.users import User
from agentvault_tui.tenant.views import Problem, Views, body_view, headline_of
from agentvault_tui.text import in_full, visible

_STEPUP: Final = re.compile(r"(?:sup|chg)_[0-9a-z]{8,64}")
_LOOK_S: Final = 0.25
_SOON_S: Final = 10.0
"""How long a page waits for a step-up that is not known yet: in a team another broker
takes over offering pages within eight seconds."""
_HEARD_S: Final = 2.5
"""How long a submitted form waits for the broker's result; it asks each second."""
_LONGEST_REASON: Final = 200
_DAY: Final = timedelta(days=1)
_OVER: Final = Problem("code_over", "This request is no longer waiting for a decision.")
_CHANGED: Final = Problem("changed", "This request has changed. Look at it again.")
_STALE: Final = Problem("stale_form", "This page is out of date. Look at it again.")
_log = logging.getLogger("agentvault.tenant")


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A form of a signed-in person; the step-up is pending, and as it was shown."""

    request: Request
    user: User
    code: StoredDeviceCode
    page: PageDetails
    fields: Mapping[str, str] = field(repr=False)


_Act = Callable[[_Submitted], Awaitable[None]]


class ApprovalPages:
    """``/approve/sup_…`` for a person with the link who signs in.

    The session shows and denies. Each approval takes a passkey that signs the digest,
    or password and one-time code, afresh.
    """

    def __init__(
        self, parts: Parts, views: Views, keys: Passkeys, settings: StepUpSettings
    ) -> None:
        self._parts = parts
        self._views = views
        self._keys = keys
        self._settings = settings
        self._form_key = parts.seal.derive("approval form")
        self._sessions = PageSessions(parts, views, keys, self._signed_out)

    def routes(self) -> list[BaseRoute]:
        """Return the routes; a step answers to POST alone."""
        steps: dict[str, _Act] = {
            "passkey": self._by_passkey,
            "factors": self._by_factors,
            "repeat": self._repeat,
            "deny": self._deny,
            "stop": self._stop,
        }
        one = f"{PATH}/{{id}}"
        return [
            Route("/", self._inbox),
            *self._sessions.routes(""),
            Route(SCRIPT_PATH, script),
            Route(one, self._show),
            *self._sessions.routes(one),
            *(
                Route(f"{one}/{name}", partial(self._submitted, act), methods=["POST"])
                for name, act in steps.items()
            ),
        ]

    async def _inbox(self, request: Request) -> Response:
        """List the waiting requests, newest first, and today's decisions."""
        user = self._sessions.user(request)
        if user is None:
            return self._sessions.sign_in_page(request, None)
        codes = self._parts.codes.of_pages() if self._may_see(user) else []
        now = self._parts.clock.now()
        waiting = [one for one in codes if self._parts.codes.open(one)]
        today = [one for one in codes if one.outcome and one.created_at > now - _DAY]
        answer = self._views.page(
            "inbox",
            user=user.name,
            waiting=[self._listed(one) for one in waiting],
            decided=[self._listed(one) for one in today],
            script=SCRIPT_PATH,
        )
        return scripted(answer)

    def _listed(self, code: StoredDeviceCode) -> dict[str, object]:
        """Return a row of the inbox."""
        outcome = _outcome_of(code)
        what, page = code.details, code.page
        return {
            "id": None if page is None else page.id,
            "headline": "" if what is None else headline_of(what),
            "fingerprint": "" if what is None else what.fingerprint,
            "risk": "high" if what is None else what.risk.value,
            "status": str(outcome.get("status", "waiting")),
            "by": visible(str(outcome.get("by") or ""), 80),
            "ends": iso(code.ends),
            "left": _left(code, self._parts.clock.now()),
        }

    async def _show(self, request: Request) -> Response:
        user = self._sessions.user(request)
        match = _STEPUP.fullmatch(request.path_params["id"])
        if user is not None and match and self._may_see(user):
            await self._until(request, lambda code: code is not None, _SOON_S)
        return self._page(request, user)

    async def _until(
        self,
        request: Request,
        done: Callable[[StoredDeviceCode | None], bool],
        seconds: float,
    ) -> None:
        """Wait a little for the broker's message about a step-up.

        A link may be opened before the broker has published its step-up, and an answer
        is shown with its result.
        """
        stepup_id = request.path_params["id"]
        for _ in range(round(seconds / _LOOK_S)):
            if done(self._parts.codes.by_stepup(stepup_id)):
                return
            await asyncio.sleep(_LOOK_S)

    async def _signed_out(self, request: Request, problem: Problem | None) -> Response:
        return self._sessions.sign_in_page(request, problem)

    def _page(
        self, request: Request, user: User | None, problem: Problem | None = None
    ) -> Response:
        """Show the part of the step-up that a person may see now."""
        stepup_id = request.path_params["id"]
        if user is None:
            return self._sessions.sign_in_page(request, problem)
        match = _STEPUP.fullmatch(stepup_id) and self._may_see(user)
        code = self._parts.codes.by_stepup(stepup_id) if match else None
        page = None if code is None else code.page
        if code is None or page is None:
            return self._views.page("approve-over", problem or _OVER, user=user.name)
        if code.outcome is not None or code.sub is not None:
            return self._result(code, page, user)
        if not self._parts.codes.open(code):
            return self._views.page("approve-over", problem or _OVER, user=user.name)
        answer = self._views.step(
            "approve",
            code,
            "",
            self._form_token(request, page),
            problem,
            user=user.name,
            page=page,
            by=[visible(name, 64) for _, name in page.by],
            may=[one.name for one in self._parts.people.all() if self._may(one, page)],
            why_not=self._why_not(user, page),
            may_stop=self._may_deny(user)
            and code.details is not None
            and code.details.change is None,
            says=_masked(page.reason),
            body=None if page.body is None else body_view(page.body),
            before=in_full(page.before),
            rule=in_full(page.rule),
            owner=in_full(page.owner),
            may_differ=None if code.details is None else code.details.may_differ,
            last_try=None if page.problem is None else in_full(page.problem),
            options=self._options(user, page),
            factors=not self._passkey_only(code),
            left=_left(code, self._parts.clock.now()),
            script=SCRIPT_PATH,
        )
        return scripted(answer)

    def _options(self, user: User, page: PageDetails) -> str | None:
        """Return the options for the person's passkey; None: they have none."""
        if not self._keys.of(user.sub):
            return None
        return self._keys.request_options(_challenge(page), user.sub)

    def _result(
        self, code: StoredDeviceCode, page: PageDetails, user: User
    ) -> Response:
        """Show the outcome, and whether it was used; the page's script looks again."""
        outcome = _outcome_of(code)
        status = str(outcome.get("status", "waiting"))
        answer = self._views.step(
            "approve-result",
            code,
            "",
            "",
            user=user.name,
            page=page,
            status=status,
            decided_by=visible(str(outcome.get("by") or ""), 200),
            why=visible(str(outcome.get("why") or ""), 300),
            stopped=outcome.get("stopped") is True,
            again=status in {"waiting", "instead", "approved"},
            denied=code.authenticated_at is None,  # its state is "spent" meanwhile
            script=SCRIPT_PATH,
        )
        return scripted(answer)

    # Deciding

    async def _submitted(self, act: _Act, request: Request) -> Response:
        """Act on a form about the waiting request that this person was shown."""
        fields, user = await page_form(request), self._sessions.user(request)
        stepup_id = request.path_params["id"]
        match = user and self._may_see(user) and _STEPUP.fullmatch(stepup_id)
        code = self._parts.codes.by_stepup(stepup_id) if match else None
        page = None if code is None else code.page
        if user is None or code is None or page is None:
            return self._page(request, user)
        sent, token = fields.get("form_token", ""), self._form_token(request, page)
        if not self._parts.codes.open(code):
            return self._page(request, user)
        if fields.get("digest", "") != page.digest:
            return self._page(request, user, _CHANGED)
        if not hmac.compare_digest(sent.encode(), token.encode()):
            return self._page(request, user, _STALE)
        try:
            await act(_Submitted(request, user, code, page, fields))
        except TenantRefusedError as error:
            self._sessions.refused(request, error, user)
            return self._page(request, user, problem_of(error))
        await self._until(request, _is_heard, _HEARD_S)
        return back(request)

    async def _by_passkey(self, form: _Submitted) -> None:
        self._check_may(form)
        passkey = self._keys.verify(
            form.fields.get("credential", ""), _challenge(form.page), form.user.sub
        )
        now = int(self._parts.clock.now().timestamp())
        self._approve(form, now, passkey.amr)

    async def _by_factors(self, form: _Submitted) -> None:
        self._check_may(form)
        if self._passkey_only(form.code):
            raise TenantRefusedError(
                "passkey_needed", "This needs a passkey ([stepup] passkey_only)."
            )
        sign_in = self._parts.sign_in
        origin = sign_in.lanes.origin(form.request)
        password, otp = (form.fields.get(name, "") for name in ("password", "otp"))
        await sign_in.password(form.user.name, password, origin)
        now = sign_in.one_time_code(form.user, otp, origin)
        self._approve(form, now, ("mfa", "pwd", "otp"))

    async def _repeat(self, form: _Submitted) -> None:
        """Ask the broker for a request that also covers the chosen number of repeats.

        It approves nothing: the broker answers with another digest, over action and
        repeat, and the page of that one takes the second factor.
        """
        self._check_may(form)
        chosen = AskedRepeat.chosen(form.fields)
        wanted = None if chosen is None else to_builtins(chosen)
        if not self._parts.codes.ask_instead(form.code, form.user.sub, wanted):
            raise TenantRefusedError(_OVER.code, _OVER.text)

    async def _deny(self, form: _Submitted, *, stop: bool = False) -> None:
        if not self._may_deny(form.user):
            raise TenantRefusedError(
                "not_yours", "Your role may view requests but not deny them."
            )
        reason = visible(form.fields.get("reason", "").strip(), _LONGEST_REASON)
        if not self._parts.codes.deny(form.code, form.user.sub, reason, stop=stop):
            raise TenantRefusedError(_OVER.code, _OVER.text)
        _log.info("step-up denied by %s", form.user.sub)

    async def _stop(self, form: _Submitted) -> None:
        """Deny it, and have the broker revoke the agent.

        Neither needs a second factor.
        """
        if form.code.details is None or form.code.details.change is not None:
            raise TenantRefusedError("bad_request", "No agent asks for this.")
        await self._deny(form, stop=True)

    def _approve(self, form: _Submitted, at: int, amr: tuple[str, ...]) -> None:
        # The first decision wins: a statement that changes a row that waits.
        sid = secrets.token_urlsafe(24)
        code = self._parts.codes.by_stepup(form.page.id)
        if code is None or code.page is None:
            raise TenantRefusedError(_OVER.code, _OVER.text)
        if code.page.digest != form.page.digest:
            raise TenantRefusedError(_CHANGED.code, _CHANGED.text)
        if not self._parts.codes.approve(code, form.user.sub, sid, at, amr):
            raise TenantRefusedError(_OVER.code, _OVER.text)
        client = self._parts.clients.by_key(form.code.client)
        self._parts.journal.signed_in(form.request, form.user, client, mfa=True)
        _log.info("step-up confirmed by %s", form.user.sub)

    # Who may

    def _check_may(self, form: _Submitted) -> None:
        if why := self._why_not(form.user, form.page):
            raise TenantRefusedError("not_yours", why)

    def _why_not(self, user: User, page: PageDetails) -> str | None:
        """Return why *user* may not approve, or None; the broker checks this again."""
        if page.body is not None and page.body.lost:
            return "Its body is lost: this request can only be denied."
        if not self._approver(user):
            return "Your account may not approve."
        if user.sub in {sub for sub, _ in page.by}:
            return "You have already approved this. Another person must approve it too."
        if owner_names(user) & set(page.not_by):
            return "This is your own request. Another person has to approve."
        if not all(_names(user, names) for names in page.only_by):
            return "Only people whom a rule names for such requests may approve it."
        return None

    def _may(self, user: User, page: PageDetails) -> bool:
        return not user.blocked and self._why_not(user, page) is None

    def _approver(self, user: User) -> bool:
        listed = self._settings.approvers
        return _names(user, listed) if listed else user.approver

    def _may_see(self, user: User) -> bool:
        """Check whether *user* has a role here: agents have users of their own."""
        return bool(user.roles) or self._approver(user)

    def _may_deny(self, user: User) -> bool:
        return bool({"operator", "approver"} & set(user.roles)) or self._approver(user)

    def _passkey_only(self, code: StoredDeviceCode) -> bool:
        high = code.details is not None and code.details.risk.value == "high"
        return self._settings.passkey_only and high

    def _form_token(self, request: Request, page: PageDetails) -> str:
        """Return the proof that a form is from this session's page of this digest."""
        about = f"{cookie_of(request)} {page.id} {page.digest}"
        return hmac.new(self._form_key, about.encode(), "sha256").hexdigest()


def owner_names(user: User) -> set[str]:
    """Return the names, case-folded, by which an agent's ``owner`` may mean *user*."""
    called = (user.sub, user.name, user.email, user.profile.get("name"))
    return {str(one).casefold() for one in called if one}


def _masked(reason: str | None) -> dict[str, object] | None:
    """Return the agent's own words without codes and links, and the masked parts."""
    if reason is None:
        return None
    masked = mask_lures(in_full(reason))
    return {"text": masked.text, "masked": masked.warning}


def _challenge(page: PageDetails) -> bytes:
    """Return the digest's 32 bytes: a passkey signs exactly the approved content."""
    return bytes.fromhex(page.digest.removeprefix("sha256:"))


def _names(user: User, listed: Iterable[str]) -> bool:
    """Check whether a list of subjects and addresses names *user*."""
    email = user.email if user.email_verified else None
    names = {user.sub.casefold(), (email or user.sub).casefold()}
    return bool(names & {one.casefold() for one in listed})


def _outcome_of(code: StoredDeviceCode) -> dict[str, Any]:
    """Return the result of a step-up, as far as the broker has sent it."""
    outcome: dict[str, Any] = json.loads(code.outcome) if code.outcome else {}
    return outcome


def _is_heard(code: StoredDeviceCode | None) -> bool:
    """Check whether the broker has sent the result of an answer."""
    waits = {"waiting", "instead"}
    if code is None or (code.outcome is None and code.sub is None):
        return True
    return str(_outcome_of(code).get("status", "waiting")) not in waits


def _left(code: StoredDeviceCode, now: datetime) -> str:
    """Write how long a step-up still waits, as ``4:39``."""
    seconds = max(int((code.ends - now).total_seconds()), 0)
    return f"{seconds // 60}:{seconds % 60:02}"
