"""A small app to try dialogs in: a real mirror, a clock that stands, scripted actions.

What the actions do is what the broker would answer; they note what they were asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from support.authenticator import Authenticator
from support.fake_state import START, FakeState
from support.manual_clock import ManualClock
from support.wire_shapes import filled, tell
from textual.app import App
from textual.binding import Binding
from textual.pilot import Pilot

from agentvault_tui.clock import iso
from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import Dialog
from agentvault_tui.console.dialogs.info import HelpDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.link.memory import HeadStore
from agentvault_tui.console.messages import ShowKeys
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.term import textual_theme
from agentvault_tui.encoder import to_base64url
from agentvault_tui.operator_api.changes import ChangeInfo
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.operator_api.ending import (
    ConfirmedInfo,
    RecordedAnswer,
    RevokeAnswer,
)
from agentvault_tui.operator_api.requests import Factor, RepeatRequest
from agentvault_tui.operator_api.sessions import DeskInfo, KeyChallenge, MeInfo
from agentvault_tui.operator_api.shapes import AgentInfo, ScopeInfo
from agentvault_tui.presenters import glyphs
from agentvault_tui.presenters.body import view
from agentvault_tui.presenters.records import (
    AgentRow,
    BodyView,
    HeldRequest,
    StepUpRow,
    TreeRow,
    UpstreamStep,
)
from agentvault_tui.presenters.revocations import DeniedRow, Revoked, unrecorded
from agentvault_tui.text import Shown

ISSUER = "http://127.0.0.1:49152"
CODE = "KDRT-WZNB"
ID = "sup_7f3a"
DIGEST = "sha256:7f3a" + "09c4" * 15
"""Of the request that waits in `scene`."""


NOWHERE = Path("/nonexistent/s.sock")


class Scripted(BrokerLink):
    """A link that decides on a `FakeState`; no broker answers the rest."""

    def __init__(self, stand: Stand, *, read_only: bool) -> None:
        memory = HeadStore(NOWHERE, NOWHERE.parent)
        super().__init__(stand.mirror, NOWHERE, memory, read_only=read_only)
        self.stand = stand
        self.asked: list[tuple[str, ...]] = []
        """Each decision that reached the broker: what, on which id, with what."""
        self.looked: list[str | None] = []
        """What this console said it has open, one after the other."""
        self.read: list[str] = []
        """Each request whose past was asked for."""
        self.read_bodies: list[str] = []
        """Each held call whose body was asked for."""
        self.error: Exception | None = None
        self.kept = "ledger"
        self.unnotified: tuple[str, ...] = ()
        """Ids of brokers that a revocation does not reach."""
        """Whether what is cut reaches the ledger."""
        self.trees: dict[str, tuple[TreeRow, ...]] = {}
        """What was delegated of each agent's tokens."""
        self.signed_in: DeskInfo | None = None
        """Who may approve here with a one-time code."""
        self.passkey: Authenticator | None = None
        """The passkey of who signed in."""
        self.hold: asyncio.Event | None = None
        """When set, answers wait for it."""
        self.hold_identity: asyncio.Event | None = None
        """When set, the answer to who is signed in waits for it."""

    async def _note(self, *asked: str) -> None:
        self.asked.append(asked)
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error

    async def me(self) -> MeInfo:
        if self.hold_identity is not None:
            await self.hold_identity.wait()
        return MeInfo(
            uid="uid:1000", user=None, pending=False, problem=None, desk=self.signed_in
        )

    async def approve(
        self,
        stepup_id: str,
        digest: str,
        repeat: RepeatRequest | None = None,
        factor: Factor | None = None,
    ) -> StepUpRow:
        said = [encode(repeat).decode()] if repeat else []
        if factor is not None:
            said += [factor.passkey or factor.otp, factor.password]
        await self._note("approve", stepup_id, digest, *said)
        self.stand.authorize(stepup_id)
        return self.stand.mirror.stepups[stepup_id]

    async def key_challenge(
        self, stepup_id: str, digest: str, repeat: RepeatRequest | None
    ) -> KeyChallenge:
        said = [encode(repeat).decode()] if repeat else []
        await self._note("key", stepup_id, digest, *said)
        passkey = self.passkey
        assert passkey is not None
        return KeyChallenge(
            rp_id=passkey.rp_id,
            origin=passkey.origin,
            challenge="AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
            credentials=(to_base64url(passkey.id),),
        )

    def look(self, stepup_id: str | None) -> None:
        self.looked.append(stepup_id)

    async def before(self, stepup_id: str, limit: int = 5) -> tuple[StepUpRow, ...]:
        self.read.append(stepup_id)
        if self.error is not None:
            raise self.error
        rows = self.stand.mirror.stepups
        asked = rows[stepup_id]
        like = [
            row
            for row in rows.values()
            if not row.open
            and row.id != stepup_id
            and (row.agent_id, row.action) == (asked.agent_id, asked.action)
        ]
        like.sort(key=lambda row: row.decided_at or row.expires_at, reverse=True)
        return tuple(like[:limit])

    async def body(self, stepup_id: str, request: HeldRequest) -> BodyView:
        self.read_bodies.append(stepup_id)
        if self.error is not None:
            raise self.error
        body = self.stand.bodies.get(stepup_id)
        ascii_only = self.stand.desk.glyphs.ascii_only
        return view(request, body, ascii_only=ascii_only)

    async def change(self, change_id: str) -> ChangeInfo:
        self.read_bodies.append(change_id)
        if self.error is not None:
            raise self.error
        row = self.stand.mirror.stepups[change_id]
        asked = {"id": change_id, "digest": row.digest, "texts": self.stand.texts}
        return filled(ChangeInfo, asked)

    async def tree(self, agent_id: str | None) -> tuple[TreeRow, ...]:
        return self.trees.get(agent_id or "", ())

    async def deny(self, stepup_id: str, reason: str) -> DeniedRow:
        await self._note("deny", stepup_id, reason)
        self.stand.deny(stepup_id, "alice", reason)
        answer = RecordedAnswer(kept=self.kept, **self._others())
        return DeniedRow(self.stand.mirror.stepups[stepup_id], unrecorded(answer))

    async def revoke(self, agent_id: str, reason: str) -> Revoked:
        await self._note("revoke", agent_id, reason)
        waiting = len(self.stand.mirror.open_stepups(agent_id))
        tokens = self.stand.mirror.live_tokens(agent_id)
        self.stand.agent(agent_id, status="revoked", tokens=[])
        steps = (
            UpstreamStep(
                step=Shown("vault grant"), status=Shown("confirmed"), ms=212.0
            ),
            UpstreamStep(step=Shown("refresh token"), status=Shown("pending")),
        )
        told = RevokeAnswer(
            agent=filled(AgentInfo, self.stand.state.agents[agent_id]),
            tokens_revoked=tokens,
            stepups_cancelled=waiting,
            effective_ms=1.2,
            kept=self.kept,
            **self._others(),
        )
        return Revoked(told, 3.4, steps)

    def _others(self) -> dict[str, Any]:
        late = self.unnotified
        named = tuple(ConfirmedInfo(id=i, confirmed=False, ms=0.0) for i in late)
        return {"brokers": named, "others": "not_told"} if late else {}

    async def restore(self, agent_id: str) -> float:
        await self._note("restore", agent_id)
        self.stand.agent(agent_id, status="active")
        return 2.8

    async def cut(self, call_id: str) -> None:
        await self._note("cut", call_id)
        self.stand.mirror.load_calls(())

    async def panic(self, reason: str) -> Revoked:
        await self._note("panic", reason)
        self.stand.panic(reason)
        told = RevokeAnswer(
            tokens_revoked=5,
            stepups_cancelled=2,
            effective_ms=1.9,
            kept=self.kept,
            **self._others(),
        )
        return Revoked(told, 4.2, ())

    async def lift(self) -> float:
        await self._note("lift")
        return 3.1


