"""A change's lines are read once, again where that failed, and for its digest alone."""

from __future__ import annotations

from support.dialog_stand import scene

from agentvault_tui.console.dialogs.stepup_reads import ChangeLines
from agentvault_tui.errors import RefusedError

TEXTS = [["policy.cedar", None, "a" * 64]]


async def test_they_are_read_once_and_again_where_that_failed() -> None:
    """A request without texts reads nothing."""
    stand = scene()
    row = stand.propose("replace policy.cedar", "policy", details={"texts": TEXTS})
    stand.texts = [{"name": "policy.cedar", "diff": "+\u202e\n+b"}]
    lines = ChangeLines(stand.desk, row)
    assert (lines.missing, lines.due(), lines.due()) == (True, True, False)
    stand.actions.error = RefusedError("no answer")
    await lines.read()
    assert (lines.shown.problem, lines.due()) == ("no answer", False)
    stand.clock.advance(2.1)
    assert lines.due()
    stand.actions.error = None
    await lines.read()
    assert lines.shown.texts == (("policy.cedar", ("+⟦U+202E⟧", "+b")),)
    assert not lines.missing
    assert not ChangeLines(stand.desk, stand.propose("restore payer", "agents")).missing


async def test_lines_of_another_digest_are_not_shown() -> None:
    """They are not what this dialog would approve."""
    stand = scene()
    row = stand.propose("replace policy.cedar", "policy", details={"texts": TEXTS})
    lines = ChangeLines(stand.desk, row)
    stand.change(row.id, digest="sha256:" + "9" * 64)
    await lines.read()
    assert lines.missing
    assert "another change" in lines.shown.problem
