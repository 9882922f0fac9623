"""Build a release of the commit that is checked out into ``dist/``: ``make release``.

    python release/make.py [--builder URI] [--to DIR]

Builds wheel and sdist twice, from two exports of the commit, and compares them byte for
byte. Writes the SBOM (CycloneDX 1.7) into both and next to them, then the provenance
(in-toto Statement v1, SLSA v1.2) and the sums. Uses no network: its tools are the
locked ones of requirements/dev.txt.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import verify
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import (
    Commit,
    Component,
    ComponentScope,
    ComponentType,
    Pedigree,
)
from cyclonedx.output.json import JsonV1Dot7
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parents[1]
BUILDER: Final = "https://agentvault.dev/builder/local"
"""The builder of a release that a person made: SLSA build level 1."""
_PROJECT: Final = "agentvault-tui"
_TOOLS: Final = "requirements/dev.txt"
_NAMESPACE: Final = uuid.UUID("a0f5cbd6-5b1f-4f5e-9a3c-6a1b0a3a9b9e")


class Source(NamedTuple):
    """The commit that is released."""

    commit: str
    epoch: int
    archive: bytes

    def unpack(self, folder: Path) -> Path:
        """Write the commit's files to *folder*."""
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
            archive.extractall(folder, filter="data")
        return folder


def find_source(root: Path) -> Source:
    """Find the commit that is checked out.

    Raises:
        SystemExit: a tracked file differs from it.
    """
    commit, changed = verify.read_checkout(root)
    if changed:
        sys.exit(f"commit these changes first, or stash them:\n{changed}")
    epoch = int(verify.run_git(root, "log", "-1", "--format=%ct", commit))
    return Source(
        commit, epoch, verify.run_git(root, "archive", "--format=tar", commit)
    )


def build_sbom(tree: Path, source: Source, version: str) -> bytes:
    """Build the SBOM of the locked requirements.

    Scopes are `required` for dependencies, `optional` for those of extras alone, and
    `excluded` for tools of the build.

    Returns:
        CycloneDX 1.7 in JSON, the same bytes for the same commit.

    Raises:
        SystemExit: it does not fit the schema.
    """
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    pins = verify.read_lock((tree / verify.LOCK).read_text())
    direct = _names(project["dependencies"])
    extras = _names(chain(*project["optional-dependencies"].values()))
    required, optional = _below(direct, pins), _below(extras, pins)
    purl = PackageURL("pypi", name=_PROJECT, version=version)
    root = Component(
        name=_PROJECT,
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=str(purl),
        purl=purl,
        description=project["description"],
        pedigree=Pedigree(commits=[Commit(uid=source.commit)]),
    )
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, f"{purl} {source.commit}"))
    bom.metadata.timestamp = datetime.fromtimestamp(source.epoch, UTC)
    bom.metadata.component = root
    components = {}
    for pin in pins:
        scope = ComponentScope.OPTIONAL
        if pin.name in required:
            scope = ComponentScope.REQUIRED
        elif pin.name not in optional:
            scope = ComponentScope.EXCLUDED
        components[pin.name] = _component(pin, scope)
    bom.components.update(components.values())
    bom.register_dependency(root, [components[name] for name in direct | extras])
    for name, component in components.items():
        below = [components[pin.name] for pin in pins if name in pin.parents]
        bom.register_dependency(component, below)
    text = JsonV1Dot7(bom).output_as_string(indent=2)
    if (
        fault := JsonStrictValidator(SchemaVersion.V1_7).validate_str(text)
    ) is not None:
        sys.exit(f"the SBOM does not fit the schema of CycloneDX 1.7: {fault}")
    return text.encode() + b"\n"


def _names(requirements: Iterable[str]) -> set[str]:
    """Return the normalized names of packages (PEP 503)."""
    names = (Requirement(one).name for one in requirements)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def _below(names: set[str], pins: Iterable[verify.Pin]) -> set[str]:
    """Return *names* and everything that they need."""
    found, new = set(names), set(names)
    while new:
        new = {pin.name for pin in pins if new & {*pin.parents}} - found
        found |= new
    return found


def _component(pin: verify.Pin, scope: ComponentScope) -> Component:
    """Return one package as a component."""
    purl = PackageURL("pypi", name=pin.name, version=pin.version)
    source = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(str(purl)),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one) for one in pin.hashes],
    )
    marker = [Property(name=verify.MARKER, value=pin.marker)] if pin.marker else []
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        scope=scope,
        external_references=[source],
        properties=marker,
    )


