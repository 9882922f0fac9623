"""Refresh tokens end by whichever way the plan has, and are seen to be gone."""

from typing import Any

import pytest
from support.exchanges import answer
from support.manual_clock import ManualClock
from support.rogue_tenant import Answer, Request, RogueTenant

from agentvault_tui.errors import TenantScopeError, TenantUnreachableError
from agentvault_tui.vault import Management, Tenant
from agentvault_tui.vault.management.revoking import revoke_refresh_tokens
from agentvault_tui.vault.management.rows import settled

U1, AGENT = "auth0|u1", "agent7"
BULK = "/api/v2/refresh-tokens/revoke"
DEVICES = "/api/v2/device-credentials"
OF_USER = "/api/v2/users/auth0%7Cu1/refresh-tokens"


class Plan:
    """A tenant with some of the ways, whose deletions take a while to be true."""

    def __init__(self, tenant: RogueTenant, clock: ManualClock, lag: float) -> None:
        self.clock, self.lag = clock, lag
        self.devices = {"dcr_1": AGENT, "dcr_2": "other9"}
        self.tokens = {"rt_1": AGENT, "rt_2": "other9"}
        self.gone: dict[str, float] = {}
        tenant.script(BULK, self.bulk)
        tenant.script(DEVICES, self.list_devices)
        tenant.script(OF_USER, self.list_tokens)
        for one in self.devices:
            tenant.script(f"{DEVICES}/{one}", self.delete)
        for one in self.tokens:
            tenant.script(f"/api/v2/refresh-tokens/{one}", self.delete)

    def _is_there(self, one: str) -> bool:
        return self.clock.boot() < self.gone.get(one, float("inf")) + self.lag

    def bulk(self, request: Request) -> Answer:
        assert request.json == {"user_id": U1, "client_id": AGENT}
        for one in [*self.devices, *self.tokens]:
            if {**self.devices, **self.tokens}[one] == AGENT:
                self.gone[one] = self.clock.boot()
        return Answer(b"", 202)

    def delete(self, request: Request) -> Answer:
        assert request.method == "DELETE"
        self.gone[request.path.rpartition("/")[2]] = self.clock.boot()
        return Answer(b"", 204)

    def list_devices(self, request: Request) -> Answer:
        kind = request.query["type"]
        rows = [
            {"id": one, "type": kind, "user_id": U1, "client_id": client}
            for one, client in self.devices.items()
            if self._is_there(one) and kind == "refresh_token"
        ]
        return Answer({"total": len(rows), "device_credentials": rows})

    def list_tokens(self, _: Request) -> Answer:
        rows = [
            {"id": one, "user_id": U1, "client_id": client}
            for one, client in self.tokens.items()
            if self._is_there(one)
        ]
        return Answer({"tokens": rows})


@pytest.fixture
def plan(tenant: RogueTenant, clock: ManualClock) -> Plan:
    """Every way there is, five seconds until a deletion shows."""
    return Plan(tenant, clock, lag=5.0)


BOTH, FORBIDDEN = {"dcr_1", "rt_1"}, "insufficient_scope"
BULK_CALL, ONE_LIST = ("refresh-tokens/revoke",), ("users/refresh-tokens",)


