"""A client of the activation pages, for people without a browser.

It reads forms and ``data-`` attributes, sends the same as a browser, and knows nothing
of the tenant but its pages. ``agentvault tenant activate`` uses it.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final, Self
from urllib.parse import urlsplit

import httpx

from agentvault_tui.errors import TenantRefusedError, TenantUnreachableError, UsageError
from agentvault_tui.tenant.signin import PROOF_HEADER
from agentvault_tui.text import Shown, clip, visible

_PAGE_CAP: Final = 2_000_000
_FIELDS: Final = (
    "fingerprint", "agent_id", "agent_name", "action", "scope", "resource", "risk",
    "why", "requested_on", "requested_at", "connection", "ttl", "repeat",
)  # fmt: skip
"""The page's marks of a request, by `Details`' own names."""
_MARKS: Final = (
    "data-field", "data-parameter", "data-other", "data-request", "data-message",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Details:
    """The tenant's description of an approval, or of an operator's login."""

    user_code: Shown
    fingerprint: Shown | None = None
    agent_id: Shown | None = None
    agent_name: Shown | None = None
    action: Shown | None = None
    scope: Shown | None = None
    resource: Shown | None = None
    risk: Shown | None = None
    why: Shown | None = None
    requested_on: Shown | None = None
    requested_at: Shown | None = None
    connection: Shown | None = None
    """Of the provider whose own token is issued, if it is one."""
    parameters: tuple[tuple[Shown, Shown], ...] = ()
    values: tuple[object, ...] = ()
    """Those of `parameters` as they were sent: numbers as numbers, strings shown."""
    others: tuple[tuple[Shown, Shown], ...] = ()
    """The other facts for a resource server."""
    request: tuple[tuple[Shown, Shown], ...] = ()
    """Of a held call: its method, URL, and its body's length and SHA-256."""
    unlimited: bool = False
    """Whether only the scope limits the use of the token."""
    ttl: Shown | None = None
    """Then, the seconds the token lives."""
    repeat: Shown | None = None
    """The additions that are approved next to the request itself."""


class Activation:
    """One activation (RFC 8628 section 3.3); call `open` first.

    Every method raises `TenantRefusedError` with the page's own message and its code
    (``no_such_code``, ``too_many_tries``, ``code_over``, ``wrong_sign_in``,
    ``wrong_otp``, ``locked``, ``busy``, ``stale_form``) or `TenantUnreachableError`.
    After ``wrong_sign_in``, ``wrong_otp`` or ``locked`` the same step may be tried
    again, until the tenant ends the code.
    """

    def __init__(
        self, *, timeout: float = 15.0, prove: Callable[[str], str] | None = None
    ) -> None:
        """Prepare; nothing is sent yet.

        *prove* returns the proof, for a user code, that the signing-in person owns the
        tenant's home: strangers' tries then do not count against them.
        """
        self._prove = prove
        self._http = httpx.Client(
            timeout=timeout, trust_env=False, follow_redirects=False
        )
        self._origin = ""
        self._page: TenantPage | None = None

    def __enter__(self) -> Self:
        """Use it for a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection, and forget the cookie."""
        self._http.close()

    @property
    def step(self) -> str:
        """The step the last page shows, such as ``sign-in``."""
        return "" if self._page is None else self._page.step

    def open(self, issuer: str, user_code: str) -> Details:
        """Enter *user_code* and return its purpose.

        Raises:
            UsageError: *issuer* is not one to send a password to.
        """
        self._origin = _origin(issuer)
        self._go("GET", "/activate", params={"user_code": user_code})
        self._submit("code", user_code=user_code)
        details = self._details()
        if self._prove is not None:
            self._http.headers[PROOF_HEADER] = self._prove(details.user_code)
        return details

    def sign_in(self, user: str, password: str) -> None:
        """Send the first factor."""
        if self.step == "details":
            self._submit("continue")
        self._submit("sign-in", user=user, password=password)

    def one_time_code(self, otp: str) -> None:
        """Send the second factor."""
        self._submit("one-time-code", otp=otp)

    def confirm(self) -> None:
        """Say yes; whether that is accepted the broker knows, not the tenant."""
        self._submit("confirm")
        if self.step != "confirmed":
            raise _unexpected()

    def cancel(self) -> None:
        """Say no; possible at every step."""
        self._submit("cancel")
        if self.step != "cancelled":
            raise _unexpected()

    def _submit(self, form: str, **fields: str) -> None:
        """Send the page's form of that name with its present values."""
        form_shown = self._page and self._page.forms.get(form)
        if not form_shown:
            raise _unexpected()
        # RFC 6454: what a browser says about where the form came from.
        headers = {"origin": self._origin}
        data = {**form_shown.fields, **fields}
        self._go("POST", form_shown.action, data=data, headers=headers)

    def _go(self, method: str, path: str, **options: dict[str, str]) -> None:
        if not path.startswith("/activate"):
            raise _unexpected()
        try:
            answer = self._http.request(method, self._origin + path, **options)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise TenantUnreachableError(
                f"the tenant's page cannot be reached ({type(error).__name__})",
                "check that the broker runs",
            ) from None
        kind = answer.headers.get("content-type", "")
        if not kind.startswith("text/html") or len(answer.content) > _PAGE_CAP:
            raise _unexpected(answer.status_code)
        self._page = page = read_page(answer.text)
        if page.error:
            message = visible(page.message or "The tenant refused.", 300)
            raise TenantRefusedError(visible(page.error, 40), message)
        if answer.status_code != 200:
            raise _unexpected(answer.status_code)

    def _details(self) -> Details:
        page = self._page
        if page is None or page.step != "details":
            raise _unexpected()

        def shown(name: str) -> Shown | None:
            value = page.values.get(name)
            return None if value is None else _displayed(value)

        return Details(
            **{one: shown(one) for one in _FIELDS},
            user_code=shown("user_code") or Shown(""),
            parameters=_shown_rows(page.parameters),
            values=tuple(
                _value(text, kind)
                for text, (_, _, kind) in zip(page.sent, page.parameters, strict=True)
            ),
            others=_shown_rows(page.others),
            request=_shown_rows(page.request),
            unlimited="unlimited" in page.values,
        )


