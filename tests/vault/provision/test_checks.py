"""Each misconfiguration is found, in a sentence that says what follows from it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.dict_tenant import DictTenant, dict_tenant
from support.provisioning import SIGN_IN, Vault

from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import SettingsError, TenantError
from agentvault_tui.home import Home
from agentvault_tui.model.finding import Level
from agentvault_tui.vault import Tenant
from agentvault_tui.vault.credentials import VAULT_GRANT
from agentvault_tui.vault.provision import checks
from agentvault_tui.vault.provision.actions import PROOF
from agentvault_tui.vault.provision.needs import READING_SCOPES

Break = Callable[[DictTenant], Any]


def agent(tenant: DictTenant) -> dict[str, Any]:
    return tenant.named("clients", "AgentVault agent calendar-agent")


def console(tenant: DictTenant) -> dict[str, Any]:
    return tenant.named("clients", "AgentVault console")


def google(tenant: DictTenant) -> dict[str, Any]:
    return tenant.named("connections", "google-oauth2")


def grants_to(tenant: DictTenant, audience: str) -> list[dict[str, Any]]:
    rows = tenant.tables["client-grants"].values()
    return [row for row in rows if row["audience"] == audience]


BROKEN: dict[str, tuple[Break, str]] = {
    "MFA policy Always": (
        lambda t: t.policies.append("all-applications"),
        "is Always: every Token Vault exchange fails",
    ),
    "rotation on": (
        lambda t: agent(t)["refresh_token"].update(rotation_type="rotating"),
        "has refresh token rotation on",
    ),
    "console no native app": (
        lambda t: console(t).update(app_type="spa"),
        "is not native",
    ),
    "console with a secret": (
        lambda t: console(t).update(token_endpoint_auth_method="client_secret_post"),
        "public clients alone",
    ),
    "device grant missing": (
        lambda t: console(t).update(grant_types=["refresh_token"]),
        "lacks the Device Code grant",
    ),
    "console registered by itself": (
        lambda t: console(t).update(is_first_party=False),
        "AgentVault console) is not first-party: it gets no device flow",
    ),
    "console not conformant": (
        lambda t: console(t).update(oidc_conformant=False),
        "AgentVault console) is not OIDC conformant: it gets no device flow",
    ),
    "broker's own client without a secret": (
        lambda t: t.named("clients", "AgentVault management").update(
            token_endpoint_auth_method="none"
        ),
        "the broker can neither revoke there nor read the log",
    ),
    "console may too much": (
        lambda t: console(t)["grant_types"].append("implicit"),
        "may use implicit",
    ),
    "agent public": (
        lambda t: agent(t).update(token_endpoint_auth_method="none"),
        "Token Vault refuses public ones",
    ),
    "agent third-party": (
        lambda t: agent(t).update(is_first_party=False),
        "is not first-party",
    ),
    "agent not conformant": (
        lambda t: agent(t).update(oidc_conformant=False),
        "is not OIDC conformant",
    ),
    "vault grant missing": (
        lambda t: agent(t).update(grant_types=["authorization_code", "refresh_token"]),
        "lacks the Token Vault grant",
    ),
    "agent's sign-in grants missing": (
        lambda t: agent(t).update(grant_types=[VAULT_GRANT]),
        "lacks the grants authorization_code, refresh_token",
    ),
    "MRRT policy missing": (
        lambda t: agent(t)["refresh_token"].pop("policies"),
        "has no refresh token policy for the My Account API",
    ),
    "connection not active": (
        lambda t: google(t).update(connected_accounts={"active": False}),
        "is not active for connected accounts",
    ),
    "connection without refresh tokens": (
        lambda t: google(t)["options"].update(offline_access=False),
        "its provider gives no refresh token",
    ),
    "connection not for clients": (
        lambda t: t.enabled[google(t)["id"]].clear(),
        "is not enabled for 1 of our applications",
    ),
    "no way to sign in": (
        lambda t: t.enabled[t.named("connections", SIGN_IN)["id"]].clear(),
        "is not enabled for 1 of our applications",
    ),
    "user grant stored as client": (
        lambda t: [
            row.update(subject_type="client") for row in grants_to(t, f"{t.issuer}me/")
        ],
        "stands for subject_type client instead",
    ),
    "grant missing": (
        lambda t: t.tables["client-grants"].clear(),
        "grant.agents/agt_1.my-account",
    ),
    "another way to sign in": (
        lambda t: t.enabled[google(t)["id"]].append(console(t)["client_id"]),
        "is enabled for 1 of our applications that have no business with it",
    ),
    "a connection nobody named": (
        lambda t: t.enabled.update(
            {t.connect("corp", "waad"): [agent(t)["client_id"]]}
        ),
        "connection.corp is enabled for 1 of our applications",
    ),
    "every connection for each new application": (
        lambda t: t.settings["flags"].clear(),
        "each new application of ours gets every connection",
    ),
    "Classic Login": (
        lambda t: setattr(t, "classic", True),
        "people sign in on Classic Login",
    ),
    "trial of one-time codes over": (
        lambda t: setattr(t, "trials", frozenset({"otp"})),
        "factor.otp: the tenant's plan has it no more (trial_expired)",
    ),
    "action edited": (
        lambda t: t.named("actions", PROOF.name).update(code="x"),
        "has other code than ships",
    ),
    "action not deployed": (
        lambda t: t.named("actions", PROOF.name).pop("deployed_version"),
        "is not deployed as it ships",
    ),
    "actions unbound": (lambda t: t.bindings.clear(), "no fresh factor is proved"),
    "actions in the wrong order": (
        lambda t: t.bindings.reverse(),
        "no fresh factor is proved",
    ),
    "no one-time codes": (lambda t: t.factors.update(otp=False), "factor.otp"),
    "MFA not by Action": (
        lambda t: t.settings.update(customize_mfa_in_postlogin_action=False),
        "the Actions cannot ask for a second factor",
    ),
    "mark lost": (
        lambda t: agent(t)["client_metadata"].clear(),
        "client.agents/agt_1 (AgentVault agent calendar-agent) is missing",
    ),
    "My Account API not active": (
        lambda t: t.tables["resource-servers"].pop(
            t.named("resource-servers", f"{t.issuer}me/")["id"]
        ),
        "activate the My Account API",
    ),
}


NEEDS = {"connections": ("google-oauth2",)}


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """A tenant that is as it should be; whoever breaks it mends it."""
    home = tmp_path_factory.mktemp("home")
    with dict_tenant() as tenant:
        tenant.seed()
        tenant.connect("google-oauth2", "google-oauth2", offline_access=True)
        vault = Vault(tenant, Home(home, home))
        asyncio.run(vault.apply(**NEEDS))
        yield vault


async def test_a_provisioned_tenant_has_no_findings(provisioned: Vault) -> None:
    """Nothing is said against what apply has just made."""
    found = await provisioned.findings(**NEEDS)
    assert {finding.level for _, finding in found} == {Level.OK}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_misconfiguration_is_found_with_its_remedy(
    provisioned: Vault, name: str
) -> None:
    """It is a fault, says what follows from it, and what to do."""
    breaks, sentence = BROKEN[name]
    with provisioned.tenant.kept_whole():
        breaks(provisioned.tenant)
        found = await provisioned.findings(**NEEDS)
    faults = [finding for _, finding in found if finding.level is Level.FAULT]
    assert any(sentence in f"{one.what}: {one.remedy}" for one in faults), faults
    assert all(one.remedy for one in faults)


WARNED: dict[str, tuple[Break, str]] = {
    "WebAuthn off": (
        lambda t: t.factors.update({"webauthn-roaming": False}),
        "nobody can approve with a security key",
    ),
    "trial of WebAuthn over": (
        lambda t: setattr(t, "trials", frozenset({"webauthn-roaming"})),
        "factor.webauthn-roaming is off: the tenant's plan has it no more",
    ),
    "browsers remembered": (
        lambda t: remember(t, "{ allowRememberBrowser: true }"),
        "the Action Theirs lets browsers be remembered",
    ),
}


def remember(tenant: DictTenant, option: str) -> None:
    """Bind another's Action that asks for a factor with *option*."""
    code = f"api.multifactor.enable('any', {option});"
    made = tenant.add("actions", name="Theirs", code=code, status="built")
    tenant.bindings.insert(0, {"display_name": "x", "action": {"id": made["id"]}})


