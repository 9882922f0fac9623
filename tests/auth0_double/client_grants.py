"""``/client-grants/{id}``: shown and deleted."""

from __future__ import annotations

from agentvault_tui.tenant.apis import Apis
from agentvault_tui.tenant.management.api import ManagementCall
from agentvault_tui.tenant.management.wire import ApiError
from auth0_double.calls import Answer, Call, Endpoint


class ClientGrantCalls:
    def __init__(self, apis: Apis) -> None:
        self._grants = apis.grants

    def endpoints(self) -> list[ManagementCall]:
        one = "/client-grants/{id}"
        return [
            Endpoint("GET", one, ("read:client_grants",),
                     "Get a client grant", self._get),
            Endpoint("DELETE", one, ("delete:client_grants",),
                     "Delete a client grant", self._delete),
        ]  # fmt: skip

    def _get(self, call: Call) -> Answer:
        grant = self._grants.get(call.path["id"])
        if grant is None:
            raise ApiError(
                404, "The client grant does not exist", "inexistent_client_grant"
            )
        return Answer(200, grant)

    def _delete(self, call: Call) -> Answer:
        self._grants.delete(call.path["id"])
        return Answer(204)
