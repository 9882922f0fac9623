"""Resolve the paths that a call of an MCP server's tool states.

The files are those of the server, perhaps of another machine: a path is resolved as a
text, and links are not followed. A path that programs read in several ways may be any.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from typing import Final

from agentvault_tui.errors import ServiceError
from agentvault_tui.policy.resources import canonical
from agentvault_tui.text import visible

ANY: Final = "/"
"""The root folder with everything below it."""
MOST_PATHS: Final = 64
MOST_CHARACTERS: Final = 8_192
"""Of all paths of a call: checking so many takes some 5 ms of the event loop."""
_EXPANDED: Final = re.compile(r"[~$]|[^/]*:")
"""Beginnings that servers replace: a home directory, a variable, a drive or scheme."""
_TRIMMED: Final = "\"'` "
"""Servers remove these at both ends, as mcp-server-filesystem does."""


def check_root(root: str) -> None:
    """Check the folder that relative paths start from; an empty one is unknown.

    Raises:
        ServiceError: it is no absolute path in canonical form.
    """
    if root and (resolve_path(root, "") != root or root.endswith("/")):
        raise ServiceError(
            f"root is '{visible(root, 60)}'",
            'write an absolute path without a slash at its end: root = "/srv/shared"',
        )


def resolve_path(stated: str, root: str) -> str | None:
    """Return the absolute path that a text states.

    Args:
        stated: the text; relative ones start at *root*.
        root: an absolute path, or empty.

    Returns:
        the path without ``.`` segments, with a slash at its end if the text has one;
        None if programs read it in several ways.
    """
    if stated.strip(_TRIMMED) != stated or not stated:
        return None
    if not stated.startswith("/"):
        if not root or _EXPANDED.match(stated):
            return None
        stated = f"{root}/{stated}"
    path = "/".join(part for part in stated.split("/") if part != ".") or ANY
    return path if canonical(f"file:{path}") else None


def reached_path(stated: Collection[str], root: str, *, recursive: bool) -> str:
    """Return the one path that includes everything that a call reaches.

    Args:
        stated: the paths of the call.
        root: see `resolve_path`.
        recursive: whether the call reaches what is below a folder.

    Returns:
        one path; for several the deepest folder that has all of them, with a slash at
        its end; `ANY` if there is none, or one is unclear.
    """
    paths: set[str] = set()
    for one in stated:
        path = resolve_path(one, root)
        if path is None:
            return ANY
        paths.add(path)
    if not paths:
        return ANY
    if len(paths) == 1 and not recursive:
        return paths.pop()
    return f"{posixpath.commonpath(paths).rstrip('/')}/"
