"""The Actions that ship with AgentVault, as files of JavaScript."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

RUNTIME: Final = "node22"
LOGIN: Final = "post-login"
_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Script:
    """One Action: its name on the tenant, and its file."""

    name: str
    key: str
    """In our addresses."""
    path: Path
    trigger: str = LOGIN
    version: str = "v3"
    """Of the trigger."""

    @property
    def code(self) -> str:
        """The JavaScript as it is sent."""
        return self.path.read_text(encoding="utf-8")


CHALLENGE: Final = Script(
    "AgentVault step-up challenge", "challenge", _FOLDER / "step-up-challenge.js"
)
PROOF: Final = Script("AgentVault step-up proof", "proof", _FOLDER / "step-up-proof.js")
TOKEN_LIMITS: Final = Script(
    "AgentVault token limits",
    "token-limits",
    _FOLDER / "token-limits.js",
    "credentials-exchange",
    "v2",
)
"""For applications of one's own; bound where ``--token-limits`` asks for it."""
IN_ORDER: Final = (CHALLENGE, PROOF)
"""The required order of bindings: the proof looks at the challenge's result."""
BY_KEY: Final = {one.key: one for one in (*IN_ORDER, TOKEN_LIMITS)}
