// An agent on @auth0/ai as it comes from npm: reads a tool's name a line, runs it.

const { createInterface } = require("node:readline");
const {
  AsyncAuthorizerBase,
  getAsyncAuthorizationCredentials,
} = require("@auth0/ai/AsyncAuthorization");
const { MemoryStore } = require("@auth0/ai/stores");
const {
  TokenVaultAuthorizerBase,
  getAccessTokenFromTokenVault,
} = require("@auth0/ai/TokenVault");

const config = {
  domain: process.env.AUTH0_DOMAIN,
  clientId: process.env.AUTH0_CLIENT_ID,
  clientSecret: process.env.AUTH0_CLIENT_SECRET,
};
const context = () => ({ threadID: "t1", toolCallID: "c1", toolName: "tool" });

function fromVault(connection, scopes) {
  const authorizer = new TokenVaultAuthorizerBase(config, {
    connection,
    scopes,
    refreshToken: async () => "the agent has none that counts",
    store: new MemoryStore(),
  });
  return authorizer.protect(context, async () => getAccessTokenFromTokenVault());
}

function asking(message) {
  const authorizer = new AsyncAuthorizerBase(config, {
    scopes: ["send:payment"],
    bindingMessage: message,
    userID: "auth0|ursula",
    store: new MemoryStore(),
  });
  return authorizer.protect(
    context,
    async () => getAsyncAuthorizationCredentials()?.accessToken,
  );
}

function told(error) {
  const { code, message } = error;
  return { interrupt: error.constructor.name, code, message };
}

const tools = {
  calendar: fromVault("google-oauth2", [
    "https://www.googleapis.com/auth/calendar",
  ]),
  bank: fromVault("bank", []),
  workspace: fromVault("workspace", []),
  "workspace-anew": fromVault("workspace", []),
  pay: asking("Pay #1"),
  "pay-again": asking("Pay #2"),
};

async function main() {
  for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
      const result = await tools[line.trim()]();
      // Some refusals are returned, not thrown.
      answer = result instanceof Error ? told(result) : { result };
    } catch (error) {
      answer = told(error);
    }
    console.log(JSON.stringify(answer));
  }
}

main();
