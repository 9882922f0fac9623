"""``/refresh-tokens`` and ``/device-credentials``: further ways to list and delete."""

from __future__ import annotations

from agentvault_tui.tenant.management import wire
from agentvault_tui.tenant.management.api import ManagementCall
from agentvault_tui.tenant.management.calls import refresh_token_shape
from agentvault_tui.tenant.management.wire import ApiError, bad_query
from agentvault_tui.tenant.parts import Parts
from auth0_double.calls import Answer, Call, Endpoint

_READ = ("read:refresh_tokens",)
_GONE = ("delete:refresh_tokens",)


class RefreshTokenCalls:
    """Deletions are eventually true, as at Auth0."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._refresh = parts.refresh

    def endpoints(self) -> list[ManagementCall]:
        one, of_user = "/refresh-tokens/{id}", "/users/{id}/refresh-tokens"
        return [
            Endpoint("GET", "/refresh-tokens", _READ, "Get refresh tokens", self._list),
            Endpoint("GET", one, _READ, "Get a refresh token", self._get),
            Endpoint("DELETE", one, _GONE, "Delete a refresh token", self._delete),
            Endpoint("DELETE", of_user, _GONE, "Delete refresh tokens for a user",
                     self._delete_of_user),
            Endpoint("DELETE", "/device-credentials/{id}",
                     ("delete:device_credentials",),
                     "Delete a device credential", self._delete_device),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        user_id = call.query.get("user_id")
        if not user_id:
            raise bad_query("user_id", "Missing required property: user_id")
        found = self._refresh.list(
            user_id=user_id, client_id=call.query.get("client_id")
        )
        shapes = [refresh_token_shape(self._parts, held) for held in found]
        page = wire.by_checkpoint(call.query, "refresh_tokens", shapes)
        return Answer(200, wire.chosen(call.query, page, "refresh_tokens"))

    def _get(self, call: Call) -> Answer:
        held = self._refresh.get(call.path["id"])
        if held is None:
            raise ApiError(
                404, "The refresh token does not exist", "inexistent_refresh_token"
            )
        return Answer(200, refresh_token_shape(self._parts, held))

    def _delete(self, call: Call) -> Answer:
        self._refresh.revoke(call.path["id"])
        return Answer(204)

    def _delete_of_user(self, call: Call) -> Answer:
        for held in self._refresh.list(user_id=call.path["id"]):
            self._refresh.revoke(held.id)
        return Answer(202, {})

    def _delete_device(self, call: Call) -> Answer:
        self._refresh.revoke("rt_" + call.path["id"].removeprefix("dcr_"))
        return Answer(204)
