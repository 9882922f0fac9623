"""A sign-in of an operator's that seats nobody: told where they look, and on record."""

from __future__ import annotations

import pytest
from support.bench import OPERATOR, Bench

from agentvault_tui.broker.sessions import Sessions
from agentvault_tui.errors import IdentityError
from agentvault_tui.vault import Denied, End, Expired

REFUSED: dict[str, tuple[End | IdentityError, str]] = {
    "without a factor": (IdentityError("no_mfa", "no second factor"), "no second"),
    "with an old one": (IdentityError("stale", "proved before"), "proved before"),
    "of another client": (IdentityError("claims", "not ours"), "not ours"),
    "blocked": (Denied("user is \x1b[2J blocked"), "refused at the tenant: user is"),
    "never answered": (Expired(), "ran out"),
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
