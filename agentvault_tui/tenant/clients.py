"""The tenant's clients: those that are configured, and the two of one broker's run."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agentvault_tui.model import new_id, new_secret, sha256_hex
from agentvault_tui.tenant.objects import Document, Objects
from agentvault_tui.tenant.store import Store

AUTHORIZATION_CODE: Final = "authorization_code"
CLIENT_CREDENTIALS: Final = "client_credentials"
REFRESH_TOKEN: Final = "refresh_token"  # noqa: S105 - a grant's name
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
TOKEN_VAULT: Final = (
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"  # noqa: S105 - a grant's name
)
PUBLIC: Final = "none"
"""The authentication method of a client that has none."""
DEFAULT_GRANTS: Final = (
    AUTHORIZATION_CODE, "implicit", REFRESH_TOKEN, CLIENT_CREDENTIALS
)  # fmt: skip
DEFAULT_REFRESH: Final[Document] = {
    "rotation_type": "non-rotating",
    "expiration_type": "non-expiring",
    "leeway": 0,
    "token_lifetime": 31_557_600,
    "infinite_token_lifetime": True,
    "infinite_idle_token_lifetime": True,
    "idle_token_lifetime": 2_592_000,
}


@dataclass(frozen=True, slots=True)
class RefreshRules:
    """How a client's refresh tokens live."""

    rotating: bool
    leeway: float
    lifetime: float | None
    idle: float | None
    policies: Mapping[str, tuple[str, ...]]
    """Further audiences its refresh tokens reach (MRRT), and with what scopes."""

    @classmethod
    def of(cls, doc: Mapping[str, Any]) -> RefreshRules:
        """Read ``refresh_token`` of a client."""
        rules = {**DEFAULT_REFRESH, **(doc.get("refresh_token") or {})}
        expiring = rules["expiration_type"] == "expiring"
        endless = rules["infinite_token_lifetime"] or not expiring
        tireless = rules["infinite_idle_token_lifetime"] or not expiring
        return cls(
            rules["rotation_type"] == "rotating",
            float(rules["leeway"]),
            None if endless else float(rules["token_lifetime"]),
            None if tireless else float(rules["idle_token_lifetime"]),
            {
                policy["audience"]: tuple(policy.get("scope") or ())
                for policy in rules.get("policies") or ()
            },
        )


@dataclass(frozen=True, slots=True)
class Client:
    """A client (RFC 6749 section 2), as the endpoints need it."""

    client_id: str = field(repr=False)
    doc: Document = field(repr=False)
    secret_hash: str | None = field(default=None, repr=False)
    of_run: bool = False
    """Made by the broker for one run, and so in no file: not even its id is."""
    machine_scopes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """For a client of the run: the audiences it may ask for itself."""

    @property
    def key(self) -> str:
        """Stands for the client in the store."""
        return sha256_hex(self.client_id)

    @property
    def name(self) -> str:
        """Its name; whoever made the client chose it."""
        return str(self.doc["name"])

    @property
    def log_name(self) -> tuple[str, str]:
        """Its id and name for the log."""
        return (f"run_{self.key[:16]}" if self.of_run else self.client_id), self.name

    @property
    def grants(self) -> frozenset[str]:
        """The grants it may use."""
        return frozenset(self.doc["grant_types"])

    @property
    def app_type(self) -> str:
        """``native``, ``spa``, ``regular_web``, ``non_interactive``, …."""
        return str(self.doc["app_type"])

    @property
    def confidential(self) -> bool:
        """Whether it authenticates (RFC 6749 section 2.1)."""
        return bool(self.doc["token_endpoint_auth_method"] != PUBLIC)

    @property
    def first_party(self) -> bool:
        """Whether the tenant's owner made it."""
        return bool(self.doc["is_first_party"])

    @property
    def oidc_conformant(self) -> bool:
        """Whether it has Auth0's newer pipeline, which most grants need."""
        return bool(self.doc["oidc_conformant"])

    @property
    def callbacks(self) -> tuple[str, ...]:
        """Where a person may be sent back to."""
        return tuple(self.doc.get("callbacks") or ())

    @property
    def linked_api(self) -> str | None:
        """The API whose access tokens a Custom API Client may exchange."""
        return self.doc.get("resource_server_identifier")

    @property
    def refresh(self) -> RefreshRules:
        """How its refresh tokens live."""
        return RefreshRules.of(self.doc)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The credentials it may sign assertions with."""
        methods = self.doc.get("client_authentication_methods") or {}
        listed = (methods.get("private_key_jwt") or {}).get("credentials") or ()
        return tuple(item["id"] for item in listed)

    @property
    def id_token_lifetime(self) -> int:
        """Seconds its ID tokens live."""
        settings = self.doc.get("jwt_configuration") or {}
        return int(settings.get("lifetime_in_seconds", 36_000))

    @property
    def device_flow(self) -> bool:
        """Whether Auth0's preconditions of the device flow hold."""
        return (
            DEVICE_CODE in self.grants
            and self.app_type == "native"
            and not self.confidential
            and self.oidc_conformant
        )

    @property
    def token_vault(self) -> bool:
        """Whether Auth0's preconditions of the Token Vault exchange hold."""
        return (
            TOKEN_VAULT in self.grants
            and self.first_party
            and self.confidential
            and self.oidc_conformant
        )


