"""`agentvault uninstall`: removes what commands wrote, and only that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Answer, Broker

from agentvault_tui.cli import systemd
from agentvault_tui.cli.completion import SHELLS
from agentvault_tui.cli.hosts import CANNOT_KEEP

Run = Callable[..., Answer]


@pytest.fixture
def place(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's own folder, with a project in it where commands are typed."""
    (short / "project").mkdir()
    monkeypatch.setenv("HOME", str(short))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(systemd, "SYSTEM", short / "etc/systemd/system")
    program = short / "bin/agentvault"
    program.parent.mkdir()
    program.touch()
    monkeypatch.setattr(systemd, "_program", lambda: program)
    monkeypatch.chdir(short / "project")
    return short


@pytest.fixture
def run(cli: Run, place: Path) -> Run:
    """Run a command on a home of its own, with an MCP server and no broker."""
    home = place / "vault"
    (home / "mcp").mkdir(parents=True, mode=0o700)
    (home / "keys").mkdir(mode=0o700)
    home.chmod(0o700)
    (home / "mcp" / "files.toml").write_text('command = ["x"]')
    return lambda *argv: cli("--home", str(home), *argv)


def files(place: Path) -> dict[str, str]:
    """Return what is in a folder, without the home directory."""
    return {
        str(path.relative_to(place)): path.read_text() if path.is_file() else ""
        for path in place.rglob("*")
        if "vault" not in path.relative_to(place).parts[:1]
    }


def install(run: Run) -> None:
    """Run every command that writes outside the home directory."""
    for host in CANNOT_KEEP:
        assert run("connect", host, "--agent", "coder", "--write").code == 0
    for shell in SHELLS:
        assert run("completion", shell, "--install").code == 0
    assert run("man", "--install").code == 0
    assert run("systemd", "install", "--user").code == 0
    assert run("tls", "init").code == 0


def test_everything_that_was_written_is_gone(run: Run, place: Path) -> None:
    """Hooks, scripts, pages, unit and certificates; the home directory stays."""
    before = files(place)
    install(run)
    wants = place / ".config/systemd/user/default.target.wants"
    wants.mkdir()
    (wants / systemd.NAME).symlink_to(wants.parent / systemd.NAME)
    installed = files(place)
    plan = run("uninstall", "--plan", "--json").json
    assert files(place) == installed, "a plan changes nothing"
    kinds = {one["kind"] for one in plan["remove"]}
    assert kinds == {"hook", "completion", "manual", "unit", "certificate"}
    done = run("uninstall", "--json")
    assert (done.code, done.json["faults"]) == (0, [])
    assert done.json["remove"] == plan["remove"]
    assert files(place) == before
    assert not list((place / "vault/keys").glob("*.pem"))
    assert done.json["keep"][0]["path"] == str(place / "vault")
    assert "fpath" in done.json["next"][0]
    assert "nothing of AgentVault" in run("uninstall").out


OWN = '{"model": "x", "hooks": {"PreToolUse": [{"hooks": [{"command": "mine"}]}]}}'


def test_a_persons_own_configuration_stays(run: Run, place: Path) -> None:
    """Only AgentVault's part is removed, with the copies that it made."""
    (place / ".claude").mkdir()
    path = place / ".claude/settings.json"
    path.write_text(OWN)
    (place / ".claude/settings.json.before-agentvault-mine").write_text("notes")
    install(run)
    assert run("uninstall").code == 0
    assert json.loads(path.read_text()) == json.loads(OWN)
    assert {one.name for one in path.parent.iterdir()} == {
        "settings.json",
        "settings.json.before-agentvault-mine",
    }


