"""With a factor at the socket, an edit of the policy's files that loosens waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.scripted_tenant import ALICE

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.riders import text_change
from agentvault_tui.broker.status import warnings
from agentvault_tui.broker.usecases import policy_edits
from agentvault_tui.broker.usecases.policy_apply import apply_policy, reset_policy
from agentvault_tui.broker.usecases.policy_change import keep_policy, reload_policy
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny, expire_due
from agentvault_tui.errors import ConflictError
from agentvault_tui.home import Home
from agentvault_tui.ledger.texts import read_texts
from agentvault_tui.model import AgentId, StepUp
from agentvault_tui.policy import Policy, shipped_policy
from agentvault_tui.policy.texts import PolicyTexts, shipped_scopes
from agentvault_tui.settings import ChangeSettings, Settings, StepUpSettings

MILD = """
@id("all") @why("Everything.") @obligation("allow")
permit (principal, action, resource);
"""
STRICT = (
    shipped_policy()
    + """
@id("no-mail") @why("No mail.")
forbid (principal, action == Action::"send:email", resource);
"""
)
BOATS = """[scopes."read:boats"]
description = "See the boats."
risk = "low"
revoking = "Stops it."
"""
FACTOR = Settings(
    changes=ChangeSettings(socket="factor"),
    stepup=StepUpSettings(approvers=(ALICE["sub"],)),
)


@pytest.fixture
async def bench(short: Path, clock: ManualClock) -> AsyncIterator[Bench]:
    bench = await Bench.open(Home.locate(short / "home"), clock, "", FACTOR)
    await keep_policy(bench.broker)
    yield bench
    await bench.close()


async def edit(bench: Bench, text: str) -> None:
    bench.home.policy_file.write_text(text)
    await reload_policy(bench.broker)


def waiting(bench: Bench) -> list[StepUp]:
    return bench.broker.stepups.open(AgentId(""))


async def approve(bench: Bench, change: StepUp) -> str:
    await begin_approval(bench.broker, change.id, change.digest, OPERATOR)
    bench.tenant.approve()
    known = bench.broker.stepups
    await bench.until(lambda: known.get(change.id).status != "authorizing")
    return str(known.get(change.id).status.value)


async def test_an_edit_that_loosens_waits_and_is_applied_once_approved(
    bench: Bench,
) -> None:
    """The last version decides meanwhile, and it is asked for once."""
    await edit(bench, MILD)
    await reload_policy(bench.broker)
    (change,) = waiting(bench)
    assert bench.broker.deciding.policy.text == shipped_policy()
    assert any(change.id in one for one in warnings(bench.broker))
    assert await approve(bench, change) == "applied"
    assert bench.broker.deciding.policy.text == MILD
    (event,) = await bench.events("change.applied")
    assert event.detail["loosened"]["requested_by"]["sub"] == "file"
    assert not any(change.id in one for one in warnings(bench.broker))
    await edit(bench, MILD + "// a comment")
    assert waiting(bench) == []


async def test_an_edit_that_tightens_counts_at_once(bench: Bench) -> None:
    """And undoing it is a loosening."""
    await edit(bench, STRICT)
    assert bench.broker.deciding.policy.text == STRICT
    await edit(bench, shipped_policy())
    assert bench.broker.deciding.policy.text == STRICT
    assert len(waiting(bench)) == 1


async def test_an_edit_that_is_undone_or_denied_changes_nothing(bench: Bench) -> None:
    """Whoever approves late approves what the file says, or nothing."""
    await edit(bench, MILD)
    (change,) = waiting(bench)
    await edit(bench, STRICT)
    await expire_due(bench.broker)
    assert bench.broker.stepups.get(change.id).status == "cancelled"
    await edit(bench, MILD)
    (change,) = waiting(bench)
    await deny(bench.broker, change.id, "no", OPERATOR)
    assert bench.broker.deciding.policy.text == STRICT
    assert any("is denied" in one for one in warnings(bench.broker))


async def test_an_edit_while_nothing_runs_waits_too(bench: Bench) -> None:
    """Who can stop and start the broker gets no further by it."""
    await edit(bench, STRICT)
    bench.home.policy_file.write_text(MILD)
    async with bench.restarted(FACTOR) as again:
        assert again.broker.deciding.policy.text == STRICT
        (change,) = waiting(again)
        assert await approve(again, change) == "applied"
        assert again.broker.deciding.policy.text == MILD


async def test_another_change_does_not_bring_in_an_edit_that_waits(
    bench: Bench,
) -> None:
    """Neither an apply nor a reset: nobody approved what else the files say by then."""
    risky = shipped_scopes()
    bench.home.scopes_file.write_text(risky.replace('"high"', '"low"'))
    before = bench.broker.deciding.policy.catalogue.version
    await apply_policy(bench.broker, {"policy": STRICT}, OPERATOR, None, "")
    assert bench.broker.deciding.policy.text == STRICT
    assert bench.broker.deciding.policy.catalogue.version == before
    await reload_policy(bench.broker)
    await expire_due(bench.broker)
    (change,) = waiting(bench)
    assert change.change is not None
    assert [one.name for one in change.change.texts] == ["scopes.toml"]
    bench.home.policy_file.unlink()
    await reset_policy(bench.broker, OPERATOR)
    assert bench.broker.deciding.policy.text == shipped_policy()
    assert bench.broker.deciding.policy.catalogue.version == before
    await reload_policy(bench.broker)
    await expire_due(bench.broker)
    assert len(waiting(bench)) == 1


async def test_an_edit_of_own_scopes_waits_and_is_applied_as_it_was_shown(
    bench: Bench,
) -> None:
    """A new scope counts once a person approved it, also after a restart."""
    file = bench.home.scopes_folder / "boats.toml"
    file.write_text(BOATS)
    await reload_policy(bench.broker)
    await expire_due(bench.broker)
    assert "read:boats" not in bench.broker.deciding.policy.catalogue
    (change,) = waiting(bench)
    assert change.change is not None
    (text,) = change.change.texts
    assert text.name == "scopes.d/boats.toml"
    assert [f"+{line}" for line in BOATS.splitlines()] == text.diff.split("\n")[1:]
    assert await approve(bench, change) == "applied"
    assert "read:boats" in bench.broker.deciding.policy.catalogue
    version = bench.broker.deciding.policy.version
    kept = await bench.ledger.read(read_texts, version)
    assert PolicyTexts(**kept).catalogue().get("read:boats") is not None
    async with bench.restarted(FACTOR) as again:
        assert again.broker.deciding.policy.version == version


async def test_an_edit_that_waits_does_not_keep_anybody_from_tightening(
    bench: Bench,
) -> None:
    """Or whoever can write a file decides that nothing is refused any more."""
    await edit(bench, MILD)
    assert len(waiting(bench)) == 1
    texts = {"policy": STRICT}
    await apply_policy(bench.broker, texts, OPERATOR, None, "", may_loosen=False)
    assert bench.broker.deciding.policy.text == STRICT


async def test_an_edit_is_shown_against_the_shipped_policy(bench: Bench) -> None:
    """If the home directory had no file, one changed number is one changed line."""
    shown = shipped_policy().replace("recipients <= 20", "recipients <= 9000")
    await edit(bench, shown)
    (change,) = waiting(bench)
    assert change.change is not None
    (text,) = change.change.texts
    lines = text.diff.split("\n")
    assert [one[0] for one in lines if one[0] in "+-"] == ["-", "+"]


async def test_an_edit_is_asked_for_against_the_policy_that_is_active(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was compared with the policy before would undo another unseen."""
    asks, applied = policy_edits.asks_factor, list[str]()

    async def late(broker: Broker) -> bool:
        if not applied:
            applied.append(STRICT)
            await apply_policy(broker, {"policy": STRICT}, OPERATOR, None, "")
            bench.home.policy_file.write_text(MILD)
        return await asks(broker)

    monkeypatch.setattr(policy_edits, "asks_factor", late)
    await edit(bench, MILD)
    await reload_policy(bench.broker)
    await expire_due(bench.broker)
    (change,) = waiting(bench)
    assert change.change is not None
    (shown,) = change.change.texts
    assert shown.diff == text_change("policy.cedar", STRICT, MILD).diff


