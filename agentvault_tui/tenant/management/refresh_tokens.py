"""``/refresh-tokens``, a user's own, and ``/device-credentials``: seen and revoked."""

from __future__ import annotations

from typing import Any, Final

from agentvault_tui.tenant.management import paging
from agentvault_tui.tenant.management.api import Answer, Call, Endpoint
from agentvault_tui.tenant.management.bodies import checked, text, texts
from agentvault_tui.tenant.management.problems import ApiError, bad_query, not_found
from agentvault_tui.tenant.refresh import RefreshToken, RefreshTokens
from agentvault_tui.tenant.times import of_epoch

_READ: Final = ("read:refresh_tokens",)
_GONE: Final = ("delete:refresh_tokens",)
_KINDS: Final = ("refresh_token", "rotating_refresh_token", "public_key")


class RefreshTokenCalls:
    """The calls about refresh tokens; deletions are eventually true, as at Auth0."""

    def __init__(self, refresh: RefreshTokens, userinfo: str) -> None:
        """Act on *refresh* tokens; those for no API are for *userinfo*."""
        self._refresh = refresh
        self._userinfo = userinfo

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        one, of_user = "/refresh-tokens/{id}", "/users/{id}/refresh-tokens"
        device = "/device-credentials"
        return [
            Endpoint("GET", "/refresh-tokens", _READ, "Get refresh tokens", self._list),
            Endpoint("POST", "/refresh-tokens/revoke", _GONE,
                     "Revoke refresh tokens", self._revoke),
            Endpoint("GET", one, _READ, "Get a refresh token", self._get),
            Endpoint("DELETE", one, _GONE, "Delete a refresh token", self._delete),
            Endpoint("GET", of_user, _READ, "Get refresh tokens for a user",
                     self._list_of_user),
            Endpoint("DELETE", of_user, _GONE, "Delete refresh tokens for a user",
                     self._delete_of_user),
            Endpoint("GET", device, ("read:device_credentials",),
                     "Retrieve device credentials", self._devices),
            Endpoint("DELETE", f"{device}/{{id}}", ("delete:device_credentials",),
                     "Delete a device credential", self._delete_device),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        user_id = call.query.get("user_id")
        if not user_id:
            raise bad_query("user_id", "Missing required property: user_id")
        found = self._refresh.list(
            user_id=user_id, client_id=call.query.get("client_id")
        )
        shapes = [self._shape(held) for held in found]
        page = paging.by_checkpoint(call.query, "refresh_tokens", shapes)
        return Answer(200, paging.chosen(call.query, page, "refresh_tokens"))

    def _list_of_user(self, call: Call) -> Answer:
        # Another key than the list over all users has: "tokens".
        shapes = [
            self._shape(held) for held in self._refresh.list(user_id=call.path["id"])
        ]
        page = paging.by_checkpoint(call.query, "tokens", shapes)
        if paging.flagged(call.query, "include_totals"):
            page["total"] = len(shapes)
        return Answer(200, page)

    def _get(self, call: Call) -> Answer:
        held = self._refresh.get(call.path["id"])
        if held is None:
            raise not_found(
                "The refresh token does not exist", "inexistent_refresh_token"
            )
        return Answer(200, self._shape(held))

    def _delete(self, call: Call) -> Answer:
        self._refresh.revoke(call.path["id"])
        return Answer(204)

    def _delete_of_user(self, call: Call) -> Answer:
        for held in self._refresh.list(user_id=call.path["id"]):
            self._refresh.revoke(held.id)
        return Answer(202, {})

    def _revoke(self, call: Call) -> Answer:
        members = {
            "ids": texts(100, 64),
            "user_id": text(),
            "client_id": text(64),
            "audience": text(600),
        }
        body = checked(call.body, members)
        if (body.get("ids") is None) == (body.get("user_id") is None):
            raise ApiError(
                400, "Payload validation error: 'Give ids, or user_id'", "invalid_body"
            )
        if body.get("ids") is not None:
            for key in body["ids"]:
                self._refresh.revoke(key)
            return Answer(202, {})
        names = ("user_id", "client_id", "audience")
        for held in self._refresh.list(**{name: body.get(name) for name in names}):
            self._refresh.revoke(held.id)
        return Answer(202, {})

    def _devices(self, call: Call) -> Answer:
        kind = call.query.get("type", _KINDS[0])
        if kind not in _KINDS:
            raise bad_query("type", f"Must be one of {', '.join(_KINDS)}")
        found = self._refresh.list(
            user_id=call.query.get("user_id"), client_id=call.query.get("client_id")
        )
        shapes = [
            {
                "id": _device_id(held.id),
                "device_name": "",
                "device_id": held.id,
                "type": _KINDS[int(held.rotating)],
                "user_id": held.user_id,
                "client_id": held.client_id,
            }
            for held in found
            if _KINDS[int(held.rotating)] == kind
        ]
        return Answer(200, paging.by_offset(call.query, "device_credentials", shapes))

    def _delete_device(self, call: Call) -> Answer:
        self._refresh.revoke("rt_" + call.path["id"].removeprefix("dcr_"))
        return Answer(204)

    def _shape(self, held: RefreshToken) -> dict[str, Any]:
        """Return a refresh token as the API shows it, which is never the token."""
        return {
            "id": held.id,
            "user_id": held.user_id,
            "created_at": of_epoch(held.created_at),
            "idle_expires_at": of_epoch(held.idle_expires_at),
            "expires_at": of_epoch(held.expires_at),
            "client_id": held.client_id,
            "session_id": held.session_id,
            "rotating": held.rotating,
            "resource_servers": [
                {"audience": audience or self._userinfo, "scopes": scopes}
                for audience, scopes in held.reach.items()
            ],
            "device": {},
            "last_exchanged_at": of_epoch(held.last_exchanged_at),
        }


def _device_id(key: str) -> str:
    return "dcr_" + key.removeprefix("rt_")
