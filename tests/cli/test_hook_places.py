"""Where the paths of a call lead: in the project, elsewhere, into AgentVault's home."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from agentvault_tui.cli.hook_hosts import HOSTS
from agentvault_tui.cli.hook_places import (
    OUTSIDE,
    PROJECT,
    UNKNOWN,
    VAULT,
    PathLocation,
    PathLocator,
    PlacedCommand,
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, with the user's home and AgentVault's next to it."""
    for name in ("project/src", "user", "vault/hosts", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "project/src/a.py").touch()
    (tmp_path / "project/link").symlink_to("src")
    (tmp_path / "project/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "project/dangling").symlink_to(tmp_path / "elsewhere/new")
    (tmp_path / "project/ours").symlink_to(tmp_path / "vault")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return tmp_path.resolve() / "project"


def places(project: Path, environ: Mapping[str, str] | None = None) -> PathLocator:
    vault = project.parent / "vault"
    return PathLocator(
        str(project), [str(project)], [vault], environ or {"PATH": ""}, "path"
    )


def line(project: Path, text: str, **environ: str) -> tuple[PlacedCommand, ...] | None:
    found = places(project, {"PATH": "", **environ})
    return found.of_line(text, found.cwd)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-C", str(folder), *arguments],  # noqa: S607 - the system's git
        check=True,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder)},
    )


@pytest.mark.parametrize(
    ("stated", "where", "resolved"),
    [
        ("src/a.py", PROJECT, "src/a.py"),
        ("./src//a.py", PROJECT, "src/a.py"),
        ("src/../src/a.py", PROJECT, "src/a.py"),
        ("link/a.py", PROJECT, "src/a.py"),
        ("new/file", PROJECT, "new/file"),
        (".", PROJECT, ""),
        ("..", OUTSIDE, ".."),
        ("../elsewhere/x", OUTSIDE, "../elsewhere/x"),
        ("out", OUTSIDE, "../elsewhere"),
        ("out/x", OUTSIDE, "../elsewhere/x"),
        ("dangling", OUTSIDE, "../elsewhere/new"),
        ("/etc/passwd", OUTSIDE, "/etc/passwd"),
        ("~/x", OUTSIDE, "../user/x"),
        ("../projectx", OUTSIDE, "../projectx"),
        ("../vault", VAULT, "../vault"),
        ("../vault/hosts/x.toml", VAULT, "../vault/hosts/x.toml"),
        ("ours/x", VAULT, "../vault/x"),
        ("ours/new/deep/x", VAULT, "../vault/new/deep/x"),
    ],
)
def test_a_path_leads_where_its_links_lead(
    project: Path, stated: str, where: str, resolved: str
) -> None:
    """Also one that is not there yet."""
    found = places(project).of(stated)
    wanted = os.path.normpath(project / resolved)
    assert (found.where, found.resolved) == (where, wanted)


@pytest.mark.parametrize(
    "stated",
    [
        *("", " src/a.py", "src/a.py ", "\tx", "x\ny", "x\0", "\x1b[2J", "\u00a0x"),
        *("file:///etc/passwd", "~nobody-there/x", "out/../x", "a/" * 100),
        *("/proc/self/cwd/src/a.py", "/proc/thread-self/root/x", "/dev/fd/0"),
        *("/proc", "/dev/stdin", "//proc/self/cwd", "/dev/../proc/self/cwd"),
    ],
)
def test_what_programs_read_in_several_ways_is_not_known(
    project: Path, stated: str
) -> None:
    """Hosts trim, expand and shorten paths as they like."""
    assert places(project).of(stated).where == UNKNOWN


