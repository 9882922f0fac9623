"""A client that asks for a person by CIBA, and that person at the tenant's pages."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet
from support.tenant_admin import Admin, Person

from agentvault_tui.tenant.page_reader import Page, read_page
from agentvault_tui.tenant.users import NewUser

CIBA = "urn:openid:params:grant-type:ciba"
MESSAGE = "Pay 42.00 EUR, order #7"
_numbers = itertools.count()
_LINK = re.compile(r'href="/bc-verify\?consent=([A-Za-z0-9_%-]+)"')


class Asking:
    """A confidential client with the CIBA grant, and whom it asks for."""

    def __init__(self, admin: Admin, user: NewUser, **members: Any) -> None:
        self.admin, self.tenant, self.user = admin, admin.tenant, user
        self.client = admin.made(
            "clients",
            {
                "name": "Agent: payer",
                "app_type": "regular_web",
                "is_first_party": True,
                "oidc_conformant": True,
                "grant_types": [CIBA, "refresh_token"],
                "async_approval_notification_channels": ["guardian-push", "email"],
                **members,
            },
        )
        self.person = Person(self.tenant, user.user.name, user.password)

    @classmethod
    def someone(cls, admin: Admin) -> Asking:
        """Return a client of its own that asks for a person of its own."""
        name = f"ursula-{next(_numbers)}@acme.test"
        return cls(admin, admin.tenant.users.add(name))

    @property
    def auth(self) -> dict[str, str]:
        return {
            "client_id": self.client["client_id"],
            "client_secret": self.client["client_secret"],
        }

    def hint(self, **members: Any) -> str:
        """Say whom, as the SDKs do: https, whatever the tenant speaks."""
        said = {
            "format": "iss_sub",
            "iss": self.tenant.issuer.replace("http:", "https:"),
            "sub": self.user.user.sub,
        }
        return json.dumps({**said, **members})

    def form(self, **form: Any) -> dict[str, Any]:
        """Return what the SDKs send; a None leaves a member out."""
        base = {
            "login_hint": self.hint(),
            "scope": "openid",
            "binding_message": MESSAGE,
            **self.auth,
        }
        whole = {**base, **form}
        return {name: value for name, value in whole.items() if value is not None}

    def ask(self, **form: Any) -> httpx.Response:
        return self.tenant.post("bc-authorize", **self.form(**form))

    def asked(self, **form: Any) -> str:
        """Ask, and return the ``auth_req_id``."""
        answer = self.ask(**form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["auth_req_id"])

    def poll(self, token: str, **form: str) -> httpx.Response:
        base = {"grant_type": CIBA, "auth_req_id": token, **self.auth}
        return self.tenant.post("oauth/token", **{**base, **form})

    def claims(self, token: str) -> dict[str, Any]:
        """Return what a token of the tenant's says, which its key must vouch for."""
        url = self.tenant.issuer + ".well-known/jwks.json"
        keys = KeySet.import_key_set(self.tenant.http.get(url).json())
        return dict(jwt.decode(token, keys, ["RS256"]).claims)

    def inbox(self) -> list[str]:
        """Return the links that wait for the person, newest first."""
        self.person.open("agentvault/inbox")
        answer = self.person.send(
            "login", user=self.person.name, password=self.person.password
        )
        assert answer.status_code == 200, answer.text
        return _LINK.findall(answer.text)

    def opened(self) -> Page:
        """Open the newest link."""
        return read_page(self.person.open("bc-verify", consent=self.inbox()[0]).text)

    def signed_in(self) -> Page:
        """Open the newest link and show both factors."""
        self.opened()
        self.person.send("login", user=self.person.name, password=self.person.password)
        self.tenant.clock.advance(30)  # each code counts once
        answer = self.person.send("login-otp", otp=self.tenant.otp(self.user))
        return read_page(answer.text)

    def accept(self) -> Page:
        """Accept the newest request."""
        self.signed_in()
        return read_page(self.person.send("consent").text)

    def reject(self) -> Page:
        """Reject the newest request, without signing in for it."""
        self.opened()
        return read_page(self.person.send("cancel").text)
