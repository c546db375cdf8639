"""Calls every method of agno.client.AgentOSClient 3.1.10 against a server and checks the results.

    KEYWAY_URL=http://127.0.0.1:7777 KEYWAY_TOKENS='{"ann": "...", "admin": "...", "reader": "..."}' python agent_os_client.py

agno_client_test.go starts the server: with keyway.yaml beside this file, and with a model that obeys
the commands in the message (modeltest.Commands) and sends only the first chunk of "slow".
"""
import asyncio
import json
import logging
import os
import sys
import traceback
from datetime import date, datetime, timedelta, timezone

import httpx
from agno.client import AgentOSClient
from agno.db.base import SessionType
from agno.media import Audio, File, Image, Video
from agno.utils import log

URL = os.environ["KEYWAY_URL"]
TOKENS = json.loads(os.environ["KEYWAY_TOKENS"])


def bearer(sub):
    return {"Authorization": "Bearer " + TOKENS[sub]}


ANN, ADMIN, READER = bearer("ann"), bearer("admin"), bearer("reader")
called = set()


class Client(AgentOSClient):
    """Records which methods were called."""

    def __getattribute__(self, name):
        if not name.startswith("_"):
            called.add(name)
        return super().__getattribute__(name)


class LoggedErrors(logging.Handler):
    """Collects errors: the client logs an event that it can't parse, and skips it."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.list = []

    def emit(self, record):
        self.list.append(record.getMessage())


client = Client(base_url=URL)


def equal(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


async def refused(status, call, detail=""):
    """Checks that the call fails with this status. Returns the error's body, or None for a stream, which the client closes unread."""
    try:
        answer = await call
    except httpx.HTTPStatusError as e:
        equal(e.response.status_code, status)
        try:
            body = e.response.json()
        except httpx.ResponseNotRead:
            return None
        assert detail in str(body["detail"]), body
        return body
    raise AssertionError(f"{answer!r} instead of {status}")


async def collect(stream):
    return [e async for e in stream]


def kinds(events):
    return [type(e).__name__ for e in events]


def answer_events(text):
    """Returns the events of an answer that ends the run: one content event to open it, then one for each word."""
    words = ["RunContentEvent"] * (1 + len(text.split()))
    return ["ModelRequestStartedEvent", *words, "ModelRequestCompletedEvent", "RunContentCompletedEvent", "RunCompletedEvent"]


async def paused(message, session):
    run = await client.run_agent("assistant", message, session_id=session, headers=ANN)
    assert run.is_paused, run.status
    equal(len(run.tools), 1)
    return run


# The OS and its agents


async def config_describes_the_os():
    for config in (client.get_config(headers=ANN), await client.aget_config(headers=ANN)):
        equal((config.os_id, config.name, config.description), ("clients", "Clients", "What foreign clients call"))
        equal(config.databases, ["keyway"])
        equal([a.id for a in config.agents], ["assistant", "plain"])
        equal((config.teams, config.workflows, config.interfaces), ([], [], []))
        equal([(m.id, m.provider) for m in config.available_models], [("gpt-4o", "OpenAI")])


async def agents_teams_and_workflows_are_listed():
    agents = await client.list_agents(headers=ANN)
    equal([(a.id, a.name, a.description) for a in agents], [("assistant", "Assistant", "Answers questions."), ("plain", "Plain", None)])
    equal([(a.db_id, a.model.provider) for a in agents], [("keyway", "OpenAI")] * 2)
    equal(await client.list_teams(headers=ANN), [])
    equal(await client.list_workflows(headers=ANN), [])


async def one_agent_is_shown():
    for agent in (client.get_agent("assistant", headers=ANN), await client.aget_agent("assistant", headers=ANN)):
        equal((agent.id, agent.name, agent.db_id), ("assistant", "Assistant", "keyway"))
        equal((agent.model.model, agent.model.provider), ("gpt-4o", "OpenAI"))


# Runs


