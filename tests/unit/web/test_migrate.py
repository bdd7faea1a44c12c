"""The pair of docs/migrate.md that needs a client: an emitter by hand, and the application that replaces it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from web_parts import Client, until

PAGE = Path(__file__).parents[3] / "docs" / "migrate.md"


def test_the_application_tells_what_an_emitter_told() -> None:
    """Who asks for the operation hears the status and percentage that the emitter of the page sent last."""
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "Emitter" in block)
    names: dict[str, Any] = {}
    exec(code, names)
    client = Client(names["app"])

    async def row() -> Any:
        answer = await client.ask("/operations/import-7")
        return answer.json if answer.status == 200 and answer.json["status"] == "completed" else None

    found = asyncio.run(until(row))
    assert {"status": found["status"], "percentage": found["percentage"]} == names["by_hand"].sent[-1]