class Stand:
    """What the broker knows, the mirror of it, and the desk over both."""

    def __init__(self, *, ascii_only: bool = False, read_only: bool = False) -> None:
        self.clock = ManualClock(START)
        self.state = FakeState(START)
        self.mirror = Mirror(self.clock, ascii_only=ascii_only)
        self.bodies: dict[str, bytes] = {}
        self.texts: list[dict[str, Any]] = []
        """Of each change that is read."""
        """Of held calls, as the broker keeps them, by step-up."""
        scopes = {n: ScopeInfo(**one) for n, one in self.state.catalogue.items()}
        self.mirror.intake.learn(scopes)
        self.actions = Scripted(self, read_only=read_only)
        alphabet = glyphs.ASCII if ascii_only else glyphs.UNICODE
        self.desk = Desk(self.actions, alphabet)
        self.mirror.set_link(LinkState.LIVE)
        self.mirror.loaded = True

    def agent(self, agent_id: str, **change: Any) -> AgentRow:
        self.state.agents[agent_id].update(change)
        tell(self.mirror, "agent", self.state.agents[agent_id])
        return self.mirror.agents[agent_id]

    def add_agent(self, name: str, *scopes: str, **more: Any) -> AgentRow:
        return self.agent(self.state.add_agent(name, *scopes, **more)["id"])

    def ask(self, agent_id: str, action: str, **more: Any) -> StepUpRow:
        """Let an agent ask for something that needs a person."""
        number = len(self.state.stepups) + 1
        now = self.clock.now()
        shape: dict[str, Any] = {
            "id": f"sup_{number:016d}",
            "agent_id": agent_id,
            "agent_name": self.state.agents[agent_id]["name"],
            "action": action,
            "scope": action,
            "resource": "stripe:acct_42",
            "parameters": {},
            "money": {"unit": "minor", "exponent": 2},
            "reason": None,
            "rule": "payments-need-step-up",
            "why": "money leaves the company",
            "risk": "high",
            "digest": f"sha256:{number:04x}" + "7f3a" * 15,
            "fingerprint": f"{number:04X}",
            "ttl": 300,
            "count": 1,
            "problem": None,
            "requested_at": iso(now),
            "expires_at": iso(now + timedelta(seconds=300)),
            "status": "pending",
            "decided_by": None,
            "decided_at": None,
            "denial": None,
            "device": None,
            "begun_at": None,
            "redeemed_at": None,
            **more,
        }
        return self.put(shape)

    def propose(self, why: str, kind: str = "agents", **more: Any) -> StepUpRow:
        """Let alice ask for a change: as the broker sends it, as a step-up."""
        number = len(self.state.stepups) + 1
        details = more.pop("details", {})
        usual = {"summary": why, "changes": ["policy"], **details}
        self.state.agents.setdefault("", {"id": "", "name": "alice"})
        row = self.ask(
            "",
            f"change:{kind}",
            **{
                "id": f"chg_{number:016d}",
                "scope": "",
                "resource": "policy.cedar",
                "parameters": usual,
                "rule": "changes",
                "why": why,
                "ttl": 0,
                **more,
            },
        )
        del self.state.agents[""]
        return row

    def hold(self, agent_id: str, body: bytes | None, **more: Any) -> StepUpRow:
        """Let an agent's call be held; without *body* the broker has it no more."""
        kind, media_type = more.pop("kind", ("json", "application/json"))
        request = {
            "method": "POST",
            "url": "https://api.stripe.com/v1/transfers/acct_42",
            "headers": {"idempotency-key": "inv-1881"},
            "body_kind": kind,
            "body_type": media_type,
            "body_sha256": sha256(body or b"lost").hexdigest(),
            "body_bytes": len(body or b"lost"),
        }
        row = self.ask(agent_id, "send:payment", request=request, **more)
        if body is not None:
            self.bodies[row.id] = body
        return row

    def put(self, shape: dict[str, Any]) -> StepUpRow:
        self.state.stepups[shape["id"]] = shape
        tell(self.mirror, "stepup", shape)
        return self.mirror.stepups[shape["id"]]

    def change(self, stepup_id: str, **change: Any) -> StepUpRow:
        return self.put({**self.state.stepups[stepup_id], **change})

    def authorize(self, stepup_id: str, base: str = ISSUER) -> StepUpRow:
        device = {
            "user_code": CODE,
            "verification_uri": f"{base}/activate",
            "verification_uri_complete": f"{base}/activate?user_code={CODE}",
            "expires_in": 120,
            "interval": 2,
            "expires_at": iso(self.clock.now() + timedelta(seconds=120)),
        }
        return self.change(
            stepup_id,
            status="authorizing",
            device=device,
            problem=None,
            begun_at=iso(self.clock.now()),
        )

    def redeem(self, stepup_id: str) -> StepUpRow:
        now = iso(self.clock.now())
        return self.change(stepup_id, status="redeemed", redeemed_at=now)

    def approve(self, stepup_id: str, name: str) -> StepUpRow:
        now = iso(self.clock.now())
        by = {"sub": "auth0|1", "name": name, "amr": ["otp", "mfa"], "auth_time": now}
        return self.change(
            stepup_id, status="approved", decided_by=by, decided_at=now, device=None
        )

    def deny(self, stepup_id: str, name: str, reason: str = "") -> StepUpRow:
        return self.change(
            stepup_id,
            status="denied",
            denial=reason or None,
            decided_by={"sub": "uid:1000", "name": name, "amr": []},
            decided_at=iso(self.clock.now()),
            device=None,
        )

    def panic(self, reason: str, by: str = "alice") -> None:
        since = iso(self.clock.now())
        self.state.panic = {"on": True, "since": since, "by": by, "reason": reason}
        tell(self.mirror, "status", self.state.status_shape())


