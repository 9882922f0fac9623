"""Render the pages: untrusted values become visible text, and HTML escapes it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.clock import iso
from agentvault_tui.headline import headline, wish
from agentvault_tui.model.waiting import UNSEEN_PARTS
from agentvault_tui.tenant.codes import StoredDeviceCode
from agentvault_tui.tenant.details import (
    PageBody,
    PageTexts,
    StepUpDetails,
    member_rows,
)
from agentvault_tui.text import Shown, in_full, visible

_HERE: Final = Path(__file__).parent
_STYLE: Final = (_HERE / "static" / "tenant.css").read_bytes()
STYLE_PATH: Final = f"/activate/{hashlib.sha256(_STYLE).hexdigest()[:16]}.css"
_COOKIE_CHARACTERS: Final = 43
"""Of 256 random bits in base64url."""
_STATUSES: Final = {
    "no_such_code": 400,
    "too_many_tries": 429,
    "stale_form": 403,
    "code_over": 410,
    "wrong_sign_in": 403,
    "wrong_otp": 403,
    "used_otp": 403,
    "locked": 429,
    "busy": 503,
    "blocked": 403,
    "bad_request": 400,
    "bad_passkey": 403,
    "passkey_copied": 403,
    "passkey_needed": 403,
    "not_yours": 403,
    "changed": 409,
}
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Not no-referrer: under that, browsers send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
}


def request_view(what: StepUpDetails) -> dict[str, object]:
    """Return the approval's content, displayable, each text in full.

    The agent's own reason is not among it (T-08). `scope` is every scope the token will
    carry, where that is more than the action.
    """
    texts = ("agent_id", "agent_name", "action", "resource", "why", "requested_on",
             "connection", "scope", "change")  # fmt: skip
    values = {name: getattr(what, name) for name in texts}
    if what.scope == what.action:
        values["scope"] = None
    shown = {n: None if v is None else in_full(v) for n, v in values.items()}
    return {
        **shown,
        "fingerprint": what.fingerprint,
        "headline": headline_of(what),
        "parameters": _rows(what.parameters.items(), what.amount),
        "risk": what.risk.value,
        "requested_at": f"{what.requested_at:%Y-%m-%d %H:%M:%S} UTC",
        "requested_at_iso": iso(what.requested_at),
        "others": _rows(what.others()),
        "texts": _texts(what.texts),
        "more_texts": what.texts.more,
        "request": None if what.request is None else _rows(what.request.rows()),
        "warning": in_full(what.request.warning) if what.request else "",
        "repeat": what.repeat and what.repeat.words(),
        "unlimited": what.unlimited,
        "unseen": UNSEEN_PARTS if what.token_alone else None,
        "ttl": what.ttl,
    }


def headline_of(what: StepUpDetails) -> Shown:
    """Word the request's headline, as every other face does."""
    wanted = wish(
        *(what.action, what.resource, what.parameters, what.money),
        unlimited=what.unlimited,
        connection=what.connection,
        change=what.why if what.change is not None else None,
    )
    return headline(what.agent_name, wanted)


def _texts(shown: PageTexts) -> list[dict[str, object]]:
    """Return the lines that differ, displayable, each with its kind."""
    kinds = {"+": "added", "-": "removed", "@": "place"}
    return [
        {
            "name": in_full(text.name),
            "lines": [(in_full(one), kinds.get(one[:1], "same")) for one in text.lines],
            "left": text.left,
        }
        for text in shown.texts
    ]


def body_view(body: PageBody) -> dict[str, object]:
    """Return the body of a held call, displayable."""
    return {
        "summary": in_full(body.summary),
        "members": _rows(body.members),
        "lost": in_full(body.warning) if body.lost else None,
        "left": body.left,
        "cut": body.cut,
        "too_large": body.too_large,
    }


def _rows(
    members: Iterable[tuple[str, object]], amount: str = ""
) -> tuple[tuple[Shown, Shown, str, Shown | None], ...]:
    """Return name, text, kind, and the value as it was sent if the text is another.

    *amount*, if there is one, is shown in the place of the member of this name.
    """
    return tuple(
        (in_full(name), in_full(amount), kind, in_full(value))
        if amount and name == "amount"
        else (in_full(name), in_full(value), kind, None)
        for name, value, kind in member_rows(members)
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a page is shown again: a code for programs, a text for people."""

    code: str
    text: str


class Views:
    """The templates, and the headers every page has."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._host = visible(issuer.split("/")[2], 60)
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def page(
        self, name: str, problem: Problem | None = None, **values: object
    ) -> Response:
        html = self._templates.get_template(f"{name}.html").render(
            step=name,
            problem=problem,
            issuer=self._issuer,
            host=self._host,
            style=STYLE_PATH,
            **{"user": None, **values},
        )
        status = 200 if problem is None else _STATUSES[problem.code]
        return Response(html, status, headers=_HEADERS, media_type="text/html")

    def step(
        self,
        name: str,
        code: StoredDeviceCode,
        user_code: str,
        form_token: str,
        problem: Problem | None = None,
        **values: object,
    ) -> Response:
        """Return a page of the device flow, with the request and its end."""
        return self.page(
            name,
            problem,
            asked=None if code.details is None else request_view(code.details),
            origin=None if code.origin is None else in_full(code.origin),
            user_code=user_code,
            form_token=form_token,
            ends=iso(code.ends),
            ends_at=f"{code.ends:%H:%M:%S} UTC",
            issued_at=f"{code.created_at:%H:%M:%S} UTC",
            usable_until=f"{code.expires.wall:%H:%M:%S} UTC",
            **values,
        )


def browser_cookie(sent: str | None) -> str:
    """Return the browser's cookie, a fresh one unless it *sent* a well-formed one."""
    if sent and len(sent) == _COOKIE_CHARACTERS and sent.isascii():
        return sent
    return secrets.token_urlsafe(32)


async def stylesheet(_: Request) -> Response:
    """Return the one stylesheet; its name changes with its content."""
    headers = {"cache-control": "max-age=31536000, immutable"}
    return Response(_STYLE, headers=headers, media_type="text/css")
