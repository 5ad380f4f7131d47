// An MCP server on the TypeScript SDK that hangs up, forgets sessions and sends messages outside of calls. Real servers
// do that, and a bridge must hide it from clients.
//
// Run it as `unsteady.cjs PORT`; it serves Streamable HTTP with sessions at http://127.0.0.1:PORT/mcp, keeps the events
// that it sends, and replays them for a client that returns with the id of the last one. Its tools cause each fault on
// demand. A tool that waits for the client to return waits for that, not for a clock; WAIT_LIMIT only ends a tool that
// would hang for ever.
//
// CommonJS, because it finds the SDK by NODE_PATH, outside of this folder.
"use strict";

const { randomUUID } = require("node:crypto");
const { EventEmitter, once } = require("node:events");
const http = require("node:http");
const { setTimeout } = require("node:timers/promises");
const { isDeepStrictEqual } = require("node:util");
const { Server } = require("@modelcontextprotocol/sdk/server/index.js");
const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");
const types = require("@modelcontextprotocol/sdk/types.js");

const WAIT_LIMIT = 5;
const RETRY_MS = 100;
const PUSH_STREAM = "_GET_stream"; // The SDK's name for it.

// How often the call with a key was executed.
const runs = new Map();
// The state of a session when it was forgotten, by the key of the call that requested that.
const forgotten = new Map();
// All sessions ever created, by id.
const sessions = new Map();

const TOOLS = {
  // Report progress 1 to 3 and hang up. Report 4 to 6 while the client is away. Once it is back, report 7 to 9 and hang
  // up again. Answer when it is back once more. A reset may discard the latest events, so a ping first ensures that the
  // client has an event id to return with.
  interrupted: async (session, { key, how }, extra) => {
    count(key);
    const stream = session.streamOf(extra.requestId);
    const progress = async (steps) => {
      for (const step of extra._meta?.progressToken === undefined ? [] : steps) {
        const params = { progressToken: extra._meta.progressToken, progress: step, total: 9 };
        await extra.sendNotification({ method: "notifications/progress", params });
      }
    };
    const ping = () => extra.sendRequest({ method: "ping" }, types.EmptyResultSchema);
    await progress([1, 2]);
    if (how === "reset") await ping();
    await progress([3]);
    const back = session.store.resumption(stream);
    await hangUp(how, session.posts.get(extra.requestId), extra.closeSSEStream);
    await progress([4, 5, 6]);
    await back;
    const backAgain = session.store.resumption(stream);
    await progress([7, 8, 9]);
    extra.closeSSEStream();
    await backAgain;
    return `executed ${runs.get(key)} times`;
  },

  // Notify of changed tools and log a message, both outside of the call.
  push: async (session) => {
    await session.listened();
    await session.server.sendToolListChanged();
    await session.log("pushed");
    return "pushed";
  },

  // Log a message outside of the call and hang up its stream, log one while the client is away, and one when it is
  // back.
  push_interrupted: async (session, { how }, extra) => {
    await session.listened();
    await session.log("before");
    if (how === "reset") await session.server.ping();
    const back = session.store.resumption(PUSH_STREAM);
    await hangUp(how, session.get, extra.closeStandaloneSSEStream);
    await session.log("while away");
    await back;
    await session.log("after");
    return "logged 3";
  },

  // Ask the client for its roots, its user and its model, all outside of the call.
  ask: async (session) => {
    await session.listened();
    const { roots } = await session.server.listRoots();
    const properties = { name: { type: "string" }, age: { type: "integer" } };
    const requestedSchema = { type: "object", properties, required: ["name", "age"] };
    const { content } = await session.server.elicitInput({ mode: "form", message: "Who?", requestedSchema });
    const messages = [{ role: "user", content: { type: "text", text: "Rain" } }];
    const sampled = await session.server.createMessage({ messages, maxTokens: 100 });
    return [roots.map(({ uri }) => uri).join(" "), `${content.name} is ${content.age}`, sampled.content.text].join(", ");
  },

  // Forget the session of this call once it is answered. Later requests get `status`; with `hang_up`, its stream for
  // messages outside of calls ends too.
  forget: async (session, { key, status, hang_up }, extra) => {
    forgotten.set(key, { session, among: sessions.size });
    session.posts.get(extra.requestId).once("close", () => {
      session.refusal = status;
      if (hang_up) session.get?.socket.destroy();
    });
    return "forgetting";
  },

  // Describe the session that replaced the one in which `forget` was called with this key.
  remembered: async (session, { key }) => {
    const { session: before, among } = forgotten.get(key);
    const introduced = isDeepStrictEqual(session.introduction, before.introduction) ? "as before" : "differently";
    await session.listened();
    const subscribed = [...session.subscribed].join(" ");
    return `${sessions.size - among} new, introduced ${introduced}, log level ${session.level}, subscribed ${subscribed}`;
  },

  // Count an execution.
  touch: async (_, { key }) => `executed ${count(key)} times`,

  // Return the keys of the calls that were not executed exactly once.
  not_once: async (_, { keys }) => keys.filter((key) => runs.get(key) !== 1).join(" "),
};

