"""Secrets are removed at once, unless alerts would stop: then a factor is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.elsewhere import Stand
from support.loosenings import opened, signed_in, waits

from agentvault_tui.broker.secret_uses import SecretUse


@pytest.fixture
async def stand(bench: Bench) -> AsyncIterator[Stand]:
    """A broker with a gateway, and operators on other machines."""
    async with opened(bench) as stand:
        yield stand


async def test_the_secret_of_an_alert_destination_is_removed_by_a_factor(
    stand: Stand,
) -> None:
    """Without it no alert leaves; a secret that only a service uses goes at once."""
    broker = stand.bench.broker
    broker.extensions.secret_uses.append(
        lambda: [SecretUse("sink", "siem", "siem", ())]
    )
    operator = await signed_in(stand, "operator")
    approver = await signed_in(stand, "approver")
    for name in ("siem", "stripe"):
        await broker.extensions.gateway.secrets.change(
            lambda name=name: broker.extensions.gateway.secrets.set(
                name, "v", OPERATOR, ("none",)
            ),
            broker.record,
        )
    assert (await operator.post("/api/secrets/remove", name="siem")).status_code == 403
    assert (
        await operator.post("/api/secrets/remove", name="stripe")
    ).status_code == 200
    change = await waits(await approver.post("/api/secrets/remove", name="siem"))
    assert (change["kind"], change["details"]["destinations"]) == ("alerts", ["siem"])
    asked = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
    assert (await approver.post("/api/changes", **asked)).status_code == 202
    stand.bench.tenant.approve()
    known = broker.stepups
    await stand.bench.until(lambda: known.get(change["id"]).status == "applied")
    assert broker.extensions.gateway.secrets.row("siem") is None


async def test_a_removal_is_judged_by_what_needs_the_secret_when_it_is_recorded(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Destinations that came since it was asked for are not silenced by it."""
    broker, uses = stand.bench.broker, list[SecretUse]()
    broker.extensions.secret_uses.append(lambda: uses)
    secrets = broker.extensions.gateway.secrets
    approver = await signed_in(stand, "approver")
    await secrets.change(
        lambda: secrets.set("siem", "v", OPERATOR, ("none",)), broker.record
    )
    remove = secrets.remove

    def named_meanwhile(*asked: Any) -> Any:
        uses.append(SecretUse("sink", "siem", "siem", ()))
        return remove(*asked)

    with monkeypatch.context() as patch:
        patch.setattr(secrets, "remove", named_meanwhile)
        late = await approver.post("/api/secrets/remove", name="siem")
    assert late.status_code == 409, late.text
    assert "needs it by now" in late.json()["detail"]
    assert secrets.row("siem") is not None
    change = await waits(await approver.post("/api/secrets/remove", name="siem"))
    uses.append(SecretUse("sink", "pager", "siem", ()))
    asked = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
    assert (await approver.post("/api/changes", **asked)).status_code == 409
    assert secrets.row("siem") is not None
