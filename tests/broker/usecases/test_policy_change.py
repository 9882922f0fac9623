"""Another policy: what was in force stays kept, and tokens it would not issue end."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.stepups import Gate, approve, ask, hold, latched

from agentvault_tui.broker.answers import Denied, Granted
from agentvault_tui.broker.policy_files import load_policy
from agentvault_tui.broker.status import warnings
from agentvault_tui.broker.usecases.policy_apply import reset_policy
from agentvault_tui.broker.usecases.policy_change import (
    keep_policy,
    recheck_tokens,
    reload_policy,
)
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.errors import ConflictError, PolicyError
from agentvault_tui.ledger import verify_ledger
from agentvault_tui.model import Action, Agent, EventType, StepUpStatus
from agentvault_tui.policy import shipped_policy
from agentvault_tui.policy.texts import shipped_scopes

CALENDAR = Action(("write:calendar",), "write:calendar", "calendar:me")
ALLOW = '@id("all") @why("w") @obligation("allow") permit (principal, action, resource)'
NO_CALENDAR = (
    f"{ALLOW};\n"
    '@id("no") @why("w") forbid (principal, action == Action::"write:calendar",'
    " resource);\n"
)


SCOPES = '[scopes."write:calendar"]\ndescription = "d"\nrisk = "high"\nrevoking = "r"\n'


@pytest.fixture
async def server(bench: Bench) -> Agent:
    """A resource server."""
    return await bench.agent("server", "read:calendar", resource_server=True)


@pytest.fixture
async def again(bench: Bench, clock: ManualClock) -> AsyncIterator[Any]:
    """Restart the broker on the same home, as often as asked."""
    opened: list[Bench] = []

    async def restart() -> Bench:
        await (opened[-1] if opened else bench).close()
        opened.append(await Bench.open(bench.home, clock))
        return opened[-1]

    yield restart
    for one in opened:
        await one.close()


async def change(bench: Bench, text: str) -> None:
    bench.home.policy_file.write_text(text)
    await reload_policy(bench.broker)
    assert bench.broker.deciding.state.problem is None


async def granted(bench: Bench, agent: Agent, action: Action = CALENDAR) -> Granted:
    answer = await ask(bench, agent, action)
    assert isinstance(answer, Granted)
    return answer


async def active(bench: Bench, caller: Agent, token: str) -> bool:
    return (await introspect(bench.broker, caller, token)).token is not None


@pytest.mark.parametrize("file", ["policy_file", "scopes_file"])
async def test_a_file_that_is_gone_brings_no_milder_policy_back(
    bench: Bench, again: Any, file: str
) -> None:
    """What was in force stays, over restarts too, until it is reset on purpose."""
    shipped = bench.broker.deciding.policy.version
    path = getattr(bench.home, file)
    if file == "policy_file":
        path.write_text(NO_CALENDAR)
    else:
        path.write_text(SCOPES)
    await reload_policy(bench.broker)
    strict = bench.broker.deciding.policy.version
    path.unlink()
    await reload_policy(bench.broker)
    for _ in range(2):
        assert bench.broker.deciding.policy.version == strict
        assert "is gone" in (bench.broker.deciding.state.problem or "")
        assert any("agentvault policy reset" in told for told in warnings(bench.broker))
        bench = await again()
        await reload_policy(bench.broker)
    await reset_policy(bench.broker, OPERATOR)
    assert bench.broker.deciding.policy.version == shipped
    assert bench.broker.deciding.state.problem is None
    event = (await bench.events("policy.changed"))[-1]
    assert (event.actor.name, event.detail["after"]) == ("olga", shipped)
    bench = await again()
    assert (
        bench.broker.deciding.policy.version,
        bench.broker.deciding.state.problem,
    ) == (
        shipped,
        None,
    )
    with pytest.raises(ConflictError, match="no file"):
        await reset_policy(bench.broker, OPERATOR)


async def test_a_file_that_is_put_back_counts_again(bench: Bench) -> None:
    """A missing file is no fault any more once it is there."""
    await change(bench, NO_CALENDAR)
    bench.home.policy_file.unlink()
    await reload_policy(bench.broker)
    assert bench.broker.deciding.state.problem
    await change(bench, shipped_policy())


async def test_a_file_that_others_may_write_leaves_the_last_in_force(
    bench: Bench,
) -> None:
    """While the broker runs, such a file decides nothing, and is warned of."""
    strict = bench.broker.deciding.policy.version
    bench.home.config.chmod(0o755)
    bench.home.policy_file.write_text(NO_CALENDAR)
    bench.home.policy_file.chmod(0o646)
    await reload_policy(bench.broker)
    assert bench.broker.deciding.policy.version == strict
    (told,) = [one for one in warnings(bench.broker) if "others can write" in one]
    assert f"chmod 600 {bench.home.policy_file}" in told
    bench.home.policy_file.chmod(0o600)
    await change(bench, NO_CALENDAR)
    assert bench.broker.deciding.policy.version != strict


async def test_a_file_that_is_broken_at_a_start_leaves_the_last_in_force(
    bench: Bench, again: Any
) -> None:
    """A broken file decides nothing at a start either, where another was in force."""
    await change(bench, NO_CALENDAR)
    strict = bench.broker.deciding.policy.version
    bench.home.policy_file.write_text("permit (everything")
    bench = await again()
    assert bench.broker.deciding.policy.version == strict
    assert "line 1" in (bench.broker.deciding.state.problem or "")
    bench.home.policy_file.unlink()
    bench = await again()
    assert bench.broker.deciding.policy.version == strict


async def test_a_copy_that_is_not_what_the_chain_names_is_not_used(
    bench: Bench, clock: ManualClock, again: Any
) -> None:
    """With the file gone and its copy changed in the database nothing is served."""
    await change(bench, NO_CALENDAR)
    await bench.close()
    bench.home.policy_file.unlink()
    for edit in (
        "UPDATE meta SET value = replace(value, 'forbid', 'permit') WHERE key = ?",
        "DELETE FROM meta WHERE key = ?",
    ):
        with closing(sqlite3.connect(bench.home.database)) as db:
            db.execute(edit, ("app:policy",))
            db.commit()
        with pytest.raises(PolicyError, match="is gone, and its copy"):
            await again()
    bench.home.policy_file.write_text(NO_CALENDAR)
    bench.home.scopes_file.write_text(SCOPES)
    assert (await again()).broker.deciding.state.problem is None


@pytest.mark.parametrize("copy", ["of the new files", "gone", "broken"])
async def test_a_change_of_policy_is_recorded_whatever_the_copy_says(
    bench: Bench, again: Any, copy: str
) -> None:
    """Who edits the files and the copy while no broker runs hides no change."""
    bench.home.scopes_file.write_text(shipped_scopes())
    await change(bench, f"{ALLOW};\n")
    agent = await bench.agent("agent", "write:calendar")
    server = await bench.agent("server", "read:calendar", resource_server=True)
    ended = await granted(bench, agent)
    await recheck_tokens(bench.broker)
    await bench.close()
    bench.home.policy_file.write_text(NO_CALENDAR)
    now = load_policy(bench.home)
    value = json.dumps({"version": now.version, **now.texts._asdict()})
    rows = {
        "of the new files": [value, now.version],
        "gone": [None, now.version],
        "broken": ["{", now.version],
    }[copy]
    with closing(sqlite3.connect(bench.home.database)) as db:
        for key, row in zip(("app:policy", "app:policy_checked"), rows, strict=True):
            db.execute("UPDATE meta SET value = ? WHERE key = ?", (row, key))
        db.commit()
    bench = await again()
    assert not await active(bench, server, ended.access_token)
    await recheck_tokens(bench.broker)
    changed = (await bench.events("policy.changed"))[-1]
    assert changed.detail["after"] == now.version
    assert len(await bench.events("policy.changed")) == 2


async def test_tokens_a_stricter_policy_would_not_issue_end_at_once(
    bench: Bench, server: Agent
) -> None:
    """A forbidden token is inactive in the next answer; others live on."""
    agent = await bench.agent("agent", "write:calendar", "read:files")
    ended = await granted(bench, agent)
    kept = await granted(bench, agent, Action(("read:files",), "read:files"))
    await change(bench, NO_CALENDAR)
    assert not await active(bench, server, ended.access_token)
    assert await active(bench, server, kept.access_token)
    await recheck_tokens(bench.broker)
    (event,) = await bench.events("token.revoked")
    assert (event.reason, event.detail["token_id"]) == (
        "policy_changed",
        ended.token.id,
    )
    assert [token.id for token in (await bench.ledger.load()).tokens] == [kept.token.id]
    await change(bench, shipped_policy())
    assert not await active(bench, server, ended.access_token)
    await bench.close()
    assert verify_ledger(bench.home).ok


async def test_each_token_is_decided_by_its_own_parameters(
    bench: Bench, server: Agent
) -> None:
    """Of two tokens for one scope the one above a new limit ends."""
    agent = await bench.agent("agent", "write:records")
    few, many = [
        await granted(
            bench,
            agent,
            Action(("write:records",), "write:records", None, {"count": n}),
        )
        for n in (5, 50)
    ]
    await change(
        bench,
        f'{ALLOW};\n@id("r") @why("w") @obligation("step_up") permit (principal,'
        ' action == Action::"write:records", resource)'
        " when { context has count && context.count > 10 };\n",
    )
    await recheck_tokens(bench.broker)
    assert bench.broker.registry.tokens_of(agent.id) == [few.token]
    assert not await active(bench, server, many.access_token)


async def test_an_approval_ends_only_where_it_is_forbidden_now(bench: Bench) -> None:
    """What a person approved stays good under step-up rules, and ends by a forbid."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)
    await change(bench, shipped_policy() + "\n// another version\n")
    await recheck_tokens(bench.broker)
    assert bench.broker.registry.elevated(stepup.id)
    forbid = '@id("f") @why("w") forbid (principal, action, resource);'
    await change(bench, f"{ALLOW};{forbid}")
    answer = await poll(bench.broker, agent, stepup.id)
    await recheck_tokens(bench.broker)
    assert not isinstance(answer, Granted)
    ended = bench.broker.stepups.get(stepup.id)
    assert (ended.status, ended.problem) == (StepUpStatus.CANCELLED, "policy_changed")
    refused = await poll(bench.broker, agent, stepup.id)
    assert isinstance(refused, Denied)
    assert refused.reason == "policy_changed"
    assert [e.reason for e in await bench.events("stepup.cancelled")] == [
        "policy_changed"
    ]
    await bench.close()
    assert verify_ledger(bench.home).ok


