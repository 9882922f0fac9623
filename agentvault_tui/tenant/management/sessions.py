"""``/sessions``, and a user's own: none outlives its page, but what came of it does."""

from __future__ import annotations

from typing import Final

from agentvault_tui.tenant.management.api import Answer, Call, Endpoint
from agentvault_tui.tenant.management.bodies import checked, flag, text
from agentvault_tui.tenant.management.problems import no_user, not_found
from agentvault_tui.tenant.people import People
from agentvault_tui.tenant.refresh import RefreshTokens

_READ: Final = ("read:sessions",)
_GONE: Final = ("delete:sessions",)
_ALL_GONE: Final = ("delete:sessions", "delete:refresh_tokens")


class SessionCalls:
    """The calls about sessions.

    A sign-in here lasts no longer than its page, so none is listed. Its id lives on
    in the refresh tokens that came of it, and revoking a session ends those.
    """

    def __init__(self, people: People, refresh: RefreshTokens) -> None:
        """Act on the *refresh* tokens of *people*."""
        self._people = people
        self._refresh = refresh

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        one, of_user = "/sessions/{id}", "/users/{id}/sessions"
        return [
            Endpoint("GET", of_user, _READ, "Get sessions for user", self._list),
            Endpoint("DELETE", of_user, _GONE, "Delete sessions for user",
                     self._delete_of_user),
            Endpoint("GET", one, _READ, "Get session", self._get),
            Endpoint("DELETE", one, _GONE, "Delete session", self._delete),
            Endpoint("POST", f"{one}/revoke", _ALL_GONE, "Revokes a session",
                     self._revoke, needs_all=True),
            Endpoint("POST", "/users/{id}/revoke-access", _ALL_GONE,
                     "Revokes selected resources from a user", self._revoke_access,
                     needs_all=True),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        self._user(call)
        return Answer(200, {"sessions": []})

    def _delete_of_user(self, call: Call) -> Answer:
        self._user(call)
        return Answer(202, {})

    def _get(self, _: Call) -> Answer:
        raise not_found("The session does not exist", "inexistent_session")

    def _delete(self, _: Call) -> Answer:
        return Answer(202, {})

    def _revoke(self, call: Call) -> Answer:
        self._end(None, call.path["id"])
        return Answer(202, {})

    def _revoke_access(self, call: Call) -> Answer:
        body = checked(
            call.body, {"session_id": text(), "preserve_refresh_tokens": flag}
        )
        sub = self._user(call)
        if not body.get("preserve_refresh_tokens"):
            self._end(sub, body.get("session_id"))
        return Answer(202, {})

    def _end(self, sub: str | None, session_id: str | None) -> None:
        for held in self._refresh.list(user_id=sub):
            if session_id in {None, held.session_id}:
                self._refresh.revoke(held.id)

    def _user(self, call: Call) -> str:
        user = self._people.find(call.path["id"])
        if user is None:
            raise no_user()
        return user.sub
