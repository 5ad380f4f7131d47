// An MCP server on the TypeScript SDK 2.x that speaks revision 2026-07-28 ("modern"), earlier ones ("legacy"), or both.
//
// Run it as `eras.cjs PORT MODE`; it serves Streamable HTTP at http://127.0.0.1:PORT/mcp. The modes:
//
//   legacy-sessions   earlier revisions, with sessions and a GET stream
//   legacy-stateless  earlier revisions, without state: no session, no GET, no questions to the client
//   modern            2026-07-28 only
//   dual              2026-07-28 and legacy-sessions
//
// All modes have the same tools. The SDK turns a tool's questions to the client into `input_required` results or into
// requests to the client, depending on the era. The SDK checks the headers of modern requests. The server prints a line
// that starts with "improper: " for a request that the SDK refuses for its headers, and for one that the SDK accepts
// but that no client should send. It prints one that starts with "session: " for a new session.
//
// A tool that waits for the client waits for that, not for a clock; WAIT_LIMIT only ends one that would hang for ever.
//
// CommonJS, because it finds the SDK by NODE_PATH, outside of this folder.
"use strict";

const { randomUUID } = require("node:crypto");
const { EventEmitter, once } = require("node:events");
const http = require("node:http");
const { json } = require("node:stream/consumers");
const { NodeStreamableHTTPServerTransport, toNodeHandler, toWebRequest } = require("@modelcontextprotocol/node");
const {
  McpServer,
  ProtocolError,
  ResourceTemplate,
  createMcpHandler,
  inputRequired,
  isLegacyRequest,
  legacyStatelessFallback,
} = require("@modelcontextprotocol/server");
const { z } = require("zod");

const WAIT_LIMIT = 10_000;
const META_PREFIX = "io.modelcontextprotocol/";
const LEVELS = ["debug", "info", "warning", "error"];
const PERSON = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
};

// Clients choose unique keys, so all can share one server.
const released = new EventEmitter();
const sleeps = new Map();
// Legacy sessions by id, each with its server and the URIs that its client subscribed to.
const sessions = new Map();
let modern;