async def a_run_is_answered():
    run = await client.run_agent(
        "assistant", "hello", session_id="plain-run", session_state={"seat": 7}, metadata={"from": "a test"}, headers=ANN
    )
    equal((run.content, run.status, run.agent_id, run.agent_name), ("stub: hello", "COMPLETED", "assistant", "Assistant"))
    equal((run.session_id, run.user_id, run.session_state), ("plain-run", "ann", {"seat": 7}))
    equal((run.metadata, run.input.input_content), ({"from": "a test"}, "hello"))
    equal((run.model, run.model_provider, run.metrics.total_tokens), ("gpt-4o", "OpenAI", 5))
    equal(
        [(m.role, m.content) for m in run.messages],
        [("system", "Answers questions."), ("user", "hello"), ("assistant", "stub: hello")],
    )


async def a_run_is_streamed():
    events = await collect(client.run_agent_stream("assistant", "hello", session_id="streamed", headers=ANN))
    equal(kinds(events), ["RunStartedEvent", *answer_events("stub: hello")])
    equal("".join(e.content or "" for e in events if type(e).__name__ == "RunContentEvent"), "stub: hello")
    last = events[-1]
    equal((last.content, last.metrics.total_tokens), ("stub: hello", 5))
    equal({(e.run_id, e.session_id, e.agent_id) for e in events}, {(last.run_id, "streamed", "assistant")})
    equal([e.event_index for e in events], list(range(len(events))))


async def line_ends_of_python_lose_no_event():
    text = "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i"
    events = await collect(client.run_agent_stream("assistant", text, session_id="lines", headers=ANN))
    equal([e.event_index for e in events], list(range(len(events))))
    equal(events[-1].content, "stub: " + text)


async def an_earlier_run_is_remembered():
    for message in ("first", "history?"):
        run = await client.run_agent("assistant", message, session_id="history", headers=ANN)
    equal(run.content, "history: 1 user turns: first")


async def a_tool_is_called():
    events = await collect(client.run_agent_stream("assistant", 'call tool look_up {"what": "tea"}', session_id="tools", headers=ANN))
    equal(
        kinds(events),
        [
            "RunStartedEvent",
            "ModelRequestStartedEvent",
            "RunContentEvent",
            "ModelRequestCompletedEvent",
            "ToolCallStartedEvent",
            "ToolCallCompletedEvent",
            *answer_events(events[-1].content),
        ],
    )
    begun, done = events[4], events[5]
    equal((begun.tool.tool_name, begun.tool.tool_args), ("look_up", {"what": "tea"}))
    equal((done.tool.result, done.tool.tool_call_error), ("tea, for ann", False))
    equal(events[-1].content, "tool look_up returned: tea, for ann")

    run = await client.run_agent("assistant", 'call tool look_up {"what": "milk"}', session_id="tools", headers=ANN)
    equal([(t.tool_name, t.tool_args, t.result) for t in run.tools], [("look_up", {"what": "milk"}, "milk, for ann")])
    equal((run.content, run.metrics.details["model"][0].total_tokens), ("tool look_up returned: milk, for ann", run.metrics.total_tokens))


async def a_confirmed_tool_is_called():
    run = await paused('call tool delete_account {"id": 1}', "confirmed")
    equal(run.content, "I have tools to execute, but I need confirmation.")
    equal(len(run.active_requirements), 1)
    waiting = run.active_requirements[0]
    assert waiting.needs_confirmation and not waiting.is_resolved(), waiting
    waiting.confirm()
    after = await client.continue_agent_run("assistant", run.run_id, [waiting.tool_execution], session_id="confirmed", headers=ANN)
    equal((after.status, after.content, after.run_id), ("COMPLETED", "tool delete_account returned: account 1 is gone", run.run_id))
    equal([(t.confirmed, t.result) for t in after.tools], [(True, "account 1 is gone")])
    await refused(
        409, client.continue_agent_run("assistant", run.run_id, run.tools, session_id="confirmed", headers=ANN), "run is completed"
    )


