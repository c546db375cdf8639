"""The tools of the tests. usage: server.py fastmcp|mcp PORT"""

import asyncio
import sys
from typing import Any

kind, port = sys.argv[1], int(sys.argv[2])

if kind == "fastmcp":
    from fastmcp import Context, FastMCP

    server = FastMCP("tools")
    tool = server.tool
else:
    from mcp.server.mcpserver import Context, MCPServer

    server = MCPServer("tools")
    tool = server.tool()


@tool
def echo(text: str) -> str:
    return text


@tool
def order() -> dict[str, Any]:
    return {"order_id": 9007199254740993}


@tool
def number(n: int) -> str:
    return f"n is {n}"


@tool
def raises() -> str:
    raise ValueError("the kettle is empty")


@tool
async def slow(ctx: Context) -> str:
    for i in range(10):
        await ctx.report_progress(i, 10)
        await asyncio.sleep(0.25)
    return "slow but done"


if kind == "fastmcp":
    server.run(transport="http", host="127.0.0.1", port=port)
else:
    server.run(transport="streamable-http", host="127.0.0.1", port=port)
