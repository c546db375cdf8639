// Drives the server with @ag-ui/client, whose pipeline ends a run with an error at the first event that breaks a rule,
// and checks each event with the schemas of @ag-ui/core. Prints a line of JSON for each step.
//   node client.mjs URL TOKEN RELEASE_URL
// A POST to the last address lets the slow answer of the model continue.
import {HttpAgent} from "@ag-ui/client"
import {EventSchemas} from "@ag-ui/core/schemas"

const [base, token, release] = process.argv.slice(2)
const print = (step, value) => console.log(JSON.stringify({step, ...value}))
console.warn = (...words) => print("warning", {text: words.join(" ")})

const agentOf = thread => new HttpAgent({
  url: base + "/agents/assistant/agui", threadId: thread, headers: {Authorization: "Bearer " + token},
})

// One run of an agent. Unknown and missing members of its events are reported.
const run = async (step, agent, message, parameters = {}) => {
  if (message) agent.addMessage({id: crypto.randomUUID(), role: "user", content: message})
  const types = [], wrong = []
  let failed = "", interrupts = [], own = ""
  try {
    await agent.runAgent(parameters, {
      onEvent: ({event}) => {
        types.push(event.type)
        const checked = EventSchemas.safeParse(event)
        if (!checked.success) wrong.push(event.type + ": " + checked.error.message)
        if (event.type === "CUSTOM") own = event.value.run_id
        if (event.type === "RUN_ERROR") failed = event.code + ": " + event.message
        if (event.type === "RUN_FINISHED") interrupts = event.outcome.interrupts ?? []
      },
    })
  } catch (e) {
    failed = "thrown: " + e.message
  }
  const last = agent.messages.filter(m => m.role === "assistant" && m.content).at(-1)?.content ?? ""
  print(step, {types: types.join(" "), wrong, failed, interrupts: interrupts.map(i => [i.reason, i.message]), last})
  return {interrupts, own, types}
}

const answers = (interrupts, payload) => ({
  resume: interrupts.map(i => ({interruptId: i.id, status: payload === undefined ? "cancelled" : "resolved", payload})),
})

const chat = agentOf("chat")
await run("a run", chat, "hello")
await run("a tool", chat, "look up tea")
await run("thoughts", chat, "think")
print("messages", {roles: chat.messages.map(m => m.role).join(" "), count: new Set(chat.messages.map(m => m.id)).size})

const paused = agentOf("paused")
for (const [step, message, payload] of [
  ["approve", "delete 7", {approved: true}],
  ["reject", "delete 8", {approved: false, note: "keep it"}],
  ["cancel", "delete 9", undefined],
  ["input", "book", {seats: 2}],
  ["external", "sign", "signed by hand"],
]) {
  const {interrupts} = await run(step, paused, message)
  try {
    await paused.runAgent()
    print("no resume", {failed: "accepted"})
  } catch (e) {
    print("no resume", {failed: e.message.replace(/[0-9a-f-]{36}.*/, "ID")})
  }
  await run(step + ", resumed", paused, "", answers(interrupts, payload))
}

await run("an error", agentOf("error"), "break")
const refused = new HttpAgent({url: base + "/agents/assistant/agui", headers: {Authorization: "Bearer none"}})
await run("no token", refused, "hello")
const tools = agentOf("tools")
await run("a tool of the page", tools, "hello", {tools: [{name: "alert", description: "Alerts.", parameters: {}}]})

// The connection is lost. The page goes back to what it had before, and sends the same request again.
const lost = agentOf("lost")
const before = [{id: "1", role: "user", content: "slow"}]
lost.setMessages(before)
await new Promise(resolve => {
  lost.runAgent({runId: "lost-1"}, {onTextMessageContentEvent: () => { lost.abortRun(); resolve() }}).catch(() => {})
})
await fetch(release, {method: "POST"})
const again = agentOf("lost")
again.setMessages(before)
await run("reconnected", again, "", {runId: "lost-1"})
