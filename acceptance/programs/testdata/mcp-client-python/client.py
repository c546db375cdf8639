"""A client of the door for MCP. Arguments: mcp or fastmcp, the address, and auto or legacy. The token is in TOKEN.

It prints one line of JSON with what it saw, and reads the id of the run that it cancels from its input.
"""

import asyncio
import json
import os
import sys

kind, url, mode = sys.argv[1:]
asked = []


async def scenario(list_tools, call):
    out = {"tools": await list_tools()}
    first, text = await call("assistant", {"message": "hello"})
    out["answer"], out["session"] = text, first["session_id"]
    paused, _ = await call("assistant", {"message": "pay"})
    out["paid"] = paused["status"]
    if out["paid"] == "paused":
        decisions = [{"tool_call_id": c["tool_call_id"], "decision": "approve"} for c in paused["tool_calls"]]
        continued, _ = await call("continue_run", {"run_id": paused["run_id"], "decisions": decisions})
        out["paid"] = "paused, then " + continued["status"]
    out["asked"] = asked
    begun = asyncio.create_task(call("assistant", {"message": "wait", "session_id": "waiting"}))
    run = (await asyncio.to_thread(sys.stdin.readline)).strip()
    await call("cancel_run", {"run_id": run})
    out["cancelled"] = (await begun)[0]["status"]
    out["fetched"] = (await call("get_run", {"run_id": run}))[0]["status"]
    try:
        await call("finance", {"message": "hello"})
    except Exception as e:
        out["refused"] = f"{type(e).__name__}: {e}"
    print(json.dumps(out))


async def with_mcp():
    import httpx2 as httpx
    from mcp.client import Client
    from mcp.client.streamable_http import streamable_http_client
    from mcp_types import ElicitResult

    async def elicit(context, params):
        asked.append(params.message)
        return ElicitResult(action="accept", content={"approve": True})

    headers = {"Authorization": "Bearer " + os.environ["TOKEN"]}
    async with httpx.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, elicitation_callback=elicit) as client:

            async def call(name, arguments):
                result = await client.call_tool(name, arguments)
                return result.structured_content, result.content[0].text

            async def list_tools():
                return [t.name for t in (await client.list_tools()).tools]

            await scenario(list_tools, call)


async def with_fastmcp():
    from fastmcp import Client

    async def elicit(message, response_type, params, context):
        asked.append(message)
        return {"approve": True}

    async with Client(url, auth=os.environ["TOKEN"], elicitation_handler=elicit) as client:

        async def call(name, arguments):
            result = await client.call_tool(name, arguments, raise_on_error=False)
            return result.structured_content, result.content[0].text

        async def list_tools():
            return [t.name for t in await client.list_tools()]

        await scenario(list_tools, call)


asyncio.run(with_mcp() if kind == "mcp" else with_fastmcp())
