"""Identifiers and bearer secrets: their form, and how they are made."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, NewType

AgentId = NewType("AgentId", str)
"""``agt_…``: one registered agent; also its OAuth ``client_id``."""
TokenId = NewType("TokenId", str)
"""``tok_…``: names a token without being able to use it."""
StepUpId = NewType("StepUpId", str)
"""``sup_…``: one request for a person; on the wire also the ``auth_req_id``."""
DecisionId = NewType("DecisionId", str)
"""``dec_…``: one answer of the broker, in reply and ledger alike."""

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter that reads as another."""
_DIGITS: Final = _ALPHABET.encode() * 8
"""The digit of each byte: of its five lowest bits."""


def new_id(prefix: str) -> str:
    """Return a fresh identifier with 80 random bits.

    Args:
        prefix: ``agt`` for example.

    Returns:
        the prefix, ``_`` and 16 characters.
    """
    return f"{prefix}_{secrets.token_bytes(16).translate(_DIGITS).decode()}"


def new_secret(prefix: str) -> str:
    """Return a fresh bearer secret with 256 random bits.

    Args:
        prefix: ``av_t`` for example.

    Returns:
        the prefix, ``_`` and 43 characters.
    """
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def sha256_hex(secret: str) -> str:
    """Return how a secret is stored: it has 256 bits, so a plain hash is enough.

    Args:
        secret: a token or client secret.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


_PASSED_ON: Final = ">"


def requester_of(agent_id: AgentId, chain: tuple[AgentId, ...]) -> str:
    """Return the requester that refusals and step-ups count for.

    Args:
        agent_id: the holder of the token.
        chain: agents that passed it on, in order (RFC 8693).

    Returns:
        the agent's id; for a passed-on token the ids of its chain. Agents above the
        holder can use such a token too, so its use must not count for the holder.
    """
    return _PASSED_ON.join((*chain, agent_id))


def holder_of(requester: str) -> AgentId:
    """Return the agent that holds the token of a requester."""
    return AgentId(requester.rpartition(_PASSED_ON)[2])
