"""Check a release as a user would: ``make verify-release DIR=…``.

    python3 release/verify.py DIR

Needs Python 3.11, and git to compare the commit with the one that is checked out here.
Compares the files of DIR with each other: sums, SBOM, lock, provenance. They are not
signed: to know who built them, verify the attestation of the package index as well
(docs/release.md).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

SUMS: Final = "SHA256SUMS"
LOCK: Final = "requirements/runtime.txt"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "https://agentvault.dev/release/v1"
MARKER: Final = "agentvault:marker"
"""The property of a component that holds its environment marker (PEP 508)."""
ENDINGS: Final = ("-py3-none-any.whl", ".tar.gz", ".cdx.json", ".intoto.jsonl")
_FILE: Final = re.compile(
    rf"(agentvault_tui-[0-9][\w.+!]*)(?:{'|'.join(map(re.escape, ENDINGS))})", re.ASCII
)
_SUM: Final = re.compile(r"([0-9a-f]{64})  ([\w.+!-]+)", re.ASCII)
_PIN: Final = re.compile(r"([a-z0-9-]+)==([^\s;]+)(?: ; (.*?))? \\", re.ASCII)
_COMMIT: Final = re.compile(r"[0-9a-f]{40,64}", re.ASCII)
_CHUNK: Final = 2**20
_LARGEST: Final = 64 * 1024 * 1024


class Pin(NamedTuple):
    """One package of a lock."""

    name: str
    version: str
    marker: str
    hashes: frozenset[str]
    parents: tuple[str, ...]
    """The packages that depend on it, as `uv pip compile` notes it after "via"."""


class Names(NamedTuple):
    """The files of a release, by what they are."""

    wheel: str
    sdist: str
    sbom: str
    provenance: str

    @classmethod
    def of(cls, stem: str) -> Names:
        """Name the files of the release *stem*, such as ``agentvault_tui-0.9.0``."""
        return cls(*(stem + ending for ending in ENDINGS))

    @property
    def subjects(self) -> tuple[str, ...]:
        """Return the files that the provenance is about."""
        return tuple(sorted((self.wheel, self.sdist, self.sbom)))


class Checkout(NamedTuple):
    """The commit that is checked out, and the tracked files that differ from it."""

    commit: str
    changed: str


class FaultyError(Exception):
    """A release that cannot be checked any further."""


def sha256(content: bytes) -> str:
    """Return the SHA-256 of *content* in hex."""
    return hashlib.sha256(content).hexdigest()


def render_sums(files: Mapping[str, bytes]) -> bytes:
    """Render `SHA256SUMS` as sha256sum(1) reads it, sorted by name."""
    lines = (f"{sha256(files[name])}  {name}\n" for name in sorted(files))
    return "".join(lines).encode()


def run_git(root: Path, *words: str) -> bytes:
    """Return the output of a git command in *root*."""
    line = ["git", "-C", str(root), *words]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout


def read_checkout(root: Path) -> Checkout:
    """Read the state of the checkout *root*.

    Raises:
        OSError: git is not installed.
        CalledProcessError: git refuses.
    """
    commit = run_git(root, "rev-parse", "HEAD").decode().strip()
    changed = run_git(root, "status", "--porcelain", "--untracked-files=no")
    return Checkout(commit, changed.decode(errors="replace").rstrip())


def read_lock(text: str) -> list[Pin]:
    """Read the packages of a lock that `uv pip compile --generate-hashes` wrote.

    Raises:
        FaultyError: a package has no hash.
    """
    pins = []
    for block in re.split(r"\n(?=[a-z0-9])", text):
        if not (found := _PIN.match(block)):
            continue
        name, version, marker = found.groups(default="")
        hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block))
        if not hashes:
            raise FaultyError(f"{LOCK}: {name} has no hash")
        via = block.partition("# via")[2].replace("#", "").splitlines()
        parents = tuple(line.strip() for line in via if line.strip())
        pins.append(Pin(name, version, marker, hashes, parents))
    return pins


def verify(folder: Path, here: Checkout | None = None) -> Iterator[str]:
    """Yield each fault of the release in *folder*, beginning with the file's name.

    Args:
        folder: holds the files of one release and nothing else.
        here: if given, the release has to be built from exactly this.

    Raises:
        FaultyError: without the file that it names, no other check is possible.
    """
    found = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    stems = Counter(
        match[1] for name in sorted(found) if (match := _FILE.fullmatch(name))
    )
    if not stems:
        raise FaultyError(f"{folder}: no directory with a release of AgentVault")
    names = Names.of(stems.most_common(1)[0][0])
    files = yield from _read_files(found, {*names, SUMS})
    if files.keys() == {*names, SUMS}:
        yield from _check_sums(files, names)
        yield from _check_contents(files, names, here)


def _read_files(
    found: Mapping[str, Path], expected: set[str]
) -> Generator[str, None, dict[str, bytes]]:
    """Read the files of a release; yield missing, additional and irregular ones."""
    files = {}
    for name in sorted(expected | found.keys()):
        path = found.get(name)
        if path is None:
            yield f"{name}: missing"
        elif name not in expected:
            yield f"{name!a}: not a file of this release"
        elif path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
            yield f"{name}: not a regular file of at most 64 MiB"
        else:
            files[name] = path.read_bytes()
    return files


def _check_sums(files: Mapping[str, bytes], names: Names) -> Iterator[str]:
    """Compare files, sums and provenance; name whichever two others contradict."""
    actual = {name: sha256(files[name]) for name in names}
    subjects = _subjects(files[names.provenance])
    if isinstance(subjects, str):
        yield f"{names.provenance}: {subjects}"
        subjects = {}
    elif unknown := sorted(subjects.keys() ^ {*names.subjects}):
        yield f"{names.provenance}: wrong subjects: {', '.join(map(ascii, unknown))}"
    lines = files[SUMS].decode("ascii", "replace").split("\n")
    listed = {m[2]: m[1] for line in lines if (m := _SUM.fullmatch(line))}
    for name, digest in actual.items():
        stated = subjects.get(name)
        if listed.get(name) == digest:
            if stated not in (None, digest):
                yield f"{names.provenance}: it states another digest of {name}"
        elif stated == digest:
            yield f"{SUMS}: it states another digest of {name}, or none"
        elif name == names.provenance:
            yield f"{name}: it differs from its sum in {SUMS}; one of the two changed"
        else:
            yield f"{name}: it differs from its sum in {SUMS}"
            if stated not in (None, listed.get(name)):
                yield f"{names.provenance}: it states a third digest of {name}"
    form = [f"{listed[name]}  {name}" for name in sorted(actual) if name in listed]
    if lines != [*form, ""]:
        yield f"{SUMS}: not in the form that make release writes"


def _subjects(provenance: bytes) -> dict[str, str] | str:
    """Return the digests by subject, or why they cannot be read."""
    try:
        statement = json.loads(provenance)
        return {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    except (ValueError, LookupError, TypeError) as error:
        return f"not an in-toto statement ({type(error).__name__})"


def _check_contents(
    files: Mapping[str, bytes], names: Names, here: Checkout | None
) -> Iterator[str]:
    """Compare what wheel, sdist, SBOM and provenance say about each other."""
    stem = names.sdist.removesuffix(".tar.gz")
    in_wheel = f"{stem}.dist-info/sboms/{names.sbom}"
    in_sdist, locked = f"{stem}/{names.sbom}", f"{stem}/{LOCK}"
    inside: dict[str, bytes] = {}
    for name, read, places in (
        (names.wheel, _read_wheel, (in_wheel,)),
        (names.sdist, _read_sdist, (in_sdist, locked)),
    ):
        try:
            inside.update(read(files[name], *places))
        except FaultyError as error:
            yield f"{name}: {error}"
        except _DAMAGED:
            yield f"{name}: it ends early or is damaged"
    for name, at in ((names.wheel, in_wheel), (names.sdist, in_sdist)):
        if inside.get(at, files[names.sbom]) != files[names.sbom]:
            yield f"{names.sbom}: it differs from the SBOM in {name}"
    lock = inside.get(locked)
    try:
        sbom_commit = yield from _check_sbom(files[names.sbom], stem, names.sbom, lock)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        yield f"{names.sbom}: not a CycloneDX document ({type(error).__name__})"
        sbom_commit = None
    try:
        faults = list(
            _provenance_faults(files[names.provenance], sbom_commit, lock, here)
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        faults = [f"not a SLSA provenance statement ({type(error).__name__})"]
    for fault in faults:
        yield f"{names.provenance}: {fault}"


_DAMAGED: Final = (
    *(KeyError, ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile),
    *(tarfile.TarError, NotImplementedError, RuntimeError),
)
"""Errors of reading an archive that was damaged."""


def _read_wheel(wheel: bytes, at: str) -> dict[str, bytes]:
    """Return the files of a wheel, if all have the digests of its `RECORD`."""
    content = {}
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for one in archive.infolist():
            if one.filename in content:
                raise FaultyError(f"{one.filename!a} is in it twice")
            try:
                content[one.filename] = archive.read(one)
            except _DAMAGED:
                raise FaultyError(f"{one.filename!a} in it is damaged") from None
    record = at.partition("/")[0] + "/RECORD"
    for name in (record, at):
        if name not in content:
            raise FaultyError(f"{name} is not in it")
    listed = {row[0]: row[1] for row in csv.reader(content[record].decode().split())}
    for name, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=")
        if name != record and listed.get(name) != f"sha256={digest.decode()}":
            raise FaultyError(f"{name!a} in it differs from its digest in RECORD")
    if listed.keys() != content.keys():
        raise FaultyError("RECORD in it names files that are not there")
    return content


def _read_sdist(sdist: bytes, *places: str) -> dict[str, bytes]:
    """Return files of a source distribution, if it has gzip's own checksum."""
    with gzip.open(io.BytesIO(sdist)) as whole:
        while whole.read(_CHUNK):  # tarfile stops before the checksum
            pass
    content = {}
    with tarfile.open(fileobj=io.BytesIO(sdist), mode="r:gz") as archive:
        there = archive.getnames()  # damage ends the list
        for at in places:
            member = archive.extractfile(at) if at in there else None
            if member is None:
                raise FaultyError(f"{at} is not in it, or it ends early")
            content[at] = member.read()
    return content


