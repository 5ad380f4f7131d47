// The tools of fastmcp_server.py on the TypeScript SDK 1.x, and a resource with subscriptions.
//
// Run it as `typescript_server.cjs PORT MODE`: `node` for the SDK's own HTTP transport, `hono` for that of @hono/mcp,
// both with sessions at http://127.0.0.1:PORT/mcp; or as `typescript_server.cjs stdio`.
//
// CommonJS, because it finds the SDK by NODE_PATH, outside of this folder.
"use strict";

const { randomUUID } = require("node:crypto");
const http = require("node:http");
const { McpServer, ResourceTemplate } = require("@modelcontextprotocol/sdk/server/mcp.js");
const { StdioServerTransport } = require("@modelcontextprotocol/sdk/server/stdio.js");
const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");
const types = require("@modelcontextprotocol/sdk/types.js");
const { z } = require("zod");

const PERSON = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
};

function makeServer() {
  const server = new McpServer(
    { name: "field", version: "1.0.0" },
    {
      capabilities: { logging: {}, resources: { subscribe: true } },
      instructions: "Tools that frameworks have in common.",
    },
  );
  const subscribed = new Set();
  const text = (said) => ({ content: [{ type: "text", text: said }] });

  server.registerTool("echo", { inputSchema: { text: z.string() } }, (input) => text(input.text));

  const named = { name: z.string() };
  server.registerTool("describe", { inputSchema: named, outputSchema: named }, (input) => ({
    ...text(JSON.stringify(input)),
    structuredContent: input,
  }));

  server.registerTool("repeat", { inputSchema: { text: z.string(), times: z.number() } }, (input) =>
    text(input.text.repeat(input.times)),
  );

  server.registerTool("count", { inputSchema: { steps: z.number() } }, async ({ steps }, extra) => {
    const { progressToken } = extra._meta ?? {};
    for (let progress = 1; progress <= steps && progressToken !== undefined; progress++) {
      const params = { progressToken, progress, total: steps, message: `step ${progress}` };
      await extra.sendNotification({ method: "notifications/progress", params });
    }
    return text(`counted to ${steps}`);
  });

  server.registerTool("fail", { inputSchema: { reason: z.string() } }, ({ reason }) => {
    throw new Error(reason);
  });

  server.registerTool("log", { inputSchema: { text: z.string() } }, async (input, extra) => {
    for (const level of ["info", "warning", "error"]) {
      await extra.sendNotification({ method: "notifications/message", params: { level, data: input.text } });
    }
    return text("logged");
  });

  server.registerTool("ask", { inputSchema: { question: z.string() } }, async ({ question }, extra) => {
    const params = { message: question, requestedSchema: PERSON };
    const answer = await extra.sendRequest({ method: "elicitation/create", params }, types.ElicitResultSchema);
    return text(answer.action === "accept" ? `${answer.content.name} is ${answer.content.age}` : answer.action);
  });

  server.registerTool("change", {}, () => {
    server.sendToolListChanged();
    return text("changed");
  });

  server.registerTool("touch", { inputSchema: { uri: z.string() } }, async ({ uri }) => {
    if (subscribed.has(uri)) await server.server.sendResourceUpdated({ uri });
    return text("touched");
  });

  server.server.setRequestHandler(types.SubscribeRequestSchema, ({ params }) => {
    subscribed.add(params.uri);
    return {};
  });
  server.server.setRequestHandler(types.UnsubscribeRequestSchema, ({ params }) => {
    subscribed.delete(params.uri);
    return {};
  });

  server.registerResource("greeting", "field://greeting", { mimeType: "text/plain" }, ({ href }) => ({
    contents: [{ uri: href, mimeType: "text/plain", text: "grüße \u2028 \u{1F44B}" }],
  }));
  const people = new ResourceTemplate("field://people/{name}", { list: undefined });
  server.registerResource("person", people, {}, ({ href }, { name }) => ({
    contents: [{ uri: href, text: JSON.stringify({ name }) }],
  }));
  server.registerPrompt("introduce", { argsSchema: { name: z.string() } }, ({ name }) => ({
    messages: [{ role: "user", content: { type: "text", text: `Please introduce ${name}.` } }],
  }));
  return server;
}

// Find a session's transport by its header; without one, start a new session.
async function sessionTransport(sessions, Transport, id) {
  if (sessions.has(id)) return sessions.get(id);
  const transport = new Transport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (started) => sessions.set(started, transport),
  });
  await makeServer().connect(transport);
  return transport;
}

async function serveNode(port) {
  const sessions = new Map();
  const server = http.createServer(async (request, response) => {
    const id = request.headers["mcp-session-id"];
    if (id !== undefined && !sessions.has(id)) return response.writeHead(404).end();
    const transport = await sessionTransport(sessions, StreamableHTTPServerTransport, id);
    await transport.handleRequest(request, response);
  });
  server.listen(port, "127.0.0.1");
}

function serveHono(port) {
  const { Hono } = require("hono");
  const { serve } = require("@hono/node-server");
  const { StreamableHTTPTransport } = require("@hono/mcp");
  const sessions = new Map();
  const app = new Hono();
  app.all("/mcp", async (context) => {
    const id = context.req.header("mcp-session-id");
    if (id !== undefined && !sessions.has(id)) return context.text("no such session", 404);
    const transport = await sessionTransport(sessions, StreamableHTTPTransport, id);
    return transport.handleRequest(context);
  });
  serve({ fetch: app.fetch, port, hostname: "127.0.0.1" });
}

const [port, mode] = process.argv.slice(2);
if (port === "stdio") makeServer().connect(new StdioServerTransport());
else if (mode === "hono") serveHono(Number(port));
else serveNode(Number(port));
