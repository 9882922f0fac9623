"""Command lines that read: each shipped entry, and what none of them lets through."""

from __future__ import annotations

import re
import string
import tomllib
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.commands import (
    CommandEntry,
    CommandTable,
    match_line,
    parse_entry,
)
from agentvault_tui.operator_api.access import HookCommand, HookWord
from agentvault_tui.policy import shipped_catalogue
from agentvault_tui.shell_line import parse_line

CATALOGUE = shipped_catalogue()
TEXT = (resources.files("agentvault_tui.gateway") / "hosts/commands.toml").read_text()
TABLES = [CommandTable(**one) for one in tomllib.loads(TEXT)["commands"]]
SHIPPED = [parse_entry(one, CATALOGUE, "commands") for one in TABLES]


def placed(
    line: str, *, local: bool = False, configured: bool = False
) -> list[HookCommand]:
    """Return a line as the hook does, in a project at /p; `out` leads elsewhere."""
    return [
        HookCommand(
            words=one.words,
            cwd="/p",
            local=local,
            configured=configured and one.words[0] == "git",
            repository="/p" if one.words[0] == "git" else "",
            places=tuple(
                HookWord(
                    number,
                    word if word.startswith("/") else f"/p/{word}",
                    "outside" if word.startswith(("/", "..", "out")) else "project",
                    word == "src",
                )
                for number, word in enumerate(one.words)
                if number and not word.startswith("-")
            ),
        )
        for one in parse_line(line) or ()
    ]


def entry(**more: object) -> CommandEntry:
    table = CommandTable(**{"program": "p", "scope": "read:files", **more})  # type: ignore[arg-type]
    return parse_entry(table, CATALOGUE, "commands")


def matches(one: CommandEntry, line: str) -> bool:
    return match_line([one], placed(line)) is not None


def test_an_option_with_a_value_ends_a_bundle() -> None:
    """`tree -Po x FILE` writes the file: `tree` reads `o` as one more option."""
    for one in SHIPPED:
        line = " ".join((min(one.programs), *one.subcommand))
        for option in (name for name in one.valued if len(name) == 2):
            for letter in string.ascii_letters:
                assert not matches(one, f"{line} {option}{letter} x a.py"), line


@pytest.mark.parametrize(
    ("line", "resources_"),
    [
        ("ls", ["file:/p"]),
        ("ls -la src", ["file:/p/src"]),
        ("cat a.py b.py", ["file:/p/a.py", "file:/p/b.py"]),
        ("cat a.py | grep -n 'def x' | head -20", ["file:/p/a.py", "file:/p"]),
        ("grep -rn --include='*.py' needle src", ["file:/p/src/"]),
        ("grep -e needle a.py", ["file:/p/a.py"]),
        ("rg -n needle", ["file:/p/"]),
        ("grep -r needle", ["file:/p/"]),
        ("ls -lR", ["file:/p/"]),
        ("find src -name '*.py' -type f", ["file:/p/src/"]),
        ("head -n 5 a.py", ["file:/p/a.py"]),
        ("tail -5 a.py", ["file:/p/a.py"]),
        ("diff -u a.py b.py", ["file:/p/a.py", "file:/p/b.py"]),
        ("git status --short", ["file:/p/"]),
        ("git diff HEAD~1 -- a.py", ["file:/p/HEAD~1/", "file:/p/a.py/", "file:/p/"]),
        ("git diff -- a.py", ["file:/p/a.py/"]),
        ("git log -p -- src", ["file:/p/src/"]),
        ("git log -p --follow -- a.py", ["file:/p/a.py/", "file:/p/"]),
        ("git log -p -- '*.py'", ["file:/p/*.py/", "file:/p/"]),
        ("git log -p -- ':/src'", ["file:/p/:/src/", "file:/p/"]),
        ("git cat-file -p abc123", ["file:/p/abc123/", "file:/p/"]),
        ("git log --oneline -5", ["file:/p/"]),
        ("git show HEAD:a.py", ["file:/p/HEAD:a.py/", "file:/p/"]),
        ("git branch --list", [""]),
        ("python3 --version", [""]),
        ("echo done", [""]),
        ("wc -l a.py 2>/dev/null", ["file:/p/a.py"]),
    ],
)
def test_reading_lines_are_known(line: str, resources_: list[str]) -> None:
    """With each path, or their folder; with a slash if all below it is read."""
    found = match_line(SHIPPED, placed(line))
    assert found is not None
    assert {scope for scope, _ in found} == {"read:files"}
    assert list(dict.fromkeys(one for _, one in found)) == resources_


