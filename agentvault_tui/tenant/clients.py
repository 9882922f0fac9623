"""The one client there is: the broker that runs this tenant."""

from __future__ import annotations

import hmac
from typing import Final

from agentvault_tui.model import sha256_hex

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"


class Client:
    """A public client whose id is made for one run of the broker and never stored.

    A public client has no secret (RFC 6749 section 2.1): what a process that knows
    the id can start is an assertion about a person, and the broker accepts one only
    for a code that it asked for itself.
    """

    def __init__(self, client_id: str) -> None:
        """Know the client by its id; `key` stands for it in the store."""
        self.client_id = client_id
        self.key = sha256_hex(client_id)
        self.grants = frozenset({DEVICE_GRANT})

    def __repr__(self) -> str:
        """Keep the id out of logs."""
        return f"Client({self.key[:8]})"

    def known_as(self, client_id: str) -> bool:
        """Tell whether *client_id* is this client's."""
        return hmac.compare_digest(sha256_hex(client_id), self.key)
