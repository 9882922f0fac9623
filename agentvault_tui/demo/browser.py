"""A person's browser at the tenant's own pages: signs in, says yes, ends elsewhere."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Final, Self
from urllib.parse import urlsplit

import httpx

from agentvault_tui.errors import RefusedError, UnreachableError

_PAGES: Final = 4
"""Pages at most until a browser is sent elsewhere: a sign-in, a consent, and spare."""


class Browser:
    """One person's; it keeps the session that they signed in to."""

    def __init__(self, user: str, password: str) -> None:
        """Be *user*'s."""
        self._credentials = {"user": user, "password": password}
        self._http = httpx.AsyncClient(trust_env=False, timeout=10.0)

    async def __aenter__(self) -> Self:
        """Open it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it, and forget its cookies."""
        await self._http.aclose()

    async def allow(self, page: str) -> str:
        """Sign in at *page* if it asks, say yes, and return where one is sent then.

        Raises:
            RefusedError: it is not one of the pages expected.
            UnreachableError: nobody answers.
        """
        parts = urlsplit(page)
        # RFC 6454: what a browser says about where a form came from.
        origin = f"{parts.scheme}://{parts.netloc}"
        try:
            reply = await self._http.get(page)
            for _ in range(_PAGES):
                if reply.has_redirect_location:
                    return reply.headers["location"]
                action, fields = self._fill(reply.text)
                reply = await self._http.post(
                    origin + action, data=fields, headers={"Origin": origin}
                )
        except httpx.TransportError as error:
            raise UnreachableError(
                f"the tenant's page cannot be reached ({type(error).__name__})"
            ) from None
        raise RefusedError("the tenant's pages lead nowhere")

    def _fill(self, html: str) -> tuple[str, dict[str, str]]:
        """Return where the form that says yes goes, and what it then holds."""
        forms = _Forms()
        forms.feed(html)
        for name, given in (("login", self._credentials), ("consent", {})):
            if found := forms.found.get(name):
                action, fields = found
                return action, {**fields, **given}
        raise RefusedError("the tenant's page asks for neither a sign-in nor a consent")


class _Forms(HTMLParser):
    """Each form by its id: where it goes, and what its fields hold."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, tuple[str, dict[str, str]]] = {}
        self._fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a form, or a field of the last one."""
        held = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._fields = {}
            self.found[held.get("id", "")] = held.get("action", ""), self._fields
        elif tag == "input" and held.get("name"):
            self._fields[held["name"]] = held.get("value", "")
