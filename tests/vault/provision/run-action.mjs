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

const answers = [];
for (const { action, event } of JSON.parse(readFileSync(0, "utf8"))) {
  calls.length = 0;
  await require(action).onExecutePostLogin(event, api);
  answers.push([...calls]);
}
process.stdout.write(JSON.stringify(answers));
