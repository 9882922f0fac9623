"""The Management API's calls, against answers recorded from real tenants."""

from typing import Any

import pytest
from support.exchanges import answer
from support.manual_clock import ManualClock
from support.rogue_tenant import Answer, RogueTenant

from agentvault_tui.errors import (
    TenantNotFoundError,
    TenantRefusedError,
    TenantScopeError,
    TenantUnreachableError,
)
from agentvault_tui.vault import Management
from agentvault_tui.vault.management import logs, objects
from agentvault_tui.vault.management.objects import (
    actions,
    client_grants,
    clients,
    connections,
    resource_servers,
)
from agentvault_tui.vault.management.revoking import device_credentials, user_tokens
from agentvault_tui.vault.management.rows import is_not_offered

U1 = "auth0|u1"
BASE = "/api/v2/"


def replay(tenant: RogueTenant, path: str, *names: str) -> str:
    """Answer *path* with recorded exchanges, in turn; return the whole path."""
    where = BASE + path
    tenant.script(where, *(answer("management", name, tenant.issuer) for name in names))
    return where


def last(tenant: RogueTenant) -> tuple[str, str, Any]:
    """Return the last request: method, path below the API, and JSON."""
    sent = tenant.requests[-1]
    return sent.method, sent.path.removeprefix(BASE), sent.json


async def test_clients_are_listed_and_shown_without_their_secrets(
    tenant: RogueTenant, api: Management
) -> None:
    """Even a secret that is sent goes no further; it is asked not to be."""
    replay(tenant, "clients", "clients")
    found = await clients.every(api)
    assert [one["client_id"] for one in found] == ["avConsole01", "agent7"]
    assert "should-not-be-here" not in repr(found)
    assert "signing_keys" not in found[1]
    assert tenant.requests[-1].query["include_fields"] == "false"
    replay(tenant, "clients/agent7", "client_rotated")
    assert await clients.get(api, "agent7") == {
        "client_id": "agent7",
        "name": "Agent: calendar-bot",
    }


async def test_a_new_client_and_a_rotated_one_give_their_secret_once(
    tenant: RogueTenant, api: Management
) -> None:
    """201 and 200: the secret comes apart from the client, and hidden."""
    replay(tenant, "clients", "client_created")
    wanted = {"name": "mail-bot", "oidc_conformant": True}
    client, secret = await clients.register(api, wanted)
    assert client["client_id"] == "agent8"
    assert secret is not None
    assert secret.reveal() == "made-once"
    assert "made-once" not in repr((client, secret))
    assert last(tenant)[2] == {"name": "mail-bot", "oidc_conformant": True}
    replay(tenant, "clients/agent7/rotate-secret", "client_rotated")
    rotated = await clients.rotate_secret(api, "agent7")
    assert rotated.reveal() == "rotated-secret"
    assert last(tenant)[0] == "POST"


async def test_a_client_can_be_changed_and_deleted(
    tenant: RogueTenant, api: Management
) -> None:
    """Patched with 200, deleted with 204; what is gone already is no error."""
    replay(tenant, "clients/agent7", "client_patched")
    await clients.patch(api, "agent7", {"grant_types": ["authorization_code"]})
    expected = ("PATCH", "clients/agent7", {"grant_types": ["authorization_code"]})
    assert last(tenant) == expected
    replay(tenant, "clients/agent7", "deleted", "no_such_path")
    assert await clients.delete(api, "agent7") is True
    assert await clients.delete(api, "agent7") is False


async def test_a_missing_scope_is_named(tenant: RogueTenant, api: Management) -> None:
    """The error names scope and deed, not an endpoint."""
    replay(tenant, "clients/agent7", "insufficient_scope")
    with pytest.raises(TenantScopeError, match="would not delete the client") as caught:
        await clients.delete(api, "agent7")
    assert caught.value.scopes == ("delete:grants",)


