"""`agentvault run --confine`: what it gives, refuses and records."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import forked
from support.command_line import PROGRAM, Answer, Broker
from support.confining import need_confinement
from support.https_site import Site
from support.patience import PATIENT

from agentvault_tui.cli.run_confined import _with_loopback

pytestmark = pytest.mark.slow

Run = Callable[..., Answer]
GIT = shutil.which("git") or ""
REFUSED = "agentvault run: not confined: "


@pytest.fixture
def inside(behind: Run) -> Run:
    """Run a command confined, behind the gateway."""
    need_confinement()

    def call(*words: str, options: tuple[str, ...] = (), **more: str) -> Answer:
        return behind(*words, options=("--confine", *options), **more)

    return call


def events(broker: Broker, kind: str) -> list[dict[str, Any]]:
    line = ("audit", "search", "--type", kind, "--json")
    return [*map(json.loads, forked.run(*line, env=broker.env).stdout.splitlines())]


def test_its_start_and_each_attempt_is_recorded(
    inside: Run, broker: Broker, tmp_path: Path
) -> None:
    """The start with what it was given; attempts by destination; the last line counts
    them. None of it asks policy."""
    (tmp_path / "data").mkdir()
    script = (
        "curl -sS -m 5 --noproxy '*' http://exfil.example.com;"
        "curl -sS -m 5 --noproxy '*' http://93.184.216.34:8080;"
        "curl -sS -m 5 --noproxy '*' http://93.184.216.34:8080; true"
    )
    options = ("--read", str(tmp_path / "data"), "--env", "MINE")
    answer = inside("sh", "-c", script, options=options, MINE="x")
    assert answer.code == 0, answer
    started = events(broker, "run.confined")[-1]
    detail = started["detail"]
    assert started["actor"]["kind"] == "operator"
    assert detail["layers"][0].startswith("bubblewrap ")
    assert detail["layers"][1] == "seccomp"
    assert str(tmp_path / "data") in detail["read"]
    assert str(tmp_path / "work") in detail["write"]
    assert (detail["env"], detail["weaker"], detail["seen"]) == (
        ["MINE"],
        [],
        "packets",
    )
    refused = [
        one
        for one in events(broker, "run.refused")
        if one["detail"]["run_id"] == detail["run_id"]
    ]
    assert {one["outcome"] for one in refused} == {"denied"}
    found = {one["resource"]: one["detail"]["count"] for one in refused}
    assert found.pop("dns:exfil.example.com") >= 1
    assert found == {"tcp:93.184.216.34:8080": 2}
    last = answer.err.splitlines()[-1]
    outside = sum(one["detail"]["count"] for one in refused)
    assert last == f"agentvault run: 0 calls, 0 held, 0 refused, {outside} outside"
    assert not [one for one in refused if one["rule"] or one["decision_id"]]


def test_it_gets_few_variables_and_no_secret(inside: Run, tmp_path: Path) -> None:
    """Those that are listed, those that `run` sets, and those that are given."""
    extra = {"SSH_AUTH_SOCK": "/s", "AWS_SECRET_ACCESS_KEY": "k", "GIVEN": "g"}
    answer = inside("env", options=("--env", "GIVEN"), LC_TIME="C", **extra)
    names = {line.partition("=")[0] for line in answer.out.splitlines()}
    assert {"PATH", "HOME", "LC_TIME", "GIVEN", "HTTPS_PROXY", "TERM"} <= names
    assert {"AGENTVAULT_TOKEN_FILE", "AGENTVAULT_URL"} <= names
    left_out = {"SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY", "AGENTVAULT_HOME"}
    assert not left_out & names
    home = next(one for one in answer.out.splitlines() if one.startswith("HOME="))
    assert "/homes/agt_" in home
    assert str(tmp_path / "me") not in home


def test_of_agentvaults_home_it_sees_its_run_and_its_own_home(
    inside: Run, broker: Broker
) -> None:
    """No database, key, socket or other agent's home."""
    show = f"cd {broker.home}; ls -d * run/* homes/*; echo x > $AGENTVAULT_TOKEN_FILE"
    answer = inside("sh", "-c", show)
    seen = answer.out.split()
    assert {one.partition("/")[0] for one in seen} == {"homes", "run"}
    assert len([one for one in seen if one.startswith("homes/")]) == 1
    assert len([one for one in seen if one.startswith("run/")]) == 1
    assert "Read-only file system" in answer.err


def test_its_home_directory_is_kept_between_runs(
    inside: Run, broker: Broker, tmp_path: Path
) -> None:
    """For its owner alone, unless an option names another one."""
    inside("sh", "-c", "echo x > ~/kept")
    assert inside("sh", "-c", "cat ~/kept").out == "x\n"
    (home,) = (
        one for one in (broker.home / "homes").iterdir() if (one / "kept").exists()
    )
    assert home.stat().st_mode & 0o777 == 0o700
    own = tmp_path / "own"
    own.mkdir()
    answer = inside("sh", "-c", "echo $HOME > ~/a", options=("--user-home", str(own)))
    assert answer.code == 0, answer
    assert (own / "a").read_text() == f"{own}\n"