def build_distributions(tree: Path, epoch: int) -> dict[str, bytes]:
    """Build wheel and sdist in *tree*; return their content by name.

    Raises:
        SystemExit: the build backend fails, with its output.
    """
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build"],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"the build failed:\n{done.stdout}{done.stderr}")
    return {path.name: path.read_bytes() for path in (tree / "dist").iterdir()}


def build_provenance(
    files: dict[str, bytes],
    names: verify.Names,
    source: Source,
    tree: Path,
    builder: str,
) -> bytes:
    """Build the provenance of a release.

    Source: in-toto Attestation Framework v1, Statement; SLSA v1.2, Build provenance.

    Returns:
        one statement, as one line of JSON.
    """
    locks = (verify.LOCK, _TOOLS)
    inputs: list[dict[str, object]] = [
        {"name": "source", "digest": {"gitCommit": source.commit}},
        *(
            {
                "name": one,
                "digest": {"sha256": verify.sha256((tree / one).read_bytes())},
            }
            for one in locks
        ),
    ]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    definition = {
        "buildType": verify.BUILD_TYPE,
        "externalParameters": {"commit": source.commit},
        "internalParameters": {"SOURCE_DATE_EPOCH": source.epoch, "python": python},
        "resolvedDependencies": inputs,
    }
    run = {"builder": {"id": builder}}
    statement = {
        "_type": verify.STATEMENT,
        "subject": [
            {"name": one, "digest": {"sha256": verify.sha256(files[one])}}
            for one in names.subjects
        ],
        "predicateType": verify.PREDICATE,
        "predicate": {"buildDefinition": definition, "runDetails": run},
    }
    return verify.render_line(statement)


def build_release(root: Path, work: Path, builder: str) -> dict[str, bytes]:
    """Build every file of the release of the commit in *root*.

    Args:
        root: a git checkout.
        work: an empty folder for the builds.
        builder: the URI of who builds.

    Raises:
        SystemExit: two builds differ.
    """
    source = find_source(root)
    trees = [source.unpack(work / name) for name in ("first", "second")]
    text = (trees[0] / "agentvault_tui/__init__.py").read_text()
    version = text.partition('__version__ = "')[2].partition('"')[0]
    names = verify.Names.of(f"agentvault_tui-{version}")
    built = []
    for tree in trees:
        sbom = build_sbom(tree, source, version)
        (tree / names.sbom).write_bytes(sbom)
        built.append(build_distributions(tree, source.epoch) | {names.sbom: sbom})
    first, second = built
    if differ := [name for name in names.subjects if first[name] != second.get(name)]:
        sys.exit(f"two builds of {source.commit} differ in {', '.join(differ)}")
    lines = build_provenance(first, names, source, trees[0], builder)
    files = {**first, names.provenance: lines}
    return {**files, verify.SUMS: verify.render_sums(files)}


def check_folder(folder: Path) -> None:
    """Check that *folder* has nothing but files of a release.

    Raises:
        SystemExit: it has something else, which is named.
    """
    release = re.compile(
        rf"agentvault_tui-.+(\.whl|\.tar\.gz|\.cdx\.json|\.intoto\.jsonl)|{verify.SUMS}"
    )
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() or not release.fullmatch(path.name):
            sys.exit(f"move {path} away: {folder} is for the release alone")


def main() -> None:
    """Build the release and check it."""
    parser = argparse.ArgumentParser(description="Build a release.")
    parser.add_argument("--builder", default=BUILDER, metavar="URI")
    parser.add_argument("--root", type=Path, default=ROOT, metavar="DIR")
    parser.add_argument("--to", type=Path, metavar="DIR")
    chosen = parser.parse_args()
    folder = chosen.to or chosen.root / "dist"
    check_folder(folder)
    with tempfile.TemporaryDirectory(prefix="agentvault-release-") as work:
        files = build_release(chosen.root, Path(work), chosen.builder)
    check_folder(folder)  # again: what came during the builds is not deleted
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    faults = list(verify.verify(folder))
    print(*faults, sep="\n", end="\n" if faults else "")
    print(files[verify.SUMS].decode(), end="")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
