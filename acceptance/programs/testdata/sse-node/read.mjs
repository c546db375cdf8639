// Reads the events of a run with a library and prints a line of JSON for each: id, name, data.
//   node read.mjs LIBRARY RESUME_URL TOKEN
// The library is eventsource-parser or eventsource.
import {createParser} from "eventsource-parser"
import {EventSource} from "eventsource"

const [library, url, token] = process.argv.slice(2)
const post = {method: "POST", headers: {Authorization: "Bearer " + token}}
const print = (id, name, data) => console.log(JSON.stringify([id, name, data]))

if (library === "eventsource-parser") {
  const parser = createParser({onEvent: e => print(e.id, e.event, e.data)})
  const response = await fetch(url, post)
  const decoder = new TextDecoder()
  for await (const part of response.body) parser.feed(decoder.decode(part, {stream: true}))
} else {
  // It reconnects at the end of the stream, and stops at a 204.
  const source = new EventSource(url, {
    fetch: (input, init) => fetch(input, {...init, method: "POST", headers: {...init.headers, ...post.headers}}),
  })
  for (const name of process.argv.slice(5)) source.addEventListener(name, e => print(e.lastEventId, name, e.data))
  source.addEventListener("message", e => print(e.lastEventId, "message", e.data))
  const alive = setInterval(() => {}, 1000) // its own timer does not keep Node from ending
  source.addEventListener("error", e => {
    if (source.readyState !== EventSource.CLOSED) return
    print("", "closed", String(e.code))
    clearInterval(alive)
  })
}
