"""An empty tenant becomes what is wanted, and stays so, whatever happens between."""

from __future__ import annotations

import json
import stat
from copy import deepcopy

import pytest
from support.provisioning import SIGN_IN, Vault, steps

from agentvault_tui.errors import (
    TenantBusyError,
    TenantError,
    TenantRefusedError,
    TenantScopeError,
)
from agentvault_tui.vault import Secret
from agentvault_tui.vault.credentials import DEVICE_GRANT, VAULT_GRANT
from agentvault_tui.vault.provision import PlanStep, names
from agentvault_tui.vault.provision.actions import CHALLENGE, PROOF, TOKEN_LIMITS

WRITES = (PlanStep.CREATE, PlanStep.CHANGE)


@pytest.mark.slow
async def test_apply_makes_every_object_on_an_empty_tenant(vault: Vault) -> None:
    """Applications, APIs, factors and settings: each as the wire wants it."""
    await vault.apply()
    tenant = vault.tenant
    console = tenant.named("clients", "AgentVault console")
    assert console["app_type"] == "native"
    assert console["token_endpoint_auth_method"] == "none"
    assert console["grant_types"] == [DEVICE_GRANT]
    agent = tenant.named("clients", "AgentVault agent calendar-agent")
    assert VAULT_GRANT in agent["grant_types"]
    assert agent["refresh_token"]["rotation_type"] == "non-rotating"
    assert agent["refresh_token"]["policies"][0]["audience"] == f"{tenant.issuer}me/"
    for client in (console, agent):
        assert client["oidc_conformant"] is client["is_first_party"] is True
    assert tenant.factors["otp"]
    assert tenant.factors["webauthn-roaming"]
    assert tenant.settings["customize_mfa_in_postlogin_action"] is True
    sign_in = tenant.named("connections", SIGN_IN)["id"]
    assert tenant.enabled[sign_in] == [console["client_id"]]


async def test_apply_makes_no_api(vault: Vault) -> None:
    """Three applications, their two grants, no API and no permission of a role."""
    apis = list(vault.tenant.tables["resource-servers"])
    await vault.apply()
    tenant = vault.tenant
    assert list(tenant.tables["resource-servers"]) == apis
    clients = {
        row["client_id"]: row["name"] for row in tenant.tables["clients"].values()
    }
    assert sorted(clients.values()) == [
        "AgentVault agent calendar-agent",
        "AgentVault console",
        "AgentVault management",
    ]
    assert sorted(
        (clients[row["client_id"]], row["audience"].removeprefix(tenant.issuer))
        for row in tenant.tables["client-grants"].values()
    ) == [
        ("AgentVault agent calendar-agent", "me/"),
        ("AgentVault management", "api/v2/"),
    ]
    assert tenant.permissions == {}


@pytest.mark.slow
async def test_applications_get_the_connections_they_need_alone(vault: Vault) -> None:
    """A new application gets every connection: anybody at Google could sign in."""
    tenant = vault.tenant
    google = tenant.connect("google-oauth2", "google-oauth2", offline_access=True)
    others = tenant.connect("corp", "waad")
    theirs = tenant.add("clients", name="Theirs")["client_id"]
    tenant.enabled[others] = [theirs]
    await vault.apply(connections=("google-oauth2",))
    console = tenant.named("clients", "AgentVault console")["client_id"]
    agent = tenant.named("clients", "AgentVault agent calendar-agent")["client_id"]
    sign_in = tenant.named("connections", SIGN_IN)["id"]
    had = {sign_in: [console], google: [agent], others: [theirs]}
    assert tenant.enabled == had
    assert tenant.settings["flags"]["enable_client_connections"] is False
    _, path, sent = tenant.writes[0]
    assert path == "/api/v2/tenants/settings", "before any application is made"
    assert sent == {"flags": {"enable_client_connections": False}}
    # An earlier version, or someone at the Dashboard, gave them more.
    for one in had:
        tenant.enabled[one] = [theirs, console, agent]
    plan = await vault.plan(connections=("google-oauth2",))
    assert steps(plan, *WRITES) == [
        f"connection.{SIGN_IN}",
        "connection.google-oauth2",
        "connection.corp",
    ]
    await vault.apply(connections=("google-oauth2",))
    assert tenant.enabled == {
        sign_in: [theirs, console],
        google: [theirs, agent],
        others: [theirs],
    }


