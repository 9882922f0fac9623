"""A start records that the settings which grant are others than before."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from support.bench import Bench

from agentvault_tui.approval_rules import ChangeRule
from agentvault_tui.broker import settings_record as record_module
from agentvault_tui.broker.settings_record import HARMLESS, KIND_OF, settings_record
from agentvault_tui.model import CHANGE_KINDS
from agentvault_tui.settings import (
    NAMED,
    BrokerSettings,
    ChangeSettings,
    ConsoleSettings,
    DelegationSettings,
    GatewaySettings,
    LedgerSettings,
    OperatorSettings,
    PolicySettings,
    Settings,
    TenantSettings,
    TokenSettings,
)

RULE = ChangeRule(kinds=("policy",), approvals=2)
GRANTING: dict[str, Any] = {
    "broker.trusted_proxies": BrokerSettings(trusted_proxies=("127.0.0.1",)),
    "changes.rules": ChangeSettings(rules=(RULE,)),
    "delegation.max_depth": DelegationSettings(max_depth=8),
    "gateway.pass_through": GatewaySettings(pass_through=("evil.example",)),
    "ledger.decisions_a_second": LedgerSettings(decisions_a_second=0),
    "operators.listen": OperatorSettings(listen="0.0.0.0:7719"),
    "policy.timezone": PolicySettings(timezone="Asia/Tokyo"),
    "tenant.issuer": TenantSettings(issuer="https://evil.example/"),
    "tokens.standard_ttl": TokenSettings(standard_ttl=86_400),
}


def test_an_edit_that_grants_nothing_is_not_recorded(bench: Bench) -> None:
    """A first start and another theme are no loosening."""
    broker = bench.broker
    (row,) = settings_record(broker)[1]
    assert settings_record(broker) == ([], [])
    broker.settings = replace(broker.settings, console=ConsoleSettings(mouse=True))
    assert settings_record(broker) == ([], [])
    assert getattr(row, "key", "") == "settings_recorded"


@pytest.mark.parametrize("name", GRANTING)
def test_an_edit_that_grants_is_a_loosening_by_file(bench: Bench, name: str) -> None:
    """The event names the setting, and what it loosens."""
    broker, section = bench.broker, name.partition(".")[0]
    assert settings_record(broker)[0] == []
    broker.settings = replace(broker.settings, **{section: GRANTING[name]})
    (draft,), _ = settings_record(broker)
    assert draft.detail["by"] == "file"
    assert draft.detail["loosened"]["kinds"] == [KIND_OF[section]]
    assert draft.detail["loosened"]["proof"] == "file"
    assert [*draft.detail["loosened"]["texts"]] == [f"config.toml ({name})"]
    assert settings_record(broker) == ([], [])


def test_what_an_earlier_version_did_not_record_had_its_default(bench: Bench) -> None:
    """After an upgrade, a setting that is not the default is recorded once."""
    broker = bench.broker
    broker.kept["settings_recorded"] = "{}"
    assert settings_record(broker)[0] == []
    broker.kept["settings_recorded"] = "{}"
    tokens = TokenSettings(standard_ttl=86_400)
    broker.settings = replace(broker.settings, tokens=tokens)
    (draft,), _ = settings_record(broker)
    assert [*draft.detail["loosened"]["texts"]] == ["config.toml (tokens.standard_ttl)"]


def test_each_setting_is_recorded_or_named_as_harmless() -> None:
    """A new setting is recorded unless somebody lists it; no listed one is gone."""
    settings = Settings()
    names = {
        section.name if section.name in NAMED else f"{section.name}.{item.name}"
        for section in fields(settings)
        for item in (
            (section,)
            if section.name in NAMED
            else fields(getattr(settings, section.name))
        )
    }
    recorded = {name for name, _ in record_module._digests(settings)}
    assert recorded | HARMLESS == names
    assert not recorded & HARMLESS
    assert {KIND_OF[name.partition(".")[0]] for name in recorded} <= {*CHANGE_KINDS}
