"""What people sign in for on the login pages: what is said of it, and what follows."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Final, Protocol

from starlette.responses import RedirectResponse, Response

from agentvault_tui.tenant.clients import Client, log_name
from agentvault_tui.tenant.journal import Peer
from agentvault_tui.tenant.login.errands import Errand, Kind
from agentvault_tui.tenant.oauth.codes import Authorization, CodeGrant
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.people import User
from agentvault_tui.tenant.redirects import origin_of, with_query
from agentvault_tui.tenant.tokens import Login
from agentvault_tui.tenant.vault.connecting import ConnectRequest
from agentvault_tui.text import Shown, visible

_NO: Final = "User did not authorize the request"
_log = logging.getLogger("agentvault.tenant")


@dataclass(frozen=True, slots=True)
class Said:
    """What the pages of an errand say, made displayable; None: it has no such."""

    kind: Kind
    client: Shown | None = None
    connection: Shown | None = None
    owner: Shown | None = None
    audience: Shown | None = None
    scopes: tuple[Shown, ...] = ()
    back_to: Shown | None = None
    redirect_origin: str = ""
    """Where its last form may be redirected to."""


class Purpose(Protocol):
    """One kind of errand."""

    def said(self, errand: Errand) -> Said | None:
        """Return what its pages say; None: it is over."""
        ...

    def allowed(self, errand: Errand, user: User) -> Response | None:
        """Do what *user* allowed; return where to; None: it is over."""
        ...

    def refused(self, errand: Errand, peer: Peer, /) -> Response | None:
        """Do what a no means, said at any step; refusing is free."""
        ...


class Authorize:
    """``/authorize``: a person signs in for a client."""

    def __init__(self, parts: Parts, codes: CodeGrant) -> None:
        """Give out *codes*."""
        self._parts = parts
        self._codes = codes

    def said(self, errand: Errand) -> Said | None:
        """Name the client, what it asks for, and where it has the person sent."""
        client = self._parts.clients.find(errand.client_id)
        if client is None:
            return None
        audience = errand.audience or self._parts.apis.userinfo
        return _towards(
            client, errand.redirect_uri, errand.scope, audience, "authorize"
        )

    def allowed(self, errand: Errand, user: User) -> Response | None:
        """Send the person back with a code."""
        client = self._parts.clients.find(errand.client_id)
        if client is None:
            return None
        granted = Authorization(
            client,
            errand.redirect_uri,
            errand.scope,
            errand.audience,
            errand.nonce,
            errand.challenge,
            errand.method,
        )
        login = Login(user.sub, secrets.token_urlsafe(24), errand.at, errand.mfa)
        code = self._codes.issue(granted, login)
        _log.info("authorization granted", extra={"sub": user.sub})
        return back(errand.redirect_uri, code=code, state=errand.state)

    def refused(self, errand: Errand, _: Peer, /) -> Response:
        """Send the person back with a no."""
        return _back_with_no(errand.redirect_uri, errand.state)


class Connect:
    """A connect request's link: a person lets the vault keep an account's tokens."""

    def __init__(self, parts: Parts) -> None:
        """Decide over the connect requests of a tenant's *parts*."""
        self._parts = parts
        self._connecting = parts.connecting

    def said(self, errand: Errand) -> Said | None:
        """Name whose account is to be kept for whom."""
        client = self._parts.clients.find(errand.client_id)
        asked = self._asked(errand)
        owner = None if asked is None else self._parts.people.find(asked.user_id)
        if client is None or asked is None or owner is None:
            return None
        return _towards(
            client,
            asked.redirect_uri,
            asked.scope,
            asked.connection,
            "connect",
            connection=visible(asked.connection, 128),
            owner=visible(owner.name, 64),
        )

    def allowed(self, errand: Errand, user: User) -> Response | None:
        """Send the person back with a connect code."""
        asked = self._asked(errand)
        code = None
        if asked is not None:
            code = self._connecting.consent(asked, user.name)
        if asked is None or code is None:
            return None
        return back(asked.redirect_uri, connect_code=code, state=asked.state)

    def refused(self, errand: Errand, peer: Peer, /) -> Response | None:
        """Forget the request, and send the person back with a no."""
        asked = self._asked(errand)
        if asked is None:
            return None
        self._connecting.cancel(asked)
        client = self._parts.clients.find(asked.client_id)
        self._parts.journal.write(
            "connected_accounts_connection_failed",
            description=_NO,
            client=log_name(client),
            user=self._parts.people.find(asked.user_id),
            peer=peer,
            connection=asked.connection,
        )
        return _back_with_no(asked.redirect_uri, asked.state)

    def _asked(self, errand: Errand) -> ConnectRequest | None:
        return self._connecting.by_key(errand.request or "")


def back(redirect_uri: str, **members: str | None) -> Response:
    """Send the browser on; what it carries is in no cache and no referrer."""
    return RedirectResponse(
        with_query(redirect_uri, **members),
        302,
        {"cache-control": "no-store", "referrer-policy": "no-referrer"},
    )


def _back_with_no(redirect_uri: str, state: str | None) -> Response:
    return back(redirect_uri, error="access_denied", error_description=_NO, state=state)


def _towards(
    client: Client,
    redirect_uri: str,
    scope: str,
    audience: str,
    kind: Kind,
    *,
    connection: Shown | None = None,
    owner: Shown | None = None,
) -> Said:
    origin = origin_of(redirect_uri)
    return Said(
        kind,
        client=visible(client.name, 128),
        connection=connection,
        owner=owner,
        audience=visible(audience, 600),
        scopes=tuple(visible(word, 300) for word in scope.split()),
        back_to=visible(origin, 300),
        redirect_origin=origin,
    )
