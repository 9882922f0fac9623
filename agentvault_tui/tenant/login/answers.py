"""A request by CIBA, and the inbox that has its link: a person says yes or no to it."""

from __future__ import annotations

import logging
from typing import Any, Final

from starlette.responses import Response

from agentvault_tui.tenant.ciba.details import Detail
from agentvault_tui.tenant.ciba.requests import CibaRequest
from agentvault_tui.tenant.clients import log_name
from agentvault_tui.tenant.details import member_rows
from agentvault_tui.tenant.journal import Peer
from agentvault_tui.tenant.login.errands import Errand
from agentvault_tui.tenant.login.purposes import Said, Waiting
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.people import User
from agentvault_tui.tenant.times import for_people
from agentvault_tui.tenant.views import Problem
from agentvault_tui.text import Shown, in_full, visible

_LISTED: Final = 100
_OTHER: Final = Problem(
    "other_person", "This request is for someone else. Sign in as that person."
)
_log = logging.getLogger("agentvault.tenant")


class Answer:
    """``/bc-verify``: the person a client asked for accepts or rejects.

    As on the activation pages what is asked stands there before the sign-in, and once
    more before the answer; a yes takes password and second factor afresh, which are
    newer than the request because the link is.
    """

    last_page = "consent"

    def __init__(self, parts: Parts) -> None:
        """Decide over the requests of a tenant's *parts*."""
        self._parts = parts
        self._requests = parts.ciba

    def said(self, errand: Errand) -> Said | None:
        """Say what the client asks for, in its own words where they are its own."""
        asked = self._asked(errand)
        client = self._parts.clients.find(errand.client_id)
        if asked is None or client is None:
            return None
        return Said(
            "answer",
            client=visible(client.name, 128),
            audience=visible(asked.audience or self._parts.apis.userinfo, 600),
            scopes=tuple(visible(word, 300) for word in asked.scope.split()),
            message=visible(asked.binding_message, 64),
            details=tuple(_rows(detail) for detail in asked.details),
            asked_at=for_people(asked.created),
            until=for_people(asked.expires.wall),
        )

    def bars(self, errand: Errand, user: User) -> Problem | None:
        """Bar everyone but whom the client named."""
        asked = self._asked(errand)
        return None if asked is not None and asked.user_id == user.sub else _OTHER

    def allowed(self, errand: Errand, user: User) -> str | None:
        """Note the yes; the client learns of it when it polls."""
        asked = self._asked(errand)
        if asked is None or not self._requests.accept(asked, user.sub, errand.at):
            return None
        _log.info("a request was accepted", extra={"sub": user.sub})
        return "login-accepted"

    def refused(self, errand: Errand, peer: Peer, /) -> str | None:
        """Note the no."""
        asked = self._asked(errand)
        if asked is None or not self._requests.reject(asked):
            return None
        client = self._parts.clients.find(asked.client_id)
        self._parts.journal.write(
            "gd_auth_rejected",
            description="The request was rejected",
            client=log_name(client),
            user=self._parts.people.find(asked.user_id),
            peer=peer,
            details={"transaction_linking_id": asked.linking_id},
        )
        return "login-rejected"

    def _asked(self, errand: Errand) -> CibaRequest | None:
        found = self._requests.by_key(errand.request or "")
        return found if found is not None and self._requests.open(found) else None


class Inbox:
    """``/agentvault/inbox``: the links that Auth0 would have mailed.

    As with a mailbox the password opens it. Each link then wants a whole sign-in.
    """

    last_page = "inbox"

    def __init__(self, parts: Parts) -> None:
        """Show the requests of a tenant's *parts*."""
        self._parts = parts

    def said(self, errand: Errand) -> Said | None:
        """List what waits for whoever signed in."""
        found = [] if errand.sub is None else self._parts.ciba.waiting(errand.sub)
        listed = tuple(self._row(asked) for asked in found[:_LISTED])
        return Said("inbox", waiting=listed, more=len(found) - len(listed))

    def bars(self, errand: Errand, user: User) -> Problem | None:
        """Bar nobody: each sees their own."""

    def allowed(self, errand: Errand, user: User) -> Response | None:
        """Do nothing: nothing is asked on its pages."""

    def refused(self, errand: Errand, peer: Peer, /) -> Response | None:
        """Do nothing: nothing is asked on its pages."""

    def _row(self, asked: CibaRequest) -> Waiting:
        client = self._parts.clients.find(asked.client_id)
        name: Any = asked.client_id if client is None else client.name
        return Waiting(
            visible(name, 128),
            visible(asked.binding_message, 64),
            asked.consent,
            for_people(asked.expires.wall),
        )


def _rows(detail: Detail) -> tuple[tuple[Shown, Shown, str], ...]:
    return tuple(
        (in_full(name), in_full(value), kind)
        for name, value, kind in member_rows(detail.items())
    )
