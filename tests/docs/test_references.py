"""What README, CONTRIBUTING, CHANGELOG and docs point at is there, and up to date."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from support.pages import DOCS, ROOT

from agentvault_tui.cli.app import root
from agentvault_tui.ledger.schema import VERSION
from agentvault_tui.model import EventType
from agentvault_tui.presenters.outcomes import REASONS

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
FOREIGN = {"AGENTS.md", "CLAUDE.md"}
"""Files of the projects that agents work in."""
ROOMS = tuple(
    path.name for path in (ROOT / "agentvault_tui").iterdir() if path.is_dir()
)
FILES = [
    f"/{path.relative_to(ROOT).as_posix()}"
    for top in (
        "agentvault_tui",
        "tests",
        "docs",
        "bench",
        "release",
        "deploy",
        "screenshots",
        ".",
    )
    for path in ((ROOT / top).rglob("*") if top != "." else ROOT.iterdir())
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`([\w./-]+\.(?:py|md)|(?:[\w-]+/)+[\w.-]*)`")

COMMAND = re.compile(
    r"(?:^\s*|`|&& )(?:\.venv/bin/)?(agentvault(?: [^`\n#]*)?)", re.MULTILINE
)


def unknown_words(line: str) -> list[str]:
    """Return the subcommands and options of a command line that do not exist."""
    try:
        words = shlex.split(line.rstrip("\\"))[1:]
    except ValueError:  # a quotation goes on in the next line
        words = line.split()[1:]
    found: click.Command = root
    context = click.Context(root)
    unknown, is_value = [], False
    for word in words:
        if is_value:
            is_value = False
        elif word == "--":  # what follows is another program's
            return unknown
        elif word.startswith("--"):
            options = {
                name: one
                for one in found.params
                for name in (*one.opts, *one.secondary_opts)
            }
            option = options.get(word)
            is_value = isinstance(option, click.Option) and not option.is_flag
            if option is None and word not in {"--help", "--version"}:
                unknown.append(word)
        elif isinstance(found, click.Group) and re.fullmatch("[a-z][a-z0-9-]*", word):
            below = found.get_command(context, word)
            if below is None:
                return [*unknown, word]
            found = below
    return unknown


def anchors(page: Path) -> set[str]:
    """Return the headings of *page* as GitHub names them in a link."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", title.lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


def named_paths(page: Path) -> Iterator[str]:
    """Yield each file and folder of the repository that *page* names."""
    for name in PATH.findall(page.read_text()):
        first = name.split("/")[0]
        ours = (
            "agentvault_tui",
            "tests",
            "docs",
            "bench",
            "release",
            "screenshots",
            *ROOMS,
        )
        if (name.endswith((".py", ".md")) and name not in FOREIGN) or first in ours:
            yield name.rstrip("/")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Relative links name a file that is there, and a heading of it."""
    for link in LINK.findall(page.read_text()):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_is_named_exists(page: Path) -> None:
    """A file that was moved is not pointed at where it was."""
    missing = [
        name
        for name in named_paths(page)
        if not any(file.endswith(f"/{name}") for file in FILES)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_named_exists(page: Path) -> None:
    """Subcommands and options in text, tables and blocks are the program's."""
    for line in COMMAND.findall(page.read_text()):
        assert unknown_words(line) == [], line


def test_what_is_made_from_the_code_is_as_the_code() -> None:
    """`make docs` would change no table of settings, roles or words, and no picture."""
    made = runpy.run_path(str(DOCS / "make.py"))
    page = (DOCS / "configuration.md").read_text()
    assert made["configuration"](page) == page
    for one in made["WITH_ROLES"]:
        assert made["roles"](one.read_text()) == one.read_text()
    events = (DOCS / "events.md").read_text()
    assert made["worded"](events) == events
    assert all(f"| `{code}` | {text} |" in events for code, text in REASONS.items())
    assert made["overview"]() == (DOCS / "overview.svg").read_text()


def test_the_version_of_the_tables_is_the_one_that_is_described() -> None:
    """`PRAGMA user_version` of a new database is what the format's page says."""
    page = (DOCS / "ledger-format.md").read_text()
    assert re.findall(r"`user_version` (\d+)", page) == [str(VERSION)]


def test_every_setting_is_in_the_reference() -> None:
    """There is a table for each section of config.toml."""
    made = runpy.run_path(str(DOCS / "make.py"))
    page = (DOCS / "configuration.md").read_text()
    sections = {section for _, section, _ in made["TABLE"].findall(page)}
    assert sections == {*made["Settings"].__slots__}


def test_every_event_type_has_a_row() -> None:
    """docs/events.md has each type of event, and no other."""
    page = (DOCS / "events.md").read_text()
    _, _, table = page.partition("| type | recorded when |")
    cells = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    types = [one for cell in cells for one in re.findall(r"`([a-z_.]+)`", cell)]
    assert sorted(types) == sorted(EventType)


def test_each_journey_is_at_most_eight_files() -> None:
    """CONTRIBUTING follows six requests, each through few files."""
    _, _, after = (ROOT / "CONTRIBUTING.md").read_text().partition("## Six journeys")
    steps = re.findall(r"(?:^\d\. .*\n)+", after.partition("\n## ")[0], re.MULTILINE)
    counts = [len({*re.findall(r"`([\w/]+\.py)`", journey)}) for journey in steps]
    assert len(counts) == 6
    assert max(counts) <= 8


def test_each_function_of_a_journey_is_where_it_is_said() -> None:
    """CONTRIBUTING names functions behind the file that has them."""
    _, _, after = (ROOT / "CONTRIBUTING.md").read_text().partition("## Six journeys")
    named = re.findall(r"`([\w/]+\.py)`: `([\w.]+)`", after.partition("\n## ")[0])
    assert len(named) >= 10
    for path, name in named:
        text = (ROOT / "agentvault_tui" / path).read_text()
        assert f"def {name.rpartition('.')[2]}(" in text, (path, name)


def test_what_is_read_first_is_short() -> None:
    """A reader finds all of the README on a few screens."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_changelog_has_the_form_that_people_know() -> None:
    """Keep a Changelog: versions with dates, known headings, one change a bullet."""
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    versions = [line[3:] for line in lines if line.startswith("## ")]
    assert versions[0] == "[Unreleased]"
    dated = re.compile(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d")
    assert [one for one in versions[1:] if not dated.fullmatch(one)] == []
    headings = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {line[4:] for line in lines if line.startswith("### ")} <= headings
    bullets = [line for line in lines if line.startswith("- ")]
    assert [one for one in bullets if len(one) > 200 or one.count(". ") > 1] == []


def test_the_readme_quotes_the_performance_page() -> None:
    """Its two figures are lines of docs/performance.md (`make bench-report`)."""
    readme = (ROOT / "README.md").read_text()
    block = readme.partition("<!-- performance -->")[2].partition("<!-- end -->")[0]
    quoted = block.strip().splitlines()
    page = (DOCS / "performance.md").read_text().splitlines()
    assert len(quoted) == 2
    assert set(quoted) <= set(page)
