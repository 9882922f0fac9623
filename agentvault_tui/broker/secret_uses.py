"""Which services and destinations name a sealed secret, and where it would be sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from agentvault_tui.errors import AgentVaultError
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.vault import Secret

OpenSecret = Callable[[str, Sequence[ServerOrigin] | None], Secret]
"""Opens a sealed secret by its name, for the origins that it would be sent to.

They are all that the caller may connect to with it; None if the secret is itself the
URL that is posted to. Raises `NotForOriginError` where one of them is not listed."""


class SecretUse(NamedTuple):
    """One service or destination that names a secret."""

    kind: Literal["service", "mcp", "sink", "hook"]
    name: str
    """Of the service or destination."""
    secret: str
    origins: tuple[ServerOrigin, ...]
    is_url: bool = False
    """Whether the secret is itself the URL that is posted to."""


SecretUses = Callable[[], Iterable[SecretUse]]


def no_secret(name: str, _: Sequence[ServerOrigin] | None) -> Secret:
    """Refuse: nothing was composed that opens secrets.

    Raises:
        AgentVaultError: always.
    """
    raise AgentVaultError(f"the secret {name} cannot be opened here", "")
