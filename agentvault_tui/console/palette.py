"""The command palette: the actions of the front screen, and everything with a name."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, Final, cast

from textual import on
from textual.app import App, SystemCommand
from textual.binding import ActiveBinding
from textual.command import (
    Command as CommandOption,
)
from textual.command import (
    CommandList,
    CommandPalette,
    DiscoveryHit,
    Hit,
    Hits,
)
from textual.content import Content
from textual.screen import Screen
from textual.system_commands import SystemCommandsProvider
from textual.widgets import Input
from textual.worker import Worker, WorkerState

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import key_name
from agentvault_tui.console.dialogs.info import OperatorsDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.messages import GoToAgent
from agentvault_tui.console.screens.base import PaneScreen
from agentvault_tui.console.screens.filtered import FilteredScreen
from agentvault_tui.presenters import theme
from agentvault_tui.presenters.records import StepUpRow
from agentvault_tui.presenters.stepups import subject
from agentvault_tui.text import Shown

_MOVES: Final = frozenset(
    {"down", "up", "page-down", "page-up", "first", "last", "next", "previous"}
    | {"out", "leave", "palette", "quit", "refuse"}
)
"""Actions that only make sense at the key."""
_DECIDES: Final = frozenset(
    {"approve", "deny", "reason", "confirm", "close", "take", "undo"}
)
"""Actions with a key of their own that happen at once: Enter in a list must never do
one."""
_URGENT: Final = frozenset({"step-ups", "panic"})
"""Actions offered before all others, with those that name their agent."""
_OFFERED: Final = 5
"""Step-ups and filters offered before anything is typed; all are found by typing."""
_LONGEST: Final = 90

Command = tuple[str, str, Callable[[], object]]
"""Its name, its kind, and its action."""


def commands(
    app: App[Any], screen: Screen[object], desk: Desk
) -> Iterator[SystemCommand]:
    """Yield the commands that make sense now; their texts are our own."""
    for name, words, keys, act in _actions(app, screen):
        if name not in _URGENT and not _target(screen, name):
            yield SystemCommand(words, keys, act)
    if isinstance(screen, FilteredScreen):
        yield SystemCommand(
            "Saved filters", "put one on, delete one", screen.action_saved_filters
        )
        if screen.bar is not None and screen.bar.text.strip():
            yield SystemCommand(
                "Save this filter",
                f"under a name ({screen.desk.key('save', 'ctrl+s')})",
                screen.name_filter,
            )
            yield SystemCommand("Clear the filter", "Esc", screen.leave_filter)
    yield SystemCommand(
        "Operators",
        "who else is connected, and looks at what",
        lambda: app.push_screen(OperatorsDialog(desk)),
    )
    if "ledger" in desk.mirror.warnings:
        yield SystemCommand(
            "Accept this ledger",
            "take it for the true one from now on",
            desk.link.accept_ledger,
        )
    for name in theme.NAMES:
        yield SystemCommand(
            f"Theme {name}", "change colours", partial(setattr, app, "theme", name)
        )
    yield SystemCommand("Quit", "leave; the broker goes on (ctrl+q)", app.exit)


def _target(screen: Screen[object], name: str) -> str:
    """Return the agent that an action would be about; it is named with it."""
    return screen.target(name) if isinstance(screen, PaneScreen) else ""


def _actions(
    app: App[Any], screen: Screen[object]
) -> Iterator[tuple[str, str, str, Callable[[], Awaitable[object]]]]:
    """Yield the actions of keys at the focus, each action once."""
    actions: dict[str, list[ActiveBinding]] = {}
    for active in screen.active_bindings.values():
        name = active.binding.id
        if name and active.enabled and name not in _MOVES | _DECIDES:
            actions.setdefault(name, []).append(active)
    for name, several in actions.items():
        if isinstance(screen, PaneScreen) and not screen.applies(name):
            continue
        active = several[0]
        words = active.binding.description
        keys = " ".join(key_name(each.binding) for each in several)
        keys = keys.replace("[", r"\[")  # the palette reads this as markup
        act = partial(app.run_action, active.binding.action, active.node)
        yield name, words[:1].upper() + words[1:], f"key {keys}", act


def _shown(text: str, what: str) -> Content:
    """Draw a name and its kind; Textual would read the latter as markup."""
    return Content.assemble(text, "\n", (what, "$text-muted"))


class CommandFinder(CommandPalette):
    """Textual's palette, in which Enter waits for the results of the whole text.

    It would run the first result of an earlier text: another agent's.
    """

    _is_submitted = False
    """Whether Enter came before the results."""

    @on(Input.Submitted)
    def _await_results(self, event: Input.Submitted) -> None:
        """Keep Enter from the palette's own handler while a search is under way."""
        if any(self._searches(one) and not one.is_finished for one in self.workers):
            event.prevent_default().stop()
            self._is_submitted = True

    @on(Input.Changed)
    def _forget_submission(self) -> None:
        self._is_submitted = False

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Run the first result if Enter waits for the search that has ended.

        A result whose letters are only scattered over its words is selected and shown:
        the next Enter runs it.
        """
        ended = event.state is WorkerState.SUCCESS and self._searches(event.worker)
        if ended and self._is_submitted:
            self._is_submitted = False
            if self._has_typed_word():
                self._select_or_command()

    def _has_typed_word(self) -> bool:
        """Check whether the first result has the typed text, at the start of a word."""
        results = self.query_one(CommandList)
        if not results.option_count:
            return False
        first = cast("CommandOption", results.get_option_at_index(0)).hit.text or ""
        typed = re.escape(self.query_one(Input).value.strip())
        return re.search(rf"(?:^|\W){typed}", first, re.IGNORECASE) is not None

    def _searches(self, worker: Worker[object]) -> bool:
        return worker.group == self._GATHER_COMMANDS_GROUP


class NamedCommands(SystemCommandsProvider):
    """Provide waiting step-ups, saved filters and agents by name, then all others.

    One provider has one order: of several, the one that is faster comes first.

    Names are an agent's or a person's: they are drawn as they are, never as markup.
    """

    async def discover(self) -> Hits:
        """Offer what an incident needs and saved filters, before anything is typed.

        First come the requests that wait, the longest wait on top.
        """
        waiting = islice(self._stepups(), _OFFERED)
        filters = islice(self._filters(), _OFFERED)
        stopping = (*self._targeted(), *self._urgent())
        for text, what, act in (*waiting, *stopping, *filters):
            yield DiscoveryHit(_shown(text, what), act, text=text)
        async for hit in super().discover():
            yield hit

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        named = chain(
            *(self._stepups(), self._targeted(), self._urgent(), self._filters()),
            *(self._deletions(), self._agents()),
        )
        for text, what, act in named:
            if (score := matcher.match(text)) > 0:
                yield Hit(score, _shown(text, what), act, text=text)
        async for hit in super().search(query):
            yield hit

    def _targeted(self) -> Iterator[Command]:
        for name, words, keys, act in _actions(self.app, self.screen):
            if target := _target(self.screen, name):
                on_it = partial(self._act_on, name, target, act)
                yield self._clip(f"{words}: {target}"), keys, on_it

    def _urgent(self) -> Iterator[Command]:
        for name, words, keys, act in _actions(self.app, self.screen):
            if name in _URGENT:
                yield Shown(words), keys, act

    async def _act_on(
        self, name: str, target: str, act: Callable[[], Awaitable[object]]
    ) -> None:
        """Act, unless the cursor is on another agent than the command names."""
        if _target(self.screen, name) == target:
            await act()
        else:
            text = f"Nothing was done: the cursor is not on {target} any more"
            self.app.notify(self._clip(text), markup=False)

    def _stepups(self) -> Iterator[Command]:
        for row in self._desk.mirror.open_stepups():
            text = f"Step-up {row.agent_name}: {subject(row)}"
            yield self._clip(text), row.fingerprint, partial(self._open, row)

    def _filters(self) -> Iterator[Command]:
        if not isinstance(self.screen, FilteredScreen):
            return
        for name, text in self._desk.saved.all().items():
            act: Callable[[], Awaitable[None]] = partial(self.screen.use_filter, text)
            yield self._clip(f"Filter {name}"), self._clip(text), act

    def _deletions(self) -> Iterator[Command]:
        for name in self._desk.saved.own():
            act = partial(self._delete, name)
            yield self._clip(f"Delete filter {name}"), "saved by name", act

    def _agents(self) -> Iterator[Command]:
        for agent in self._desk.mirror.agents.values():
            act = partial(self._visit, agent.id)
            yield self._clip(f"Go to {agent.name}"), agent.owner, act

    def _clip(self, text: str) -> Shown:
        return self._desk.mirror.intake.shown(text, _LONGEST)

    @property
    def _desk(self) -> Desk:
        """The desk of the screen in front: it may be one of the past."""
        desk: Desk = self.screen.desk  # type: ignore[attr-defined]
        return desk

    def _open(self, row: StepUpRow) -> None:
        self.app.push_screen(StepUpDialog(self._desk, row))

    def _delete(self, name: str) -> None:
        problem = self._desk.saved.delete(name)
        self.app.notify(problem or f"Deleted filter {name}", markup=False)

    def _visit(self, agent_id: str) -> None:
        self.app.post_message(GoToAgent(agent_id))
