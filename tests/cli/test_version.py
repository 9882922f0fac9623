"""`agentvault --version`, and what `--verbose` adds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from support.command_line import Answer

import agentvault_tui

Run = Callable[..., Answer]
COMPONENTS = [
    {"name": "httpx", "version": metadata.version("httpx"), "scope": "required"},
    {"name": "rich", "version": "0.1", "scope": "required"},
    {"name": "not-there", "version": "1", "scope": "required"},
    {"name": "of-extra", "version": "1", "scope": "optional"},
    {
        "name": "of-windows",
        "version": "1",
        "scope": "required",
        "properties": [{"name": "agentvault:marker", "value": "os_name == 'nt'"}],
    },
    {"name": "hatchling", "version": "1", "scope": "excluded"},
]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation from a wheel, whose package is the one that runs; its SBOM."""
    info = tmp_path / "agentvault_tui-0.9.0.dist-info"
    sbom = info / "sboms/agentvault_tui-0.9.0.cdx.json"
    sbom.parent.mkdir(parents=True)
    component = {"pedigree": {"commits": [{"uid": "c0ffee"}]}}
    bom = {"metadata": {"component": component}, "components": COMPONENTS}
    sbom.write_text(json.dumps(bom))
    (info / "METADATA").write_text("Name: agentvault-tui\nVersion: 0.9.0\n")
    (info / "RECORD").write_text(f"{sbom.relative_to(tmp_path)},,\n")
    package = Path(agentvault_tui.__file__).parent
    (tmp_path / "agentvault_tui").symlink_to(package)
    monkeypatch.syspath_prepend(tmp_path)
    return sbom


@pytest.mark.parametrize(
    "line", [("--verbose", "--version"), ("--version", "--verbose")]
)
def test_a_wheel_names_commit_sbom_and_locked_versions(
    cli: Run, installed: Path, line: tuple[str, ...]
) -> None:
    """Packages that differ from the lock are named; build tools are left out.

    A package of an extra or of another platform that is not installed does not differ.
    """
    digest = hashlib.sha256(installed.read_bytes()).hexdigest()
    assert cli(*line).out.splitlines() == [
        f"agentvault {agentvault_tui.__version__}",
        "commit c0ffee",
        f"sbom sha256:{digest}",
        f"httpx {metadata.version('httpx')}",
        f"rich 0.1 (installed: {metadata.version('rich')})",
        "not-there 1 (installed: none)",
        "of-extra 1 (not installed: of an extra)",
        "of-windows 1 (not installed: only where os_name == 'nt')",
        "differ from the lock: 2: rich, not-there",
    ]


def test_a_checkout_knows_no_commit(cli: Run) -> None:
    """Without a wheel's SBOM nothing is claimed."""
    lines = cli("--version", "--verbose").out.splitlines()
    assert lines[1:] == ["commit unknown", "sbom unknown", "locked versions unknown"]


def test_an_sbom_of_another_installation_is_not_ours(cli: Run, installed: Path) -> None:
    """If the package that runs is not the installed one, its SBOM says nothing."""
    link = installed.parents[2] / "agentvault_tui"
    link.unlink()
    link.mkdir()
    (link / "__init__.py").write_text("")
    assert "commit unknown" in cli("--version", "--verbose").out


def test_the_version_alone_is_one_line(cli: Run, installed: Path) -> None:
    """`--version` prints no more than before; `--verbose` alone is wrong usage."""
    assert cli("--version").out == f"agentvault {agentvault_tui.__version__}\n"
    assert cli("--verbose").code == 2
    assert cli("--verbose", "status").code == 2
