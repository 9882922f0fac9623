"""A command opens nothing for the next one, nor one that runs at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.confining import (
    MARK,
    SYSTEM_PYTHON,
    ended,
    need_confinement,
    run_in,
    small_machine,
    started_in,
    wait_for,
)
from support.needs import need

GIT = shutil.which("git") or ""
SHELL = ("/bin/sh", "-c")
WAITS = "while [ ! -e go ]; do sleep 0.05; done"
USERS = [pytest.param(0, id="root"), pytest.param(1234, id="user")]


@pytest.fixture(params=USERS)
def uid(request: pytest.FixtureRequest) -> int:
    need_confinement()
    if os.geteuid() != 0:
        need(request.param != 0, "root")
        return os.geteuid()
    return int(request.param)


@pytest.fixture
def base(uid: int) -> Iterator[Path]:
    with small_machine(uid) as folder:
        yield folder


def run(base: Path, uid: int, script: str, **more: object) -> str:
    """Run a script, and return what it printed."""
    return run_in(base, uid, [*SHELL, script], confined=True, **more)


def refused(base: Path, uid: int, *words: str, **more: object) -> str:
    """Start a command that must not begin, and return why it did not."""
    code, out, err = ended(started_in(base, uid, words, confined=True, **more))
    assert code != 0
    assert "begun" not in err
    assert out == ""
    return err


# Names that another command changes (G1).


@pytest.mark.parametrize("version", ["", "0.9.0"])
@pytest.mark.parametrize("name", ["below", "below/repo/.git", "below/repo/.git/config"])
def test_a_link_that_takes_a_folders_place_shows_nothing(
    base: Path, uid: int, name: str, version: str
) -> None:
    """Each folder and file is opened before, and compared with what was mounted."""
    place, link = base / "project" / name, base / "project/link"
    link.symlink_to(base / "outside/copy")
    words = (*SHELL, f"cat {name} {name}/secret")
    exchanged = [str(place), str(link)]
    more = {"confined": True, "exchanged": exchanged, "version": version}
    assert MARK not in ended(started_in(base, uid, words, **more))[1]


@pytest.mark.parametrize("version", ["", "0.9.0"])
def test_no_descriptor_of_a_mount_is_inherited(
    base: Path, uid: int, version: str
) -> None:
    """By one of a folder outside, ``..`` would lead out of the view."""
    words = ["/bin/ls", "-l", "/proc/self/fd"]
    shown = run_in(base, uid, words, confined=True, version=version)
    assert str(base) not in shown


def test_an_older_bubblewrap_starts_one_command_at_a_time(base: Path, uid: int) -> None:
    """It follows paths while it mounts; another command could change them."""
    more = {"confined": True, "version": "0.9.0"}
    words = [*SHELL, f"(echo x > .envrc); echo x > ready; {WAITS}"]
    first = started_in(base, uid, words, **more)
    wait_for(base / "project/ready")
    assert not (base / "project/.envrc").read_text()
    assert "another confined command" in refused(
        base, uid, "/bin/true", version="0.9.0"
    )
    (base / "project/go").touch()
    ended(first)
    assert run_in(base, uid, ["/bin/echo", "fine"], **more) == "fine\n"


# Programs and folders that an earlier command names (G3).


def test_a_script_of_an_earlier_command_shows_no_folder(base: Path, uid: int) -> None:
    """Its first line names a folder, and a program of the project runs in its place."""
    place = base / "outside"
    run(
        base,
        uid,
        f'F=$(printf \'\\f\'); mkdir -p "$F{place.parent}"; cp /bin/sh "$F{place}";'
        f" printf '#!%s\\ncat {place}/secret\\n' \"$F{place}\" > agent.sh;"
        " chmod +x agent.sh",
    )
    words = [str(base / "project/agent.sh")]
    _, out, err = ended(started_in(base, uid, words, confined=True))
    assert "No such file" in err
    assert MARK not in out


def test_an_environment_of_an_earlier_command_shows_no_folder(
    base: Path, uid: int
) -> None:
    """pyvenv.cfg names a folder that looks like a Python."""
    fake = base / "outside/lib/python3.12"
    fake.mkdir(parents=True)
    (fake / "os.py").touch()
    (base / "outside/bin").mkdir()
    run(
        base,
        uid,
        "mkdir -p .venv/bin; cp /bin/cat .venv/bin/python;"
        f" echo home = {base}/outside/bin > .venv/pyvenv.cfg",
    )
    words = [str(base / "project/.venv/bin/python"), str(base / "outside/secret")]
    code, out, err = ended(started_in(base, uid, words, confined=True))
    assert (code, out) == (1, ""), err


def test_a_link_of_an_earlier_command_is_no_program(base: Path, uid: int) -> None:
    """It would show the environment that it leads to; the line names the remedy."""
    (base / "outside/pyvenv.cfg").touch()
    (base / "outside/bin").mkdir()
    (base / "outside/bin/python").symlink_to("/bin/cat")
    (base / "outside/bin/tool").write_bytes(Path("/bin/cat").read_bytes())
    (base / "outside/bin/tool").chmod(0o755)
    run(base, uid, "mkdir bin; ln -s ../../outside/bin/tool bin/python")
    err = refused(base, uid, str(base / "project/bin/python"))
    assert "by a link that a command may have made" in err


# What an earlier command hides (G4).


@pytest.mark.parametrize("mode", ["0311", "0444", "0555", "0000"])
@pytest.mark.parametrize("name", [".git", "below", "."])
def test_the_mode_of_a_folder_hides_nothing(
    base: Path, uid: int, name: str, mode: str
) -> None:
    """Its owner can change it back: nothing starts, or all is held as before."""
    (base / "project" / name).chmod(int(mode, 8))
    tried = (
        "chmod 755 . below below/repo .git;"
        "for one in .git/hooks/a below/repo/.git/hooks/a .envrc below/repo/.mcp.json;"
        " do (echo x > $one) || echo held; done"
    )
    more = {"confined": True, "told": False, "sockets": False}
    code, out, err = ended(started_in(base, uid, [*SHELL, tried], **more))
    subprocess.run(["/bin/chmod", "-R", "u+rwX", str(base / "project")], check=True)
    assert out == (4 * "held\n" if code == 0 else ""), err
    places = (
        ".git/hooks/a",
        "below/repo/.git/hooks/a",
        ".envrc",
        "below/repo/.mcp.json",
    )
    assert not [one for one in places if (base / "project" / one).exists()]


def test_a_folder_made_to_look_like_gits_own_is_protected(base: Path, uid: int) -> None:
    """All other names at the top are held as before."""
    run(base, uid, "rm -rf .git/x; mkdir objects; : > HEAD")
    tried = "for one in .envrc .mcp.json .vscode/a .git/hooks/a; do (: > $one); done;"
    held = "for one in .cursor .vscode .git/hooks; do mkdir $one/a || echo held; done"
    assert run(base, uid, tried + held) == 3 * "held\n"
    assert not (base / "project/.envrc").exists()


def test_a_repository_whose_parts_were_renamed_is_protected(
    base: Path, uid: int
) -> None:
    """A submodule's and a bare one's, which are put in order in the next run."""
    line = ["git", "init", "-q", "--bare", str(base / "project/bare")]
    subprocess.run(line, check=True, env={"PATH": os.environ["PATH"]})
    if os.geteuid() == 0:
        for path in (base / "project/bare", *(base / "project/bare").rglob("*")):
            os.chown(path, uid, uid)
    places = (".git/modules/part", "bare")
    for place in places:
        run(base, uid, f"cd {place}; mv objects o; mv HEAD H; mv refs r")
    for place in places:
        tried = (
            f"cd {place}; mv o objects; mv H HEAD; mv r refs;"
            " git config core.fsmonitor evil || (echo x > hooks/a) || echo held"
        )
        assert run(base, uid, tried) == "held\n"


def test_a_link_as_git_folder_starts_nothing(base: Path, uid: int) -> None:
    """Another could be put in the place of what it leads to."""
    run(base, uid, "rm -rf below/repo/x; mkdir new")
    (base / "project/new/real").mkdir()
    (base / "project/new/.git").symlink_to("real")
    assert "is a link" in refused(base, uid, "/bin/true")


# What is done outside during a run (G5).


def test_git_outside_does_not_replace_the_configuration(base: Path, uid: int) -> None:
    """It would detach the mount: git finds it locked, and the command cannot unlock."""
    script = "rm -f .git/config.lock; echo x > ready; read line; echo x >> .git/config"
    config = base / "project/.git/config"
    before = config.read_text()
    process = started_in(base, uid, [*SHELL, f"{script} || sleep 600"], confined=True)
    wait_for(base / "project/ready")
    outside = subprocess.run(
        [GIT, "-c", "safe.directory=*", "config", "user.email", "a@b.test"],
        cwd=base / "project",
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "could not lock config file" in outside.stderr
    assert config.read_text() == before
    process.kill()
    process.communicate()


@pytest.mark.parametrize("kind", ["rename", "remove"])
def test_a_protected_path_that_is_replaced_outside_ends_the_command(
    base: Path, uid: int, kind: str
) -> None:
    """As an editor does it that saves by a rename, and a change of branches."""
    script = "echo x > ready; sleep 600"
    process = started_in(base, uid, [*SHELL, script], confined=True)
    wait_for(base / "project/ready")
    place = base / "project/.mcp.json"
    if kind == "rename":
        (base / "project/draft").write_text("{}")
        (base / "project/draft").rename(place)
    else:
        place.unlink()
    code, _, err = ended(process)
    assert code == 137
    assert f"lost {place}" in err


# What git outside finds (G6).


@pytest.mark.parametrize("damage", ["true", "mv .git/HEAD .git/H"])
def test_the_top_becomes_no_bare_repository(base: Path, uid: int, damage: str) -> None:
    """Git at the top would obey the command's configuration there."""
    script = (
        f"{damage}; echo ref: refs/heads/main > HEAD; mkdir objects;"
        " rm -f refs; mkdir refs || echo held"
    )
    assert run(base, uid, script) == "held\n"


