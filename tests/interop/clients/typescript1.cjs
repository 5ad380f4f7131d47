// The TypeScript SDK 1.x as a client of the bridge; dialogue.py describes plans and reports.
"use strict";

const fs = require("node:fs");
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");
const types = require("@modelcontextprotocol/sdk/types.js");
const { main } = require("./dialogue.cjs");

const SCHEMAS = {
  "sampling/createMessage": types.CreateMessageRequestSchema,
  "elicitation/create": types.ElicitRequestSchema,
  "roots/list": types.ListRootsRequestSchema,
  "notifications/progress": types.ProgressNotificationSchema,
  "notifications/message": types.LoggingMessageNotificationSchema,
  "notifications/tools/list_changed": types.ToolListChangedNotificationSchema,
  "notifications/resources/updated": types.ResourceUpdatedNotificationSchema,
};

main(async (dialogue) => {
  const { launch, stderr } = dialogue.plan;
  const client = new Client(
    { name: "interop", version: "1.0.0" },
    { capabilities: { sampling: {}, elicitation: { form: {}, url: {} }, roots: {} } },
  );
  for (const [method, handler] of Object.entries(dialogue.requestHandlers())) {
    client.setRequestHandler(SCHEMAS[method], handler);
  }
  for (const [method, handler] of Object.entries(dialogue.notificationHandlers())) {
    client.setNotificationHandler(SCHEMAS[method], handler);
  }
  client.onerror = (error) => dialogue.report.complaints.push(String(error));
  dialogue.sdkCallTool = (params, options) => client.callTool(params, undefined, options);
  // This version puts the code before the message.
  dialogue.messageOf = (error) => error.message.replace(/^MCP error -?\d+: /, "");

  const transport = new StdioClientTransport({ ...launch, stderr: fs.openSync(stderr, "a") });
  dialogue.watchStdout(transport);
  await client.connect(transport);
  await dialogue.run(client);
  await client.close();
});
