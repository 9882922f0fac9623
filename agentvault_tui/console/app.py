"""The Textual app: themes, palette, navigation between screens, and exit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from textual._compositor import CompositorUpdate
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.events import Event, Key, Paste
from textual.screen import Screen
from textual.theme import Theme
from textual.widget import Widget

from agentvault_tui.clock import Clock
from agentvault_tui.console.desk import LABEL, Desk, name_ways
from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.link.memory import HeadStore
from agentvault_tui.console.messages import (
    GoToAgent,
    ShowAgent,
    ShowAudit,
    ShowKeys,
    ShowList,
    ShowStepUp,
)
from agentvault_tui.console.screens.base import PULSES, PaneScreen, PolledScreen
from agentvault_tui.console.screens.watch import Watch
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.saved import SavedFilters
from agentvault_tui.console.term import over_ssh, textual_theme
from agentvault_tui.console.term.frugal import Painter
from agentvault_tui.console.term.keyed import Keyed
from agentvault_tui.console.term.terminal import TerminalDriver, TerminalWriter
from agentvault_tui.console_settings import ConsoleSettings
from agentvault_tui.presenters import glyphs, theme

if TYPE_CHECKING:
    from textual.command import Provider

    from agentvault_tui.operator_api.remote import BrokerAddress

_GONE: Final = 2.0
"""Seconds between looks whether the terminal is still there."""
_ROUNDS: Final = 8
"""How often the next key waits for messages that the key before has led to."""


def _named_commands() -> type[Provider]:
    from agentvault_tui.console.palette import NamedCommands  # noqa: PLC0415

    return NamedCommands


def _list_screens() -> Mapping[str, type[PolledScreen]]:
    """Return the screens of lists by their names; loaded when the first opens."""
    from agentvault_tui.console.screens import (  # noqa: PLC0415
        alerts,
        calls,
        delegations,
        limits,
        tighten,
    )

    kinds: tuple[type[PolledScreen], ...] = (
        *(alerts.AlertsScreen, calls.CallsScreen, delegations.DelegationsScreen),
        *(limits.LimitsScreen, tighten.AdviceScreen, tighten.PolicyScreen),
    )
    return {kind.SHOWS: kind for kind in kinds}


class ConsoleApp(Keyed, App[int]):
    """Run the console: the link to the broker, the screens, the terminal."""

    TITLE = "AgentVault"
    CSS = """
    SearchIcon { display: none; }
    Toast { border-left: outer $accent; }
    """
    COMMANDS: ClassVar = {_named_commands}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "quit", priority=True, show=False),
        Binding(
            "colon,ctrl+p",
            "command_palette",
            "every command by name",
            show=False,
            id="palette",
        ),
        Binding("ctrl+l", "redraw", "draw the screen again", show=False, id="redraw"),
    ]

    def __init__(
        self,
        desk: Desk,
        *,
        theme_name: str,
        note: str = "",
        config_folder: Path | None = None,
    ) -> None:
        self._themes_known: dict[str, Theme | None] = {}
        # Textual decides before any theme is on how to obey NO_COLOR: told here, it
        # leaves colours out; not told, it would paint grey on grey, or on black.
        super().__init__(TerminalDriver, ansi_color=theme.is_ansi(theme_name) or None)
        self.set_reactive(App.ansi_color, None)
        self.desk = desk
        self._note = note
        self._config_folder = config_folder
        self._following: asyncio.Task[None] | None = None
        self._typed: deque[Key | Paste] = deque()
        """Keys that were typed and not handled yet."""
        self._handling = False
        """Whether a key is on its way through the widgets."""
        self.painter = Painter()
        self.loaded: Callable[[], object] = lambda: None
        """Called when much has been loaded that stays."""
        desk.link.screen_waits = lambda: self._outlet.waits if self._outlet else 0.0
        self.watch_screen = Watch(desk)
        textual_theme.install(self, theme_name)

    def get_default_screen(self) -> Screen[None]:
        return self.watch_screen

    def on_mount(self) -> None:
        """Take the signals that end us; begin to follow after the first frame."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self.exit, 0)
        self.call_after_refresh(self._begin)
        if not self.is_headless:
            self.set_interval(_GONE, self._leave_if_alone)

    def _leave_if_alone(self) -> None:
        """End when the terminal is gone, also where no SIGHUP tells it."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if sys.__stdin__ is not None and not os.isatty(sys.__stdin__.fileno()):
                self.exit(0)

    async def _begin(self) -> None:
        self.loaded()
        await self.watch_screen.complete()
        if not self.watch_screen.is_attached:
            return
        self._take_keymap()
        self.desk.link.loaded = self.loaded
        self._following = asyncio.create_task(self.desk.link.run())
        self._following.add_done_callback(self._ended)
        if self._note:
            self.notify(self._note, markup=False, timeout=8)

    def _take_keymap(self) -> None:
        """Put the user's keys in place; report the invalid parts of their file."""
        folder = self._config_folder
        if folder is None or not (folder / "keymap.toml").exists():
            return
        # What is shipped is known only once every screen is loaded.
        from agentvault_tui.console.screens.agent import AgentScreen  # noqa: PLC0415
        from agentvault_tui.console.screens.audit import AuditScreen  # noqa: PLC0415
        from agentvault_tui.console.screens.past import PastScreen  # noqa: PLC0415
        from agentvault_tui.console.term.keymap import load  # noqa: PLC0415

        screens: tuple[type[PaneScreen], ...] = (
            *(Watch, PastScreen, AuditScreen, AgentScreen),
            *_list_screens().values(),
        )
        places = [(pane, kind, ConsoleApp) for kind in screens for pane in kind.PANES]
        keymap = load(folder, places)
        self.set_keymap(keymap.textual())
        self.desk.keymap = keymap.keys
        self.desk.key_problems = keymap.problems
        self.watch_screen.paint_all()
        if problems := keymap.problems:
            help_key = self.desk.key("help", "?")
            more = f"\n{len(problems) - 3} more: press {help_key}"
            more *= len(problems) > 3
            text = "\n".join(problems[:3])
            self.notify(
                f"{text}{more}",
                title="Not taken from keymap.toml",
                severity="warning",
                markup=False,
                timeout=15,
            )

    def _ended(self, following: asyncio.Task[None]) -> None:
        """Report that the link itself broke: the screen must not be trusted then."""
        if not following.cancelled() and (error := following.exception()):
            reason = f"the console's own link broke ({type(error).__name__})"
            self.desk.mirror.set_link(LinkState.LOST, reason)

    async def on_unmount(self) -> None:
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._following

    def get_theme(self, theme_name: str) -> Theme | None:
        """Return a theme: asked for with every row, and looked up again by Textual."""
        if theme_name not in self._themes_known:
            self._themes_known[theme_name] = super().get_theme(theme_name)
        return self._themes_known[theme_name]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        # Textual's palette is a quarter of it: loaded when it is first opened.
        from agentvault_tui.console.palette import commands  # noqa: PLC0415

        return commands(self, screen, self.desk)

    def watch_theme(self) -> None:
        """Paint the home screen's panes again, also behind another screen."""
        if self.is_running:
            self.watch_screen.paint_all()

    # Navigation: screens are loaded when the first of their kind opens

    def on_show_agent(self, message: ShowAgent) -> None:
        """Show an agent as the pane screen on top has it: now, or in the past."""
        from agentvault_tui.console.screens.agent import AgentScreen  # noqa: PLC0415

        if here := self._pane_screen():
            self.push_screen(AgentScreen(here.desk, message.agent_id))

    def on_show_step_up(self, message: ShowStepUp) -> None:
        from agentvault_tui.console.dialogs.stepup import StepUpDialog  # noqa: PLC0415

        if row := self.desk.mirror.stepups.get(message.stepup_id):
            self.push_screen(StepUpDialog(self.desk, row))

    def on_show_audit(self, message: ShowAudit) -> None:
        """Show the audit at an event, with the filter of the screen that asks."""
        from agentvault_tui.console.screens.audit import AuditScreen  # noqa: PLC0415

        if here := self._pane_screen():
            self.push_screen(AuditScreen(here.desk, message))

    def on_show_list(self, message: ShowList) -> None:
        if here := self._pane_screen():
            self.push_screen(_list_screens()[message.name](here.desk))

    def on_show_past(self) -> None:
        from agentvault_tui.console.screens.past import look_back  # noqa: PLC0415

        back = look_back(self.watch_screen)
        self.run_worker(back, group="past", exclusive=True)

    def on_go_to_agent(self, message: GoToAgent) -> None:
        while not isinstance(here := self.screen, Watch):
            self.pop_screen()
        here.visit(message.agent_id)

    def on_show_keys(self, message: ShowKeys) -> None:
        from agentvault_tui.console.dialogs.info import HelpDialog  # noqa: PLC0415

        self.push_screen(HelpDialog(message.desk, message.bindings))

    def _pane_screen(self) -> PaneScreen | None:
        """Close the dialogs; return the screen they lay over."""
        while self.screen.is_modal:
            self.pop_screen()
        return self.screen if isinstance(self.screen, PaneScreen) else None

    def copy_to_clipboard(self, text: str) -> None:
        """Store copied text for our own inputs; see `clipboard`."""
        self._clipboard = text

    # What is typed

    async def on_event(self, event: Event) -> None:
        """Handle keys one after another.

        Textual forwards each key to the widget that has the focus when it arrives,
        while the key before it may still be on its way to open an input: letters of
        ``:theme`` in one write would be lost, or act on the screen below.
        """
        if not isinstance(event, Key | Paste) or event.is_forwarded:
            await super().on_event(event)
        elif isinstance(event, Key) and event.key == "ctrl+q":
            await super().on_event(event)  # leaving waits for nothing
        else:
            self.desk.absence.press()
            self.watch_screen.view.hold()
            self._typed.append(event)
            if not self._handling:
                await self._next_typed()

    async def _next_typed(self) -> None:
        """Forward the next key or paste, if any, and wait until it was handled."""
        self._handling = bool(self._typed)
        if self._handling:
            screen, target = self.screen, self.focused or self.screen
            await super().on_event(self._typed.popleft())
            self._after(target, partial(self._handled, target, screen, _ROUNDS))

    async def _handled(self, target: Widget, screen: Widget, rounds: int) -> None:
        """Go on once a screen that was opened is mounted, and messages are delivered.

        Enter in an input ends it by a message, whose handler may send another.
        """
        front: Widget = self.screen
        if front is not screen:
            self._after(front, partial(self._handled, front, front, rounds))
        elif rounds and any(n.message_queue_size for n in target.ancestors_with_self):
            self._after(target, partial(self._handled, target, screen, rounds - 1))
        else:
            await self._next_typed()

    def _after(self, node: DOMNode | None, call: Callable[[], object]) -> None:
        """Call when *node* and those above it have taken all messages they have now.

        An unhandled key bubbles up to the app, whose bindings come last.
        """
        while node is not None and node is not self:
            if node.call_later(self._after, node.parent, call):
                return
            node = node.parent  # that one is closing
        self.call_later(call)

    # The terminal

    @property
    def _outlet(self) -> TerminalWriter | None:
        driver = self._driver
        return driver.outlet if isinstance(driver, TerminalDriver) else None

    def _display(self, screen: Screen[object], renderable: Any) -> None:
        """Draw the changes, and nothing while the terminal does not read."""
        if (outlet := self._outlet) is not None:
            if outlet.behind():
                return
            if isinstance(renderable, CompositorUpdate):
                renderable = self.painter.update(renderable)
        super()._display(screen, renderable)

    def terminal_resumed(self, stood: float) -> None:
        """Draw the missed frames; after a long time, believe no earlier one."""
        self.screen.refresh()
        self.desk.link.terminal_stalled(stood)
        if self._outlet is not None:
            self._outlet.settle()

    def on_resize(self) -> None:
        """Take nothing for painted: each terminal keeps something else."""
        self.painter.forget()

    def action_command_palette(self) -> None:
        """Open the palette, unless it is open."""
        from agentvault_tui.console.palette import CommandFinder  # noqa: PLC0415

        if not isinstance(self.screen, CommandFinder):
            self.push_screen(CommandFinder(id="--command-palette"))

    def action_redraw(self) -> None:
        self.painter.forget()
        self.screen.refresh()

    async def action_quit(self) -> None:
        self.exit(0)