@pytest.mark.parametrize(
    "line",
    [
        "pytest -q",
        "python -m pytest tests",
        "npm test",
        "cargo test",
        "go test ./...",
        "make test",
    ],
)
def test_test_runners_are_run_tests(line: str) -> None:
    """Also where the runner is one of the project's own files: it runs those anyway."""
    found = match_line(SHIPPED, placed(line, local=True))
    assert found is not None
    assert {scope for scope, _ in found} == {"run:tests"}


@pytest.mark.parametrize(
    "line",
    [
        *("rm -rf /", "ls; rm -rf /", "ls && rm x", "ls | sh", "cat a.py | xargs rm"),
        *("cat /etc/passwd", "cat ../x", "ls out", "grep x /etc/passwd", "cat a.py /x"),
        *(
            "find . -exec rm {} +",
            "find . -delete",
            "find src -fprint x",
            "find . -ok x",
        ),
        *("find -- -delete", "find . -name x -delete", "find . -fls x", "find -L ."),
        *(
            "sort -o x a",
            "sort -ox a",
            "sort a --output=x",
            "sort --compress-program=x",
        ),
        *("uniq a b", "tree -o x", "tree -R", "rg --pre x y", "rg -z x", "rg -L x ."),
        *("rg --hostname-bin x y", "grep -f /etc/passwd x", "file -C", "file -z x"),
        *("diff -r src lib", "diff src lib", "date -s x", "date 01010101", "tail -f x"),
        *("git -c core.pager=x log", "git -C /x status", "git --git-dir=x status"),
        *("git diff --output=x", "git diff --ext-diff", "git diff --textconv"),
        *("git diff --no-index /a /b", "git diff -Ox", "git grep -Ox y", "git log -Ox"),
        *("git log --format=%G?", "git log --show-signature", "git log --output=x"),
        *("git branch new", "git branch -D x", "git tag v1", "git remote add x y"),
        *("git stash", "git fetch", "git push", "git ls-remote", "git archive x"),
        *("git --exec-path=x status", "git --paginate log", "git help log", "git x"),
        *("git diff --outp=x", "git show --textconv x", "git blame --contents x a"),
        *("python --version x", "git --version --build-options", "printf '%n' PATH"),
        *(
            "env",
            "awk x y",
            "sed -n 1p a",
            "less a",
            "vim a",
            "./ls",
            "/bin/ls",
            "ssh x",
        ),
        *("curl x", "tar --version --x", "head -c", "head -n", "ls -la --x", "ls -lZ"),
        *("pytest -p x", "pytest --rootdir=x", "pytest /x", "npm run x", "cargo run"),
        *("go test -exec x", "python -m http.server", "python -c x", "python x.py"),
    ],
)
def test_other_lines_are_not_known(line: str) -> None:
    """They are what the tool itself is."""
    assert parse_line(line) is None or match_line(SHIPPED, placed(line)) is None


def test_a_program_of_the_project_reads_nothing() -> None:
    """The agent may have written it."""
    assert match_line(SHIPPED, placed("ls", local=True)) is None


def test_git_counts_only_in_a_plain_repository() -> None:
    """Where its configuration names no program; other programs do not read that."""
    assert match_line(SHIPPED, placed("git status", configured=True)) is None
    assert match_line(SHIPPED, placed("ls", configured=True)) is not None
    assert match_line(SHIPPED, placed("ls && git log", configured=True)) is None


