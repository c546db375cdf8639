"""The tools of the tests. usage: server.py fastmcp|mcp PORT

The server of mcp ends a session after two idle seconds; its default is 30 minutes.
"""

import asyncio
import sys
from typing import Any

from mcp.types import SamplingMessage, TextContent

kind, port = sys.argv[1], int(sys.argv[2])

if kind == "fastmcp":
    from fastmcp import Context, FastMCP

    server = FastMCP("tools")
    tool = server.tool
else:
    from mcp.server.fastmcp import Context, FastMCP

    server = FastMCP("tools", host="127.0.0.1", port=port, session_idle_timeout=2)
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


@tool
async def roots(ctx: Context) -> str:
    found = await ctx.session.list_roots()
    return f"{len(found.roots)} roots"


@tool
async def sample(ctx: Context) -> str:
    question = SamplingMessage(role="user", content=TextContent(type="text", text="hi"))
    return repr(await ctx.session.create_message(messages=[question], max_tokens=10))


if kind == "fastmcp":
    server.run(transport="http", host="127.0.0.1", port=port)
else:
    server.run(transport="streamable-http")
