// Runs post-login Actions with an event each, and says what they asked of the api.
// Standard input: [{"action": PATH, "event": {...}}, ...]; output: one list of calls each.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(import.meta.url);
const calls = [];
const record = (name) => (...args) => void calls.push([name, ...args]);
const api = {
  access: { deny: record("deny") },
  authentication: { challengeWithAny: record("challengeWithAny") },
  idToken: { setCustomClaim: record("idToken") },
  accessToken: { setCustomClaim: record("accessToken") },
};

const cache = new Map();
api.cache = {
  get: (key) => cache.get(key),
  set: (key, value) => void cache.set(key, { value }),
};

const answers = [];
for (const { action, event } of JSON.parse(readFileSync(0, "utf8"))) {
  calls.length = 0;
  const { onExecutePostLogin, onExecuteCredentialsExchange } = require(action);
  await (onExecutePostLogin ?? onExecuteCredentialsExchange)(event, api);
  answers.push([...calls]);
}
process.stdout.write(JSON.stringify(answers));
