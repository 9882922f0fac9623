"""`make verify-release`: one changed bit, a missing or an additional file is named."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import verify
from support.needs import program

SCRIPT = Path(verify.__file__)
FLIPS = 3
"""How many bits of each file are changed, one at a time."""


@pytest.fixture
def folder(release: Path, tmp_path: Path) -> Path:
    """A copy of the release."""
    return shutil.copytree(release, tmp_path / "dist")


def faults(folder: Path) -> list[str]:
    found: list[str] = []
    try:
        found.extend(verify.verify(folder))
    except verify.FaultyError as error:
        found.append(str(error))
    return found


def run(script: Path, folder: Path) -> tuple[int, str]:
    """Run the script; return its exit code and output."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", script, folder],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_release_verifies_with_python_alone(release: Path, tmp_path: Path) -> None:
    """The script needs the standard library only, and the sums fit sha256sum(1)."""
    script = shutil.copy(SCRIPT, tmp_path)
    code, out = run(script, release)
    assert (code, "not compared with a checkout" in out) == (0, True), out
    if shutil.which("sha256sum"):
        line = ["sha256sum", "--check", "--strict", "--quiet", verify.SUMS]
        subprocess.run(line, cwd=release, check=True)


def test_a_release_of_another_commit_than_the_checkout_is_refused(
    checkout: Path, release: Path, tmp_path: Path
) -> None:
    """The same files pass in a checkout of their commit, and the commit is printed."""
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    git = [program("git"), "-C", tmp_path / "clone", *author]
    subprocess.run([git[0], "clone", "-q", checkout, tmp_path / "clone"], check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    script = tmp_path / "clone/release/verify.py"
    code, out = run(script, release)
    assert (code, f"built from commit {head} (checked out here)" in out) == (0, True)
    with (tmp_path / "clone/README.md").open("a") as file:
        file.write("more")
    code, out = run(script, release)
    assert (code, "this checkout differs from its commit: README.md" in out) == (
        1,
        True,
    )
    subprocess.run([*git, "commit", "-qam", "more"], check=True)
    code, out = run(script, release)
    assert (code, f"it is about commit {head}, this checkout" in out) == (1, True), out


@pytest.mark.parametrize("ending", [".whl", ".gz", ".cdx.json", ".jsonl", "SUMS"])
def test_one_changed_bit_is_found_and_its_file_is_named(
    folder: Path, ending: str
) -> None:
    """Whichever file has it; archives accuse no other file.

    A sum of the provenance names both it and the sums.
    """
    (path,) = (one for one in folder.iterdir() if one.name.endswith(ending))
    content, rng = path.read_bytes(), random.Random(ending)  # noqa: S311
    for _ in range(FLIPS):
        at, bit = rng.randrange(len(content)), rng.randrange(8)
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        found = faults(folder)
        assert any(path.name in fault for fault in found), (at, bit, found)
        if ending not in {"SUMS", ".jsonl"}:
            assert any(one.startswith(f"{path.name}:") for one in found), found
            assert not any(one.startswith(f"{verify.SUMS}:") for one in found), found
        if ending in {".whl", ".gz"}:
            assert all(one.startswith(f"{path.name}:") for one in found), found
    path.write_bytes(content)
    assert faults(folder) == []


@pytest.mark.parametrize("ending", [".whl", ".gz", ".cdx.json", ".jsonl", "SUMS"])
def test_a_missing_file_is_named(folder: Path, ending: str) -> None:
    """No file of a release may be left out, and one fault hides no other."""
    (path,) = (one for one in folder.iterdir() if one.name.endswith(ending))
    path.unlink()
    (folder / "extra.txt").touch()
    more = "'extra.txt': not a file of this release"
    assert {*faults(folder)} == {f"{path.name}: missing", more}


@pytest.mark.parametrize("kind", ["file", "folder", "link", "second wheel"])
def test_an_additional_file_is_refused(folder: Path, kind: str) -> None:
    """A folder for another build, a link or a second wheel is no part of it."""
    (wheel,) = folder.glob("*.whl")
    if kind == "file":
        (folder / "setup.sh").write_text("")
    elif kind == "folder":
        (folder / "more").mkdir()
    elif kind == "link":
        moved = wheel.rename(folder.parent / wheel.name)
        wheel.symlink_to(moved)
    else:
        shutil.copy(wheel, folder / wheel.name.replace("0.9", "0.10"))
    (fault,) = faults(folder)
    assert any(path.name in fault for path in folder.iterdir())


def reseal(folder: Path) -> None:
    """Write sums and subjects again, as someone would who changed a file on purpose."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files.pop(verify.SUMS)
    (name,) = (name for name in files if name.endswith(".jsonl"))
    statement = json.loads(files[name])
    for one in statement["subject"]:
        one["digest"]["sha256"] = hashlib.sha256(files[one["name"]]).hexdigest()
    files[name] = verify.render_line(statement)
    (folder / name).write_bytes(files[name])
    (folder / verify.SUMS).write_bytes(verify.render_sums(files))


def test_an_sbom_that_differs_from_wheel_or_lock_is_found(folder: Path) -> None:
    """Even if sums and provenance were written again to fit it."""
    (path,) = folder.glob("*.cdx.json")
    bom = json.loads(path.read_text())
    bom["components"][0]["version"] += ".1"
    path.write_text(json.dumps(bom))
    reseal(folder)
    found = faults(folder)
    name = bom["components"][0]["name"]
    assert any("differs from the SBOM in" in fault for fault in found)
    assert any(f"'{name}' differs from requirements" in fault for fault in found)


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("subject",), [], "wrong subjects"),
        (("predicateType",), "https://example.com/", "not a SLSA provenance"),
        (("predicate", "buildDefinition", "buildType"), "x:y", "another buildType"),
        (
            ("predicate", "buildDefinition", "externalParameters", "commit"),
            "0" * 40,
            "another commit than the SBOM",
        ),
        (
            ("predicate", "buildDefinition", "externalParameters", "commit"),
            "\x1b[2J",
            "it names no commit",
        ),
        (("predicate",), {}, "not a SLSA provenance statement"),
    ],
)
def test_a_provenance_about_something_else_is_found(
    folder: Path, place: tuple[str, ...], value: object, fault: str
) -> None:
    """It has to be about these files, this commit and this kind of build."""
    (path,) = folder.glob("*.jsonl")
    statement = json.loads(path.read_bytes())
    inner = statement
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path.write_bytes(verify.render_line(statement))
    files = {one.name: one.read_bytes() for one in folder.iterdir()}
    files.pop(verify.SUMS)
    (folder / verify.SUMS).write_bytes(verify.render_sums(files))
    found = faults(folder)
    assert any(one.startswith(f"{path.name}: {fault}") or fault in one for one in found)


def test_a_folder_that_is_no_release_is_named(tmp_path: Path) -> None:
    """A wrong DIR is one line and exit code 1."""
    for folder in (tmp_path / "missing", tmp_path):
        line = [sys.executable, SCRIPT, folder]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith(f"FAULT {folder}")
