"""The house keeps its shape: sizes, imports, documented errors."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

from agentvault_tui import errors

PACKAGE = Path(errors.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


class Shape(NamedTuple):
    """What a file has, of which the tests below speak."""

    lines: int
    documented: bool
    functions: list[tuple[int, str]]
    """How long each is, and its name."""
    classes: list[str]
    modules: list[str]
    """What ``import`` names."""
    taken: list[tuple[str, list[str]]]
    """From which module ``from … import`` takes what."""


@cache
def shape(path: Path) -> Shape:
    """Read a file once for all tests; its tree would take a hundred times the room."""
    text = path.read_text()
    tree = ast.parse(text)
    found = Shape(text.count("\n"), ast.get_docstring(tree) is not None, [], [], [], [])
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                length = (node.end_lineno or 0) - node.lineno
                found.functions.append((length, node.name))
            case ast.ClassDef():
                found.classes.append(node.name)
            case ast.Import():
                found.modules.extend(one.name for one in node.names)
            case ast.ImportFrom(module=str(module)):
                found.taken.append((module, [one.name for one in node.names]))
    return found


REMAINING = {"Account"}
"""Class names that several files still have."""


def test_files_and_functions_stay_small() -> None:
    """No file passes 600 lines and no function 60: what grows is split."""
    assert [str(path) for path in FILES if shape(path).lines > 600] == []
    long = [(path, one) for path in FILES for one in shape(path).functions]
    assert [found for found in long if found[1][0] > 60] == []


@pytest.mark.slow
def test_every_locked_dependency_is_imported_by_the_product() -> None:
    """What is installed to run AgentVault is what AgentVault imports."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    wanted = {
        re.split(r"[^\w.-]", one)[0].lower()
        for one in project["project"]["dependencies"]
    }
    imported = set()
    for path in FILES:
        named = [*shape(path).modules, *(module for module, _ in shape(path).taken)]
        imported |= {name.split(".")[0] for name in named}
    installed = packages_distributions()
    used = {name.lower() for one in imported for name in installed.get(one, [])}
    assert sorted(wanted - used) == []


@pytest.mark.slow
def test_every_module_says_its_reason() -> None:
    """Each module opens with a docstring: the one reason it exists."""
    silent = [path for path in FILES if not shape(path).documented]
    assert silent == []


@pytest.mark.slow
def test_class_names_are_unique() -> None:
    """A class name means one class; `REMAINING` shrinks and never grows."""
    found: dict[str, list[str]] = {}
    for path in FILES:
        for name in shape(path).classes:
            found.setdefault(name, []).append(path.stem)
    several = {name for name, where in found.items() if len(where) > 1}
    assert sorted(several - REMAINING) == [], "a second class of a name"


@pytest.mark.slow
def test_no_modules_import_each_other_in_a_circle() -> None:
    """Modules can be read, and loaded, one after the other."""
    modules = {}
    for path in FILES:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        modules[".".join(parts).removesuffix(".__init__")] = path
    imports: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        imports[name].update(shape(path).modules)
        for module, names in shape(path).taken:
            below = {f"{module}.{one}" for one in names}
            imports[name] |= (below & modules.keys()) or {module}
        imports[name] &= modules.keys() - {name}
    order = list(TopologicalSorter(imports).static_order())  # CycleError: the circle
    assert set(order) == set(modules)


@pytest.mark.slow
def test_functions_at_a_rooms_door_are_documented_whole() -> None:
    """What others may call says its arguments, its result and its errors."""
    for door in (path for path in FILES if path.name == "__init__.py"):
        room = ".".join(door.parent.relative_to(PACKAGE.parent).parts)
        exported = importlib.import_module(room)
        for name in getattr(exported, "__all__", []):
            function = getattr(exported, name)
            if inspect.isfunction(function):
                assert_documented_whole(function)


def assert_documented_whole(function: Callable[..., object]) -> None:
    node = ast.parse(inspect.getsource(function)).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    text, name = inspect.getdoc(function) or "", function.__name__
    signature = inspect.signature(function)
    if signature.parameters:
        assert "Args:\n" in text, f"{name} does not say what it takes"
    if signature.return_annotation not in {"None", "NoReturn"}:
        assert "Returns:\n" in text, f"{name} does not say what it returns"
    if any(isinstance(inner, ast.Raise) and inner.exc for inner in ast.walk(node)):
        assert "Raises:\n" in text, f"{name} does not say what it raises"


HANDLERS = [
    path
    for room in ("broker/agents_api", "broker/operators_api", "gateway")
    for path in sorted((PACKAGE / room).glob("*.py"))
]


@pytest.mark.slow
def test_use_cases_that_handlers_call_are_documented_whole() -> None:
    """What an HTTP handler takes from `broker/usecases` says Args, Returns, Raises."""
    for node in (one for path in HANDLERS for one in ast.walk(_tree(path))):
        if isinstance(node, ast.ImportFrom) and ".usecases." in (node.module or ""):
            module = importlib.import_module(node.module or "")
            for one in node.names:
                if inspect.isfunction(found := getattr(module, one.name)):
                    assert_documented_whole(found)


