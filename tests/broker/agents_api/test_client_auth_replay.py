"""An assertion counts once: over restarts, and while nothing can be recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey
from support.agents_http import BEARER, CIBA, Live, live_broker, public, sign
from support.bench import Bench
from support.manual_clock import ManualClock
from support.stepups import latched

from agentvault_tui.broker.assertion import ReplayStore
from agentvault_tui.broker.recovery import record_missed
from agentvault_tui.ledger import UsedAssertion
from agentvault_tui.model import new_id

KEY = ECKey.generate_key("P-256")
SAID = {"/oauth/introspect": {"token": "av_t_x"}, "/oauth/revoke": {"token": "av_t_x"}}


async def send(live: Live, path: str, text: str, **form: str) -> httpx.Response:
    form = {"client_assertion_type": BEARER, "client_assertion": text, **form}
    return await live.http.post(path, data=form)


@asynccontextmanager
async def restarted(bench: Bench, url: str) -> AsyncIterator[Live]:
    """Close *bench* and serve its home anew, under the name it had."""
    async with bench.restarted() as again, live_broker(again, url) as live:
        yield live


@pytest.mark.parametrize("iat", ["absent", "now", "ahead"])
async def test_a_captured_assertion_is_worthless_after_a_restart(
    live: Live, bench: Bench, clock: ManualClock, iat: str
) -> None:
    """With or without iat, and made by a clock ahead of ours: used is used."""
    client_id = (await live.caller("keyed", public_key=public(KEY))).agent.client_id
    now = int(clock.now().timestamp())
    said = {"absent": None, "now": now, "ahead": now + 29}[iat]
    used = sign(live.claims(client_id, iat=said, exp=now + 290), KEY, "ES256")
    unused = sign(live.claims(client_id, iat=said, exp=now + 290), KEY, "ES256")
    assert (await live.assertion(used)).status_code == 200
    async with restarted(bench, live.url) as again:
        assert (await again.assertion(used)).status_code == 401
        # What an honest client made just before the restart is as good as ever.
        assert (await again.assertion(unused)).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("path", SAID)
async def test_what_records_nothing_else_records_the_assertion(
    live: Live, bench: Bench, clock: ManualClock, path: str
) -> None:
    """An introspection or a revocation uses its assertion up as well."""
    client_id = (await live.caller("keyed", public_key=public(KEY))).agent.client_id
    text = sign(live.claims(client_id, iat=None), KEY, "ES256")
    assert (await send(live, path, text, **SAID[path])).status_code == 200
    async with restarted(bench, live.url) as again:
        assert (await again.assertion(text)).status_code == 401


async def test_a_refused_request_uses_its_assertion_up(
    live: Live, bench: Bench, clock: ManualClock
) -> None:
    """Whatever the answer was, what was shown counts no more."""
    client_id = (await live.caller("keyed", public_key=public(KEY))).agent.client_id
    text = sign(live.claims(client_id, iat=None), KEY, "ES256")
    assert (await live.assertion(text, scope="no:such")).status_code == 400
    async with restarted(bench, live.url) as again:
        assert (await again.assertion(text)).status_code == 401


async def test_nothing_is_issued_for_an_assertion_that_cannot_be_recorded(
    live: Live, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the ledger latched tokens and polls get 503, and the next try works."""
    client_id = (await live.caller("keyed", public_key=public(KEY))).agent.client_id

    def fresh() -> str:
        return sign(live.claims(client_id, iat=None), KEY, "ES256")

    poll = {"grant_type": CIBA, "auth_req_id": "sup_none"}
    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "commit", latched)
        for answer in (
            await live.assertion(fresh()),
            await send(live, "/oauth/token", fresh(), **poll),
        ):
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
    assert (await live.assertion(fresh())).status_code == 200


@pytest.mark.parametrize("path", SAID)
async def test_what_issues_nothing_goes_on_and_is_recorded_later(
    live: Live,
    bench: Bench,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    """Introspecting and revoking work with the ledger latched, and nothing replays."""
    client_id = (await live.caller("keyed", public_key=public(KEY))).agent.client_id
    text = sign(live.claims(client_id, iat=None), KEY, "ES256")
    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "commit", latched)
        assert (await send(live, path, text, **SAID[path])).status_code == 200
        assert (await send(live, path, text, **SAID[path])).status_code == 401
    await record_missed(bench.broker)
    assert bench.broker.admitting.replays.unsaved == ()
    async with restarted(bench, live.url) as again:
        assert (await again.assertion(text)).status_code == 401


@pytest.mark.parametrize("path", ["/oauth/token", *SAID])
async def test_one_that_another_broker_records_while_it_is_looked_up_is_refused(
    live: Live, bench: Bench, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """It was taken over after it was found unused here, and before it was recorded."""
    client_id = (await live.caller("keyed", public_key=public(KEY))).agent.client_id
    replays = bench.broker.admitting.replays
    use = replays.use

    def and_elsewhere(*asked: Any) -> UsedAssertion | None:
        if (found := use(*asked)) is not None:
            replays.take_over([replace(found)], bench.clock)
        return found

    monkeypatch.setattr(replays, "use", and_elsewhere)
    text = sign(live.claims(client_id, iat=None), KEY, "ES256")
    form = SAID.get(path, {"grant_type": "client_credentials", "scope": "read:files"})
    assert (await send(live, path, text, **form)).status_code == 401


async def prune(bench: Bench) -> None:
    """Commit until the ledger's chores have pruned once more."""
    for _ in range(257):
        await bench.agent(new_id("bot"))


@pytest.mark.slow
async def test_expired_assertions_are_forgotten(
    live: Live, bench: Bench, clock: ManualClock
) -> None:
    """Past its end, which refuses it anyway, an assertion is kept ten minutes more."""
    client_id = (await live.caller("keyed", public_key=public(KEY))).agent.client_id
    text = sign(live.claims(client_id), KEY, "ES256")
    assert (await live.assertion(text)).status_code == 200
    clock.advance(60 + 31)
    await prune(bench)
    assert len((await bench.ledger.load()).assertions) == 1
    clock.advance(600)
    await prune(bench)
    assert (await bench.ledger.load()).assertions == ()


@pytest.mark.slow
async def test_a_clock_that_was_ahead_makes_no_assertion_forgotten(
    live: Live, bench: Bench, clock: ManualClock
) -> None:
    """Neither pruning nor a start while it is ahead lets one count twice."""
    client_id = (await live.caller("keyed", public_key=public(KEY))).agent.client_id
    now = int(clock.now().timestamp())
    text = sign(live.claims(client_id, iat=now, exp=now + 290), KEY, "ES256")
    assert (await live.assertion(text)).status_code == 200
    clock.jump_wall(3600)
    await prune(bench)
    async with restarted(bench, live.url) as again:
        assert (await again.assertion(text)).status_code == 401
        clock.jump_wall(-3600)
        assert (await again.assertion(text)).status_code == 401


def test_what_waits_to_be_recorded_is_bounded(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the bound those expired make room; with none expired there is none."""
    monkeypatch.setattr("agentvault_tui.broker.assertion._UNSAVED_CAP", 2)
    store, now = ReplayStore(), clock.now().timestamp()
    used = [store.use("a", str(n), now + n, now, 0.0) for n in range(1, 5)]
    assert all(used)
    kept = [store.save_later(one, clock.now()) for one in used[:3] if one]
    assert kept == [True, True, False]
    clock.advance(1)
    assert used[3] is not None
    assert store.save_later(used[3], clock.now())
    assert store.unsaved == (used[1], used[3])
