"""A start records that the settings which grant are others than before."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
from support.bench import Bench
from support.manual_clock import ManualClock
from support.postgres import Database
from support.team_members import Member, homes, member

from agentvault_tui.approval_rules import ChangeRule
from agentvault_tui.broker import settings_record as record_module
from agentvault_tui.broker.follow import join_team
from agentvault_tui.broker.settings_record import HARMLESS, KIND_OF, settings_record
from agentvault_tui.broker.status import status_info
from agentvault_tui.broker.team import Team
from agentvault_tui.console_settings import ConsoleSettings
from agentvault_tui.home import Home
from agentvault_tui.ledger.bindings import is_deciding
from agentvault_tui.model import CHANGE_KINDS
from agentvault_tui.settings import (
    NAMED,
    BrokerSettings,
    ChangeSettings,
    DelegationSettings,
    GatewaySettings,
    LedgerSettings,
    OperatorSettings,
    PolicySettings,
    Settings,
    TenantSettings,
    TokenSettings,
)

__all__ = ["homes"]
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
    broker.recording.meta["settings_recorded"] = "{}"
    assert settings_record(broker)[0] == []
    broker.recording.meta["settings_recorded"] = "{}"
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


STRICT = ChangeSettings(socket="factor", rules=(RULE,))
LAX = ChangeSettings(socket="uid")


def named(bench: Bench, broker_id: str, changes: ChangeSettings) -> Any:
    """Record the start of a broker with that id; return the loosened settings."""
    broker: Any = bench.broker
    broker.team.brokers = SimpleNamespace(id=broker_id)
    broker.settings = replace(broker.settings, changes=changes)
    return [
        name
        for draft in settings_record(broker)[0]
        for name in draft.detail["loosened"]["texts"]
    ]


LOOSENED = ["config.toml (changes.socket)", "config.toml (changes.rules)"]


def test_without_its_id_a_broker_is_compared_with_the_one_before(bench: Bench) -> None:
    """If ``broker.id`` is removed, edits of config.toml are recorded all the same."""
    assert named(bench, "brk_a", STRICT) == []
    assert named(bench, "brk_b", STRICT) == []
    assert named(bench, "brk_c", LAX) == LOOSENED
    assert named(bench, "brk_c", LAX) == []


def test_a_new_broker_is_compared_with_each_other(bench: Bench) -> None:
    """A setting that one other broker has differently is recorded."""
    assert named(bench, "brk_a", LAX) == []
    assert named(bench, "brk_b", STRICT) == LOOSENED
    assert named(bench, "brk_c", LAX) == LOOSENED


def test_a_home_that_joins_a_team_is_compared_with_itself(bench: Bench) -> None:
    """The record of a ledger that was copied into a store is of a broker before."""
    assert settings_record(bench.broker)[0] == []
    assert named(bench, "brk_a", LAX) == LOOSENED[:1]


async def joined(one: Member) -> None:
    """Join the team, and record the settings as a start does."""
    broker = one.bench.broker
    assert broker.ledger.shared is not None
    await join_team(broker, broker.ledger.shared)
    drafts, rows = settings_record(broker)
    await broker.record_cut(*drafts, changes=rows)


async def test_brokers_whose_settings_differ_are_named(
    homes: list[Home], clock: ManualClock, store: Database
) -> None:
    """The event is in the log; each broker's status names the other and the setting."""
    tenant = TenantSettings(url="https://b.example:7720")
    async with (
        member(homes[0], clock, store, changes=STRICT) as a,
        member(homes[1], clock, store, changes=LAX, tenant=tenant) as b,
    ):
        for one in (a, b):
            await joined(one)
        for one in (a, b):
            await one.bench.ledger.confirm()
            assert isinstance(one.bench.broker.team.brokers, Team)
            await one.bench.broker.team.brokers.join()  # its next heartbeat
        (event,) = await b.bench.events("change.applied")
        texts = {f"config.toml ({one})" for one in ("changes.rules", "changes.socket")}
        assert event.detail["loosened"]["texts"].keys() == {
            *texts,
            "config.toml (tenant.url)",
        }
        differs = "its config.toml differs from here: changes.rules, changes.socket"
        for one, other in ((a, b), (b, a)):
            assert isinstance(other.bench.broker.team.brokers, Team)
            assert f"{other.bench.broker.team.brokers.id} on " in one.warnings
            assert one.warnings.count(differs) == 1
            team: Any = status_info(one.bench.broker).team
            assert sum(each.in_step for each in team.brokers) == 1


def test_the_record_of_each_broker_is_bound_to_an_event(bench: Bench) -> None:
    """A changed row of a team's broker is found, as the one of a single broker is."""
    assert is_deciding("app:settings_recorded brk_a")
    assert is_deciding("app:settings_recorded")
