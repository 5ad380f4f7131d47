// The TypeScript SDK 2.x; steps.py describes plans and reports.
"use strict";

const { Client, SSEClientTransport, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");
const { StdioClientTransport } = require("@modelcontextprotocol/client/stdio");
const { PERSON, main } = require("./steps.cjs");

main(async (dialogue, saw, complain) => {
  const mode = dialogue.mode.startsWith("20") ? { pin: dialogue.mode } : dialogue.mode;
  const client = new Client(
    { name: "field", version: "1.0.0" },
    { capabilities: { elicitation: { form: {} } }, versionNegotiation: { mode } },
  );
  client.setRequestHandler("elicitation/create", ({ params }) => {
    saw("elicitation", params.message);
    return { action: "accept", content: PERSON };
  });
  const on = (method, note) => client.setNotificationHandler(method, ({ params }) => note(params));
  on("notifications/message", (params) => saw("log", params.level, params.data));
  on("notifications/tools/list_changed", () => saw("tools changed"));
  on("notifications/resources/updated", (params) => saw("updated", params.uri));
  on("notifications/progress", (params) => saw("progress", params.progress, params.total, params.message));
  client.onerror = complain;

  const Transport = dialogue.transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
  const transport = dialogue.launch ? new StdioClientTransport(dialogue.launch) : new Transport(new URL(dialogue.url));
  await client.connect(transport);
  return {
    hears: ["progress", "log", "elicitation", "tools changed", "updated"],
    about: () => [
      client.getNegotiatedProtocolVersion(),
      client.getServerVersion(),
      client.getServerCapabilities(),
      client.getInstructions(),
    ],
    tools: async () => (await client.listTools()).tools,
    resources: async () => (await client.listResources()).resources,
    templates: async () => (await client.listResourceTemplates()).resourceTemplates,
    prompts: async () => (await client.listPrompts()).prompts,
    call: ({ tool, arguments: args, progress }) => {
      const meta = progress ? { _meta: { progressToken: tool } } : {};
      return client.callTool({ name: tool, arguments: args, ...meta });
    },
    read: ({ uri }) => client.readResource({ uri }),
    prompt: ({ prompt, arguments: args }) => client.getPrompt({ name: prompt, arguments: args }),
    ping: () => client.ping(),
    level: ({ level }) => client.setLoggingLevel(level),
    subscribe: ({ uri }) => client.subscribeResource({ uri }),
    unsubscribe: ({ uri }) => client.unsubscribeResource({ uri }),
    close: () => client.close(),
  };
});
