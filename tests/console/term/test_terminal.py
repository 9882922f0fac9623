"""The console in a real terminal: the bytes it paints, and how it leaves."""

from __future__ import annotations

import gc
import json
import os
import re
import select
import signal
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.console_scenes import HOSTILE, busy
from support.console_terminal import LEAVING, Open, press
from support.fake_operator import FakeOperator
from support.fake_past import remember
from support.fake_state import START
from support.patience import PATIENT
from support.terminal import Terminal

from agentvault_tui.clock import iso
from agentvault_tui.console import run
from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.term.terminal import TerminalWriter, WakingEvent
from agentvault_tui.console_settings import ConsoleSettings
from agentvault_tui.home import Home

_CSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_POINTER = "\x1b]22;default\x07"
"""Textual's own, before the first frame: the shape of the mouse pointer."""
_OSC52 = re.compile(r"\x1b\]52;c;[A-Za-z0-9+/=]*(?:\x07|\x1b\\)")
_MOUSE = ("\x1b[?1000h", "\x1b[?1003h", "\x1b[?1015h", "\x1b[?1006h")


def _shown(text: str) -> str:
    """What was painted, without the sequences a terminal understands."""
    return re.sub(r"\x1b[=>78]|\x1b\[\?2026\$p", "", _CSI.sub("", text))


CHOSEN = [*HOSTILE, "\x1b[777z", "\x1b]8;;http://x\x07y"]
"""What agents, operators and the tenant call themselves, and ask for."""


def _enemies(fake: FakeOperator) -> None:
    """Every foreign text there is, on every object, now and in the past."""
    for number, text in enumerate(CHOSEN):
        agent = fake.add_agent(
            f"{number}{text}", text, "read:email", owner=text, purpose=text
        )
        fake.add_token(agent, text, 3600)
        fake.decide(agent, text, "denied", resource=text, reason=text, rule=text)
        fake.add_event("agent.revoked", agent, reason=text)
        fake.add_stepup(
            agent, action=text, resource=text, reason=text, parameters={text: text}
        )
    fake.warnings.append(HOSTILE[1])
    fake.doubts.append(HOSTILE[2])
    fake.panic.update(on=True, since=iso(START), by=HOSTILE[0], reason=HOSTILE[1])
    remember(fake)
    fake.panic.update(on=False)


WALK = (
    # keys, and what stands there then; after a minus, what no longer does
    ("j\t\tkk", "HELD"),
    ("/red", "hidden"),
    ("\x1b", "-hidden"),
    ("\t", "Enter agent"),
    ("\r", "Last 24 hours"),
    ("L", "on screen verified here"),
    ("k\r", "Raw body"),
    ("v", "nothing in it is masked"),
    ("\x1b", "-Raw body"),
    ("o", "Last 24 hours"),
    ("s", "Step-ups  10 waiting"),
    ("\r", "the agent says (unverified)"),
    ("v", "in full"),
    ("\x1b", "-in full"),
    ("\x1b", "-approve, 2nd factor"),
    ("\x1b", "-Step-ups  10"),
    ("r", "Still works"),
    ("\x1b", "-Still works"),
    (":", "Search for commands"),
    ("go to", "Go to"),
    ("\x1b", "-Go to"),
    ("\x1b", "-Last 24 hours"),
    ("e", "Enter export"),
    ("\x1b", "-Enter export"),
    ("\x1b", "20 on screen verified"),
    ("\x1b", "Last 24 hours"),
    ("\x1b", "-Last 24 hours"),
    ("t", "PANIC then"),
    ("\r", "Last 24 hours"),
    ("\x1b", "-Last 24 hours"),
    ("L", "verified here"),
    ("k\r", "Raw body"),
)
"""Through every screen and most dialogs, and back."""


def _leave(screen: Terminal, gone: str) -> None:
    """Press Esc, and wait until *gone* is on the screen no more."""
    screen.write("\x1b")
    screen.read_until(lambda _: all(gone not in row for row in screen.display))


def test_no_screen_paints_a_control_byte_of_anothers(
    fake: FakeOperator, terminal: Open
) -> None:
    """Whoever chose a text, wherever it is shown: not one control byte of theirs."""
    _enemies(fake)
    with terminal() as screen:
        screen.see(f"{len(CHOSEN)} agents")
        for keys, seen in WALK:
            if seen.startswith("-"):
                _leave(screen, seen[1:])
            else:
                press(screen, keys, seen)
        screen.write("\x11")
        assert screen.finish() == 0
        painted = screen.painted.decode().replace(_POINTER, "")
    assert "\x1b[777z" not in painted
    assert "\x1b]" not in painted
    bad = {
        character
        for character in _shown(painted)
        if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"}
    }
    assert bad <= {"\r", "\n"}
    assert "⟦U+001B⟧" in painted