// Create the server of either era; `session` is its legacy session, if any.
function makeServer(session) {
  const server = new McpServer(
    { name: "eras", version: "1.0.0" },
    { capabilities: { tools: { listChanged: true }, resources: { subscribe: true }, logging: {} } },
  );
  const tool = (name, inputSchema, run) => {
    server.registerTool(name, { inputSchema: z.object(inputSchema) }, async (input, ctx) => {
      const result = await run(input, ctx);
      return typeof result === "string" ? { content: [{ type: "text", text: result }] } : result;
    });
  };
  const key = z.string();

  tool("echo", { text: z.string() }, ({ text }) => text);

  // Clients copy the region into a header. This SDK refuses the call if the header differs from the argument.
  const region = z.string().meta({ "x-mcp-header": "Region" });
  tool("route", { region, text: z.string() }, (input) => `${input.region}: ${input.text}`);

  tool("count", { steps: z.int() }, async ({ steps }, ctx) => {
    for (let step = 1; step <= steps; step++) await progress(ctx, step, steps, `step ${step}`);
    return `counted to ${steps}`;
  });

  // Report one progress, then answer only when `release` was called with the same key. A client that receives the
  // progress only with the answer never calls `release`.
  tool("hold", { key }, async (input, ctx) => {
    const release = once(released, input.key, { signal: AbortSignal.timeout(WAIT_LIMIT) });
    await progress(ctx, 1, 1, "holding");
    await release;
    return `released ${input.key}`;
  });
  tool("release", { key }, (input) => {
    released.emit(input.key);
    return `releasing ${input.key}`;
  });

  // Wait to be cancelled, and record the result under the key; `sleep_state` returns it.
  tool("sleep", { key }, async (input, ctx) => {
    sleeps.set(input.key, "open");
    await Promise.race([once(ctx.mcpReq.signal, "abort"), new Promise((wake) => setTimeout(wake, WAIT_LIMIT).unref())]);
    sleeps.set(input.key, ctx.mcpReq.signal.aborted ? "cancelled" : "done");
    return "overslept";
  });
  tool("sleep_state", { key }, (input) => sleeps.get(input.key) ?? "unknown");

  // Log the text once at each level, within the call.
  tool("log", { text: z.string() }, async ({ text }, ctx) => {
    for (const level of LEVELS) await ctx.mcpReq.log(level, `${text} ${level}`);
    return `logged ${LEVELS.length}`;
  });

  tool("ask_user", { question: z.string() }, (input, ctx) => {
    const answer = ctx.mcpReq.inputResponses?.user;
    return answer === undefined ? inputRequired({ inputRequests: { user: elicit(input.question) } }) : said(answer);
  });
  tool("ask_model", { prompt: z.string() }, (input, ctx) => {
    const answer = ctx.mcpReq.inputResponses?.model;
    if (answer === undefined) return inputRequired({ inputRequests: { model: sample(input.prompt) } });
    return `${answer.model} said: ${answer.content.text}`;
  });
  tool("ask_roots", {}, (_, ctx) => {
    const answer = ctx.mcpReq.inputResponses?.roots;
    if (answer === undefined) return inputRequired({ inputRequests: { roots: inputRequired.listRoots() } });
    return answer.roots.map(({ uri, name }) => `${uri} ${name}`).join(", ");
  });

  // Ask two questions at once.
  tool("ask_both", { question: z.string(), prompt: z.string() }, (input, ctx) => {
    const { user, model } = ctx.mcpReq.inputResponses ?? {};
    if (user !== undefined && model !== undefined) return `${said(user)}; ${model.model} said: ${model.content.text}`;
    return inputRequired({ inputRequests: { user: elicit(input.question), model: sample(input.prompt) } });
  });

  // Ask the user, then the model about the answer. Keep that answer only in the state that the client returns.
  tool("ask_twice", { question: z.string() }, (input, ctx) => {
    const { user, model } = ctx.mcpReq.inputResponses ?? {};
    if (model !== undefined) return `${ctx.mcpReq.requestState()}; ${model.model} said: ${model.content.text}`;
    if (user === undefined) return inputRequired({ inputRequests: { user: elicit(input.question) } });
    return inputRequired({ inputRequests: { model: sample(user.content.name) }, requestState: said(user) });
  });

  tool("change_tools", {}, async () => {
    if (session === undefined) modern.notify.toolsChanged();
    else await server.sendToolListChanged();
    return "changed";
  });

  // Notify subscribers that the resource has changed.
  tool("touch", { uri: z.string() }, async ({ uri }) => {
    if (session === undefined) modern.notify.resourceUpdated(uri);
    else if (session.subscribed.has(uri)) await server.server.sendResourceUpdated({ uri });
    return "touched";
  });

  if (session !== undefined) {
    // Ask outside of the call: earlier revisions allow that, and real servers do it.
    tool("ask_apart", { question: z.string() }, async ({ question }) =>
      said(await server.server.elicitInput({ message: question, requestedSchema: PERSON })),
    );
    server.server.setRequestHandler("resources/subscribe", ({ params }) => {
      session.subscribed.add(params.uri);
      return {};
    });
    server.server.setRequestHandler("resources/unsubscribe", ({ params }) => {
      session.subscribed.delete(params.uri);
      return {};
    });
  }

  server.registerResource("greeting", "eras://greeting", { mimeType: "text/plain" }, ({ href }) => ({
    contents: [{ uri: href, text: "grüße \u2028 \u{1F44B}" }],
  }));
  const failing = new ResourceTemplate("eras://fails/{code}", { list: undefined });
  server.registerResource("fails", failing, {}, (_, { code }) => {
    throw new ProtocolError(-Number(code), "Out of ink");
  });
  server.registerPrompt("introduce", { argsSchema: z.object({ name: z.string() }) }, ({ name }) => ({
    messages: [{ role: "user", content: { type: "text", text: `Please introduce ${name}.` } }],
  }));
  return server;
}

