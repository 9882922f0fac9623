"""The released wheel in an empty environment: installed, used, and gone again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import plain_environment
from support.needs import program
from support.patience import PATIENT

_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"


@pytest.fixture
def environment(short: Path) -> dict[str, str]:
    """A user whose own folder and temporary files are empty."""
    for name in ("home", "tmp"):
        (short / name).mkdir(mode=0o700)
    base = {k: v for k, v in plain_environment().items() if not k.startswith("XDG_")}
    own = {"HOME": str(short / "home"), "TMPDIR": str(short / "tmp")}
    # pip runs rustc, whose shim writes into HOME, unless it is named.
    named = {"RUSTUP_HOME": os.environ.get("RUSTUP_HOME", f"{Path.home()}/.rustup")}
    return {**base, **own, **named, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}


def test_nothing_is_left_after_installing_and_uninstalling(
    release: Path, checkout: Path, short: Path, environment: dict[str, str]
) -> None:
    """After a demo and everything that is written outside the home directory."""

    def run(*line: str | Path) -> str:
        done = subprocess.run(
            line,
            cwd=short,
            env=environment,
            capture_output=True,
            text=True,
            timeout=2 * PATIENT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", "--without-pip", short / "env")
    python = short / "env/bin/python"
    site = Path(run(python, "-c", _SITE).strip())
    # Its dependencies are ours: there is no network in tests.
    places = [one for one in sys.path if one.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(places))
    before = sorted(path.relative_to(short) for path in short.rglob("*"))
    (wheel,) = release.glob("*.whl")
    asked = short / "tmp/requirements.txt"
    digest = run(sys.executable, "-c", _DIGEST, wheel).strip()
    asked.write_text(f"agentvault-tui @ {wheel.as_uri()} --hash=sha256:{digest}")
    pip = (sys.executable, "-m", "pip", "--python", python)
    offline = ("--quiet", "--no-cache-dir", "--no-index", "--no-deps")
    run(*pip, "install", *offline, "--require-hashes", "-r", asked)
    asked.unlink()
    agentvault = python.with_name("agentvault")

    line = [program("git"), "-C", checkout, "rev-parse", "HEAD"]
    commit = subprocess.check_output(line, text=True).strip()
    (sbom,) = release.glob("*.cdx.json")
    digest = run(sys.executable, "-c", _DIGEST, sbom).strip()
    described = run(agentvault, "--version", "--verbose").splitlines()
    assert described[1:3] == [f"commit {commit}", f"sbom sha256:{digest}"]

    summary = json.loads(run(agentvault, "demo", "--headless", "--for", "3"))
    assert summary["totals"]["allowed"] > 0
    run(agentvault, "tls", "init")
    run(agentvault, "connect", "codex", "--agent", "coder", "--write")
    run(agentvault, "completion", "bash", "--install")
    run(agentvault, "man", "--install")
    run(agentvault, "systemd", "install", "--user")

    done = json.loads(run(agentvault, "uninstall", "--purge", "--yes", "--json"))
    (step,) = done["next"]
    assert step == f"{python} -m pip uninstall agentvault-tui"
    run(*pip, "uninstall", "--quiet", "--yes", "agentvault-tui")
    assert sorted(path.relative_to(short) for path in short.rglob("*")) == before


_DIGEST = (
    "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read())"
    ".hexdigest())"
)