def build(
    broker: BrokerAddress,
    *,
    read_only: bool,
    settings: ConsoleSettings,
    clock: Clock,
    memory_folder: Path | None = None,
    config_folder: Path | None = None,
    note: str | None = None,
    known_to: int = 0,
    environ: Mapping[str, str] | None = None,
) -> ConsoleApp:
    """Return the app for *broker*; it connects when it runs.

    The header announces no loosening up to the event *known_to*.
    """
    environ = os.environ if environ is None else environ
    alphabet = glyphs.choose(settings.ascii, environ)
    name, complaint = theme.choose(settings.theme, environ)
    mirror = Mirror(clock, ascii_only=alphabet.ascii_only)
    mirror.loosenings.known_to = known_to
    memory = HeadStore(broker, memory_folder)
    # Nobody sees more often than the screen looks.
    pause = PULSES[settings.link]
    link = BrokerLink(mirror, broker, memory, read_only=read_only, pause=pause)
    saved = SavedFilters(config_folder)
    label = mirror.intake.shown(settings.label, LABEL)
    desk = Desk(link, alphabet, pause, saved=saved, label=label)
    name_ways(desk, broker, environ)
    full_note = ". ".join(text for text in (note, complaint) if text)
    app = ConsoleApp(
        desk,
        theme_name=name,
        note=full_note,
        config_folder=config_folder,
    )
    if over_ssh(environ) or settings.link == "slow":
        # Whatever TEXTUAL_ANIMATIONS asks for: motion is bytes that say nothing.
        app.animation_level = "none"
    return app
