"""The six themes: readable, restrained, and never needed to understand a word."""

from __future__ import annotations

import pytest
from msgspec.structs import fields
from rich.style import Style
from support.wire_shapes import filled
from textual.color import Color

from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.presenters import event_words, theme
from agentvault_tui.presenters.intake import Intake

PAINTED = [n for n in theme.NAMES if not theme.COLOURS[n].ansi]


def luminance(name: str) -> float:
    def linear(value: int) -> float:
        share = value / 255
        return share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4

    colour = Color.parse(name)
    red, green, blue = linear(colour.r), linear(colour.g), linear(colour.b)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", PAINTED)
@pytest.mark.parametrize("ground", ["ground", "raised", "cursor"])
@pytest.mark.parametrize("ink", ["text", "muted", "accent", "waiting", "danger"])
def test_every_ink_reads_on_every_ground(name: str, ground: str, ink: str) -> None:
    """WCAG AA (4.5) holds everywhere, AAA (7) for text under high contrast."""
    colours = theme.COLOURS[name]
    least = 7.0 if name == "high-contrast" and ground != "cursor" else 4.5
    assert contrast(getattr(colours, ink), getattr(colours, ground)) >= least


@pytest.mark.parametrize("name", theme.NAMES)
def test_red_means_danger_or_refusal_and_nothing_else(name: str) -> None:
    """Only what is dangerous, or was denied, wears the colour of danger."""
    palette = theme.palette(name)
    danger = palette.danger.color
    wearing = {
        field.name
        for field in fields(palette)
        if getattr(palette, field.name).color == danger
    }
    if name == "mono":
        assert danger is not None
        assert danger.is_default
    else:
        assert wearing - {"panic"} == {"danger", "denied", "risk_high"}


@pytest.mark.parametrize("name", theme.NAMES)
def test_what_matters_more_shines_more(name: str) -> None:
    """Denied as danger, what waits as waiting, a registration plainly; none alike."""
    palette = theme.palette(name)

    def style(kind: str, outcome: str | None = None) -> Style:
        event = Intake().event(
            filled(EventInfo, {"seq": 1, "type": kind, "outcome": outcome})
        )
        return event_words.style(palette, event)

    assert style("token.decision", "denied") == palette.danger
    assert style("token.decision", "escalated") == palette.waiting
    assert style("token.decision", "allowed") == palette.muted
    assert style("stepup.requested") == palette.waiting
    assert style("agent.revoked") == palette.danger
    assert style("agent.registered") == palette.text
    assert palette.danger.bold
    assert palette.waiting.bold
    assert not palette.text.bold


def test_mono_sets_no_colour_at_all() -> None:
    """Under mono every style is an attribute, never a colour."""
    palette = theme.palette("mono")
    for field in fields(palette):
        style: Style = getattr(palette, field.name)
        assert style.color is None or style.color.is_default
        assert style.bgcolor is None


def test_no_color_chooses_mono() -> None:
    """NO_COLOR, present and not empty, wins over the setting."""
    assert theme.choose("agentvault", {"NO_COLOR": "1"}) == ("mono", None)
    assert theme.choose("agentvault", {"NO_COLOR": ""}) == ("agentvault", None)


def test_an_unknown_theme_is_named_and_survived() -> None:
    """A misspelt theme gives the default one and the nearest known name."""
    name, complaint = theme.choose("agentvault-ligth", {})
    assert name == "agentvault"
    assert complaint is not None
    assert "agentvault-light" in complaint


def test_an_unknown_risk_counts_as_high() -> None:
    """What nobody has described is drawn as dangerous."""
    palette = theme.palette("agentvault")
    assert palette.risk("whatever") == palette.risk_high
    assert palette.outcome("escalated") == palette.waiting
    assert palette.outcome(None) == palette.text