async def test_the_brokers_credential_cannot_widen_itself(vault: Vault) -> None:
    """Its credential lies in a home: it cuts and looks, and makes or lends nothing."""
    await vault.apply()
    client = vault.tenant.named("clients", "AgentVault management")["client_id"]
    rows = vault.tenant.tables["client-grants"].values()
    (grant,) = [row for row in rows if row["client_id"] == client]
    assert grant["subject_type"] == "client"
    assert {one for one in grant["scope"] if not one.startswith("read:")} == {
        "update:clients",
        "update:client_keys",
        "delete:device_credentials",
        "delete:refresh_tokens",
    }


async def test_actions_are_deployed_and_bound_in_order(vault: Vault) -> None:
    """Each is deployed once it is built, and the proof runs after the challenge."""
    await vault.apply()
    ids = {row["id"]: row for row in vault.tenant.tables["actions"].values()}
    bound = [ids[one["action"]["id"]] for one in vault.tenant.bindings]
    assert [one["name"] for one in bound] == [CHALLENGE.name, PROOF.name]
    assert [one["deployed_version"]["code"] for one in bound] == [
        CHALLENGE.code,
        PROOF.code,
    ]
    assert [one["display_name"] for one in vault.tenant.bindings] == [
        CHALLENGE.name,
        PROOF.name,
    ]


@pytest.mark.slow
async def test_a_second_apply_writes_nothing(vault: Vault) -> None:
    """What stands is found, by mark and identifier, and left as it is."""
    await vault.apply()
    vault.tenant.writes.clear()
    assert await vault.apply() == []
    assert vault.tenant.writes == []
    assert steps(await vault.plan(), *WRITES) == []


@pytest.mark.slow
async def test_an_interrupted_apply_is_continued(vault: Vault) -> None:
    """Whatever write fails, later runs finish it, and nothing stands there twice."""
    runs = 0
    for _ in range(40):
        vault.tenant.fail_after = 2
        runs += 1
        try:
            done = await vault.apply()
        except TenantError:
            continue
        if not done:
            break
    vault.tenant.fail_after = -1
    assert runs > 5
    assert steps(await vault.plan(), *WRITES) == []
    for table, key in (("clients", "name"), ("resource-servers", "identifier")):
        found = [row[key] for row in vault.tenant.tables[table].values()]
        assert len(found) == len(set(found))


async def test_application_secrets_go_into_the_private_file(vault: Vault) -> None:
    """Every secret that is in force is kept, 0600, under the key of its application."""
    await vault.apply()
    path = vault.kept().path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = json.loads(path.read_text())
    for key, name in (
        ("management", "AgentVault management"),
        ("agents/agt_1", "AgentVault agent calendar-agent"),
    ):
        client = vault.tenant.named("clients", name)
        assert kept[key]["client_id"] == client["client_id"]
        assert kept[key]["client_secret"] == client["client_secret"]
    assert "client_secret" not in kept["console"]


@pytest.mark.slow
async def test_a_lost_secret_is_rotated(vault: Vault) -> None:
    """Without the file the plan says so, and apply rotates what no longer is known."""
    await vault.apply()
    old = vault.tenant.named("clients", "AgentVault management")["client_secret"]
    vault.kept().path.unlink()
    lost = steps(await vault.plan(), PlanStep.CHANGE)
    assert lost == ["client.console", "client.management", "client.agents/agt_1"]
    await vault.apply()
    console = vault.tenant.named("clients", "AgentVault console")
    assert vault.kept().client_id("console") == console["client_id"]
    new = vault.tenant.named("clients", "AgentVault management")["client_secret"]
    assert new != old
    assert vault.kept().secret("management").reveal() == new


async def test_an_application_known_by_its_mark_alone_is_named(vault: Vault) -> None:
    """Before it comes by our rights, a person sees which one it is, and that it is."""
    trap = vault.tenant.add(
        "clients",
        name="AgentVault management",
        client_metadata={names.MARK: names.MANAGEMENT},
    )
    found = {item.address: item for item in (await vault.plan()).items}
    assert trap["client_id"] in found["client.management"].note
    assert "unknown to this home" in found["client.management"].note
    vault.kept().keep("management", trap["client_id"], Secret("s"))
    found = {item.address: item for item in (await vault.plan()).items}
    assert found["client.management"].note == ""