@pytest.mark.parametrize(
    ("keys", "seen"),
    [
        (":theme mono", "theme mono"),
        ("\x10theme mono", "theme mono"),
        ("/theme mono", "theme mono"),
        ("L@theme", "theme"),
        ("!\tpanic", "panic"),
        ("re\x7ftheme mono", "theme mono"),
    ],
    ids=["colon", "ctrl+p", "slash", "go_to", "panic", "reason"],
)
def test_what_follows_a_key_that_opens_an_input_is_its_text(
    fake: FakeOperator, terminal: Open, keys: str, seen: str
) -> None:
    """All of one write after the key is in the input; nothing acts on what is below."""
    fake.add_agent("payments-agent", "bob", "send:payment")
    remember(fake)
    with terminal() as screen:
        screen.see("payments-agent")
        screen.see("t time")
        screen.write(keys)
        screen.see(seen)
        screen.write("\x11")
        assert screen.finish() == 0
    assert not any("PAST" in row for row in screen.display)


def test_what_follows_the_end_of_an_input_is_keys_again(
    fake: FakeOperator, terminal: Open
) -> None:
    """After Enter in a filter the next byte of the same write is a key."""
    fake.add_agent("payments-agent", "bob", "send:payment")
    with terminal() as screen:
        screen.see("payments-agent")
        screen.see("t time")
        screen.write("/payments\r?")
        screen.see("Keys that work here")
        screen.write("\x1b")
        screen.see("1 of 1, 0 hidden")
        assert not any("payments?" in row for row in screen.display)


def test_different_resources_look_different_in_every_locale(
    fake: FakeOperator, terminal: Open
) -> None:
    """What an ASCII locale lacks is escaped: in queue, dialog and full view."""
    agent = fake.add_agent("payments-agent", "bob", "send:payment")
    for resource in ("stripe:größe", "stripe:größß", r"stripe:gr\u00f6\u00dfe"):
        fake.add_stepup(agent, action="send:payment", resource=resource)
    with terminal(LANG="C") as screen:
        screen.see("3 waiting")
        press(screen, "s", "Step-ups")
        for shown in (
            r"stripe:gr\u00f6\u00dfe",
            r"stripe:gr\u00f6\u00df\u00df",
            r"stripe:gr\u005cu00f6\u005cu00dfe",
        ):
            press(screen, "\r", f"On          {shown} ")
            press(screen, "v", "in full")
            screen.see(f"On          {shown} ")
            for gone in ("in full", "You grant"):
                _leave(screen, gone)
            screen.write("j")
        screen.write("\x11")
        assert screen.finish() == 0
    assert screen.painted.isascii()


def test_the_clipboard_is_written_by_y_alone(
    fake: FakeOperator, terminal: Open
) -> None:
    """OSC 52 appears after the key, once, and never before."""
    busy(fake)
    with terminal() as screen:
        screen.read_until(lambda text: "live" in text and "Holds" in text)
        assert "\x1b]" not in screen.text.replace(_POINTER, "")
        screen.write("y")
        screen.read_until(lambda text: "Copied" in text)
        screen.write("\x11")
        screen.finish()
    assert len(_OSC52.findall(screen.text)) == 1


def test_only_y_writes_the_clipboard_wherever_it_is_pressed(
    fake: FakeOperator, terminal: Open
) -> None:
    """Cutting in an input, a filter and the help write nothing."""
    busy(fake)
    with terminal() as screen:
        screen.see("6 agents")
        press(screen, "/agent:pay", " / agent:payments-agent")
        press(screen, "\x1b[1;2H\x03\x18", '"quoted"')  # shift+home, ctrl+c, ctrl+x
        press(screen, "y", " / y ")
        press(screen, "\r", "Enter agent")
        press(screen, "?", "Keys that work here")
        press(screen, "y?", "Enter agent")
        assert _OSC52.findall(screen.text) == []
        press(screen, "y", "Copied agent id")
        press(screen, "s", "Step-ups  2 waiting")
        press(screen, "y", "Copied step-up id")
        screen.write("\x11")
        screen.finish()
    assert len(_OSC52.findall(screen.text)) == 2