async def test_a_policy_changed_while_the_broker_was_down_ends_tokens(
    bench: Bench, again: Any
) -> None:
    """A start with another file is a change: recorded, and tokens are looked at."""
    agent = await bench.agent("agent", "write:calendar", "read:calendar")
    server = await bench.agent("server", "read:calendar", resource_server=True)
    ended = await granted(bench, agent)
    await keep_policy(bench.broker)
    before = bench.broker.deciding.policy.version
    bench.home.policy_file.write_text(NO_CALENDAR)
    bench = await again()
    assert not await active(bench, server, ended.access_token)
    await recheck_tokens(bench.broker)
    (changed,) = await bench.events("policy.changed")
    assert changed.detail["before"] == before
    assert len(await bench.events("token.revoked")) == 1


async def test_what_was_not_looked_at_when_the_broker_was_killed_is_afterwards(
    bench: Bench, again: Any
) -> None:
    """A restart in the middle goes on where it was; nothing is recorded twice."""
    agent = await bench.agent("agent", "write:calendar")
    for _ in range(100):
        await granted(bench, agent)
    await change(bench, NO_CALENDAR)
    half = asyncio.create_task(recheck_tokens(bench.broker))
    await bench.until(lambda: len(bench.broker.deciding.state.outdated) >= 8)
    half.cancel()
    bench = await again()
    assert bench.broker.deciding.state.unchecked
    await recheck_tokens(bench.broker)
    revoked = [e.detail["token_id"] for e in await bench.events("token.revoked")]
    assert len(revoked) == len(set(revoked)) == 100
    assert (await bench.ledger.load()).tokens == ()
    assert not (await again()).broker.deciding.state.unchecked


