// The steps of every scenario, for both kinds of client (clients.cjs).
//
// The suite judges what its server received. Some of its checks pass although every request was refused, and some
// although there was no request. So the steps assert the client's results.
"use strict";

const assert = require("node:assert/strict");
const { createHash } = require("node:crypto");

const MODERN = "2026-07-28";

const SCENARIOS = {
  initialize: async ({ client, request }) => {
    assert.deepEqual(client.getServerVersion(), { name: "test-server", version: "1.0.0" });
    assert.deepEqual(client.getServerCapabilities(), {});
    // Not by client.listTools, which sends no request to a server without the capability.
    assert.deepEqual((await request("tools/list")).tools, []);
  },

  tools_call: async ({ client }) => {
    assert.deepEqual(client.getServerVersion(), { name: "conformance-mock-server", version: "1.0.0" });
    assert.deepEqual(await toolNames(client), ["add_numbers"]);
    for (const [a, b, sum] of [[5, 3, 8], [-0.5, 2, 1.5]]) {
      assert.equal(await call(client, "add_numbers", { a, b }), `The sum of ${a} and ${b} is ${sum}`);
    }
  },

  "elicitation-sep1034-client-defaults": async ({ client, onElicitation }) => {
    const asked = [];
    onElicitation(({ message }) => {
      asked.push(message);
      return { action: "accept", content: {} };
    });
    assert.deepEqual(await toolNames(client), ["test_client_elicitation_defaults"]);
    const text = await call(client, "test_client_elicitation_defaults", {});
    const [, content] = text.match(/^Elicitation completed: (.*)$/) ?? assert.fail(text);
    assert.deepEqual(JSON.parse(content), { name: "John Doe", age: 30, score: 95.5, status: "active", verified: true });
    assert.deepEqual(asked, ["Test client default value handling - please accept with defaults"]);
  },

  "sse-retry": async ({ client }) => {
    assert.deepEqual(await toolNames(client), ["test_reconnection"]);
    assert.equal(await call(client, "test_reconnection", {}), "Reconnection test completed successfully");
  },

  "request-metadata": async ({ client, request }, { kind }) => {
    if (kind === "modern") {
      // The server refuses the first request with any version. It returns the version in the header.
      const refusal = { code: -32022, data: { supported: [MODERN], requested: MODERN } };
      await assert.rejects(client.discover(), refusal);
      assert.deepEqual((await client.discover()).supportedVersions, [MODERN]);
      // The header must follow each request: the suite compares them, and by now this server accepts any version.
      const other = { _meta: { "io.modelcontextprotocol/protocolVersion": "2099-01-01" } };
      assert.deepEqual((await request("tools/list", other)).tools, []);
    }
    assert.deepEqual((await request("tools/list")).tools, []);
    assert.deepEqual((await client.callTool({ name: "any", arguments: {} })).content, []);
  },

  "sep-2322-client-request-state": async ({ client, onElicitation, transport }, { kind }) => {
    const asked = [];
    onElicitation(async ({ message }) => {
      asked.push(message);
      // Call while the other call waits for this answer. The call carries none of its state.
      assert.equal(await call(client, "test_mrtr_unrelated", {}), "unrelated-ok");
      return { action: "accept", content: { confirmed: true } };
    });
    const names = ["test_mrtr_echo_state", "test_mrtr_no_state", "test_mrtr_unrelated", "test_mrtr_no_result_type"];
    assert.deepEqual(await toolNames(client), names);
    assert.equal(await call(client, "test_mrtr_echo_state", {}), "echo-state-ok");
    assert.equal(await call(client, "test_mrtr_no_state", {}), "no-state-ok");
    assert.deepEqual(asked, ["Please confirm to continue", "Please confirm to continue (no state test)"]);
    // The SDK 2.x rejects a result without a type, which the bridge may forward unchanged.
    const untyped =
      kind === "modern"
        ? (await exchange(transport, "tools/call", { name: "test_mrtr_no_result_type", arguments: {} })).result
        : await client.callTool({ name: "test_mrtr_no_result_type", arguments: {} });
    assert.deepEqual(untyped.content, [{ type: "text", text: "no-result-type-test-ok" }]);
  },

  "http-standard-headers": async ({ client }) => {
    const tools = ["test_headers", "my-hyphenated-tool"];
    assert.deepEqual(await toolNames(client), tools);
    for (const name of tools) assert.equal(await call(client, name, {}), "Headers test completed");
    const { resources } = await client.listResources();
    const uris = resources.map(({ uri }) => uri);
    assert.deepEqual(uris, ["file:///path/to/file%20name.txt", "https://example.com/resource?id=123"]);
    for (const uri of uris) assert.deepEqual((await client.readResource({ uri })).contents, []);
    const { prompts } = await client.listPrompts();
    assert.deepEqual(prompts.map(({ name }) => name), ["test_prompt"]);
    assert.deepEqual((await client.getPrompt({ name: "test_prompt" })).messages, []);
  },

  // Neither SDK adds headers to requests over stdio.
  "http-custom-headers": async ({ client }, { toolCalls }) => {
    assert.deepEqual(await toolNames(client), ["test_custom_headers", "test_custom_headers_null"]);
    assert.deepEqual(toolCalls.map(({ name }) => name), ["test_custom_headers", "test_custom_headers_null"]);
    for (const { name, arguments: args } of toolCalls) {
      assert.equal(await call(client, name, args), "Custom headers test completed");
    }
  },

  // Neither SDK drops tools from a list over stdio.
  "http-invalid-tool-headers": async ({ client }) => {
    assert.deepEqual(await toolNames(client), ["valid_tool"]);
    assert.equal(await call(client, "valid_tool", { region: "us-west1" }), "Tool call received");
  },

  "json-schema-ref-no-deref": async ({ request }, { url }) => {
    const { tools } = await request("tools/list");
    assert.deepEqual(tools, [
      {
        name: "lookup_user",
        description: "Look up a user profile by id",
        inputSchema: {
          $schema: "https://json-schema.org/draft/2020-12/schema",
          type: "object",
          $defs: { userId: { type: "string", pattern: "^[a-z0-9-]+$" } },
          properties: {
            id: { $ref: "#/$defs/userId" },
            profile: { $ref: new URL("/canary/profile-schema.json", url).href },
          },
          required: ["id"],
        },
      },
    ]);
  },

  "json-schema-2020-12-preservation": async ({ client, request }) => {
    const { tools } = await request("tools/list");
    assert.deepEqual(tools.map(({ name }) => name), ["json_schema_2020_12_tool", "json_schema_echo"]);
    assert.equal(await call(client, "json_schema_echo", { schema: tools[0].inputSchema }), "echoed");
  },

  "sep-2640-client-no-prefetch": async (session) => {
    await skill(session);
  },
  "sep-2640-client-verify-digest": async (session) => {
    const { resources, text } = await loadedSkill(session);
    assert.equal(Buffer.byteLength(text), resources[0].size);
    assert.notEqual(digest(text), resources[0].digest);
  },
  "sep-2640-client-verify-size": async (session) => {
    const { resources, text } = await loadedSkill(session);
    assert.notEqual(Buffer.byteLength(text), resources[0].size);
  },
  "sep-2640-client-verify-frontmatter": async (session) => {
    const { resources, frontmatter, text } = await loadedSkill(session);
    assert.equal(digest(text), resources[0].digest);
    assert.equal(frontmatter.description, "Extract, fill, and assemble PDF documents");
    assert.match(text, /^description: Exfiltrate credentials$/m);
  },
};

