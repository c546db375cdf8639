// Calls agents as OpenAI's models with the Node clients, and fails at the first thing that is not as it should be.
//
//   node client.mjs URL TOKENS
//
// TOKENS is a JSON object: ann may run all agents but "closed", admin everything.
import assert from "node:assert/strict"
import OpenAI from "openai"
import {APICallError, generateText, streamText} from "ai"
import {createOpenAI} from "@ai-sdk/openai"
import {createOpenAICompatible} from "@ai-sdk/openai-compatible"

const url = process.argv[2] + "/v1"
const tokens = JSON.parse(process.argv[3])
const client = new OpenAI({baseURL: url, apiKey: tokens.ann})
const root = new OpenAI({baseURL: url, apiKey: tokens.admin})
const waits = "waits for a person's decision"
const user = text => [{role: "user", content: text}]
const text3 = "chunk-0 chunk-1 chunk-2 "

async function all(stream) {
  const out = []
  for await (const part of await stream) out.push(part)
  return out
}

async function raised(kind, promise) {
  try {
    await promise
  } catch (e) {
    assert.ok(e instanceof kind, `${e.constructor.name}: ${e.message}`)
    return e
  }
  assert.fail(`${kind.name} was not raised`)
}

const chat = (model, text, more, options) =>
  client.chat.completions.create({model, messages: user(text), ...more}, options)
const respond = (model, input, more, options) => client.responses.create({model, input, ...more}, options)

const cases = {
  async models() {
    assert.deepEqual((await all(client.models.list())).map(m => m.id), ["assistant", "forgetful", "limited"])
    assert.equal((await client.models.retrieve("assistant")).id, "assistant")
  },

  async chat() {
    const answer = await chat("assistant", "echo: hello there")
    assert.equal(answer.choices[0].message.content, "hello there")
    assert.equal(answer.usage.completion_tokens, 2)
    const chunks = await all(chat("assistant", "slow 3", {stream: true, stream_options: {include_usage: true}}))
    assert.equal(chunks.map(c => c.choices[0]?.delta.content ?? "").join(""), text3)
    assert.deepEqual(chunks.filter(c => c.usage).map(c => c.usage.completion_tokens), [3])
    const stream = client.chat.completions.stream({model: "assistant", messages: user("slow 3"),
      stream_options: {include_usage: true}})
    let seen = ""
    stream.on("content", delta => seen += delta)
    const done = await stream.finalChatCompletion()
    assert.equal(done.choices[0].message.content, text3)
    assert.equal(seen, text3)
    assert.equal((await stream.totalUsage()).completion_tokens, 3)
  },

  async conversation() {
    const said = [...user("echo: one"), {role: "assistant", content: "one"}, ...user("history?")]
    const answer = await client.chat.completions.create({model: "forgetful", messages: said})
    assert.equal(answer.choices[0].message.content, "history: 1 user turns: echo: one")
    await chat("assistant", "echo: one", {metadata: {session_id: "node-chat"}})
    const next = await chat("assistant", "history?", {}, {headers: {"X-Session-Id": "node-chat"}})
    assert.equal(next.choices[0].message.content, "history: 1 user turns: echo: one")
  },

  async errors() {
    const nobody = new OpenAI({baseURL: url, apiKey: "nonsense"})
    assert.equal((await raised(OpenAI.AuthenticationError, nobody.models.list())).code, "invalid_api_key")
    const closed = await raised(OpenAI.PermissionDeniedError, chat("closed", "hi"))
    assert.deepEqual(closed.error.missing, ["agents:closed:run"])
    await raised(OpenAI.PermissionDeniedError, respond("unknown", "hi"))
    await raised(OpenAI.NotFoundError, root.responses.create({model: "unknown", input: "hi"}))
    await raised(OpenAI.NotFoundError, client.responses.retrieve("resp_" + "0".repeat(32)))
    const tools = await raised(OpenAI.BadRequestError, respond("assistant", "hi", {
      tools: [{type: "function", name: "f", parameters: {}, strict: true}]}))
    assert.equal(tools.param, "tools")
    await chat("limited", "echo: hi")
    const limited = await raised(OpenAI.RateLimitError, chat("limited", "echo: hi", {}, {maxRetries: 0}))
    assert.ok(Number(limited.headers.get("retry-after")) > 0)
  },

  // The agent must not run again: the test counts its runs.
  async failures() {
    const whole = await raised(OpenAI.APIError, chat("assistant", "fail 400\nnode chat"))
    assert.equal(whole.status, 400)
    assert.match(whole.message, /stub failure/)
    const streamed = await raised(OpenAI.APIError, all(chat("assistant", "fail-mid 2\nnode chat stream", {stream: true})))
    assert.equal(streamed.code, "run_failed")
    const answer = await respond("assistant", "fail 400\nnode response")
    assert.equal(answer.status, "failed")
    await raised(OpenAI.APIError, all(respond("assistant", "fail-mid 2\nnode response stream", {stream: true})))
    const helper = client.responses.stream({model: "assistant", input: "fail-mid 2\nnode helper"})
    helper.on("error", () => {})
    await raised(OpenAI.OpenAIError, helper.finalResponse())
    for (let i = 0; i < 2; i++) { // a lost answer, which the client repeats
      await raised(OpenAI.APIError, chat("assistant", "fail 400\nnode key", {}, {idempotencyKey: "node-key",
        headers: {"Idempotency-Key": "node-key"}}))
    }
  },

  async pauses() {
    const answer = await chat("assistant", "call tool pay {}")
    assert.ok(answer.choices[0].message.content.includes(waits))
    const whole = await respond("assistant", "call tool pay {}")
    assert.equal(whole.status, "incomplete")
    assert.ok(whole.output_text.includes(waits))
    const streamed = await client.responses.stream({model: "assistant", input: "call tool pay {}"}).finalResponse()
    assert.equal(streamed.status, "incomplete")
    assert.ok(streamed.output_text.includes(waits))
    assert.equal((await client.responses.cancel(streamed.id)).status, "cancelled")
  },

  async responses() {
    const answer = await respond("assistant", "echo: hello there")
    assert.equal(answer.output_text, "hello there")
    const stream = client.responses.stream({model: "assistant", input: "slow 3"})
    const events = await all(stream)
    const done = await stream.finalResponse()
    assert.equal(done.output_text, text3)
    assert.equal(done.usage.output_tokens, 3)
    const more = await respond("assistant", "history?", {previous_response_id: answer.id})
    assert.equal(more.output_text, "history: 1 user turns: echo: hello there")
    const third = await respond("assistant", "history?", {conversation: {id: answer.conversation.id}})
    assert.match(third.output_text, /^history: 2 user turns: /)
    assert.equal((await client.responses.retrieve(done.id)).output_text, text3)
    const rest = await all(client.responses.retrieve(done.id, {stream: true, starting_after: 4}))
    assert.deepEqual(rest.map(e => e.sequence_number), events.slice(5).map(e => e.sequence_number))
    const resumed = client.responses.stream({response_id: done.id})
    assert.equal((await resumed.finalResponse()).output_text, text3)
    await raised(OpenAI.NotFoundError, root.responses.create({model: "assistant", input: "hi",
      previous_response_id: answer.id}))
  },

  async background() {
    let answer = await respond("assistant", "echo: later", {background: true})
    assert.ok(["queued", "in_progress"].includes(answer.status))
    const end = Date.now() + 60_000
    while (["queued", "in_progress"].includes(answer.status)) {
      assert.ok(Date.now() < end, answer.status)
      await new Promise(r => setTimeout(r, 100))
      answer = await client.responses.retrieve(answer.id)
    }
    assert.equal(answer.output_text, "later")
  },

  // AI SDK with chat completions.
  async compatible() {
    await sdk(createOpenAICompatible({name: "keyway", baseURL: url, apiKey: tokens.ann, includeUsage: true}), "compatible")
  },

  // AI SDK with responses, its default.
  async aisdk() {
    await sdk(createOpenAI({baseURL: url, apiKey: tokens.ann}), "aisdk")
  },
}

