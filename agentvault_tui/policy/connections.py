"""Connections stand for scopes of the catalogue, and for no others."""

from __future__ import annotations

from collections.abc import Mapping

from agentvault_tui.errors import SettingsError
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.settings import ConnectionSettings
from agentvault_tui.text import visible


def check_connections(
    connections: Mapping[str, ConnectionSettings], catalogue: Catalogue
) -> None:
    """Refuse connections that stand for scopes nobody knows.

    Raises:
        SettingsError: with the unknown scope and the nearest known ones.
    """
    for name, connection in connections.items():
        for scope in connection.scopes:
            if scope not in catalogue:
                near = " or ".join(catalogue.nearest(scope))
                raise SettingsError(
                    f"connections.{name} names the unknown scope {visible(scope, 60)}",
                    f"did you mean {near}" if near else "agentvault policy check",
                )