RUNS, WRITES, CONNECTS = "runs a program", "writes", "opens a connection"
READS, FOLLOWS = "reads what is no argument", "follows links"
ELSEWHERE, SHOWS, STAYS = "another repository", "shows the environment", "never ends"
_NAMED: dict[str, dict[str, str]] = {
    # By what GTFOBins and the manuals of the programs name, in our words: what they do
    # besides reading their arguments, and the options or subcommands that do it.
    "bash": {RUNS: "-c -i"},
    "bun": {RUNS: "x run"},
    "cargo": {RUNS: "--config", WRITES: "--target-dir"},
    "cat": {},
    "cmp": {},
    "comm": {},
    "composer": {RUNS: "exec"},
    "curl": {WRITES: "-o -O", CONNECTS: "-K -T"},
    "date": {WRITES: "-s --set", READS: "-f"},
    "diff": {READS: "--to-file --from-file", FOLLOWS: "-r", RUNS: "-l --paginate"},
    "dotnet": {RUNS: "fsi"},
    "du": {READS: "--files0-from", FOLLOWS: "-L"},
    "file": {WRITES: "-C", READS: "-m -f", RUNS: "-z -Z"},
    "find": {
        RUNS: "-exec -execdir -ok -okdir",
        WRITES: "-delete -fprint -fprint0 -fprintf -fls",
        FOLLOWS: "-L",
        READS: "-files0-from -newer",
    },
    "gcc": {RUNS: "-wrapper -B -fplugin", WRITES: "-o"},
    "git": {
        RUNS: (
            "-c -p --paginate --exec-path --git-dir --config-env --ext-diff "
            "--textconv -O --open-files-in-pager --upload-pack --receive-pack "
            "--exec --show-signature --filters -S help archive submodule bisect "
            "rebase grep difftool mergetool commit gc"
        ),
        ELSEWHERE: "-C --work-tree",
        WRITES: "--output config apply checkout reset",
        READS: "--no-index --contents --ignore-revs-file",
        CONNECTS: "fetch push clone ls-remote pull",
    },
    "go": {RUNS: "-exec -toolexec", WRITES: "-o -c"},
    "grep": {READS: "-f --file", FOLLOWS: "-R"},
    "head": {},
    "jq": {RUNS: "-f -L", READS: "--rawfile", SHOWS: "-n"},
    "ls": {FOLLOWS: "-L --dereference"},
    "make": {RUNS: "-f --eval -C SHELL="},
    "md5sum": {READS: "-c --check"},
    "nl": {},
    "node": {RUNS: "-e -r", CONNECTS: "--inspect"},
    "npm": {RUNS: "exec --script-shell --prefix"},
    "paste": {},
    "perl": {RUNS: "-e -I -M"},
    "pytest": {RUNS: "-p --pyargs -c --rootdir -o", WRITES: "--junitxml --basetemp"},
    "python": {RUNS: "-c -i -X"},
    "python3": {RUNS: "-c -i -X"},
    "rake": {RUNS: "-f -e -r"},
    "readlink": {},
    "realpath": {},
    "rg": {
        RUNS: "--pre -z --search-zip --hostname-bin",
        READS: "-f --ignore-file",
        FOLLOWS: "-L --follow",
    },
    "sort": {
        WRITES: "-o --output -T -S",
        RUNS: "--compress-program",
        READS: "--files0-from",
    },
    "stat": {FOLLOWS: "-L"},
    "strings": {READS: "@"},
    "tac": {},
    "tail": {STAYS: "-f -F --pid"},
    "tar": {RUNS: "--checkpoint-action -I --to-command --rsh-command", WRITES: "-x -c"},
    "tr": {},
    "tree": {WRITES: "-o -R -H", FOLLOWS: "-l", READS: "--fromfile"},
    "uniq": {},
    "wc": {READS: "--files0-from"},
    "which": {},
}
GTFOBINS = {
    program: [(option, does) for does, all_ in named.items() for option in all_.split()]
    for program, named in _NAMED.items()
}
HARMLESS = frozenset(
    {
        *("basename", "cksum", "ctest", "cut", "deno", "dirname", "echo", "egrep"),
        *("false", "fgrep", "gradle", "id", "jest", "mix", "mvn", "nox", "phpunit"),
        *("pnpm", "pwd", "rev", "rspec", "sha1sum", "sha256sum", "sha512sum", "swift"),
        *("tox", "true", "uname", "vitest", "whoami", "yarn"),
    }
)
"""Programs of which GTFOBins names nothing that an option of an entry here could do;
test runners run tests, and no more is allowed than to name them."""


def _listed(one: CommandEntry) -> set[str]:
    return {*one.flags, *one.valued, *one.attached, *one.subcommand}


