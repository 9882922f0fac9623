"""Check a release as a user would: ``make verify-release DIR=…``.

    python3 release/verify.py DIR

Needs Python 3.11 and nothing else. Compares the files of DIR with each other: sums,
SBOM, lock, provenance. They are not signed: to know who built them, verify the
attestation of the package index as well (docs/release.md).
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import json
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

SUMS: Final = "SHA256SUMS"
LOCK: Final = "requirements/runtime.txt"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "https://agentvault.dev/release/v1"
MARKER: Final = "agentvault:marker"
"""The property of a component that holds its environment marker (PEP 508)."""
_WHEEL: Final = re.compile(
    r"(agentvault_tui-([0-9][\w.+!]*))-py3-none-any\.whl", re.ASCII
)
_SUM: Final = re.compile(r"([0-9a-f]{64})  ([\w.+!-]+)", re.ASCII)
_PIN: Final = re.compile(r"([a-z0-9-]+)==([^\s;]+)(?: ; (.*?))? \\", re.ASCII)
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
        endings = ("-py3-none-any.whl", ".tar.gz", ".cdx.json", ".intoto.jsonl")
        return cls(*(stem + ending for ending in endings))

    @property
    def subjects(self) -> tuple[str, ...]:
        """Return the files that the provenance is about."""
        return tuple(sorted((self.wheel, self.sdist, self.sbom)))


class FaultyError(Exception):
    """A release that cannot be checked any further."""


def sha256(content: bytes) -> str:
    """Return the SHA-256 of *content* in hex."""
    return hashlib.sha256(content).hexdigest()


def render_sums(files: Mapping[str, bytes]) -> bytes:
    """Render `SHA256SUMS` as sha256sum(1) reads it, sorted by name."""
    lines = (f"{sha256(files[name])}  {name}\n" for name in sorted(files))
    return "".join(lines).encode()


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


def verify(folder: Path) -> Iterator[str]:
    """Yield each fault of the release in *folder*, beginning with the file's name.

    Args:
        folder: holds the files of one release and nothing else.

    Raises:
        FaultyError: without the file that it names, no other check is possible.
    """
    files, names = _read_files(folder)
    yield from _check_sums(files, names)
    yield from _check_contents(files, names)


def _read_files(folder: Path) -> tuple[dict[str, bytes], Names]:
    """Read the release; refuse missing and additional files."""
    if not folder.is_dir():
        raise FaultyError(f"{folder}: not a directory")
    found = {path.name: path for path in folder.iterdir()}
    wheels = [match for name in sorted(found) if (match := _WHEEL.fullmatch(name))]
    if len(wheels) != 1:
        raise FaultyError(f"{folder}: {len(wheels)} wheels of AgentVault, not 1")
    names = Names.of(wheels[0][1])
    expected = {*names, SUMS}
    if missing := sorted(expected - found.keys()):
        raise FaultyError(f"{', '.join(missing)}: missing")
    if more := sorted(found.keys() - expected):
        raise FaultyError(f"{', '.join(map(ascii, more))}: not a file of this release")
    for name, path in found.items():
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
            raise FaultyError(f"{name}: not a regular file of at most 64 MiB")
    return {name: path.read_bytes() for name, path in found.items()}, names


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
    if listed.keys() == actual.keys() and files[SUMS] != render_sums(
        {name: files[name] for name in names}
    ):
        yield f"{SUMS}: not in the form that make release writes, or a sum differs"


def _subjects(provenance: bytes) -> dict[str, str] | str:
    """Return the digests by subject, or why they cannot be read."""
    try:
        statement = json.loads(provenance)
        return {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    except (ValueError, LookupError, TypeError) as error:
        return f"not an in-toto statement ({type(error).__name__})"


def _check_contents(files: Mapping[str, bytes], names: Names) -> Iterator[str]:
    """Compare what wheel, sdist, SBOM and provenance say about each other."""
    stem = names.sdist.removesuffix(".tar.gz")
    inside: list[bytes | None] = []
    for name, read, at in (
        (names.wheel, _wheel_file, f"{stem}.dist-info/sboms/{names.sbom}"),
        (names.sdist, _sdist_file, f"{stem}/{names.sbom}"),
        (names.sdist, _sdist_file, f"{stem}/{LOCK}"),
    ):
        try:
            inside.append(read(files[name], at))
        except (
            *(KeyError, ValueError, OSError, EOFError, zlib.error, FaultyError),
            *(zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError),
        ) as error:
            inside.append(None)
            yield f"{name}: {at} cannot be read ({str(error)!a})"
    for name, sbom in zip((names.wheel, names.sdist), inside, strict=False):
        if sbom not in (None, files[names.sbom]):
            yield f"{names.sbom}: it differs from the SBOM in {name}"
    lock = inside[2]
    try:
        sbom_commit = yield from _check_sbom(files[names.sbom], stem, names.sbom, lock)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        yield f"{names.sbom}: not a CycloneDX document ({type(error).__name__})"
        sbom_commit = None
    try:
        faults = list(_provenance_faults(files[names.provenance], sbom_commit, lock))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        faults = [f"not a SLSA provenance statement ({type(error).__name__})"]
    for fault in faults:
        yield f"{names.provenance}: {fault}"


def _wheel_file(wheel: bytes, at: str) -> bytes:
    """Return a file of a wheel whose files all have the digests of its `RECORD`."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        content = {one.filename: archive.read(one) for one in archive.infolist()}
        if len(content) != len(archive.infolist()):
            raise FaultyError("a name is there twice")
    record = at.partition("/")[0] + "/RECORD"
    listed = {row[0]: row[1] for row in csv.reader(content[record].decode().split())}
    for name, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=")
        if name != record and listed.get(name) != f"sha256={digest.decode()}":
            raise FaultyError(f"{name} differs from its digest in RECORD")
    if listed.keys() != content.keys():
        raise FaultyError("RECORD names files that are not there")
    return content[at]


def _sdist_file(sdist: bytes, at: str) -> bytes:
    """Return a file of a source distribution."""
    with tarfile.open(fileobj=io.BytesIO(sdist), mode="r:gz") as archive:
        member = archive.extractfile(at)
        if member is None:
            raise FaultyError("not a regular file")
        return member.read()


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
    content: bytes, commit: str | None, lock: bytes | None
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
    faults: list[str] = []
    try:
        faults.extend(verify(folder))
    except FaultyError as error:
        faults.append(str(error))
    for fault in dict.fromkeys(faults):
        print(f"FAULT {fault}")
    if not faults:
        print(f"{folder}: ok, sums, SBOM, lock and provenance agree")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
