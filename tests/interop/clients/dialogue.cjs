// Shared by the TypeScript clients: runs the steps of a plan in order, and reports the results. dialogue.py describes
// plans and reports; this is the same in JavaScript.
//
// CommonJS, because it finds the SDKs by NODE_PATH, outside of this folder.
"use strict";

const { execFile } = require("node:child_process");
const fs = require("node:fs");
const { setTimeout } = require("node:timers/promises");
const { promisify } = require("node:util");

const STEP_LIMIT = 8;
const DIALOGUE_LIMIT = 16;
const ROOTS = [
  { uri: "file:///srv/interop", name: "interop" },
  { uri: "file:///srv/gr%C3%BC%C3%9Fe", name: "grüße" },
];
const PERSON = { name: "Ada \u2028 \u{1F469}", age: 36 };

class Dialogue {
  constructor(plan) {
    this.plan = plan;
    this.events = [];
    this.report = { steps: {}, complaints: [], late: [], failure: null };
    this.onProgress = () => {};
    this.meta = {}; // The `_meta` of each call.
    this.listening = new Map(); // Subscriptions, by URI.
    // Differences between the versions of the SDK; the client scripts set them.
    this.sdkCallTool = undefined;
    this.modern = false; // Revision 2026-07-28.
    this.messageOf = (error) => error.message;
  }

  // Do all steps. A step that fails or hangs does not prevent the next one.
  async run(client) {
    this.client = client;
    this.report.server = client.getServerVersion()?.name;
    const end = performance.now() / 1000 + DIALOGUE_LIMIT;
    for (const step of this.plan.steps) {
      const events = this.events;
      const limit = Math.max(0, Math.min(STEP_LIMIT, end - performance.now() / 1000));
      let outcome;
      try {
        outcome = await within(limit, this.doStep(step));
      } catch (error) {
        outcome =
          typeof error.code === "number"
            ? { error: error.code, message: this.messageOf(error) }
            : { exception: String(error) };
      }
      this.report.steps[step.name] = { outcome, events };
      this.events = [];
    }
    this.events = this.report.late;
  }

  async doStep(step) {
    const { events } = this;
    const outcome = await this[camelCase(step.do)](step);
    while (events.length < (step.events ?? 0)) await setTimeout(5);
    return outcome;
  }

  // The client's responses to the server, by method. Each records its event.
  requestHandlers() {
    return {
      "sampling/createMessage": ({ params }) => {
        const prompt = [params.messages[0].content].flat()[0].text;
        this.events.push(["sampling", prompt]);
        return { role: "assistant", model: "parrot", content: { type: "text", text: `${prompt}? Yes.` } };
      },
      "elicitation/create": async ({ params }) => {
        this.events.push(["elicitation", params.message]);
        if (params.mode === "url") {
          // In a modern dialogue the call waits for this; otherwise its error also has the URL.
          if (this.modern) await this.browse(params.url);
          return { action: "accept" };
        }
        return { action: "accept", content: PERSON };
      },
      "roots/list": () => {
        this.events.push(["roots"]);
        return { roots: ROOTS };
      },
    };
  }

  // Record progress from the notification itself. The SDK's onprogress drops progress that arrives in the same read as
  // the result of its request.
  notificationHandlers() {
    return {
      "notifications/progress": ({ params }) => this.onProgress(params),
      "notifications/message": ({ params }) => this.events.push(["log", params.level, params.data]),
      "notifications/tools/list_changed": () => this.events.push(["tools changed"]),
      "notifications/resources/updated": ({ params }) => this.events.push(["updated", params.uri]),
    };
  }

  async listen() {
    return {};
  }

  async listTools() {
    const { tools } = await this.client.listTools();
    return { tools: tools.map((tool) => tool.name).sort() };
  }

  call(step) {
    if (step.progress) this.onProgress = this.noteProgress;
    return this.callTool(step.tool, step.arguments, step.progress);
  }

  async signIn(step) {
    try {
      return await this.callTool(step.tool, step.arguments);
    } catch (error) {
      await this.browse(error.data.url);
      return { error: error.code, message: this.messageOf(error) };
    }
  }

  async browse(url) {
    const [browser, ...args] = this.plan.browser;
    await promisify(execFile)(browser, [...args, url]);
  }

  async callReleased(step) {
    const progressed = new Promise((resolve) => {
      this.onProgress = (params) => {
        this.noteProgress(params);
        resolve();
      };
    });
    const held = this.callTool(step.tool, step.arguments, true);
    held.catch(() => {}); // It may fail after the step has timed out.
    await progressed;
    await this.callTool(step.release, step.arguments);
    return held;
  }