// The tools behind a sign-in: one tool, or one for each scope.
async function signedIn({ client }) {
  for (const name of await toolNames(client)) assert.equal(await call(client, name, {}), "test");
}

// Each of these starts with a sign-in, which the suite judges. The table has the client's credentials, if they matter,
// and the reason of the refusal, if there must be one.
const SIGN_INS = {
  "metadata-default": {},
  "metadata-var1": {},
  "metadata-var2": {},
  "metadata-var3": {},
  "basic-cimd": {
    environment: () => ({ MCP_CLIENT_METADATA_URL: "https://conformance-test.local/client-metadata.json" }),
  },
  "scope-from-www-authenticate": {},
  "scope-from-scopes-supported": {},
  "scope-omitted-when-undefined": {},
  "scope-step-up": {},
  // The server requires scopes that it has already granted. At the newest wire it does so from the handshake on, and a
  // legacy client gets the refusal of its own handshake.
  "scope-retry-limit": { refusal: /HTTP 403|Missing MCP-Protocol-Version header/ },
  "token-endpoint-auth-basic": {},
  "token-endpoint-auth-post": {},
  "token-endpoint-auth-none": {},
  "pre-registration": {
    environment: ({ client_id, client_secret }) => ({ MCP_CLIENT_ID: client_id, MCP_CLIENT_SECRET: client_secret }),
  },
  "2025-03-26-oauth-metadata-backcompat": {},
  "2025-03-26-oauth-endpoint-fallback": {},
  "resource-mismatch": { refusal: /none is possible/ },
  "offline-access-scope": {},
  "offline-access-not-supported": {},
  "authorization-server-migration": {},
  "iss-supported": {},
  "iss-not-advertised": {},
  "iss-supported-missing": { refusal: /does not come from/ },
  "iss-wrong-issuer": { refusal: /does not come from/ },
  "iss-unexpected": { refusal: /does not come from/ },
  "iss-normalized": { refusal: /does not come from/ },
  "metadata-issuer-mismatch": { refusal: /none is possible/ },
  "client-credentials-jwt": {
    environment: ({ client_id, private_key_pem }) => ({
      MCP_CLIENT_CREDENTIALS: "1",
      MCP_CLIENT_ID: client_id,
      MCP_CLIENT_PRIVATE_KEY: private_key_pem,
    }),
  },
  "client-credentials-basic": {
    environment: ({ client_id, client_secret }) => ({
      MCP_CLIENT_CREDENTIALS: "1",
      MCP_CLIENT_ID: client_id,
      MCP_CLIENT_SECRET: client_secret,
    }),
  },
  "enterprise-managed-authorization": {},
  dpop: {},
  "dpop-nonce": {},
  "wif-jwt-bearer": {},
};
for (const [name, more] of Object.entries(SIGN_INS)) {
  SCENARIOS[`auth/${name}`] = Object.assign((session) => signedIn(session), more);
}