@pytest.mark.parametrize("name", WARNED)
async def test_harmless_misconfigurations_are_warnings(
    provisioned: Vault, name: str
) -> None:
    """The doctor says it, and what helps, and does not exit with a fault for it."""
    breaks, sentence = WARNED[name]
    with provisioned.tenant.kept_whole():
        breaks(provisioned.tenant)
        found = await provisioned.findings(**NEEDS)
    assert Level.FAULT not in {one.level for _, one in found}
    (warned,) = [one for _, one in found if one.level is Level.WARNING]
    assert sentence in warned.what
    assert warned.remedy


@pytest.mark.parametrize("option", ["{ allowRememberBrowser: false }", "{}"])
async def test_an_action_that_remembers_no_browser_is_no_finding(
    provisioned: Vault, option: str
) -> None:
    """Off is Auth0's default."""
    with provisioned.tenant.kept_whole():
        remember(provisioned.tenant, option)
        found = await provisioned.findings(**NEEDS)
    assert {one.level for _, one in found} == {Level.OK}


async def test_what_the_tenant_cannot_see_is_a_warning(vault: Vault) -> None:
    """GitHub and Slack give refresh tokens or not by settings of their own."""
    vault.tenant.connect("github", "github")
    needs = {"connections": ("github",)}
    await vault.apply(**needs)
    found = await vault.findings(**needs)
    (warned,) = [one for _, one in found if one.level is Level.WARNING]
    assert "github gives refresh tokens is set at its provider" in warned.what
    assert "expiring user tokens" in warned.remedy