async def test_a_client_grant_stored_for_machines_is_deleted_again(
    vault: Vault,
) -> None:
    """A tenant that drops subject_type has let a client in without anyone."""
    vault.tenant.drop_subject_type = True
    with pytest.raises(TenantRefusedError) as caught:
        await vault.apply()
    assert "deleted again" in caught.value.what
    assert "User Access" in caught.value.remedy
    grants = vault.tenant.tables["client-grants"].values()
    assert [row["audience"] for row in grants] == [f"{vault.tenant.issuer}api/v2/"]


async def test_actions_of_others_stay_bound_under_their_names(vault: Vault) -> None:
    """The list is replaced as a whole, so all of it is sent, in its order."""
    others = [
        vault.tenant.add("actions", name=name, code="", status="built")["id"]
        for name in ("audit", "consent")
    ]
    vault.tenant.bindings = [
        {"id": f"b{n}", "display_name": f"Shown {n}", "action": {"id": one}}
        for n, one in enumerate(others)
    ]
    await vault.apply()
    bound = [one["action"]["id"] for one in vault.tenant.bindings]
    assert bound[:2] == others
    assert [one["display_name"] for one in vault.tenant.bindings][:2] == [
        "Shown 0",
        "Shown 1",
    ]
    # Bound between and after ours by someone, they stay there.
    late = vault.tenant.add("actions", name="late", code="", status="built")["id"]
    vault.tenant.bindings.append({"display_name": "Late", "action": {"id": late}})
    assert steps(await vault.plan(), *WRITES) == []


async def test_a_full_login_flow_is_refused(vault: Vault) -> None:
    """Twenty Actions fit into a flow."""
    vault.tenant.bindings = [
        {"display_name": str(n), "action": {"id": f"act_{n}"}} for n in range(19)
    ]
    with pytest.raises(TenantError, match="20 fit"):
        await vault.apply()
    assert len(vault.tenant.bindings) == 19


@pytest.mark.slow
async def test_an_edited_action_is_restored_and_deployed(vault: Vault) -> None:
    """Both a draft that was changed and one that was deployed are found."""
    await vault.apply()
    row = vault.tenant.named("actions", PROOF.name)
    row["code"] = row["deployed_version"]["code"] = "exports.onExecutePostLogin = 0;"
    assert steps(await vault.plan(), PlanStep.CHANGE) == ["action.proof"]
    await vault.apply()
    assert row["deployed_version"]["code"] == PROOF.code
    row["deployed_version"] = {"code": "old"}
    assert steps(await vault.plan(), PlanStep.CHANGE) == ["action.proof"]
    await vault.apply()
    assert row["deployed_version"]["code"] == PROOF.code


async def test_scopes_and_callbacks_of_others_stay(vault: Vault) -> None:
    """Callbacks, refresh policies and flags are added to, never replaced."""
    await vault.apply()
    vault.tenant.settings["flags"] = {"enable_client_connections": True, "theirs": True}
    agent = vault.tenant.named("clients", "AgentVault agent calendar-agent")
    agent["refresh_token"]["leeway"] = 7
    agent["refresh_token"]["rotation_type"] = "rotating"
    agent["refresh_token"]["policies"].insert(0, {"audience": "theirs", "scope": ["a"]})
    await vault.apply()
    assert vault.tenant.settings["flags"] == {
        "enable_client_connections": False,
        "theirs": True,
    }
    assert agent["refresh_token"]["leeway"] == 7
    assert agent["refresh_token"]["rotation_type"] == "non-rotating"
    assert [one["audience"] for one in agent["refresh_token"]["policies"]] == [
        "theirs",
        f"{vault.tenant.issuer}me/",
    ]


@pytest.mark.slow
async def test_the_mfa_policy_changes_last_and_only_when_told(vault: Vault) -> None:
    """Loosening it sooner would leave every application without a second factor."""
    vault.tenant.policies = ["all-applications"]
    await vault.apply()
    assert vault.tenant.policies == ["all-applications"]
    assert steps(await vault.plan(), PlanStep.LEAVE) == ["policy.mfa"]
    vault.tenant.writes.clear()
    vault.tenant.bindings.clear()
    await vault.apply(change_mfa_policy=True)
    assert vault.tenant.policies == []
    paths = [path for _, path, _ in vault.tenant.writes]
    assert paths == [
        "/api/v2/actions/triggers/post-login/bindings",
        "/api/v2/guardian/policies",
    ]


