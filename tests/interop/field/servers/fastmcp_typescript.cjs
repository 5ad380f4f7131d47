// The tools of fastmcp_server.py on FastMCP for TypeScript; run it as `fastmcp_typescript.cjs PORT`.
"use strict";

const { FastMCP } = require("fastmcp");
const { z } = require("zod");

const server = new FastMCP({
  name: "field",
  version: "1.0.0",
  instructions: "Tools that frameworks have in common.",
  // Its own pings would come at any time.
  ping: { enabled: false },
});

const tool = (name, parameters, execute) => server.addTool({ name, parameters: z.object(parameters), execute });

tool("echo", { text: z.string() }, async ({ text }) => text);

tool("describe", { name: z.string() }, async ({ name }) => JSON.stringify({ name, length: name.length }));

tool("repeat", { text: z.string(), times: z.number() }, async ({ text, times }) => text.repeat(times));

tool("count", { steps: z.number() }, async ({ steps }, { reportProgress }) => {
  for (let progress = 1; progress <= steps; progress++) {
    await reportProgress({ progress, total: steps, message: `step ${progress}` });
  }
  return `counted to ${steps}`;
});

tool("fail", { reason: z.string() }, async ({ reason }) => {
  throw new Error(reason);
});

tool("log", { text: z.string() }, async ({ text }, { log }) => {
  log.info(text);
  log.warn(text);
  log.error(text);
  return "logged";
});

tool("ask", { question: z.string() }, async ({ question }, { elicit }) => {
  const properties = { name: { type: "string" }, age: { type: "integer" } };
  const requestedSchema = { type: "object", properties, required: ["name", "age"] };
  const { action, content } = await elicit({ message: question, requestedSchema });
  return action === "accept" ? `${content.name} is ${content.age}` : action;
});

tool("touch", { uri: z.string() }, async ({ uri }) => {
  await server.sendResourceUpdated(uri);
  return "touched";
});

tool("change", {}, async () => {
  // FastMCP has no other way to send a change notification.
  server.removeTools(["nothing"]);
  return "changed";
});

server.addResource({
  uri: "field://greeting",
  name: "greeting",
  mimeType: "text/plain",
  load: async () => ({ text: "grüße \u2028 \u{1F44B}" }),
});
server.addResourceTemplate({
  uriTemplate: "field://people/{name}",
  name: "person",
  arguments: [{ name: "name", required: true }],
  load: async ({ name }) => ({ text: JSON.stringify({ name }) }),
});
server.addPrompt({
  name: "introduce",
  arguments: [{ name: "name", required: true }],
  load: async ({ name }) => `Please introduce ${name}.`,
});

server.start({ transportType: "httpStream", httpStream: { port: Number(process.argv[2]), host: "127.0.0.1" } });
