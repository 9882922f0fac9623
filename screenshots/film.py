"""Joins pictures of the console into one SVG that plays, with a caption under each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_CAPTION: Final = 56
"""Height of the line under the pictures, in the units of the pictures."""
_SIZE: Final = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_FONTS: Final = re.compile(r"@font-face \{.*?\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture and how long it stands."""

    picture: str
    """As Textual's `export_screenshot` writes it."""
    caption: str
    seconds: float = 3.0


def film(frames: Sequence[Frame]) -> str:
    """Return an SVG that shows *frames* one after the other, for ever.

    Plain CSS, so that it plays where scripts are not run, as in a README; where motion
    is not wanted, the last picture stands still.
    """
    sizes = [_size(frame.picture) for frame in frames]
    width, height = max(w for w, _ in sizes), max(h for _, h in sizes)
    total = sum(frame.seconds for frame in frames)
    rules, groups, start = [], [], 0.0
    for n, frame in enumerate(frames):
        end = start + frame.seconds
        rules.append(_rule(n, start / total, end / total, total))
        groups.append(_group(n, frame, _FONTS if n else None, height))
        start = end
    style = "\n".join(
        [
            ".frame { visibility: hidden }",
            f".frame{len(frames) - 1} {{ visibility: visible }}",
            ".caption { fill: #d5dae0; font: 22px 'Fira Code', monospace }",
            "@media (prefers-reduced-motion: no-preference) {",
            *rules,
            "}",
        ]
    )
    return (
        f'<svg viewBox="0 0 {width:g} {height + _CAPTION:g}"'
        ' xmlns="http://www.w3.org/2000/svg">\n'
        f"<style>\n{style}\n</style>\n"
        f'<rect width="{width:g}" height="{height + _CAPTION:g}" fill="#14191f"/>\n'
        + "\n".join(groups)
        + "\n</svg>\n"
    )


def _size(picture: str) -> tuple[float, float]:
    found = _SIZE.search(picture)
    if found is None:
        raise ValueError("this is no picture of the console")
    return float(found[1]), float(found[2])


def _rule(n: int, start: float, end: float, total: float) -> str:
    """Return what makes frame *n* visible from *start* to *end*, parts of the whole."""
    return (
        f"@keyframes frame{n} {{ 0% {{ visibility: hidden }} "
        f"{start:.3%} {{ visibility: visible }} "
        f"{end:.3%} {{ visibility: hidden }} }}\n"
        f".frame{n} {{ animation: frame{n} {total:g}s step-end infinite }}"
    )


def _group(n: int, frame: Frame, without: re.Pattern[str] | None, top: float) -> str:
    """Return one picture with its caption; its fonts need to be named only once."""
    picture = without.sub("", frame.picture) if without else frame.picture
    width, height = _size(picture)
    # Without a size of its own it would be stretched over the caption.
    picture = picture.replace("<svg", f'<svg width="{width:g}" height="{height:g}"', 1)
    return (
        f'<g class="frame frame{n}">\n{picture.strip()}\n'
        f'<text class="caption" x="24" y="{top + 32:g}">'
        f"{escape(frame.caption)}</text>\n</g>"
    )
