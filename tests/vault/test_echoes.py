"""What was sent in confidence does not come back out of an error."""

from __future__ import annotations

import traceback
from urllib.parse import quote

import pytest
from support.rogue_tenant import TOKEN, Answer, Request, RogueTenant

from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.vault import Secret, Tenant
from agentvault_tui.vault.provider import (
    Endpoints,
    ProviderClient,
    RevocationPending,
    RevocationRefused,
)

SECRET = "ya29.a0/b+c=="


async def test_a_token_quoted_by_a_provider_is_redacted(
    tenant: RogueTenant,
) -> None:
    """Neither its error code nor bytes that are no HTTP carry it into the audit."""
    provider = ProviderClient(Endpoints(f"{tenant.issuer}revoke"), "workspace")
    tenant.script(
        "/revoke",
        lambda asked: Answer({"error": asked.form["token"]}, 400),
        lambda asked: Answer({"error": asked.form["token"]}, 200),
        lambda asked: Answer(raw=f"HTTP/9 {asked.form['token']}\r\n\r\n".encode()),
    )
    refused = await provider.revoke(Secret(SECRET))
    assert isinstance(refused, RevocationRefused)
    accepted = await provider.revoke(Secret(SECRET))
    broken = await provider.revoke(Secret(SECRET))
    assert isinstance(broken, RevocationPending)
    for said in (refused, accepted, broken):
        assert SECRET not in str(said)
    assert "hidden" in refused.problem
    assert "hidden" in broken.problem
    await provider.aclose()


@pytest.mark.parametrize("member", ["refresh_token", "client_secret", "bearer"])
async def test_each_kind_of_secret_is_redacted_from_a_refusal(
    tenant: RogueTenant, wired: Tenant, member: str
) -> None:
    """As it is, escaped as JSON has it, in an address, in a name, and in a list."""

    def quotes(asked: Request) -> Answer:
        sent = asked.headers.get("authorization", "").removeprefix("Bearer ")
        sent = asked.form.get(member, sent)
        said = {"error": "x", "list": [{sent: sent}], "uri": f"?t={quote(sent, '')}"}
        return Answer(said, 401)

    tenant.script(TOKEN, quotes)
    url, bearer = f"{tenant.issuer}oauth/token", member == "bearer"
    reply = await wired.send(
        "POST",
        url,
        form=None if bearer else {"grant_type": "refresh_token", member: SECRET},
        bearer=Secret(SECRET) if bearer else None,
    )
    assert reply.error == "x"
    assert "hidden" in str(reply.value)
    assert SECRET not in str(reply.value)
    assert quote(SECRET, "") not in str(reply.value)


async def test_a_success_keeps_the_refresh_token_it_repeats(
    tenant: RogueTenant, wired: Tenant
) -> None:
    """RFC 6749 section 6: the same one again is the one to keep."""
    tenant.script(TOKEN, lambda asked: Answer(asked.form))
    url = f"{tenant.issuer}oauth/token"
    reply = await wired.send("POST", url, form={"refresh_token": SECRET})
    assert reply.json()["refresh_token"] == SECRET


async def test_a_traceback_of_an_outage_does_not_quote_the_tenant(
    tenant: RogueTenant, wired: Tenant
) -> None:
    """Logs have tracebacks: what httpx could not read is in none."""
    tenant.script(
        TOKEN, lambda asked: Answer(raw=f"{asked.form['code']}\r\n\r\n".encode())
    )
    url = f"{tenant.issuer}oauth/token"
    with pytest.raises(TenantUnreachableError) as caught:
        await wired.send("POST", url, form={"code": SECRET})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
