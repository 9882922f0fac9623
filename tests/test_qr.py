"""QR codes: what is drawn is exactly what segno made, whole, dark on light."""

from __future__ import annotations

import pytest
import segno
from hypothesis import given, settings
from hypothesis import strategies as st

from agentvault_tui import qr
from agentvault_tui.qr import Ground

URL = "https://acme.eu.auth0.com/activate?user_code=KDRT-WZNB"
_TOPS = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}


def modules(code: qr.QrCode, *, ascii_only: bool) -> list[list[int]]:
    """Read the drawn rows back as a camera would: dark is 1."""
    rows: list[list[int]] = []
    for row in code.rows:
        if ascii_only:
            rows.append(
                [
                    int(s == Ground.DARK)
                    for text, s in row
                    for _ in range(len(text) // 2)
                ]
            )
        else:
            ((text, style),) = row
            assert style == Ground.DARK_ON_LIGHT
            rows.append([_TOPS[c][0] for c in text])
            rows.append([_TOPS[c][1] for c in text])
    return rows


def inside(rows: list[list[int]], size: int) -> list[list[int]]:
    """Take the quiet zone off, checking that it is light."""
    quiet = (len(rows[0]) - size) // 2
    assert quiet >= 2
    body = [row[quiet : quiet + size] for row in rows[quiet : quiet + size]]
    assert sum(map(sum, rows)) == sum(map(sum, body))
    return body


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
    st.booleans(),
)
def test_the_drawing_reads_back_as_the_matrix(text: str, ascii_only: bool) -> None:
    """Both alphabets draw every module of segno's own matrix and nothing else."""
    code = qr.draw(text, 400, 400, ascii_only=ascii_only)
    assert code is not None
    matrix = segno.make_qr(text, error="l", boost_error=False).matrix
    drawn = inside(modules(code, ascii_only=ascii_only), len(matrix))
    assert drawn == [[int(bool(m)) for m in row] for row in matrix]


def test_a_qr_code_is_drawn_whole_or_not_at_all() -> None:
    """One cell too few in either direction gives none; exactly enough gives all."""
    tight = qr.draw(URL, 37, 19, ascii_only=False)
    assert tight is not None
    assert (tight.width, tight.height) == (37, 19)
    assert all(sum(len(text) for text, _ in row) == 37 for row in tight.rows)
    assert qr.draw(URL, 36, 19, ascii_only=False) is None
    assert qr.draw(URL, 37, 18, ascii_only=False) is None


def test_the_full_quiet_zone_is_used_where_there_is_room() -> None:
    """Four light modules when they fit, two when they do not."""
    wide = qr.draw(URL, 100, 100, ascii_only=False)
    assert wide is not None
    assert wide.width == 33 + 8


def test_ascii_codes_need_no_character() -> None:
    """Without half blocks a module is two blanks on a ground of its own."""
    code = qr.draw(URL, 100, 100, ascii_only=True)
    assert code is not None
    assert {text.strip() for row in code.rows for text, _ in row} == {""}
    assert code.width == 2 * (33 + 8)


def test_text_too_long_for_a_qr_code_gives_none() -> None:
    """Data beyond the largest code is no crash."""
    assert qr.draw("x" * 5000, 1000, 1000, ascii_only=False) is None
