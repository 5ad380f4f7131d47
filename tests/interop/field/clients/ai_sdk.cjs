// The client of the AI SDK; steps.py describes plans and reports.
"use strict";

const { PERSON, main } = require("./steps.cjs");

main(async (dialogue, saw, complain) => {
  // The package has only ES modules.
  const { createMCPClient, ElicitationRequestSchema } = await import(require.resolve("@ai-sdk/mcp"));
  const { StdioMCPTransport } = await import(require.resolve("@ai-sdk/mcp/mcp-stdio"));
  const transport = dialogue.launch
    ? new StdioMCPTransport(dialogue.launch)
    : { type: dialogue.transport, url: dialogue.url };
  const client = await createMCPClient({
    transport,
    capabilities: { elicitation: {} },
    onUncaughtError: complain,
  });
  client.onElicitationRequest(ElicitationRequestSchema, ({ params }) => {
    saw("elicitation", params.message);
    return { action: "accept", content: PERSON };
  });
  return {
    hears: ["elicitation"],
    about: () => client.initializeResult,
    tools: async () => (await client.listTools()).tools,
    resources: async () => (await client.listResources()).resources,
    templates: async () => (await client.listResourceTemplates()).resourceTemplates,
    prompts: async () => (await client.listPrompts()).prompts,
    call: ({ tool, arguments: args }) => client.callTool({ name: tool, arguments: args }),
    read: ({ uri }) => client.readResource({ uri }),
    prompt: ({ prompt, arguments: args }) => client.getPrompt({ name: prompt, arguments: args }),
    close: () => client.close(),
  };
});
