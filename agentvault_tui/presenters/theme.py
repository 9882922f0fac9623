"""The console's looks: six themes, and the styles that carry meaning, in one place.

Restraint is the rule: greys, one accent, amber for requests that wait for a person, red
for dangerous or refused ones, and for nothing else. A style only agrees with a word and
a shape; `mono` proves it, and NO_COLOR chooses it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from rich.color import Color
from rich.style import Style

OWN: Final = "ansi_default"


class Colours(Struct, frozen=True):
    """The colours of one theme; one that is not named is the terminal's own."""

    ground: str = OWN
    raised: str = OWN
    """Panels and dialogs."""
    cursor: str = OWN
    """Behind the row under the cursor."""
    line: str = OWN
    """Borders without attention."""
    text: str = OWN
    muted: str = OWN
    accent: str = OWN
    waiting: str = OWN
    danger: str = OWN
    dark: bool = True

    @property
    def ansi(self) -> bool:
        return self.ground == OWN


COLOURS: Final[Mapping[str, Colours]] = {
    "agentvault": Colours(
        ground="#11151a",
        raised="#171c23",
        cursor="#222d3a",
        line="#3a4552",
        text="#d5dae0",
        muted="#909ca9",
        accent="#6fc3b2",
        waiting="#e0b05c",
        danger="#f47c73",
    ),
    "agentvault-light": Colours(
        ground="#faf9f6",
        raised="#f1efea",
        cursor="#dde6e6",
        line="#b9b5ab",
        text="#1f252b",
        muted="#5a636d",
        accent="#0a665b",
        waiting="#7d5000",
        danger="#b3251d",
        dark=False,
    ),
    "high-contrast": Colours(
        ground="#000000",
        raised="#000000",
        cursor="#00303b",
        line="#ffffff",
        text="#ffffff",
        muted="#d0d0d0",
        accent="#6ff2dc",
        waiting="#ffd866",
        danger="#ff9b93",
    ),
    "ansi-dark": Colours(accent="ansi_cyan", waiting="ansi_yellow", danger="ansi_red"),
    # Yellow on a light ground cannot be read in most palettes; magenta can in all.
    "ansi-light": Colours(
        accent="ansi_blue", waiting="ansi_magenta", danger="ansi_red", dark=False
    ),
    "mono": Colours(),
}
NAMES: Final = tuple(COLOURS)
"""The names for `[console] theme`."""


class Palette(Struct, frozen=True):
    """Styles by meaning, for the segments of the Line API.

    None sets a ground, save those that must stand out from any: add them to the
    widget's own style.
    """

    text: Style
    muted: Style
    """Labels, separators, ended things."""
    strong: Style
    """The one thing to read in a row."""
    title: Style
    key: Style
    """A key that works here."""
    accent: Style
    """Live, done, focused."""
    line: Style
    """Frames drawn by hand."""
    cursor: Style
    """Added to the row under the cursor."""
    risk_high: Style
    risk_medium: Style
    risk_low: Style
    allowed: Style
    denied: Style
    escalated: Style
    waiting: Style
    """Waits for a person; also SOON and every warning."""
    danger: Style
    """Destructive actions, and faults."""
    stale: Style
    """Not confirmed by the broker since the link went away."""
    panic: Style
    """The banner of the panic switch: the one thing that shouts."""
    unverified: Style
    """The agent's own words."""

    def under_cursor(self, style: Style) -> Style:
        """Return *style* as it is in the row under the cursor.

        A reversed colour would be a block of that colour: there only the word speaks.
        """
        plain = style.without_color if self.cursor.reverse else style
        return plain + self.cursor

    def risk(self, risk: str) -> Style:
        """Return the style of a risk; an unknown one counts as high."""
        return {"low": self.risk_low, "medium": self.risk_medium}.get(
            risk, self.risk_high
        )

    def outcome(self, outcome: str | None) -> Style:
        """Return the style of an answer; an event without one is plain."""
        return {
            "allowed": self.allowed,
            "denied": self.denied,
            "escalated": self.escalated,
        }.get(outcome or "", self.text)


def choose(wanted: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the theme to use, and a complaint if it is not the one that was *wanted*.

    NO_COLOR (https://no-color.org: present and not empty) chooses `mono`. An unknown
    name must not prevent an operator from using the console.
    """
    if environ.get("NO_COLOR"):
        return "mono", None
    if wanted in COLOURS:
        return wanted, None
    near = difflib.get_close_matches(wanted, NAMES, n=1)
    hint = f"did you mean {near[0]}" if near else f"known: {', '.join(NAMES)}"
    return "agentvault", f"unknown theme in [console]: {hint}; using agentvault"


def is_ansi(name: str) -> bool:
    """Check whether the theme *name* leaves colours to the terminal."""
    return name in COLOURS and COLOURS[name].ansi


def palette(name: str) -> Palette:
    """Return the styles of the theme *name*; of `agentvault` if it is another's."""
    return _PALETTES.get(name, _PALETTES["agentvault"])


def _palette(colours: Colours) -> Palette:
    def ink(colour: str, *, bold: bool = False, dim: bool = False) -> Style:
        return Style(color=_rich(colour), bold=bold or None, dim=dim or None)

    # Terminals choose their own colours under the ANSI themes: dim is the only grey
    # that is readable on every ground.
    muted = ink(colours.muted, dim=colours.ansi)
    text = ink(colours.text)
    strong = ink(colours.text, bold=True)
    waiting = ink(colours.waiting, bold=True)
    danger = ink(colours.danger, bold=True)
    accent = ink(colours.accent)
    cursor = Style(reverse=True) if colours.ansi else Style(bgcolor=colours.cursor)
    loud = (
        Style(color=_rich(colours.danger), bold=True, reverse=True)
        if colours.ansi
        else Style(color=colours.ground, bgcolor=colours.danger, bold=True)
    )
    return Palette(
        text=text,
        muted=muted,
        strong=strong,
        title=strong,
        key=ink(colours.accent, bold=True),
        accent=accent,
        line=ink(colours.line, dim=colours.ansi),
        cursor=cursor,
        risk_high=danger,
        risk_medium=text,
        risk_low=muted,
        allowed=muted,
        denied=danger,
        escalated=waiting,
        waiting=waiting,
        danger=danger,
        stale=muted + Style(italic=True),
        panic=loud,
        unverified=muted if not colours.ansi else text,
    )


def _rich(colour: str) -> Color:
    return Color.parse(colour.removeprefix("ansi_"))


FOCUS: Final = Style(reverse=True, bold=True)
"""Added to the one thing the next Enter goes to, under any theme."""
_PALETTES: Final = {name: _palette(colours) for name, colours in COLOURS.items()}
