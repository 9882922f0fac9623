"""README and docs as readers see them: pages, and the code blocks in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def all_blocks(page: Path) -> list[tuple[str, str]]:
    """Return each code block of *page*, behind its language."""
    return _BLOCK.findall(page.read_text())


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of *page* in one language."""
    return [text for kind, text in all_blocks(page) if kind == language]


def example(page: Path, name: str) -> str:
    """Return the code block behind the page's mark ``<!-- tested: name -->``."""
    _, mark, after = page.read_text().partition(f"<!-- tested: {name} -->\n")
    assert mark, f"{page.name} has no example marked 'tested: {name}'"
    found = _BLOCK.match(after)
    assert found, f"no code block follows the mark of {name}"
    return found[2]