async def test_tokens_end_though_that_cannot_be_recorded(
    bench: Bench, server: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk keeps no token alive; its end is recorded when that works."""
    agent = await bench.agent("agent", "write:calendar")
    token = await granted(bench, agent)
    commit = bench.ledger.commit
    monkeypatch.setattr(bench.ledger, "commit", latched)
    await change(bench, NO_CALENDAR)
    assert not await active(bench, server, token.access_token)
    monkeypatch.setattr(bench.ledger, "commit", commit)
    await recheck_tokens(bench.broker)
    assert len(await bench.events("token.revoked")) == 1
    assert len(await bench.events("policy.changed")) == 1


async def test_a_decision_under_the_old_policy_leaves_no_token(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decided before a change and recorded after it, a request is decided by both."""
    agent = await bench.agent("agent", "write:calendar")
    gate = Gate(bench, monkeypatch, EventType.TOKEN_DECISION)
    asking = asyncio.create_task(ask(bench, agent, CALENDAR))
    await gate.reached.wait()
    await change(bench, NO_CALENDAR)
    gate.open.set()
    answer = await asking
    assert isinstance(answer, Denied)
    assert answer.reason == "policy_changed"
    await recheck_tokens(bench.broker)
    assert len(await bench.events("token.revoked")) == 1


async def test_a_catalogue_without_a_granted_scope_ends_its_tokens_and_says_so(
    bench: Bench, server: Agent
) -> None:
    """A scope that left the catalogue is denied, and named in the change's record."""
    agent = await bench.agent("agent", "write:calendar", "read:calendar")
    token = await granted(bench, agent)
    bench.home.scopes_file.write_text(
        '[scopes."read:calendar"]\ndescription = "d"\nrisk = "low"\nrevoking = "r"\n'
    )
    await reload_policy(bench.broker)
    assert not await active(bench, server, token.access_token)
    event = (await bench.events("policy.changed"))[-1]
    assert event.detail["orphaned"] == ["write:calendar"]
