"""`agentvault alerts` of a real broker: sinks, a test of one, and what was given up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.command_line import Answer
from support.vault import serving

Run = Callable[..., Answer]


@pytest.fixture
def av(short: Path, cli: Run) -> Iterator[Run]:
    """Run a command line on a broker of its own, which warns of these sinks later."""
    with serving(short, tenant=False):
        yield partial(cli, "--home", str(short))


@pytest.fixture
def sinks(short: Path, av: Run, tmp_path: Path) -> Path:
    """Two sinks: a file that works, and one where nobody listens."""
    file, written = short / "alerts.toml", tmp_path / "events.jsonl"
    file.write_text(
        f'[sinks.all]\nkind = "file"\npath = "{written}"\n'
        '[sinks.pager]\nkind = "webhook"\nurl = "http://127.0.0.1:9/"\n'
        'secret = "none-yet"\nallow_private = true\n'
        '[[routes]]\nsinks = ["pager"]\nevents = ["panic.on"]\n'
    )
    assert av("alerts", "test", "all").code == 0, "a test reads the file first"
    return written


def test_sinks_are_listed_and_tried(av: Run, sinks: Path) -> None:
    """What goes where, and whether it arrives: exit 0, 1 when not, 4 for no sink."""
    listed = av("alerts", "list")
    assert listed.code == 0
    assert "every event" in listed.out
    assert "panic.on" in listed.out
    taken = av("alerts", "test", "all")
    assert (taken.code, re.sub(r"\d+", "N", taken.out)) == (0, "all: taken in N ms\n")
    # It is a test and no event, so the file, which holds events alone, has none of it.
    told = av("alerts", "test", "all", "--json")
    assert (told.code, told.json["ok"], told.json["problem"]) == (0, True, None)
    refused = av("alerts", "test", "pager")
    assert (refused.code, "no secret none-yet" in refused.out) == (1, True)
    told = av("alerts", "test", "pager", "--json")
    assert (told.code, told.json["ok"], told.json["sink"]) == (1, False, "pager")
    assert av("alerts", "test", "other").code == 4
    assert av("alerts", "dead").out == "no alert was given up\n"
    assert av("alerts", "dead", "--json").out == ""
    assert av("alerts", "retry", "msg_1").code == 4