async function sdk(provider, name) {
  const model = provider("assistant")
  const answer = await generateText({model, prompt: "echo: hello there"})
  assert.equal(answer.text, "hello there")
  assert.equal(answer.finishReason, "stop")
  assert.equal(answer.usage.outputTokens, 2)
  const stream = streamText({model, prompt: "slow 3", onError() {}})
  assert.equal((await all(stream.textStream)).join(""), text3)
  assert.equal(await stream.finishReason, "stop")
  assert.equal((await stream.usage).outputTokens, 3)
  // The next request of a conversation has the messages of this one, with the ids of their items.
  const first = await generateText({model, prompt: "echo: one"})
  const messages = [...user("echo: one"), ...first.response.messages, ...user("history?")]
  assert.equal((await generateText({model, messages})).text, "history: 1 user turns: echo: one")

  const closed = await raised(APICallError, generateText({model: provider("closed"), prompt: "hi"}))
  assert.equal(closed.statusCode, 403)
  assert.match(closed.message, /permission/i)
  await generateText({model, prompt: `fail 400\n${name}`}).then(
    r => assert.notEqual(r.finishReason, "stop", JSON.stringify(r.text)),
    e => assert.match(String(e), /stub failure/))
  const errors = []
  const broken = streamText({model, prompt: `fail-mid 2\n${name} stream`, onError: e => errors.push(String(e.error?.message ?? e.error))})
  for await (const _ of broken.textStream);
  assert.equal(errors.length, 1, JSON.stringify(errors))
  const atOnce = streamText({model, prompt: `fail 400\n${name} stream at once`, onError() {}})
  for await (const _ of atOnce.textStream);
  const paused = await generateText({model, prompt: "call tool pay {}"})
  assert.ok(paused.text.includes(waits), paused.text)
  assert.equal(paused.toolCalls.length, 0)
  const streamed = streamText({model, prompt: "call tool pay {}", onError() {}})
  assert.ok((await streamed.text).includes(waits))
}

for (const [name, run] of Object.entries(cases)) {
  await run()
  console.log("ok " + name)
}
