"""Service files that ship with AgentVault; a user's home gets a copy to edit."""

from __future__ import annotations

import difflib
import re
from importlib import resources

from agentvault_tui.errors import NotFoundError
from agentvault_tui.gateway.services import origin_lines
from agentvault_tui.text import visible


def shipped_names() -> list[str]:
    """Return the names of the service files that ship with AgentVault.

    Returns:
        such as ``github``, in order.
    """
    return sorted(
        path.name.removesuffix(".toml")
        for path in resources.files(__package__).iterdir()
        if path.name.endswith(".toml")
    )


def shipped_file(name: str, origin: str | None) -> str:
    """Return a shipped service file.

    Args:
        name: one of `shipped_names`.
        origin: the replacement of its origin, if there is one.

    Returns:
        TOML.

    Raises:
        NotFoundError: there is none of that name.
        ServiceError: the origin is none.
    """
    names = shipped_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}" if near else f"shipped: {', '.join(names)}"
        raise NotFoundError(
            f"no service file called {visible(name, 60)} ships with AgentVault",
            f"{hint}; --openapi makes one of an OpenAPI document",
        )
    text = (resources.files(__package__) / f"{name}.toml").read_text("utf-8")
    if origin is not None:
        lines = "\n".join(origin_lines(origin))
        text = re.sub(r"(?m)^allow_(?:http|private) = .*\n", "", text)
        text = re.sub(
            r"^origin = .*$", lambda _: lines, text, count=1, flags=re.MULTILINE
        )
    return text
