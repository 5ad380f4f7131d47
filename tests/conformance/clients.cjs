// The two kinds of client, one per era of MCP, with one interface for the steps of scenarios.cjs:
//
// - legacy: the TypeScript SDK 1.x. It starts with `initialize`.
// - modern: the TypeScript SDK 2.x, pinned to 2026-07-28. It never falls back to an earlier version. Before the bridge
//   that it uses, it launches another one, asks it for its versions, and terminates it.
//
// A session has the SDK's `client` and `transport`, and the operations that differ between the SDKs:
//
// - connect(wire, { probe }): connects, where `wire` is the version of the suite's server, and checks the negotiated
//   version. Without `probe`, a modern client assumes that the server supports its version.
// - request(method, params): returns a result as it arrived; an SDK's parsing could drop parts that the bridge kept.
// - onElicitation(handler): sets the handler for the parameters of an elicitation.
"use strict";

const assert = require("node:assert/strict");
const sdk1 = {
  ...require("@modelcontextprotocol/sdk/client/index.js"),
  ...require("@modelcontextprotocol/sdk/client/stdio.js"),
  ...require("@modelcontextprotocol/sdk/types.js"),
};
const sdk2 = {
  ...require("@modelcontextprotocol/client"),
  ...require("@modelcontextprotocol/client/stdio"),
};

const NEWEST_LEGACY = "2025-11-25";
const MODERN = "2026-07-28";

const IDENTITY = { name: "conformance", version: "1.0.0" };
const CAPABILITIES = {
  elicitation: { form: { applyDefaults: true } },
  extensions: { "io.modelcontextprotocol/skills": {} },
  roots: {},
  sampling: {},
};
const ANYTHING = { "~standard": { version: 1, vendor: "conformance", validate: (value) => ({ value }) } };

function legacy(launch) {
  const client = new sdk1.Client(IDENTITY, { capabilities: CAPABILITIES });
  const transport = new sdk1.StdioClientTransport(launch);
  return {
    client,
    transport,
    async connect(wire) {
      const version = wire === MODERN ? NEWEST_LEGACY : wire;
      const negotiated = negotiate(transport, version);
      await client.connect(transport);
      assert.equal(await negotiated, version);
    },
    request: (method, params) => client.request({ method, params }, sdk1.ResultSchema),
    onElicitation: (handler) => client.setRequestHandler(sdk1.ElicitRequestSchema, ({ params }) => handler(params)),
  };
}

// Ask for the version instead of the SDK's newest, and return the negotiated one.
function negotiate(transport, version) {
  const send = transport.send.bind(transport);
  transport.send = (message) => {
    if (message.method === "initialize") message.params.protocolVersion = version;
    return send(message);
  };
  return new Promise((resolve) => {
    transport.setProtocolVersion = resolve;
  });
}

function modern(launch) {
  const client = new sdk2.Client(IDENTITY, {
    capabilities: CAPABILITIES,
    versionNegotiation: { mode: { pin: MODERN } },
  });
  const transport = new sdk2.StdioClientTransport(launch);
  return {
    client,
    transport,
    async connect(_wire, { probe }) {
      const discover = { supportedVersions: [MODERN], capabilities: {}, ttlMs: 0, cacheScope: "private" };
      await client.connect(transport, probe ? {} : { prior: { kind: "modern", discover } });
      assert.equal(client.getNegotiatedProtocolVersion(), MODERN);
    },
    request: (method, params) => client.request({ method, params }, ANYTHING),
    onElicitation: (handler) => client.setRequestHandler("elicitation/create", ({ params }) => handler(params)),
  };
}

module.exports = { legacy, modern };
