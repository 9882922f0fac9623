// oidc-provider as it comes from npm, set up as Auth0 is: an issuer with a slash,
// Auth0's paths, native clients, RS256. Prints its issuer as JSON once it listens.
// An argument is the interval its device flow names, as Auth0's does.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";

import Provider from "oidc-provider";
import { createMemoryAdapter } from "oidc-provider/lib/adapters/memory_adapter.js";

const DEVICE = "urn:ietf:params:oauth:grant-type:device_code";
const ROLES = "https://agentvault.dev/roles";
const TOLERANCE = 15;

const native = (client_id) => ({
  client_id,
  application_type: "native",
  token_endpoint_auth_method: "none",
  grant_types: [DEVICE, "refresh_token"],
  response_types: [],
  redirect_uris: [],
  require_auth_time: true,
});

const person = (_, accountId) => ({
  accountId,
  claims: () => ({
    sub: accountId,
    name: accountId.slice("auth0|".length),
    email: `${accountId.slice("auth0|".length)}@example.com`,
    email_verified: true,
    [ROLES]: ["approver"],
  }),
});

let made = 0;
function newKey() {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  made += 1;
  return { ...privateKey.export({ format: "jwk" }), kid: `k${made}`, use: "sig", alg: "RS256" };
}

const configuration = {
  adapter: createMemoryAdapter(TOLERANCE),
  clients: [native("console"), native("another")],
  cookies: { keys: ["of this run"] },
  findAccount: person,
  claims: {
    openid: ["sub", "amr", ROLES],
    profile: ["name"],
    email: ["email", "email_verified"],
  },
  conformIdTokenClaims: false,
  clockTolerance: TOLERANCE,
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  routes: {
    device_authorization: "/oauth/device/code",
    code_verification: "/activate",
    token: "/oauth/token",
    revocation: "/oauth/revoke",
    jwks: "/.well-known/jwks.json",
  },
  features: {
    deviceFlow: { enabled: true },
    devInteractions: { enabled: false },
    revocation: { enabled: true },
  },
};

// A code lives ten minutes; a test makes them pass, and brings them back.
let ahead = 0;
const now = Date.now.bind(Date);
Date.now = () => now() + ahead;

// What Auth0's login and consent pages come to: who it was, with what factors.
async function signIn(provider, request, response) {
  const said = new URLSearchParams(await text(request));
  const { params } = await provider.interactionDetails(request, response);
  const accountId = said.get("account");
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const login = { accountId, amr: said.getAll("amr") };
  const consent = { grantId: await grant.save() };
  await provider.interactionFinished(request, response, { login, consent });
}

// Its RFC 7009 endpoint wants to know the client. Google's and Salesforce's find it by
// the token, which is all they are shown: so does this, and then it is asked as it is.
async function revokeForHolder(provider, request, response) {
  const token = new URLSearchParams(await text(request)).get("token");
  const found = await provider.AccessToken.find(token);
  response.setHeader("content-type", "application/json");
  if (!found) {
    response.writeHead(400).end(JSON.stringify({ error: "invalid_token" }));
    return;
  }
  const body = new URLSearchParams({ token, client_id: found.clientId });
  const url = new URL(configuration.routes.revocation, provider.issuer);
  const answer = await fetch(url, { method: "POST", body });
  response.writeHead(answer.status).end(await answer.text());
}

const [interval] = process.argv.slice(2).map(Number);

async function paced(ctx, next) {
  await next();
  if (interval && ctx.path === configuration.routes.device_authorization) {
    ctx.body.interval = interval;
  }
}

// Keys are rotated as the documentation says: a new start with another set, and what
// was issued before stays. The first key signs.
function started(issuer, keys) {
  const provider = new Provider(issuer, { ...configuration, jwks: { keys } });
  provider.use(paced);
  return { provider, answer: provider.callback() };
}

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}/`;
  let keys = [newKey()];
  let running = started(issuer, keys);
  const tests = {
    "/interaction": (request, response) => signIn(running.provider, request, response),
    "/holder": (request, response) => revokeForHolder(running.provider, request, response),
    "/ahead": (request, response) => {
      ahead = 1000 * Number(request.url.split("/")[2]);
      response.end();
    },
    "/rotate": (request, response) => {
      keys = [newKey(), ...keys];
      running = started(issuer, keys);
      response.end();
    },
    "/retire": (request, response) => {
      keys = keys.slice(0, 1);
      running = started(issuer, keys);
      response.end();
    },
  };
  server.on("request", (request, response) => {
    const own = request.method === "POST" && tests[`/${request.url.split("/")[1]}`];
    (own || running.answer)(request, response);
  });
  console.log(JSON.stringify({ issuer }));
});
process.stdin.resume().on("end", () => process.exit());
