"""What a local user is called."""

from __future__ import annotations

import pwd


def user_name(uid: int) -> str:
    """Return the name of a local user, or ``uid N`` where the system knows none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
