"""A tenant client whose person answers when the test says so.

The broker's tests replace the client itself: what they decide is who approved and when.
`rogue_tenant` stands one level lower, at the socket, for tests of the client: any bytes
as an answer. `dict_tenant` is there too: it keeps objects for provisioning to read.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from support.manual_clock import ManualClock

from agentvault_tui.clock import Deadline
from agentvault_tui.errors import IdentityError, TenantUnreachableError
from agentvault_tui.model.claims import STEPUP
from agentvault_tui.vault import DeviceFlow, FlowDenied, FlowTokens, Identity, Tenant
from agentvault_tui.vault.device import End
from agentvault_tui.vault.identity import PageAnswer

ALICE = {"sub": "agentvault|alice", "roles": ("approver",), "amr": ("mfa", "otp")}


class ScriptedTenant(Tenant):
    """Speaks the client's interface; each flow ends as the test decides."""

    # ruff: noqa: ARG002 - the interface is the client's

    def __init__(self, clock: ManualClock, issuer: str = "") -> None:
        super().__init__(issuer or "http://127.0.0.1:1/", clock, sleep=self._pass)
        self.reachable = True
        self._manual = clock
        self.flows: list[DeviceFlow] = []
        self.shown: list[Any] = []
        self.down = False
        self.not_before: list[datetime] = []
        """Since when a factor had to be proved, each time a token was verified."""
        self.answers: dict[str, PageAnswer] = {}
        """What the ID tokens say of those who answered otherwise, by token."""
        self.took = timedelta(seconds=1)
        """How long after a flow began its person showed their factors."""
        self._ends: list[asyncio.Future[End]] = []
        self._approvers: dict[str, dict[str, Any] | IdentityError] = {}

    async def _pass(self, seconds: float) -> None:
        """Let time pass for whoever waits to ask again."""
        self._manual.advance(seconds)
        await asyncio.sleep(0)

    async def probe(self) -> bool:
        return not self.down

    async def start_device_flow(
        self,
        scope: str = "openid",
        authorization_details: Any = None,
        *,
        ttl: int,
        origin: str = "",
    ) -> DeviceFlow:
        await asyncio.sleep(0)
        if self.down:
            raise TenantUnreachableError("the tenant does not answer", "try again")
        number = len(self.flows)
        flow = DeviceFlow(
            device_code=f"device-{number}",
            user_code=f"BCDF-GHJ{number}",
            verification_uri="http://127.0.0.1:1/activate",
            verification_uri_complete=f"http://127.0.0.1:1/activate?user_code={number}",
            expires_in=ttl,
            interval=1,
            started_at=self.clock.now(),
            expires=Deadline.after(self.clock, ttl),
        )
        self.flows.append(flow)
        self.shown.append(authorization_details)
        self._ends.append(asyncio.get_running_loop().create_future())
        return flow

    async def wait(self, flow: DeviceFlow, turn: object = None) -> End:
        # Shielded: who waits no more does not end the flow.
        return await asyncio.shield(self._ends[self.flows.index(flow)])

    async def verify_id_token(
        self, raw: str, *, not_before: datetime, until: Deadline | None = None
    ) -> Identity:
        self.not_before.append(not_before)
        who = self._approvers[raw]
        if isinstance(who, IdentityError):
            raise who
        number = int(raw.rpartition("-")[2])
        began = self.flows[number].started_at
        page = self.shown[number][0].get("page") if self.shown[number] else None
        signed = {}
        if page is not None:  # a tenant with pages signs what was decided
            signed[STEPUP] = {"digest": page["digest"], "decision": "approve"}
        return Identity(
            sub=who["sub"],
            name=who["sub"].rpartition("|")[2],
            email=who.get("email", ""),
            email_verified=who.get("email_verified", False),
            roles=who["roles"],
            amr=who["amr"],
            authenticated_at=began + self.took,
            claims=who.get("claims", signed),
        )

    async def verify_page_answer(
        self, raw: str, *, digest: str, until: Deadline
    ) -> PageAnswer:
        return self.answers[raw]

    # What the test does

    def approve(
        self, number: int = -1, who: dict[str, Any] | IdentityError = ALICE
    ) -> None:
        """Let the person of one flow say yes."""
        raw = f"id-token-{number % len(self.flows)}"
        self._approvers[raw] = who
        self._ends[number].set_result(FlowTokens(raw))

    def end(self, end: End, number: int = -1) -> None:
        """Let one flow end otherwise."""
        self._ends[number].set_result(end)

    def answer(self, answer: PageAnswer) -> None:
        """Let the person of the last flow answer otherwise at the approval page."""
        raw = f"id-token-{len(self.flows) - 1}"
        self.answers[raw] = answer
        self.end(FlowDenied("the person answered otherwise", raw))