async def a_rejected_tool_is_not_called():
    run = await paused('call tool delete_account {"id": 2}', "rejected")
    run.tools[0].confirmed = False
    run.tools[0].confirmation_note = "keep it"
    events = await collect(
        client.continue_agent_run_stream("assistant", run.run_id, run.tools, session_id="rejected", headers=ANN)
    )
    equal(kinds(events), ["RunContinuedEvent", *answer_events(events[-1].content)])
    equal(events[-1].content, "tool delete_account returned: keep it")


async def a_streamed_run_pauses_and_continues():
    events = await collect(client.run_agent_stream("assistant", 'call tool delete_account {"id": 3}', session_id="paused-stream", headers=ANN))
    pause = events[-1]
    equal(kinds(events)[-2:], ["RunContentCompletedEvent", "RunPausedEvent"])
    equal([(t.tool_name, t.requires_confirmation) for t in pause.tools], [("delete_account", True)])
    pause.tools[0].confirmed = True
    after = await collect(
        client.continue_agent_run_stream("assistant", pause.run_id, pause.tools, session_id="paused-stream", headers=ANN)
    )
    equal(kinds(after), ["RunContinuedEvent", "ToolCallStartedEvent", "ToolCallCompletedEvent", *answer_events(after[-1].content)])
    equal(after[-1].content, "tool delete_account returned: account 3 is gone")
    equal([e.event_index for e in events + after], list(range(len(events + after))))


async def a_person_fills_in_arguments():
    run = await paused('call tool book {"film": "Vertigo"}', "filled-in")
    waiting = run.active_requirements[0]
    assert waiting.needs_user_input, waiting
    equal([(f.name, f.field_type, f.value) for f in waiting.user_input_schema], [("film", str, "Vertigo"), ("seats", int, None)])
    waiting.provide_user_input({"seats": 2})
    after = await client.continue_agent_run("assistant", run.run_id, [waiting.tool_execution], session_id="filled-in", headers=ANN)
    equal((after.status, after.content), ("COMPLETED", "tool book returned: 2 seats for Vertigo"))


async def a_person_does_the_work():
    run = await paused('call tool sign {"text": "yes"}', "external")
    equal(run.content, "I have tools to execute, but it needs external execution.")
    waiting = run.active_requirements[0]
    assert waiting.needs_external_execution, waiting
    waiting.set_external_execution_result("signed by hand")
    after = await client.continue_agent_run("assistant", run.run_id, [waiting.tool_execution], session_id="external", headers=ANN)
    equal((after.status, after.content), ("COMPLETED", "tool sign returned: signed by hand"))


async def a_run_is_cancelled_while_it_streams():
    seen = []
    async for event in client.run_agent_stream("assistant", "slow 2", session_id="cancelled", headers=ANN):
        seen.append(event)
        if getattr(event, "content", None) == "chunk-0 " and type(event).__name__ == "RunContentEvent":
            equal(await client.cancel_agent_run("assistant", event.run_id, headers=ANN), None)
    equal(kinds(seen)[-1], "RunCancelledEvent")
    equal(seen[-1].reason, f"Run {seen[-1].run_id} was cancelled")
    run = await client.get_session_run("cancelled", seen[-1].run_id, headers=ANN)
    equal((run.status, run.cancellation_stage, run.content), ("CANCELLED", "EXECUTING", "chunk-0 "))


async def a_model_that_breaks_is_an_event_and_a_status():
    events = await collect(client.run_agent_stream("plain", "fail 500", session_id="broken", headers=ANN))
    equal(kinds(events), ["RunStartedEvent", "ModelRequestStartedEvent", "RunErrorEvent"])
    equal((events[-1].error_type, "stub failure 500" in events[-1].content), ("model_provider_error", True))
    run = await client.run_agent("plain", "fail 500", session_id="broken", headers=ANN)
    equal(run.status, "ERROR")
    assert "stub failure 500" in run.content, run.content


async def media_are_refused():
    for media in (
        {"images": [Image(url="https://example.com/a.png")]},
        {"audio": [Audio(url="https://example.com/a.wav")]},
        {"videos": [Video(url="https://example.com/a.mp4")]},
        {"files": [File(content="hello", mime_type="text/plain")]},
    ):
        await refused(400, client.run_agent("plain", "look", headers=ANN, **media), "not supported")


