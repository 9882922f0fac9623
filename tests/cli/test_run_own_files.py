"""A confined command gets no folder with a file that AgentVault runs or obeys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentvault_tui.cli.run_own_files import check_own_files, own_program
from agentvault_tui.errors import NotConfinedError
from agentvault_tui.home import Home

Check = Callable[[], bool]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "vault/mcp").mkdir(parents=True)
    return Home(tmp_path / "vault", tmp_path / "vault")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of the command, with a folder that is on PATH."""
    (tmp_path / "work/bin").mkdir(parents=True)
    (tmp_path / "work/server.py").touch()
    (tmp_path / "work/bin/tool-of-the-project").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/work/bin:/usr/bin")
    return tmp_path.resolve() / "work"


@pytest.fixture
def is_refused(home: Home, work: Path) -> Check:
    """Return how to check whether a command that may write *work* is refused."""

    def check() -> bool:
        try:
            check_own_files(home, [work])
        except NotConfinedError:
            return True
        return False

    return check


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["/usr/bin/python3", "WORK/server.py"], True),
        (["WORK/server.py"], True),
        (["uv", "--directory", "WORK", "run", "server"], True),
        (["tool-of-the-project"], True),
        (["npx", "-y", "server-filesystem", "WORK"], False),
        (["/usr/bin/python3", "/usr/share/server.py"], False),
        ([], False),
        ([7, "a\0b"], False),
    ],
)
def test_a_servers_program_that_the_command_could_change_refuses(
    home: Home, work: Path, is_refused: Check, words: list[str], refused: bool
) -> None:
    """The broker starts it outside, also when the command calls it."""
    named = [str(word).replace("WORK", str(work)) for word in words]
    (home.config / "mcp/files.toml").write_text(f"command = {json.dumps(named)}\n")
    assert is_refused() is refused


def test_a_file_that_a_setting_names_refuses(
    home: Home, work: Path, is_refused: Check
) -> None:
    """Such as keys of an issuer, by which it could make people of its own."""
    text = "[[people.issuers]]\njwks_file = {}\nname = 1\n"
    (home.config / "config.toml").write_text(text.format(json.dumps("/etc/passwd")))
    assert not is_refused()
    path = json.dumps(str(work / "server.py"))
    (home.config / "config.toml").write_text(text.format(path))
    assert is_refused()
    (home.config / "config.toml").write_text("[[broken")
    assert not is_refused()


@pytest.mark.parametrize("name", ["services", "policy.cedar", "mcp/files.toml"])
def test_a_link_in_the_home_refuses(
    home: Home, work: Path, is_refused: Check, name: str
) -> None:
    """A home may have its settings under version control, in another folder."""
    (home.config / name).symlink_to("/usr/share")
    assert not is_refused()
    (home.config / name).unlink()
    (home.config / name).symlink_to(work / "bin")
    assert is_refused()


def test_links_of_agents_count_for_nothing(
    home: Home, work: Path, is_refused: Check
) -> None:
    """An agent makes them in its home directory, which AgentVault does not obey."""
    (home.homes / "agt_1").mkdir(parents=True)
    (home.homes / "agt_1/link").symlink_to(work)
    assert not is_refused()


@pytest.mark.parametrize("name", ["PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD"])
@pytest.mark.parametrize("text", ["WORK/lib", "/usr/lib:WORK", "."])
def test_a_variable_that_code_is_loaded_by_refuses(
    work: Path, is_refused: Check, name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start of AgentVault would load the command's code outside."""
    monkeypatch.chdir(work)
    monkeypatch.setenv(name, "/usr/lib")
    assert not is_refused()
    monkeypatch.setenv(name, text.replace("WORK", str(work)))
    assert is_refused()


def test_its_own_code_refuses(home: Home) -> None:
    """Its package, its interpreter, and each folder that modules are found in."""
    for path in own_program():
        with pytest.raises(NotConfinedError, match="AgentVault itself is in"):
            check_own_files(home, [path.resolve().parent])