def _shown_rows(rows: list[tuple[str, str, str]]) -> tuple[tuple[Shown, Shown], ...]:
    return tuple((_displayed(name), _displayed(value)) for name, value, _ in rows)


def _origin(issuer: str) -> str:
    """Return the origin of *issuer*: https, or http on loopback."""
    parts = urlsplit(issuer)
    host = parts.hostname or ""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    safe = parts.scheme == "https" or (parts.scheme == "http" and loopback)
    if not safe or not host or "@" in parts.netloc or parts.path not in {"", "/"}:
        raise UsageError(f"{visible(issuer)} is no address to send a password to")
    return f"{parts.scheme}://{parts.netloc}"


def _displayed(text: str) -> Shown:
    """Make a page's text displayable, if our own has spelled it out already."""
    return clip(text, max(10 * len(text), 1))


def _value(text: str, kind: str) -> object:
    """Return the page's value in its original form; texts in it stay inert."""
    if kind != "json":
        return _displayed(text)
    try:
        return _inert(json.loads(text))
    except (ValueError, RecursionError):
        return _displayed(text)


def _inert(value: object) -> object:
    if isinstance(value, str):
        return _displayed(value)
    if isinstance(value, list):
        return [_inert(item) for item in value]
    if isinstance(value, dict):
        return {_displayed(name): _inert(item) for name, item in value.items()}
    return value


def _unexpected(status: int | None = None) -> TenantUnreachableError:
    suffix = "" if status is None else f" (status {status})"
    return TenantUnreachableError(
        f"the tenant's page is not the one expected{suffix}",
        "start again with a new code; this works with the embedded tenant alone",
    )


@dataclass(slots=True)
class Form:
    """A form: its target, and the present values of its inputs."""

    action: str
    fields: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(slots=True)
class TenantPage:
    """A program's view of a page."""

    step: str = ""
    error: str = ""
    message: str = ""
    forms: dict[str, Form] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    parameters: list[tuple[str, str, str]] = field(default_factory=list)
    """Names, texts, and whether a value is ``text`` or ``json``."""
    sent: list[str] = field(default_factory=list)
    """The values of `parameters` as they were sent, where the text is another."""
    others: list[tuple[str, str, str]] = field(default_factory=list)
    """Likewise, of the other facts for a resource server."""
    request: list[tuple[str, str, str]] = field(default_factory=list)
    """Likewise, of a held call's request."""


def read_page(html: str) -> TenantPage:
    """Read *html*; unmarked parts are passed over."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.page


class _Reader(HTMLParser):
    """Collects the text of each element that has a mark, from its start to its end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = TenantPage()
        self._form: Form | None = None
        self._mark: tuple[str, str] | None = None
        self._tag = ""
        self._depth = 0
        self._text: list[str] = []
        self._name = ""
        self._sent: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the page's step, a form or field of it, and where marked text begins."""
        held = {name: value or "" for name, value in attrs}
        if tag == "main":
            self.page.step = held.get("data-step", "")
            self.page.error = held.get("data-error", "")
        elif tag == "form" and "id" in held:
            self._form = Form(held.get("action", ""))
            self.page.forms[held["id"]] = self._form
        elif tag == "input" and self._form is not None and held.get("name"):
            self._form.fields[held["name"]] = held.get("value", "")
        if self._mark is not None:
            self._depth += tag == self._tag
            return
        for kind in _MARKS:
            if kind in held:
                self._mark, self._tag = (kind, held[kind]), tag
                self._depth, self._text = 1, []
                self._sent = held.get("data-sent")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        if self._mark is None or tag != self._tag:
            return
        self._depth -= 1
        if self._depth == 0:
            self._keep(*self._mark, "".join(self._text))
            self._mark = None

    def handle_data(self, data: str) -> None:
        if self._mark is not None:
            self._text.append(data)

    def _keep(self, kind: str, name: str, text: str) -> None:
        if kind == "data-field":
            self.page.values[name] = text
        elif kind == "data-message":
            self.page.message = self.page.message or " ".join(text.split())
        elif name == "name":
            self._name = text
        else:
            page = self.page
            if kind == "data-parameter":
                page.sent.append(text if self._sent is None else self._sent)
            lists = {"data-other": page.others, "data-request": page.request}
            lists.get(kind, page.parameters).append((self._name, text, name))
