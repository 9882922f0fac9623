"""Accounts and leases: who shares what, and until when something is outside."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from support.bench import Bench
from support.manual_clock import ManualClock

from agentvault_tui.broker.registry import Registry
from agentvault_tui.ledger import DropAccount
from agentvault_tui.model import Account, Agent, AgentId, AgentStatus

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def account(agent: str, user: str = "auth0|u", connection: str = "google") -> Account:
    return Account(
        agent_id=AgentId(agent),
        connection=connection,
        id=f"cac_{user}_{connection}",
        issuer="https://tenant.test/",
        user=user,
        user_name="Ursula",
        scopes=("calendar",),
        since=NOON,
    )


def served(name: str) -> Agent:
    return Agent(AgentId(name), name, name, "olga", "", (), NOON)


def test_agents_of_one_user_and_connection_share() -> None:
    """Same user and connection: one set of tokens, so each is told of the other."""
    registry = Registry(ManualClock(NOON))
    for name in "abcd":
        registry.put_agent(served(name))
    for agent, user, connection in (
        ("a", "u", "google"),
        ("b", "u", "google"),
        ("c", "u", "github"),
        ("d", "v", "google"),
    ):
        registry.accounts.put(account(agent, user, connection))
    assert registry.shared_with(AgentId("a")) == ("b",)
    assert registry.shared_with(AgentId("c")) == ()
    registry.accounts.put(account("b", "v"))
    assert registry.shared_with(AgentId("a")) == ()
    assert registry.shared_with(AgentId("b")) == ("d",)


def test_who_is_revoked_shares_nothing_and_who_is_restored_does() -> None:
    """What an agent that is not served might use keeps nothing alive."""
    registry = Registry(ManualClock(NOON))
    for name in "ab":
        registry.put_agent(served(name))
        registry.accounts.put(account(name))
    assert registry.shared_with(AgentId("a")) == ("b",)
    registry.put_agent(replace(served("b"), status=AgentStatus.REVOKED))
    assert registry.shared_with(AgentId("a")) == ()
    assert registry.shared_with(AgentId("b")) == ("a",)
    registry.put_agent(served("b"))
    registry.accounts.put(replace(account("b"), removing=True))
    assert registry.shared_with(AgentId("a")) == ()
    registry.accounts.put(account("b"))
    assert registry.shared_with(AgentId("a")) == ("b",)


def test_another_issuer_is_another_vault() -> None:
    """A user of the same name at another tenant shares nothing."""
    registry = Registry(ManualClock(NOON))
    registry.put_agent(served("b"))
    registry.accounts.put(account("a"))
    registry.accounts.put(replace(account("b"), issuer="https://other.test/"))
    assert registry.shared_with(AgentId("a")) == ()


def test_the_latest_end_counts_until_it_is_over() -> None:
    """An earlier end never shortens what is outside; when all is over it is nothing."""
    clock = ManualClock(NOON)
    leases = Registry(clock).leases
    agent = AgentId("a")
    google, github = account("a"), account("a", connection="github")
    assert leases.outside_until(agent) is None
    leases.note(google, "t1", NOON + timedelta(seconds=600))
    noted = leases.note(google, "t2", NOON + timedelta(seconds=60))
    assert noted.until == NOON + timedelta(seconds=600)
    leases.note(github, "t3", NOON + timedelta(seconds=900))
    assert leases.outside_until(agent) == NOON + timedelta(seconds=900)
    assert leases.outside_until(AgentId("b")) is None
    clock.advance(901)
    assert leases.outside_until(agent) is None


def test_a_token_given_again_is_outside_once() -> None:
    """Its latest end replaces the earlier one: the ledger keeps no pile of them."""
    leases = Registry(ManualClock(NOON)).leases
    for seconds in (60, 600):
        noted = leases.note(account("a"), "t1", NOON + timedelta(seconds=seconds))
    (given,) = noted.given
    assert given.until == NOON + timedelta(seconds=600)


def test_what_the_provider_ended_is_outside_no_more() -> None:
    """One token, or all of its account: of another account or token nothing is said."""
    clock = ManualClock(NOON)
    leases = Registry(clock).leases
    agent, mine = AgentId("a"), account("a")
    before = replace(mine, id="cac_before")
    leases.note(before, "t0", NOON + timedelta(seconds=900))
    leases.note(mine, "t1", NOON + timedelta(seconds=300))
    leases.note(mine, "t2", NOON + timedelta(seconds=600))
    assert len(leases.ended(mine, "t2", all_of_it=False).given) == 2
    assert leases.outside_until(agent) == NOON + timedelta(seconds=900)
    ended = leases.ended(mine, "t2", all_of_it=True)
    assert [one.thumbprint for one in ended.given] == ["t0"]
    assert leases.ended(before, "t0", all_of_it=False).until is None
    assert leases.outside_until(agent) is None


async def test_a_restart_knows_accounts_and_leases(
    bench: Bench, clock: ManualClock
) -> None:
    """What is outside is known to the next process, and what was dropped is not."""
    agent = await bench.agent()
    leases = bench.broker.registry.leases
    kept, dropped = account(agent.id), account(agent.id, connection="github")
    kept = replace(kept, provider_user="1093")
    lease = leases.note(kept, "t1", clock.now() + timedelta(seconds=600))
    over = leases.note(dropped, "t2", clock.now())
    await bench.broker.record(changes=[lease, over, kept, dropped])
    await bench.broker.record(changes=[DropAccount(agent.id, "github")])
    loaded = await bench.ledger.load()
    again = Registry(clock)
    again.take_over(loaded)
    assert again.accounts.all() == [kept]
    assert loaded.leases == (lease,)
    assert again.leases.outside_until(agent.id) == lease.until