@pytest.mark.parametrize(
    ("stated", "where", "configures"),
    [
        *((one, UNKNOWN, False) for one in ("@src/a.py", "src/%61.py", "@/etc/passwd")),
        *((one, UNKNOWN, False) for one in ("file:src/a.py", "src/a%2Fb", "x\0")),
        *(
            (one, UNKNOWN, True)
            for one in ("://.codex/x", "a b://.envrc", "a//b://HEAD")
        ),
        ("@.gemini/settings.json", UNKNOWN, True),
        ("@/.gemini/settings.json", UNKNOWN, True),
        ("%2egemini/settings.json", UNKNOWN, True),
        (".%67emini/settings.json", UNKNOWN, True),
        ("@%2eenvrc", UNKNOWN, True),
        ("%40.envrc", UNKNOWN, True),
        ("%252egemini/settings.json", UNKNOWN, True),
        ("%" + "25" * 40 + "2egemini/settings.json", UNKNOWN, True),
        (".gem\0ini/settings.json", UNKNOWN, True),
        ("@hooks%6cink/x", UNKNOWN, True),
        *((one, UNKNOWN, True) for one in (" .envrc", "q*%2f.envrc")),
        ("file:.vscode/tasks.json", UNKNOWN, True),
        ("file:///x/%2evscode/tasks.json", UNKNOWN, True),
        *((one, VAULT, False) for one in ("@../vault/x", "%2e%2e/vault/x", "@ours/x")),
        ("%6furs/x", VAULT, False),
        ("src/100%.md", PROJECT, False),
        ("src/@types/a.ts", PROJECT, False),
        ("100%zz", PROJECT, False),
    ],
)
def test_a_path_that_a_host_rewrites_counts_in_each_reading(
    project: Path, stated: str, where: str, configures: bool
) -> None:
    """Gemini CLI drops a leading `@` and NUL, and decodes escapes of URLs.

    The place is not known then, and the strictest reading counts, of a glob as well. In
    a command line such a word is the program's, which takes it as it is.
    """
    (project / ".git" / "hooks").mkdir(parents=True)
    (project / "hookslink").symlink_to(".git/hooks")
    found = places(project)
    place = found.of_argument(stated)
    assert (place.where, place.configures) == (where, configures)
    named = found.of_arguments({"include": [stated]})
    assert {(one.where, one.configures) for *_, one in named[1:]} == {
        (where, configures)
    }
    assert (command := line(project, "cat @src/a.py"))
    assert command[0].places[0][1].where == PROJECT


@pytest.mark.parametrize("base", ["@src", "%73rc"])
def test_a_folder_that_a_host_rewrites_is_no_start(project: Path, base: str) -> None:
    """Globs from it could lead anywhere."""
    found = places(project).of_arguments({"path": base, "pattern": "*.py"})
    named = {(name, glob): place for name, _, glob, place in found}
    assert named["", False].where == named["pattern", True].where == UNKNOWN


def test_a_missing_file_that_a_host_searches_for_may_be_any(project: Path) -> None:
    """Gemini's `replace` takes `.gemini/settings.json` for `settings.json`."""
    vault = [project.parent / "vault"]
    found = PathLocator(str(project), [str(project)], vault, {}, searches=True)
    place = found.of_argument("settings.json")
    assert (place.where, place.configures) == (UNKNOWN, True)
    for stated in ("src/a.py", str(project / "settings.json")):
        place = found.of_argument(stated)
        assert (place.where, place.configures) == (PROJECT, False)


@pytest.mark.parametrize(
    ("stated", "where"),
    [
        ("src /etc/passwd", UNKNOWN),
        ("src link", UNKNOWN),
        ("src\t/etc/passwd", UNKNOWN),
        ("src /etc/passwd x", UNKNOWN),
        ("src ../vault/config.toml", VAULT),
        ('src "../vault"', VAULT),
        ("new folder/x", UNKNOWN),
        ("a folder", PROJECT),
        ("dangling link", UNKNOWN),
        ("src", PROJECT),
    ],
)
def test_a_path_with_blanks_is_also_each_of_its_words(
    project: Path, stated: str, where: str
) -> None:
    """Copilot CLI's `grep` reads `src /etc/passwd` as two paths."""
    (project / "a folder").mkdir()
    (project / "dangling link").symlink_to("missing")
    vault = [project.parent / "vault"]
    tools = HOSTS["copilot"].splitting
    assert {"grep", "rg", "glob"} <= tools
    folder = HOSTS["copilot"].folder
    found = PathLocator(str(project), [str(project)], vault, {}, folder, splits=True)
    for given in ({"path": stated}, {"paths": [stated]}):
        places = found.of_arguments({**given, "pattern": "def f"})
        named = {name: place.where for name, _, glob, place in places if not glob}
        assert named["".join(given)] == where
        assert named["pattern"] == PROJECT
        if "path" in given:
            assert named[""] == where


