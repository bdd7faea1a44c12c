"""An MCP server with three tools, and a client that calls them side by side. Nothing here knows of otel-progress.

    otel-progress run -f -- python examples/integrations/mcp_tools.py

Needs `pip install mcp`. With --hang one of the tools never returns: after two minutes it is stuck, with its line.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from mcp import Client
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("library")


@server.tool()
async def index(shelves: int, ctx: Context) -> str:
    """Index some shelves, and report each."""
    for shelf in range(1, shelves + 1):
        await asyncio.sleep(0.1)
        await ctx.report_progress(shelf, shelves, f"shelf {shelf}")
    return f"{shelves} shelves"


@server.tool()
def scan(pages: int, hang: bool = False) -> str:
    """Scan some pages, in a thread, and say nothing meanwhile."""
    for _ in range(pages):
        time.sleep(0.1)
    while hang:
        time.sleep(3600)
    return f"{pages} pages"


@server.tool()
async def borrow(book: str) -> str:
    """Fail."""
    raise LookupError(f"{book} is lent")


async def main(hang: bool) -> None:
    async with Client(server) as client:
        calls = (
            client.call_tool("index", {"shelves": 10}),
            client.call_tool("scan", {"pages": 10, "hang": hang}),
            client.call_tool("borrow", {"book": "Dune"}),
        )
        for result in await asyncio.gather(*calls):
            print("failed" if result.is_error else "done", result.content[0].text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hang", action="store_true", help="let one of the tools hang")
    asyncio.run(main(parser.parse_args().hang))
