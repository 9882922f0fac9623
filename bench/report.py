"""Write docs/performance.md, and the two lines of README.md that quote it.

    python bench/report.py [--quick]

Runs the benches below one after another and takes the figures that they note
(`support/figures.py`). A figure is a ratio, since milliseconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from support.disk import flushes
from support.figures import FILE
from support.vault import disk, filesystem

ROOT = Path(__file__).resolve().parents[1]
PAGE, README = ROOT / "docs/performance.md", ROOT / "README.md"
BENCHES = (
    ("The gateway", ("gateway", "--no-peers"), ("--quick",)),
    ("A decision", ("decision", "--no-peers"), ("--rounds", "1")),
    ("A revocation", ("revoke", "--no-peers"), ("--quick",)),
    ("Growth", ("growth",), ("--quick",)),
)
"""Heading, command, and what makes it short."""
QUOTED = ("latency that the gateway adds", "revoked until the token is inactive, p50")
"""Beginnings of the figures that README.md quotes."""
BLOCK = re.compile(r"(<!-- performance -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = """\
# Performance

`make bench-report` wrote this page: each figure comes from one run on one machine.
A ratio compares two figures of the same run: it varies less than milliseconds.
A disk flush (`fdatasync` of 4 KiB) is the least that a durable record costs.
Before you rely on a figure, measure on your machine, with nothing else running.
"""
QUICK = """
> A short run wrote this page (`make bench-report BENCH_REPORT=--quick`).
> Its figures show the form of the page: do not rely on them.
"""
Figure = dict[str, Any]


def collect(line: list[str]) -> tuple[list[Figure], int]:
    """Run a bench; return its figures and its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "figures.jsonl")
        file.touch()
        environment = os.environ | {FILE: str(file)}
        done = subprocess.run(line, cwd=ROOT, env=environment, check=False)
        return [json.loads(row) for row in file.open()], done.returncode


def sentence(one: Figure) -> str:
    """Return a figure in one sentence."""
    ratio = one["value"] / one["base"]
    name = one["name"][0].upper() + one["name"][1:]
    return (
        f"{name}: {ratio:.2f} times {one['base_name']}"
        f" ({one['value']:.2f} {one['unit']} and {one['base']:.2f} {one['unit']})."
    )


def machine() -> list[str]:
    """Describe where it ran, as lines of a list."""
    cpu = re.search(r"model name\s*: (.*)", _text("/proc/cpuinfo"))
    kib = re.search(r"MemTotal:\s*(\d+)", _text("/proc/meminfo"))
    with tempfile.TemporaryDirectory(dir=disk()) as folder:
        flush = sorted(flushes(Path(folder), 100))[50]
        kind = filesystem(Path(folder))
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    cores = len(os.sched_getaffinity(0))
    system = f"{platform.system()} {platform.release()}"
    found = {
        "processor": f"{cpu[1] if cpu else platform.machine()}, {cores} cores",
        "memory": f"{int(kib[1]) / 2**20:.0f} GiB" if kib else "unknown",
        "disk": f"{kind}, a flush takes {flush:.2f} ms",
        "system": f"{system}, Python {platform.python_version()}",
        "load average before the run": f"{os.getloadavg()[0]:.1f}",
        "commit": commit or "unknown",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    return [f"- {name}: {value}" for name, value in found.items()]


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def render(
    where: list[str], sections: list[tuple[str, str, list[Figure]]], *, quick: bool
) -> str:
    """Render the page: the machine, then each bench with its command and figures."""
    lines = [HEAD + (QUICK if quick else ""), "## The machine", "", *where]
    for heading, command, figures in sections:
        lines += ["", f"## {heading}", "", f"Command: `{command}`", ""]
        lines += [f"- {sentence(one)}" for one in figures]
    return "\n".join(lines) + "\n"


def quote(readme: str, page: str) -> str:
    """Put the quoted lines of *page* into the block of README.md."""
    lines = [
        next(line for line in page.splitlines() if line[2:].lower().startswith(start))
        for start in QUOTED
    ]
    text = "\n".join(lines)
    return BLOCK.sub(lambda found: f"{found[1]}{text}\n{found[2]}", readme)


def main() -> int:
    """Run every bench and write; 1 if one did not note any figure."""
    parser = argparse.ArgumentParser(description="Write docs/performance.md.")
    parser.add_argument("--quick", action="store_true", help="short runs of each")
    quick = parser.parse_args().quick
    where, sections = machine(), []
    for heading, (name, *flags), short in BENCHES:
        words = [f"bench/{name}.py", *flags, *(short if quick else ())]
        command = " ".join(["python", *words])
        print(f"== {command}", flush=True)
        figures, code = collect([sys.executable, *words])
        if not figures:
            print(f"{command} noted no figure (exit {code}): nothing is written")
            return 1
        sections.append((heading, command, figures))
    page = render(where, sections, quick=quick)
    PAGE.write_text(page)
    README.write_text(quote(README.read_text(), page))
    print(f"wrote {PAGE.relative_to(ROOT)} and two lines of {README.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
