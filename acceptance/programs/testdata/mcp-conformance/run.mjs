// Runs MCP's conformance suite. The arguments are the directory of its packages, and those of the suite.
//   node run.mjs DIRECTORY server --url URL …
// The suite imports fs.globSync, which Node 20 doesn't have, for a command that isn't used here.
import {register} from "node:module"
import {pathToFileURL} from "node:url"

const fs = 'export * from "node:fs"; export {default} from "node:fs"; export const globSync = undefined'
const script = text => "data:text/javascript," + encodeURIComponent(text)
register(script(`export const resolve = (name, context, next) =>
  name === "fs" && context.parentURL.endsWith("/conformance/dist/index.js")
    ? {url: ${JSON.stringify(script(fs))}, shortCircuit: true} : next(name, context)`))
const [directory] = process.argv.splice(2, 1)
await import(pathToFileURL(directory + "/node_modules/@modelcontextprotocol/conformance/dist/index.js").href)
