"""Applied policies: record, file and what decides change together, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.gateway_stand import operators_http
from support.stepups import ask

from agentvault_tui.broker.answers import Denied
from agentvault_tui.broker.serve import _record_start_or_stop
from agentvault_tui.broker.usecases import policy_apply
from agentvault_tui.broker.usecases.policy_apply import apply_policy
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.errors import ConflictError, LedgerError, PolicyError
from agentvault_tui.model import Action, EventType
from agentvault_tui.policy import shipped_policy

CALENDAR = Action(("write:calendar",), "write:calendar", "calendar:me")
NARROW = (
    shipped_policy()
    + '\n@id("no") @why("None.")\nforbid (\
principal, action == Action::"write:calendar", resource);\n'
)
OTHER = shipped_policy() + "\n// another\n"


@pytest.fixture
async def started(bench: Bench) -> Bench:
    """A broker whose start is recorded, as `serve` does."""
    await _record_start_or_stop(bench.broker, EventType.BROKER_STARTED)
    return bench


async def apply(bench: Bench, text: str, plan: str | None = None) -> None:
    await apply_policy(bench.broker, {"policy": text}, OPERATOR, plan, "Less mail.")


async def changes(bench: Bench) -> list[Any]:
    return await bench.events("policy.changed")


async def test_an_empty_plan_is_no_plan(started: Bench) -> None:
    """A script whose plan failed, and left its variable empty, applies nothing."""
    with pytest.raises(ConflictError, match="is no plan of these texts"):
        await apply(started, NARROW, "")
    body = {"policy": NARROW, "plan": "", "reason": "why"}
    async with operators_http(started) as http:
        assert (await http.post("/api/policy/apply", json=body)).status_code == 409
    assert await changes(started) == []
    assert not started.home.policy_file.exists()


NEVER = '@id("n") @why("w") forbid (principal, action, resource) when { false };'


async def test_errors_of_policy_check_are_refused(started: Bench) -> None:
    """Nothing is recorded or written; an active error delays no other change."""
    gone = '@id("g") @why("w") forbid (principal == Agent::"agt_0000000000000000",'
    for text, says in (
        (shipped_policy() + NEVER, "the rule n: when is always false"),
        (f"{shipped_policy()}{gone} action, resource);", "is registered"),
    ):
        async with operators_http(started) as http:
            answer = await http.post("/api/policy/apply", json={"policy": text})
        assert (answer.status_code, says in answer.text) == (409, True)
    assert await changes(started) == []
    assert not started.home.policy_file.exists()
    await apply(started, shipped_policy() + NEVER)
    async with operators_http(started) as http:
        answer = await http.post("/api/policy/apply", json={"policy": NARROW + NEVER})
    assert answer.status_code == 200


async def test_applying_replaces_the_file_and_says_who_and_why(started: Bench) -> None:
    """The next decision is the new policy's; the record names person, reason, plan."""
    broker, agent = started.broker, await started.agent()
    plan = broker.deciding.policy.texts._replace(policy=NARROW)
    digest = plan.plan_digest(broker.deciding.policy.version)
    before = broker.deciding.policy.version
    await apply(started, NARROW, digest)
    assert started.home.policy_file.read_text() == NARROW
    assert started.home.policy_file.stat().st_mode & 0o777 == 0o600
    assert isinstance(await ask(started, agent, CALENDAR), Denied)
    (event,) = await changes(started)
    assert event.actor == OPERATOR
    told = [event.detail[name] for name in ("before", "after", "plan", "why")]
    assert told == [before, broker.deciding.policy.version, digest, "Less mail."]
    # Nothing is left to be recorded or read again.
    await reload_policy(broker)
    assert len(await changes(started)) == 1


async def test_a_plan_of_other_texts_or_another_version_is_refused(
    started: Bench,
) -> None:
    """A digest counts for what was planned alone, under the policy it was planned."""
    broker = started.broker
    digest = broker.deciding.policy.texts._replace(policy=NARROW).plan_digest(
        broker.deciding.policy.version
    )
    with pytest.raises(ConflictError, match="no plan of these texts"):
        await apply(started, OTHER, digest)
    await apply(started, OTHER)
    with pytest.raises(ConflictError, match="no plan of these texts"):
        await apply(started, NARROW, digest)
    assert started.home.policy_file.read_text() == OTHER


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("permit (", "policy.cedar"),
        (NARROW.replace("write:calendar", "write:calender"), "policy.cedar"),
        ("// " + "x" * 300_000, "larger than 256 KiB"),
    ],
)
async def test_what_cannot_be_in_force_changes_nothing(
    started: Bench, text: str, told: str
) -> None:
    """A broken or huge candidate leaves file, record and policy as they were."""
    before = started.broker.deciding.policy
    with pytest.raises(PolicyError, match=told):
        await apply(started, text)
    assert started.broker.deciding.policy is before
    assert not started.home.policy_file.exists()
    assert not await changes(started)


async def test_a_symbolic_link_is_not_replaced(started: Bench, tmp_path: Path) -> None:
    """What a link points to is somebody's to change, and the link stays."""
    (tmp_path / "mine.cedar").write_text(OTHER)
    started.home.policy_file.symlink_to(tmp_path / "mine.cedar")
    with pytest.raises(ConflictError, match="symbolic link"):
        await apply(started, NARROW)
    assert started.home.policy_file.is_symlink()
    assert not await changes(started)


async def apply_and_be_killed(started: Bench, patch: pytest.MonkeyPatch) -> None:
    """Record a change, and end before its file is written."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    patch.setattr(policy_apply, "write_texts", killed)
    with pytest.raises(KeyboardInterrupt):
        await apply(started, NARROW)


async def test_a_kill_between_record_and_file_is_made_good_at_the_start(
    started: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was recorded as applied is in the file and in force after a restart."""
    await apply_and_be_killed(started, monkeypatch)
    assert not started.home.policy_file.exists()
    async with started.restarted() as again:
        assert again.home.policy_file.read_text() == NARROW
        assert again.broker.deciding.policy.text == NARROW
        (event,) = await changes(again)
        assert event.detail["after"] == again.broker.deciding.policy.version
        # An edit by hand before the next start is not written over.
        again.home.policy_file.unlink()
        again.home.policy_file.write_text(OTHER)
        async with again.restarted() as third:
            assert third.broker.deciding.policy.text == OTHER


async def test_a_file_edited_after_the_kill_is_left_as_it_is(
    started: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever edits the file before the next start decides what is in force."""
    await apply_and_be_killed(started, monkeypatch)
    started.home.policy_file.write_text(OTHER)
    async with started.restarted() as again:
        assert again.broker.deciding.policy.text == OTHER


async def test_nothing_changes_while_the_ledger_cannot_write(
    started: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record, no change: the file and the policy in force stay."""

    async def full(*_: object, **__: object) -> None:
        raise LedgerError("the disk is full")

    before = started.broker.deciding.policy
    monkeypatch.setattr(started.broker, "record", full)
    with pytest.raises(LedgerError):
        await apply(started, NARROW)
    assert started.broker.deciding.policy is before
    assert not started.home.policy_file.exists()