# Memories


async def memories_are_kept():
    made = await client.create_memory("likes tea", user_id="ann", topics=["drinks", "taste"], headers=ANN)
    equal((made.memory, made.topics, made.user_id), ("likes tea", ["drinks", "taste"], "ann"))
    assert isinstance(made.updated_at, datetime) and made.memory_id, made
    equal(await client.get_memory(made.memory_id, headers=ANN), made)

    other = await client.create_memory("lives in Ulm", user_id="ann", topics=["places"], headers=ANN)
    page = await client.list_memories(headers=ANN)
    equal([m.memory for m in page.data], ["lives in Ulm", "likes tea"])
    equal((page.meta.page, page.meta.limit, page.meta.total_pages, page.meta.total_count), (1, 20, 1, 2))
    page = await client.list_memories(limit=1, page=2, sort_by="created_at", sort_order="asc", headers=ANN)
    equal(([m.memory for m in page.data], page.meta.total_pages), (["lives in Ulm"], 2))
    equal([m.memory for m in (await client.list_memories(topics=["drinks", "taste"], headers=ANN)).data], ["likes tea"])
    equal([m.memory for m in (await client.list_memories(search_content="ULM", headers=ANN)).data], ["lives in Ulm"])
    equal((await client.list_memories(user_id="bob", headers=ADMIN)).data, [])
    equal([m.memory for m in (await client.list_memories(user_id="ann", headers=ADMIN)).data], ["lives in Ulm", "likes tea"])

    changed = await client.update_memory(made.memory_id, "likes milk", user_id="ann", headers=ANN)
    equal((changed.memory, changed.topics, changed.memory_id), ("likes milk", ["drinks", "taste"], made.memory_id))
    changed = await client.update_memory(made.memory_id, "likes rum", user_id="ann", topics=["vices"], headers=ANN)
    equal((await client.get_memory(made.memory_id, headers=ANN)).topics, ["vices"])
    assert changed.updated_at >= made.updated_at

    equal(sorted(await client.get_memory_topics(headers=ANN)), ["places", "vices"])
    equal(await client.get_memory_topics(user_id="bob", headers=ADMIN), [])
    stats = await client.get_user_memory_stats(headers=ANN)
    equal([(s.user_id, s.total_memories, s.last_memory_updated_at) for s in stats.data], [("ann", 2, changed.updated_at)])
    equal((await client.get_user_memory_stats(user_id="ann", headers=ADMIN)).data, stats.data)

    equal(await client.delete_memory(made.memory_id, headers=ANN), None)
    await refused(404, client.get_memory(made.memory_id, headers=ANN), f"Memory with ID {made.memory_id} not found")
    equal(await client.delete_memories([other.memory_id], headers=ANN), None)
    equal((await client.list_memories(headers=ANN)).meta.total_count, 0)


async def several_memories_become_one():
    await refused(404, client.optimize_memories("ann", headers=ANN), "No memories found for user ann")
    for text in ("likes tea", "lives in Oslo"):
        await client.create_memory(text, user_id="ann", topics=[text.split()[-1]], headers=ANN)
    shown = await client.optimize_memories("ann", apply=False, headers=ANN)
    equal((shown.memories_before, shown.memories_after, shown.memories[0].topics), (2, 1, ["tea", "Oslo"]))
    equal((await client.list_memories(headers=ANN)).meta.total_count, 2)
    done = await client.optimize_memories("ann", headers=ANN)
    left = await client.list_memories(headers=ANN)
    equal([(m.memory_id, m.memory) for m in left.data], [(done.memories[0].memory_id, done.memories[0].memory)])
    equal(await client.delete_memories([done.memories[0].memory_id], headers=ANN), None)


# Sessions


