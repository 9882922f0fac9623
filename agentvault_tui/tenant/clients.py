"""OAuth clients: stored, found, and authenticated."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_plus

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import new_id, new_secret, sha256_hex
from agentvault_tui.tenant.store import Document, Objects, Store

AUTHORIZATION_CODE: Final = "authorization_code"
CLIENT_CREDENTIALS: Final = "client_credentials"
REFRESH_TOKEN: Final = "refresh_token"  # noqa: S105 - a grant's name
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
TOKEN_VAULT: Final = (
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"  # noqa: S105 - a grant's name
)
_NONE: Final = sha256_hex("")
PUBLIC: Final = "none"
"""The authentication method of a client that has none."""
_OURS: Final = {"is_first_party": True, "oidc_conformant": True}


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
        """SHA-256 of its id, by which the store knows it."""
        return sha256_hex(self.client_id)

    @property
    def name(self) -> str:
        return str(self.doc["name"])

    @property
    def log_name(self) -> str:
        """Its id as the log has it: that of the run's clients is in no file."""
        return f"run_{self.key[:16]}" if self.of_run else self.client_id

    @property
    def grants(self) -> frozenset[str]:
        return frozenset(self.doc["grant_types"])

    @property
    def confidential(self) -> bool:
        """Whether it authenticates (RFC 6749 section 2.1)."""
        return bool(self.doc["token_endpoint_auth_method"] != PUBLIC)

    @property
    def callbacks(self) -> tuple[str, ...]:
        return tuple(self.doc.get("callbacks") or ())

    @property
    def refresh_policies(self) -> dict[str, tuple[str, ...]]:
        """Further audiences of its refresh tokens, each with the scopes."""
        rules = self.doc.get("refresh_token") or {}
        return {
            policy["audience"]: tuple(policy.get("scope") or ())
            for policy in rules.get("policies") or ()
        }

    @property
    def id_token_lifetime(self) -> int:
        settings = self.doc.get("jwt_configuration") or {}
        return int(settings.get("lifetime_in_seconds", 36_000))

    @property
    def device_flow(self) -> bool:
        """Whether Auth0's preconditions of the device flow hold."""
        return (
            DEVICE_CODE in self.grants
            and self.doc["app_type"] == "native"
            and not self.confidential
            and bool(self.doc["oidc_conformant"])
        )

    @property
    def token_vault(self) -> bool:
        """Whether Auth0's preconditions of the Token Vault exchange hold."""
        return (
            TOKEN_VAULT in self.grants
            and bool(self.doc["is_first_party"])
            and self.confidential
            and bool(self.doc["oidc_conformant"])
        )


def console_client(client_id: str) -> Client:
    """Return the console's client of this run: native, public, the device flow alone.

    A public client has no secret (RFC 6749 section 2.1): a process that knows the id
    can only start an assertion about a person, and the broker accepts one only for a
    code that it asked for itself.
    """
    doc = {
        **_OURS,
        "name": "AgentVault Console",
        "app_type": "native",
        "grant_types": [DEVICE_CODE],
        "token_endpoint_auth_method": PUBLIC,
        "jwt_configuration": {"alg": "RS256", "lifetime_in_seconds": 300},
    }
    return Client(client_id, doc, of_run=True)


def management_client(
    client_id: str, client_secret: str, audience: str, scopes: Iterable[str]
) -> Client:
    """Return the client with which the broker of this run manages the tenant."""
    doc = {
        **_OURS,
        "name": "AgentVault broker (built in)",
        "app_type": "non_interactive",
        "grant_types": [CLIENT_CREDENTIALS],
        "token_endpoint_auth_method": "client_secret_post",
    }
    reach = {audience: frozenset(scopes)}
    secret = sha256_hex(client_secret)
    return Client(client_id, doc, secret, of_run=True, machine_scopes=reach)


class Clients:
    """Finds clients by id, and keeps those that are configured."""

    def __init__(self, store: Store, of_run: Iterable[Client] = ()) -> None:
        self._store = store
        self._of_run = tuple(of_run)
        self.objects = Objects(store, "client")

    def find(self, client_id: str) -> Client | None:
        key = sha256_hex(client_id)
        for client in self._of_run:
            if hmac.compare_digest(client.key, key):
                return client
        doc = self.objects.get(client_id)
        if doc is None:
            return None
        row = self._store.find("client_secrets", client_id=client_id)
        return Client(client_id, doc, None if row is None else row["secret_hash"])

    def by_key(self, key: str) -> Client | None:
        for client in self._of_run:
            if client.key == key:
                return client
        for doc in self.objects.all():
            if sha256_hex(doc["client_id"]) == key:
                return self.find(doc["client_id"])
        return None

    def masked(self, text: str) -> str:
        """Return *text* with the log's names for the ids that no file may hold."""
        for client in self._of_run:
            text = text.replace(client.client_id, client.log_name)
        return text

    def all(self) -> list[Client]:
        clients = [self.find(doc["client_id"]) for doc in self.objects.all()]
        return [*self._of_run, *(client for client in clients if client is not None)]

    def add(self, doc: Document) -> tuple[Client, str | None]:
        """Store a new client; return it, and its secret if it is to have one."""
        client_id = new_id("app")
        doc = {**doc, "client_id": client_id}
        self.objects.add(client_id, client_id, doc)
        # "none" is a public client, and a null one that signs assertions.
        keyless = doc["token_endpoint_auth_method"] in {None, PUBLIC}
        secret = None if keyless else self.new_secret(client_id)
        client = self.find(client_id)
        assert client is not None  # noqa: S101 - it was just added
        return client, secret

    def change(self, client: Client, doc: Document) -> Client:
        self.objects.replace(client.client_id, doc)
        return self.find(client.client_id) or client

    def new_secret(self, client_id: str) -> str:
        """Give a client a new secret; the old one ends at once."""
        secret = new_secret("av_c")
        hashed = {"client_id": client_id, "secret_hash": sha256_hex(secret)}
        self._store.put("client_secrets", ("client_id",), **hashed)
        return secret

    def authenticate(self, form: Mapping[str, str], authorization: str) -> Client:
        """Return the client that sent *form* (RFC 6749 section 2.3).

        Raises:
            TenantRefusedError: ``invalid_request`` if it does not say who it is, or
                says it in two ways; ``invalid_client`` if it does not prove it.
        """
        basic = _basic(authorization)
        if basic is not None and "client_secret" in form:
            # RFC 6749 section 2.3: one method a request.
            raise TenantRefusedError(
                "invalid_request", "Use one method of client authentication."
            )
        client_id, secret = basic or (
            form.get("client_id", ""),
            form.get("client_secret", ""),
        )
        if not client_id:
            raise TenantRefusedError(
                "invalid_request", "Missing required parameter: client_id"
            )
        if form.get("client_id", client_id) != client_id:
            raise _refusal()
        client = self.find(client_id)
        stored = None if client is None else client.secret_hash
        # T-16: hashes are compared, in constant time, also for a client there is not.
        # One that was public until now has no secret: nothing sent is the right one.
        right = hmac.compare_digest(sha256_hex(secret), stored or _NONE) and stored
        if client is None or (client.confidential and not right):
            raise _refusal()
        return client


def _basic(authorization: str) -> tuple[str, str] | None:
    """Read HTTP Basic as RFC 6749 section 2.3.1 encodes it; None without any."""
    kind, _, encoded = authorization.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        raise _refusal() from None
    client_id, _, secret = text.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def _refusal() -> TenantRefusedError:
    """Return one error for an unknown client and a wrong secret (T-16)."""
    return TenantRefusedError("invalid_client", "Unknown client, or wrong credentials.")
