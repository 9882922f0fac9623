"""What an operator may do: by their role once signed in, by the socket until then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.scripted_tenant import ALICE
from support.stepups import Gate, hold, latched, start

from agentvault_tui.broker.authority import Sessions
from agentvault_tui.broker.operators_api import operators_app
from agentvault_tui.broker.usecases.mint import may_approve
from agentvault_tui.broker.usecases.revoke import panic, revoke_agent
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.model import EventType, Evidence, Repeat, StepUpStatus
from agentvault_tui.model.role import Role, role_of
from agentvault_tui.settings import OperatorSettings, Settings, StepUpSettings
from agentvault_tui.vault import FlowDenied, Identity
from agentvault_tui.web import Receive, Scope, Send
from agentvault_tui.web.sockets import Peer

CUTS = ("revoke", "panic", "deny", "ungrant", "narrow by files")
GIFTS = ("restore", "lift", "register", "grant", "secret", "widen by files")
DEEDS = (*CUTS, *GIFTS, "approve")
BY_ROLE = {"viewer": set(), "operator": {*CUTS, *GIFTS}, "approver": set(DEEDS)}


class Seat:
    """One local user at the operators' socket."""

    def __init__(self, bench: Bench, app: Any, uid: int) -> None:
        async def seated(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = {"peer": Peer(uid, None)}
            await app(scope, receive, send)

        self.bench = bench
        transport = httpx.ASGITransport(seated)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://b")

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.http.post(f"/api/{path}", json=body)

    async def me(self) -> dict[str, Any]:
        return dict((await self.http.get("/api/auth/me")).json())

    async def sign_in(self, *roles: str, name: str = "victor") -> None:
        """Be the person at the tenant, who holds *roles*."""
        assert (await self.post("auth/login")).status_code == 202
        who = {"sub": f"auth0|{name}", "roles": roles, "amr": ("mfa", "otp")}
        self.bench.tenant.approve(who=who)
        assert await self.ended() is None
        assert (await self.me())["user"]["sub"] == f"auth0|{name}"

    async def ended(self) -> str | None:
        """Wait for the sign-in to end; return why it failed, if it did."""
        async with asyncio.timeout(PATIENT):
            while (me := await self.me())["pending"]:  # noqa: ASYNC110 - as a face asks
                await asyncio.sleep(0.001)
        problem: str | None = me["problem"]
        return problem

    async def do(self, deed: str) -> httpx.Response:
        """Try one decision on an agent of its own."""
        broker = self.bench.broker
        agent, stepup = await hold(self.bench, f"payer-{deed}")
        match deed:
            case "revoke":
                return await self.post("agents/revoke", agent_id=agent.id, reason="r")
            case "panic":
                return await self.post("agents/revoke", all=True, reason="r")
            case "restore":
                await revoke_agent(broker, agent.id, "", OPERATOR)
                return await self.post("agents/restore", agent_id=agent.id)
            case "lift":
                await panic(broker, "", OPERATOR)
                return await self.post("agents/restore", all=True)
            case "register":
                body = {"name": "new", "owner": "o", "scopes": ["read:calendar"]}
                return await self.post("agents", **body)
            case "secret":
                return await self.post("agents/secret", agent_id=agent.id)
            case "narrow by files" | "widen by files":
                scopes = (
                    ["send:payment"] if deed == "narrow by files" else ["read:email"]
                )
                entry = {"owner": "olga", "purpose": "tests", "scopes": scopes}
                return await self.post("files", agents={agent.name: entry})
            case "approve" | "deny":
                body = {"id": stepup.id, "decision": deed, "digest": stepup.digest}
                return await self.post("agents/stepup", **body)
            case _:
                body = {"agent_id": agent.id, deed: ["write:calendar"]}
                return await self.post("agents/scopes", **body)


@pytest.fixture
async def seat(bench: Bench) -> AsyncIterator[Seat]:
    seat = Seat(
        bench, operators_app(bench.broker, bench.feed, Sessions(bench.broker)), 1000
    )
    yield seat
    await seat.http.aclose()


def by_claim(bench: Bench) -> Seat:
    """Return a seat at a broker where roles are ``claim``."""
    roles = OperatorSettings(roles="claim")
    bench.broker.settings = replace(bench.broker.settings, operators=roles)
    return Seat(
        bench, operators_app(bench.broker, bench.feed, Sessions(bench.broker)), 1000
    )


@pytest.mark.slow
@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("role", BY_ROLE)
@pytest.mark.parametrize("source", ["auto", "claim"])
async def test_a_role_decides(
    bench: Bench, seat: Seat, source: str, role: str, deed: str
) -> None:
    """Viewer: nothing; operator: all but approving; approver: all; wherever set."""
    at = by_claim(bench) if source == "claim" else seat
    await at.sign_in(role)
    answer = await at.do(deed)
    if deed in BY_ROLE[role]:
        assert answer.status_code in {200, 201, 202}, answer.text
        return
    assert answer.status_code == 403, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    needed = "approver" if deed == "approve" else "operator"
    assert answer.json()["needed_role"] == needed
    assert f"needs the role {needed}; victor is {role}" in answer.json()["detail"]
    assert len(await bench.events("operator.login")) == 1


@pytest.mark.parametrize("signed_in", [False, True])
@pytest.mark.parametrize("deed", DEEDS)
async def test_with_a_tenant_that_gives_no_roles_nothing_changes(
    seat: Seat, deed: str, signed_in: bool
) -> None:
    """Signed in without a role of ours, or not at all: the socket is the check."""
    if signed_in:
        await seat.sign_in("admin", "Approver")
    assert (await seat.do(deed)).status_code in {200, 201, 202}
    assert (await seat.me())["refused"] == {}


@pytest.mark.parametrize("signed_in", [False, True])
@pytest.mark.parametrize("deed", [*CUTS, *GIFTS])
async def test_by_claim_only_cutting_goes_without_a_role(
    bench: Bench, deed: str, signed_in: bool
) -> None:
    """Nobody has to find a phone before an agent is cut off; giving waits for one."""
    seat = by_claim(bench)
    if signed_in:
        await seat.sign_in()
    answer = await seat.do(deed)
    assert answer.status_code == (200 if deed in CUTS else 403), answer.text
    if deed in GIFTS:
        why = "the tenant gives victor none" if signed_in else "nobody is signed in"
        assert why in answer.json()["detail"]


async def test_by_claim_an_approval_may_be_begun_without_a_role(bench: Bench) -> None:
    """Whose yes counts shows at its end: see who proves a second factor."""
    assert (await by_claim(bench).do("approve")).status_code == 202


async def test_a_viewer_sees_everything(seat: Seat) -> None:
    """Reading, and looking at a step-up, is not deciding."""
    agent, stepup = await hold(seat.bench)
    await seat.sign_in("viewer")
    for path in ("agents", f"agents/{agent.id}", "agents/stepup", "audit", "policy"):
        assert (await seat.http.get(f"/api/{path}")).status_code == 200, path
    shown = await seat.http.get(f"/api/agents/stepup/{stepup.id}")
    assert shown.status_code == 200
    me = await seat.me()
    assert me["role"] == "viewer"
    assert set(me["refused"]) == {"revoke", "restore", "approve"}


PERSON = {"change": "role", "user": "eve", "sub": "auth0|eve", "roles": ["approver"]}


async def test_by_claim_people_are_changed_by_approvers_alone(bench: Bench) -> None:
    """Neither an operator nor nobody makes an approver; who did so is on record."""
    bench.broker.reaching.kind = "embedded"
    seat = by_claim(bench)
    for role in (None, "operator"):
        if role is not None:
            await seat.sign_in(role)
        refused = await seat.post("tenant/people", **PERSON)
        assert (refused.status_code, refused.json()["needed_role"]) == (403, "approver")
        assert "people" in (await seat.me())["refused"]
    assert not await bench.events("tenant.user_changed")
    await seat.sign_in("approver", name="ann")
    changed = await seat.post("tenant/people", **PERSON)
    assert changed.json()["by"] == {"id": "auth0|ann", "name": "ann"}
    (event,) = await bench.events("tenant.user_changed")
    loosened = event.detail.pop("loosened")
    assert (event.actor.name, event.action, event.detail) == ("ann", "role", PERSON)
    assert (loosened["kinds"], loosened["proof"]) == (["people"], "uid")


@pytest.mark.parametrize(
    ("change", "roles", "loosens"),
    [
        ("added", ["approver"], True),
        ("role", ["operator"], True),
        ("password", [], True),
        ("factor", [], True),
        ("passkey", [], True),
        ("added", [], False),
        ("role", [], False),
        ("removed", [], False),
    ],
)
async def test_a_change_of_people_that_gives_is_recorded_as_loosening(
    seat: Seat, change: str, roles: list[str], loosens: bool
) -> None:
    """Alerts read that member, and nothing else says that more is allowed."""
    seat.bench.broker.reaching.kind = "embedded"
    body = {**PERSON, "change": change, "roles": roles}
    assert (await seat.post("tenant/people", **body)).status_code == 200
    (event,) = await seat.bench.events("tenant.user_changed")
    assert ("loosened" in event.detail) is loosens


@pytest.mark.parametrize("change", ["added", "role"])
async def test_a_person_without_a_role_may_be_an_approver_of_the_list(
    seat: Seat, change: str
) -> None:
    """So it is recorded as a loosening, unless roles alone count."""
    broker = seat.bench.broker
    broker.reaching.kind = "embedded"
    listed = StepUpSettings(approvers=("ann@example.com",))
    for roles in ("auto", "claim"):
        operators = OperatorSettings(roles=roles)
        broker.settings = replace(broker.settings, stepup=listed, operators=operators)
        body = {**PERSON, "change": change, "roles": []}
        assert (await seat.post("tenant/people", **body)).status_code == 200
    events = await seat.bench.events("tenant.user_changed")
    assert ["loosened" in one.detail for one in events] == [True, False]


async def test_whose_people_they_are_decides(seat: Seat) -> None:
    """Where roles are not claimed the socket is enough; Auth0 keeps its own people."""
    assert (await seat.post("tenant/people", **PERSON)).status_code == 409
    seat.bench.broker.reaching.kind = "embedded"
    assert (await seat.post("tenant/people", **PERSON)).status_code == 200
    odd = {**PERSON, "change": "renamed"}
    assert (await seat.post("tenant/people", **odd)).status_code == 400


@pytest.mark.parametrize("revoke", [False, True])
async def test_a_change_of_the_tenants_keys_is_recorded(
    bench: Bench, *, revoke: bool
) -> None:
    """Without a role at the socket, as it only ends what was signed before."""
    seat = by_claim(bench)
    assert (await seat.post("tenant/keys", revoke=revoke)).status_code == 409
    bench.broker.reaching.kind = "embedded"
    assert (await seat.post("tenant/keys", revoke=revoke)).status_code == 200
    await seat.sign_in("viewer", name="vera")
    assert (await seat.post("tenant/keys", revoke=revoke)).status_code == 403
    (event,) = await bench.events("tenant.keys_changed")
    assert event.action == ("revoked" if revoke else "rotated")
    assert event.actor.id == "uid:1000"
    assert event.detail == {}


async def test_who_is_changed_at_the_tenant_is_signed_out(seat: Seat) -> None:
    """What they may do now is what the tenant says at their next sign-in."""
    seat.bench.broker.reaching.kind = "embedded"
    await seat.sign_in("approver", name="eve")
    await seat.post("tenant/people", **PERSON)
    assert (await seat.me())["user"] is None
    (event,) = await seat.bench.events("operator.logout")
    assert event.reason == "changed at the tenant"


async def test_no_approval_follows_the_removal_of_its_approver_in_the_chain(
    seat: Seat, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one of two that were needed: it is refused before the removal is recorded."""
    bench, stepups = seat.bench, seat.bench.broker.stepups
    bench.broker.reaching.kind = "embedded"
    sub = str(ALICE["sub"])
    _, alone = await hold(bench, "alone")
    _, two = await hold(bench, "two")
    stepups.put(replace(two, need=2, confirmed=(Evidence(sub, "alice", by_role=True),)))
    await start(bench, alone)
    clock.advance(60)
    gate = Gate(bench, monkeypatch, EventType.TENANT_USER_CHANGED)
    person = {"change": "removed", "user": "alice", "sub": sub, "roles": []}
    removed = asyncio.ensure_future(seat.post("tenant/people", **person))
    await gate.reached.wait()
    bench.tenant.approve()
    await bench.until(lambda: alone.id not in stepups.flows)
    gate.open.set()
    assert (await removed).status_code == 200
    assert "alice was changed at the tenant" in str(stepups.get(alone.id).problem)
    found = [stepups.get(one.id) for one in (alone, two)]
    assert {(one.status, one.confirmed) for one in found} == {
        (StepUpStatus.PENDING, ())
    }


@pytest.mark.parametrize(
    ("kind", "repeat"),
    [
        (EventType.STEPUP_CONFIRMED, None),
        (EventType.STEPUP_APPROVED, Repeat(3, 600, ())),
    ],
    ids=["one of two", "repeated"],
)
async def test_an_approval_ends_whose_person_is_removed_while_it_is_recorded(
    seat: Seat, monkeypatch: pytest.MonkeyPatch, kind: EventType, repeat: Repeat | None
) -> None:
    """It counts neither with another person's nor for another request."""
    bench, stepups = seat.bench, seat.bench.broker.stepups
    bench.broker.reaching.kind = "embedded"
    _, stepup = await hold(bench)
    if repeat is None:
        stepups.put(replace(stepup, need=2))
    await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR, repeat)
    gate = Gate(bench, monkeypatch, kind)
    bench.tenant.approve()
    await gate.reached.wait()
    person = {"change": "removed", "user": "alice", "sub": ALICE["sub"], "roles": []}
    assert (await seat.post("tenant/people", **person)).status_code == 200
    gate.open.set()
    await bench.until(lambda: stepup.id not in stepups.flows)
    assert stepups.get(stepup.id).confirmed == ()
    assert stepups.repeating(None) == []
    ends = {None: "stepup.not_approved"}.get(repeat, "stepup.repeat_ended")
    async with asyncio.timeout(PATIENT):  # the flow ends before its record
        while not await bench.events(ends):  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0)
    assert len(await bench.events(ends)) == 1


