"""How the command line speaks: pure JSON, aligned columns, moments, event streams."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import convert

from agentvault_tui.cli.audit import print_event
from agentvault_tui.cli.device import print_qr
from agentvault_tui.cli.output import (
    Output,
    ascii_terminal,
    one_line,
    short_time,
    to_json,
)
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.text import cell_width

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(ANY_JSON)
@example("\x7f")
def test_json_is_one_line_of_printable_ascii(value: Any) -> None:
    """Whatever an agent wrote, JSON carries no control character and reads back."""
    text = to_json(value)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == value


@given(st.text())
def test_a_message_is_one_printable_line(text: str) -> None:
    """An error line cannot be broken, whatever it quotes."""
    assert "\n" not in one_line(text)
    assert "\x1b" not in one_line(text)


def test_an_event_names_the_agent_it_is_about(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the tenant or the broker did about an agent says about which."""
    event: dict[str, Any] = {
        "seq": 7,
        "time": "2026-11-24T10:00:00.000000Z",
        "type": "tenant.log",
        "actor": {"kind": "tenant", "id": "tenant", "name": "tenant"},
        "agent_id": "agt_1",
        "action": "sede",
        "resource": None,
        "outcome": None,
        "reason": "device sign-in gave tokens",
        "rule": None,
        "decision_id": None,
        "detail": {"type": "sede"},
        "hash": "",
    }
    named = {**event, "detail": {"agent": "calendar-agent"}}
    print_event(Output(colour=False), convert(event, EventInfo))
    print_event(Output(colour=False), convert(named, EventInfo))
    first, second = capsys.readouterr().out.splitlines()
    assert re.search(r"agt_1 +device sign-in gave tokens$", first)
    assert "calendar-agent" in second
    assert "agt_1" not in second


@pytest.mark.parametrize("colour", [True, False])
def test_table_columns_are_aligned_by_cell_width(
    colour: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wide characters and colours do not push a column off its place."""
    out = Output(colour=colour)
    out.table(
        ("NAME", "N"),
        [[out.cell("日本", "strong"), out.cell(1)], [out.cell("abcdef"), out.cell(22)]],
    )
    rows = capsys.readouterr().out.splitlines()
    plain = [row.replace("\x1b[1m", "").replace("\x1b[0m", "") for row in rows]
    assert plain[1:] == ["日本    1", "abcdef  22"]
    assert any("\x1b[1m" in row for row in rows) is colour


def test_a_table_fits_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The widest column gives way, so that no row wraps; an id never does."""
    out = Output(terminal=True, width=40)
    row = [out.cell("x" * 80), out.cell("short"), out.cell("sup_pmq5h75jzqvcz9v3")]
    out.table(("A", "B", "ID"), [row])
    for line in capsys.readouterr().out.splitlines():
        assert cell_width(line) <= 40
    assert "short" in line
    assert "sup_pmq5h75jzqvcz9v3" in line


@pytest.mark.parametrize(("width", "lines"), [(80, 3), (120, 2)])
def test_a_table_of_requests_shows_ids_and_times_whole(
    width: int, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Columns that do not fit follow on indented lines: none wraps or is cut."""
    out = Output(terminal=True, width=width)
    ids = ("sup_pmq5h75jzqvcz9v3", "calendar-agent-of-finance")
    ends = short_time("2026-12-02T16:34:12.000000Z", NOW)
    wants = "send:payment 4,200.00 USD to Northwind GmbH and 2 more"
    row = [
        *ids,
        out.cell("verifying"),
        "1273",
        ends,
        out.cell(wants),
        out.cell("x" * 40),
    ]
    out.table(
        ("ID", "AGENT", "STATUS", "FINGERPRINT", "EXPIRES", "WANTS", "ON"),
        [row, row],
        keep=("WANTS",),
    )
    rows = capsys.readouterr().out.splitlines()
    assert all(cell_width(line) <= width for line in rows)
    assert [line[:1] for line in rows] == ["I", *" " * (lines - 1)] + 2 * [
        "s",
        *" " * (lines - 1),
    ]
    for text in (*ids, "1273", "2026-12-02 16:34Z", wants):
        assert sum(text in line for line in rows) == 2
    assert rows[lines].index("1273") == rows[0].index("FINGERPRINT")


def test_a_value_wider_than_the_terminal_is_broken_at_spaces(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A column that must be whole and has no room on a line continues on more."""
    out, text = Output(terminal=True, width=40), "grants send:payment to coder " * 3
    out.table(("ID", "CHANGE"), [["chg_1", out.cell(text)]], keep=("CHANGE",))
    rows = capsys.readouterr().out.splitlines()
    assert all(cell_width(line) <= 40 for line in rows)
    assert " ".join(" ".join(rows[3:]).split()) == text.strip()


@pytest.mark.parametrize("width", [80, 120])
def test_an_event_does_not_wrap(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    """If columns of fixed widths do not fit, the last ones follow below, whole."""
    out = Output(terminal=True, width=width)
    why = "not granted to this agent: read:records; granted: send:payment " * 2
    texts = ("1842", "2026-12-01T16:34:12Z", "denied", "agent", "read:records", why)
    widths = (7, 20, 8, 18, 20, 0)
    out.row(*((n, out.cell(text)) for n, text in zip(widths, texts, strict=True)))
    rows = capsys.readouterr().out.splitlines()
    assert all(cell_width(line) <= width for line in rows)
    assert rows[0].startswith("1842     2026-12-01T16:34:12Z  denied    agent")
    assert " ".join(" ".join(rows).split()).endswith(why.strip())


def test_a_time_has_its_date_if_the_day_is_another_one() -> None:
    """A time of tomorrow must not look like one of today that has passed."""
    assert short_time("2026-11-24T16:34:12.000000Z", NOW) == "16:34:12Z"
    assert short_time("2026-11-25T16:34:12.000000Z", NOW) == "2026-11-25 16:34Z"
    assert short_time(None, NOW) == ""


def test_a_qr_code_is_printed_whole_or_not_at_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Too narrow a terminal gets none; ASCII gets one without a glyph."""
    url = "http://127.0.0.1:35543/activate?user_code=KDRT-WZNB"
    print_qr(Output(terminal=True, width=30), url)
    assert capsys.readouterr().out == ""
    print_qr(Output(terminal=True, width=120, ascii_only=True), url)
    drawn = capsys.readouterr().out
    assert drawn.isascii()
    assert "\x1b[107m  " in drawn


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LANG": "C.UTF-8"}, False),
        ({"LANG": "de_DE.utf8"}, False),
        ({"LANG": "C"}, True),
        ({"LANG": "de_DE.ISO-8859-1"}, True),
        ({"LC_ALL": "POSIX", "LANG": "C.UTF-8"}, True),
        # Python puts this LC_CTYPE there itself when LANG is C (PEP 538).
        ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, True),
        ({"LC_CTYPE": "de_DE.UTF-8", "LANG": "C"}, False),
        ({}, False),
    ],
)
def test_ascii_output_follows_lc_all_lc_ctype_and_lang(
    environ: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person's locale decides, not what Python made of it."""
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert ascii_terminal() is expected


def test_ascii_output_when_stdout_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that is not UTF-8 gets ASCII, so that no line fails to print."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "latin-1"))
    assert ascii_terminal() is True


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_color_and_dumb_terminals_switch_colour_off(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR and a dumb terminal each switch colour off."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Output.detect().colour is True
    monkeypatch.setitem(os.environ, variable, value)
    assert Output.detect().colour is False
