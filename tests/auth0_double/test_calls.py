"""What only Auth0 has: users, connections, APIs, Actions, roles and settings."""

from __future__ import annotations

from typing import Any

import pytest
from support.tenant_admin import DATABASE, PASSWORD, VAULT, Admin


def test_a_client_made_over_the_api_has_the_recorded_defaults(admin: Admin) -> None:
    """201, not OIDC-conformant, four grants, refresh tokens that never end."""
    made = admin.made("clients", {"name": "plain"})
    assert made["oidc_conformant"] is False
    assert made["is_first_party"] is True
    assert made["grant_types"] == [
        "authorization_code", "implicit", "refresh_token", "client_credentials"
    ]  # fmt: skip
    assert made["refresh_token"] == {
        "rotation_type": "non-rotating",
        "expiration_type": "non-expiring",
        "leeway": 0,
        "token_lifetime": 31_557_600,
        "infinite_token_lifetime": True,
        "infinite_idle_token_lifetime": True,
        "idle_token_lifetime": 2_592_000,
    }
    path = f"clients/{made['client_id']}"
    shown = admin.call("GET", path).json()
    assert shown == {n: v for n, v in made.items() if n != "client_secret"}
    changed = admin.call(
        "PATCH", path,
        {"description": "d", "refresh_token": {"leeway": 5}, "callbacks": None},
    )  # fmt: skip
    assert (changed.status_code, changed.json()["description"]) == (200, "d")
    assert changed.json()["refresh_token"]["token_lifetime"] == 31_557_600
    assert changed.json()["refresh_token"]["leeway"] == 5


def test_the_runs_clients_are_seen_and_not_changed(admin: Admin) -> None:
    """The broker's own two are listed; only a new run changes them."""
    listed = admin.call("GET", "clients", fields="name,client_id").json()
    own = {admin.tenant.run.client_id, admin.tenant.run.management_id}
    assert own <= {client["client_id"] for client in listed}
    assert all(set(client) <= {"name", "client_id"} for client in listed)
    for client_id in own:
        path = f"clients/{client_id}"
        assert admin.call("PATCH", path, {"name": "x"}).status_code == 403
        assert admin.call("POST", f"{path}/rotate-secret").status_code == 403
        assert admin.call("DELETE", path).status_code == 204
        assert admin.call("GET", path).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"grant_types": "x"},
        {"grant_types": ["a", "a"]},
        {"app_type": "toaster"},
        {"token_endpoint_auth_method": "tls_client_auth"},
        {"is_first_party": "yes"},
        {"refresh_token": {"rotation_type": "sometimes"}},
        {"refresh_token": {"token_lifetime": 0}},
        {"refresh_token": {"policies": [{"audience": "x"}]}},
        {"jwt_configuration": {"alg": "HS256"}},
        {"callbacks": [7]},
        {"name": "x" * 129},
        {"name": "a\0b"},
    ],
    ids=str,
)
def test_bad_members_of_a_client_are_refused(
    admin: Admin, body: dict[str, Any]
) -> None:
    """400 with the member's name; nothing half-made is left."""
    before = len(admin.call("GET", "clients", per_page=100).json())
    answer = admin.call("POST", "clients", {"name": "x", **body})
    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "invalid_body"
    assert len(admin.call("GET", "clients", per_page=100).json()) == before