# Files that have further names, or that a protected link leads to.


def test_a_file_of_a_store_is_not_changed_in_an_environment(
    base: Path, uid: int
) -> None:
    """uv and pnpm link installed files to a store that other projects use."""
    module = base / "project/.venv/lib/module.py"
    module.parent.mkdir(parents=True)
    (base / "project/.venv/pyvenv.cfg").touch()
    os.link(base / "outside/secret", module)
    for path in (module.parent, module.parents[1], base / "project/.venv/pyvenv.cfg"):
        os.chown(path, uid, uid)
    os.chown(module, uid, uid)
    tried = "chmod u+w .venv/lib/*; (echo x > .venv/lib/module.py) || echo held"
    assert run(base, uid, tried) == "held\n"
    assert MARK in module.read_text()


def test_a_script_that_a_hook_leads_to_is_not_changed(base: Path, uid: int) -> None:
    """Git starts it outside at the next commit."""
    script = base / "project/check.sh"
    script.write_text("true\n")
    os.chown(script, uid, uid)
    (base / "project/.git/hooks").mkdir(exist_ok=True)
    (base / "project/.git/hooks/pre-commit").symlink_to("../../check.sh")
    assert run(base, uid, "(echo x > check.sh) || echo held") == "held\n"


def test_a_pipe_of_an_earlier_command_starts_nothing(base: Path, uid: int) -> None:
    """The command could write to it although it is mounted read-only."""
    run(base, uid, "mkdir -p new/.git; mkfifo new/.git/config")
    assert "is no file and no folder" in refused(base, uid, "/bin/true")


def test_a_second_name_of_an_earlier_command_starts_nothing(
    base: Path, uid: int
) -> None:
    """The configuration of a repository that it made would be changed by it."""
    run(base, uid, "mkdir -p new/.git; : > new/.git/config; ln new/.git/config other")
    assert "is another name of" in refused(base, uid, "/bin/true")


def test_a_project_of_python_works_as_before(base: Path, uid: int) -> None:
    """An environment in the folder, of the system's Python, starts without options."""
    make = f"{SYSTEM_PYTHON} -m venv --without-pip .venv"
    run(
        base,
        uid,
        f"{make} || mkdir -p .venv/bin; ln -sf {SYSTEM_PYTHON} .venv/bin/python",
    )
    words = [str(base / "project/.venv/bin/python"), "-c", "print('fine')"]
    assert run_in(base, uid, words, confined=True) == "fine\n"
