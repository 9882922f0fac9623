"""Screens of one app at every size, held against those that were last looked at.

An app is started once and resized: a screen costs a frame, not a start. What stands in
the cells is held as text, at all sizes in one file; colours by an SVG where looks are
the point. An SVG that differs stands in the report of pytest-textual-snapshot.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from pytest_textual_snapshot import (
    PseudoApp,
    PseudoConsole,
    SVGImageExtension,
    node_to_report_path,
)
from rich.console import Console
from support.console_scenes import console
from support.fake_operator import FakeOperator
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from textual.app import App
from textual.pilot import Pilot

from agentvault_tui.console.app import ConsoleApp

SMALL, MIDDLE, LARGE = SIZES = ((80, 24), (120, 40), (200, 60))
LOOKS = {"colour": ("agentvault", "no"), "mono": ("mono", "yes")}
"""Theme and whether in ASCII: what is told by colour must be told without."""

LIGHT = ("agentvault-light", "no")
SMALLEST = ((40, 10),)

Play = Callable[[Pilot[Any]], Awaitable[object]]
Size = tuple[int, int]


def wearing(look: tuple[str, str], fake: FakeOperator, folder: Path) -> ConsoleApp:
    """Return a console in a theme, with drawn glyphs or in ASCII."""
    theme, alphabet = look
    return console(fake.socket, folder, theme=theme, alphabet=alphabet)


def painted(app: App[Any]) -> str:
    """Return what stands in the cells of the screen, row by row."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


class TextExtension(SingleFileSnapshotExtension):
    """Keep a snapshot as a text file of its own."""

    _file_extension = "txt"
    _write_mode = WriteMode.TEXT


class Gallery:
    """What a test's screens are compared with."""

    def __init__(self, snapshot: SnapshotAssertion, node: Any) -> None:
        self._text = snapshot.use_extension(TextExtension)
        self._svg = snapshot.use_extension(SVGImageExtension)
        self._node = node

    async def differs(
        self,
        app: App[Any],
        play: Play,
        *,
        ready: Play | None = None,
        sizes: Iterable[Size] = SIZES,
        svg: Size | None = None,
        name: str = "cells",
    ) -> list[str]:
        """Return in what *app* looks otherwise than it did.

        Args:
            app: what is run, at the first size.
            play: leads to what is to be seen, once.
            ready: waits until all is drawn, at each size.
            sizes: the terminal's sizes, one after the other.
            svg: the size at which colours are held too.
            name: of the text, where a test has several.
        """
        first, *others = sizes
        cells, pictures = [], {}
        async with app.run_test(size=first) as pilot:
            await play(pilot)
            for size in (first, *others):
                if size != first:
                    await pilot.resize_terminal(*size)
                if ready is not None:
                    await ready(pilot)
                await pilot.pause()
                cells.append(f"{size[0]}x{size[1]}\n{painted(app)}\n")
                if size == svg:
                    pictures[f"{size[0]}x{size[1]}"] = app.export_screenshot(
                        title=app.title, simplify=True
                    )
        text = self._text(name=name)
        differ = [] if text == "\n".join(cells) else [str(text)]
        return differ + [
            size for size, picture in pictures.items() if not self._same(size, picture)
        ]

    async def differs_apart(
        self,
        make: Callable[[], App[Any]],
        play: Play,
        *,
        ready: Play | None = None,
        svg: Size | None = None,
    ) -> list[str]:
        """Do the same where keys lead elsewhere in one column: it is played twice."""
        narrow = await self.differs(
            make(), play, ready=ready, sizes=SIZES[:1], name="narrow"
        )
        return narrow + await self.differs(
            make(), play, ready=ready, sizes=SIZES[1:], svg=svg, name="wide"
        )

    def _same(self, name: str, svg: str) -> bool:
        """Compare, and leave what the report is made of."""
        snapshot = self._svg(name=name)
        same = bool(snapshot == svg)
        path, line, test = self._node.reportinfo()
        console = Console(legacy_windows=False, force_terminal=True)
        known = snapshot.executions[snapshot.num_executions - 1].final_data is not None
        report = (
            *(same, str(snapshot), svg),
            PseudoApp(PseudoConsole(console.legacy_windows, console.size)),
            *(path, line, f"{test} {name}"),
            *(inspect.getdoc(self._node.function) or "", "", known),
        )
        there = node_to_report_path(self._node)
        there.with_name(f"{there.name}_{name}").write_bytes(pickle.dumps(report))
        return same


@pytest.fixture
def gallery(snapshot: SnapshotAssertion, request: pytest.FixtureRequest) -> Gallery:
    return Gallery(snapshot, request.node)
