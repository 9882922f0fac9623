"""The refresh tokens of agents' vault users: sealed, in one private file.

They are what an exchange shows the tenant, so they are worth every connected account.
"""

from __future__ import annotations

import base64
import json
import logging
from typing import Any, ClassVar, Final

from agentvault_tui import sealing
from agentvault_tui.errors import SettingsError, TenantError
from agentvault_tui.home import Home, replace_private
from agentvault_tui.model import AgentId
from agentvault_tui.vault import Secret

log = logging.getLogger("agentvault.vault_users")

_KIND: Final = "refresh token"
_VERSION: Final = 1


class Seal(sealing.Seal):
    """The seal of the file."""

    WHOSE: ClassVar[str] = "vault"
    LOST: ClassVar[str] = "every vault user has to sign in again"


class VaultUsers:
    """One refresh token an agent, bound to the agent and the tenant it is good at."""

    def __init__(self, home: Home, issuer: str) -> None:
        """Keep the tokens of the tenant *issuer* in *home*."""
        self._home = home
        self._issuer = issuer

    def refresh_token(self, agent_id: AgentId) -> Secret | None:
        """Return the token of the agent's vault user, opened when it is sent.

        None when there is none, or none that opens: moved, changed, or another's.
        """
        box = self._read().get(agent_id)
        if not isinstance(box, str):
            return None
        try:
            self._open(agent_id, box)
        except (TenantError, ValueError):
            log.warning("the refresh token kept for %s does not open", agent_id)
            return None
        return Secret(lambda: self._open(agent_id, box))

    def keep(self, agent_id: AgentId, token: Secret) -> None:
        """Keep *token* in place of any other; on disk when this returns.

        Raises:
            SettingsError: the file cannot be read or written.
            TenantError: the sealing key is damaged.
        """
        box = Seal.of(self._home).close(
            _KIND, self._owner(agent_id), _VERSION, token.reveal().encode()
        )
        self._write({**self._read(), agent_id: base64.b64encode(box).decode()})

    def forget(self, agent_id: AgentId) -> None:
        """Keep none for the agent.

        Raises:
            SettingsError: the file cannot be read or written.
        """
        kept = self._read()
        if kept.pop(agent_id, None) is not None:
            self._write(kept)

    def _open(self, agent_id: AgentId, box: str) -> str:
        sealed = base64.b64decode(box, validate=True)
        opened = Seal.of(self._home).open(
            _KIND, self._owner(agent_id), _VERSION, sealed
        )
        return opened.decode()

    def _owner(self, agent_id: AgentId) -> str:
        # An issuer has no space: two owners never read the same.
        return f"{self._issuer} {agent_id}"

    def _read(self) -> dict[str, Any]:
        path = self._home.vault_users
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            value = None
        if not isinstance(value, dict):
            raise SettingsError(
                f"{path} cannot be read",
                "restore it, or move it away: vault users then sign in again",
            )
        return value

    def _write(self, value: dict[str, Any]) -> None:
        path = self._home.vault_users
        try:
            replace_private(path, json.dumps(value, indent=1))
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be written ({error.strerror})",
                "make room, or look at its folder",
            ) from error
