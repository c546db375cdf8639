// Drives the server with AI SDK's chat, the class below useChat, and its DefaultChatTransport. Prints a line of JSON for
// each step.
//   node ui.mjs URL TOKEN DOOR
// A request to DOOR lets the model end an answer to "slow".
import {AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls} from "ai"

const [base, token, door] = process.argv.slice(2)

// What useChat keeps in React's state.
class State {
  status = "ready"
  error = undefined
  messages = []
  pushMessage = m => { this.messages = [...this.messages, m] }
  popMessage = () => { this.messages = this.messages.slice(0, -1) }
  replaceMessage = (i, m) => { this.messages = this.messages.with(i, this.snapshot(m)) }
  snapshot = value => structuredClone(value)
}
class Chat extends AbstractChat {
  constructor({messages, ...init}) { super({...init, state: Object.assign(new State(), {messages})}) }
}

const chatOf = (id, key = token, messages = []) => new Chat({
  id, messages, transport: new DefaultChatTransport({
    api: base + "/agents/assistant/ai-sdk", headers: {Authorization: "Bearer " + key},
  }),
  // Calls that the server has executed must not send the message again.
  sendAutomaticallyWhen: o =>
    lastAssistantMessageIsCompleteWithApprovalResponses(o) || lastAssistantMessageIsCompleteWithToolCalls(o),
})

const print = (step, chat) => {
  const last = chat.messages.at(-1)
  const parts = last.parts.map(p => p.type === "dynamic-tool" ? [p.toolName, p.state, p.output ?? p.errorText ?? ""] :
    [p.type, p.text ?? ""])
  console.log(JSON.stringify({step, role: last.role, count: chat.messages.length, parts: parts.map(p => p.join(" ").trim()),
    error: chat.error?.message ?? "", named: last.metadata?.session_id ?? ""}))
}
const say = async (step, chat, text) => { await chat.sendMessage({text}); print(step, chat) }
const settled = async chat => { while (chat.status !== "ready" && chat.status !== "error") await new Promise(setImmediate) }
const waiting = chat => chat.messages.at(-1).parts.find(p => p.state === "approval-requested" || p.state === "input-available")

const chat = chatOf("ui")
await say("a run", chat, "hello")
await say("a tool", chat, "look up tea")
await say("thoughts", chat, "think")
await say("a pause", chat, "delete 7")
await chat.addToolApprovalResponse({id: waiting(chat).approval.id, approved: true})
await settled(chat)
print("approved", chat)
await say("another pause", chat, "delete 8")
await chat.addToolApprovalResponse({id: waiting(chat).approval.id, approved: false, reason: "keep it"})
await settled(chat)
print("denied", chat)
await say("input", chat, "book")
await chat.addToolOutput({tool: "book", toolCallId: waiting(chat).toolCallId, output: {seats: 2}})
await settled(chat)
print("given", chat)
await say("an error", chatOf("ui-error"), "break")
await say("no token", chatOf("ui-none", "none"), "hello")

// Another page is opened with the same chat while the agent answers. It has what was stored: the user's message.
const slow = chatOf("ui-slow")
const sent = slow.sendMessage({text: "slow"})
const begun = async chat => {
  for (let i = 0; !chat.messages.at(-1)?.parts.some(p => p.text?.startsWith("first")); i++) {
    if (i > 3000) throw new Error("no answer: " + JSON.stringify(chat.messages))
    await new Promise(r => setTimeout(r, 10))
  }
}
await begun(slow)
const opened = chatOf("ui-slow", token, [slow.messages[0]])
const resumed = opened.resumeStream()
await begun(opened)
await fetch(door)
await Promise.all([sent, resumed])
print("resumed", opened)
await opened.resumeStream()
print("nothing to resume", opened)