def test_a_service_is_reached_with_the_token_too(inside: Run, site: Site) -> None:
    """At its base URL on the agents' listener, the other port that is open."""
    curl = 'curl -sS -H "Authorization: Bearer $(cat $AGENTVAULT_TOKEN_FILE)"'
    answer = inside("sh", "-c", f"{curl} $MY_SITE_BASE_URL/data.json")
    assert json.loads(answer.out) == {"answer": 42}, answer
    assert site.port


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--write", "/"), "--write / is /"),
        (("--read", "HOME"), "holds your home directory"),
        (("--write", "VAULT"), "AgentVault's home"),
        (("--read", "VAULT/homes"), "AgentVault's home"),
        (("--read", "/proc"), "is no folder of files"),
        (("--write", "/nosuch"), "cannot be read"),
        (("--user-home", "HOME"), "holds your home directory"),
        (("--write", sys.prefix), "AgentVault itself"),
    ],
)
def test_a_folder_that_must_not_be_given_refuses(
    inside: Run, broker: Broker, tmp_path: Path, options: tuple[str, ...], part: str
) -> None:
    """One line with the remedy, exit code 2, and no run was started."""
    before = len(events(broker, "run.confined"))
    named = {"HOME": str(tmp_path / "me"), "VAULT": str(broker.home)}
    filled = tuple(
        word.replace("HOME", named["HOME"]).replace("VAULT", named["VAULT"])
        for word in options
    )
    answer = inside("touch", "ran", options=filled)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert line.startswith(REFUSED)
    assert part in line
    assert not (tmp_path / "work/ran").exists()
    assert len(events(broker, "run.confined")) == before


def test_the_home_directory_is_no_working_folder(inside: Run, tmp_path: Path) -> None:
    """It has keys and configuration of everything else."""
    answer = inside("true", HOME=str(tmp_path / "work"))
    assert answer.code == 2
    assert answer.err.startswith(f"{REFUSED}the working folder is or holds your home")


def test_a_folder_of_path_in_the_home_is_left_out_with_a_line(
    inside: Run, tmp_path: Path
) -> None:
    """The home directory itself is not shown because it is on PATH."""
    path = os.pathsep.join((str(tmp_path / "me"), os.environ["PATH"]))
    answer = inside("true", PATH=path)
    assert answer.code == 0
    assert f"{tmp_path / 'me'} of PATH is hidden from the command" in answer.err


@pytest.mark.parametrize(
    ("words", "code"), [(("/nonexistent/command",), 127), (("/",), 126)]
)
def test_a_program_that_is_none_has_a_shells_code(
    inside: Run, words: tuple[str, ...], code: int
) -> None:
    """Before anything is started."""
    assert inside(*words).code == code


def test_options_of_a_confinement_need_one(behind: Run) -> None:
    """Without it they would promise what is not kept."""
    answer = behind("true", options=("--read", "/srv"))
    assert answer.code == 2
    assert "need --confine" in answer.err


def test_only_two_words_are_values(behind: Run) -> None:
    """A misspelt one starts nothing."""
    answer = behind("true", options=("--confine=most",))
    assert answer.code == 2
    assert "'most' is not one of" in answer.err


def test_the_commands_own_option_is_its_own(inside: Run) -> None:
    """After the two dashes every word is the command's."""
    answer = inside("sh", "-c", "echo $0", "--confine")
    assert answer.out == "--confine\n"


def test_without_bubblewrap_nothing_starts(
    inside: Run, broker: Broker, tmp_path: Path, coder: str
) -> None:
    """The reason and the package; with --confine=best, each promise that is weaker."""
    hide = ("bwrap", "--dev-bind", "/", "/", "--ro-bind", "/dev/null", "/usr/bin/bwrap")

    def call(*options: str) -> Answer:
        line = [*PROGRAM, "run", "--agent", coder, *options, "--", "sh", "-c"]
        done = subprocess.run(
            [*hide, *line, "cat own; echo x > own; echo ran; cat /etc/shadow"],
            cwd=tmp_path / "work",
            env=broker.env | {"HOME": str(tmp_path / "me")},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENT,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    assert inside("true").code == 0
    answer = call("--confine")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        f"{REFUSED}bubblewrap is not installed: install it: apt-get install bubblewrap,"
        " or dnf install bubblewrap\n"
    )
    best = call("--confine=best")
    if "Linux 6.7" in best.err or best.code == 2:
        pytest.skip("this kernel has no Landlock with rules for TCP")
    assert best.out == "ran\n", best
    assert "weaker: other processes are seen" in best.err
    assert "Permission denied" in best.err
    detail = events(broker, "run.confined")[-1]["detail"]
    assert detail["layers"][0].startswith("Landlock ABI ")
    assert detail["seen"] == "proxy"
    assert len(detail["weaker"]) == best.err.count("weaker: ")
    (tmp_path / "work/node_modules").mkdir()
    os.link(tmp_path / "work/own", tmp_path / "work/node_modules/file")
    os.link(tmp_path / "work/own", tmp_path / "me/store")
    (tmp_path / "work/own").unlink()
    assert "which only namespaces protect" in call("--confine=best").err


