"""A device code on a terminal: the code first, the link, and a QR that scans."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import Session, lazily

_POLL: Final = 0.5
_DARK: Final = "\x1b[30;107m"
"""Black on bright white whatever the theme: an inverted code does not scan."""
_RESET: Final = "\x1b[0m"
_QUIET: Final = 4
"""Light modules around the code (ISO/IEC 18004)."""
_HALVES: Final = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def print_device(out: Output, device: dict[str, Any]) -> None:
    """Print what a person needs on their other device (RFC 8628 section 3.3)."""
    out.line()
    out.line(
        "On another device open  ", out.cell(device["verification_uri"], limit=500)
    )
    out.line("and enter               ", out.cell(device["user_code"], "strong"))
    out.line()
    print_qr(out, device.get("verification_uri_complete") or device["verification_uri"])
    out.line(
        f"The code lives {int(device['expires_in'])} s. "
        "If the page shows anything else than this, cancel there."
    )


def followed(
    session: Session,
    fetch: Callable[[], dict[str, Any]],
    waits: Callable[[dict[str, Any]], bool],
) -> dict[str, Any]:
    """Return what *fetch* gives once it no longer *waits*.

    Tells a person whose code is good for nothing just now: the tenant is away.
    """
    told = False
    while waits(answer := fetch()):
        away = session.client.get("/api/status")["tenant"]["reachable"] is False
        if away and not told:
            session.out.note("the tenant does not answer: waiting while the code lives")
        elif told and not away:
            session.out.note("the tenant answers again")
        told = away
        time.sleep(_POLL)
    return answer


def print_qr(out: Output, text: str) -> None:
    """Draw *text* as a QR code, on a terminal and only whole."""
    if not out.terminal:
        return
    make_qr = lazily("segno", "make_qr")
    try:
        matrix = make_qr(text, error="l", boost_error=False).matrix
    except ValueError:
        return
    rows = _rows(matrix, blanks=out.ascii_only)
    cells = (len(matrix) + 2 * _QUIET) * (2 if out.ascii_only else 1)
    if out.width is not None and cells > out.width:
        return
    for row in rows:
        out.raw(row)
    out.line()


def _rows(matrix: Any, *, blanks: bool) -> list[str]:
    side = [0] * _QUIET
    across = len(matrix) + 2 * _QUIET
    blank = [[0] * across] * _QUIET
    full = [*blank, *([*side, *map(int, row), *side] for row in matrix), *blank]
    if blanks:
        # No glyph at all: two blanks a module, with a ground colour.
        return [
            "".join("\x1b[40m  " if module else "\x1b[107m  " for module in row)
            + _RESET
            for row in full
        ]
    if len(full) % 2:
        full.append([0] * across)
    return [
        _DARK
        + "".join(_HALVES[bool(a), bool(b)] for a, b in zip(*pair, strict=True))
        + _RESET
        for pair in zip(full[::2], full[1::2], strict=True)
    ]
