"""``/clients/{id}/credentials``: the public keys a client signs with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from agentvault_tui.clock import Clock, iso, parse_iso
from agentvault_tui.tenant.clients import Client, Clients
from agentvault_tui.tenant.credentials import ALGORITHMS, Credentials
from agentvault_tui.tenant.management.api import Answer, Call, Endpoint
from agentvault_tui.tenant.management.bodies import Check, checked, one_of, text
from agentvault_tui.tenant.management.problems import (
    ApiError,
    bad_body,
    no_client,
    not_found,
)
from agentvault_tui.tenant.objects import Document

_MOST: Final = 10


def _date(value: Any) -> str | None:
    try:
        parse_iso(value)
    except (ValueError, TypeError, OverflowError):
        return "Expected an RFC 3339 date"
    return None


KEY: Final[Mapping[str, Check]] = {
    "credential_type": one_of("public_key"),
    "name": text(128),
    "pem": text(8000),
    "alg": one_of(*ALGORITHMS),
    "expires_at": _date,
}


class CredentialCalls:
    """The calls about clients' keys."""

    def __init__(
        self, clients: Clients, credentials: Credentials, clock: Clock
    ) -> None:
        """Act on *credentials*."""
        self._clients = clients
        self._credentials = credentials
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        all_, one = "/clients/{id}/credentials", "/clients/{id}/credentials/{key}"
        return [
            Endpoint("GET", all_, ("read:client_credentials",),
                     "Get client credentials", self._list),
            Endpoint("POST", all_, ("create:client_credentials",),
                     "Create a client credential", self._add),
            Endpoint("GET", one, ("read:client_credentials",),
                     "Get client credential details", self._get),
            Endpoint("PATCH", one, ("update:client_credentials",),
                     "Update a client credential", self._change),
            Endpoint("DELETE", one, ("delete:client_credentials",),
                     "Delete a client credential", self._delete),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        client = self._client(call)
        return Answer(
            200, [shape(d) for d in self._credentials.of_client(client.client_id)]
        )

    def _add(self, call: Call) -> Answer:
        body = checked(call.body, KEY, "credential_type", "pem")
        return Answer(201, shape(_keep(self._credentials, self._client(call), body)))

    def _get(self, call: Call) -> Answer:
        return Answer(200, shape(self._found(call)))

    def _change(self, call: Call) -> Answer:
        body = checked(call.body, {"expires_at": _date}, "expires_at")
        doc = {**self._found(call), **body, "updated_at": iso(self._clock.now())}
        self._credentials.change(doc)
        return Answer(200, shape(doc))

    def _delete(self, call: Call) -> Answer:
        self._found(call)
        self._credentials.delete(call.path["id"], call.path["key"])
        return Answer(204)

    def _client(self, call: Call) -> Client:
        client = self._clients.find(call.path["id"])
        if client is None:
            raise no_client()
        if client.of_run:
            raise ApiError(403, "The broker's own clients have no keys.", "forbidden")
        return client

    def _found(self, call: Call) -> Document:
        client = self._client(call)
        doc = self._credentials.find(client.client_id, call.path["key"])
        if doc is None:
            raise not_found("The credential does not exist", "inexistent_credential")
        return doc


def keep_keys(
    credentials: Credentials, client: Client, listed: Iterable[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Return the ids of the keys *listed*, each named by its id or brought along."""
    kept = []
    for item in listed:
        if item.get("id") is None:
            kept.append({"id": _keep(credentials, client, item)["id"]})
        elif credentials.find(client.client_id, item["id"]) is None:
            raise bad_body("credentials", "Unknown credential id")
        else:
            kept.append({"id": item["id"]})
    return kept


def shape(doc: Document) -> Document:
    """Return a credential as the API shows it."""
    hidden = {"client_id", "pem"}
    return {name: value for name, value in doc.items()
            if name not in hidden and value is not None}  # fmt: skip


def _keep(
    credentials: Credentials, client: Client, body: Mapping[str, Any]
) -> Document:
    if len(credentials.of_client(client.client_id)) >= _MOST:
        raise ApiError(409, "The client has too many credentials.", "too_many_entities")
    if body.get("pem") is None:
        raise bad_body("pem", "Missing required property: pem")
    name = body.get("name") or ""
    alg, expires_at = body.get("alg") or "RS256", body.get("expires_at")
    return credentials.add(client.client_id, name, body["pem"], alg, expires_at)
