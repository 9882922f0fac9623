"""Files that a command made and that programs outside obey by themselves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agentvault_tui.confine.paths import lies_in
from agentvault_tui.confine.protected import is_git, is_obeyed
from agentvault_tui.confine.search import search
from agentvault_tui.confine.view import View
from agentvault_tui.errors import NotConfinedError

_MOST_NAMED: Final = 20
_SYSTEM: Final = tuple(map(Path, ("/usr", "/bin", "/lib", "/lib64")))


@dataclass(slots=True)
class LeftBehind:
    """Paths that a command made in its folders."""

    repositories: set[Path] = field(default_factory=set)
    """Git's own folders, and files ``.git``."""
    links: set[Path] = field(default_factory=set)
    """Symbolic links that lead out: a program that writes there writes elsewhere."""
    obeyed: set[Path] = field(default_factory=set)
    """Files that editors, shells and git's hooks read by themselves."""

    unsearched: list[NotConfinedError] = field(default_factory=list)
    """Why folders could not be searched: they may hold any of these."""

    def lines(self) -> list[str]:
        """Return a line for a person about each kind that is there."""
        lines = [
            f"the command may have made repositories: {error.diagnosis()}"
            for error in self.unsearched[:_MOST_NAMED]
        ]
        if (more := len(self.unsearched) - _MOST_NAMED) > 0:
            lines.append(f"{more} more folders cannot be searched")
        if self.repositories:
            lines.append(
                "before you use git or an editor here, look at the configuration and"
                f" hooks of the repositories that the command made: "
                f"{_listed(self.repositories)}"
            )
        if self.links:
            lines.append(
                "the command made links that lead out of its folders, and a program"
                f" that writes there writes elsewhere: {_listed(self.links)}"
            )
        if self.obeyed:
            lines.append(
                "the command made files that shells, editors and hooks of git read by"
                f" themselves: {_listed(self.obeyed)}"
            )
        return lines


def find_left(view: View) -> LeftBehind:
    """Find the files that a command has made since its view was built.

    Args:
        view: the command's files.

    Returns:
        those that programs outside obey.
    """
    protection, left = view.protection, LeftBehind()
    before = {*protection.git, *protection.missing, *protection.read_only}
    given = [*view.write, view.home, *view.read, *view.runtime]
    for top in view.write:
        for entries in search(top, failed=left.unsearched):
            path, names = entries.path, entries.names
            if is_git(path, names):
                left.repositories.add(path)
            if ".git" in names:
                left.repositories.add(path / ".git")
            if path == top or ".git" in names:
                left.obeyed |= {path / name for name in names if is_obeyed(name)}
            left.links |= {
                link
                for name, text in entries.links.items()
                if protection.links.get(link := path / name) != text
                and _leads_out(link, given)
            }
    left.repositories -= before
    left.obeyed -= before
    return left


def _leads_out(link: Path, given: Sequence[Path]) -> bool:
    """Check whether a program that writes to a link may write outside of *given*.

    Git has no links in its own folder, and writes there by itself.
    """
    real = Path(os.path.realpath(link))
    if ".git" in link.parts:
        return True
    # An environment of Python leads to a program of the system.
    return not lies_in(real, given) and not (lies_in(real, _SYSTEM) and real.exists())


def _listed(paths: set[Path]) -> str:
    first: Sequence[Path] = sorted(paths)[:_MOST_NAMED]
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return ", ".join(map(str, first)) + more
