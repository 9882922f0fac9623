"""The refresh tokens of agents' vault users: sealed, in one private file.

They are what an exchange shows the tenant, so they are worth every connected account.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from agentvault_tui import sealing
from agentvault_tui.errors import SettingsError, TenantError
from agentvault_tui.home import Home, replace_private
from agentvault_tui.model import AgentId
from agentvault_tui.vault import Secret

log = logging.getLogger("agentvault.vault_users")

_KIND: Final = "refresh token"
_VERSION: Final = 1


class VaultUsersSeal(sealing.Seal):
    """The seal of the file."""

    WHOSE: ClassVar[str] = "vault"
    LOST: ClassVar[str] = "every vault user has to sign in again"


@dataclass(frozen=True, slots=True)
class VaultUser:
    """Whose accounts an agent uses, as the tenant knows them."""

    sub: str
    name: str
    """What the tenant calls them: untrusted."""
    refresh_token: Secret
    """Good for the client it was issued to alone: the agent's own."""
    client_id: str = ""
    """That client; empty where an earlier version kept none."""


class VaultUsers:
    """One vault user an agent; the seal binds the token to both and to the tenant."""

    def __init__(self, home: Home, issuer: str) -> None:
        """Keep the users of the tenant *issuer* in *home*."""
        self._home = home
        self._issuer = issuer
        self._seen: tuple[int, ...] | None = None
        self._known: dict[str, Any] = {}

    def of(self, agent_id: AgentId) -> VaultUser | None:
        """Return the agent's vault user, its token opened when it is sent.

        None when there is none, or none that opens: moved, changed, or another's.

        Raises:
            SettingsError: the file cannot be read.
        """
        one = self._read().get(agent_id) or {}
        match one:
            case {"sub": str(sub), "name": str(name), "token": str(box)}:
                owner = self._owner(agent_id, sub)
                client_id = str(one.get("client", ""))
            case _:
                return None
        try:
            self._open(owner, box)
        except (TenantError, ValueError):
            log.warning("the refresh token kept for %s does not open", agent_id)
            return None
        token = Secret(lambda: self._open(owner, box))
        return VaultUser(sub, name, token, client_id)

    def sub_of(self, agent_id: AgentId) -> str | None:
        """Return who the agent's vault user is, also where the token does not open.

        A revocation ends at the tenant what we cannot use ourselves any more.

        Raises:
            SettingsError: the file cannot be read.
        """
        return self.subs()(agent_id)

    def subs(self) -> Callable[[AgentId], str | None]:
        """Read the file once; return what tells who an agent's vault user is.

        Raises:
            SettingsError: the file cannot be read.
        """
        known = self._read()

        def sub_of(agent_id: AgentId) -> str | None:
            match known.get(agent_id):
                case {"sub": str(sub)}:
                    return sub
            return None

        return sub_of

    def keep(self, agent_id: AgentId, user: VaultUser) -> None:
        """Keep *user* in place of any other; on disk when this returns.

        Raises:
            SettingsError: the file cannot be read or written.
            TenantError: the sealing key is damaged.
        """
        box = VaultUsersSeal.of(self._home).close(
            _KIND,
            self._owner(agent_id, user.sub),
            _VERSION,
            user.refresh_token.reveal().encode(),
        )
        token = base64.b64encode(box).decode()
        one = {"sub": user.sub, "name": user.name, "token": token}
        if user.client_id:
            one["client"] = user.client_id
        self._write({**self._read(), agent_id: one})

    def holds(self, agent_id: AgentId, user: VaultUser) -> bool:
        """Tell whether the token kept for the agent is *user*'s, and no later one.

        Raises:
            SettingsError: the file cannot be read.
        """
        kept = self.of(agent_id)
        token = user.refresh_token.reveal()
        return kept is not None and kept.refresh_token.reveal() == token

    def forget(self, agent_id: AgentId) -> None:
        """Keep none for the agent.

        Raises:
            SettingsError: the file cannot be read or written.
        """
        kept = {**self._read()}
        if kept.pop(agent_id, None) is not None:
            self._write(kept)

    def _open(self, owner: str, box: str) -> str:
        sealed = base64.b64decode(box, validate=True)
        return (
            VaultUsersSeal.of(self._home).open(_KIND, owner, _VERSION, sealed).decode()
        )

    def _owner(self, agent_id: AgentId, sub: str) -> str:
        return json.dumps([self._issuer, agent_id, sub])

    def _read(self) -> dict[str, Any]:
        """Return what the file says, read again when it is another: asked for often."""
        path = self._home.vault_users
        try:
            stat = path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen == self._seen:
                return self._known
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
        self._seen, self._known = seen, value
        return value

    def _write(self, value: dict[str, Any]) -> None:
        path = self._home.vault_users
        self._seen = None
        try:
            replace_private(path, json.dumps(value, indent=1))
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be written ({error.strerror})",
                "make room, or look at its folder",
            ) from error