async def test_the_action_that_limits_tokens_is_bound_when_told(vault: Vault) -> None:
    """After others' in its own flow, and the login flow is as before; kept without."""
    tenant = vault.tenant
    await vault.apply()
    assert tenant.exchange == []
    login = deepcopy(tenant.bindings)
    theirs = {"id": "bind_0", "display_name": "Theirs", "action": {"id": "act_theirs"}}
    tenant.exchange.append(theirs)
    await vault.apply(token_limits=True)
    ours = tenant.named("actions", TOKEN_LIMITS.name)
    assert ours["supported_triggers"] == [
        {"id": "credentials-exchange", "version": "v2"}
    ]
    assert ours["code"] == TOKEN_LIMITS.code
    first, second = tenant.exchange
    assert (first["action"]["id"], first["display_name"]) == ("act_theirs", "Theirs")
    assert second["action"]["id"] == ours["id"]
    assert tenant.bindings == login
    assert steps(await vault.plan(token_limits=True), *WRITES) == []
    await vault.apply()
    assert len(tenant.exchange) == 2


@pytest.mark.slow
async def test_a_revoked_agents_application_is_left_alone(vault: Vault) -> None:
    """Its application is told and left as the revocation left it."""
    await vault.apply()
    client = vault.tenant.named("clients", "AgentVault agent calendar-agent")
    client["grant_types"] = []
    plan = await vault.plan(agents=())
    assert steps(plan, *WRITES) == []
    assert steps(plan, PlanStep.LEAVE) == ["client.agents/agt_1"]
    await vault.apply(agents=())
    assert client["grant_types"] == []


async def test_a_connections_options_are_never_sent(vault: Vault) -> None:
    """They hold the provider's secret, and a change replaces them whole."""
    google = vault.tenant.connect("google-oauth2", "google-oauth2", offline_access=True)
    await vault.apply(connections=("google-oauth2",))
    row = vault.tenant.tables["connections"][google]
    assert row["connected_accounts"] == {"active": True}
    assert row["options"]["client_secret"] == "provider-secret"
    agent = vault.tenant.named("clients", "AgentVault agent calendar-agent")
    assert vault.tenant.enabled[google] == [agent["client_id"]]
    assert "options" not in json.dumps(vault.tenant.writes)


async def test_manual_steps_are_in_the_plan(vault: Vault) -> None:
    """A missing connection, refresh tokens not asked for, an API to activate."""
    vault.tenant.connect("google-oauth2", "google-oauth2")
    me = vault.tenant.named("resource-servers", f"{vault.tenant.issuer}me/")
    del vault.tenant.tables["resource-servers"][me["id"]]
    plan = await vault.plan(connections=("google-oauth2", "github"))
    assert sorted(steps(plan, PlanStep.BY_HAND)) == [
        "api.my-account",
        "connection.github",
        "connection.google-oauth2.refresh-tokens",
    ]
    await vault.apply(connections=("google-oauth2", "github"))


async def test_a_write_that_reads_back_differently_is_an_error(vault: Vault) -> None:
    """A tenant that says yes and stores nothing is not believed."""
    await vault.apply()
    vault.tenant.named("clients", "AgentVault console")["grant_types"] = ["implicit"]
    vault.tenant.deaf = frozenset({"grant_types"})
    with pytest.raises(TenantError, match="grant_types"):
        await vault.apply()


async def test_the_application_named_in_the_settings_is_adopted(vault: Vault) -> None:
    """One made by hand becomes the console's, instead of a second one beside it."""
    made = vault.tenant.add("clients", name="By hand", app_type="native")
    await vault.apply(client_id=made["client_id"])
    assert made["client_metadata"] == {names.MARK: names.CONSOLE}
    assert vault.kept().client_id("console") == made["client_id"]


async def test_apply_waits_out_a_rate_limit(vault: Vault) -> None:
    """Answers of 429 are tried again when the tenant says, and none ends the run."""
    vault.tenant.busy, vault.tenant.busy_seconds = 1, 60
    assert steps(await vault.plan(), PlanStep.CREATE)
    assert 55 < vault.waited < 90