@pytest.mark.slow
def test_handlers_of_the_operators_api_say_what_they_do() -> None:
    """Each has a docstring, and one that refuses a request itself says with what."""
    paths = sorted(PACKAGE.glob("broker/operators_api/*.py"))
    for node in (one for path in paths for one in ast.walk(_tree(path))):
        if not isinstance(node, ast.AsyncFunctionDef):
            continue
        named = [ast.unparse(a.annotation) for a in node.args.args if a.annotation]
        if named != ["Request"] or node.name == "endpoint":
            continue
        text = ast.get_docstring(node) or ""
        assert text, f"{node.name} has no docstring"
        if any(isinstance(one, ast.Raise) for one in ast.walk(node)):
            assert "Raises:\n" in text, node.name


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


TESTS = Path(__file__).parent


BY_SUBJECT = {
    "vault/provision/test_command.py": "cli/auth0.py, with the doubles of this folder",
    "vault/provision/test_served.py": "cli/auth0.py, with the doubles of this folder",
}
"""Test files whose name leads to no module, and what they are about."""

WITHOUT = {
    "broker": 35,
    "gateway": 20,
    "ledger": 16,
    "model": 10,
    "operator_api": 14,
    "policy": 2,
    "tenant": 8,
    "vault": 7,
    "watch": 4,
    "web": 4,
}
"""How many modules of a room have no test file of their own: it shrinks, never grows.

Those of `model` and `operator_api` declare what others fill and read; the rest are
held by the tests of the modules that use them.
"""


@pytest.mark.parametrize("room", sorted(WITHOUT))
def test_tests_mirror_their_room_file_by_file(room: str) -> None:
    """A test file is named after a module: test_MODULE.py or test_MODULE_ASPECT.py.

    The module may be a package. `WITHOUT` bounds the modules that have no test file.
    """
    stray, held = [], set()
    for path in sorted((TESTS / room).rglob("test_*.py")):
        mirrored = PACKAGE / path.relative_to(TESTS).parent
        words = path.stem.removeprefix("test_").split("_")
        names = ["_".join(words[:n]) for n in range(len(words), 0, -1)]
        known = {one.stem for one in mirrored.glob("[!_]*")} | {mirrored.stem}
        held |= {mirrored / f"{one}.py" for one in names if one in known}
        if not known & set(names):
            stray.append(str(path.relative_to(TESTS)))
    assert [one for one in stray if one not in BY_SUBJECT] == []
    modules = {*(PACKAGE / room).rglob("[!_]*.py")}
    assert len(modules - held) <= WITHOUT[room], sorted(modules - held)


def test_the_map_has_every_room_and_ground_floor_module() -> None:
    """CONTRIBUTING's map names whatever lies right in the package, and nothing else."""
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    drawn = re.findall(r"^  ([a-z_]+(?:/|\.py)) ", text, re.MULTILINE)
    there = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in PACKAGE.iterdir()
        if (path / "__init__.py").exists() or path.suffix == ".py"
    ]
    assert sorted(drawn) == sorted(set(there) - {"__init__.py"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        # httpx brings rich along for a command line of its own; nothing of ours does.
        ("agentvault_tui.broker.serve", ["textual", "agentvault_tui.console"]),
        ("agentvault_tui.ledger", ["textual", "rich", "agentvault_tui.broker"]),
        ("agentvault_tui.policy", ["textual", "rich", "agentvault_tui.broker"]),
        ("agentvault_tui.tenant", ["textual", "rich", "agentvault_tui.broker"]),
        (
            "agentvault_tui.console",
            ["authlib", "aiosqlite", "cedarpy", "agentvault_tui.broker"],
        ),
        # What the first frame does without; `bench/console.py` has what it takes.
        (
            "agentvault_tui.console.app",
            [
                *("http.client", "email", "httpx", "zoneinfo"),
                *("agentvault_tui.settings", "agentvault_tui.model.stepup"),
                "agentvault_tui.console.dialogs.base",
            ],
        ),
        ("agentvault_tui.cli", ["textual", "httpx", "aiosqlite", "cedarpy"]),
        ("agentvault_tui.demo", ["textual", "agentvault_tui.broker"]),
    ],
)
def test_rooms_load_without_their_neighbours(module: str, forbidden: list[str]) -> None:
    """At run time, too, importing a room brings in none of the forbidden ones."""
    code = (
        f"import sys, {module}; "
        f"print(sorted(m for m in {forbidden!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_error_tree_is_drawn_as_it_is() -> None:
    """The tree in the docstring of errors.py names every class, at its depth."""
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        stripped = line.lstrip()
        if stripped.startswith("* "):
            drawn[stripped[2:].split()[0]] = (len(line) - len(stripped)) // 2
    found = {}
    pending = [(errors.AgentVaultError, 0)]
    while pending:
        kind, depth = pending.pop()
        found[kind.__name__] = depth
        pending += [
            (sub, depth + 1)
            for sub in kind.__subclasses__()
            if sub.__module__ == errors.__name__
        ]
    assert found == drawn
