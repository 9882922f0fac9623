"""Make the home directory of this version, for the upgrade tests of later ones.

    PYTHONPATH=tests python tests/upgrades/make_home.py [NAME]

Run it once for each release, before its commit: it writes `homes/NAME.tar.xz` and
`homes/NAME.json`, which says what a later version has to find. NAME is the version.
Every key and secret in it is invented and protects nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from support.command_line import PROGRAM, plain_environment, running
from support.vault import PAYMENT, Vault

import agentvault_tui

FOLDER = Path(__file__).parent / "homes"
LEFT_OUT = ("home/run", "home/start.reserve")
LIMITS = """\
[[limits]]
id = "reading"
scopes = ["read:calendar"]
within = "30d"
count = 100
over = "deny"
"""
SERVICE = """\
origin = "https://files.example"

[credential]
kind = "bearer"
secret = "files"

[[routes]]
method = "GET"
path = "/v1/files/{id}"
scope = "read:files"
resource = "files:{id}"
"""


def fill(vault: Vault, cli: Any) -> dict[str, Any]:
    """Do a little of everything; return what a later version has to find."""
    reader = vault.register("reader", "read:calendar", "read:files")
    payer = vault.register("payer", "send:payment")
    rogue = vault.register("rogue", "write:calendar")
    tokens = {"reader": reader.token("read:calendar").json()["access_token"]}
    tokens["rogue"] = rogue.token("write:calendar").json()["access_token"]
    waiting = payer.token("send:payment", PAYMENT).json()
    cli("agents", "revoke", "rogue", "--reason", "it is the example")
    cli("tenant", "user", "add", "carol", "--approver", "--json")
    cli("secrets", "set", "files", "--for", "https://files.example", text="s3cret\n")
    clients = {"reader": reader, "payer": payer, "rogue": rogue}
    return {
        "version": agentvault_tui.__version__,
        "clients": {name: [one.id, one.secret] for name, one in clients.items()},
        "tokens": tokens,
        "auth_req_id": waiting["auth_req_id"],
        "head": vault.operator.get("/api/status").json()["ledger"]["head"],
    }


def main() -> None:
    """Make the home directory, stop its broker, and pack both."""
    name = (sys.argv[1:] or [agentvault_tui.__version__])[0]
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        home = Path(folder, "home")
        (home / "services").mkdir(parents=True, mode=0o700)
        home.chmod(0o700)
        (home / "limits.toml").write_text(LIMITS)
        (home / "services/files.toml").write_text(SERVICE)
        for path in home.rglob("*.toml"):
            path.chmod(0o600)
        env = plain_environment(AGENTVAULT_CHANGES_SOCKET="uid")

        def cli(*argv: str, text: str = "") -> None:
            line = [*PROGRAM, "--home", str(home), *argv]
            subprocess.run(
                line,
                input=text,
                text=True,
                env=env,
                check=True,
                stdout=subprocess.DEVNULL,
            )

        line = ("--home", str(home), "serve", "--listen", "127.0.0.1:0")
        with running(line, env, stderr=None) as process:
            vault = Vault(home, process)  # type: ignore[arg-type]
            found = fill(vault, cli)
            vault.close()
            cli("backup", str(home.parent / "backup"))
            process.terminate()
            process.wait()
        with tarfile.open(FOLDER / f"{name}.tar.xz", "w:xz") as archive:
            for path in (home, home.parent / "backup"):
                archive.add(path, path.name, filter=_plain)
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what a start makes again, and who made the files."""
    if member.name.startswith(LEFT_OUT):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
