// What node 24's fetch does on NODE_USE_ENV_PROXY=1: undici, by the environment's proxy.
import { EnvHttpProxyAgent, fetch, setGlobalDispatcher } from "undici";

setGlobalDispatcher(new EnvHttpProxyAgent());
for (const url of process.argv.slice(2)) {
  const answer = await fetch(url);
  console.log(JSON.stringify({ status: answer.status, body: await answer.text() }));
}
process.exit(0);