async def test_the_record_names_the_person(seat: Seat) -> None:
    """What a signed-in operator decides carries the tenant's subject and name."""
    agent, stepup = await hold(seat.bench)
    await seat.sign_in("approver", name="olga")
    body = {"id": stepup.id, "decision": "deny", "reason": "no"}
    denied = (await seat.post("agents/stepup", **body)).json()
    assert denied["decided_by"]["sub"] == "auth0|olga"
    await seat.post("agents/revoke", agent_id=agent.id, reason="r")
    await seat.post("agents/restore", agent_id=agent.id)
    for kind in ("operator.login", "stepup.denied", "agent.revoked", "agent.restored"):
        (event,) = await seat.bench.events(kind)
        assert (event.actor.id, event.actor.name) == ("auth0|olga", "olga"), kind
    (login,) = await seat.bench.events("operator.login")
    assert (login.detail["uid"], login.detail["roles"]) == ("uid:1000", ["approver"])


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_refusal_is_on_record(seat: Seat, deed: str) -> None:
    """Who tried what, on what, and the role it takes: a viewer's tries are evidence."""
    await seat.sign_in("viewer")
    answer = await seat.do(deed)
    (tried,) = await seat.bench.events("operator.refused")
    assert (tried.actor.id, tried.actor.name) == ("auth0|victor", "victor")
    assert tried.reason == answer.json()["detail"]
    role = answer.json()["needed_role"]
    assert tried.detail == {"uid": "uid:1000", "needed_role": role}
    kinds = {"approve": "approve", **dict.fromkeys(GIFTS, "restore")}
    assert tried.action == kinds.get(deed, "revoke")
    match deed:
        case "panic" | "lift":
            assert tried.resource == "all agents"
        case "register":
            assert tried.resource == "a new agent, new"
        case "approve" | "deny":
            assert str(tried.resource).startswith("sup_")
        case "narrow by files" | "widen by files":
            assert tried.resource == "applied files"
        case _:
            assert str(tried.resource).startswith("agt_")


