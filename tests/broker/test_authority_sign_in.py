"""A sign-in of an operator's that seats nobody: told where they look, and on record."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.scripted_tenant import ALICE

from agentvault_tui.broker.authority import Sessions
from agentvault_tui.errors import IdentityError
from agentvault_tui.model import Draft
from agentvault_tui.vault import FlowDenied, FlowExpired
from agentvault_tui.vault.device import End

REFUSED: dict[str, tuple[End | IdentityError, str]] = {
    "without a factor": (IdentityError("no_mfa", "no second factor"), "no second"),
    "with an old one": (IdentityError("stale", "proved before"), "proved before"),
    "of another client": (IdentityError("claims", "not ours"), "not ours"),
    "blocked": (
        FlowDenied("user is \x1b[2J blocked"),
        "refused at the tenant: user is",
    ),
    "never answered": (FlowExpired(), "ran out"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_who_tried_and_why_it_was_not_enough_is_recorded(
    bench: Bench, name: str
) -> None:
    """Under the local user, for who it was at the tenant is not proven."""
    ended, words = REFUSED[name]
    sessions = Sessions(bench.broker)
    await sessions.login(OPERATOR)
    if isinstance(ended, IdentityError):
        bench.tenant.approve(who=ended)
    else:
        bench.tenant.end(ended)
    await bench.until(lambda: not sessions.pending(OPERATOR.id))
    assert sessions.of(OPERATOR.id) is None
    assert words in (sessions.problem(OPERATOR.id) or "")
    (tried,) = await bench.events("operator.not_signed_in")
    assert (tried.actor.id, tried.reason) == (
        OPERATOR.id,
        sessions.problem(OPERATOR.id),
    )
    assert (tried.reason or "").isprintable()
    assert await bench.events("operator.login") == []


async def test_a_code_lives_as_long_as_there_is_until_someone_has_signed_in(
    bench: Bench,
) -> None:
    """Whoever is first enrols a factor on the way; later the setting holds again."""
    sessions = Sessions(bench.broker)
    await sessions.login(OPERATOR)
    bench.tenant.end(FlowExpired())
    await bench.until(lambda: not sessions.pending(OPERATOR.id))
    for _ in range(2):
        await sessions.login(OPERATOR)
        bench.tenant.approve()
        await bench.until(lambda: not sessions.pending(OPERATOR.id))
    settled = bench.broker.settings.stepup.device_code_ttl
    assert [flow.expires_in for flow in bench.tenant.flows] == [900, 900, settled]
    again = Sessions(bench.broker)  # after a restart too: it is in the ledger
    await again.login(OPERATOR)
    assert bench.tenant.flows[-1].expires_in == settled
    await again.logout(OPERATOR)


async def test_the_factor_is_of_this_sign_in(bench: Bench, clock: ManualClock) -> None:
    """Proved before its device flow began it would be of whoever sat there then."""
    sessions = Sessions(bench.broker)
    clock.advance(3600)
    await sessions.login(OPERATOR)
    clock.advance(60)
    bench.tenant.approve()
    await bench.until(lambda: not sessions.pending(OPERATOR.id))
    (flow,) = bench.tenant.flows
    assert bench.tenant.not_before == [flow.started_at]
    assert sessions.of(OPERATOR.id) is not None


async def test_use_revives_no_session(bench: Bench, clock: ManualClock) -> None:
    """Locked is locked, though nobody has looked since: deciding needs a new one."""
    sessions = Sessions(bench.broker)
    await sessions.login(OPERATOR)
    bench.tenant.approve()
    await bench.until(lambda: not sessions.pending(OPERATOR.id))
    clock.advance(15 * 60 + 1)
    sessions.used(OPERATOR.id)
    assert sessions.of(OPERATOR.id) is None


async def test_the_end_of_one_sign_in_is_not_that_of_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed out and in again at once, the new one waits for its person."""
    sessions, tenant = Sessions(bench.broker), bench.tenant
    flows = [await tenant.start_device_flow(ttl=60) for _ in range(2)]

    async def at_once(**_: Any) -> Any:
        return flows.pop(0)

    monkeypatch.setattr(tenant, "start_device_flow", at_once)
    before = asyncio.all_tasks()
    await sessions.login(OPERATOR)
    (first,) = asyncio.all_tasks() - before
    await asyncio.sleep(0)  # it waits for the tenant
    await sessions.logout(OPERATOR)
    await sessions.login(OPERATOR)
    await asyncio.wait([first])
    assert sessions.pending(OPERATOR.id)
    tenant.approve()
    await bench.until(lambda: sessions.of(OPERATOR.id) is not None)


async def test_a_sign_in_that_breaks_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever signs in is told, and is not signed in."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(bench.tenant, "verify_id_token", broken)
    sessions = Sessions(bench.broker)
    await sessions.login(OPERATOR)
    bench.tenant.approve()
    await bench.until(lambda: not sessions.pending(OPERATOR.id))
    problem = sessions.problem(OPERATOR.id)
    assert problem == "the broker failed, see its log (RuntimeError)"
    assert sessions.of(OPERATOR.id) is None


def change(bench: Bench, sessions: Sessions) -> None:
    """Do what becomes known of a changed person."""
    sub = str(ALICE["sub"])
    bench.broker.reaching.people.note(sub, "role", bench.clock.now())
    sessions.end_of(sub)


async def test_a_sign_in_that_began_before_a_change_of_the_person_is_refused(
    bench: Bench, clock: ManualClock
) -> None:
    """Its roles may be those of before, also where a change meets its record."""
    sessions = Sessions(bench.broker)
    await sessions.login(OPERATOR)
    clock.advance(60)
    change(bench, sessions)
    bench.tenant.approve()
    await bench.until(lambda: not sessions.pending(OPERATOR.id))
    assert sessions.of(OPERATOR.id) is None
    assert "changed at the tenant" in (sessions.problem(OPERATOR.id) or "")
    assert await bench.events("operator.login") == []


async def test_a_change_while_a_sign_in_is_recorded_ends_it(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that is on the record after it."""
    sessions, record = Sessions(bench.broker), bench.broker.record

    async def changed_meanwhile(*drafts: Draft) -> None:
        await record(*drafts)
        change(bench, sessions)

    await sessions.login(OPERATOR)
    clock.advance(60)
    monkeypatch.setattr(bench.broker, "record", changed_meanwhile)
    bench.tenant.approve()
    await bench.until(lambda: not sessions.pending(OPERATOR.id))
    assert sessions.of(OPERATOR.id) is None
    await sessions.end_due()
    (event,) = await bench.events("operator.logout")
    assert event.reason == "changed at the tenant"