def test_a_copy_that_alone_has_its_content_stays(run: Run, place: Path) -> None:
    """If the file was changed since, the copy stays and is named."""
    (place / ".claude").mkdir()
    path = place / ".claude/settings.json"
    path.write_text(OWN)
    assert run("connect", "claude-code", "--agent", "coder", "--write").code == 0
    changed = json.loads(path.read_text()) | {"model": "y"}
    path.write_text(json.dumps(changed))
    done = run("uninstall", "--json").json
    (copy,) = path.parent.glob("*.before-agentvault-*Z")
    assert str(copy) in {one["path"] for one in done["keep"]}
    assert copy.read_text() == OWN
    assert json.loads(path.read_text())["model"] == "y"


def test_files_of_a_project_elsewhere_are_found(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`connect` records where it wrote; the project's folder stays, if empty."""
    assert run("connect", "vscode", "--agent", "coder", "--write").code == 0
    monkeypatch.chdir(place)
    assert (place / "project/.github/hooks/agentvault.json").exists()
    assert run("uninstall").code == 0
    assert list((place / "project").iterdir()) == []


def test_a_linked_file_stays_a_link_without_hooks(run: Run, place: Path) -> None:
    """A dotfile that is a link to a file elsewhere: the file loses the hooks."""
    (place / ".claude").mkdir()
    real = place / "dotfiles.json"
    real.write_text("{}")
    (place / ".claude/settings.json").symlink_to(real)
    assert run("connect", "claude-code", "--agent", "coder", "--write").code == 0
    assert "hook" in real.read_text()
    assert run("uninstall").code == 0
    assert (place / ".claude/settings.json").is_symlink()
    assert json.loads(real.read_text()) == {}


def test_one_unreadable_file_is_named_and_the_rest_goes(run: Run, place: Path) -> None:
    """A configuration that is no JSON any more is left, and the exit code is 1."""
    install(run)
    path = place / ".gemini/settings.json"
    path.write_text(path.read_text() + "}")
    done = run("uninstall", "--json")
    assert done.code == 1
    (fault,) = done.json["faults"]
    assert str(path) in fault
    left = {name for name in files(place) if "agentvault" in name.lower()}
    assert left == {"bin/agentvault"}


def test_units_that_others_wrote_stay(run: Run, place: Path) -> None:
    """A unit without our first line, and changes made with `systemctl edit`."""
    folder = place / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / systemd.NAME).write_text("[Service]\n")
    assert run("systemd", "install", "--user").code == 0
    own = place / ".config/systemd/user" / f"{systemd.NAME}.d"
    own.mkdir()
    done = run("uninstall", "--json").json
    assert [one["path"] for one in done["remove"]] == [str(own.with_name(systemd.NAME))]
    stays = {one["path"] for one in done["keep"]}
    assert stays >= {str(folder / systemd.NAME), str(own)}
    assert own.exists()


@pytest.mark.parametrize("active", [True, False])
def test_a_unit_that_runs_is_stopped_first(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, active: bool
) -> None:
    """While systemd says that it runs, nothing is removed; else systemd reloads."""
    program = place / "bin/systemctl"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {place}/lines\n'
        f"case $2 in is-active) exit {int(not active)};; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    assert run("systemd", "install", "--user").code == 0
    unit = place / ".config/systemd/user" / systemd.NAME
    done = run("uninstall")
    assert (done.code, unit.exists()) == (int(active), active)
    assert active == ("systemctl --user disable --now agentvault" in done.err)
    lines = (place / "lines").read_text().splitlines()
    assert lines[0] == f"--user is-active --quiet {systemd.NAME}"
    assert lines[1:] == ([] if active else ["--user daemon-reload"])


def test_the_home_directory_of_a_service_is_named(run: Run, place: Path) -> None:
    """A unit of the machine has its own home directory, which stays."""
    folder = place / "etc/systemd/system"
    folder.mkdir(parents=True)
    unit = systemd.unit_file(place / "bin/agentvault", Path("/srv/v"), user=False)
    (folder / systemd.NAME).write_text(unit)
    done = run("uninstall", "--plan", "--json").json
    assert "/srv/v" in {one["path"] for one in done["keep"]}
    assert any(step.startswith("userdel") for step in done["next"])


