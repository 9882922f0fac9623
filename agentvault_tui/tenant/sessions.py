"""One person's way through the activation pages, bound to browser and page both."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final, Literal

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.people import User

Step = Literal["details", "sign-in", "one-time-code", "confirm"]

_PAGES: Final = 32
_PER_CODE: Final = 8
"""Browsers that may have one code open."""
_COOKIE_CHARACTERS: Final = 43
"""Of 256 random bits in base64url."""


@dataclass(slots=True)
class Session:
    """Where one person stands with one code."""

    code_key: str
    user_code: str = field(repr=False)
    browser: str = field(repr=False)
    """SHA-256 of the browser's cookie."""
    expires: Deadline
    step: Step = "details"
    user: User | None = None
    authenticated_at: int | None = None
    pages: list[str] = field(default_factory=list, repr=False)
    """SHA-256 of each form token given out; only the last one acts."""
    used: bool = False
    """Whether the last one has acted."""


class Sessions:
    """Sessions in memory: they are short, and a restart may end them.

    A cookie alone is not enough: cookies do not tell ports apart, so every server on
    127.0.0.1 that a browser visits is sent ours. The form token is in the page alone,
    which no other origin can read, and a GET never shows a session's page. A form
    counts only with both.
    """

    def __init__(self, clock: Clock) -> None:
        """Start with none."""
        self._clock = clock
        self._by_token: dict[str, Session] = {}
        self._key = secrets.token_bytes(32)

    @staticmethod
    def cookie(sent: str | None) -> str:
        """Return the browser's cookie, a fresh one unless it has a well-formed one."""
        if sent and len(sent) == _COOKIE_CHARACTERS and sent.isascii():
            return sent
        return secrets.token_urlsafe(32)

    def first_token(self, cookie: str) -> str:
        """Return the form token of the first page, which has no session yet.

        It is computed, not stored, so that asking for the page costs no memory.
        """
        return hmac.new(self._key, cookie.encode(), "sha256").hexdigest()

    def is_first(self, cookie: str | None, token: str) -> bool:
        """Tell whether *token* is that of the browser with this *cookie*."""
        expected = self.first_token(cookie or "")
        return bool(cookie) and hmac.compare_digest(expected.encode(), token.encode())

    def start(
        self, cookie: str, code_key: str, user_code: str, expires: Deadline
    ) -> Session | None:
        """Begin a session; None when too many are open on this code."""
        self._sweep()
        same = {id(s): s for s in self._by_token.values() if s.code_key == code_key}
        if len(same) >= _PER_CODE:
            return None
        return Session(code_key, user_code, sha256_hex(cookie), expires)

    def page(self, session: Session) -> str:
        """Return a form token for the session's next page."""
        token = secrets.token_urlsafe(32)
        session.pages.append(sha256_hex(token))
        session.used = False
        self._by_token[session.pages[-1]] = session
        if len(session.pages) > _PAGES:
            self.end(session)
        return token

    def take(self, cookie: str | None, token: str) -> tuple[Session | None, bool]:
        """Find the session of a submitted form, and whether the form may act.

        A form sent twice, or from a page left behind, is the right person's and does
        nothing: they are shown where they stand.
        """
        digest = sha256_hex(token)
        session = self._by_token.get(digest)
        if session is None or not cookie:
            return None, False
        if not hmac.compare_digest(session.browser, sha256_hex(cookie)):
            return None, False
        acts = digest == session.pages[-1] and not session.used
        session.used = session.used or acts
        return session, acts

    def end(self, session: Session) -> None:
        """Forget a session and all its pages."""
        for digest in session.pages:
            self._by_token.pop(digest, None)

    def _sweep(self) -> None:
        for session in list(self._by_token.values()):
            if session.expires.passed(self._clock):
                self.end(session)