async def test_refresh_tokens_are_listed_both_ways(
    tenant: RogueTenant, api: Management
) -> None:
    """By the person where the plan has it, by device credentials everywhere."""
    replay(tenant, "users/auth0%7Cu1/refresh-tokens", "user_refresh_tokens")
    assert await user_tokens(api, U1, "agent7") == ["rt_1"]
    assert await user_tokens(api, U1, "other9") == ["rt_2"]
    replay(tenant, "device-credentials", "device_credentials")
    assert set(await device_credentials(api, U1, "agent7")) == {"dcr_1"}
    kinds = [one.query["type"] for one in tenant.sent(BASE + "device-credentials")]
    assert kinds == ["refresh_token", "rotating_refresh_token"]


async def test_device_credentials_of_others_are_ignored(
    tenant: RogueTenant, api: Management
) -> None:
    """A list that ignores whom was asked for does not end somebody else's sign-in."""
    replay(tenant, "device-credentials", "device_credentials")
    assert await device_credentials(api, "auth0|u2", "agent7") == []
    assert await device_credentials(api, U1, "agent8") == []


@pytest.mark.parametrize(
    ("status", "code", "offered"),
    [
        (402, None, False),
        (405, None, False),
        (410, None, False),
        (400, "operation_not_supported", False),
        (403, "feature_not_enabled", False),
        (404, "inexistent_user", True),
        (403, "insufficient_scope", True),
        (401, "invalid_token", True),
        (400, "invalid_query", True),
    ],
)
async def test_a_missing_call_is_told_from_a_missing_object(
    tenant: RogueTenant, api: Management, status: int, code: str, offered: bool
) -> None:
    """A missing scope or person is an error; a missing call is an answer."""
    body = {"statusCode": status, "error": "No", "message": "no", "errorCode": code}
    tenant.script(BASE + "users/auth0%7Cu1/refresh-tokens", Answer(body, status))
    with pytest.raises(TenantRefusedError) as caught:
        await user_tokens(api, U1, "agent7")
    assert is_not_offered(caught.value) is not offered


async def test_a_connections_clients_change_without_its_options(
    tenant: RogueTenant, api: Management
) -> None:
    """A client off a connection is 204; the provider's secret is nowhere."""
    replay(tenant, "connections", "connections")
    (found,) = await connections.every(api)
    assert found["options"] == {"client_id": "g", "scope": ["email"]}
    replay(tenant, "connections/con_1", "connection_patched")
    changes = {"connected_accounts": {"active": False}}
    changed = await connections.patch(api, "con_1", changes)
    assert "the-provider-secret" not in repr(changed)
    assert last(tenant)[2] == changes
    replay(tenant, "connections/con_1/clients", "connection_clients", "deleted")
    enabled = await connections.clients(api, "con_1")
    assert enabled == ["agent7", "avBroker01"]
    await connections.set_clients(api, "con_1", {"agent7": False})
    assert last(tenant)[2] == [{"client_id": "agent7", "status": False}]


async def test_apis_are_found_by_their_identifier(
    tenant: RogueTenant, api: Management
) -> None:
    """The identifier is a URL and stays one segment, its last slash too."""
    identifier = "https://broker.agentvault.test/"
    where = "resource-servers/https%3A%2F%2Fbroker.agentvault.test%2F"
    replay(tenant, where, "inexistent_resource_server")
    with pytest.raises(TenantNotFoundError) as caught:
        await resource_servers.get(api, identifier)
    assert caught.value.error == "inexistent_resource_server"
    made = answer("management", "resource_server_created", tenant.issuer)
    tenant.script(BASE + where, Answer(made.body))
    assert (await resource_servers.get(api, identifier))["token_lifetime"] == 86_400
    tenant.script(BASE + where, Answer(b"", 204))
    assert await resource_servers.delete(api, identifier) is True


