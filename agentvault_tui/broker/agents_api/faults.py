"""What goes wrong before a use-case is reached, in OAuth's words."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from agentvault_tui.text import clip
from agentvault_tui.web.reply import Header, Reply, json_reply

_LONGEST: Final = 500
_SAFE: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]{0,500}")
"""RFC 6749 section 5.2: what ``error_description`` may hold."""
_ASCII: Final = str.maketrans(
    {"‘": "'", "’": "'", "“": "'", "”": "'", "–": "-", "—": "-", "\n": " ", "\r": " "}
)
_REPLACED: Final = str.maketrans({'"': "'", "\\": "/"})
_CHALLENGE: Final = (b"www-authenticate", b'Basic realm="agentvault", charset="UTF-8"')


class OAuthError(Exception):
    """A request that gets an error answer."""

    def __init__(
        self, status: int, error: str, text: str, headers: tuple[Header, ...] = ()
    ) -> None:
        """Keep *status* and OAuth *error* code with the sentence."""
        super().__init__(text)
        self.status = status
        self.error = error
        self.text = text
        self.headers = headers

    def reply(self) -> Reply:
        """Return the error as RFC 6749 section 5.2 writes it."""
        return error_reply(self.status, self.error, self.text, self.headers)


def error_reply(
    status: int,
    error: str,
    text: str,
    headers: tuple[Header, ...] = (),
    **more: object,
) -> Reply:
    """Return an error answer; *text* may hold anything."""
    body = {"error": error, "error_description": describable(text), **more}
    return json_reply(status, body, *headers)


def describable(text: str) -> str:
    """Bring *text* to the characters ``error_description`` may hold, still readable."""
    if _SAFE.fullmatch(text):
        return text
    plain = unicodedata.normalize("NFKD", text[: _LONGEST * 2].translate(_ASCII))
    letters = "".join(c for c in plain if not unicodedata.combining(c))
    return clip(letters, _LONGEST, ascii_only=True).translate(_REPLACED)


def malformed(text: str) -> OAuthError:
    """Return the fault of a request that makes no sense."""
    return OAuthError(400, "invalid_request", text)


def bad_client() -> OAuthError:
    """Return the one fault of every failed authentication: it tells nothing apart."""
    text = (
        "client authentication failed: no client with this id and this secret or key "
        "is registered at this broker; one of another home is not known here"
    )
    return OAuthError(401, "invalid_client", text, headers=(_CHALLENGE,))


def unavailable(text: str, seconds: int) -> OAuthError:
    """Return the fault of a broker that cannot answer now."""
    retry = (b"retry-after", b"%d" % seconds)
    return OAuthError(503, "temporarily_unavailable", text, headers=(retry,))