def test_a_line_that_moves_other_calls_is_no_reading(project: Path) -> None:
    """Claude Code before 2.1.332 runs other calls of a message in the new folder."""
    root, environ = str(project), {"PATH": ""}
    found = PathLocator(root, [root], [], environ, moves=True)
    for text in ("cd src && pwd", f"cd {root} && cd src && pwd", f"cd {root}/src && x"):
        assert found.of_line(text, root) is None
        assert places(project).of_line(text, root) is not None
    assert found.of_line(f"cd {root} && pwd", root) is not None
    assert found.of_line("pwd", root) is not None


@pytest.mark.parametrize(
    ("agent", "moves"),
    [
        *[("claude-code_2-1-197_harness", True), ("claude-code_2-1-332_h", False)],
        *[("claude-code_2-1-331_x", True), ("claude-code_2-2-0_x", False)],
        *[("claude-code/3.0.0/agent", False), ("", True), ("other_9-9-9_x", True)],
    ],
)
def test_only_a_version_known_to_keep_folders_may_move(
    agent: str, *, moves: bool
) -> None:
    """A version that is not stated counts as an early one; other hosts differ."""
    assert HOSTS["claude-code"].moves({"AI_AGENT": agent}) is moves
    assert not HOSTS["gemini"].moves({"AI_AGENT": agent})


def test_without_a_folder_a_relative_path_is_not_known(project: Path) -> None:
    """A host that tells no folder, or no absolute one, leaves it open."""
    for cwd in ("", "src"):
        found = PathLocator(cwd, [str(project)], [], {})
        assert found.of("a.py").where == UNKNOWN
        assert found.of(str(project / "a")).where == PROJECT


@pytest.mark.parametrize("root", ["user", "", "/"])
def test_a_home_directory_is_no_project(project: Path, root: str) -> None:
    """Nor is what holds one: everything would be inside."""
    top = project.parent / root
    found = PathLocator(str(top), [str(top)], [], {})
    assert found.of(str(project.parent / "user" / "x")).where == OUTSIDE


def test_a_folder_that_holds_agentvaults_home_is_outside(project: Path) -> None:
    """A search in it would read what is below."""
    inside = project / "deep" / "vault"
    inside.mkdir(parents=True)
    found = PathLocator(str(project), [str(project)], [inside], {})
    assert found.of(".").where == OUTSIDE
    assert found.of("deep").where == OUTSIDE
    assert found.of("src").where == PROJECT
    assert found.of("deep/vault/x").where == VAULT