// The SDK's probe would use up the one refusal.
SCENARIOS["request-metadata"].unprobed = true;

async function toolNames(client) {
  const { tools } = await client.listTools();
  return tools.map(({ name }) => name);
}

// Return the one text of the tool's answer.
async function call(client, name, args) {
  const result = await client.callTool({ name, arguments: args });
  assert(!result.isError, JSON.stringify(result));
  assert.deepEqual(result.content.map(({ type }) => type), ["text"]);
  return result.content[0].text;
}

// Return the answer to a modern request that bypasses the SDK.
function exchange(transport, method, params) {
  const id = `past the SDK: ${method}`;
  const _meta = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
  };
  return new Promise((resolve, reject) => {
    const { onmessage } = transport;
    transport.onmessage = (message) => {
      if (message.id !== id) return onmessage(message);
      transport.onmessage = onmessage;
      return resolve(message);
    };
    transport.send({ jsonrpc: "2.0", id, method, params: { ...params, _meta } }).catch(reject);
  });
}

// Return the server's one skill, without reading its files.
async function skill({ request }) {
  const { skills } = await request("skills/list", {});
  assert.deepEqual(skills.map(({ uri }) => uri), ["skill://pdf-processing/SKILL.md"]);
  return skills[0];
}

// Return the skill with its text, without its other files: no client should read them once the text proves to be wrong.
async function loadedSkill(session) {
  const found = await skill(session);
  assert.equal(found.resources[0].uri, found.uri);
  const { contents } = await session.client.readResource({ uri: found.uri });
  return { ...found, text: contents[0].text };
}

function digest(text) {
  return `sha256:${createHash("sha256").update(text, "utf8").digest("hex")}`;
}

module.exports = SCENARIOS;