async def sessions_are_made_and_changed():
    made = await client.create_session(
        session_id="made", session_name="Made", session_state={"a": 1}, metadata={"b": 2}, agent_id="assistant", headers=ANN
    )
    equal((made.session_id, made.agent_session_id, made.session_name, made.agent_id), ("made", "made", "Made", "assistant"))
    equal((made.session_state, made.metadata, made.user_id, made.chat_history), ({"a": 1}, {"b": 2}, "ann", []))
    await refused(409, client.create_session(session_id="made", agent_id="assistant", headers=ANN), "already exists")

    named = await client.rename_session("made", "Renamed", headers=ANN)
    equal((named.session_name, named.session_state), ("Renamed", {"a": 1}))
    changed = await client.update_session("made", session_state={"c": 3}, metadata={"d": 4}, headers=ANN)
    equal((changed.session_name, changed.session_state, changed.metadata), ("Renamed", {"c": 3}, {"d": 4}))
    changed = await client.update_session("made", session_name="Again", summary={"summary": "short"}, headers=ANN)
    equal((changed.session_name, changed.session_state, changed.session_summary), ("Again", {"c": 3}, {"summary": "short"}))
    got = await client.get_session("made", session_type=SessionType.AGENT, headers=ANN)
    equal((got.session_name, got.session_state, got.metadata), ("Again", {"c": 3}, {"d": 4}))
    assert got.updated_at >= got.created_at

    equal(await client.delete_session("made", headers=ANN), None)
    await refused(404, client.get_session("made", headers=ANN), "Session with id 'made' not found")


async def sessions_show_what_was_said():
    first = await client.run_agent("assistant", "one", session_id="said", headers=ANN)
    second = await client.run_agent("assistant", "two", session_id="said", headers=ANN)
    got = await client.get_session("said", headers=ANN)
    equal((got.session_name, got.agent_id, got.total_tokens), ("one", "assistant", 13))
    equal([m["content"] for m in got.chat_history], ["one", "stub: one", "two", "stub: two"])

    runs = await client.get_session_runs("said", headers=ANN)
    equal([(r.run_id, r.run_input, r.content, r.status) for r in runs], [
        (first.run_id, "one", "stub: one", "COMPLETED"),
        (second.run_id, "two", "stub: two", "COMPLETED"),
    ])
    equal((runs[0].agent_id, runs[0].metrics["total_tokens"], len(runs[0].messages)), ("assistant", 5, 3))
    equal(await client.get_session_runs("said", status=["error", "paused"], headers=ANN), [])
    equal(await client.get_session_runs("said", created_before=1, headers=ANN), [])
    equal(len(await client.get_session_runs("said", created_after=1, status=["completed"], headers=ANN)), 2)

    previews = await client.aget_session_run_previews("said", headers=ANN)
    equal([(p.run_id, p.run_input, p.content_preview, p.status) for p in previews], [
        (first.run_id, "one", "stub: one", "COMPLETED"),
        (second.run_id, "two", "stub: two", "COMPLETED"),
    ])
    equal(client.get_session_run_previews("said", headers=ANN), previews)

    run = await client.get_session_run("said", second.run_id, headers=ANN)
    equal((run.run_id, run.run_input, run.content, run.user_id), (second.run_id, "two", "stub: two", "ann"))
    await refused(404, client.get_session_run("said", "nope", headers=ANN), "Run with ID nope not found")


async def sessions_are_listed_and_deleted():
    for n in ("list-1", "list-2", "list-3"):
        await client.create_session(session_id=n, session_name="Listed " + n, agent_id="plain", headers=ANN)
    page = await client.get_sessions(session_type=SessionType.AGENT, component_id="plain", session_name="listed", headers=ANN)
    equal([(s.session_id, s.session_name) for s in page.data], [(n, "Listed " + n) for n in ("list-3", "list-2", "list-1")])
    equal((page.meta.total_count, page.meta.total_pages), (3, 1))
    page = await client.get_sessions(session_name="listed", limit=2, page=2, sort_order="asc", headers=ANN)
    equal(([s.session_id for s in page.data], page.meta.total_pages), (["list-3"], 2))
    equal((await client.get_sessions(session_name="listed", user_id="bob", headers=ADMIN)).data, [])
    equal(await client.delete_sessions(["list-1", "list-2"], [SessionType.AGENT] * 2, headers=ANN), None)
    equal([s.session_id for s in (await client.get_sessions(session_name="listed", headers=ANN)).data], ["list-3"])