async def test_refusals_that_repeat_are_counted_and_not_all_recorded(
    seat: Seat, clock: ManualClock
) -> None:
    """Each record goes to all exports, and a viewer can be refused all day."""
    await seat.sign_in("viewer")
    agent, _ = await hold(seat.bench)
    for number in range(31):
        clock.advance(number // 30)
        tried = await seat.post("agents/restore", agent_id=agent.id)
        assert tried.status_code == 403
    assert len(await seat.bench.events("operator.refused")) == 11
    last = (await seat.bench.events("operator.refused"))[-1]
    assert last.detail["more"] == 20


async def test_a_refusal_does_not_begin_the_idle_time_anew(
    seat: Seat, clock: ManualClock
) -> None:
    """Only what a person decides is use of a session, and here nothing was."""
    await seat.sign_in("viewer")
    clock.advance(14 * 60)
    assert (await seat.do("revoke")).status_code == 403
    clock.advance(2 * 60)
    assert (await seat.me())["role"] is None


async def test_a_session_locks_when_nothing_is_decided(
    seat: Seat, clock: ManualClock
) -> None:
    """Reading is no use of it, a decision is; at fifteen minutes it is gone."""
    await seat.sign_in("operator")
    for number in range(3):
        agent = await seat.bench.agent(f"a{number}")
        clock.advance(899)
        answer = await seat.post("agents/revoke", agent_id=agent.id, reason="")
        assert answer.status_code == 200
    for _ in range(15):
        assert (await seat.me())["user"] is not None
        clock.advance(60)
    me = await seat.me()
    assert (me["user"], me["role"], me["refused"]) == (None, None, {})


async def test_a_session_ends_after_twelve_hours_of_use(
    seat: Seat, clock: ManualClock
) -> None:
    """However busy, it is over twelve hours after the sign-in."""
    await seat.sign_in("operator")
    for number in range(12 * 6):
        agent = await seat.bench.agent(f"a{number}")
        assert (await seat.me())["user"] is not None
        await seat.post("agents/revoke", agent_id=agent.id, reason="")
        clock.advance(600)
    assert (await seat.me())["user"] is None


async def test_no_clock_that_is_set_keeps_or_revives_a_session(
    seat: Seat, clock: ManualClock
) -> None:
    """Either clock ends it, a suspended laptop's too, and it stays ended."""
    await seat.sign_in("approver")
    clock.jump_wall(-3600)
    clock.advance(901)
    assert (await seat.me())["user"] is None
    await seat.sign_in("approver")
    clock.jump_wall(901)
    assert (await seat.me())["user"] is None
    clock.jump_wall(-901)
    assert (await seat.me())["user"] is None


async def test_the_end_of_a_session_is_recorded_and_told(
    seat: Seat, clock: ManualClock
) -> None:
    """Upkeep finds what is over, once, and the ledger says why."""
    await seat.sign_in("approver")
    clock.advance(901)
    for _ in range(2):
        for chore in seat.bench.broker.extensions.chores:
            await chore()
    (event,) = await seat.bench.events("operator.logout")
    assert event.actor.id == "auth0|victor"
    assert event.reason == "15 minutes without a decision"


async def test_a_session_is_one_local_users_own(bench: Bench) -> None:
    """What one uid signed in to, another has not."""
    app = operators_app(bench.broker, bench.feed, Sessions(bench.broker))
    victor, root = Seat(bench, app, 1000), Seat(bench, app, 0)
    await victor.sign_in("viewer")
    assert (await root.me())["user"] is None
    assert (await root.do("revoke")).status_code == 200
    assert (await victor.do("deny")).status_code == 403
    (event,) = await bench.events("agent.revoked")
    assert event.actor.id == "uid:0"


async def test_signing_out_ends_it_at_once(seat: Seat) -> None:
    """After it the role is gone, and the ledger says when."""
    await seat.sign_in("operator")
    answer = await seat.post("auth/logout")
    assert answer.json()["user"] is None
    assert len(await seat.bench.events("operator.logout")) == 1
    await seat.post("auth/logout")
    assert len(await seat.bench.events("operator.logout")) == 1


async def test_signing_out_ends_only_the_sign_in_that_was_under_way(seat: Seat) -> None:
    """The code given out before it opens nothing; one asked for after it does."""
    await seat.post("auth/login")
    await seat.post("auth/logout")
    await seat.post("auth/login")
    assert (await seat.me())["pending"] is True
    who = {"sub": "auth0|eve", "roles": ("approver",), "amr": ("mfa",)}
    seat.bench.tenant.approve(0, who=who)
    assert (await seat.me())["user"] is None
    seat.bench.tenant.approve(1, who={**who, "sub": "auth0|olga"})
    assert await seat.ended() is None
    assert (await seat.me())["user"]["sub"] == "auth0|olga"


async def test_someone_else_takes_the_place(seat: Seat) -> None:
    """One local user is one person at a time, and the record says when that changed."""
    await seat.sign_in("approver", name="olga")
    await seat.sign_in("viewer", name="victor")
    assert (await seat.me())["role"] == "viewer"
    (out,) = await seat.bench.events("operator.logout")
    assert (out.actor.id, out.reason) == ("auth0|olga", "someone else signed in")


async def test_a_blocked_user_does_not_get_in(seat: Seat) -> None:
    """What the tenant refuses is told, and nobody is signed in."""
    await seat.post("auth/login")
    seat.bench.tenant.end(FlowDenied("user is \x1b[2J blocked"))
    why = await seat.ended()
    assert why is not None
    assert why.startswith("refused at the tenant: user is ")
    assert why.isprintable()
    me = await seat.me()
    assert (me["user"], me["role"]) == (None, None)
    assert await seat.bench.events("operator.login") == []


async def test_a_sign_in_that_cannot_be_recorded_is_none(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record, no session."""
    await seat.post("auth/login")
    monkeypatch.setattr(seat.bench.ledger, "commit", latched)
    seat.bench.tenant.approve()
    assert "no space left" in (await seat.ended() or "")
    assert (await seat.me())["user"] is None


async def test_nothing_of_a_session_is_in_a_file(seat: Seat) -> None:
    """The ledger names the person; what proved them stands nowhere."""
    await seat.sign_in("approver")
    await seat.bench.ledger.commit()
    for path in seat.bench.home.data.rglob("*"):
        if path.is_file():
            assert b"id-token-" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("roles", "approved"),
    [(("operator",), False), (("viewer", "approver"), True), ((), False)],
)
async def test_by_claim_the_proof_itself_needs_the_role(
    bench: Bench, roles: tuple[str, ...], approved: bool
) -> None:
    """Being listed is not enough: the fresh ID token must name the role."""
    by_claim(bench)
    listed = StepUpSettings(approvers=("auth0|olga",))
    bench.broker.settings = replace(bench.broker.settings, stepup=listed)
    _, stepup = await hold(bench)
    await start(bench, stepup)
    who = {"sub": "auth0|olga", "roles": roles, "amr": ("mfa", "otp")}
    bench.tenant.approve(who=who)
    registry = bench.broker.registry
    open_now = StepUpStatus.AUTHORIZING
    await bench.until(lambda: registry.stepups.get(stepup.id).status is not open_now)
    ended = registry.stepups.get(stepup.id)
    assert (ended.status is StepUpStatus.APPROVED) is approved
    assert ("not an allowed approver" in (ended.problem or "")) is not approved


@pytest.mark.parametrize(
    ("roles", "listed", "auto", "claim"),
    [
        (("approver",), (), True, True),
        (("operator",), (), False, False),
        ((), (), False, False),
        ((), ("s",), True, False),
        (("admin",), ("s",), True, False),
        (("operator",), ("s",), False, False),
        (("approver",), ("s",), True, True),
        (("approver",), ("other",), False, False),
    ],
)
def test_list_and_role_must_both_allow_an_approver(
    clock: ManualClock,
    roles: tuple[str, ...],
    listed: tuple[str, ...],
    auto: bool,
    claim: bool,
) -> None:
    """List and role must both agree, where there is either."""
    person = Identity("s", "n", "", False, roles, ("mfa",), clock.now(), {})
    for source, expected in (("auto", auto), ("claim", claim)):
        settings = Settings(
            stepup=StepUpSettings(approvers=listed),
            operators=OperatorSettings(roles=source),
        )
        assert may_approve(person, settings) is expected


@given(st.lists(st.sampled_from([*Role, "admin", "VIEWER", " operator", ""])))
def test_the_highest_role_named_exactly_counts(words: list[str]) -> None:
    """Other words, cases and blanks name none; of several, the highest includes all."""
    found = role_of(words)
    named = [Role(word) for word in words if word in set(Role)]
    assert (found is None) == (not named)
    for role in named:
        assert found is not None
        assert found.includes(role)
    assert found in {None, *named}


def test_a_higher_role_includes_the_lower_ones() -> None:
    """Approver includes operator includes viewer, and nothing the other way."""
    pairs = {(a, b) for a in Role for b in Role if a.includes(b)}
    assert pairs == {
        *((role, role) for role in Role),
        (Role.OPERATOR, Role.VIEWER),
        (Role.APPROVER, Role.OPERATOR),
        (Role.APPROVER, Role.VIEWER),
    }


@pytest.mark.parametrize(
    "path", ["connections", "connections/continue", "connections/remove"]
)
async def test_a_viewer_connects_and_takes_away_no_account(
    seat: Seat, path: str
) -> None:
    """Each step of it is a decision: whoever's role fell meanwhile goes no further."""
    body = {"agent_id": "agt_x", "connection": "c", "redirect_uri": "x"}
    if path == "connections/continue":
        body = {"id": "cfl_x", "address": "x"}
    if path == "connections/remove":
        del body["redirect_uri"]
    await seat.sign_in("operator")
    assert (await seat.post(path, **body)).status_code == 404
    await seat.post("auth/logout")
    await seat.sign_in("viewer")
    refused = await seat.post(path, **body)
    assert (refused.status_code, refused.json()["needed_role"]) == (403, "operator")
