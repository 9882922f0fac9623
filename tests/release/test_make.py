"""`make release`: the same bytes again, with SBOM, provenance and sums."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import verify
from support.needs import program

Make = Callable[[Path], subprocess.CompletedProcess[str]]
SECRETS = re.compile(
    rb"PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}|\bav_[a-z]_[\w-]{40}|\bghp_\w{36}"
)
"""A key or token with its value, as no release may hold one."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def tracked(checkout: Path) -> list[str]:
    """The files that a clone has."""
    line = [program("git"), "-C", checkout, "ls-files", "-z"]
    return subprocess.check_output(line, text=True).split("\0")[:-1]


def test_the_wheel_holds_the_package_and_nothing_else(
    release: Path, tracked: list[str]
) -> None:
    """Templates, policies, service files and the licence are in it; no test is."""
    (path,) = release.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        others = {Path(name).name for name in {*wheel.namelist()} - names}
        content = b"".join(map(wheel.read, wheel.namelist()))
    assert names == {name for name in tracked if name.startswith("agentvault_tui/")}
    assert others >= {"LICENSE", "METADATA", "entry_points.txt"}
    assert SECRETS.search(content) is None


def test_the_sdist_holds_package_docs_and_licence(
    release: Path, tracked: list[str]
) -> None:
    """And the locked requirements; no tests, pictures or benches."""
    wanted = ("agentvault_tui/", "docs/", "requirements/runtime.txt")
    (path,) = release.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
        files = [sdist.extractfile(member) for member in sdist if member.isreg()]
        content = b"".join(file.read() for file in files if file)
    assert names == {
        *(name for name in tracked if name.startswith(wanted)),
        *("CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "hatch_build.py"),
        *("pyproject.toml", ".gitignore"),
        *("PKG-INFO", next(release.glob("*.cdx.json")).name),
    }
    assert SECRETS.search(content) is None


def test_the_sdist_builds_the_same_wheel(release: Path, tmp_path: Path) -> None:
    """Byte for byte, with the time that the provenance names."""
    (path,) = release.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (line,) = next(release.glob("*.jsonl")).read_text().splitlines()
    parameters = json.loads(line)["predicate"]["buildDefinition"]["internalParameters"]
    epoch = {"SOURCE_DATE_EPOCH": str(parameters["SOURCE_DATE_EPOCH"])}
    (tree,) = tmp_path.iterdir()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    subprocess.run(build, cwd=tree, env=os.environ | epoch, check=True)
    (wheel,) = (tree / "dist").iterdir()
    assert wheel.read_bytes() == (release / wheel.name).read_bytes()


def test_a_clone_elsewhere_gives_the_same_release(
    checkout: Path, release: Path, make: Make, tmp_path: Path
) -> None:
    """Each file is the same, byte for byte, from another clone of the commit."""
    other = tmp_path / "a longer place"
    subprocess.run([program("git"), "clone", "-q", checkout, other], check=True)
    for path in other.rglob("*.py"):
        path.chmod(0o600)
    done = make(other)
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(other / "dist") == contents(release)


def test_the_sbom_names_scopes_graph_and_commit(checkout: Path, release: Path) -> None:
    """Dependencies are required, an extra's are optional, build tools excluded."""
    (path,) = release.glob("*.cdx.json")
    bom = json.loads(path.read_text())
    scopes = {one["name"]: one["scope"] for one in bom["components"]}
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        assert scopes[line.partition("=")[0].partition(">")[0]] == "required"
    assert scopes["anyio"] == "required", "a dependency of httpx"
    assert scopes["psycopg-binary"] == "optional", "of the extra postgres"
    assert scopes["hatchling"] == "excluded"
    below = {one["ref"]: one.get("dependsOn", []) for one in bom["dependencies"]}
    (httpx,) = (ref for ref in below if ref.startswith("pkg:pypi/httpx@"))
    assert any(ref.startswith("pkg:pypi/anyio@") for ref in below[httpx])
    head = subprocess.check_output(
        [program("git"), "-C", checkout, "rev-parse", "HEAD"]
    )
    commits = bom["metadata"]["component"]["pedigree"]["commits"]
    assert commits == [{"uid": head.decode().strip()}]


def test_the_wheel_holds_the_sbom_where_pep_770_says(release: Path) -> None:
    """It is in `.dist-info/sboms/`, and the same as the file next to the wheel."""
    (wheel,) = release.glob("*.whl")
    (sbom,) = release.glob("*.cdx.json")
    stem = sbom.name.removesuffix(".cdx.json")
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.read(f"{stem}.dist-info/sboms/{sbom.name}")
    assert inside == sbom.read_bytes()


def test_the_provenance_names_subjects_commit_and_locks(release: Path) -> None:
    """The statement has what SLSA's build provenance requires."""
    (path,) = release.glob("*.intoto.jsonl")
    (line,) = path.read_text().splitlines()
    statement = json.loads(line)
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    files = contents(release)
    named = files.keys() - {path.name, "SHA256SUMS"}
    assert subjects == {name: verify.sha256(files[name]) for name in named}
    definition = statement["predicate"]["buildDefinition"]
    sources = {one["name"] for one in definition["resolvedDependencies"]}
    assert sources == {"source", "requirements/runtime.txt", "requirements/dev.txt"}
    assert statement["predicate"]["runDetails"]["builder"]["id"].startswith("https:")


def test_a_changed_tree_is_not_released(
    checkout: Path, release: Path, make: Make, tmp_path: Path
) -> None:
    """A tracked file that differs from the commit stops it, and is named."""
    other = tmp_path / "changed"
    shutil.copytree(checkout, other)
    with (other / "agentvault_tui/clock.py").open("a") as file:
        file.write("# a change\n")
    done = make(other)
    assert done.returncode == 1
    assert "agentvault_tui/clock.py" in done.stderr
    assert contents(other / "dist") == contents(release), "the last one stays"


def test_other_files_in_dist_are_not_deleted(
    checkout: Path, make: Make, tmp_path: Path
) -> None:
    """Anything in `dist` that is no file of a release stops it, and is named."""
    other = tmp_path / "full"
    subprocess.run([program("git"), "clone", "-q", checkout, other], check=True)
    (other / "dist").mkdir()
    (other / "dist/notes.txt").write_text("mine")
    done = make(other)
    assert done.returncode == 1
    assert "notes.txt" in done.stderr
    assert (other / "dist/notes.txt").read_text() == "mine"
