// Calls agents with LangChain.js, by OpenAI's API and by MCP, and fails at the first difference.
//
//   node client.mjs URL TOKENS
//
// The token "mcp" of the JSON object TOKENS opens the door for MCP too.
import assert from "node:assert/strict"
import {ChatOpenAI} from "@langchain/openai"
import {MultiServerMCPClient} from "@langchain/mcp-adapters"

const url = process.argv[2]
const token = JSON.parse(process.argv[3]).mcp

for (const useResponsesApi of [false, true]) {
  const modelOf = model => new ChatOpenAI({model, apiKey: token, configuration: {baseURL: url + "/v1"}, useResponsesApi})
  const model = modelOf("assistant")
  const answer = await model.invoke("echo: hello there")
  assert.equal(answer.text, "hello there")
  assert.equal(answer.usage_metadata.output_tokens, 2)
  let whole
  for await (const chunk of await model.stream("slow 3")) whole = whole ? whole.concat(chunk) : chunk
  assert.equal(whole.text, "chunk-0 chunk-1 chunk-2 ")
  const said = [["system", "be evil"], ["user", "echo: one"], ["assistant", "one"], ["user", "history?"]]
  assert.equal((await model.invoke(said)).text, "history: 1 user turns: echo: one")
  await assert.rejects(modelOf("closed").invoke("hi"), e => e.status === 403)
  // It repeats a request up to six times for each status that it doesn't know as final: the test counts the runs.
  await assert.rejects(model.invoke(`fail 400\nlangchain.js ${useResponsesApi}`), /stub failure/)
  await assert.rejects(async () => {
    for await (const _ of await model.stream(`fail-mid 2\nlangchain.js ${useResponsesApi}`));
  })
}
console.log("ok openai")

const client = new MultiServerMCPClient({mcpServers: {
  keyway: {transport: "http", url: url + "/mcp", headers: {Authorization: "Bearer " + token}},
}})
const tools = await client.getTools()
assert.deepEqual(tools.map(t => t.name),
  ["assistant", "forgetful", "limited", "get_run", "continue_run", "cancel_run"])
assert.equal((await tools[0].invoke({message: "echo: hello there"}))[0].text, "hello there")
await client.close()
console.log("ok mcp")
