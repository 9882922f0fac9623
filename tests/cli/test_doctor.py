"""`agentvault doctor`: each fault is found and has its remedy."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Answer, Broker
from support.dict_tenant import dict_tenant
from support.forked import agentvault
from support.ledger_kit import decision, manual_clock, unguarded
from support.terminal import Terminal
from support.wire_shapes import filled

from agentvault_tui import __version__
from agentvault_tui.cli import doctor as running
from agentvault_tui.cli.doctor import resets_can_race
from agentvault_tui.home import Home
from agentvault_tui.ledger import CutJournal, KeptCut, Ledger
from agentvault_tui.operator_api.shapes import StatusInfo
from agentvault_tui.policy.texts import shipped_policy, shipped_scopes
from agentvault_tui.web.local_ca import renew

Run = Callable[..., Answer]


def levels(answer: Answer, area: str) -> dict[str, dict[str, Any]]:
    found = answer.json["findings"]
    return {item["level"]: item for item in found if item["area"] == area}


def test_an_empty_home_has_no_fault(cli: Run, tmp_path: Path) -> None:
    """Before the first start nothing is wrong, and the first step is named."""
    answer = cli("--home", str(tmp_path / "new"), "doctor", "--json")
    assert (answer.code, answer.json["ok"]) == (0, True)
    assert "user add" in levels(answer, "people")["warning"]["remedy"]


def test_a_running_broker_is_well(av: Run) -> None:
    """Broker, tenant, ledger and files are each ok while all runs."""
    answer = av("doctor", "--json")
    assert answer.code == 0
    for area in ("files", "settings", "policy", "broker", "tenant", "ledger", "clock"):
        assert set(levels(answer, area)) == {"ok"}, area
    people = av("doctor").out
    assert all(row.isprintable() for row in people.split("\n"))


async def test_what_the_next_start_does_with_kept_cuts_is_said(
    cli: Run, tmp_path: Path
) -> None:
    """How many it applies; or that it stops everything, and why."""
    home = Home.locate(tmp_path / "h")
    home.prepare()
    # The tester's own broker may have the usual port.
    home.config_file.write_text('[gateway]\nproxy = "127.0.0.1:0"\n')
    home.config_file.chmod(0o600)
    ledger = await Ledger.open(home, clock=manual_clock())
    await ledger.commit(decision())
    await ledger.close()
    journal = CutJournal.open(home, ledger.ledger_id, expected=False, fresh=False)
    by = ("operator", "uid:0", "olga")
    journal.write([KeptCut("revoke", "2026-11-24T10:00:00Z", by, agent="agt_1")])

    def found() -> dict[str, dict[str, Any]]:
        return levels(cli("--home", str(home.data), "doctor", "--json"), "broker")

    told = await asyncio.to_thread(found)
    assert "not in the ledger: 1 cut(s)" in told["warning"]["what"]
    assert "fault" not in told
    home.cut_journal.unlink()
    told = await asyncio.to_thread(found)
    assert "the next start stops everything" in told["fault"]["what"]


def test_open_modes_are_a_fault_with_the_command(cli: Run, tmp_path: Path) -> None:
    """A folder others can read exits 1 and says which chmod."""
    tmp_path.chmod(0o755)
    answer = cli("--home", str(tmp_path), "doctor", "--json")
    assert (answer.code, answer.json["ok"]) == (1, False)
    assert levels(answer, "files")["fault"]["remedy"] == f"chmod 0700 {tmp_path}"
    assert "-> chmod 0700" in cli("--home", str(tmp_path), "doctor").out


def test_settings_that_others_may_read_are_put_right(cli: Run, tmp_path: Path) -> None:
    """That is a warning; so is a file that they may write, in a home closed to them."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    file, link = home / "config.toml", tmp_path / "elsewhere"
    for name, mode in (
        *(("config.toml", mode) for mode in (0o644, 0o640, 0o664, 0o666)),
        ("limits.toml", 0o666),
    ):
        (home / name).write_text("")
        (home / name).chmod(mode)
        answer = cli("--home", str(home), "doctor", "--json")
        assert (home / name).stat().st_mode & 0o777 == 0o600
        assert answer.code == 0
        assert f"{mode:04o}" in levels(answer, "files")["warning"]["what"]
    (home / "limits.toml").chmod(0o666)
    home.chmod(0o711)
    fault = levels(cli("--home", str(home), "doctor", "--json"), "files")["fault"]
    assert fault["remedy"].endswith((f"chmod 600 {home}/limits.toml", f"0700 {home}"))
    home.chmod(0o700)
    cli("--home", str(home), "doctor", "--json")
    assert set(levels(cli("--home", str(home), "doctor", "--json"), "files")) == {"ok"}
    file.rename(link)
    link.chmod(0o644)
    file.symlink_to(link)
    cli("--home", str(home), "doctor", "--json")
    assert link.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_policy_that_others_may_read_is_put_right(
    cli: Run, tmp_path: Path, mode: int
) -> None:
    """That is a warning for each file that people write, and a fault for others."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    texts = {"policy.cedar": shipped_policy(), "scopes.toml": shipped_scopes()}
    for name, text in (texts | {"limits.toml": "", "alerts.toml": ""}).items():
        (home / name).write_text(text)
        (home / name).chmod(mode)
        answer = cli("--home", str(home), "doctor", "--json")
        assert f"{mode:04o}" in levels(answer, "files")["warning"]["what"]
        assert (answer.code, set(levels(answer, "files"))) == (0, {"ok", "warning"})
        assert (home / name).stat().st_mode & 0o777 == 0o600
    (home / "start.reserve").touch(mode)
    (home / "start.reserve").chmod(mode)
    answer = cli("--home", str(home), "doctor", "--json")
    assert "start.reserve" in levels(answer, "files")["fault"]["what"]


def test_root_is_warned(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents of the same user read what the broker reads, and root reads it all."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    found = levels(cli("doctor", "--json"), "user")
    assert "systemd install" in found["warning"]["remedy"]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert set(levels(cli("doctor", "--json"), "user")) == {"ok"}


def test_a_pythonpath_is_warned_of(
    cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An agent that writes to its folder would have the broker run its module."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "PYTHONPATH is set" in cli("doctor").out


def test_a_home_that_is_refused_is_one_fault(cli: Run, tmp_path: Path) -> None:
    """Said once, with the remedy; what needs no home is still looked at."""
    tmp_path.chmod(0o777)
    answer = cli("--home", str(tmp_path), "doctor", "--json")
    assert answer.code == 1
    fault = levels(answer, "files")["fault"]
    assert "others can write" in fault["what"]
    assert f"chmod 700 {tmp_path}" in fault["remedy"]
    assert {item["area"] for item in answer.json["findings"]} == {
        "versions",
        "user",
        "files",
        "terminal",
    }


def test_broken_settings_and_policy_are_faults(cli: Run, tmp_path: Path) -> None:
    """What would stop the broker is named, and the rest is still checked."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text("[brokr]\n")
    (home / "policy.cedar").write_text("nonsense")
    answer = cli("--home", str(home), "doctor", "--json")
    assert answer.code == 1
    assert "did you mean broker" in levels(answer, "settings")["fault"]["remedy"]
    assert "fault" in levels(answer, "policy")
    assert "ok" in levels(answer, "clock")