def test_a_revocation_stops_it(
    av: Run, inside: Run, coder: str, tmp_path: Path
) -> None:
    """The command gets SIGTERM, and all that it started ends with it."""
    script = (
        "trap 'echo stopped; exit 9' TERM; sleep 600 & touch begun;"
        "while :; do sleep 0.05; done"
    )
    done: list[Answer] = []
    runner = threading.Thread(
        target=lambda: done.append(inside("sh", "-c", script)), daemon=True
    )
    runner.start()
    while not (tmp_path / "work/begun").exists():
        assert runner.is_alive(), done
        time.sleep(0.01)
    av("agents", "revoke", coder, "--reason", "test")
    runner.join(PATIENT)
    assert (done[0].code, done[0].out) == (9, "stopped\n"), done
    assert "is stopped: its agent was revoked" in done[0].err


@pytest.mark.parametrize(
    ("origin", "hosts"),
    [
        ("https://api.test", "vault:1,localhost,127.0.0.1,::1"),
        ("http://localhost:8000", "vault:1"),
    ],
)
def test_its_own_servers_are_reached_without_the_proxy(origin: str, hosts: str) -> None:
    """Its loopback is its own, unless a service has such an origin."""
    services = SimpleNamespace(services=[SimpleNamespace(origin=origin)])
    client: Any = SimpleNamespace(call=lambda _: services)
    given = _with_loopback({"no_proxy": "vault:1", "NO_PROXY": "vault:1"}, client)
    assert (given["no_proxy"], given["NO_PROXY"]) == (hosts, hosts)


def test_no_program_of_the_command_starts_outside(inside: Run, tmp_path: Path) -> None:
    """A folder that it writes is on PATH, as that of an activated environment is."""
    names = ("git", "bwrap", "env", "true", "sh", "python3", "ldconfig", "gcc", "uname")
    folder, started = tmp_path / "work/bin", tmp_path / "started"
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {started}\n")
        (folder / name).chmod(0o755)
    path = os.pathsep.join((str(folder), os.environ["PATH"]))
    answer = inside("/bin/sh", "-c", "exit 0", PATH=path)
    assert answer.code == 0, answer
    assert not started.exists()


def test_gits_identity_is_the_persons_unless_the_repository_has_one(
    inside: Run, tmp_path: Path
) -> None:
    """It is passed as the system's configuration; odd characters arrive as they are."""
    folder, config = tmp_path / "work/repo", tmp_path / "me/.gitconfig"
    config.write_text('[user]\n\tname = "A \\"B\\" \\\\ é"\n\temail = a@b.test\n')
    subprocess.run([GIT, "init", "-q", str(folder)], check=True)
    show = "cd repo; git config user.name; git config user.email"
    given = {"HOME": str(tmp_path / "me")}
    assert inside("sh", "-c", show, **given).out == 'A "B" \\ é\na@b.test\n'
    line = [GIT, "-C", str(folder), "config", "user.email", "mine@b.test"]
    subprocess.run(line, check=True)
    assert inside("sh", "-c", show, **given).out.endswith("mine@b.test\n")


def test_repositories_that_the_command_made_are_named(inside: Run) -> None:
    """Git and editors outside obey them; those that were there are not named."""
    answer = inside("sh", "-c", "git init -q 'a\nb'; git init -q --bare c")
    line = answer.err.splitlines()[-2]
    assert "look at the configuration and hooks of the repositories" in line
    assert "a⏎b/.git" in line
    assert "work/c" in line
    assert "repositories" not in inside("true").err


def test_a_command_whose_protection_was_taken_away_is_ended(
    inside: Run, tmp_path: Path
) -> None:
    """A person's editor replaced a protected file meanwhile; a line says so."""
    work, done = tmp_path / "work", list[Answer]()
    wait = "touch begun; sleep 600"
    runner = threading.Thread(
        target=lambda: done.append(inside("sh", "-c", wait)), daemon=True
    )
    runner.start()
    while not (work / "begun").exists():
        assert runner.is_alive(), done
        time.sleep(0.01)
    (work / "draft").touch()
    (work / "draft").rename(work / ".mcp.json")
    runner.join(PATIENT)
    assert done[0].code == 137, done
    assert f"{work}/.mcp.json was replaced outside" in done[0].err
