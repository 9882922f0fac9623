"""The page on which a person adds a passkey, opened by a link that is good once."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.oauth.wire import page_form
from agentvault_tui.tenant.page_sessions import SCRIPT_PATH, problem_of, scripted
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.passkeys import Passkeys
from agentvault_tui.tenant.row_time import row_time
from agentvault_tui.tenant.users import User
from agentvault_tui.tenant.views import Problem, Views

_LINK_OVER: Final = Problem("code_over", "This link has been used or has expired.")


class RegistrationPages:
    """``/passkey/TOKEN``: valid once, for the person with the link."""

    def __init__(self, parts: Parts, views: Views, keys: Passkeys) -> None:
        self._parts = parts
        self._views = views
        self._keys = keys

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/passkey/{token}", self._show),
            Route("/passkey/{token}", self._register, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        return self._page(request)

    def _page(self, request: Request, problem: Problem | None = None) -> Response:
        token = request.path_params["token"]
        user = self._user(token)
        if user is None:
            return self._views.page("passkey-over", _LINK_OVER)
        answer = self._views.page(
            "passkey",
            problem,
            user=user.name,
            action=f"/passkey/{token}",
            options=self._keys.creation_options(user, _about(token)),
            script=SCRIPT_PATH,
        )
        return scripted(answer)

    async def _register(self, request: Request) -> Response:
        form, token = await page_form(request), request.path_params["token"]
        user = self._user(token)
        if user is None:
            return self._views.page("passkey-over", _LINK_OVER)
        try:
            with self._parts.store.transaction():
                # If two brokers receive the same link, only one can delete the row.
                link = {"link_hash": sha256_hex(token)}
                if not self._parts.store.delete("passkey_links", **link):
                    return self._views.page("passkey-over", _LINK_OVER)
                passkey = self._keys.register(
                    user, _about(token), form.get("credential", "")
                )
        except TenantRefusedError as error:
            return self._page(request, problem_of(error))
        self._parts.journal.write(
            "gd_enrollment_complete",
            request,
            user=user,
            client=self._parts.clients.find(self._parts.run.client_id),
            description=f"passkey {passkey.id[:12]} registered",
        )
        return self._views.page("passkey-done", user=user.name)

    def _user(self, token: str) -> User | None:
        """Return the owner of the link, while it is valid."""
        store = self._parts.store
        now = row_time(store, self._parts.clock)
        store.change("DELETE FROM passkey_links WHERE expires_at <= ?", now)
        row = store.find("passkey_links", link_hash=sha256_hex(token))
        return None if row is None else self._parts.people.find(row["sub"])


def _about(token: str) -> str:
    return f"register {token}"
