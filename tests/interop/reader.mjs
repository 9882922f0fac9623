// node-auth0 7 as it comes, reading a whole tenant: tells what it found, page by page.

import { ManagementClient } from "auth0";
import { text } from "node:stream/consumers";

const given = JSON.parse(await text(process.stdin));
const api = new ManagementClient({
  domain: given.AUTH0_DOMAIN,
  clientId: given.AUTH0_CLIENT_ID,
  clientSecret: given.AUTH0_CLIENT_SECRET,
  audience: given.AUTH0_AUDIENCE,
});

async function all(listed) {
  const found = [];
  for await (const one of await listed) found.push(one);
  return found;
}

const few = () => ({ per_page: 2 }); // the SDK counts its pages in what it is given
const said = {
  clients: await all(api.clients.list(few())),
  "client grants": await all(api.clientGrants.list({ take: 2 })),
  APIs: await all(api.resourceServers.list(few())),
  actions: await all(api.actions.list(few())),
  bindings: await all(api.actions.triggers.bindings.list("post-login", few())),
  factors: await api.guardian.factors.list(),
  connections: await all(api.connections.list({ take: 2 })),
  roles: await all(api.roles.list(few())),
  settings: [await api.tenants.settings.get()],
  users: await all(api.users.list(few())),
  logs: await all(api.logs.list({ per_page: 5, sort: "date:-1" })),
};
said.prompts = [await api.prompts.getSettings()];
const { client_id } = said.clients.find((one) => one.name === "AgentVault console");
said["connections of the console"] = await all(api.clients.connections.get(client_id));
for (const { id, name } of said.roles) {
  said[`permissions of ${name}`] = await all(api.roles.permissions.list(id));
}
let refusal;
try {
  await api.clients.get("nobody");
} catch (error) {
  refusal = { raised: error.name, status: error.statusCode };
}
console.log(JSON.stringify({ ...said, refusal }));