async def test_an_edit_that_could_not_be_asked_for_is_asked_for_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as where too many changes waited: nobody has to edit the file again."""
    ask = policy_edits.ask

    async def refuse(*_: Any) -> StepUp:
        raise ConflictError("too many changes wait")

    monkeypatch.setattr(policy_edits, "ask", refuse)
    await edit(bench, MILD)
    assert waiting(bench) == []
    assert bench.broker.deciding.policy.text == shipped_policy()
    monkeypatch.setattr(policy_edits, "ask", ask)
    await reload_policy(bench.broker)
    assert len(waiting(bench)) == 1


async def test_an_edit_that_tightens_undoes_nothing_that_was_applied_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was compared with the policy before, and would loosen the one since."""
    tighter = STRICT.replace("no-mail", "no-files").replace("send:email", "read:files")
    hold, applied = bench.broker.deciding.state.hold, list[str]()

    async def late(last: Policy, edited: Policy) -> bool:
        waits = await hold(last, edited)
        if not applied:
            applied.append(STRICT)
            await apply_policy(bench.broker, {"policy": STRICT}, OPERATOR, None, "")
        return waits

    monkeypatch.setattr(bench.broker.deciding.state, "hold", late)
    await edit(bench, tighter)
    assert bench.broker.deciding.policy.text == STRICT
    await reload_policy(bench.broker)
    assert bench.broker.deciding.policy.text == STRICT
