// An agent on @auth0/ai-vercel as it comes from npm: reads a tool's name a line, has
// the AI SDK's own loop call it; only the model is a script that always wants that tool.

const { createInterface } = require("node:readline");
const {
  Auth0AI,
  getAccessTokenFromTokenVault,
  getAsyncAuthorizationCredentials,
  runWithAIContext,
} = require("@auth0/ai-vercel");
const { generateText, tool } = require("ai");
const { MockLanguageModelV2 } = require("ai/test");
const { z } = require("zod");

const auth0AI = new Auth0AI(); // AUTH0_DOMAIN and so on, from the environment
const inputSchema = z.object({});

const tools = {
  calendar: auth0AI.withTokenVault(
    {
      connection: "google-oauth2",
      scopes: ["https://www.googleapis.com/auth/calendar"],
      refreshToken: async () => "the agent has none that counts",
    },
    tool({
      description: "Looks into the calendar",
      inputSchema,
      execute: async () => getAccessTokenFromTokenVault(),
    }),
  ),
  pay: auth0AI.withAsyncAuthorization(
    {
      scopes: ["send:payment"],
      bindingMessage: async () => "Pay #1",
      userID: async () => "auth0|ursula",
    },
    tool({
      description: "Pays",
      inputSchema,
      execute: async () => getAsyncAuthorizationCredentials()?.accessToken,
    }),
  ),
};

const wanting = (toolName) =>
  new MockLanguageModelV2({
    doGenerate: async () => ({
      content: [{ type: "tool-call", toolCallId: "c1", toolName, input: "{}" }],
      finishReason: "tool-calls",
      usage: {},
      warnings: [],
    }),
  });

async function called(toolName) {
  const { content } = await runWithAIContext({ threadID: "t1" }, () =>
    generateText({ model: wanting(toolName), tools, prompt: "Do it." }),
  );
  const { error, output } = content.find(({ type }) => type !== "tool-call");
  if (!error) return { result: output };
  const { code, message } = error;
  return { interrupt: error.constructor.name, code, message };
}

async function main() {
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await called(line)));
  }
}

main();