def test_completions_and_the_palette_paint_no_control_byte(
    fake: FakeOperator, terminal: Open, tmp_path: Path
) -> None:
    """Names, scopes, resources that agents chose, and names saved by hand."""
    for number, text in enumerate(HOSTILE):
        agent = fake.add_agent(f"zz{number}{text}", f"zz{text}", owner=f"zz{text}")
        fake.decide(agent, text, "denied", resource=f"zz{text}")
    saved = {f"zz{text}": text for text in HOSTILE}
    (tmp_path / "filters.json").write_text(json.dumps({"filters": saved}))
    with terminal() as screen:
        screen.see("8 agents")
        for key in ("agent:", "scope:", "owner:", "resource:", "@"):
            press(screen, "/", "Enter keep")
            press(screen, f"{key}zz", " Tab ")
            press(screen, "\t\x1b", "Enter agent")
        press(screen, "/", "Enter keep")
        press(screen, "\x0f", "Saved filters")  # ctrl+o
        press(screen, "jjy", "Copied filter")
        press(screen, "\x1b", "Enter keep")
        press(screen, "\x1b", "Enter agent")
        press(screen, ":", "earch for commands")
        press(screen, "go to zz", "Go to zz")
        screen.write("\x11")
        screen.finish()
        painted = screen.painted.decode().replace(_POINTER, "")
    assert len(_OSC52.findall(painted)) == 1
    painted = _OSC52.sub("", painted)
    assert "\x1b]" not in painted
    bad = {c for c in _shown(painted) if unicodedata.category(c) in {"Cc", "Cf"}}
    assert bad <= {"\r", "\n"}


@pytest.mark.parametrize(
    ("setting", "ssh"), [("true", ""), ('"auto"', ""), ('"auto"', "1.2.3.4 5")]
)
def test_the_mouse_is_taken_only_where_asked(
    fake: FakeOperator, terminal: Open, tmp_path: Path, setting: str, ssh: str
) -> None:
    """`auto` leaves it alone over SSH; it is given back at the end."""
    busy(fake)
    (tmp_path / "config.toml").write_text(f"[console]\nmouse = {setting}\n")
    with terminal(SSH_CONNECTION=ssh) as screen:
        screen.read_until(lambda text: "live" in text)
        screen.write("\x11")
        assert screen.finish() == 0
    assert (_MOUSE[0] in screen.text) is (not ssh)
    assert (_MOUSE[0].replace("h", "l") in screen.text) is (not ssh)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_the_terminal_clean(
    fake: FakeOperator, terminal: Open, number: signal.Signals
) -> None:
    """Alternate screen off, cursor shown, paste mode off, also when told to go."""
    busy(fake)
    with terminal() as screen:
        screen.read_until(lambda text: "live" in text)
        screen.signal(number)
        assert screen.finish() == 0
    assert all(sequence in screen.text for sequence in LEAVING)


def test_ctrl_q_leaves_the_terminal_clean(fake: FakeOperator, terminal: Open) -> None:
    """The key to leave; and the mouse was never taken."""
    busy(fake)
    with terminal() as screen:
        screen.read_until(lambda text: "live" in text)
        screen.write("\x11")
        assert screen.finish() == 0
    assert all(sequence in screen.text for sequence in LEAVING)
    assert not any(sequence in screen.text for sequence in _MOUSE)
    assert "Traceback" not in screen.text


@pytest.mark.parametrize("kind", ["own", "borrowed"])
def test_a_terminal_that_closes_ends_the_console(
    fake: FakeOperator, terminal: Open, kind: str
) -> None:
    """Nobody is left running without a screen, whether or not SIGHUP comes."""
    busy(fake)
    screen = terminal(kind)
    screen.read_until(lambda text: "live" in text)
    os.close(screen.master)
    try:
        assert screen.process.wait(PATIENT) == 0
    finally:
        screen.process.kill()
        screen.process.wait()


def test_an_ascii_locale_gets_ascii(fake: FakeOperator, terminal: Open) -> None:
    """Where the locale is not UTF-8 not one byte beyond ASCII is painted."""
    busy(fake)
    fake.add_agent("日本語\u202e", "read:email")
    with terminal(LC_ALL="C", LANG="C") as screen:
        screen.read_until(lambda text: "live" in text and "Holds" in text)
        screen.write("\t\tk/x")
        screen.read_until(lambda text: "hidden" in text)
        screen.write("\x11")
        screen.finish()
    assert screen.painted.isascii()


def test_no_color_is_obeyed(fake: FakeOperator, terminal: Open) -> None:
    """NO_COLOR: no colour is set, words and shapes are enough."""
    busy(fake)
    with terminal(NO_COLOR="1") as screen:
        screen.read_until(lambda text: "live" in text and "Holds" in text)
        screen.write("\x11")
        screen.finish()
    attributes = {
        attribute
        for sequence in re.findall(r"\x1b\[([0-9;]+)m", screen.text)
        for attribute in sequence.split(";")
    }
    looks = {"0", "1", "2", "3", "7", "22", "23", "27"}
    assert attributes <= looks | {"39", "49"}


def test_typed_ahead_after_a_slash_is_text(fake: FakeOperator, terminal: Open) -> None:
    """One write holding a slash and letters that are commands: all of it is text."""
    busy(fake)
    with terminal() as screen:
        screen.read_until(lambda text: "live" in text)
        screen.write("/rus!")
        screen.read_until(lambda text: "Nothing matches" in text)
        screen.write("\x11")
        screen.finish()
    assert fake.requests == []
    assert "Ends  " not in screen.text


