"""Why a flow ended without a yes, in words that are true."""

from __future__ import annotations

from agentvault_tui.broker.usecases.stepup import problem_of
from agentvault_tui.vault import FlowExpired


def test_a_code_nobody_could_use_is_the_tenants_doing() -> None:
    """While it is away nothing can be typed there: the person let nothing run out."""
    assert problem_of(FlowExpired()) == "the code ran out before it was used"
    away = problem_of(FlowExpired(), away=True)
    assert away == "the tenant did not answer until the code ran out"
