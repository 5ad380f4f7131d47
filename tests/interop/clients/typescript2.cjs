// The TypeScript SDK 2.x as a client of the bridge; dialogue.py describes plans and reports.
"use strict";

const fs = require("node:fs");
const { Client } = require("@modelcontextprotocol/client");
const { StdioClientTransport } = require("@modelcontextprotocol/client/stdio");
const { main } = require("./dialogue.cjs");

main(async (dialogue) => {
  const { launch, stderr } = dialogue.plan;
  const mode = dialogue.plan.mode.startsWith("20") ? { pin: dialogue.plan.mode } : dialogue.plan.mode;
  const client = new Client(
    { name: "interop", version: "1.0.0" },
    { capabilities: { sampling: {}, elicitation: { form: {}, url: {} }, roots: {} }, versionNegotiation: { mode } },
  );
  for (const [method, handler] of Object.entries(dialogue.requestHandlers())) {
    client.setRequestHandler(method, handler);
  }
  for (const [method, handler] of Object.entries(dialogue.notificationHandlers())) {
    client.setNotificationHandler(method, handler);
  }
  client.onerror = (error) => dialogue.report.complaints.push(String(error));
  dialogue.sdkCallTool = (params, options) => client.callTool(params, options);

  const transport = new StdioClientTransport({ ...launch, stderr: fs.openSync(stderr, "a") });
  dialogue.watchStdout(transport);
  await client.connect(transport);
  dialogue.report.protocol = client.getNegotiatedProtocolVersion();
  dialogue.modern = client.getProtocolEra() === "modern";
  await dialogue.run(client);
  await client.close();
});
