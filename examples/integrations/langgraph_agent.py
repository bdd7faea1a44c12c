"""A LangGraph agent that calls two tools at once; one of them asks a server that never answers.

Nothing here is about otel-progress. It needs `langchain`, and no key: the model plays a script.

    otel-progress run -f -- python examples/integrations/langgraph_agent.py
"""

from __future__ import annotations

import argparse
import time

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool


class Model(GenericFakeChatModel):
    """A model that gives prepared answers."""

    def bind_tools(self, tools, **options):
        return self


@tool
def population(city: str) -> int:
    """How many people live in a city."""
    return {"Rome": 2_750_000, "Oslo": 720_000}[city]


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    time.sleep(seconds)  # a server that does not answer
    return "sunny"


parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=300, help="how long the weather takes")
seconds = parser.parse_args().seconds
both = AIMessage(
    "",
    tool_calls=[
        {"name": "population", "args": {"city": "Rome"}, "id": "1"},
        {"name": "weather", "args": {"city": "Rome"}, "id": "2"},
    ],
)
agent = create_agent(Model(messages=iter([both, AIMessage("It is sunny.")])), [population, weather], name="guide")
print(agent.invoke({"messages": [("user", "Tell me about Rome.")]})["messages"][-1].content)