def test_another_name_of_agentvaults_home_is_its_home(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without case: the same folder by its device and number."""
    found, vault = places(project), project.parent / "vault"
    real = os.stat(vault)  # noqa: PTH116 - as it is read
    numbers = real.st_dev, real.st_ino
    monkeypatch.setattr(
        found,
        "_stat",
        lambda path: numbers if path.casefold() == str(vault).casefold() else None,
    )
    assert found.of("../VAULT/x").where == VAULT


@pytest.mark.parametrize(
    "stated", [".claude/settings.json", "deep/.GIT/config", "src/../.git/x", "init.lua"]
)
def test_what_has_programs_run_later_configures(project: Path, stated: str) -> None:
    """In every repository, in every spelling that a file system takes for it."""
    assert places(project).of(stated).configures
    assert not places(project).of("src/a.py").configures
    assert not places(project).of("src/init.lua").configures


def test_files_of_a_bare_repository_configure(project: Path) -> None:
    """Its config names programs, for any git that runs in that folder later."""
    (project / "fix" / "refs").mkdir(parents=True)
    (project / "fix" / "HEAD").write_text("ref: refs/heads/main")
    found = places(project)
    for stated in ("fix/config", "fix/info/attributes", "fix/refs/new"):
        assert found.of(stated).configures, stated
    assert not found.of("src/a.py").configures


def test_links_to_what_configures_configure(project: Path) -> None:
    """By the name that is stated, and by where it leads."""
    (project / "data").mkdir()
    (project / ".git").symlink_to("data")
    (project / "other").symlink_to("data")
    (project / "claude").symlink_to(".claude")
    (project / "x").symlink_to(project / ".envrc")
    found = places(project)
    for stated in (".git/hooks/x", "other/hooks/x", "data/x", "claude/x", "x"):
        assert found.of(stated).configures, stated


def test_a_working_copy_below_claude_is_a_project(project: Path) -> None:
    """Claude Code puts them there; what is in them is as in any other."""
    copy = project / ".claude" / "worktrees" / "one"
    copy.mkdir(parents=True)
    found = PathLocator(str(copy), [str(copy)], [], {})
    assert not found.of("src/a.py").configures
    assert found.of(".claude/settings.json").configures


@pytest.mark.parametrize(
    ("pattern", "where"),
    [
        ("**/*.py", PROJECT),
        ("src/*.py", PROJECT),
        ("src/{a,b}.py", PROJECT),
        ("src/a.py", PROJECT),
        ("../*", OUTSIDE),
        ("../../**/x", OUTSIDE),
        ("/etc/*", OUTSIDE),
        ("/*", OUTSIDE),
        ("~/*", OUTSIDE),
        ("out/*", OUTSIDE),
        ("../vault/*", VAULT),
        ("ours/**", VAULT),
        ("*/../../x", UNKNOWN),
        ("{../x,y}", OUTSIDE),
        ("{/etc/passwd,y}", OUTSIDE),
        ("{../x", UNKNOWN),
        ("!(x)/../../y", UNKNOWN),
        ("src/*\\..", UNKNOWN),
        ("{a,b}/{c,d}/*.{js,ts}", PROJECT),
        ("src/{a..c}.py", UNKNOWN),
        (".{.,}/elsewhere/x", OUTSIDE),
        ("{.,a}{.,b}/vault/x", VAULT),
        ("src/*/{.,x}{.{,x},y}/z", UNKNOWN),
        (".{./elsewhere,x}/y", OUTSIDE),
        ("{out,src}/x", OUTSIDE),
        ("{src,{ours,x}}/**", VAULT),
        ("{a,b}" * 9, UNKNOWN),
        ("{,,,,,,,,}" * 100, UNKNOWN),
    ],
)
def test_a_glob_lies_where_it_begins(project: Path, pattern: str, where: str) -> None:
    """Unless what follows may lead out of that."""
    assert places(project).of_pattern(pattern).where == where


@pytest.mark.parametrize(
    ("pattern", "where"),
    [
        ("o*/*.db", VAULT),
        ("[o]urs/keys/*", VAULT),
        ("?urs/**", VAULT),
        ("O*S/x", VAULT),
        ("src/*/back/ours/*", VAULT),
        ("out*/*", OUTSIDE),
        ("+(out)/x", VAULT),  # any name, where programs differ
        ("dang*/x", OUTSIDE),
        ("dang*", PROJECT),
        ("link*/*.py", PROJECT),
        ("s*/*.py", PROJECT),
        ("o*", PROJECT),  # the links themselves are listed
        ("**/*.db", PROJECT),  # it follows none
        ("src/**/back/*", PROJECT),
        ("src/**/passwd", OUTSIDE),  # node-glob follows one link there
        ("s*/**/passwd", OUTSIDE),
        ("**/src/**/passwd", PROJECT),
    ],
)
def test_a_glob_leads_where_the_links_that_it_matches_lead(
    project: Path, pattern: str, where: str
) -> None:
    """A wildcard stands for the name of a link as well as the name itself does."""
    (project / "src" / "deep").mkdir()
    (project / "src" / "deep" / "back").symlink_to(project)
    if pattern.endswith("/passwd"):
        (project / "src" / "etc").symlink_to("/etc")
    assert places(project).of_pattern(pattern).where == where


def test_a_glob_over_too_many_files_is_not_known(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook has to answer in time, and an unseen link may lead anywhere."""
    monkeypatch.setattr("agentvault_tui.cli.hook_places.MOST_ENTRIES", 3)
    assert places(project).of_pattern("s*/*.py").where == UNKNOWN


def test_a_glob_with_many_stars_is_matched_once(project: Path) -> None:
    """A host lets the tool run if the hook takes too long: each split takes years."""
    (project / ("a" * 200)).symlink_to(project)
    assert places(project).of_pattern("*a" * 20 + "*b/x").where == PROJECT


def test_a_folder_called_as_the_home_is_not_the_home(project: Path) -> None:
    """A shell does not expand a tilde in quotes, and some hosts expand none."""
    for folder in (project / "~" / "project", project.parent / "user" / "project"):
        folder.mkdir(parents=True)
    (project / "~" / "project" / "x").symlink_to("/etc/passwd")
    assert places(project).of("~/project/x").where == UNKNOWN
    assert places(project).of("~other/x").where == UNKNOWN


def test_the_code_of_the_hook_configures(project: Path) -> None:
    """In a virtual environment of the project, an agent could write its answers."""
    own = project / ".venv"
    (own / "lib").mkdir(parents=True)
    (project / "lib").symlink_to(own / "lib")
    found = PathLocator(str(project), [str(project)], [], {}, code=[str(own)])
    assert found.of(".venv/lib/sitecustomize.py").configures
    assert found.of("lib/x.pth").configures
    assert not found.of("src/a.py").configures


def test_arguments_are_found_with_the_folder_that_they_count_from(
    project: Path,
) -> None:
    """The call's own folder comes first; a glob counts from the folder it names."""
    given: dict[str, object] = {
        "path": "src",
        "pattern": "*.py",
        "content": "../vault",
        "include": ["a", "../vault/*"],
        "limit": 3,
        "long": "x" * 2_000,
    }
    found = places(project).of_arguments(given)
    src = str(project / "src")
    assert found[0] == ("", "", False, PathLocation(src, PROJECT, False, True))
    named = {(name, text, glob): place for name, text, glob, place in found}
    assert named["path", "src", False].resolved == src
    assert named["pattern", "*.py", True].resolved == f"{src}/*.py"
    assert named["include", "../vault/*", True].where == PROJECT  # src/../vault
    assert not any(name in {"content", "limit", "long"} for name, *_ in named)


@pytest.mark.parametrize(
    "more",
    [
        {"workdir": "src"},
        {"directory": "src", "path": "src"},
        {"path": ["src"]},
        {"path": {"x": 1}},
        {"path": " src"},
    ],
)
def test_an_argument_that_a_host_may_not_read_shifts_no_glob(
    project: Path, more: dict[str, object]
) -> None:
    """`../*` from a folder that the host ignores leads elsewhere: it is not known."""
    found = places(project).of_arguments({"pattern": "../*", **more})
    named = {(name, glob): place for name, _, glob, place in found}
    assert named["pattern", True].where == UNKNOWN
    plain = places(project).of_arguments({"pattern": "../*", "path": "src"})
    named = {(name, glob): place for name, _, glob, place in plain}
    assert named["pattern", True].where == PROJECT


def test_a_line_of_a_lasting_shell_says_where_it_begins(project: Path) -> None:
    """Its folder may be another than the one that the host states."""
    found = places(project)
    assert found.of_line("ls", "") is None
    assert found.of_line("cd src && ls", "") is None
    assert found.of_line(f"cd {project.parent} && ls", "") is None
    (command,) = found.of_line(f"cd {project}/src && ls", "") or ()
    assert command.cwd == str(project / "src")


def test_the_commands_of_a_line_are_placed(project: Path) -> None:
    """Each word by itself, in the folder to which the line went."""
    found = line(project, "cd src && cat a.py ../link | wc -l")
    assert found is not None
    cat, count = found
    src = str(project / "src")
    assert (cat.words, cat.cwd) == (("cat", "a.py", "../link"), src)
    assert cat.places == (
        (1, PathLocation(f"{src}/a.py", PROJECT)),
        (2, PathLocation(src, PROJECT, False, True)),
    )
    assert (count.words, count.places) == (("wc", "-l"), ())


@pytest.mark.parametrize(
    "text",
    [
        *("ls `x`", "cd .. && ls", "cd out && ls", "cd ours && ls", "cd nowhere && ls"),
        *(
            "cd src; ls",
            "cd src || ls",
            "cd src | ls",
            "ls | cd src && ls",
            "cd - && ls",
        ),
        *(
            "cd +0 && ls",
            "cd && ls",
            "cd src x && ls",
            "cd src && ls; cat x",
            "cd link/.. && ls",
        ),
        *("cd -P src && ls", "cd src/a.py && ls", "cd /etc && ls", "ls && cd src"),
    ],
)
def test_a_line_that_may_run_elsewhere_is_not_placed(project: Path, text: str) -> None:
    """If a `cd` fails, what follows must not run; and it stays in the project."""
    assert line(project, text) is None


def test_variables_that_change_what_runs_leave_no_line_placed(project: Path) -> None:
    """They name programs, or another repository."""
    for text, name in (
        ("ls", "BASH_ENV"),
        ("ls | rg x", "RIPGREP_CONFIG_PATH"),
        ("git status", "GIT_DIR"),
        ("ls", "ZDOTDIR"),
    ):
        assert line(project, text) is not None
        assert line(project, text, **{name: "x"}) is None
    assert line(project, "ls", ZDOTDIR=str(project.parent / "user")) is not None
    assert line(project, "cd src && ls", CDPATH="/etc") is None


def test_a_repository_that_holds_the_project_is_not_read(project: Path) -> None:
    """git prints the files next to a project from any folder below its repository."""
    git(project.parent, "init", "-q")
    (show,) = line(project, "git show HEAD:elsewhere/secret") or ()
    assert show.configured
    git(project, "init", "-q")
    (show,) = line(project, "git show HEAD:src/a.py") or ()
    assert not show.configured


def test_a_path_of_another_process_reaches_agentvaults_home(project: Path) -> None:
    """Where this one has it there, it is denied, and not left to a person."""
    vault = project.parent / "vault"
    assert places(project).of(f"/proc/self/root{vault}/x").where == VAULT


def test_a_line_outside_the_project_is_not_placed(project: Path) -> None:
    """Its first folder counts, too."""
    found = places(project)
    assert found.of_line("ls", str(project.parent)) is None
    assert found.of_line("ls", "") is None


@pytest.mark.parametrize("folder", ["bin", ".", ""])
def test_a_program_of_the_project_is_local(project: Path, folder: str) -> None:
    """By any entry of PATH that leads there; another's before it counts first."""
    other = project.parent / "elsewhere"
    (project / "bin").mkdir()
    program = project / folder / "ls"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (found,) = line(project, "ls", PATH=f"/nonexistent:{folder}") or ()
    assert found.local
    (other / "ls").write_text("#!/bin/sh\n")
    (other / "ls").chmod(0o755)
    (found,) = line(project, "ls", PATH=f"{other}:{folder}") or ()
    assert not found.local
    (other / "shims").mkdir()
    (other / "shims/ls").symlink_to("../ls")
    (found,) = line(project, "ls", PATH=f"{other}/shims:{other}") or ()
    assert found.local


@pytest.mark.parametrize(
    "text",
    [
        *("cat ../vault/x", "cat ours/x", "ls --file=../vault/x", "rm -rf ../vault"),
        *(
            "cat '../vault/x'",
            "echo $(cat ../vault/x)",
            "cat <../vault/x",
            "x=../vault",
        ),
        "for i in 1; do cat ../vault/x; done",
    ],
)
def test_a_line_that_names_agentvaults_home_reaches_it(
    project: Path, text: str
) -> None:
    """Whether it is read or not."""
    found = places(project)
    assert found.reaches_vault(text)
    assert not found.reaches_vault(text.replace("vault", "src").replace("ours", "src"))


def test_home_in_a_line_is_the_users(project: Path) -> None:
    """`~` and `$HOME` are looked behind where a shell would."""
    vault = project.parent / "user" / ".vault"
    vault.mkdir()
    found = PathLocator(str(project), [str(project)], [vault], {})
    for text in ("cat ~/.vault/x", 'cat "$HOME/.vault/x"', "cat ${HOME}/.vault/x"):
        assert found.reaches_vault(text), text
