"""Starts a command that reaches AgentVault and nothing else (docs/confine.md)."""

from agentvault_tui.confine.attempts import MOST_DESTINATIONS, AttemptLog, ReachAttempt
from agentvault_tui.confine.bubblewrap import PROGRAM_FOLDERS
from agentvault_tui.confine.command import (
    ConfinedCommand,
    confined_command,
    watches_attempts,
)
from agentvault_tui.confine.landlock import Restriction
from agentvault_tui.confine.layers import Layers, Means, find_layers, find_strongest
from agentvault_tui.confine.left_behind import find_left
from agentvault_tui.confine.network import Endpoint
from agentvault_tui.confine.paths import lies_in, write_unlinked
from agentvault_tui.confine.runtime import find_program
from agentvault_tui.confine.seatbelt import PROGRAM as SANDBOX_EXEC
from agentvault_tui.confine.seatbelt import build_profile
from agentvault_tui.confine.stand_ins import list_left, remove_stand_in
from agentvault_tui.confine.syscalls import build_filter
from agentvault_tui.confine.view import (
    View,
    ViewOptions,
    build_view,
    check_unlinked,
    remember_given,
)

__all__ = [
    "MOST_DESTINATIONS",
    "PROGRAM_FOLDERS",
    "SANDBOX_EXEC",
    "AttemptLog",
    "ConfinedCommand",
    "Endpoint",
    "Layers",
    "Means",
    "ReachAttempt",
    "Restriction",
    "View",
    "ViewOptions",
    "build_filter",
    "build_profile",
    "build_view",
    "check_unlinked",
    "confined_command",
    "find_layers",
    "find_left",
    "find_program",
    "find_strongest",
    "lies_in",
    "list_left",
    "remember_given",
    "remove_stand_in",
    "watches_attempts",
    "write_unlinked",
]
