"""What an event may be told as."""

from __future__ import annotations

import pytest
from support.bench import Bench

from agentvault_tui.model import Actor, ActorKind, Draft, EventType
from agentvault_tui.watch.signals import Signals


@pytest.mark.parametrize(
    ("error", "told"),
    [("passkey_copied", ["tenant_fault", "tenant.log"]), ("wrong_otp", ["tenant.log"])],
)
async def test_a_passkey_that_may_be_a_copy_is_a_fault_of_the_tenant(
    bench: Bench, error: str, told: list[str]
) -> None:
    """It alerts whoever hears of faults, beside its row of the tenant's log."""
    tenant = Actor(ActorKind.TENANT, "tenant", "tenant")
    detail = {"type": "gd_auth_failed", "details": {"error": error}}
    await bench.broker.record(Draft(EventType.TENANT_LOG, tenant, detail=detail))
    (event,) = await bench.events("tenant.log")
    assert list(Signals(bench.broker, {}).of(event)) == told
