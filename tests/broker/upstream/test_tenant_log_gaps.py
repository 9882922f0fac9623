"""What the tenant dropped before it was read is said, and nothing else is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.upstream import Site, follower, told

from agentvault_tui.broker.upstream.tenant_log import Place, date
from agentvault_tui.clock import iso


@pytest.fixture(autouse=True)
def together(site: Site) -> None:
    """Set both clocks alike: the tenant is another test's too, and only goes on."""
    ahead = site.tenant.clock.now() - site.clock.now()
    site.clock.advance(ahead.total_seconds())


async def gaps(site: Site) -> list[dict[str, Any]]:
    return [event.detail for event in await site.bench.events("tenant.log_gap")]


def days(site: Site, number: float) -> None:
    """Let time pass here and at the tenant."""
    site.clock.advance(number * 86_400)
    site.tenant.clock.advance(number * 86_400)
    site.admin.token = site.admin.machine_token().json()["access_token"]


@pytest.mark.slow
async def test_what_the_tenant_dropped_unread_is_an_event(site: Site) -> None:
    """Away for longer than it keeps rows: since when, until when, and once."""
    _, there, token = await site.agent()
    log = follower(site)
    await log.read()
    there.refresh(token)
    await log.read()
    last = (await site.bench.events("tenant.log"))[-1].detail["log_id"]
    read_at = iso(site.clock.now())
    days(site, 2)
    there.refresh(token)
    days(site, 2)
    site.fault(log_kept=600)
    there.refresh(token)
    first_kept = iso(site.tenant.clock.now())
    await site.restart()
    site.fault(log_kept=600)
    log = follower(site)
    await log.read()
    (gap,) = await gaps(site)
    assert gap["from"] == f"{read_at[:19]}Z"
    assert gap["to"] == f"{first_kept[:19]}Z"
    assert gap["last_row"] == last
    (event,) = await site.bench.events("tenant.log_gap")
    assert "may be missing" in str(event.reason)
    # What is there is told all the same, and reading goes on from it.
    there.refresh(token)
    await log.read()
    await log.read()
    assert len(await told(site)) == 3
    assert len(await gaps(site)) == 1


@pytest.mark.slow
async def test_nothing_is_missing_while_the_last_row_is_kept(site: Site) -> None:
    """A long absence alone is no gap: the tenant may keep its log for long."""
    _, there, token = await site.agent()
    log = follower(site)
    await log.read()
    there.refresh(token)
    await log.read()
    days(site, 5)
    there.refresh(token)
    await log.read()
    assert len(await told(site)) == 2
    assert await gaps(site) == []


@pytest.mark.slow
async def test_a_log_that_stays_empty_is_told_from_its_first_row(site: Site) -> None:
    """Over a restart too: what was empty when last read has nothing before us."""
    _, there, token = await site.agent()
    site.fault(log_kept=600)
    days(site, 1)
    log = follower(site)
    await log.read()
    await site.restart()
    there.refresh(token)
    log = follower(site)
    await log.read()
    assert len(await told(site)) == 1
    assert await gaps(site) == []


@pytest.mark.slow
async def test_another_tenants_place_is_none_here(site: Site) -> None:
    """After a change of the tenant reading begins behind its newest row."""
    _, there, token = await site.agent()
    log = follower(site, issuer="https://before.test/")
    await log.read()
    await site.restart()
    there.refresh(token)
    log = follower(site)
    await log.read()
    assert await told(site) == []
    there.refresh(token)
    await log.read()
    assert len(await told(site)) == 1


@pytest.mark.parametrize(
    ("away", "oldest", "until"),
    [
        (1, 0, None),  # quiet for long: the row aged out, and was the last there was
        (23, None, None),
        (25, 26, None),  # what is kept begins before we last read
        (25, 2, 2),
        (25, None, 0),  # nothing is left at all
        (25, -5, 0),  # dated ahead of us
    ],
)
def test_a_gap_is_between_the_last_reading_and_what_is_left(
    away: float, oldest: float | None, until: float | None
) -> None:
    """Hours ago: when it was last read, and from when on the tenant has rows."""
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)

    def ago(hours: float) -> datetime:
        return now - timedelta(hours=hours)

    place = Place("https://t.test/", "900", ago(away + 48), ago(away))
    row = None if oldest is None else {"date": iso(ago(oldest))}
    gap = place.gap(row, now)
    assert (gap is None) is (until is None)
    if gap is not None and until is not None:
        assert gap.detail["from"] == f"{iso(ago(away))[:19]}Z"
        assert gap.detail["to"] == f"{iso(ago(until))[:19]}Z"


@given(st.text() | st.dictionaries(st.text(), st.text()).map(json.dumps))
def test_a_damaged_place_is_none(text: str) -> None:
    """Whatever the home says, reading begins anew and breaks nothing."""
    assert Place.read(text, "https://t.test/") is None


@given(st.datetimes(timezones=st.just(UTC)), st.text(), st.text())
def test_a_place_is_read_as_it_was_written(
    moment: datetime, issuer: str, row: str
) -> None:
    """To the microsecond, at the tenant it is of."""
    place = Place(issuer, row, moment, moment)
    assert Place.read(place.text(), issuer) == place


@pytest.mark.parametrize("raw", [None, 5, "soon", "9999-12-31T23:59:59-14:00", {}])
def test_an_odd_date_is_now(raw: object) -> None:
    """A row that dates itself wrongly, or ahead of us, moves no gap."""
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert date({"date": raw}, now) == now
