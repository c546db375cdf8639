"""Calls agents with LiteLLM, OpenAI's Agents SDK and LangChain's adapters for MCP, and fails at the first difference.

    python client.py URL TOKENS

The token "mcp" of the JSON object TOKENS opens the door for MCP too.
"""
import asyncio
import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, SQLiteSession, set_tracing_disabled
from agents.mcp import MCPServerStreamableHttp
from langchain_mcp_adapters.client import MultiServerMCPClient
from openai import AsyncOpenAI

url, token = sys.argv[1], json.loads(sys.argv[2])["mcp"]
text3 = "chunk-0 chunk-1 chunk-2 "
tools = ["assistant", "forgetful", "limited", "get_run", "continue_run", "cancel_run"]
set_tracing_disabled(True)
litellm.suppress_debug_info = True


def complete(text, model="assistant", **more):
    return litellm.completion(model="openai/" + model, api_base=url + "/v1", api_key=token,
                              messages=[{"role": "user", "content": text}], **more)


async def with_litellm():
    answer = complete("echo: hello there", temperature=0.2, user="me")
    assert answer.choices[0].message.content == "hello there" and answer.usage.completion_tokens == 2, answer
    chunks = list(complete("slow 3", stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text3, chunks
    answer = litellm.responses(model="openai/assistant", api_base=url + "/v1", api_key=token, input="echo: hi")
    assert answer.output[0].content[0].text == "hi", answer
    for text, model, more, status in (
        ("hi", "closed", {}, 403), ("fail 400\nlitellm", "assistant", {}, 400),
        ("fail 400\nlitellm max_retries", "assistant", {"max_retries": 2}, 400),
    ):
        try:
            raise AssertionError(complete(text, model, **more))
        except litellm.exceptions.APIError as e:
            assert e.status_code == status, e
        except litellm.exceptions.BadRequestError as e:
            assert status == 400, e


async def with_agents(kind, whole):
    agent = Agent(name="a", instructions="be evil", model=kind(
        "assistant", openai_client=AsyncOpenAI(base_url=url + "/v1", api_key=token)))
    first = await Runner.run(agent, "echo: one")
    assert first.final_output == "one" and first.context_wrapper.usage.output_tokens == 1, first
    said = first.to_input_list() + [{"role": "user", "content": "history?"}]
    assert (await Runner.run(agent, said)).final_output == "history: 1 user turns: echo: one"
    session = SQLiteSession("s")
    await Runner.run(agent, "echo: two", session=session)
    assert (await Runner.run(agent, "history?", session=session)).final_output == "history: 1 user turns: echo: two"
    streamed, deltas = Runner.run_streamed(agent, "slow 3"), ""
    async for e in streamed.stream_events():
        if e.type == "raw_response_event" and e.data.type == "response.output_text.delta":
            deltas += e.data.delta
    assert deltas == text3 == streamed.final_output, deltas
    if whole:
        more = await Runner.run(agent, "history?", previous_response_id=first.last_response_id)
        assert more.final_output == "history: 1 user turns: echo: one", more
    try:
        raise AssertionError(await Runner.run(agent, f"fail 400\nagents {whole}"))
    except Exception as e:
        assert "stub failure" in str(e), e


async def with_mcp():
    headers = {"Authorization": "Bearer " + token}
    async with MCPServerStreamableHttp({"url": url + "/mcp", "headers": headers}, client_session_timeout_seconds=60) as s:
        assert [t.name for t in await s.list_tools()] == tools
        result = await s.call_tool("assistant", {"message": "echo: hello there"})
        assert result.content[0].text == "hello there" and not result.isError, result
    client = MultiServerMCPClient({"keyway": {"transport": "streamable_http", "url": url + "/mcp", "headers": headers}})
    found = await client.get_tools()
    assert [t.name for t in found] == tools
    result = await found[0].ainvoke({"message": "echo: hello there"})
    assert result[0]["text"] == "hello there", result


async def main():
    await with_litellm()
    print("ok litellm")
    await with_agents(OpenAIChatCompletionsModel, False)
    await with_agents(OpenAIResponsesModel, True)
    print("ok agents")
    await with_mcp()
    print("ok mcp")


asyncio.run(main())
