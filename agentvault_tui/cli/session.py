"""The state of one run of the command line: home, settings, client, output.

Rooms are imported when a command runs: ``--help`` must not pay for them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentvault_tui.cli.output import Output
    from agentvault_tui.console_settings import ConsoleSettings
    from agentvault_tui.errors import UnreachableError
    from agentvault_tui.home import Home
    from agentvault_tui.ledger import Ledger
    from agentvault_tui.model import Actor
    from agentvault_tui.operator_api.changes import ChangeInfo
    from agentvault_tui.operator_api.client import OperatorClient
    from agentvault_tui.operator_api.remote import RemoteBroker
    from agentvault_tui.settings import Settings


@dataclass
class CliSession:
    """The options of every command, and their consequences."""

    home_option: str | None = None
    """``--home``, wherever on the line it stood; the last one counts."""
    json: bool = False
    """``--json``: data for a program instead of a person."""
    link: str | None = None
    """``--link``: instead of the setting ``console.link``."""
    connect: str | None = None
    """``--connect``: instead of the setting ``operators.connect``."""
    ca_file: str | None = None
    """``--ca-file``: instead of the setting ``operators.ca_file``."""

    waits: Callable[[CliSession, ChangeInfo], object] | None = None
    """Waits for a change that a command became; see `cli.changes`."""

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

    @property
    def operator(self) -> Actor:
        """The user of this command, as the ledger names them if no broker judges."""
        from agentvault_tui.model import Actor, ActorKind
        from agentvault_tui.trusted_files import user_name

        uid = os.getuid()
        return Actor(ActorKind.OPERATOR, f"uid:{uid}", user_name(uid))

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[Ledger]:
        """Open the ledger of a home that no broker has.

        Raises:
            HomeInUseError: a broker has it, and does not answer.
            LedgerError: it cannot be used.
        """
        from agentvault_tui.clock import SystemClock
        from agentvault_tui.ledger import Ledger

        self.home.prepare()
        ledger = await Ledger.open(
            self.home, clock=SystemClock(), settings=self.settings
        )
        try:
            yield ledger
        finally:
            await ledger.close()

    @property
    def own_home(self) -> Home:
        """The home, where it is the broker's.

        Raises:
            UsageError: a broker elsewhere is meant.
        """
        from agentvault_tui.errors import UsageError

        if self.remote:
            raise UsageError(
                f"it works on a home, and {self.remote} is elsewhere",
                "run it on the broker's machine, without operators.connect",
            )
        return self.home

    @cached_property
    def settings(self) -> Settings:
        """The settings as file, environment and the command line give them."""
        from agentvault_tui.settings import Settings

        return Settings.load(self.home, flags=self._flags)

    @cached_property
    def console_settings(self) -> ConsoleSettings:
        """``[console]``, read without the other sections."""
        from agentvault_tui.console_settings import ConsoleSettings

        return ConsoleSettings.load(self.home, flags=self._flags)

    @property
    def _flags(self) -> dict[str, object]:
        return {
            "console.link": self.link,
            "operators.connect": self.connect,
            "operators.ca_file": self.ca_file,
        }

    @cached_property
    def remote(self) -> RemoteBroker | None:
        """The broker elsewhere that commands work on; None: this home's own.

        Raises:
            SettingsError: the settings cannot be read, or name none.
        """
        from agentvault_tui.errors import SettingsError

        if self.connect is None and not _names_another(self.home):
            return None  # most do not pay for reading all settings
        try:
            operators = self.settings.operators
        except SettingsError:
            if self.connect is None and self.home.operator_socket.exists():
                return None  # cutting off here needs no mended file
            raise
        if self.connect is None and not operators.connect:
            return None
        from agentvault_tui.operator_api.remote import RemoteBroker
        from agentvault_tui.trusted_files import check_named_file

        file = operators.ca_file
        if file and self.ca_file is None:  # of the file: below its folder
            file = str(self.home.config / Path(file).expanduser())
            check_named_file(Path(file))
        return RemoteBroker(operators.connect, file)

    @cached_property
    def client(self) -> OperatorClient:
        """The client of the broker; it connects when used."""
        from agentvault_tui.operator_api.client import OperatorClient

        client = OperatorClient(self.remote or self.home.operator_socket)
        if self.waits is not None:
            client.on_change = partial(self.waits, self)
        return client

    @cached_property
    def out(self) -> Output:
        """The terminal's output."""
        from agentvault_tui.cli.output import Output

        return Output.detect(json_mode=self.json)


def _names_another(home: Home) -> bool:
    """Check whether the settings may name a broker elsewhere."""
    if os.environ.get("AGENTVAULT_OPERATORS_CONNECT"):
        return True
    try:
        return b"connect" in home.config_file.read_bytes()
    except OSError:
        return False  # who needs it says what is wrong with it


def sign_in_needed(error: UnreachableError, who: str) -> UnreachableError:
    """Explain that *who* needs a broker, to which they prove who they are."""
    return type(error)(
        f"{error.what}, and {who} who signs in there ([operators] roles is claim)",
        "agentvault serve, then agentvault login",
    )