def test_a_pipe_in_place_of_a_file_is_not_waited_for(run: Run, place: Path) -> None:
    """An agent may have put one into its project, or in the place of a copy."""
    assert run("connect", "vscode", "--agent", "coder", "--write").code == 0
    hooks = place / "project/.github/hooks/agentvault.json"
    os.mkfifo(f"{hooks}.before-agentvault-20260101T000000Z")
    os.mkfifo(place / "project/.mcp.json")
    assert run("uninstall").code == 0
    assert not hooks.exists()


def test_a_certificate_of_another_authority_stays(run: Run, place: Path) -> None:
    """`tls/cert.pem` goes only if the home directory's own authority made it."""
    assert run("tls", "init", "--public", "--name", "vault.test").code == 0
    mine = place / "vault/tls/cert.pem"
    assert run("uninstall", "--plan", "--json").out.count("vault/tls/") == 2
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl: apt-get install openssl")
    made = ["-keyout", place / "vault/tls/key.pem", "-out", mine, "-days", "1"]
    line = [openssl, "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x"]
    subprocess.run([*line, *made], check=True, capture_output=True)
    assert run("uninstall").code == 0
    assert mine.exists()
    assert (place / "vault/tls/key.pem").exists()


def test_nothing_is_removed_while_a_broker_runs(av: Run, broker: Broker) -> None:
    """It is refused, and names the process; a plan is still printed."""
    done = av("uninstall", "--purge", "--yes")
    assert done.code == 1
    assert str(broker.pid) in done.err
    assert (broker.home / "agentvault.db").exists()
    planned = av("uninstall", "--plan")
    assert planned.code == 0
    assert f"next: stop the broker: a broker, process {broker.pid}," in planned.out


def test_purge_asks_and_removes_the_home_directory(run: Run, place: Path) -> None:
    """Without a terminal or --yes it is refused, before anything is removed."""
    assert run("completion", "bash", "--install").code == 0
    refused = run("uninstall", "--purge")
    assert refused.code == 1
    assert "--yes" in refused.err
    script = place / ".local/share/bash-completion/completions/agentvault"
    assert script.exists()
    assert run("uninstall", "--purge", "--yes").code == 0
    assert not (place / "vault").exists()
    assert not script.exists()


def test_a_folder_with_more_than_a_home_is_not_purged(cli: Run, place: Path) -> None:
    """`--home ~` would be a person's whole folder."""
    place.chmod(0o700)
    done = cli("--home", str(place), "uninstall", "--purge", "--yes")
    assert (done.code, place.exists()) == (1, True)
    assert "holds more" in done.err
    assert (place / "bin/agentvault").exists()


def test_a_linked_home_is_removed_with_what_it_links_to(cli: Run, place: Path) -> None:
    """The user's two folders may be links; both the link and the folder go."""
    real = place / "elsewhere"
    real.mkdir(mode=0o700)
    (real / "config.toml").write_text("")
    (place / ".config").mkdir()
    (place / ".config/agentvault").symlink_to(real)
    assert cli("uninstall", "--purge", "--yes").code == 0
    assert not real.exists()
    assert not (place / ".config").exists()


def test_stand_ins_of_a_killed_confined_run_are_removed(run: Run, place: Path) -> None:
    """No later confined run removes them, once AgentVault is gone."""
    records = place / "vault/run/stand-ins"
    records.mkdir(parents=True, mode=0o700)
    project = place / "project"
    (project / ".vscode").mkdir()
    (project / ".envrc").write_text("export A=1")
    paths = [str(project / name) for name in (".vscode", ".envrc")]
    (records / "1.json").write_text(json.dumps(paths))
    plan = run("uninstall", "--plan", "--json").json
    assert [one["path"] for one in plan["remove"] if one["kind"] == "stand-in"] == paths
    assert run("uninstall").code == 0
    assert [one.name for one in project.iterdir()] == [".envrc"]
