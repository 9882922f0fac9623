"""An agent of the OpenAI Agents SDK whose tools ask AgentVault before they run."""

from __future__ import annotations

from typing import Any

from agents import Agent, function_tool

from agentvault_tui.agent import guard


@function_tool
@guard("read:files", resource="file:{path}", on_refusal=str)
def read(path: str) -> str:
    """Read a file."""
    return f"contents of {path}"


@function_tool
@guard("send:payment", resource="stripe:{to}", on_refusal=str)
async def pay(to: str, amount: int, currency: str) -> str:
    """Pay an amount in the smallest unit of its currency."""
    return f"paid {amount} {currency} to {to}"


def build(model: Any) -> Agent[None]:
    """Return the agent; *model* is a model or the name of one."""
    return Agent(name="clerk", model=model, tools=[read, pay])
