"""What the command line imports when a command runs is there, by name."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentvault_tui import cli

FILES = sorted(Path(cli.__file__).parent.glob("*.py"))


def room_of(node: ast.expr) -> str | None:
    """Return the module that ``lazy_room("…")`` names, if *node* is such a call."""
    match node:
        case ast.Call(func=ast.Name("lazy_room"), args=[ast.Constant(str(module))]):
            return f"agentvault_tui.{module}"
    return None


def assigned(function: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the variables that hold a module, and which."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            for name, found in pairs:
                if isinstance(name, ast.Name) and (module := room_of(found)):
                    yield name.id, module


def lazy_names(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each module and attribute that *path* takes from it at run time."""
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        held = dict(assigned(function))
        for node in ast.walk(function):
            match node:
                case ast.Attribute(ast.Name(name), attribute) if name in held:
                    yield held[name], attribute
                case ast.Attribute(value, attribute) if module := room_of(value):
                    yield module, attribute
                case ast.Call(
                    func=ast.Name("lazily"),
                    args=[ast.Constant(str(module)), ast.Constant(str(attribute))],
                ):
                    yield module, attribute


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_a_command_imports_when_it_runs_exists(path: Path) -> None:
    """No type checker sees through these imports, so this does."""
    missing = [
        f"{module}.{attribute}"
        for module, attribute in {*lazy_names(path)}
        if not hasattr(importlib.import_module(module), attribute)
    ]
    assert missing == []
