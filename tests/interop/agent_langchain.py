"""An agent on auth0-ai-langchain as it comes: reads a tool's name a line, runs it.

LangGraph's own node calls the tools; what stands in for a model wants the one named.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from auth0_ai_langchain.async_authorization import get_async_authorization_credentials
from auth0_ai_langchain.auth0_ai import Auth0AI
from auth0_ai_langchain.token_vault import get_access_token_from_token_vault
from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

ai = Auth0AI(
    {
        "domain": os.environ["AUTH0_DOMAIN"],
        "client_id": os.environ["AUTH0_CLIENT_ID"],
        "client_secret": os.environ["AUTH0_CLIENT_SECRET"],
        "protocol": "http",
    }
)


def calendar() -> Any:
    """Look into the calendar."""
    return get_access_token_from_token_vault()


def pay() -> Any:
    """Pay."""
    credentials = get_async_authorization_credentials()
    return credentials and credentials["access_token"]


vaulted = ai.with_token_vault(
    connection="google-oauth2", scopes=["https://www.googleapis.com/auth/calendar"]
)
asking = ai.with_async_authorization(
    scopes=["send:payment"], binding_message="Pay #1", user_id="auth0|ursula"
)
TOOLS = [
    vaulted(StructuredTool.from_function(calendar)),
    asking(StructuredTool.from_function(pay)),
]


def graph() -> Any:
    made = StateGraph(MessagesState)
    made.add_node("tools", ToolNode(TOOLS, handle_tool_errors=False))
    made.add_edge(START, "tools")
    made.add_edge("tools", END)
    return made.compile(checkpointer=MemorySaver())


def told(state: dict[str, Any]) -> dict[str, Any]:
    """Say what a run ended with: an interrupt of Auth0's, or what the tool returned."""
    for interrupt in state.get("__interrupt__", ()):
        said = interrupt.value
        return {
            "interrupt": said["name"],
            "code": said["code"],
            "message": said["message"],
        }
    return {"result": state["messages"][-1].content}


async def main() -> None:
    runs = graph()
    for line in sys.stdin:
        # One thread and call for each tool: what was interrupted is taken up again.
        call = {"name": line.strip(), "args": {}, "id": line.strip()}
        config = {
            "configurable": {
                "thread_id": line.strip(),
                "_credentials": {"refresh_token": "the agent has none that counts"},
            }
        }
        message = AIMessage(content="", tool_calls=[call])
        state = await runs.ainvoke({"messages": [message]}, config)
        print(json.dumps(told(state)), flush=True)


asyncio.run(main())
