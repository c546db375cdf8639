#!/usr/bin/env bash
# Vercel's AI SDK, npm ai 7.0.173 with @ai-sdk/openai-compatible 3.0.92, repeats a request whose answer is a 5xx with the
# header x-should-retry: false. OpenAI's own client for Node, openai 7.59.0, obeys the header and sends one request. A
# server that must not do the same work twice can't rely on the header.
#
# Needs Node 20 or later with npm.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >package.json <<'JSON'
{"private": true, "type": "module"}
JSON
npm install --silent --no-fund --no-audit ai@7.0.173 @ai-sdk/openai-compatible@3.0.92 openai@7.59.0 >/dev/null 2>&1
cat >ask.mjs <<'JS'
import http from 'node:http'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText } from 'ai'
import OpenAI from 'openai'

let requests = 0
const server = http.createServer((request, response) => {
  request.resume()
  request.on('end', () => {
    requests++
    response.writeHead(500, { 'content-type': 'application/json', 'x-should-retry': 'false' })
    response.end('{"error": {"message": "the work was done, and its result is lost"}}')
  })
})
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
const baseURL = `http://127.0.0.1:${server.address().port}/v1`
async function count(name, ask) {
  requests = 0
  await ask().then(() => { throw new Error('no error') }, () => {})
  console.log(`${name}: ${requests}`)
}
await count('openai', () => new OpenAI({ baseURL, apiKey: 'x' }).chat.completions.create({
  model: 'm', messages: [{ role: 'user', content: 'hi' }] }))
const provider = createOpenAICompatible({ name: 'x', baseURL, apiKey: 'x' })
await count('ai', () => generateText({ model: provider('m'), prompt: 'hi' }))
server.close()
JS
got=$(node ask.mjs)
echo "requests for one call, answered 500 with x-should-retry: false"
echo "$got"
[ "$got" = $'openai: 1\nai: 3' ] || { echo "the behaviour has changed"; exit 1; }
echo "as described: AI SDK repeats the request"
