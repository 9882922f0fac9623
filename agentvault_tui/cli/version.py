"""``agentvault --version``: with ``--verbose`` the commit, SBOM and locked versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import agentvault_tui

_UNKNOWN = "unknown"


def describe(*, verbose: bool) -> Iterator[str]:
    """Describe the installed packages, from the SBOM in its wheel (PEP 770).

    Args:
        verbose: whether more than the version is wanted.

    Yields:
        lines: the version; the commit and the digest of the SBOM, `unknown` for an
        installation from a checkout; then a line for each locked package, with the
        version that is installed if that differs.
    """
    yield f"agentvault {agentvault_tui.__version__}"
    if not verbose:
        return
    sbom = _read_sbom()
    if sbom is None:
        yield f"commit {_UNKNOWN}"
        yield f"sbom {_UNKNOWN}"
        yield f"locked versions {_UNKNOWN}"
        return
    bom = json.loads(sbom)
    yield f"commit {bom['metadata']['component']['pedigree']['commits'][0]['uid']}"
    yield f"sbom sha256:{hashlib.sha256(sbom).hexdigest()}"
    for one in bom["components"]:
        if one["scope"] == "excluded":
            continue
        try:
            installed = metadata.version(one["name"])
        except metadata.PackageNotFoundError:
            installed = "none"
        differs = "" if installed == one["version"] else f" (installed: {installed})"
        yield f"{one['name']} {one['version']}{differs}"


def _read_sbom() -> bytes | None:
    """Read the SBOM of the installation that runs; None where there is none."""
    try:
        installed = metadata.distribution("agentvault-tui")
    except metadata.PackageNotFoundError:
        return None
    # A checkout may be imported while another version is installed.
    source = Path(str(installed.locate_file("agentvault_tui/__init__.py")))
    if not source.exists() or not source.samefile(agentvault_tui.__file__):
        return None
    for path in installed.files or ():
        if path.parent.name == "sboms" and path.name.endswith(".cdx.json"):
            return path.read_binary()
    return None
