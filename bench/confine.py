"""What it costs to confine a command, against the same command without.

    python bench/confine.py [--quick]

A real ``agentvault serve``, a small fast upstream and ``agentvault run`` with and
without ``--confine``, in turn. Targets: the start takes at most 150 ms more, a
connection to the proxy that is refused for its password at most 1 ms more, and a
request through the gateway at most 1.1 times as long, on a connection that is kept as
clients of HTTP keep it. ``new`` is the same request on a connection of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

from support.service import READS, in_force, set_up, upstream
from support.vault import AGENTVAULT, Vault, vault

START_MS = 150.0
CONNECTION_MS = 1.0
REQUEST_RATIO = 1.1
PYTHON = "/usr/bin/python3"
INSIDE = """
import json, os, socket, statistics, sys, time
from http.client import HTTPConnection
from urllib.parse import urlsplit
count = int(sys.argv[1])
proxy = urlsplit(os.environ["HTTPS_PROXY"])
service = urlsplit(os.environ["BENCH_BASE_URL"])
token = open(os.environ["AGENTVAULT_TOKEN_FILE"]).read()
def refused():
    with socket.create_connection((proxy.hostname, proxy.port)) as one:
        one.sendall(b"CONNECT a.test:443 HTTP/1.1\\r\\nHost: a.test:443\\r\\n\\r\\n")
        assert b" 407 " in one.recv(4096)
kept = HTTPConnection(service.hostname, service.port)
def asked(one=kept):
    one.request("GET", service.path + "/bytes/64",
                headers={"Authorization": "Bearer " + token})
    answer = one.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
def asked_anew():
    one = HTTPConnection(service.hostname, service.port)
    asked(one)
    one.close()
found = {}
for name, do, times in (
    ("connection", refused, count * 4),
    ("request", asked, count),
    ("new", asked_anew, count),
):
    each = []
    for _ in range(times):
        began = time.perf_counter()
        do()
        each.append((time.perf_counter() - began) * 1000)
    found[name] = statistics.median(each)
print(json.dumps(found))
"""


def run(ours: Vault, folder: str, confine: bool, *words: str) -> tuple[float, str]:
    """Run a command; return the milliseconds that it took, and what it printed."""
    options = ["--confine"] if confine else []
    home = ["--home", str(ours.home)]
    line = [*AGENTVAULT, *home, "run", "--agent", "bench", *options, "--", *words]
    began = time.perf_counter()
    done = subprocess.run(
        line,
        cwd=folder,
        env=os.environ | {"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return (time.perf_counter() - began) * 1000, done.stdout


def main() -> int:
    """Print the costs; 0 when all met their targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds, count = (3, 50) if quick else (9, 200)
    with ExitStack() as stack:
        port = stack.enter_context(upstream())
        ours = stack.enter_context(vault())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        set_up(ours, port)
        asyncio.run(in_force(ours, 1))
        asyncio.run(ours.register("bench", READS))
        starts: dict[bool, list[float]] = {False: [], True: []}
        inside: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for _ in range(rounds):
            for confine in (False, True):
                starts[confine].append(run(ours, folder, confine, "/bin/true")[0])
        for _ in range(3):
            for confine in (False, True):
                words = (PYTHON, "-c", INSIDE, str(count))
                inside[confine].append(
                    json.loads(run(ours, folder, confine, *words)[1])
                )
    rows = [("start", *(statistics.median(starts[one]) for one in (False, True)))]
    for name in ("connection", "request", "new"):
        both = (
            statistics.median(found[name] for found in inside[one])
            for one in (False, True)
        )
        rows.append((name, *both))
    print(f"{'':12}{'open':>10}{'confined':>10}{'more':>10}{'ratio':>8}")
    for name, plain, confined in rows:
        more, ratio = confined - plain, confined / plain
        print(f"{name:12}{plain:8.2f}ms{confined:8.2f}ms{more:8.2f}ms{ratio:8.2f}")
    (_, plain, confined), (_, dialled, relayed), (_, direct, through), _ = rows
    met = (
        confined - plain <= START_MS
        and relayed - dialled <= CONNECTION_MS
        and through / direct <= REQUEST_RATIO
    )
    targets = f"{START_MS:.0f} ms, {CONNECTION_MS:.0f} ms, {REQUEST_RATIO}x"
    print(f"{'met' if met else 'missed'}: {targets}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
