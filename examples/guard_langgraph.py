"""A LangGraph agent whose tools ask AgentVault before they run."""

from __future__ import annotations

from typing import Any

from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from agentvault_tui.agent import guard


@tool
@guard("read:files", resource="file:{path}", on_refusal=str)
def read(path: str) -> str:
    """Read a file."""
    return f"contents of {path}"


@tool
@guard("send:payment", resource="stripe:{to}", on_refusal=str)
async def pay(to: str, amount: int, currency: str) -> str:
    """Pay an amount in the smallest unit of its currency."""
    return f"paid {amount} {currency} to {to}"


def build(model: Any) -> Any:
    """Return the agent; *model* is a chat model that knows the tools.

    For example ``init_chat_model("claude-sonnet-5").bind_tools([read, pay])``.
    """

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", think)
    graph.add_node("tools", ToolNode([read, pay]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()
