"""The room's one door, and what may be behind it."""

import ast
from pathlib import Path

import pytest

from agentvault_tui import vault

ROOM = Path(vault.__file__).parent
FILES = sorted(ROOM.rglob("*.py"))
NEIGHBOURS = {
    *("model", "text", "clock", "encoder", "errors", "strict_json", "vault"),
    "__version__",
}  # fmt: skip


def imported(file: Path) -> set[str]:
    """Return the modules that *file* imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_vault_exports_what_exists() -> None:
    """`__all__` is true: each name once, and all that the room's face imports."""
    tree = ast.parse((ROOM / "__init__.py").read_text())
    names = [
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(vault.__all__) == sorted(names)


@pytest.mark.slow
def test_only_wire_imports_httpx() -> None:
    """One file sends bytes; all others are about what they mean."""
    knowing = {
        file.name
        for file in FILES
        if any(name.split(".")[0] == "httpx" for name in imported(file))
    }
    assert knowing == {"wire.py"}


def test_vault_imports_nothing_above_it() -> None:
    """It imports nothing of ours but those; one file seals secrets in the home."""
    for file in FILES:
        rooms = {
            name.split(".")[1]
            for name in imported(file)
            if name.split(".")[0] == "agentvault_tui"
        }
        own = file.name == "kept_clients.py"
        more = {"home", "sealing", "trusted_files"} if own else set()
        assert rooms <= NEIGHBOURS | more, file.name


@pytest.mark.slow
def test_no_module_branches_on_the_product() -> None:
    """No line of code compares an issuer or a name with Auth0's."""
    asking = [
        node
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Compare)
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and "auth0" in str(part.value).lower()
    ]
    assert asking == []
