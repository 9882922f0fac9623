"""What the pictures share: the pilot waits until the console has nothing left to do."""

from __future__ import annotations

from support import idle

idle.install()