def _check_sbom(
    content: bytes, stem: str, name: str, lock: bytes | None
) -> Iterator[str]:
    """Yield the faults of an SBOM; return the commit that it names."""
    bom = json.loads(content)
    component = bom["metadata"]["component"]
    if (bom["bomFormat"], bom["specVersion"]) != ("CycloneDX", "1.7"):
        yield f"{name}: not CycloneDX 1.7"
    if f"{component['name'].replace('-', '_')}-{component['version']}" != stem:
        yield f"{name}: it is about {component['name']!a}"
    if lock is not None:
        locked = {pin[:4] for pin in read_lock(lock.decode())}
        stated = [_pinned(one) for one in bom["components"]]
        for one in sorted({pin[0] for pin in locked ^ {*stated}}):
            yield f"{name}: {one!a} differs from {LOCK} of the sdist"
        if len(stated) != len(locked):
            yield f"{name}: {len(stated)} components; {LOCK} has {len(locked)}"
    commit: str = component["pedigree"]["commits"][0]["uid"]
    return commit


def _pinned(component: dict[str, Any]) -> tuple[str, str, str, frozenset[str]]:
    """Return name, version, marker and hashes of a component."""
    own = {one["name"]: one["value"] for one in component.get("properties", ())}
    (source,) = component["externalReferences"]
    hashes = frozenset(one["content"] for one in source["hashes"])
    return component["name"], component["version"], own.get(MARKER, ""), hashes


