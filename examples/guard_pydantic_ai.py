"""A Pydantic AI agent whose tools ask AgentVault before they run."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent

from agentvault_tui.agent import guard


@guard("read:files", resource="file:{path}", on_refusal=str)
def read(path: str) -> str:
    """Read a file."""
    return f"contents of {path}"


@guard("send:payment", resource="stripe:{to}", on_refusal=str)
async def pay(to: str, amount: int, currency: str) -> str:
    """Pay an amount in the smallest unit of its currency."""
    return f"paid {amount} {currency} to {to}"


def build(model: Any) -> Agent[None, str]:
    """Return the agent; *model* is a model or the name of one."""
    return Agent(model, tools=[read, pay])
