// The client that the conformance suite tests: `node client.cjs KIND URL` has a TypeScript SDK launch the bridge with
// the URL and does the steps of one scenario through it. KIND is that of clients.cjs; scenarios.cjs has the steps.
//
// The last line of stdout is "done" if all went well, and the bridge had exited by itself.
//
// The environment names the bridge (MCP_GANGWAY_BIN), and the suite adds the scenario, the protocol version of its
// server, and for some scenarios what the steps need to know.
// CommonJS, here and in the others, because it finds the SDKs by NODE_PATH, away from this folder.
"use strict";

const assert = require("node:assert/strict");
const CLIENTS = require("./clients.cjs");
const SCENARIOS = require("./scenarios.cjs");

// Less than the suite allows, as a client that it kills tells nothing.
const LIMIT = 15;

async function main(kind, url) {
  const { MCP_GANGWAY_BIN, MCP_CONFORMANCE_SCENARIO, MCP_CONFORMANCE_PROTOCOL_VERSION, MCP_CONFORMANCE_CONTEXT } =
    process.env;
  const steps = SCENARIOS[MCP_CONFORMANCE_SCENARIO];
  assert(steps, `scenarios.cjs has no steps for ${MCP_CONFORMANCE_SCENARIO}`);

  const complaints = [];
  const session = CLIENTS[kind]({ command: MCP_GANGWAY_BIN, args: [url], stderr: "inherit" });
  session.client.onerror = (error) => complaints.push(String(error));
  const ended = watch(session.transport);
  await session.connect(MCP_CONFORMANCE_PROTOCOL_VERSION, { probe: !steps.unprobed });
  await steps(session, { kind, url, ...JSON.parse(MCP_CONFORMANCE_CONTEXT ?? "{}") });
  await session.client.close();
  assert.deepEqual(await ended, { code: 0, signal: null });
  assert.deepEqual(complaints, []);
}

// Tell how the bridge ends; the SDKs do not, and signal it when it is late.
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
  process.exit(1); // The bridge may still be there.
}

const limit = setTimeout(() => fail(new Error(`not done after ${LIMIT} s`)), LIMIT * 1000);
main(...process.argv.slice(2)).then(() => {
  clearTimeout(limit);
  console.log("done");
}, fail);