def _provenance_faults(
    content: bytes, commit: str | None, lock: bytes | None, here: Checkout | None
) -> Iterator[str]:
    """Yield the faults of a provenance statement.

    Source: in-toto Attestation Framework v1, Statement; SLSA v1.2, Build provenance.
    """
    statement = json.loads(content)
    if render_line(statement) != content:
        yield "not in the form that make release writes"
    if (statement["_type"], statement["predicateType"]) != (STATEMENT, PREDICATE):
        yield "not a SLSA provenance statement"
    definition = statement["predicate"]["buildDefinition"]
    if definition["buildType"] != BUILD_TYPE:
        yield f"it has another buildType than {BUILD_TYPE}"
    inputs = {one["name"]: one["digest"] for one in definition["resolvedDependencies"]}
    sources = inputs["source"]["gitCommit"], definition["externalParameters"]["commit"]
    if commit is not None and {*sources} != {commit}:
        yield "it names another commit than the SBOM"
    if not all(_COMMIT.fullmatch(one) for one in sources):
        yield "it names no commit"
    elif here is not None and {*sources} != {here.commit}:
        yield f"it is about commit {sources[0]}, this checkout is at {here.commit}"
    elif here is not None and here.changed:
        changed = ", ".join(one[3:] for one in here.changed.splitlines())
        yield f"this checkout differs from its commit: {changed}"
    if lock is not None and inputs[LOCK]["sha256"] != sha256(lock):
        yield f"it states another digest of {LOCK} than the sdist has"
    if ":" not in statement["predicate"]["runDetails"]["builder"]["id"]:
        yield "its builder id is not a URI"


def render_line(value: object) -> bytes:
    """Encode *value* as one line of JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return text.encode() + b"\n"


def main() -> int:
    """Print one line a fault and exit 1, or say that the release is whole."""
    parser = argparse.ArgumentParser(description="Check the files of a release.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    root, here = Path(__file__).resolve().parents[1], None
    if (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            here = read_checkout(root)
    faults: list[str] = []
    try:
        faults.extend(verify(folder, here))
    except FaultyError as error:
        faults.append(str(error))
    for fault in faults:
        print(f"FAULT {fault}")
    if not faults:
        (provenance,) = folder.glob(f"*{ENDINGS[-1]}")
        definition = json.loads(provenance.read_bytes())["predicate"]["buildDefinition"]
        commit = definition["externalParameters"]["commit"]
        where = "checked out here" if here else "not compared with a checkout"
        print(
            f"{folder}: ok, built from commit {commit} ({where});"
            " sums, SBOM, lock and provenance agree"
        )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