async function progress(ctx, step, total, message) {
  const progressToken = ctx.mcpReq._meta?.progressToken;
  if (progressToken === undefined) return;
  await ctx.mcpReq.notify({
    method: "notifications/progress",
    params: { progressToken, progress: step, total, message },
  });
}

function elicit(message) {
  return inputRequired.elicit({ message, requestedSchema: PERSON });
}

function sample(prompt) {
  const messages = [{ role: "user", content: { type: "text", text: prompt } }];
  return inputRequired.createMessage({ messages, maxTokens: 100 });
}

function said({ action, content }) {
  return action === "accept" ? `accept: ${content.name} is ${content.age}` : action;
}

async function serveSession(req, res, body) {
  const id = req.headers["mcp-session-id"];
  let session = sessions.get(id);
  if (session === undefined) {
    if (id !== undefined || body?.method !== "initialize") {
      const error = { code: -32000, message: id === undefined ? "Bad Request: no session" : "Session not found" };
      res.writeHead(id === undefined ? 400 : 404, { "content-type": "application/json" });
      res.end(JSON.stringify({ jsonrpc: "2.0", id: body?.id ?? null, error }));
      return;
    }
    session = { subscribed: new Set() };
    session.transport = new NodeStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (made) => {
        console.log(`session: ${made}`);
        sessions.set(made, session);
      },
      onsessionclosed: (closed) => sessions.delete(closed),
    });
    await makeServer(session).connect(session.transport);
  }
  await session.transport.handleRequest(req, res, body);
}

// Log messages that a client must not send to a server of this mode.
function watch(mode, req, messages) {
  const improper = (what) => console.log(`improper: ${req.method} ${what}`);
  const session = req.headers["mcp-session-id"];
  if (mode === "modern") {
    if (req.method !== "POST") improper("to a modern server");
    for (const header of ["mcp-session-id", "last-event-id"]) if (header in req.headers) improper(`with ${header}`);
  }
  for (const { id, method, params } of messages) {
    const meta = Object.keys(params?._meta ?? {}).filter((name) => name.startsWith(META_PREFIX));
    const isModern = meta.length > 0;
    if (isModern && session !== undefined) improper(`${method} in a session with ${meta}`);
    if (isModern && id === undefined) improper(`${method} as a modern notification`);
    // A client of an earlier revision detects the mode by its initialize.
    if (mode === "modern" && !isModern && method !== "initialize") improper(`${method ?? "a response"} without _meta`);
  }
}

function reportError(error) {
  if (error.message.includes("Rejected inbound request")) console.log(`improper: ${error.message}`);
  else console.log(error.stack ?? String(error));
}

function main() {
  const [port, mode] = process.argv.slice(2);
  modern = createMcpHandler(() => makeServer(), { legacy: "reject", onerror: reportError });
  const serveModern = toNodeHandler(modern);
  const serveStateless = toNodeHandler({ fetch: legacyStatelessFallback(() => makeServer(), reportError) });
  http
    .createServer(async (req, res) => {
      const body = req.method === "POST" ? await json(req) : undefined;
      watch(mode, req, body === undefined ? [] : [body].flat());
      console.log(req.method, JSON.stringify(body)?.slice(0, 500) ?? "");
      if (mode === "modern") return serveModern(req, res, body);
      if (mode === "legacy-stateless") return serveStateless(req, res, body);
      if (mode === "dual" && !(await isLegacyRequest(await toWebRequest(req, body), body))) {
        return serveModern(req, res, body);
      }
      return serveSession(req, res, body);
    })
    .listen(Number(port), "127.0.0.1");
}

main();
