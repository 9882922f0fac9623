"""Put the SBOM that `make release` writes into the wheel (PEP 770) and the sdist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SbomHook(BuildHookInterface):  # type: ignore[type-arg]
    """Add `*.cdx.json` of the project's folder, if a release wrote one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the SBOM in *build_data*; an editable install has none."""
        found = [path.name for path in Path(self.root).glob("*.cdx.json")]
        if self.target_name == "sdist":
            build_data["force_include"].update(dict(zip(found, found, strict=True)))
        elif version == "standard":
            build_data["sbom_files"].extend(found)
