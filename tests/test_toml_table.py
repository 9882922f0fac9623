"""What is written as TOML is read as what it was, and hides nothing."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.toml_table import write_key, write_value

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@given(st.dictionaries(TEXTS, TEXTS | st.booleans() | st.lists(TEXTS), max_size=5))
def test_what_is_written_is_read_back(table: dict[str, object]) -> None:
    """Any key and value comes back as it was."""
    lines = [f"{write_key(key)} = {write_value(value)}" for key, value in table.items()]  # type: ignore[arg-type]
    assert tomllib.loads("\n".join(lines)) == table


@given(TEXTS)
def test_what_nobody_would_see_is_escaped(text: str) -> None:
    """A written text has no line end, bidirectional control or other hidden sign."""
    assert write_value(text).isprintable()
