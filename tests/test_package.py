"""The wheel and the sdist: complete, nothing else in them, and they run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.command_line import plain_environment
from support.patience import PATIENT

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SECRETS = re.compile(
    rb"PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}|\bav_[a-z]_[\w-]{40}|\bghp_\w{36}"
)
"""A key or token with its value, as no release may hold one."""


def run(*argv: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(tree: Path) -> dict[str, Path]:
    """Build both in *tree* as `python -m build` does there; return them by suffix."""
    run(sys.executable, "-m", "hatchling", "build", cwd=tree)
    return {path.suffix: path for path in (tree / "dist").iterdir()}


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """What a clone has."""
    listed = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return [name for name in listed if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, tracked: list[str]) -> Path:
    """A clean clone."""
    return clone(tmp_path_factory.mktemp("clone"), tracked)


def clone(folder: Path, tracked: list[str]) -> Path:
    for name in tracked:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return folder


@pytest.fixture(scope="module")
def built(tree: Path) -> dict[str, Path]:
    return build(tree)


def test_the_wheel_holds_the_package_and_nothing_else(
    built: dict[str, Path], tracked: list[str]
) -> None:
    """Templates, policies, service files and the licence are in it; no test is."""
    with zipfile.ZipFile(built[".whl"]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        others = {Path(name).name for name in wheel.namelist()} - {
            Path(name).name for name in names
        }
        content = b"".join(map(wheel.read, wheel.namelist()))
    assert names == {name for name in tracked if name.startswith("agentvault_tui/")}
    assert others >= {"LICENSE", "METADATA", "entry_points.txt"}
    assert SECRETS.search(content) is None


def test_the_sdist_holds_package_docs_and_licence(
    built: dict[str, Path], tracked: list[str]
) -> None:
    """And the locked requirements; no tests, pictures or benches."""
    wanted = ("agentvault_tui/", "docs/", "requirements/runtime.txt")
    with tarfile.open(built[".gz"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
        files = [sdist.extractfile(member) for member in sdist if member.isreg()]
        content = b"".join(file.read() for file in files if file)
    assert names == {
        *(name for name in tracked if name.startswith(wanted)),
        *("CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "hatch_build.py"),
        *("pyproject.toml", ".gitignore"),
        "PKG-INFO",
    }
    assert SECRETS.search(content) is None


def test_a_build_elsewhere_gives_the_same_bytes(
    built: dict[str, Path], tmp_path: Path, tracked: list[str]
) -> None:
    """Whatever the folder, its times and the umask; the sdist builds the same wheel."""
    other = clone(tmp_path / "other", tracked)
    for path in other.rglob("*.py"):
        path.chmod(0o600)
    again = build(other)
    with tarfile.open(built[".gz"]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("agentvault*")
    for kind, path in built.items():
        assert digest(again[kind]) == digest(path), kind
    assert digest(build(unpacked)[".whl"]) == digest(built[".whl"])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_wheel_installs_by_its_hash_and_serves(
    built: dict[str, Path], short: Path
) -> None:
    """In an environment of its own `agentvault` tells its version, and serves."""
    run(sys.executable, "-m", "venv", "--without-pip", short / "env", cwd=short)
    python = short / "env" / "bin" / "python"
    site = Path(run(python, "-c", _SITE, cwd=short).strip())
    # Its dependencies are ours: `make install` installs those by their hashes.
    places = [one for one in sys.path if one.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(places))
    wheel = built[".whl"]
    asked = short / "requirements.txt"
    asked.write_text(f"agentvault-tui @ {wheel.as_uri()} --hash=sha256:{digest(wheel)}")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-index", "--no-deps", "--require-hashes", "-r", asked, cwd=short)
    where = run(
        python, "-c", "import agentvault_tui as a; print(a.__file__)", cwd=short
    )
    assert Path(where.strip()).is_relative_to(site)
    program = python.with_name("agentvault")
    assert run(program, "--version", cwd=short).startswith("agentvault ")
    line = [program, "--home", short / "h", "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        line, cwd=short, env=plain_environment(), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["pid"] == process.pid
            process.terminate()
            assert process.wait(PATIENT) == 0
        finally:
            process.kill()


_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"
