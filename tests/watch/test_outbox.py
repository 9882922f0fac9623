"""Alerts reach their sinks at least once, in order, over restarts, or die told."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from support.alert_stand import AlertStand, answering
from support.bench import OPERATOR, PAYMENT, Bench
from support.gateway_stand import Received, endless
from support.patience import until

from agentvault_tui.broker.core import SYSTEM
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.clock import iso
from agentvault_tui.model import Action, Agent, Draft, EventType, Risk
from agentvault_tui.policy.texts import shipped_scopes
from agentvault_tui.watch.outbox import PLACE, SinkPlace

PERSON = 'sinks = ["hook"]\nevents = ["needs_person"]'


async def ask(bench: Bench, agent: Agent, action: Action = PAYMENT) -> str:
    """Ask for what a person has to decide; return the step-up."""
    answer = await request_token(
        bench.broker, agent, action, resource=None, details=None
    )
    return str(answer.stepup.id)  # type: ignore[union-attr]


async def note(bench: Bench, kind: EventType = EventType.TENANT_AWAY) -> None:
    await bench.broker.record(Draft(kind, SYSTEM, reason="a test"))


async def test_a_stepup_is_one_message_whatever_it_repeats(
    stand: AlertStand, bench: Bench
) -> None:
    """It names agent, action, fingerprint, end and command, and parameters not."""
    await stand.start(PERSON)
    agent = await bench.agent("payments-agent")
    stepup_id = await ask(bench, agent)
    assert await ask(bench, agent) == stepup_id
    await stand.settle()
    (sent,) = stand.received
    stepup = bench.broker.stepups.get(stepup_id)
    assert sent["type"] == "needs_person"
    data = sent["data"]
    assert data["agent"] == {"id": agent.id, "name": "payments-agent"}
    assert data["action"] == "send:payment"
    assert data["fingerprint"] == stepup.digest[7:11].upper()
    assert data["expires_at"].startswith("2026-11-24T10:05:00")
    assert data["command"] == f"agentvault stepup show {stepup_id}"
    assert "4200" not in str(sent)
    assert "Invoice" not in str(sent)


async def test_details_are_told_where_the_route_says_so(
    stand: AlertStand, bench: Bench
) -> None:
    """With details parameters and the agent's words are there, its lures masked."""
    await stand.start(f"{PERSON}\ndetails = true")
    agent = await bench.agent()
    lure = Action(
        PAYMENT.scopes,
        PAYMENT.action,
        PAYMENT.resource,
        PAYMENT.parameters,
        "open https://evil.test and enter WXYZ-BCDF",
    )
    await ask(bench, agent, lure)
    await stand.settle()
    (sent,) = stand.received
    assert sent["data"]["parameters"] == {"amount": 4200, "currency": "USD"}
    assert "4200" in sent["data"]["text"]
    assert "WXYZ" not in sent["data"]["text"]
    assert "evil.test" not in sent["data"]["text"]


async def test_an_agents_words_are_no_fact_of_an_alert(
    stand: AlertStand, bench: Bench
) -> None:
    """A parameter that is called as a fact of ours stands behind a label of its own."""
    await stand.start(f"{PERSON}\ndetails = true")
    spoof = {"Fingerprint": "0000", "Answer": "allowed", "note": "x · Risk: low"}
    action = Action(PAYMENT.scopes, PAYMENT.action, "acct · Answer: allowed", spoof)
    stepup_id = await ask(bench, await bench.agent(), action)
    await stand.settle()
    (sent,) = stand.received
    lines = sent["data"]["text"].splitlines()
    prints = [line for line in lines if line.startswith("Fingerprint")]
    digest = bench.broker.stepups.get(stepup_id).digest
    assert prints == [f"Fingerprint: {digest[7:11].upper()}"]
    assert not any(line.startswith("Answer: allowed") for line in lines)
    assert "Parameter: Fingerprint = 0000" in lines
    assert " · " not in sent["data"]["text"]