def test_the_brokers_own_way_to_the_tenant_is_told(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service has another environment than the shell that asks for it."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    way = "through the proxy http://proxy.acme.test:3128 (HTTPS_PROXY)"
    with dict_tenant() as tenant:
        (home / "config.toml").write_text(f"[tenant]\nissuer = '{tenant.issuer}'\n")
        status = {
            "version": __version__,
            "tenant": {"issuer": tenant.issuer, "kind": "auth0", "way": way},
            "ledger": {"writable": True},
            "panic": {"on": False},
            "agents": 0,
            "stepups_pending": 0,
            "warnings": [],
        }
        told = filled(StatusInfo, status)
        monkeypatch.setattr(running, "_status", lambda _: told)
        answer = cli("--home", str(home), "doctor", "--json")
    said = [one["what"] for one in answer.json["findings"] if one["area"] == "tenant"]
    assert f"the broker reaches it {way}" in said


def test_a_tenant_that_does_not_answer_is_a_fault(cli: Run, tmp_path: Path) -> None:
    """It says why, and what to look at; sending one to the doctor would be a circle."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text(
        "[tenant]\nissuer = 'http://127.0.0.1:1/'\nclient_id = 'x'\n"
    )
    answer = cli("--home", str(home), "doctor", "--json")
    assert answer.code == 1
    found = levels(answer, "tenant")["fault"]
    assert "cannot be reached (" in found["what"]
    assert "check tenant.issuer" in found["remedy"]
    assert "doctor" not in found["remedy"]


@pytest.mark.parametrize("issuer", ["acme.eu.auth0.com", "http://acme.eu.auth0.com/"])
def test_what_is_no_issuer_is_said_before_anything_is_made(
    cli: Run, tmp_path: Path, issuer: str
) -> None:
    """Told once: neither `apply` nor another setting mends it."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text(f"[tenant]\nissuer = '{issuer}'\n")
    found = cli("--home", str(home), "doctor", "--json").json["findings"]
    (fault,) = [
        item for item in found if item["level"] == "fault" and "URL" in str(item)
    ]
    assert fault["area"] == "settings"
    assert "a URL such as https://acme.eu.auth0.com/" in fault["remedy"]
    refused = cli("--home", str(home), "serve", "--listen", "127.0.0.1:0")
    assert refused.code == 2
    assert "a URL such as https://acme.eu.auth0.com/" in refused.err


def test_a_clock_that_the_tenant_does_not_share_is_a_fault(
    cli: Run, tmp_path: Path
) -> None:
    """Sign-ins would fail for it, whatever the broker's own record says."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    with dict_tenant() as tenant:
        tenant.skew = 600
        (home / "config.toml").write_text(f"[tenant]\nissuer = '{tenant.issuer}'\n")
        found = levels(cli("--home", str(home), "doctor", "--json"), "tenant")
    assert "behind the tenant; from 30 s on" in found["fault"]["what"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("cut", "the ledger ends at event 1, but it had reached 3"),
        ("changed", "its hash does not follow"),
        ("unwitnessed", "its head kept outside is gone"),
        ("untriggered", "the trigger events_are_appended is gone"),
        ("rubbish", "is damaged"),
    ],
)
def test_a_damaged_ledger_is_a_fault(
    damage: str, told: str, cli: Run, tmp_path: Path
) -> None:
    """A tail cut off, an event changed, no head file, no trigger, rubbish: all told."""
    home = Home.locate(tmp_path / "h")
    asyncio.run(record_three(home))
    if damage == "rubbish":
        home.database.write_bytes(b"not a database" * 1000)
    elif damage == "unwitnessed":
        home.head_file.unlink()
    else:
        with closing(sqlite3.connect(home.database)) as db:
            if damage == "untriggered":
                db.execute("DROP TRIGGER events_are_appended")
            else:
                with unguarded(db):
                    db.execute(_DAMAGES[damage])
    answer = cli("--home", str(home.data), "doctor", "--json")
    assert answer.code == 1
    fault = levels(answer, "ledger")["fault"]
    assert told in fault["what"]
    assert fault["remedy"]


async def record_three(home: Home) -> None:
    ledger = await Ledger.open(home, clock=manual_clock())
    await ledger.commit(decision(), decision(), decision())
    await ledger.close()


_DAMAGES = {
    "cut": "DELETE FROM events WHERE seq > 1",
    "changed": "UPDATE events SET body = body || ' ' WHERE seq > 1",
}


@pytest.mark.slow
def test_doctor_reports_the_terminal(broker: Broker) -> None:
    """On a terminal size, colours, locale and tmux are judged."""
    env = {**broker.env, "TMUX": "/tmp/tmux-0/default,1,0", "LANG": "C"}  # noqa: S108
    with Terminal([agentvault, "doctor"], env, columns=70, rows=20) as terminal:
        assert terminal.finish() == 0
    for word in ("set -g set-clipboard on", "80x24 or more", "not UTF-8"):
        assert word in terminal.text


@pytest.mark.parametrize(
    ("version", "races"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 46, 1), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((4, 0, 0), False),
    ],
)
def test_which_sqlite_has_the_reset_race(
    version: tuple[int, int, int], races: bool
) -> None:
    """3.7.0 to 3.51.2, without the two repaired branches."""
    assert resets_can_race(version) is races


def test_what_operators_elsewhere_are_shown_is_checked(
    cli: Run, tmp_path: Path
) -> None:
    """A certificate for another host than that of `operators.url` is a fault."""
    home = Home.locate(tmp_path / "h")
    home.prepare()
    renew(home, ["ops.example"], now=datetime.now(UTC))
    home.config_file.write_text(
        '[operators]\nlisten = "127.0.0.1:7719"\nurl = "https://other.example:7719"\n'
        'tls_cert = "keys/tls-cert.pem"\ntls_key = "keys/tls-key.pem"\n'
    )
    answer = cli("--home", str(home.data), "doctor", "--json")
    assert "not for other.example" in str(levels(answer, "tls")["fault"])