@pytest.mark.parametrize("one", SHIPPED, ids=lambda one: " ".join(sorted(one.programs)))
def test_no_entry_has_what_gtfobins_names(one: CommandEntry) -> None:
    """No option or subcommand that writes, runs a program or opens a connection."""
    for program in one.programs:
        assert program in GTFOBINS or program in HARMLESS, program
        for option, does in GTFOBINS.get(program, []):
            if one.scope == "run:tests" and does == RUNS and option == "run":
                continue  # `npm run test`, where the script is the project's
            allowed = _listed(one)
            if program == "git":
                # `-p` before a subcommand pages; after it, it is `--patch`.
                assert not {"-c", "-C"} & allowed or one.subcommand in {
                    ("ls-files",),
                    ("diff",),
                }
                if option in {"-p", "-c", "--git-dir"}:
                    continue
            assert option not in allowed, (program, option, does)
            bare = option.rstrip("=")
            assert not any(each.rstrip("=") == bare for each in one.attached), option


@pytest.mark.parametrize("program", sorted(GTFOBINS))
def test_what_gtfobins_names_is_not_known_on_a_command_line(program: str) -> None:
    """Alone, with a value, and with one in the same word, with arguments around it."""
    subcommands = {one.subcommand for one in SHIPPED if program in one.programs}
    for option, does in GTFOBINS[program]:
        for sub in subcommands:
            before = (program, *sub)
            for after in ((option,), (option, "x"), (f"{option}=x",), (f"{option}x",)):
                line = " ".join((*before, *after))
                found = match_line(SHIPPED, placed(line))
                if found is None or not option.startswith("-"):
                    continue
                harmless = {
                    ("git", "-p"), ("git", "-S"), ("git", "-c"), ("git", "--git-dir"),
                    ("cargo", "--config"),
                }  # fmt: skip
                assert (program, option) in harmless, (line, does)
        if program == "git":  # before a subcommand, where these are git's own
            assert match_line(SHIPPED, placed(f"git {option} x status")) is None
            assert match_line(SHIPPED, placed(f"git {option}=x status")) is None


WORDS = st.sampled_from(
    sorted(
        {option for all_ in GTFOBINS.values() for option, _ in all_} | {"a", "-n", "5"}
    )
)


@given(st.sampled_from(sorted(GTFOBINS)), st.lists(WORDS, max_size=5))
def test_what_is_known_has_only_listed_options(program: str, words: list[str]) -> None:
    """In any position on the line."""
    line = " ".join([program, *words])
    commands = placed(line)
    for one in SHIPPED:
        if match_line([one], commands) is not None:
            for word in words:
                if word.startswith("-"):
                    whole = word in _listed(one) or any(
                        map(word.startswith, one.attached)
                    )
                    letters = {f"-{each}" for each in word[1:]} <= _listed(one)
                    assert whole or letters or word == "-#", line


OPTIONS = ["-l", "-a", "-n *", "--all", "--lines *", "--color=*", "-U*", "-#", "--"]


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("p -l -a", True),
        ("p -la", True),
        ("p -al --all", True),
        ("p -lx", False),
        ("p -n 5", True),
        ("p -n5", True),
        ("p -ln5", True),
        ("p -ln 5", True),
        ("p -n", False),
        ("p -n -l", False),
        ("p --lines=5", True),
        ("p --lines 5", True),
        ("p --lines", False),
        ("p --line=5", False),
        ("p --linesx", False),
        ("p --all=1", False),
        ("p --al", False),
        ("p --color=x", True),
        ("p --color", False),
        ("p --color=", False),
        ("p -U3", True),
        ("p -U", False),
        ("p -U 3", False),
        ("p -5", True),
        ("p -50", True),
        ("p -5x", False),
        ("p -- a", True),
        ("p -- -l", False),
        ("p -- --x", False),
        ("p a -l", True),
        ("p -", False),
        ("p ''", True),
        ("q -l", False),
    ],
)
def test_options_are_those_of_the_list(line: str, known: bool) -> None:
    """Bundled, with a value, with one in the same word, and after arguments."""
    one = entry(options=OPTIONS, arguments="any", bundles=True)
    assert matches(one, line) is known


@pytest.mark.parametrize("line", ["p -la", "p -n5", "p -ln 5", "p -l5"])
def test_options_are_bundled_only_where_the_entry_says_so(line: str) -> None:
    """Other programs make something else of the letters of one word."""
    assert not matches(entry(options=OPTIONS, arguments="any"), line)
    assert matches(entry(options=OPTIONS, arguments="any"), "p -l -n 5 -U3 --lines=5")


