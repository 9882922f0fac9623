"""Applications, their secrets and keys (``/clients``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui.vault.api import Api, Query
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import delete as delete_at
from agentvault_tui.vault.management.rows import text, without_secrets
from agentvault_tui.vault.reply import Json
from agentvault_tui.vault.secret import Secret

_HIDDEN: Final[Query] = {
    "fields": "client_secret,signing_keys",
    "include_fields": False,
}
"""Not even sent to us: nobody reads a secret by looking at a client."""


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client just made, with its secret, which is shown this once."""

    client: Json
    secret: Secret | None


async def every(api: Api) -> AsyncIterator[Json]:
    """Yield all clients. Scope ``read:clients``."""
    rows = api.by_page(
        "clients",
        "clients",
        query=_HIDDEN,
        what="list its clients",
        scope="read:clients",
    )
    async for row in rows:
        yield without_secrets(row)


async def get(api: Api, client_id: str) -> Json:
    """Return a client. Scope ``read:clients``.

    Raises:
        TenantNotFoundError: there is none.
    """
    reply = await api.request(
        "GET",
        path("clients", client_id),
        query=_HIDDEN,
        what="show the client",
        scope="read:clients",
    )
    return without_secrets(reply.json())


async def create(api: Api, settings: Mapping[str, Any]) -> NewClient:
    """Make a client (201). Scope ``create:clients``.

    Set ``oidc_conformant`` yourself: Auth0's default here is false.
    """
    reply = await api.request(
        "POST",
        "clients",
        body=dict(settings),
        expect=(201,),
        what="make a client",
        scope="create:clients",
    )
    made = reply.json()
    text(made, "client_id")
    secret = made.get("client_secret")
    return NewClient(
        without_secrets(made), Secret(secret) if isinstance(secret, str) else None
    )


async def patch(api: Api, client_id: str, changes: Mapping[str, Any]) -> Json:
    """Change settings of a client (200). Scope ``update:clients``.

    ``{"grant_types": [...]}`` without Token Vault's stops the client's exchanges.
    """
    reply = await api.request(
        "PATCH",
        path("clients", client_id),
        body=dict(changes),
        what="change the client",
        scope="update:clients",
    )
    return without_secrets(reply.json())


async def rotate_secret(api: Api, client_id: str) -> Secret:
    """Give a client a new secret (200); the old one is dead. ``update:client_keys``.

    Sent again when its answer was lost: only so is the new secret known.

    Raises:
        TenantRefusedError: the client has a key and no secret.
    """
    reply = await api.request(
        "POST",
        path("clients", client_id, "rotate-secret"),
        what="rotate the client's secret",
        scope="update:client_keys",
        repeatable=True,
    )
    return Secret(text(reply.json(), "client_secret"))


async def delete(api: Api, client_id: str) -> bool:
    """Delete a client for good (204); was it there? Scope ``delete:clients``."""
    return await delete_at(
        api,
        path("clients", client_id),
        what="delete the client",
        scope="delete:clients",
    )


async def credentials(api: Api, client_id: str) -> list[Json]:
    """Return the public keys of a client. Scope ``read:client_credentials``."""
    reply = await api.request(
        "GET",
        path("clients", client_id, "credentials"),
        what="list the client's keys",
        scope="read:client_credentials",
    )
    return reply.rows()


async def add_credential(
    api: Api, client_id: str, *, name: str, pem: str, alg: str = "RS256"
) -> Json:
    """Give a client a public key (201). Scope ``create:client_credentials``."""
    reply = await api.request(
        "POST",
        path("clients", client_id, "credentials"),
        body={"credential_type": "public_key", "name": name, "pem": pem, "alg": alg},
        expect=(201,),
        what="add a key to the client",
        scope="create:client_credentials",
    )
    return reply.json()


async def delete_credential(api: Api, client_id: str, credential_id: str) -> bool:
    """Take a key from a client (204). Scope ``delete:client_credentials``."""
    return await delete_at(
        api,
        path("clients", client_id, "credentials", credential_id),
        what="delete the client's key",
        scope="delete:client_credentials",
    )