def test_a_read_only_console_says_so(fake: FakeOperator, terminal: Open) -> None:
    """The words stand in the head for as long as it runs."""
    busy(fake)
    with terminal("read-only") as screen:
        screen.read_until(lambda text: "read-only" in text)
        screen.write("\x11")
        assert screen.finish() == 0


@pytest.mark.parametrize(
    "typed", [b"\xe9", b"\x1b[200~ab\x9b31m\xffcd\x1b[201~", b"\xf0\x9f"]
)
def test_bytes_that_are_no_utf8_end_nothing(
    fake: FakeOperator, terminal: Open, typed: bytes
) -> None:
    """Typed or pasted, they are unknown letters: the next key still does its work."""
    busy(fake)
    with terminal() as screen:
        screen.see("6 agents")
        screen.write(typed)
        press(screen, "/", "Enter keep")
        screen.write(typed)
        press(screen, "zz", "zz")
        screen.write("\x11")
        assert screen.finish() == 0
    assert "Traceback" not in screen.text


def test_a_crash_exits_non_zero(
    monkeypatch: pytest.MonkeyPatch, fake: FakeOperator, tmp_path: Path
) -> None:
    """A console that ends without having been left has failed, also for scripts."""
    monkeypatch.setattr(ConsoleApp, "run", lambda *_, **__: None)
    settings = ConsoleSettings.load(Home.locate(tmp_path))
    try:
        ended = run(fake.socket, read_only=True, settings=settings)
    finally:
        gc.enable()
    assert ended == 1


class Ends:
    """A pipe with an outlet on it, and what it said."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.resumed: list[float] = []
        self.told = threading.Event()
        self.gone = threading.Event()
        self.outlet = TerminalWriter(
            self.writing, resumed=self._resumed, gone=self.gone.set
        )

    def _resumed(self, stood: float) -> None:
        self.resumed.append(stood)
        self.told.set()

    def fill(self) -> None:
        """Write more than a pipe holds, and see it be noticed."""
        self.outlet.put("x" * 300_000)
        deadline = time.monotonic() + PATIENT
        while not self.outlet.behind():
            assert time.monotonic() < deadline, "nobody noticed"
            time.sleep(0.01)

    def read(self, size: int) -> bytes:
        read = b""
        while len(read) < size:
            read += os.read(self.reading, size - len(read))
        return read


@contextmanager
def _ends() -> Iterator[Ends]:
    ends = Ends()
    try:
        yield ends
    finally:
        ends.outlet.close()
        for descriptor in (ends.reading, ends.writing):
            try:
                os.close(descriptor)
            except OSError:
                assert ends.gone.is_set()


def test_queued_output_is_written_in_order() -> None:
    """Everything arrives, once, as UTF-8; half a surrogate does not end the thread."""
    with _ends() as ends:
        for text in ("\x1b[?2026h", "a·", "\udc00", "b"):
            ends.outlet.put(text)
        assert ends.read(13) == "\x1b[?2026ha·?b".encode()
        assert not ends.outlet.behind()


def test_a_stall_is_noticed_and_its_end_told() -> None:
    """While it stands nothing new is drawn; when it reads again, that is said once."""
    with _ends() as ends:
        ends.fill()
        assert ends.outlet.waits > 0.2
        ends.read(300_000)
        assert ends.told.wait(PATIENT)
        assert len(ends.resumed) == 1
        assert ends.resumed[0] > 0.2
        # A key that comes before that has been heard must not count.
        assert ends.outlet.waits == ends.resumed[0]
        ends.outlet.settle()
        assert ends.outlet.waits == 0
        assert not ends.outlet.behind()


def test_leaving_does_not_wait_for_a_stalled_terminal() -> None:
    """The program ends before the terminal reads on."""
    with _ends() as ends:
        ends.fill()
        ends.outlet.close()
        ends.read(300_000)


def test_a_terminal_that_is_gone_is_told() -> None:
    """It is said once, and what is put afterwards goes nowhere."""
    with _ends() as ends:
        os.close(ends.reading)
        ends.outlet.put("x")
        assert ends.gone.wait(PATIENT)
        ends.outlet.put("y" * 1_000_000)
        assert ends.outlet.behind()


def test_an_ending_wakes_whoever_waits_for_a_key() -> None:
    """A reader that waits for a byte without end is woken by the end, and knows it."""
    ending, seen = WakingEvent(), []

    def wait() -> None:
        select.select([ending.woken], [], [])
        seen.append(ending.is_set())

    reader = threading.Thread(target=wait)
    reader.start()
    assert not ending.is_set()
    ending.set()
    reader.join(10)
    ending.close()
    assert seen == [True]
