"""``agentvault --version``: with ``--verbose`` the commit, SBOM and locked versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import agentvault_tui

_UNKNOWN = "unknown"
_MARKER = "agentvault:marker"
"""The SBOM's property with the environments where a package is needed (PEP 508)."""


def describe(*, verbose: bool) -> Iterator[str]:
    """Describe the installed packages, from the SBOM in its wheel (PEP 770).

    Args:
        verbose: whether more than the version is wanted.

    Yields:
        lines: the version; the commit and the digest of the SBOM, `unknown` for an
        installation from a checkout; then a line for each locked package, with the
        version that is installed if that differs; and those that differ.
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
    differing = []
    for one in bom["components"]:
        if one["scope"] == "excluded":
            continue
        name, locked = one["name"], one["version"]
        markers = [
            p["value"] for p in one.get("properties", ()) if p["name"] == _MARKER
        ]
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = "none"
        if installed == locked:
            note = ""
        elif installed == "none" and one["scope"] == "optional":
            note = " (not installed: of an extra)"
        elif installed == "none" and markers:
            note = f" (not installed: only where {markers[0]})"
        else:
            note = f" (installed: {installed})"
            differing.append(name)
        yield f"{name} {locked}{note}"
    named = f": {', '.join(differing)}" if differing else ""
    yield f"differ from the lock: {len(differing)}{named}"


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
