// The tools of the tests. usage: node server.mjs sdk|server PORT
//
// sdk is @modelcontextprotocol/sdk, with sessions and an event store, as its examples use it.
// server is @modelcontextprotocol/server, without sessions. Both packages are loaded from the
// directory in the variable PROGRAM.
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [, , kind, port] = process.argv;
const require = createRequire(process.env.PROGRAM + '/');
const load = name => import(pathToFileURL(require.resolve(name)));
const { z } = await load('zod');

const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
const text = value => ({ content: [{ type: 'text', text: value }] });

function addTools(server) {
  server.registerTool('echo', { inputSchema: z.object({ text: z.string() }) }, async args => text(args.text));
  server.registerTool(
    'shape',
    {
      inputSchema: z.union([
        z.object({ kind: z.literal('circle'), radius: z.number() }),
        z.object({ kind: z.literal('square'), side: z.number() })
      ])
    },
    async args => text(`a ${args.kind}`)
  );
  server.registerTool('raises', { inputSchema: z.object({}) }, async () => {
    throw new Error('the kettle is empty');
  });
  server.registerTool(
    'summary',
    { inputSchema: z.object({}), outputSchema: z.object({ orders: z.array(z.number()) }) },
    async () => ({ ...text('2 orders'), structuredContent: { orders: [7, 8] } })
  );
}

async function withSessions() {
  const { McpServer } = await load('@modelcontextprotocol/sdk/server/mcp.js');
  const { StreamableHTTPServerTransport } = await load('@modelcontextprotocol/sdk/server/streamableHttp.js');
  const { InMemoryEventStore } = await load('@modelcontextprotocol/sdk/examples/shared/inMemoryEventStore.js');
  const { isInitializeRequest } = await load('@modelcontextprotocol/sdk/types.js');
  const transports = {};

  const make = () => {
    const server = new McpServer({ name: 'tools', version: '1' });
    addTools(server);
    server.registerTool('slow', {}, async extra => {
      for (let i = 0; i < 10; i++) {
        const progressToken = extra._meta?.progressToken;
        await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress: i } });
        await pause(250);
      }
      return text('slow but done');
    });
    server.registerTool('closes', {}, async extra => {
      extra.closeSSEStream();
      await pause(500);
      return text('after the stream was closed');
    });
    server.registerTool('roots', {}, async () => {
      const found = await server.server.listRoots();
      return text(`${found.roots.length} roots`);
    });
    server.registerTool('sample', {}, async () => {
      const answer = await server.server.createMessage({ messages: [], maxTokens: 10 });
      return text(JSON.stringify(answer));
    });
    return server;
  };

  return async (req, res) => {
    let body = '';
    for await (const piece of req) body += piece;
    const message = body === '' ? undefined : JSON.parse(body);
    let transport = transports[req.headers['mcp-session-id']];
    if (!transport && message && isInitializeRequest(message)) {
      transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: () => randomUUID(),
        eventStore: new InMemoryEventStore(),
        retryInterval: 300,
        onsessioninitialized: id => (transports[id] = transport)
      });
      await make().connect(transport);
    }
    if (!transport) {
      res.writeHead(400, { 'Content-Type': 'application/json' });
      const error = { code: -32000, message: 'Bad Request: No valid session ID provided' };
      res.end(JSON.stringify({ jsonrpc: '2.0', error, id: null }));
      return;
    }
    await transport.handleRequest(req, res, message);
  };
}

async function stateless() {
  const { McpServer, createMcpHandler } = await load('@modelcontextprotocol/server');
  const { toNodeHandler } = await load('@modelcontextprotocol/node');
  const make = () => {
    const server = new McpServer({ name: 'tools', version: '1' });
    addTools(server);
    return server;
  };
  return toNodeHandler(createMcpHandler(make));
}

createServer(await (kind === 'sdk' ? withSessions() : stateless())).listen(Number(port), '127.0.0.1');
