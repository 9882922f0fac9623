"""What docs/operate.md says of metrics, alarms, sizes and files is so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pages import DOCS
from support.vault import Vault, serving

from agentvault_tui.watch.config import SIGNALS

PAGE = (DOCS / "operate.md").read_text()
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    with serving(tmp_path_factory.mktemp("o")) as vault:
        yield vault


def section(name: str) -> str:
    return PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_the_page_names_the_metrics_that_there_are(vault: Vault) -> None:
    """Each metric has its row, and no row or rule names one that is not there."""
    served = vault.operator.get("/metrics").text
    names = set(re.findall(r"^# TYPE (\w+)", served, re.MULTILINE))
    rows = set(re.findall(r"^\| `(agentvault_\w+)", section("Metrics"), re.MULTILINE))
    assert rows == names
    used = set(re.findall(r"agentvault_[a-z_]+", section("Alarms")))
    assert used
    assert {SUFFIXES.sub("", name) for name in used} <= names


def test_every_alarm_says_what_to_do() -> None:
    """Each rule for Prometheus, and each word of alerts.toml."""
    rules = re.findall(r"- alert: (\w+)", section("Alarms"))
    pattern = re.compile(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", re.MULTILINE)
    rows = pattern.findall(section("Alarms"))
    told = {name for cell, *_ in rows for name in re.findall(r"`(\w+)`", cell)}
    assert told == {*rules, *SIGNALS}
    assert all(means and do for _, means, do in rows)


def test_the_page_names_the_files_that_a_home_has(vault: Vault) -> None:
    """Whoever finds a file in the home finds it there."""
    rows = re.findall(r"^\| (`.*?) \|", section("Files"), re.MULTILINE)
    told = {name.rstrip("/") for cell in rows for name in re.findall(r"`(.+?)`", cell)}
    there = {re.sub(r"-(wal|shm)$", "", path.name) for path in vault.home.iterdir()}
    assert there <= told
    written = {path.name for path in Path(vault.home, "keys").iterdir()}
    assert "ledger-head.json" in written