async def test_no_sign_in_connection_is_a_fault(vault: Vault) -> None:
    """Without a connection for operators no approval can ever be given."""
    found = await vault.findings(sign_in=())
    told = [one.what for _, one in found if one.level is Level.FAULT]
    assert any("no connection is named by which" in one for one in told)


async def test_a_missing_secret_is_a_fault(vault: Vault) -> None:
    """Without it the broker can neither exchange nor revoke."""
    await vault.apply()
    vault.kept().path.unlink()
    told = [one.what for _, one in await vault.findings() if one.level is Level.FAULT]
    assert any("client.management" in one and "not in this home" in one for one in told)


async def test_another_client_than_the_settings_name_is_a_fault(vault: Vault) -> None:
    """Sign-ins would go to an application that the Actions pass by."""
    await vault.apply()
    found = await vault.findings(client_id="cl_elsewhere")
    assert any("tenant.client_id is cl_elsewhere" in one.what for _, one in found)


async def reached(issuer: str, **look_up: Any) -> list[checks.Check]:
    tenant = Tenant(issuer, SystemClock())
    try:
        return [check async for check in checks.reach(tenant, **look_up)]
    finally:
        await tenant.aclose()


async def test_an_unresolvable_host_is_a_dns_fault(vault: Vault) -> None:
    """The name is said, and that it may be mistyped."""

    async def nothing(_: str, __: int) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    ((area, finding),) = await reached(vault.tenant.issuer, look_up=nothing)
    assert (area, finding.level) == ("tenant", Level.FAULT)
    assert "DNS has no address for 127.0.0.1" in finding.what
    assert "typing error in tenant.issuer or tenant.url" in finding.remedy


async def test_another_issuer_is_a_fault(vault: Vault) -> None:
    """A custom domain and the tenant's own are two issuers."""
    vault.tenant.discovery = {"issuer": "https://login.acme.test/"}
    ((_, finding),) = await reached(vault.tenant.issuer)
    assert "the tenant calls itself 'https://login.acme.test/'" in finding.what
    assert "tenant.issuer" in finding.remedy


async def test_an_unreachable_tenant_is_a_fault(vault: Vault) -> None:
    """Nothing listens there: one fault, and no guess at the rest."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ((_, finding),) = await reached(f"http://127.0.0.1:{port}/")
    assert finding.level is Level.FAULT
    assert "cannot be reached" in finding.what


def test_plain_http_is_refused_off_loopback() -> None:
    """A token sent in clear is everyone's."""
    with pytest.raises(SettingsError, match="does not use https"):
        Tenant("http://acme.eu.auth0.com/", SystemClock())


@pytest.mark.parametrize(
    ("seconds", "level", "said"),
    [
        (600.0, Level.FAULT, "600 s behind the tenant"),
        (-600.0, Level.FAULT, "600 s ahead of the tenant"),
        (12.0, Level.WARNING, "12 s behind"),
        (1.0, Level.OK, "agrees"),
        (None, Level.WARNING, "does not say"),
    ],
)
def test_a_clock_skew_is_reported_in_seconds(
    seconds: float | None, level: Level, said: str
) -> None:
    """Half a minute is where ID tokens begin to be refused."""
    finding = checks.skew(seconds)
    assert finding.level is level
    assert said in finding.what


async def test_the_date_header_gives_the_skew(vault: Vault) -> None:
    """Ten minutes are seen from the first answer on."""
    vault.tenant.skew = 600
    found = await reached(vault.tenant.issuer)
    assert ("clock", Level.FAULT) in [(area, one.level) for area, one in found]


async def rights(vault: Vault) -> list[checks.Check]:
    management = vault.management()
    try:
        return list(checks.rights(await management.scopes(), vault.needs()))
    except TenantError as error:
        return [checks.no_token(error, management)]
    finally:
        await management.tenant.aclose()


async def test_each_missing_scope_is_a_finding(vault: Vault) -> None:
    """To read: a fault each; to apply: a warning each, for who only looks."""
    held = set(READING_SCOPES) - {"read:actions", "read:roles"}
    vault.tenant.granted = " ".join(held)
    found = await rights(vault)
    faults = [one.what for _, one in found if one.level is Level.FAULT]
    assert faults == [
        "the credential lacks read:actions",
        "the credential lacks read:roles",
    ]
    warned = [one.what for _, one in found if one.level is Level.WARNING]
    assert "the credential lacks create:clients, which apply needs" in warned


@pytest.mark.parametrize(
    "answer",
    [
        (401, {"error": "access_denied", "error_description": "Unauthorized"}),
        (403, {"error": "access_denied", "error_description": "no client-grant"}),
    ],
    ids=["wrong secret", "no grant"],
)
async def test_a_refused_credential_is_a_fault(
    vault: Vault, answer: tuple[int, dict[str, str]]
) -> None:
    """The tenant's own word, and where to look."""
    vault.tenant.token_answer = answer
    ((area, finding),) = await rights(vault)
    assert (area, finding.level) == ("credential", Level.FAULT)
    assert finding.remedy