async def test_a_lasting_rate_limit_ends_apply(vault: Vault) -> None:
    """It says so, and that trying later is what helps."""
    vault.tenant.busy, vault.tenant.busy_seconds = 100, 60
    with pytest.raises(TenantBusyError, match="rate limit is spent"):
        await vault.plan()
    assert vault.tenant.writes == []


BINDINGS = "/api/v2/actions/triggers/post-login/bindings"


def factor(name: str) -> str:
    """The path by which a factor is switched on."""
    return f"/api/v2/guardian/factors/{name}"


async def test_a_plan_refusal_stops_no_other_object(vault: Vault) -> None:
    """WebAuthn is optional; all but that is done, and the run says what was refused."""
    refused = "insufficient_entitlement"
    for name in ("webauthn-roaming", "webauthn-platform"):
        vault.tenant.plan_lacks[factor(name)] = refused
    done = {item.address: item for item in await vault.applied()}
    missed = [one for one, item in done.items() if item.step is PlanStep.REFUSED]
    assert missed == ["factor.webauthn-roaming", "factor.webauthn-platform"]
    for one in missed:
        assert refused in done[one].note
        assert "the tenant's plan does not have it" in done[one].note
    assert steps(await vault.plan(), *WRITES) == missed
    assert vault.tenant.bindings


async def test_a_refused_optional_object_stops_no_other(vault: Vault) -> None:
    """Auth0 documents no code for it: what everything works without is no reason."""
    vault.tenant.plan_lacks[factor("webauthn-platform")] = "a_code_of_tomorrow"
    done = {item.address: item.step for item in await vault.applied()}
    assert done["factor.webauthn-platform"] is PlanStep.REFUSED
    vault.tenant.plan_lacks = {factor("otp"): "a_code_of_tomorrow"}
    vault.tenant.factors["otp"] = False
    with pytest.raises(TenantRefusedError, match="a_code_of_tomorrow"):
        await vault.apply()


@pytest.mark.parametrize("path", [factor("otp"), BINDINGS, "/api/v2/tenants/settings"])
async def test_the_mfa_policy_stays_when_its_actions_are_refused(
    vault: Vault, path: str
) -> None:
    """Every application would be without a second factor, ours among them."""
    vault.tenant.policies = ["all-applications"]
    vault.tenant.plan_lacks[path] = "trial_expired"
    items = await vault.applied(change_mfa_policy=True)
    done = {item.address: item for item in items}
    assert done["policy.mfa"].step is PlanStep.REFUSED
    assert "needs " in done["policy.mfa"].note
    assert vault.tenant.policies == ["all-applications"]


async def test_what_depends_on_a_refused_object_is_refused(vault: Vault) -> None:
    """Without an Action there is nothing to bind; the applications stand though."""
    vault.tenant.plan_lacks["/api/v2/actions/actions"] = "insufficient_entitlement"
    done = {item.address: item for item in await vault.applied()}
    assert done["flow.post-login"].note == "needs action.challenge"
    assert vault.tenant.bindings == []
    assert vault.kept().client_id("console")


async def test_a_missing_scope_ends_apply(vault: Vault) -> None:
    """The credential is to be mended, also for what is optional."""
    await vault.apply()
    vault.tenant.factors["webauthn-roaming"] = False
    vault.tenant.without = frozenset({"update:guardian_factors"})
    with pytest.raises(TenantScopeError):
        await vault.apply()


async def test_a_factor_with_an_expired_trial_is_not_written(vault: Vault) -> None:
    """`enabled` says nothing then: the plan has no such factor any more."""
    await vault.apply()
    vault.tenant.writes.clear()
    vault.tenant.trials = frozenset({"otp", "webauthn-roaming"})
    vault.tenant.factors["webauthn-roaming"] = False
    plan = await vault.plan()
    assert steps(plan, PlanStep.LEAVE) == ["factor.webauthn-roaming"]
    assert steps(plan, PlanStep.BY_HAND) == ["factor.otp"]
    assert await vault.apply() == []
    assert vault.tenant.writes == []


async def test_classic_login_is_a_manual_step(vault: Vault) -> None:
    """The commands by which an Action asks for a factor are Universal Login's."""
    vault.tenant.classic = True
    plan = await vault.plan()
    assert steps(plan, PlanStep.BY_HAND) == ["prompts.login"]
