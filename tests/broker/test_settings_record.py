"""A start records that the settings which grant are others than before."""

from __future__ import annotations

from dataclasses import replace

from support.bench import Bench

from agentvault_tui.approval_rules import ChangeRule
from agentvault_tui.broker.settings_record import settings_record
from agentvault_tui.settings import ChangeSettings, ConsoleSettings


def test_only_an_edit_that_grants_is_a_loosening_by_file(bench: Bench) -> None:
    """A first start and another theme are none; a rule of approvals is."""
    broker = bench.broker
    assert settings_record(broker)[0] == []
    assert settings_record(broker) == ([], [])
    broker.settings = replace(broker.settings, console=ConsoleSettings(mouse=True))
    assert settings_record(broker) == ([], [])
    rule = ChangeRule(kinds=("policy",), approvals=2)
    broker.settings = replace(broker.settings, changes=ChangeSettings(rules=(rule,)))
    (draft,), (row,) = settings_record(broker)
    assert draft.detail["by"] == "file"
    assert draft.detail["loosened"]["kinds"] == ["rules"]
    assert draft.detail["loosened"]["proof"] == "file"
    assert row.key == "settings_recorded"
