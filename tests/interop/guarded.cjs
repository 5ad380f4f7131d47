// An MCP server behind the authorization server of the TypeScript SDK: registration, PKCE, refresh tokens, and a
// consent page with a button.
//
// Run it as `guarded.cjs PORT`; MCP is at http://127.0.0.1:PORT/mcp. It logs the requested grants. The tool `whoami`
// names the token in use, and `expire` invalidates it.
//
// CommonJS, because it finds the SDK by NODE_PATH, outside of this folder.
"use strict";

const { randomUUID } = require("node:crypto");
const express = require("express");
const { InvalidGrantError, InvalidTokenError } = require("@modelcontextprotocol/sdk/server/auth/errors.js");
const { requireBearerAuth } = require("@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js");
const { mcpAuthRouter } = require("@modelcontextprotocol/sdk/server/auth/router.js");
const { Server } = require("@modelcontextprotocol/sdk/server/index.js");
const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");
const types = require("@modelcontextprotocol/sdk/types.js");

const port = Number(process.argv[2]);
const origin = new URL(`http://127.0.0.1:${port}`);
const resource = new URL("/mcp", origin);
const LIFE = 3600;

const clients = new Map();
// Authorization requests: by the id on the consent page, and then by code.
const requests = new Map();
const codes = new Map();
const refreshTokens = new Map();
const tokens = new Map();
let count = 0;

const provider = {
  clientsStore: {
    getClient: (id) => clients.get(id),
    registerClient: (client) => {
      console.log(`registered: ${client.client_name}`);
      const registered = { ...client, client_id: randomUUID(), client_id_issued_at: Math.floor(Date.now() / 1000) };
      clients.set(registered.client_id, registered);
      return registered;
    },
  },
  authorize: async (client, params, response) => {
    const id = randomUUID();
    requests.set(id, { client: client.client_id, ...params });
    const form = `<form method="post" action="/consent"><button name="id" value="${id}">Allow</button></form>`;
    response.type("html").send(`<!DOCTYPE html><title>Consent</title><h1>${client.client_name}</h1>${form}`);
  },
  challengeForAuthorizationCode: async (_, code) => {
    if (!codes.has(code)) throw new InvalidGrantError("no such code");
    return codes.get(code).codeChallenge;
  },
  exchangeAuthorizationCode: async (client, code, _verifier, redirectUri, wanted) => {
    const request = codes.get(code);
    codes.delete(code);
    const isSame = request?.client === client.client_id && request.redirectUri === redirectUri;
    if (!isSame || wanted?.href !== resource.href) throw new InvalidGrantError("not what was consented to");
    return grant(client, request.scopes ?? [], "code");
  },
  exchangeRefreshToken: async (client, token, _scopes, wanted) => {
    const kept = refreshTokens.get(token);
    // Each refresh token works once.
    refreshTokens.delete(token);
    if (kept?.client !== client.client_id || wanted?.href !== resource.href) throw new InvalidGrantError("no such token");
    return grant(client, kept.scopes, "refresh");
  },
  revokeToken: async (_, { token }) => {
    console.log(`revoked: ${tokens.delete(token) || refreshTokens.delete(token)}`);
  },
  verifyAccessToken: async (token) => {
    if (!tokens.has(token)) throw new InvalidTokenError("no such token");
    return tokens.get(token);
  },
};

function grant(client, scopes, from) {
  count += 1;
  console.log(`granted: ${from}`);
  const [token, refreshToken] = [`${count}-${randomUUID()}`, randomUUID()];
  const expiresAt = Math.floor(Date.now() / 1000) + LIFE;
  tokens.set(token, { token, clientId: client.client_id, scopes, expiresAt, resource });
  refreshTokens.set(refreshToken, { client: client.client_id, scopes });
  const scope = scopes.join(" ");
  return { access_token: token, token_type: "bearer", expires_in: LIFE, refresh_token: refreshToken, scope };
}

const TOOLS = {
  whoami: (token) => `token ${token.split("-")[0]}`,
  expire: (token) => `expired: ${tokens.delete(token)}`,
};

function serve() {
  const server = new Server({ name: "guarded", version: "1.0.0" }, { capabilities: { tools: {} } });
  const tools = Object.keys(TOOLS).map((name) => ({ name, inputSchema: { type: "object" } }));
  server.setRequestHandler(types.ListToolsRequestSchema, () => ({ tools }));
  server.setRequestHandler(types.CallToolRequestSchema, ({ params }, { authInfo }) => ({
    content: [{ type: "text", text: TOOLS[params.name](authInfo.token) }],
  }));
  return server;
}

const app = express();
app.use(mcpAuthRouter({ provider, issuerUrl: origin, resourceServerUrl: resource, scopesSupported: ["tools"] }));
app.post("/consent", express.urlencoded({ extended: false }), (request, response) => {
  const [consented, code] = [requests.get(request.body.id), randomUUID()];
  requests.delete(request.body.id);
  codes.set(code, consented);
  const back = new URL(consented.redirectUri);
  back.searchParams.set("code", code);
  back.searchParams.set("state", consented.state);
  response.redirect(back.href);
});
const resourceMetadataUrl = new URL("/.well-known/oauth-protected-resource/mcp", origin).href;
app.use("/mcp", requireBearerAuth({ verifier: provider, requiredScopes: ["tools"], resourceMetadataUrl }));
app.post("/mcp", express.json(), async (request, response) => {
  const [server, transport] = [serve(), new StreamableHTTPServerTransport({ sessionIdGenerator: undefined })];
  response.on("close", () => server.close());
  await server.connect(transport);
  await transport.handleRequest(request, response, request.body);
});
app.all("/mcp", (_, response) => response.sendStatus(405));
app.listen(port, "127.0.0.1");