def log_name(client: Client | None) -> tuple[str | None, str | None]:
    """Return id and name for the log, of a client that may be unknown."""
    return (None, None) if client is None else client.log_name


def console_client(client_id: str) -> Client:
    """Return the console's client of this run: native, public, the device flow alone.

    A public client has no secret (RFC 6749 section 2.1): what a process that knows
    the id can start is an assertion about a person, and the broker accepts one only
    for a code that it asked for itself.
    """
    doc = _document("AgentVault Console", "native", (DEVICE_CODE,), PUBLIC)
    doc["jwt_configuration"] = {"alg": "RS256", "lifetime_in_seconds": 300}
    return Client(client_id, doc, of_run=True)


def management_client(
    client_id: str, client_secret: str, audience: str, scopes: Iterable[str]
) -> Client:
    """Return the client with which the broker of this run manages the tenant."""
    method = "client_secret_post"
    doc = _document(
        "AgentVault broker (built in)", "non_interactive", (CLIENT_CREDENTIALS,), method
    )
    return Client(
        client_id,
        doc,
        sha256_hex(client_secret),
        of_run=True,
        machine_scopes={audience: frozenset(scopes)},
    )


def _document(
    name: str, app_type: str, grants: tuple[str, ...], method: str
) -> Document:
    return {
        "name": name,
        "app_type": app_type,
        "grant_types": list(grants),
        "token_endpoint_auth_method": method,
        "is_first_party": True,
        "oidc_conformant": True,
    }


class Clients:
    """Finds clients by id, and keeps those that are configured."""

    def __init__(self, store: Store, of_run: Iterable[Client] = ()) -> None:
        """Know the clients *of_run* besides those in *store*."""
        self._store = store
        self._of_run = tuple(of_run)
        self._objects = Objects(store, "client")

    def find(self, client_id: str) -> Client | None:
        """Return the client of that id."""
        key = sha256_hex(client_id)
        for client in self._of_run:
            if hmac.compare_digest(client.key, key):
                return client
        doc = self._objects.get(client_id)
        if doc is None:
            return None
        row = self._store.one(
            "SELECT secret_hash FROM client_secrets WHERE client_id = ?", client_id
        )
        return Client(client_id, doc, None if row is None else row["secret_hash"])

    def by_key(self, key: str) -> Client | None:
        """Return the client that *key* stands for in the store."""
        for client in self._of_run:
            if client.key == key:
                return client
        for doc in self._objects.all():
            if sha256_hex(doc["client_id"]) == key:
                return self.find(doc["client_id"])
        return None

    def masked(self, text: str) -> str:
        """Return *text* with the log's names for the ids that no file may hold."""
        for client in self._of_run:
            text = text.replace(client.client_id, client.log_name[0])
        return text

    def all(self) -> list[Client]:
        """Return every client, those of the run first."""
        kept = [self.find(doc["client_id"]) for doc in self._objects.all()]
        return [*self._of_run, *(client for client in kept if client is not None)]

    def add(self, doc: Document) -> tuple[Client, str | None]:
        """Keep a new client; return it, and its secret if it is to have one."""
        client_id = new_id("app")
        doc = {**doc, "client_id": client_id}
        self._objects.add(client_id, client_id, doc)
        # "none" is a public client, and a null one that signs assertions.
        keyless = doc["token_endpoint_auth_method"] in {None, PUBLIC}
        secret = None if keyless else self._renew(client_id)
        found = self.find(client_id)
        assert found is not None  # noqa: S101 - it was just added
        return found, secret

    def change(self, client: Client, doc: Document) -> Client:
        """Put *doc* in the place of what a configured client was."""
        self._objects.replace(client.client_id, doc)
        return self.find(client.client_id) or client

    def rotate_secret(self, client: Client) -> str:
        """Give a client a new secret; the old one ends at once."""
        return self._renew(client.client_id)

    def delete(self, client: Client) -> None:
        """Forget a client and its secret."""
        self._objects.delete(client.client_id)
        self._store.change(
            "DELETE FROM client_secrets WHERE client_id = ?", client.client_id
        )

    def _renew(self, client_id: str) -> str:
        secret = new_secret("av_c")
        self._store.change(
            "INSERT OR REPLACE INTO client_secrets VALUES (?, ?)",
            client_id,
            sha256_hex(secret),
        )
        return secret
