"""An agent of the OpenAI Agents SDK that calls two tools at once; one of them asks a server that never answers.

Nothing here is about otel-progress. It needs `openai-agents`, and no key: the model plays a script.

    otel-progress run -f -- python examples/integrations/openai_agents_tools.py
"""

from __future__ import annotations

import argparse
import time

from agents import Agent, Runner, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call


@function_tool
def population(city: str) -> int:
    """How many people live in a city."""
    return {"Rome": 2_750_000, "Oslo": 720_000}[city]


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    time.sleep(seconds)  # a server that does not answer
    return "sunny"


parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=300, help="how long the weather takes")
seconds = parser.parse_args().seconds
both = [function_call(name, {"city": "Rome"}, call_id=name) for name in ("population", "weather")]
model = ScriptedModel([both, [assistant_message("It is sunny.")]], emit_traces=True)
print(Runner.run_sync(Agent("guide", model=model, tools=[population, weather]), "Tell me about Rome.").final_output)