class StandApp(App[None]):
    """Shows one dialog over an empty screen."""

    BINDINGS = [Binding("ctrl+q", "quit", "quit", priority=True)]  # noqa: RUF012

    def __init__(
        self,
        stand: Stand,
        make: Callable[[Desk], Dialog[Any]],
        looks: str = "agentvault",
    ) -> None:
        super().__init__()
        self.stand = stand
        self.animation_level = "none"
        textual_theme.install(self, looks)
        self.make = make

    def on_mount(self) -> None:
        self.push_screen(self.make(self.stand.desk))

    def on_show_keys(self, message: ShowKeys) -> None:
        self.push_screen(HelpDialog(message.desk, message.bindings))

    @property
    def dialog(self) -> Any:
        """The dialog on top."""
        return self.screen

    def settle(self) -> None:
        """Let the arm delay pass, and draw what is on top and what is under it."""
        self.stand.clock.advance(0.6)
        for screen in self.screen_stack:
            if isinstance(screen, Dialog):
                screen.update_page()


def text_of(app: App[Any]) -> str:
    """What stands on the screen, row by row."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text for strip in strips)


def said(app: App[Any]) -> str:
    """The words on the screen as one line, without frames and breaks."""
    return " ".join(text_of(app).replace("│", " ").split())


def scene(**kind: bool) -> Stand:
    """Two agents, a payment that waits, and a past of three like it."""
    stand = Stand(**kind)
    pay = stand.add_agent(
        "payments-agent", "send:payment", "read:finance", owner="bob@acme.test"
    )
    cal = stand.add_agent("calendar-agent", "write:calendar", "read:contacts")
    raw = stand.state.agents[cal.id]
    for left in (2467.0, 3520.0):
        stand.state.add_token(raw, "write:calendar", left)
    stand.agent(cal.id)
    usual = {"amount": 390000, "currency": "USD", "to": "Northwind GmbH"}
    for name, ending in (("alice", "approve"), ("carol", "approve"), ("bob", "deny")):
        old = stand.ask(pay.id, "send:payment", parameters={**usual, "invoice": "1881"})
        stand.clock.advance(40)
        getattr(stand, ending)(old.id, name)
    stand.clock.advance(3600)
    stand.ask(
        pay.id,
        "send:payment",
        id=ID,
        digest=DIGEST,
        fingerprint="7F3A",
        parameters={
            "amount": 420000,
            "currency": "USD",
            "to": "Northwind GmbH",
            "invoice": "1881",
        },
        reason="Invoice 1881 is due today. Enter code ABCD-EFGH at "
        "https://evil.example/activate to confirm.",
    )
    stand.clock.advance(48)
    return stand


@asynccontextmanager
async def opened(
    stand: Stand, stepup_id: str = ID, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[StandApp, Pilot[None]]]:
    """Open the dialog of a step-up."""
    app = StandApp(
        stand, lambda desk: StepUpDialog(desk, stand.mirror.stepups[stepup_id])
    )
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        yield app, pilot


async def decide(app: StandApp, pilot: Pilot[None], key: str) -> None:
    """Press a key that has had its 600 ms, and let the broker answer."""
    app.settle()
    await pilot.press(key)
    await app.workers.wait_for_complete()
    await pilot.pause()
    app.dialog.update_page()
