"""An approved change does exactly what its approver saw, also after other changes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.bench import OPERATOR, Bench
from support.elsewhere import Stand
from support.loosenings import (
    HOOK,
    MILD,
    SERVICE,
    approve,
    opened,
    signed_in,
    waits,
)

from agentvault_tui.broker.authority import Authority
from agentvault_tui.broker.policy_files import kept_policy
from agentvault_tui.broker.usecases.policy_apply import apply_policy
from agentvault_tui.broker.usecases.policy_change import (
    copy_of,
    reload_policy,
    switch_policy,
)
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup import offer
from agentvault_tui.model import Actor
from agentvault_tui.policy import shipped_policy

FORBID = '@id("x") @why("y") forbid (principal, action, resource);\n'


@pytest.fixture
async def stand(bench: Bench) -> AsyncIterator[Stand]:
    """A broker on which people elsewhere are signed in."""
    async with opened(bench) as made:
        yield made


async def test_applied_files_give_nothing_back_that_was_taken_meanwhile(
    stand: Stand,
) -> None:
    """An agent that the files name and that did not differ was not shown."""
    bench = stand.bench
    approver = await signed_in(stand, "approver")
    payer = await bench.agent("payer", "send:payment", "read:email")
    await bench.agent("triage", "read:email")
    entry = {"owner": "olga", "purpose": "tests"}
    agents = {
        "payer": {**entry, "scopes": ["send:payment", "read:email"]},
        "triage": {**entry, "scopes": ["read:email", "read:calendar"]},
    }
    change = await waits(await approver.post("/api/files", agents=agents))
    await change_scopes(
        bench.broker, payer.id, frozenset(), frozenset({"send:payment"}), OPERATOR
    )
    done = await approve(stand, approver, change)
    assert (done["status"], "meanwhile" in done["problem"]) == ("cancelled", True)
    assert bench.broker.registry.agent(payer.id).scopes == ("read:email",)


async def test_applied_files_put_back_no_text_that_was_tightened_meanwhile(
    stand: Stand,
) -> None:
    """Limits that the files state and that did not differ were not shown."""
    bench = stand.bench
    approver = await signed_in(stand, "approver")
    bench.home.limits_file.write_text(HOOK)
    await reload_policy(bench.broker)
    request = {"limits": HOOK, "services": {"stripe": SERVICE}}
    change = await waits(await approver.post("/api/files", **request))
    few = 'id = "few"\nscopes = ["send:payment"]\ncount = 1\nwithin = "1h"\n'
    tighter = f"{HOOK}\n[[limits]]\n{few}"
    bench.home.limits_file.write_text(tighter)
    await reload_policy(bench.broker)
    done = await approve(stand, approver, change)
    assert (done["status"], bool(done["problem"])) == ("cancelled", True)
    assert bench.broker.deciding.policy.texts.limits == tighter


async def test_a_reset_puts_back_only_the_files_that_it_was_asked_about(
    stand: Stand,
) -> None:
    """Others that are moved away while it waits stay active."""
    bench, home = stand.bench, stand.bench.home
    approver = await signed_in(stand, "approver")
    strict = f"{shipped_policy()}{FORBID}"
    home.policy_file.write_text(strict)
    home.limits_file.write_text(HOOK)
    await reload_policy(bench.broker)
    home.limits_file.unlink()
    await reload_policy(bench.broker)
    change = await waits(await approver.post("/api/policy/reset"))
    home.policy_file.unlink()
    done = await approve(stand, approver, change)
    assert done["status"] == "applied", done
    assert bench.broker.deciding.policy.texts.limits is None
    assert bench.broker.deciding.policy.text == strict


async def test_a_reset_of_a_file_that_is_back_is_refused(stand: Stand) -> None:
    """It was approved in the place of a file that is gone."""
    bench, home = stand.bench, stand.bench.home
    approver = await signed_in(stand, "approver")
    home.limits_file.write_text(HOOK)
    await reload_policy(bench.broker)
    home.limits_file.unlink()
    await reload_policy(bench.broker)
    named = {"gone": ["policy.cedar"]}
    assert (await approver.post("/api/policy/reset", **named)).status_code == 409
    change = await waits(await approver.post("/api/policy/reset"))
    home.limits_file.write_text(HOOK)
    done = await approve(stand, approver, change)
    assert done["status"] == "cancelled", done
    assert bench.broker.deciding.policy.texts.limits == HOOK


async def test_applied_files_may_replace_a_scope(stand: Stand) -> None:
    """Its removal, which comes first, does not make the rest outdated."""
    bench = stand.bench
    approver = await signed_in(stand, "approver")
    agent = await bench.agent("triage", "read:email")
    entry = {"owner": "olga", "purpose": "tests", "scopes": ["read:calendar"]}
    change = await waits(await approver.post("/api/files", agents={"triage": entry}))
    done = await approve(stand, approver, change)
    assert done["status"] == "applied", done
    assert bench.broker.registry.agent(agent.id).scopes == ("read:calendar",)


async def test_a_change_that_is_carried_out_just_now_is_not_outdated(
    stand: Stand,
) -> None:
    """Its own effect is in memory before its record is durable."""
    broker = stand.bench.broker
    approver = await signed_in(stand, "approver")
    payer = await stand.bench.agent("payer")
    request = {"agent_id": payer.id, "grant": ["read:email"]}
    change = await waits(await approver.post("/api/agents/scopes", **request))
    await change_scopes(
        broker, payer.id, frozenset({"read:email"}), frozenset(), OPERATOR
    )
    stepup = broker.stepups.get(change["id"])
    broker.stepups.deciding.add(stepup.id)
    await offer(broker, stepup)
    assert broker.stepups.get(stepup.id).status.open
    broker.stepups.deciding.discard(stepup.id)
    await offer(broker, stepup)
    assert broker.stepups.get(stepup.id).status == "cancelled"


async def test_a_rule_that_is_added_while_a_change_is_asked_for_outdates_it(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines were compared with the policy before, so that it would go unseen."""
    bench = stand.bench
    approver = await signed_in(stand, "approver")
    found, texts = Authority.by_factor, {"policy": f"{shipped_policy()}{FORBID}"}

    async def late(authority: Authority, operator: Actor) -> bool:
        await apply_policy(bench.broker, texts, OPERATOR, None, "an incident")
        return await found(authority, operator)

    monkeypatch.setattr(Authority, "by_factor", late)
    wider = f"{shipped_policy()}{MILD}"
    change = await waits(await approver.post("/api/policy/apply", policy=wider))
    (shown,) = change["texts"]
    assert "-forbid" not in shown["diff"]
    now = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert (now["status"], "meanwhile" in now["problem"]) == ("cancelled", True)
    assert bench.broker.deciding.policy.rule("x") is not None


async def test_a_change_is_outdated_that_was_judged_while_a_policy_was_followed(
    stand: Stand,
) -> None:
    """Another broker's policy is recorded here a moment before it decides here."""
    broker = stand.bench.broker
    approver = await signed_in(stand, "approver")
    texts = broker.deciding.policy.texts
    tighter = texts._replace(policy=f"{shipped_policy()}{FORBID}")
    policy = kept_policy(broker.home, tighter)
    broker.recording.meta["policy"] = str(copy_of(policy).value)
    wider = f"{shipped_policy()}{MILD}"
    change = await waits(await approver.post("/api/policy/apply", policy=wider))
    assert "-forbid" not in change["texts"][0]["diff"]
    switch_policy(broker, policy)
    now = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert (now["status"], "meanwhile" in now["problem"]) == ("cancelled", True)
