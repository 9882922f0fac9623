"""What one run of the command line knows: its home, its socket, how it speaks."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from agentvault_tui.cli.output import Output
    from agentvault_tui.home import Home
    from agentvault_tui.operator_api.client import OperatorClient
    from agentvault_tui.settings import Settings


def lazily(module: str, name: str) -> Any:
    """Import *name* from *module* only now: ``--help`` must not pay for it."""
    return getattr(importlib.import_module(module), name)


def lazy_room(module: str) -> ModuleType:
    """Import a room of the house only now."""
    return importlib.import_module(f"agentvault_tui.{module}")


@dataclass
class CliSession:
    """The options every command shares, and what follows from them."""

    home_option: str | None = None
    """``--home``, wherever on the line it stood; the last one counts."""
    json: bool = False
    """``--json``: data for a program instead of a person."""
    link: str | None = None
    """``--link``: instead of the setting ``console.link``."""

    @cached_property
    def home(self) -> Home:
        """The vault's folders; they need not exist yet."""
        locate = lazily("agentvault_tui.home", "Home").locate
        return cast("Home", locate(self.home_option))

    @cached_property
    def settings(self) -> Settings:
        """The settings as file, environment and the command line give them.

        Raises:
            SettingsError: one of them is unknown or malformed.
        """
        load = lazily("agentvault_tui.settings", "Settings").load
        return cast("Settings", load(self.home, flags={"console.link": self.link}))

    @cached_property
    def client(self) -> OperatorClient:
        """The operators' HTTP of this home's broker; connects when asked something."""
        make = lazily("agentvault_tui.operator_api.client", "OperatorClient")
        return cast("OperatorClient", make.for_home(self.home))

    @cached_property
    def out(self) -> Output:
        """The way to the terminal."""
        make = lazily("agentvault_tui.cli.output", "Output")
        return cast("Output", make.detect(json_mode=self.json))
