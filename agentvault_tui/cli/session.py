"""The state of one run of the command line: home, settings, client, output.

Rooms are imported when a command runs: ``--help`` must not pay for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentvault_tui.cli.output import Output
    from agentvault_tui.home import Home
    from agentvault_tui.operator_api.client import OperatorClient
    from agentvault_tui.settings import Settings


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
        """The vault's folders; they need not exist yet.

        Raises:
            SettingsError: someone else could swap them, or a restore is not finished.
        """
        from agentvault_tui.errors import SettingsError
        from agentvault_tui.home import Home

        home = Home.locate(self.home_option)
        if home.unfinished.exists():
            raise SettingsError(
                f"a restore into {home.data} was not finished",
                "run it again with the same file: agentvault restore FILE",
            )
        return home

    @cached_property
    def settings(self) -> Settings:
        """The settings as file, environment and the command line give them."""
        from agentvault_tui.settings import Settings

        return Settings.load(self.home, flags={"console.link": self.link})

    @cached_property
    def client(self) -> OperatorClient:
        """The client of this home's broker; it connects when used."""
        from agentvault_tui.operator_api.client import OperatorClient

        return OperatorClient.for_home(self.home)

    @cached_property
    def out(self) -> Output:
        """The terminal's output."""
        from agentvault_tui.cli.output import Output

        return Output.detect(json_mode=self.json)
