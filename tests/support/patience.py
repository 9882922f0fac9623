"""How long a test waits for what must come: longer than any loaded machine takes.

It costs nothing where the thing comes, and a test has two minutes in all.
"""

from __future__ import annotations

from typing import Final

PATIENT: Final = 60.0
"""Seconds."""