def test_users_are_made_found_and_changed(admin: Admin) -> None:
    """201, by name, by e-mail and by search; metadata merges at its first level."""
    body = {
        "connection": DATABASE,
        "email": "vault-1@acme.test",
        "password": PASSWORD,
        "app_metadata": {"agent": "agt_1", "old": 1},
    }
    user = admin.made("users", body)
    assert user["email_verified"] is False
    assert user["identities"][0]["connection"] == DATABASE
    assert "password" not in str(user)
    again = admin.call("POST", "users", body)
    assert (again.status_code, again.json()["errorCode"]) == (409, "user_exists")
    by_email = admin.call("GET", "users-by-email", email="Vault-1@acme.test").json()
    found = admin.call("GET", "users", q='email:"vault-1@acme.test"').json()
    assert by_email == found == [user]
    totals = admin.call("GET", "users", include_totals="true", per_page=1).json()
    assert set(totals) == {"start", "limit", "length", "total", "users"}
    path = f"users/{user['user_id'].replace('|', '%7C')}"
    changed = admin.call(
        "PATCH", path, {"app_metadata": {"new": 2, "old": None}, "name": "Bot"}
    ).json()
    assert changed["app_metadata"] == {"agent": "agt_1", "new": 2}
    assert changed["name"] == "Bot"
    assert admin.call("GET", "users", q="broken").status_code == 400


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"password": "short"}, "invalid_body"),
        ({"connection": "google-oauth2"}, "invalid_body"),
        ({"username": "<b>"}, "invalid_body"),
        ({"username": ""}, "invalid_body"),
        ({"username": None}, "invalid_body"),
        ({"password": None}, "invalid_body"),
        ({"app_metadata": {"x": "y" * 16_001}}, "invalid_body"),
        ({"app_metadata": []}, "invalid_body"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_users_are_refused(admin: Admin, body: dict[str, Any], code: str) -> None:
    """A weak password, another connection, a name that is none: 400."""
    base = {"connection": DATABASE, "username": "fresh", "password": PASSWORD}
    answer = admin.call("POST", "users", {**base, **body})
    assert (answer.status_code, answer.json()["errorCode"]) == (400, code)


def test_an_email_set_by_the_api_is_not_verified(admin: Admin) -> None:
    """Approvers may be named by e-mail: no client makes one for itself unsaid."""
    users = [admin.made("users", {"connection": DATABASE, "password": PASSWORD,
                                  "email": f"{n}@acme.test", **said})
             for n, said in enumerate(({}, {"email_verified": True}))]  # fmt: skip
    assert [user["email_verified"] for user in users] == [False, True]


def test_connections_are_made_and_enabled(admin: Admin) -> None:
    """201, 409 for a name twice, 204 for enabling; a client that is none is 404."""
    body = {
        "name": "google-oauth2",
        "strategy": "google-oauth2",
        "connected_accounts": {"active": True},
    }
    made = admin.made("connections", body)
    assert admin.call("POST", "connections", body).status_code == 409
    client = admin.made("clients", {"name": "c", "grant_types": [VAULT]})
    path = f"connections/{made['id']}/clients"
    wanted = [{"client_id": client["client_id"], "status": True}]
    for _ in range(2):
        answer = admin.call("PATCH", path, wanted)
        assert (answer.status_code, answer.content) == (204, b"")
    assert admin.call("GET", path).json() == {
        "clients": [{"client_id": client["client_id"]}]
    }
    unknown = [{"client_id": "app_none", "status": True}]
    assert admin.call("PATCH", path, unknown).status_code == 404
    # Cutting off must work whatever became of the client.
    unknown[0]["status"] = False
    assert admin.call("PATCH", path, unknown).status_code == 204
    for bad in ([], {}, [{"client_id": "x"}], [{"client_id": "x", "status": "no"}]):
        assert admin.call("PATCH", path, bad).status_code == 400
    changed = admin.call(
        "PATCH", f"connections/{made['id']}", {"options": {"token_lifetime": 60}}
    ).json()
    assert changed["options"] == {"token_lifetime": 60}
    assert changed["connected_accounts"] == {"active": True}
    assert admin.call("DELETE", f"connections/{made['id']}").status_code == 204
    for name in ("a b", "<b>", "-x"):
        bad_name = {"name": name, "strategy": "oauth2"}
        assert admin.call("POST", "connections", bad_name).status_code == 400


def test_resource_servers_by_id_and_by_identifier(admin: Admin) -> None:
    """The recorded answer; found by either name, where a slash at the end counts."""
    made = admin.made("resource-servers", {"identifier": "https://rs.test/"})
    assert made == {
        "id": made["id"],
        "name": "https://rs.test/",
        "identifier": "https://rs.test/",
        "allow_offline_access": False,
        "token_lifetime": 86_400,
        "signing_alg": "RS256",
        "subject_type_authorization": {
            "user": {"policy": "allow_all"},
            "client": {"policy": "require_client_grant"},
        },
    }
    encoded = "resource-servers/https%3A%2F%2Frs.test%2F"
    assert admin.call("GET", encoded).json() == made
    assert admin.call("GET", encoded.removesuffix("%2F")).status_code == 404
    again = admin.call("POST", "resource-servers", {"identifier": "https://rs.test/"})
    assert (again.status_code, again.json()["errorCode"]) == (
        409, "resource_server_conflict"
    )  # fmt: skip
    changed = admin.call(
        "PATCH", encoded,
        {"token_lifetime": 300, "subject_type_authorization":
         {"user": {"policy": "deny_all"}}},
    ).json()  # fmt: skip
    assert changed["token_lifetime"] == 300
    assert changed["subject_type_authorization"] == {
        "user": {"policy": "deny_all"},
        "client": {"policy": "require_client_grant"},
    }
    for bad in (
        {"token_lifetime": 0},
        {"token_lifetime": 2_592_001},
        {"scopes": [{"value": "a"}, {"value": "a"}]},
        {"scopes": [{"value": "a b"}]},
        {"signing_alg": "HS256"},
        {"token_dialect": "x"},
    ):
        assert admin.call("PATCH", encoded, bad).status_code == 400, bad
    for _ in range(2):
        assert admin.call("DELETE", encoded).status_code == 204


def test_the_tenants_own_apis_cannot_be_changed(admin: Admin) -> None:
    """Both are listed as system APIs, and refuse to be changed."""
    own = [api for api in admin.call("GET", "resource-servers").json()
           if api.get("is_system")]  # fmt: skip
    assert [api["identifier"] for api in own] == [
        f"{admin.tenant.issuer}api/v2/", f"{admin.tenant.issuer}me/"
    ]  # fmt: skip
    for api in own:
        path = f"resource-servers/{api['id']}"
        assert admin.call("PATCH", path, {"token_lifetime": 5}).status_code == 403
        assert admin.call("DELETE", path).status_code == 403


def test_client_grants_are_made_once_and_deleted(admin: Admin) -> None:
    """201, once for a client, API and subject; only scopes the API has; 204."""
    client = admin.made("clients", {"name": "g"})["client_id"]
    api = admin.made(
        "resource-servers",
        {"identifier": "https://cg.test/", "scopes": [{"value": "a"}]},
    )["identifier"]
    body = {"client_id": client, "audience": api, "scope": ["a"]}
    made = admin.made("client-grants", body)
    assert made == {**body, "id": made["id"], "subject_type": "client"}
    assert made["id"].startswith("cgr_")
    assert admin.call("POST", "client-grants", body).status_code == 409
    admin.made("client-grants", {**body, "subject_type": "user"})
    found = admin.call("GET", "client-grants", client_id=client).json()
    assert [grant["subject_type"] for grant in found] == ["client", "user"]
    path = f"client-grants/{made['id']}"
    emptied = admin.call("PATCH", path, {"scope": []})
    assert (emptied.status_code, emptied.json()["scope"]) == (200, [])
    assert admin.call("PATCH", path, {"scope": ["b"]}).status_code == 400
    for bad, status in (
        ({"client_id": "app_none"}, 404),
        ({"audience": "https://none.test/"}, 404),
        ({"audience": f"{admin.tenant.issuer}me/"}, 400),
        ({"subject_type": "robot"}, 400),
        ({"client_id": admin.tenant.run.client_id}, 403),
    ):
        assert admin.call("POST", "client-grants", {**body, **bad}).status_code == (
            status
        )
    for _ in range(2):
        assert admin.call("DELETE", path).status_code == 204


def action(admin: Admin, name: str, **members: Any) -> dict[str, Any]:
    body = {
        "name": name,
        "supported_triggers": [{"id": "post-login", "version": "v3"}],
        "code": "exports.onExecutePostLogin = async () => {};",
        "secrets": [{"name": "KEY", "value": "s3cr3t-value"}],
        **members,
    }
    return admin.made("actions/actions", body)


def test_actions_are_built_deployed_and_bound(admin: Admin) -> None:
    """pending, building, built; deployed with 200; bound as a whole ordered list."""
    first = action(admin, "force-mfa")
    assert (first["status"], first["all_changes_deployed"]) == ("pending", False)
    assert first["runtime"] == "node22"
    path = f"actions/actions/{first['id']}"
    early = admin.call("POST", f"{path}/deploy")
    # The words Auth0's own deploy CLI waits by.
    assert "must be in the 'built' state" in early.json()["message"]
    assert early.status_code == 400
    admin.tenant.clock.advance(0.6)
    assert admin.call("GET", path).json()["status"] == "building"
    admin.tenant.clock.advance(0.6)
    assert admin.call("GET", path).json()["status"] == "built"
    bindings = "actions/triggers/post-login/bindings"
    wanted = {"ref": {"type": "action_name", "value": "force-mfa"}}
    assert admin.call("PATCH", bindings, {"bindings": [wanted]}).status_code == 400
    deployed = admin.call("POST", f"{path}/deploy")
    assert deployed.status_code == 200
    assert deployed.json()["number"] == 1
    assert deployed.json()["deployed"] is False
    assert admin.call("GET", path).json()["all_changes_deployed"] is True
    second = action(admin, "stamp-mfa", deploy=True)
    admin.tenant.clock.advance(2)
    by_id = {"ref": {"type": "action_id", "value": second["id"]}, "display_name": "S"}
    bound = admin.call("PATCH", bindings, {"bindings": [wanted, by_id]})
    assert bound.status_code == 200
    names = [one["action"]["name"] for one in bound.json()["bindings"]]
    assert names == ["force-mfa", "stamp-mfa"]
    again = admin.call("PATCH", bindings, {"bindings": [by_id, wanted]}).json()
    assert [one["action"]["name"] for one in again["bindings"]] == names[::-1]
    ids = {one["id"] for one in bound.json()["bindings"]}
    assert not ids & {one["id"] for one in again["bindings"]}
    listed = admin.call("GET", bindings).json()
    assert (listed["total"], listed["bindings"]) == (2, again["bindings"])
    assert admin.call("DELETE", path).status_code == 409
    assert admin.call("DELETE", path, force="true").status_code == 204
    assert admin.call("GET", bindings).json()["total"] == 1
    assert admin.call("PATCH", bindings, {"bindings": []}).json() == {"bindings": []}
    assert "s3cr3t-value" not in str(admin.call("GET", "actions/actions").json())
    held = b"".join(f.read_bytes() for f in admin.tenant.home.tenant.iterdir())
    assert b"s3cr3t-value" not in held


def test_bad_actions_are_refused(admin: Admin) -> None:
    """Code over 100 kB, an unknown trigger, a name twice, thirty-one secrets."""
    made = action(admin, "checked")
    triggers = [{"id": "post-login"}]
    base = {"name": "other", "supported_triggers": triggers}
    assert admin.call("POST", "actions/actions", {**base, "name": "checked"}
                      ).status_code == 409  # fmt: skip
    action(admin, "long", code="x" * 100_000)
    for bad in (
        {"code": "x" * 100_001},
        {"supported_triggers": [{"id": "post-nothing"}]},
        {"supported_triggers": []},
        {"runtime": "node12"},
        {"secrets": [{"name": str(n), "value": "v"} for n in range(31)]},
        {"dependencies": [{"name": str(n)} for n in range(11)]},
    ):
        assert admin.call("POST", "actions/actions", {**base, **bad}).status_code == 400
    changed = admin.call("PATCH", f"actions/actions/{made['id']}", {"code": "y"})
    assert changed.json()["status"] == "pending"
    assert admin.call("GET", "actions/triggers/none/bindings").status_code == 404
    known = admin.call("GET", "actions/triggers").json()["triggers"]
    assert "post-login" in {trigger["id"] for trigger in known}


def test_a_roles_permissions_are_added_and_removed(admin: Admin) -> None:
    """Named ones are given once and taken away; what it has not got is no fault."""
    role = admin.call("POST", "roles", {"name": "payer"}).json()
    path = f"roles/{role['id']}/permissions"
    one, two = (
        {"resource_server_identifier": "https://pay.test/", "permission_name": name}
        for name in ("read:x", "write:x")
    )
    for _ in range(2):
        given = admin.call("POST", path, {"permissions": [one, two]})
        assert (given.status_code, given.json()) == (201, {})
    assert admin.call("GET", path).json() == [one, two]
    for _ in range(2):
        gone = admin.call("DELETE", path, {"permissions": [one]})
        assert (gone.status_code, gone.content) == (204, b"")
    assert admin.call("GET", path).json() == [two]
    assert admin.call("DELETE", path, {}).status_code == 400


def test_settings_factors_and_policies(admin: Admin) -> None:
    """200 each; a null goes back to the default; unknown factors are 404."""
    flow = {"device_flow": {"charset": "digits", "mask": "***-***-***"}}
    changed = admin.call("PATCH", "tenants/settings", flow)
    assert (changed.status_code, changed.json()["device_flow"]) == (
        200, flow["device_flow"]
    )  # fmt: skip
    back = admin.call("PATCH", "tenants/settings", {"device_flow": None}).json()
    assert back["device_flow"] == {"charset": "base20", "mask": "****-****"}
    factors = admin.call("GET", "guardian/factors").json()
    assert {f["name"]: f["enabled"] for f in factors}["otp"] is True
    on = admin.call("PUT", "guardian/factors/webauthn-roaming", {"enabled": True})
    assert (on.status_code, on.json()) == (200, {"enabled": True})
    assert admin.call("PUT", "guardian/factors/x", {"enabled": True}).status_code == 404
    for bad in ({}, ["sometimes"], ["all-applications", "confidence-score"]):
        assert admin.call("PUT", "guardian/policies", bad).status_code == 400
    assert admin.call("GET", "guardian/policies").json() == []


def test_a_new_application_gets_every_connection_unless_that_is_off(
    admin: Admin,
) -> None:
    """As at Auth0, where the switch is on until someone sets it off; old ones stay."""

    def connections_of(client: dict[str, Any]) -> list[str]:
        path = f"clients/{client['client_id']}/connections"
        found = admin.call("GET", path, fields="id,name", include_fields="true").json()
        return [one["name"] for one in found["connections"]]

    every = [one["name"] for one in admin.call("GET", "connections").json()]
    assert len(every) > 1
    before = admin.client()
    assert connections_of(before) == every
    flags = admin.call("GET", "tenants/settings").json()["flags"]
    assert flags["enable_client_connections"] is True
    off = {"flags": {"enable_client_connections": False}}
    changed = admin.call("PATCH", "tenants/settings", off).json()["flags"]
    assert changed == {**flags, "enable_client_connections": False}
    try:
        assert connections_of(admin.client()) == []
        assert connections_of(before) == every
    finally:
        on = {"flags": {"enable_client_connections": None}}
        admin.call("PATCH", "tenants/settings", on)
    assert admin.call("GET", "tenants/settings").json()["flags"] == flags
    assert admin.call("GET", "clients/nobody/connections").status_code == 404


def test_people_sign_in_on_universal_login(admin: Admin) -> None:
    """The pages are the new ones, on which an Action can ask for a factor."""
    found = admin.call("GET", "prompts").json()
    assert found["universal_login_experience"] == "new"