# Refusals


async def refusals_are_http_errors():
    await refused(401, client.list_agents())
    await refused(401, client.aget_config(headers={"Authorization": "Bearer x.y.z"}))
    await refused(401, collect(client.run_agent_stream("assistant", "hi")))
    for call in (
        client.run_agent("assistant", "hi", headers=READER),
        collect(client.run_agent_stream("assistant", "hi", headers=READER)),
        client.get_sessions(headers=READER),
        client.create_memory("x", user_id="reader", headers=READER),
        client.aget_config(headers=READER),
    ):
        await refused(403, call, "Insufficient permissions")
    await refused(404, client.aget_agent("nope", headers=ANN), "Agent not found")
    await refused(404, collect(client.run_agent_stream("nope", "hi", headers=ANN)), "Agent not found")
    await refused(404, client.cancel_agent_run("assistant", "nope", headers=ANN), "Run not found")
    await refused(404, client.continue_agent_run("assistant", "nope", [], session_id="s", headers=ANN), "Run not found")
    await refused(404, client.rename_session("nope", "x", headers=ANN), "not found")
    await refused(404, client.update_session("nope", session_name="x", headers=ANN), "not found")
    await refused(404, client.get_sessions(db_id="nope", headers=ANN), "No database found with id 'nope'")
    body = await refused(422, client.get_sessions(limit=0, headers=ANN))
    equal(body["detail"][0]["loc"], ["query", "limit"])
    body = await refused(422, client.list_memories(sort_order="sideways", headers=ANN))
    equal(body["detail"][0]["loc"], ["query", "sort_order"])
    await refused(400, client.continue_agent_run("assistant", "nope", [], headers=ANN), "session_id is required")


async def metrics_count_the_runs_of_a_day():
    today = datetime.now(timezone.utc).date()
    before = (await client.get_metrics(headers=ADMIN)).metrics
    await client.run_agent("assistant", "hello", session_id="measured", headers=ANN)
    after = await client.get_metrics(starting_date=today - timedelta(days=1), ending_date=today, db_id="keyway", headers=ADMIN)
    day = after.metrics[-1]
    equal(day.agent_runs_count, before[-1].agent_runs_count + 1 if before else 1)
    assert day.token_metrics["total_tokens"] >= 5 and day.users_count >= 1, day
    equal((day.team_runs_count, day.model_metrics[0]["model_provider"]), (0, "OpenAI"))
    equal(after.updated_at, day.updated_at)
    equal((await client.refresh_metrics(headers=ADMIN))[-1].id, day.id)
    equal((await client.refresh_metrics(background=True, headers=ADMIN)).status, "started")
    equal((await client.get_metrics_refresh_status(headers=ADMIN)).status, "completed")
    await refused(403, client.get_metrics(headers=READER))
    equal((await client.get_metrics(ending_date=date(2020, 1, 1), headers=ADMIN)).metrics, [])


# What of the client has no part here: other components, and how the operator's data are looked after.
ELSEWHERE = ("_team", "_workflow", "eval_", "_eval", "knowledge", "trace", "migrate_")


async def every_call_was_made():
    public = {n for n in dir(AgentOSClient) if not n.startswith("_")}
    wanted = {n for n in public if not any(part in n for part in ELSEWHERE)} | {"list_teams", "list_workflows"}
    equal(sorted(wanted - called), [])
    assert len(wanted) > 30, sorted(wanted)


async def main():
    complaints = LoggedErrors()
    log.logger.addHandler(complaints)
    tests = [f for n, f in globals().items() if asyncio.iscoroutinefunction(f) and n not in ("refused", "collect", "paused", "main")]
    failed = 0
    for test in tests:
        try:
            await test()
            print("ok", test.__name__)
        except Exception:
            failed += 1
            print("FAILED", test.__name__)
            traceback.print_exc(file=sys.stdout)
    for complaint in complaints.list:
        print("the client complained:", complaint)
    print(len(tests), "tests,", failed, "failed")
    sys.exit(1 if failed or complaints.list else 0)


asyncio.run(main())
