"""With a factor at the socket, a team's edit of the policy waits for an approver."""

from __future__ import annotations

import pytest
from support.bench import OPERATOR
from support.team_edits import RULES, Place, approve, edited, place, settle, waiting

from agentvault_tui.broker.usecases.policy_apply import apply_policy

__all__ = ["place"]
POLICY = "policy.cedar"
LOOSE = RULES.replace("recipients <= 20", "recipients <= 9000")
LOOSER = RULES.replace("recipients <= 20", "recipients <= 99000")
FORBID = """
@id("no-mail") @why("No mail.")
forbid (principal, action == Action::"send:email", resource);
"""


@pytest.mark.parametrize("at", [0, 1])
async def test_an_edit_of_the_policy_waits_and_any_broker_approves_it(
    place: Place, at: int
) -> None:
    """The other broker does not cancel it, and exactly the edited text is applied."""
    async with edited(place, POLICY, LOOSE) as (a, b, change):
        texts = [one.bench.broker.deciding.policy.text for one in (a, b)]
        assert texts == [RULES] * 2
        approver = (a, b)[at]
        await approve(approver, change)
        await settle(b, a)
        assert approver.bench.broker.stepups.get(change.id).status == "applied"
        assert [one.bench.broker.deciding.policy.text for one in (a, b)] == [LOOSE] * 2
        assert [one.says(POLICY) for one in (a, b)] == [LOOSE] * 2
        assert waiting(a) == waiting(b) == []


@pytest.mark.parametrize("then", [RULES, LOOSER, "no policy"])
async def test_the_broker_that_asked_cancels_once_its_files_say_something_else(
    place: Place, then: str
) -> None:
    """An edit that is undone, replaced or broken brings nothing in if approved."""
    async with edited(place, POLICY, LOOSE) as (a, b, first):
        a.path(POLICY).write_text(then)
        await settle(a, b)
        assert b.bench.broker.stepups.get(first.id).status == "cancelled"
        assert len(waiting(b)) == (then == LOOSER)
        assert b.bench.broker.deciding.policy.text == RULES


async def test_a_policy_that_another_broker_applies_cancels_the_edit(
    place: Place,
) -> None:
    """The edit was made of another text: it is kept in a file of its own."""
    async with edited(place, POLICY, LOOSE) as (a, b, change):
        strict = RULES + FORBID
        texts = {"policy": strict}
        await apply_policy(b.bench.broker, texts, OPERATOR, None, "")
        await settle(b, a)
        assert b.bench.broker.stepups.get(change.id).status == "cancelled"
        assert [one.bench.broker.deciding.policy.text for one in (a, b)] == [strict] * 2
        assert a.says(f"{POLICY}.local") == LOOSE