async def test_a_client_grant_is_read_again_after_it_was_written(
    tenant: RogueTenant, api: Management
) -> None:
    """Auth0 once stored `user` as `client`: that is found out, not believed."""
    wanted = {
        "client_id": "agent7",
        "audience": f"{tenant.issuer}me/",
        "scope": ["a"],
        "subject_type": "user",
    }
    replay(tenant, "client-grants", "client_grant_created", "client_grants")
    assert (await client_grants.create(api, wanted))["subject_type"] == "user"
    assert tenant.requests[-1].query["client_id"] == "agent7"
    as_client = ("client_grant_created", "client_grants_as_client")
    replay(tenant, "client-grants", *as_client)
    with pytest.raises(TenantRefusedError, match="another subject_type") as caught:
        await client_grants.create(api, wanted)
    assert caught.value.error == "stored_otherwise"


async def test_a_changed_client_grant_is_read_again_too(
    tenant: RogueTenant, api: Management
) -> None:
    """Scopes in another order are the same scopes; others are not."""
    replay(tenant, "client-grants/cgr_1", "client_grant_created")
    tenant.script(
        BASE + "client-grants/cgr_1",
        Answer({"id": "cgr_1", "client_id": "agent7", "audience": "x"}),
    )
    row = {"id": "cgr_1", "scope": ["b", "a"], "subject_type": "user"}
    tenant.script(BASE + "client-grants", Answer({"client_grants": [row]}))
    await client_grants.patch(api, "cgr_1", {"scope": ["a", "b"]})
    with pytest.raises(TenantRefusedError, match="another scope"):
        await client_grants.patch(api, "cgr_1", {"scope": ["a"]})
    tenant.script(BASE + "client-grants", Answer({"client_grants": []}))
    with pytest.raises(TenantUnreachableError, match="does not list"):
        await client_grants.patch(api, "cgr_1", {"scope": ["a"]})
    tenant.script(BASE + "client-grants/cgr_1", Answer(b"", 204))
    assert await client_grants.delete(api, "cgr_1") is True


async def test_an_action_is_made_built_deployed_and_bound(
    tenant: RogueTenant, api: Management
) -> None:
    """Deployed once it is built; binding replaces the whole list, in order."""
    replay(tenant, "actions/actions", "action_created")
    made = await actions.create(api, {"name": "stamp"})
    one = f"actions/actions/{made['id']}"
    replay(tenant, one, "action_building", "action_building", "action_built")
    await actions.until_built(api, "act_1")
    assert tenant.asked(BASE + one) == 3
    replay(tenant, f"{one}/deploy", "action_deployed")
    await actions.deploy(api, "act_1")
    assert last(tenant)[:2] == ("POST", f"{one}/deploy")
    bindings = "actions/triggers/post-login/bindings"
    replay(tenant, bindings, "bindings")
    assert [one["id"] for one in await actions.bindings(api, "post-login")] == ["bnd_1"]
    assert "include_totals" not in tenant.requests[-1].query
    await actions.bind(api, "post-login", [("act_0", "theirs"), ("act_1", "stamp")])
    bound = [one["ref"]["value"] for one in last(tenant)[2]["bindings"]]
    assert bound == ["act_0", "act_1"]


async def test_an_action_that_does_not_build_says_why(
    tenant: RogueTenant, api: Management, clock: ManualClock
) -> None:
    """A failed build is a refusal with its reason; an endless one is an outage."""
    replay(tenant, "actions/actions/act_1", "action_building", "action_failed")
    with pytest.raises(TenantRefusedError, match="no such package"):
        await actions.until_built(api, "act_1")
    replay(tenant, "actions/actions/act_1", "action_building")
    began = clock.boot()
    with pytest.raises(TenantUnreachableError, match="not built after 120 s"):
        await actions.until_built(api, "act_1")
    assert 120 <= clock.boot() - began < 130


