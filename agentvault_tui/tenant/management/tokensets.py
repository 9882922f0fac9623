"""The legacy calls on vault entries, which Auth0's SDKs have dropped; off at first."""

from __future__ import annotations

from agentvault_tui.tenant.management.api import Answer, Call, Endpoint
from agentvault_tui.tenant.management.problems import no_user
from agentvault_tui.tenant.people import People
from agentvault_tui.tenant.times import of_epoch
from agentvault_tui.tenant.vault.accounts import Accounts


class TokensetCalls:
    """``/users/{id}/federated-connections-tokensets``."""

    def __init__(self, people: People, accounts: Accounts) -> None:
        """Act on *accounts*."""
        self._people = people
        self._accounts = accounts

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        path = "/users/{id}/federated-connections-tokensets"
        return [
            Endpoint("GET", path, ("read:federated_connections_tokens",),
                     "Get tokensets for a user", self._list),
            Endpoint("DELETE", f"{path}/{{key}}",
                     ("delete:federated_connections_tokens",),
                     "Delete a tokenset for a user", self._delete),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        listed = [
            {
                "id": account.id.replace("cac_", "tks_"),
                "connection": account.connection,
                "scope": " ".join(account.scopes),
                "issued_at": of_epoch(account.created_at),
                "expires_at": of_epoch(account.token_expires_at),
                "last_used_at": of_epoch(account.last_used_at),
            }
            for account in self._accounts.list(self._user(call))
        ]
        return Answer(200, listed)

    def _delete(self, call: Call) -> Answer:
        key = call.path["key"].replace("tks_", "cac_")
        if key in {account.id for account in self._accounts.list(self._user(call))}:
            self._accounts.delete(key)
        return Answer(204)

    def _user(self, call: Call) -> str:
        user = self._people.find(call.path["id"])
        if user is None:
            raise no_user()
        return user.sub