// Keeps the events of one session. Its ids are unique across all streams, so the id of one stream is invalid for
// another.
class EventStore {
  events = [];
  resumed = new EventEmitter();

  async storeEvent(streamId, message) {
    return String(this.events.push({ streamId, message }));
  }

  async getStreamIdForEventId(eventId) {
    return this.events[eventId - 1]?.streamId;
  }

  async replayEventsAfter(eventId, { send }) {
    const streamId = await this.getStreamIdForEventId(eventId);
    for (let index = Number(eventId); index < this.events.length; index++) {
      if (this.events[index].streamId === streamId) await send(String(index + 1), this.events[index].message);
    }
    // By then the SDK sends to the new stream.
    setImmediate(() => this.resumed.emit(streamId));
    return streamId;
  }

  // Wait until the client has returned for the stream.
  resumption(streamId) {
    return within(once(this.resumed, streamId), "the client did not resume the stream");
  }
}

class Session {
  store = new EventStore();
  // The response to each open POST, by the id of its request, and to the last GET of the push stream.
  posts = new Map();
  get = undefined;
  level = "unset";
  subscribed = new Set();
  // The status of its requests after it is forgotten.
  refusal = undefined;

  constructor(introduction) {
    this.introduction = introduction;
    this.server = new Server(
      { name: "unsteady", version: "1.0.0" },
      { capabilities: { tools: { listChanged: true }, logging: {}, resources: { subscribe: true } } },
    );
    this.server.setRequestHandler(types.ListToolsRequestSchema, () => ({
      tools: Object.keys(TOOLS).map((name) => ({ name, inputSchema: { type: "object" } })),
    }));
    this.server.setRequestHandler(types.CallToolRequestSchema, async ({ params }, extra) => ({
      content: [{ type: "text", text: await TOOLS[params.name](this, params.arguments, extra) }],
    }));
    this.server.setRequestHandler(types.SetLevelRequestSchema, ({ params }) => {
      this.level = params.level;
      return {};
    });
    this.server.setRequestHandler(types.SubscribeRequestSchema, ({ params }) => {
      this.subscribed.add(params.uri);
      return {};
    });
    this.transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => sessions.set(id, this),
      eventStore: this.store,
      retryInterval: RETRY_MS,
    });
  }

  // The SDK does not give a tool the id of the stream that answers its call.
  streamOf(requestId) {
    return this.transport._webStandardTransport._requestToStreamMapping.get(requestId);
  }

  // Wait until there is a stream for messages outside of calls. The SDK does not report that, and drops earlier
  // messages.
  async listened() {
    const end = performance.now() + WAIT_LIMIT * 1000;
    while (!this.transport._webStandardTransport._streamMapping.has(PUSH_STREAM)) {
      if (performance.now() > end) throw new Error("the client does not listen");
      await setTimeout(5);
    }
  }

  log(data) {
    return this.server.notification({ method: "notifications/message", params: { level: "error", data } });
  }
}

// End the response in this way, and wait until it has ended.
async function hangUp(how, response, close) {
  const closed = within(once(response, "close"), "the response did not end");
  if (how === "close") {
    close();
  } else if (how === "reset") {
    response.socket.resetAndDestroy();
  } else {
    // An incomplete event, so a client must not remember its id.
    response.write('event: message\nid: 1000000\ndata: {"jsonrpc":');
    response.socket.destroySoon();
  }
  await closed;
}

async function handle(request, response) {
  const chunks = await request.toArray();
  const body = chunks.length ? JSON.parse(Buffer.concat(chunks)) : undefined;
  const id = request.headers["mcp-session-id"];
  let session = sessions.get(id);
  console.log(request.method, body?.method ?? "", request.headers["last-event-id"] ?? "", id ?? "");

  if (session === undefined && body?.method === "initialize") {
    session = new Session(body.params);
    await session.server.connect(session.transport);
  }
  const refusal = session?.refusal ?? (session === undefined ? 404 : undefined);
  if (refusal !== undefined) {
    // The SDK's message, and that of servers that look up sessions themselves.
    const error =
      refusal === 404
        ? { code: -32001, message: "Session not found" }
        : { code: -32000, message: "Bad Request: No valid session ID provided" };
    response.writeHead(refusal, { "Content-Type": "application/json" });
    response.end(JSON.stringify({ jsonrpc: "2.0", error, id: null }));
    return;
  }
  if (body?.id !== undefined) session.posts.set(body.id, response);
  const resumed = request.headers["last-event-id"];
  if (request.method === "GET" && (!resumed || (await session.store.getStreamIdForEventId(resumed)) === PUSH_STREAM)) {
    session.get = response;
  }
  await session.transport.handleRequest(request, response, body);
}

function count(key) {
  runs.set(key, (runs.get(key) ?? 0) + 1);
  return runs.get(key);
}

function within(promise, otherwise) {
  const limit = setTimeout(WAIT_LIMIT * 1000, undefined, { ref: false }).then(() => {
    throw new Error(otherwise);
  });
  const either = Promise.race([promise, limit]);
  either.catch(() => {}); // It may fail before it is awaited.
  return either;
}

http
  .createServer((request, response) => {
    handle(request, response).catch((error) => {
      console.log(error);
      response.destroy();
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