async def test_factors_and_the_policy_are_read_and_set(
    tenant: RogueTenant, api: Management
) -> None:
    """The policy is a bare list; Always is what breaks Token Vault, Never is none."""
    replay(tenant, "guardian/factors", "factors")
    found = await objects.factors(api)
    assert {name: one["enabled"] for name, one in found.items()} == {
        "otp": True,
        "push-notification": False,
    }
    assert not any(one["trial_expired"] for one in found.values())
    over = [{"name": "sms", "enabled": True, "trial_expired": True}]
    tenant.script(BASE + "guardian/factors", Answer(over))
    assert (await objects.factors(api))["sms"]["trial_expired"] is True
    replay(tenant, "guardian/factors/otp", "factor_set")
    await objects.set_factor(api, "otp", enabled=True)
    assert last(tenant) == ("PUT", "guardian/factors/otp", {"enabled": True})
    replay(tenant, "guardian/policies", "policies")
    assert await objects.mfa_policies(api) == ("all-applications",)
    tenant.script(BASE + "guardian/policies", Answer([]))
    await objects.set_mfa_policies(api, ())
    assert last(tenant) == ("PUT", "guardian/policies", [])
    assert await objects.mfa_policies(api) == ()
    tenant.script(BASE + "guardian/policies", Answer({"policies": []}))
    with pytest.raises(TenantUnreachableError, match="no list"):
        await objects.mfa_policies(api)


async def test_the_tenants_settings_are_read_and_changed(
    tenant: RogueTenant, api: Management
) -> None:
    """User codes and Actions' factors are settings of the tenant."""
    replay(tenant, "tenants/settings", "settings")
    assert (await objects.settings(api))["device_flow"]["charset"] == "base20"
    await objects.change_settings(api, {"customize_mfa_in_postlogin_action": True})
    assert last(tenant)[0] == "PATCH"


async def test_logs_are_read_forward_from_the_newest_row(
    tenant: RogueTenant, api: Management
) -> None:
    """Start at the newest, go on by the link's row, and stay there when idle."""
    replay(tenant, "logs", "log_latest", "logs", "logs_none")
    start = await logs.latest(api)
    assert start.resume == "90020261118110640"
    page = await logs.after(api, start.resume, take=2)
    assert [row["type"] for row in page.rows] == ["seta", "feta"]
    assert tenant.requests[-1].query == {"from": start.resume, "take": "2"}
    idle = await logs.after(api, page.resume)
    assert (idle.rows, idle.resume) == ((), "90020261118110642")


@pytest.mark.parametrize("target", ["https://evil.test/api/v2/logs?from=a", "?from=a"])
async def test_log_links_are_not_followed(
    tenant: RogueTenant, api: Management, target: str
) -> None:
    """What an answer's header points to is not asked, and moves the place nowhere."""
    headers = {"Link": f"<{target}>; rel=next"}
    tenant.script(
        BASE + "logs", Answer([{"log_id": "a"}, {"_id": "b"}], headers=headers)
    )
    page = await logs.after(api, "0")
    assert page.resume == "b"
    assert [row["log_id"] for row in page.rows] == ["a", "b"]
    await logs.after(api, page.resume)
    assert tenant.requests[-1].headers["host"] in tenant.issuer
    assert tenant.requests[-1].query["from"] == "b"


async def test_a_log_page_is_cut_to_what_was_asked_for(
    tenant: RogueTenant, api: Management
) -> None:
    """A tenant that sends its whole log at once fills no queue; no row is skipped."""
    every = [{"log_id": f"{number:05}"} for number in range(5_000)]
    tenant.script(BASE + "logs", Answer(every))
    page = await logs.after(api, "0")
    assert len(page.rows) == logs.MOST
    assert page.resume == "00099"


async def test_an_empty_log_has_no_checkpoint(
    tenant: RogueTenant, api: Management
) -> None:
    """A new tenant's log gives no row; one without an id is rubbish."""
    tenant.script(BASE + "logs", Answer([]), Answer([{"type": "s"}]))
    assert await logs.latest(api) == logs.LogPage((), "")
    with pytest.raises(TenantUnreachableError, match="without its log_id"):
        await logs.after(api, "0")
