"""Changes of people: those since a moment count, by person and by kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agentvault_tui.broker.upstream.reaching import PeopleChanges

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)


def test_a_change_counts_from_its_moment_for_its_person_and_kind() -> None:
    """A factor shown at the moment of a change, or before it, is void."""
    people = PeopleChanges()
    people.note("auth0|olga", "role", NOW)
    assert people.changed_since("auth0|olga", NOW)
    assert not people.changed_since("auth0|olga", LATER)
    assert not people.changed_since("auth0|olga", NOW, ["password"])
    assert not people.changed_since("auth0|vera", NOW)


def test_a_state_differs_once_one_of_its_people_has_changed() -> None:
    """Whatever the time of the change is: another broker's clock may be behind."""
    people = PeopleChanges()
    people.note("auth0|olga", "role", NOW)
    before = people.state_of(["auth0|olga", "auth0|vera"])
    people.note("auth0|bob", "removed", LATER)
    assert people.state_of(["auth0|olga", "auth0|vera"]) == before
    people.note("auth0|vera", "removed", NOW - timedelta(days=1))
    assert people.state_of(["auth0|olga", "auth0|vera"]) != before