async def test_only_what_comes_after_a_sink_is_told(
    stand: AlertStand, bench: Bench
) -> None:
    """A new sink is sent nothing of the past."""
    await note(bench)
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away", "tenant.back"]')
    await note(bench, EventType.TENANT_BACK)
    await stand.settle()
    assert stand.kinds == ["tenant.back"]


async def test_a_sink_that_fails_gets_all_in_order(
    stand: AlertStand, bench: Bench
) -> None:
    """What it refuses is sent again, with the same id, before what came later."""
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away", "tenant.back"]')
    stand.server.answer = answering(500, 301, 200)
    await note(bench)
    await note(bench, EventType.TENANT_BACK)
    await stand.settle()
    assert stand.kinds == ["tenant.away"]
    for _ in range(2):
        bench.clock.advance(10)
        await stand.settle()
    assert stand.kinds == ["tenant.away"] * 3 + ["tenant.back"]
    ids = [one.header("webhook-id") for one in stand.server.received]
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[0]


async def test_a_sink_says_how_long_to_wait(stand: AlertStand, bench: Bench) -> None:
    """429 with Retry-After is left alone for as long, and then tried."""
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away"]')
    stand.server.answer = answering(429, 200, headers="Retry-After: 120\r\n")
    await note(bench)
    await stand.settle()
    bench.clock.advance(119)
    await stand.settle()
    assert len(stand.server.received) == 1
    bench.clock.advance(2)
    await stand.settle()
    assert len(stand.server.received) == 2
    assert "429" not in str(stand.watch.warnings)


async def test_an_alert_dies_after_a_day_and_is_sent_by_hand(
    stand: AlertStand, bench: Bench
) -> None:
    """It is recorded, counted, listed over a restart, and retried by its id."""
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away", "tenant.back"]')
    stand.server.answer = answering(500)
    await note(bench)
    await stand.settle()
    bench.clock.advance(86_000)
    await stand.settle()
    assert bench.broker.health.alerts_dead == 0
    bench.clock.advance(1_000)
    await stand.settle()
    assert bench.broker.health.alerts_dead == 1
    (event,) = await bench.events("alert.dead")
    assert (event.resource, event.reason) == ("hook", "it answered 500")
    async with stand.restarted() as later:
        (dead,) = later.alerts.listing().dead
        assert dead.kind == "tenant.away"
        assert not (await later.alerts.retry(dead.id)).ok
        stand.server.answer = answering(200)
        stand.server.received.clear()
        assert (await later.alerts.retry(dead.id)).ok
        assert stand.kinds == ["tenant.away"]
        assert later.bench.broker.health.alerts_dead == 0
        async with later.restarted() as last:
            assert last.alerts.listing().dead == ()


async def test_a_stepup_that_ended_is_told_no_more(
    stand: AlertStand, bench: Bench
) -> None:
    """What waits at a sink that fails is dropped as superseded."""
    await stand.start('sinks = ["hook"]\nevents = ["needs_person", "panic.on"]')
    stand.server.answer = answering(500, 200)
    agent = await bench.agent()
    stepup_id = await ask(bench, agent)
    await stand.settle()
    await deny(bench.broker, stepup_id, "no", OPERATOR)
    await note(bench, EventType.PANIC_ON)
    bench.clock.advance(10)
    await stand.settle()
    assert stand.kinds == ["needs_person", "panic.on"]


async def test_alerts_go_on_after_a_crash(stand: AlertStand, bench: Bench) -> None:
    """What was recorded and not sent is sent by the next process, in order."""
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away", "tenant.back"]')
    await note(bench)
    await stand.settle()
    # Killed: nothing is saved any more, and nothing sent.
    for task in itertools.chain(*stand.alerts.destinations._tasks.values()):
        task.cancel()
    await note(bench, EventType.TENANT_BACK)
    async with stand.restarted(killed=True) as later:
        await later.settle()
        # The first may come again: its place may not have been kept yet.
        assert stand.kinds[0] == "tenant.away"
        assert stand.kinds.index("tenant.back") == len(stand.kinds) - 1