  async callTogether(step) {
    const calls = step.calls.map((call) => this.callTool(call.tool, call.arguments));
    return { outcomes: await Promise.all(calls) };
  }

  async cancel(step) {
    const abort = new AbortController();
    const progressed = new Promise((resolve) => {
      this.onProgress = resolve;
    });
    const call = this.callTool(step.tool, step.arguments, true, { signal: abort.signal });
    const cancelled = call.then(
      () => Promise.reject(new Error("the cancelled call was answered")),
      () => {},
    );
    cancelled.catch(() => {}); // As above.
    if (step.state === undefined) {
      await progressed;
      abort.abort("enough");
      await cancelled;
      return {};
    }
    await this.stateIs("open", step);
    abort.abort("enough");
    await cancelled;
    return { state: await this.stateIs("cancelled", step) };
  }

  async read(step) {
    const { contents } = await this.client.readResource({ uri: step.uri });
    return { text: contents[0].text };
  }

  async prompt(step) {
    const { messages } = await this.client.getPrompt({ name: step.prompt, arguments: step.arguments });
    return { text: messages[0].content.text };
  }

  async ping() {
    await (this.modern ? this.client.discover() : this.client.ping());
    return {};
  }

  async setLogLevel(step) {
    if (this.modern) this.meta = { "io.modelcontextprotocol/logLevel": step.level };
    else await this.client.setLoggingLevel(step.level);
    return {};
  }

  async watchTools() {
    // Earlier servers notify without a subscription.
    if (this.modern) await this.client.listen({ toolsListChanged: true });
    return {};
  }

  async subscribe(step) {
    if (this.modern) this.listening.set(step.uri, await this.client.listen({ resourceSubscriptions: [step.uri] }));
    else await this.client.subscribeResource({ uri: step.uri });
    return {};
  }

  async unsubscribe(step) {
    if (this.modern) await this.listening.get(step.uri).close();
    else await this.client.unsubscribeResource({ uri: step.uri });
    return {};
  }

  async callTool(tool, args, progress = false, options = undefined) {
    const params = { name: tool, arguments: args };
    const meta = { ...this.meta, ...(progress && { progressToken: tool }) };
    if (Object.keys(meta).length > 0) params._meta = meta;
    const result = await this.sdkCallTool(params, options);
    const text = result.content.map((part) => part.text).join("");
    return result.isError ? { tool_error: text } : { text };
  }

  noteProgress({ progress, total, message }) {
    this.events.push(["progress", progress, total ?? null, message ?? null]);
  }

  async stateIs(wanted, step) {
    const end = performance.now() + STEP_LIMIT * 500;
    let state;
    do {
      ({ text: state } = await this.callTool(step.state, step.arguments));
    } while (state !== wanted && performance.now() < end);
    return state;
  }

  // Read the transport's stdout as well: an SDK may skip a line that is not JSON, and does not expose the protocol
  // version.
  watchStdout(transport) {
    const start = transport.start.bind(transport);
    transport.start = async () => {
      await start();
      let rest = Buffer.alloc(0);
      transport._process.stdout.on("data", (chunk) => {
        rest = Buffer.concat([rest, chunk]);
        for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
          this.watchLine(rest.subarray(0, end).toString());
          rest = rest.subarray(end + 1);
        }
      });
    };
  }

  watchLine(line) {
    try {
      const message = JSON.parse(line);
      if (message.jsonrpc !== "2.0") throw new Error("no JSON-RPC");
      this.report.protocol ??= message.result?.protocolVersion;
    } catch (error) {
      this.report.complaints.push(`${error}: ${line}`);
    }
  }
}

// Read the plan, let `talk` connect and run the dialogue, print the report.
async function main(talk) {
  const dialogue = new Dialogue(JSON.parse(fs.readFileSync(0, "utf8")));
  try {
    await talk(dialogue);
  } catch (error) {
    // Report the steps that were already done.
    dialogue.report.failure = error.stack;
  }
  // Exit explicitly: a bridge that still runs after the SDK has closed it would keep this process alive.
  process.stdout.write(JSON.stringify(dialogue.report), () => process.exit());
}

function within(seconds, promise) {
  const abort = new AbortController();
  const limit = setTimeout(seconds * 1000, { hang: seconds }, { signal: abort.signal });
  limit.catch(() => {}); // The abort rejects it.
  return Promise.race([promise, limit]).finally(() => abort.abort());
}

function camelCase(name) {
  return name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
}

module.exports = { main };
