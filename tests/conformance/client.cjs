// The client that the conformance suite tests: `node client.cjs URL` has the TypeScript SDK launch the bridge with the
// URL and does the steps of one scenario through it.
//
// The suite judges what its server saw, and some of its checks pass although nothing was answered. So the steps
// assert what the client gets. The last line of stdout is "done" if all went well, and the bridge had exited by itself.
//
// The environment names the bridge (MCP_GANGWAY_BIN), and the suite adds the scenario and the protocol version.
// CommonJS, because it finds the SDK by NODE_PATH, away from this folder.
"use strict";

const assert = require("node:assert/strict");
const { createHash } = require("node:crypto");
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");
const { ElicitRequestSchema, ResultSchema } = require("@modelcontextprotocol/sdk/types.js");

// Less than the suite allows, as a client that it kills tells nothing.
const LIMIT = 15;

const SCENARIOS = {
  initialize: async (client) => {
    assert.deepEqual(client.getServerVersion(), { name: "test-server", version: "1.0.0" });
    assert.deepEqual(client.getServerCapabilities(), {});
    assert.deepEqual(await client.listTools(), { tools: [] });
  },

  tools_call: async (client) => {
    assert.deepEqual(await toolNames(client), ["add_numbers"]);
    for (const [a, b, sum] of [[5, 3, 8], [-0.5, 2, 1.5]]) {
      assert.equal(await call(client, "add_numbers", { a, b }), `The sum of ${a} and ${b} is ${sum}`);
    }
  },

  "elicitation-sep1034-client-defaults": async (client) => {
    const asked = [];
    client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
      asked.push(params.message);
      return { action: "accept", content: {} };
    });
    assert.deepEqual(await toolNames(client), ["test_client_elicitation_defaults"]);
    const text = await call(client, "test_client_elicitation_defaults", {});
    const [, content] = text.match(/^Elicitation completed: (.*)$/) ?? assert.fail(text);
    assert.deepEqual(JSON.parse(content), { name: "John Doe", age: 30, score: 95.5, status: "active", verified: true });
    assert.deepEqual(asked, ["Test client default value handling - please accept with defaults"]);
  },

  "sse-retry": async (client) => {
    assert.deepEqual(await toolNames(client), ["test_reconnection"]);
    assert.equal(await call(client, "test_reconnection", {}), "Reconnection test completed successfully");
  },

  "json-schema-2020-12-preservation": async (client) => {
    // Past the SDK's own idea of a tool, which could lose what the bridge has kept.
    const { tools } = await client.request({ method: "tools/list" }, ResultSchema);
    assert.deepEqual(tools.map(({ name }) => name), ["json_schema_2020_12_tool", "json_schema_echo"]);
    assert.equal(await call(client, "json_schema_echo", { schema: tools[0].inputSchema }), "echoed");
  },

  "sep-2640-client-no-prefetch": async (client) => {
    await skill(client);
  },
  "sep-2640-client-verify-digest": async (client) => {
    const { resources, text } = await loadedSkill(client);
    assert.equal(Buffer.byteLength(text), resources[0].size);
    assert.notEqual(digest(text), resources[0].digest);
  },
  "sep-2640-client-verify-size": async (client) => {
    const { resources, text } = await loadedSkill(client);
    assert.notEqual(Buffer.byteLength(text), resources[0].size);
  },
  "sep-2640-client-verify-frontmatter": async (client) => {
    const { resources, frontmatter, text } = await loadedSkill(client);
    assert.equal(digest(text), resources[0].digest);
    assert.equal(frontmatter.description, "Extract, fill, and assemble PDF documents");
    assert.match(text, /^description: Exfiltrate credentials$/m);
  },
};

async function main(url) {
  const { MCP_GANGWAY_BIN, MCP_CONFORMANCE_SCENARIO, MCP_CONFORMANCE_PROTOCOL_VERSION } = process.env;
  const steps = SCENARIOS[MCP_CONFORMANCE_SCENARIO];
  assert(steps, `client.cjs has no steps for the scenario ${MCP_CONFORMANCE_SCENARIO}`);

  const complaints = [];
  const client = new Client(
    { name: "conformance", version: "1.0.0" },
    {
      capabilities: {
        elicitation: { form: { applyDefaults: true } },
        extensions: { "io.modelcontextprotocol/skills": {} },
      },
    },
  );
  client.onerror = (error) => complaints.push(String(error));

  const transport = new StdioClientTransport({ command: MCP_GANGWAY_BIN, args: [url], stderr: "inherit" });
  const ended = watch(transport);
  const negotiated = negotiate(transport, MCP_CONFORMANCE_PROTOCOL_VERSION);
  await client.connect(transport);
  assert.equal(await negotiated, MCP_CONFORMANCE_PROTOCOL_VERSION);
  await steps(client);
  await client.close();
  assert.deepEqual(await ended, { code: 0, signal: null });
  assert.deepEqual(complaints, []);
}

// Ask for the version instead of the SDK's newest, and tell which one is agreed on.
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

// Tell how the bridge ends; the SDK does not, and signals it when it is late.
function watch(transport) {
  return new Promise((resolve) => {
    const start = transport.start.bind(transport);
    transport.start = async () => {
      await start();
      transport._process.on("exit", (code, signal) => resolve({ code, signal }));
    };
  });
}

async function toolNames(client) {
  const { tools } = await client.listTools();
  return tools.map(({ name }) => name);
}

// The one text that the tool answers with.
async function call(client, name, args) {
  const result = await client.callTool({ name, arguments: args });
  assert(!result.isError, JSON.stringify(result));
  assert.deepEqual(result.content.map(({ type }) => type), ["text"]);
  return result.content[0].text;
}

// The one skill that the server has, and not yet any of its files.
async function skill(client) {
  const { skills } = await client.request({ method: "skills/list", params: {} }, ResultSchema);
  assert.deepEqual(skills.map(({ uri }) => uri), ["skill://pdf-processing/SKILL.md"]);
  return skills[0];
}

// The skill with its text, and not yet its other files, which nobody may want once the text proves to be false.
async function loadedSkill(client) {
  const found = await skill(client);
  assert.equal(found.resources[0].uri, found.uri);
  const { contents } = await client.readResource({ uri: found.uri });
  return { ...found, text: contents[0].text };
}

function digest(text) {
  return `sha256:${createHash("sha256").update(text, "utf8").digest("hex")}`;
}

function fail(error) {
  console.error(error);
  process.exit(1); // The bridge may still be there.
}

const limit = setTimeout(() => fail(new Error(`not done after ${LIMIT} s`)), LIMIT * 1000);
main(process.argv[2]).then(() => {
  clearTimeout(limit);
  console.log("done");
}, fail);
