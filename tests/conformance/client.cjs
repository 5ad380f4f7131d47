// The client that the conformance suite tests: `node client.cjs KIND URL` has a TypeScript SDK launch the bridge with
// the URL, and does the steps of one scenario through it. KIND is a kind of clients.cjs; scenarios.cjs has the steps.
//
// The last line of stdout is "done" if all steps succeeded and the bridge exited without a signal.
//
// The environment names the bridge (MCP_GANGWAY_BIN). The suite adds the scenario, the protocol version of its server,
// and for some scenarios parameters of the steps.
//
// CommonJS, as in the other files, because it finds the SDKs by NODE_PATH, outside of this folder.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const CLIENTS = require("./clients.cjs");
const SCENARIOS = require("./scenarios.cjs");

// Less than the suite's limit, because the suite would kill the client without a report.
const LIMIT = 15;

async function main(kind, url) {
  const { MCP_GANGWAY_BIN, MCP_CONFORMANCE_SCENARIO, MCP_CONFORMANCE_PROTOCOL_VERSION, MCP_CONFORMANCE_CONTEXT } =
    process.env;
  const steps = SCENARIOS[MCP_CONFORMANCE_SCENARIO];
  assert(steps, `scenarios.cjs has no steps for ${MCP_CONFORMANCE_SCENARIO}`);

  const complaints = [];
  const context = JSON.parse(MCP_CONFORMANCE_CONTEXT ?? "{}");
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "conformance-"));
  process.on("exit", () => fs.rmSync(folder, { recursive: true, force: true }));
  // The modern client sends a probe but cannot fall back, so the bridge needs this setting.
  const env = { ...user(folder), ...steps.environment?.(context), ...(kind === "modern" && { MCP_ERA: "modern" }) };
  const session = CLIENTS[kind]({ command: MCP_GANGWAY_BIN, args: [url], env, stderr: "inherit" });
  session.client.onerror = (error) => complaints.push(String(error));
  const ended = watch(session.transport);
  const connected = session.connect(MCP_CONFORMANCE_PROTOCOL_VERSION, { probe: !steps.unprobed });
  const done = connected.then(() => steps(session, { kind, url, ...context }));
  if (steps.refusal) {
    // The SDK 2.x has its own error message.
    const message = kind === "modern" ? /did not offer pinned protocol version/ : steps.refusal;
    await assert.rejects(done, { message });
    return session.client.close();
  }
  await done;
  await session.client.close();
  assert.deepEqual(await ended, { code: 0, signal: null });
  assert.deepEqual(complaints, []);
}

// The environment of a user who signs in as soon as a browser opens, with a folder for the tokens.
function user(folder) {
  const browser = path.join(folder, "xdg-open");
  fs.writeFileSync(browser, `#!/bin/sh\nexec "${process.execPath}" -e 'fetch(process.argv[1])' "$1"\n`, { mode: 0o700 });
  const search = [folder, process.env.PATH].join(path.delimiter);
  return { PATH: search, DISPLAY: ":0", MCP_STATE_FOLDER: path.join(folder, "state"), MCP_NO_KEYCHAIN: "1" };
}

// Report how the bridge ends. The SDKs do not, and they signal a bridge that is late.
function watch(transport) {
  return new Promise((resolve) => {
    const start = transport.start.bind(transport);
    transport.start = async () => {
      await start();
      transport._process.on("exit", (code, signal) => resolve({ code, signal }));
    };
  });
}

function fail(error) {
  console.error(error);
  process.exit(1); // The bridge may still run.
}

const limit = setTimeout(() => fail(new Error(`not done after ${LIMIT} s`)), LIMIT * 1000);
main(...process.argv.slice(2)).then(() => {
  clearTimeout(limit);
  console.log("done");
}, fail);