@pytest.mark.parametrize(
    ("refused", "ways", "ended", "confirmed", "gone"),
    [
        ({}, BULK_CALL, 0, True, BOTH),
        (
            {BULK: "no_such_path"},
            ("device-credentials", "users/refresh-tokens"),
            *(2, True, BOTH),
        ),
        ({BULK: FORBIDDEN, DEVICES: FORBIDDEN}, ONE_LIST, 1, False, {"rt_1"}),
        ({BULK: "no_such_path", DEVICES: FORBIDDEN}, ONE_LIST, 1, False, {"rt_1"}),
        ({DEVICES: FORBIDDEN, OF_USER: FORBIDDEN}, BULK_CALL, 0, False, BOTH),
        (
            dict.fromkeys((BULK, DEVICES, OF_USER), "inexistent_user"),
            *(BULK_CALL, 0, True, set()),
        ),
    ],
    ids=["bulk", "lists", "scope", "unread list", "no list", "deleted user"],
)
async def test_refresh_tokens_end_by_whatever_way_there_is(
    tenant: RogueTenant,
    api: Management,
    plan: Plan,
    *,
    refused: dict[str, str],
    ways: tuple[str, ...],
    ended: int,
    confirmed: bool,
    gone: set[str],
) -> None:
    """Never fail closed for revoking: what is allowed is done, the rest is said.

    One bulk request ends them where there is one; otherwise each list is emptied, and
    other clients' tokens stay. Only what was read to be over is confirmed: a token
    may stand in a list that may not be read.
    """
    for path, name in refused.items():
        tenant.script(path, answer("management", name))
    done = await revoke_refresh_tokens(api, U1, AGENT)
    assert (done.ways, done.ended, done.confirmed) == (ways, ended, confirmed)
    assert set(plan.gone) == gone
    if ways != BULK_CALL:
        assert len(done.refused) == len(refused)
    unread = FORBIDDEN in {refused.get(DEVICES), refused.get(OF_USER)}
    assert bool(done.unread and done.unread.scopes) is unread


async def test_a_free_plan_has_device_credentials_alone(
    tenant: RogueTenant, api: Management, plan: Plan
) -> None:
    """Enterprise's lists are refused, and what is left does it."""
    not_there = Answer(
        {"statusCode": 403, "errorCode": "feature_not_enabled", "message": "no"}, 403
    )
    tenant.script(BULK, not_there)
    tenant.script(OF_USER, not_there)
    done = await revoke_refresh_tokens(api, U1, AGENT)
    assert (done.ways, done.confirmed) == (("device-credentials",), True)
    assert "dcr_1" in plan.gone
    assert len(done.refused) == 2


async def test_without_any_way_to_revoke_an_error_is_raised(
    tenant: RogueTenant, api: Management, plan: Plan
) -> None:
    """A revocation that could do nothing does not look like one that did."""
    for path in (BULK, DEVICES, OF_USER):
        tenant.script(path, answer("management", "insufficient_scope"))
    with pytest.raises(TenantScopeError):
        await revoke_refresh_tokens(api, U1, AGENT)


async def test_a_revocation_not_read_in_time_is_unconfirmed(
    tenant: RogueTenant, api: Management, plan: Plan, clock: ManualClock
) -> None:
    """Accepted is not done: after the bound it says so, for the next try."""
    plan.lag = 3600.0
    began = clock.boot()
    done = await revoke_refresh_tokens(api, U1, AGENT)
    assert done.confirmed is False
    assert clock.boot() - began < 60


async def test_an_outage_during_a_revocation_is_raised(
    tenant: RogueTenant, api: Management, plan: Plan
) -> None:
    """Half done is not done; doing it again does the rest and no harm."""
    tenant.script(BULK, answer("management", "no_such_path"))
    tenant.script(OF_USER, Answer({}, 503))
    with pytest.raises(TenantUnreachableError):
        await revoke_refresh_tokens(api, U1, AGENT)
    tenant.script(OF_USER, plan.list_tokens)
    assert (await revoke_refresh_tokens(api, U1, AGENT)).confirmed
    assert set(plan.gone) == {"dcr_1", "rt_1"}


async def test_settling_is_bounded_by_the_clock(
    wired: Tenant, clock: ManualClock, naps: list[float]
) -> None:
    """It asks at once, then less and less often, and a last time at the bound."""
    asked: list[float] = []

    async def never() -> bool:
        asked.append(clock.boot())
        return False

    assert await settled(wired, never, 20.0) is False
    assert naps == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 2.5]
    assert asked[-1] - asked[0] == 20.0


async def test_settling_at_once_costs_no_pause(
    wired: Tenant, naps: list[float]
) -> None:
    """A deletion that is true already is confirmed by one reading."""

    async def at_once() -> Any:
        return True

    assert await settled(wired, at_once) is True
    assert naps == []