async def test_a_crash_between_sending_and_recording_repeats(
    stand: AlertStand, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: the same message comes twice, under one id."""
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away"]')

    async def lost() -> None:
        """Be killed before the place is kept."""

    monkeypatch.setattr(
        stand.alerts.destinations.followers("hook")[-1].stored, "save", lost
    )
    await note(bench)
    await stand.settle()
    async with stand.restarted() as later:
        await later.settle()
        ids = [one.header("webhook-id") for one in stand.server.received]
        assert len(ids) == 2
        assert len(set(ids)) == 1


async def test_routes_choose_by_agent_and_risk(stand: AlertStand, bench: Bench) -> None:
    """Only what is about these agents, or such scopes, is told."""
    await stand.start(
        'sinks = ["hook"]\nevents = ["token.decision", "agent.revoked"]\n'
        'agents = ["mine"]\nrisk = "high"'
    )
    mine, other = await bench.agent("mine"), await bench.agent("other")
    low = Action(("write:calendar",), "write:calendar", "calendar:primary", {}, None)
    for agent in (mine, other):
        await ask(bench, agent)
        await request_token(
            bench.broker, agent, low, resource="calendar:primary", details=None
        )
    await stand.settle()
    (sent,) = stand.received
    assert sent["type"] == "token.decision"
    assert sent["data"]["agent"]["name"] == "mine"
    assert sent["data"]["risk"] == "high"


async def test_a_burst_of_denials_is_told_once_in_ten_minutes(
    stand: AlertStand, bench: Bench
) -> None:
    """Twenty of an agent in a minute are told, the next hundred not until later."""
    await stand.start('sinks = ["hook"]\nevents = ["denial_burst"]')
    agent, other = await bench.agent("loud"), await bench.agent("quiet")
    mail = Action(("read:mail",), "read:mail", None, {}, None)

    async def denied(who: Agent, times: int) -> None:
        for _ in range(times):
            await request_token(bench.broker, who, mail, resource=None, details=None)

    await denied(agent, 19)
    await denied(other, 19)
    bench.clock.advance(61)
    await denied(other, 1)
    await stand.settle()
    assert stand.kinds == []
    await denied(agent, 40)
    await stand.settle()
    assert [one["data"]["agent"]["name"] for one in stand.received] == ["loud"]
    bench.clock.advance(590)
    await denied(agent, 20)
    await stand.settle()
    assert len(stand.received) == 1
    bench.clock.advance(30)
    await denied(agent, 1)
    await stand.settle()
    assert len(stand.received) == 2


async def test_a_burst_over_a_restart_is_told(stand: AlertStand, bench: Bench) -> None:
    """Denials before and after a restart count together."""
    await stand.start('sinks = ["hook"]\nevents = ["denial_burst"]')
    agent = await bench.agent()
    mail = Action(("read:mail",), "read:mail", None, {}, None)
    for _ in range(12):
        await request_token(bench.broker, agent, mail, resource=None, details=None)
    await stand.settle()
    async with stand.restarted() as later:
        for _ in range(8):
            await request_token(
                later.bench.broker, agent, mail, resource=None, details=None
            )
        await later.settle()
        assert stand.kinds == ["denial_burst"]


async def test_one_broker_of_a_team_sends_and_another_goes_on_where_it_was(
    stand: AlertStand, bench: Bench
) -> None:
    """What the other told is not told again, nor what that bars for ten minutes."""
    broker, works = bench.broker, False
    broker.team.brokers.works = lambda: works
    await stand.start('sinks = ["hook"]\nevents = ["denial_burst", "tenant.away"]')
    agent = await bench.agent("loud")
    mail = Action(("read:mail",), "read:mail", None, {}, None)
    await note(bench)
    for _ in range(20):
        await request_token(broker, agent, mail, resource=None, details=None)
    await stand.settle()
    assert stand.received == []
    until = iso(bench.clock.now() + timedelta(minutes=10))
    told = {f"denial_burst {agent.id}": until}
    place = SinkPlace(bench.ledger.head.seq, exports=False, told=told)
    broker.recording.meta[f"{PLACE}hook"] = msgspec.json.encode(place).decode()
    works = True
    for _ in range(20):
        await request_token(broker, agent, mail, resource=None, details=None)
    await note(bench)
    await stand.settle()
    assert stand.kinds == ["tenant.away"]


async def test_a_digest_gathers_and_high_risk_does_not_wait(
    stand: AlertStand, bench: Bench
) -> None:
    """A minute's alerts are one message, over a restart; high risk is told at once."""
    routes = (
        'sinks = ["hook"]\nevents = ["tenant.away", "tenant.back", "needs_person"]\n'
        'digest = "1m"'
    )
    await stand.start(routes)
    await note(bench)
    await ask(bench, await bench.agent())
    await note(bench, EventType.TENANT_BACK)
    await stand.settle()
    assert stand.kinds == ["needs_person"]
    async with stand.restarted() as later:
        bench.clock.advance(61)
        await later.settle()
        digest = stand.received[1]
        assert digest["type"] == "digest"
        assert digest["data"]["count"] == 2
        kinds = [one["type"] for one in digest["data"]["alerts"]]
        assert kinds == ["tenant.away", "tenant.back"]
        bench.clock.advance(600)
        await later.settle()
        assert len(stand.received) == 2


async def test_quiet_hours_hold_back_until_they_end(
    stand: AlertStand, bench: Bench
) -> None:
    """At their end one digest tells what came; high risk and panic did not wait."""
    await stand.start(
        'sinks = ["hook"]\nevents = ["tenant.away", "tenant.back", "panic.on"]\n'
        'quiet = "09:00-11:00 UTC"'
    )
    await note(bench)
    await note(bench, EventType.TENANT_BACK)
    await note(bench, EventType.PANIC_ON)
    await stand.settle()
    assert stand.kinds == ["panic.on"]
    bench.clock.advance(3_599)
    await stand.settle()
    assert len(stand.received) == 1
    bench.clock.advance(2)
    await stand.settle()
    assert stand.kinds == ["panic.on", "digest"]
    await note(bench)
    await stand.settle()
    assert stand.kinds[-1] == "tenant.away"


async def test_a_ledger_fault_is_told_though_nothing_can_be_recorded(
    stand: AlertStand, bench: Bench
) -> None:
    """The alert leaves while the ledger takes no commit, once a fault."""
    await stand.start('sinks = ["hook"]\nevents = ["ledger_fault"]')
    bench.ledger.distrust("does not hold (a test)")
    await stand.until(lambda: bool(stand.received))
    await stand.settle()
    (sent,) = stand.received
    assert sent["type"] == "ledger_fault"
    assert "does not hold" in sent["data"]["reason"]


async def test_an_endless_answer_ends(stand: AlertStand, bench: Bench) -> None:
    """A body without end counts as taken by its status, and is read no further."""

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await endless(writer, b"4000\r\n" + b"x" * 0x4000 + b"\r\n")

    await stand.start('sinks = ["hook"]\nevents = ["tenant.away", "tenant.back"]')
    stand.server.answer = answer
    await note(bench)
    await stand.until(lambda: stand.alerts.listing().sinks[0].behind == 0)
    stand.server.answer = answering(200)
    await note(bench, EventType.TENANT_BACK)
    await stand.settle()
    assert stand.kinds == ["tenant.away", "tenant.back"]


async def test_a_connection_that_closes_early_is_a_failure(
    stand: AlertStand, bench: Bench
) -> None:
    """Without an answer the alert is sent again."""

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.close()

    await stand.start('sinks = ["hook"]\nevents = ["tenant.away"]')
    stand.server.answer = answer
    await note(bench)
    await stand.settle()
    assert stand.watch.warnings
    stand.server.answer = answering(200)
    bench.clock.advance(10)
    await stand.settle()
    assert stand.kinds == ["tenant.away"] * 2
    assert stand.watch.warnings == []


async def test_a_sink_that_is_not_there_is_tried_again(
    stand: AlertStand, bench: Bench
) -> None:
    """Nobody listens: told in the status, and sent once somebody does."""
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away"]')
    port = stand.server.port
    await stand.server.stop()
    await note(bench)
    await stand.settle()
    assert "cannot be reached" in stand.watch.warnings[0]
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    server.close()
    await server.wait_closed()


async def test_a_redirect_is_not_followed(stand: AlertStand, bench: Bench) -> None:
    """A redirect is a failure: nothing is sent to where it leads."""
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away"]')
    where = f"Location: {stand.url}/elsewhere\r\n"
    stand.server.answer = answering(302, headers=where)
    await note(bench)
    await stand.settle()
    assert [one.target for one in stand.server.received] == ["/in"]
    assert "302" in stand.watch.warnings[0]


async def test_a_name_that_turns_private_is_not_reached(
    stand: AlertStand, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A public name is resolved and judged at each connection."""
    stand.write(
        'sinks = ["far"]\nevents = ["tenant.away"]',
        sinks=(
            '[sinks.far]\nkind = "webhook"\nurl = "https://hooks.example.com/"\n'
            'secret = "hook"\n'
        ),
    )
    await stand.watch.start()
    loop = asyncio.get_running_loop()

    async def resolve(host: str, *_: object, **__: object) -> list[object]:
        assert host == "hooks.example.com"
        return [(2, 1, 6, "", ("169.254.169.254", 0))]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    await note(bench)
    await stand.settle()
    assert "not one it may have" in stand.watch.warnings[0]


async def test_a_changed_file_is_put_in_force_and_a_broken_one_not(
    stand: AlertStand, bench: Bench
) -> None:
    """The one before stays, which the status tells; each change is recorded."""
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away"]')
    bench.home.alerts_file.write_text("[sinks.hook]\nkind = 3\n")
    await stand.watch.look()
    assert "alerts.toml" in stand.watch.warnings[0]
    await note(bench)
    await stand.settle()
    assert stand.kinds == ["tenant.away"]
    stand.write('sinks = ["hook"]\nevents = ["tenant.back"]')
    await stand.watch.look()
    assert stand.watch.warnings == []
    await note(bench)
    await note(bench, EventType.TENANT_BACK)
    await stand.settle()
    assert stand.kinds == ["tenant.away", "loosened", "tenant.back"]
    changes = [one.reason for one in await bench.events("service.changed")]
    assert changes == ["added", "changed"]


async def test_two_looks_at_a_changed_file_put_it_in_force_once(
    stand: AlertStand, tmp_path: Path
) -> None:
    """The second waits for the first, and finds all sinks at work."""
    await stand.start('sinks = ["hook"]\nevents = ["panic.on"]')
    more = "".join(
        f'[sinks.{name}]\nkind = "file"\npath = "{tmp_path}/{name}"\n'
        for name in ("b", "c")
    )
    stand.write('sinks = ["hook"]\nevents = ["panic.on"]', sinks=more)
    first = asyncio.create_task(stand.alerts.look())
    await asyncio.sleep(0)
    await stand.alerts.look()
    assert [one.name for one in stand.alerts.listing().sinks] == ["b", "c", "hook"]
    assert first.done()


async def test_a_start_with_a_broken_file_uses_the_one_before(
    stand: AlertStand, bench: Bench
) -> None:
    """At a first start a broken file is an error; later the last good one holds."""
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away"]')
    bench.home.alerts_file.write_text("[sinks")
    async with stand.restarted() as later:
        assert "alerts.toml" in later.watch.warnings[0]
        await note(later.bench)
        await later.settle()
        assert stand.kinds == ["tenant.away"]


async def test_a_missing_secret_is_told_and_looked_for_again(
    stand: AlertStand, bench: Bench
) -> None:
    """A secret may be set after the file: until then the sink waits."""
    key = stand.secrets.pop("hook")
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away"]')
    # Before any alert needs it.
    assert "no secret hook" in stand.watch.warnings[0]
    (sink,) = stand.watch.alerts.listing().sinks
    assert "no secret hook" in str(sink.problem)
    await note(bench)
    await stand.settle()
    stand.secrets["hook"] = key
    bench.clock.advance(10)
    await stand.settle()
    assert stand.kinds == ["tenant.away"]


async def test_revocations_wait_for_no_sink(stand: AlertStand, bench: Bench) -> None:
    """A sink that never answers delays nothing the broker does."""

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    await stand.start('sinks = ["hook"]\nevents = ["agent.revoked", "tenant.away"]')
    stand.server.answer = answer
    await note(bench)
    await stand.until(lambda: bool(stand.server.received))
    agent = await bench.agent()
    await revoke_agent(bench.broker, agent.id, "a test", OPERATOR)
    assert (await bench.events("agent.revoked"))[0].agent_id == agent.id
    with suppress(TimeoutError):
        await asyncio.wait_for(stand.watch.aclose(), 5)


async def test_a_limit_is_told_once_in_its_window(
    stand: AlertStand, bench: Bench
) -> None:
    """Once a limit, key and window: another agent's window is another alert."""
    (bench.home.config / "limits.toml").write_text(
        '[[limits]]\nid = "reads"\nscopes = ["write:calendar"]\nwithin = "10m"\n'
        'count = 1\nover = "deny"\n'
    )
    await reload_policy(bench.broker)
    await stand.start('sinks = ["hook"]\nevents = ["limit_reached"]')
    write = Action(("write:calendar",), "write:calendar", "calendar:primary", {}, None)

    async def times(agent: Agent, count: int) -> None:
        for _ in range(count):
            await request_token(
                bench.broker, agent, write, resource="calendar:primary", details=None
            )

    one, other = await bench.agent("one"), await bench.agent("other")
    await times(one, 3)
    await times(other, 2)
    await stand.settle()
    names = [sent["data"]["agent"]["name"] for sent in stand.received]
    assert names == ["one", "other"]
    bench.clock.advance(601)
    await times(one, 3)
    await stand.settle()
    assert len(stand.received) == 3


@pytest.mark.parametrize("ahead", ["tenant.away", "token.revoked"])
async def test_a_call_to_a_person_waits_for_no_other_alert(
    stand: AlertStand, bench: Bench, ahead: str
) -> None:
    """It leaves while another alert is under way at a destination that hangs.

    Not for one of high risk either, of which a policy may permit an agent much.
    """
    begun = asyncio.Event()

    async def hang(received: Received, writer: asyncio.StreamWriter) -> None:
        if f'"{ahead}"'.encode() in received.body:
            begun.set()
            await asyncio.Event().wait()
        await answering(200)(received, writer)

    stand.server.answer = hang
    await stand.start(
        'sinks = ["hook"]\nevents = ["token.revoked", "tenant.away", "needs_person"]'
    )
    draft = Draft(EventType(ahead), SYSTEM, detail={"scope": "send:payment"})
    await bench.broker.record(draft)
    await stand.until(begun.is_set)
    await ask(bench, await bench.agent())
    await stand.until(lambda: "needs_person" in stand.kinds)
    assert stand.kinds == [ahead, "needs_person"]


async def test_a_call_to_a_person_needs_no_look_of_the_upkeep(
    stand: AlertStand, bench: Bench
) -> None:
    """Its own event wakes its follower, however many routine events are before it."""
    await stand.start(PERSON)
    agent = await bench.agent()
    drafts = [Draft(EventType.TENANT_AWAY, SYSTEM, reason=".") for _ in range(1_000)]
    await bench.broker.record(*drafts)
    await ask(bench, agent)
    await until(lambda: stand.kinds)
    assert stand.kinds == ["needs_person"]


async def test_an_alert_is_not_lost_when_its_risk_changes(
    stand: AlertStand, bench: Bench
) -> None:
    """Neither follower leaves an event to the other one by different catalogues."""
    stand.server.answer = answering(500, 200)
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away", "token.revoked"]')
    await note(bench)
    await stand.settle()  # other alerts wait behind the one that failed
    event = Draft(EventType.TOKEN_REVOKED, SYSTEM, detail={"scope": "read:calendar"})
    await bench.broker.record(event)
    await stand.settle()
    scopes = shipped_scopes().replace('risk = "low"', 'risk = "high"', 1)
    bench.home.scopes_file.write_text(scopes)
    await reload_policy(bench.broker)
    assert bench.broker.deciding.policy.catalogue.get("read:calendar").risk is Risk.HIGH
    bench.clock.advance(10)
    await stand.settle()
    assert stand.kinds == ["tenant.away", "tenant.away", "token.revoked"]


async def test_a_route_calls_when_a_request_has_waited(
    stand: AlertStand, bench: Bench
) -> None:
    """After its time, once, over a restart; not if somebody has decided meanwhile."""
    await stand.start(f'{PERSON}\nafter = "2m"\n[[routes]]\n{PERSON}\nrisk = "low"')
    agent = await bench.agent()
    decided = await ask(bench, agent)
    waiting = Action(PAYMENT.scopes, PAYMENT.action, "other", PAYMENT.parameters)
    await ask(bench, agent, waiting)
    await stand.settle()
    assert not stand.received
    await deny(bench.broker, decided, "no", OPERATOR)
    async with stand.restarted() as later:
        bench.clock.advance(119)
        await later.settle()
        assert not stand.received
        bench.clock.advance(2)
        await later.settle()
        assert [one["data"]["resource"] for one in stand.received] == ["other"]
        bench.clock.advance(60)
        await later.settle()
        assert len(stand.received) == 1


async def test_a_request_is_sent_at_once_and_again_after_its_time(
    stand: AlertStand, bench: Bench
) -> None:
    """A route with `after` takes nothing from another one, and its id is another."""
    await stand.start(f'{PERSON}\nafter = "2m"\n[[routes]]\n{PERSON}')
    await ask(bench, await bench.agent())
    await stand.settle()
    assert stand.kinds == ["needs_person"]
    bench.clock.advance(121)
    await stand.settle()
    assert stand.kinds == ["needs_person"] * 2
    assert len({one.header("webhook-id") for one in stand.server.received}) == 2


async def test_a_loosening_is_sent_at_once(stand: AlertStand, bench: Bench) -> None:
    """Whatever type its event has, and also in quiet hours."""
    await stand.start(
        'sinks = ["hook"]\nevents = ["loosened"]\nquiet = "09:00-11:00 UTC"'
    )
    kind = EventType.POLICY_CHANGED
    for detail in ({"loosened": {"kinds": ["policy"]}}, {}):
        await bench.broker.record(Draft(kind, SYSTEM, detail=detail))
    await stand.settle()
    assert stand.kinds == ["loosened"]


async def test_a_place_of_an_older_version_is_gone_on_from(
    stand: AlertStand, bench: Bench
) -> None:
    """It had one place for all alerts: nothing is sent twice, nothing is lost."""
    await stand.start('sinks = ["hook"]\nevents = ["tenant.away", "panic.on"]')
    await note(bench)
    await stand.settle()
    await stand.watch.aclose()
    key = f"{PLACE}hook"
    kept = msgspec.json.decode(bench.broker.recording.meta[key])
    for newer in ("calls", "high", "policy", "again"):
        del kept[newer]
    bench.broker.recording.meta[key] = msgspec.json.encode(kept).decode()
    await note(bench, EventType.PANIC_ON)
    await note(bench)
    later = AlertStand(bench, stand.server)
    await later.watch.start()
    await later.settle()
    assert sorted(stand.kinds) == ["panic.on", "tenant.away", "tenant.away"]
    await later.watch.aclose()
