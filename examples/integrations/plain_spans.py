"""An agent as any instrumentation reports it, in plain OpenTelemetry: no line of it is ours, and one tool hangs.

    otel-progress run -f -- python examples/integrations/plain_spans.py

shows the agent, its tools and its model's calls while they run. With OTEL_PROGRESS_STALL_AFTER=5 the tool that hangs is
reported after 5 s, with its line.
"""

from __future__ import annotations

import asyncio
import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

HANG = float(os.environ.get("HANG", "20"))
"""Seconds for which one of the tools does nothing."""

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("my.agents")


async def model(prompt: str) -> str:
    with tracer.start_as_current_span("chat m1", attributes={"gen_ai.operation.name": "chat"}) as span:
        await asyncio.sleep(min(1.0, HANG))
        span.set_attribute("gen_ai.usage.input_tokens", len(prompt))
        return prompt.upper()


async def tool(name: str, seconds: float) -> str:
    with tracer.start_as_current_span(f"execute_tool {name}", attributes={"gen_ai.operation.name": "execute_tool"}):
        await asyncio.sleep(seconds)
        return name


async def main() -> None:
    with tracer.start_as_current_span("invoke_agent writer", attributes={"gen_ai.operation.name": "invoke_agent"}):
        await model("what is there to do?")
        found = await asyncio.gather(tool("search", 0.1), tool("weather", HANG))
        print(await model(" and ".join(found)))


asyncio.run(main())