@pytest.mark.parametrize(
    "line", ["tree -Po x f", "tree -Io x f", "tree -Lo 1 f", "tree -nPo '*' .envrc d"]
)
def test_a_letter_of_tree_begins_no_option_that_writes(line: str) -> None:
    """Its parser takes the next word for the value of P, and goes on in the first."""
    assert match_line(SHIPPED, placed(line)) is None
    assert match_line(SHIPPED, placed("tree -a -L 2 -P '*.py' src")) is not None


def test_an_entry_is_recursive_unless_it_says_otherwise() -> None:
    """The options that make it recursive are options of the entry."""
    with pytest.raises(ServiceError, match="recursive names an option"):
        entry(options=["-l"], recursive=["-r"])
    for recursive, line, resource in (
        (True, "p src", "file:/p/src/"),
        (["-r"], "p src", "file:/p/src"),
        (["-r"], "p -lr src", "file:/p/src/"),
        (True, "p a.py", "file:/p/a.py"),
    ):
        given = {"options": ["-l", "-r"], "bundles": True, "recursive": recursive}
        one = entry(arguments="path", **given)
        assert match_line([one], placed(line)) == [("read:files", resource)]


def test_long_options_of_one_dash_are_not_bundled() -> None:
    """`find -ls` is no `-l` and `-s`."""
    with pytest.raises(ServiceError, match="takes no bundles"):
        entry(options=["-name *", "-l"], bundles=True)
    one = entry(options=["-name *", "-l", "-s"], arguments="path")
    assert matches(one, "p -l -s -name x")
    assert not matches(one, "p -ls")


@pytest.mark.parametrize(
    ("arguments", "line", "known"),
    [
        ("none", "p", True),
        ("none", "p a", False),
        ("any", "p /x ../y", True),
        ("path", "p a src", True),
        ("path", "p a /x", False),
        ("file", "p a", True),
        ("file", "p src", False),
        (["any", "path*"], "p /x a b", True),
        (["any", "path*"], "p x /a", False),
        (["path"], "p a", True),
        (["path"], "p a b", False),
        (["any", "path"], "p /x a", True),
        (["any", "path"], "p /x a b", False),
    ],
)
def test_arguments_are_of_their_kind(
    arguments: str | list[str], line: str, known: bool
) -> None:
    """Any, a path in the project, a file, none, or one each."""
    assert matches(entry(arguments=arguments), line) is known


def test_a_word_without_a_place_is_no_path() -> None:
    """The hook did not say where it leads."""
    command = HookCommand(words=("p", "a"), cwd="/p", local=False, configured=False)
    assert match_line([entry(arguments="path")], [command]) is None
    assert match_line([entry(arguments="any")], [command]) is not None


def test_a_resource_is_each_path_in_turn() -> None:
    """Or one text for all of them."""
    one = entry(arguments="path", resource="repo:{path}")
    assert match_line([one], placed("p a b")) == [
        ("read:files", "repo:/p/a"),
        ("read:files", "repo:/p/b"),
    ]
    fixed = entry(arguments="path", resource="repo:all")
    assert match_line([fixed], placed("p a b")) == [("read:files", "repo:all")]


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"program": "/bin/ls"}, "no entry can be for"),
        ({"program": "env"}, "no entry can be for"),
        ({"program": ["ls", "sudo"]}, "no entry can be for"),
        ({"program": "time"}, "no entry can be for"),
        ({"scope": "raed:files"}, "did you mean read:files"),
        ({"options": ["l"]}, "is not an option"),
        ({"options": ["-n *x"]}, "is not an option"),
        ({"options": ["-n  *"]}, "is not an option"),
        ({"arguments": "paths"}, "arguments"),
        ({"arguments": ["path*", "any"]}, "arguments"),
        ({"arguments": ["none"]}, "arguments"),
        ({"resource": "x:{y}"}, "{path}"),
    ],
)
def test_a_broken_entry_says_what_is_wrong(
    given_: dict[str, object], said: str
) -> None:
    """Each fault is one sentence."""
    with pytest.raises(ServiceError) as caught:
        entry(**given_)
    assert said in caught.value.diagnosis()


def test_no_value_of_a_shipped_option_is_a_path() -> None:
    """The value of an option is no resource, so no option may take a file."""
    paths = re.compile(r"file|dir|path$|from|input|output|contents|reference|newer")
    fine = {"--exclude-dir=", "-path", "-ipath"}  # patterns for names
    for one in SHIPPED:
        for option in {*one.valued, *one.attached} - fine:
            assert not paths.search(option), option
