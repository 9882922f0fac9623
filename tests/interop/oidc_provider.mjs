// oidc-provider as it comes from npm, set up as Auth0 is: an issuer with a slash,
// Auth0's paths, native clients, RS256, dynamic registration, a Token Vault grant.
// Prints its issuer as JSON once it listens. Its argument is JSON: the `interval` its
// device flow names and keeps to, as Auth0's does, and `keys` to sign with. Told
// "down" or "up" a line, it stops listening or listens again; told "ahead" and seconds,
// its clock goes before by so many. It says so when it is done.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";

import Provider, { errors } from "oidc-provider";
import { createMemoryAdapter } from "oidc-provider/lib/adapters/memory_adapter.js";

import { VAULT, tokenVault } from "./oidc_vault.mjs";

const DEVICE = "urn:ietf:params:oauth:grant-type:device_code";
const ROLES = "https://agentvault.dev/roles";
const TOLERANCE = 15;
const { interval, keys: given } = JSON.parse(process.argv[2] ?? "{}");

const native = (client_id) => ({
  client_id,
  application_type: "native",
  token_endpoint_auth_method: "none",
  grant_types: [DEVICE, "refresh_token"],
  response_types: [],
  redirect_uris: [],
  require_auth_time: true,
});

// What the tenant knows of a person besides their name: set where they sign in.
const roles = new Map();

const person = (_, accountId) => ({
  accountId,
  claims: () => ({
    sub: accountId,
    name: accountId.slice("auth0|".length),
    email: `${accountId.slice("auth0|".length)}@example.com`,
    email_verified: true,
    [ROLES]: roles.get(accountId) ?? ["approver"],
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
  ttl: { IdToken: 36_000 },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  // Auth0 asks nobody's consent to offline access for a first-party application.
  issueRefreshToken: (_, client, code) =>
    client.grantTypeAllowed("refresh_token") &&
    (code.scopes.has("offline_access") || client.grantTypeAllowed(VAULT)),
  routes: {
    authorization: "/authorize",
    device_authorization: "/oauth/device/code",
    code_verification: "/activate",
    registration: "/oidc/register",
    token: "/oauth/token",
    introspection: "/oauth/introspect",
    revocation: "/oauth/revoke",
    jwks: "/.well-known/jwks.json",
  },
  features: {
    deviceFlow: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    registration: { enabled: true },
    revocation: { enabled: true },
  },
};

// A code lives ten minutes; a test makes them pass, and brings them back.
let ahead = 0;
const now = Date.now.bind(Date);
Date.now = () => now() + ahead;

// What Auth0's login and consent pages come to: who it was, with what factors; or, with
// no account said, that whoever is still signed in in this browser agrees.
async function signIn(provider, request, response) {
  const said = new URLSearchParams(await text(request));
  const { params, session } = await provider.interactionDetails(request, response);
  const accountId = said.get("account") ?? session.accountId;
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const result = { consent: { grantId: await grant.save() } };
  if (said.has("account")) {
    roles.set(accountId, said.getAll("role"));
    result.login = { accountId, amr: said.getAll("amr") };
  }
  await provider.interactionFinished(request, response, result);
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

async function paced(ctx, next) {
  await next();
  if (ctx.path === configuration.routes.device_authorization) {
    ctx.body.interval = interval;
  }
}

// RFC 8628 section 3.5, which oidc-provider has the word for and leaves to others.
const polled = new Map();
function pace(DeviceCode) {
  const find = DeviceCode.find.bind(DeviceCode);
  DeviceCode.find = async (code, ...rest) => {
    if (Provider.ctx.path !== configuration.routes.token) return find(code, ...rest);
    const before = polled.get(code);
    polled.set(code, Date.now());
    if (before !== undefined && Date.now() - before < 1000 * interval) {
      throw new errors.SlowDown();
    }
    return find(code, ...rest);
  };
}

// Keys are rotated as the documentation says: a new start with another set, and what
// was issued before stays. The first key signs.
function started(issuer, keys) {
  const provider = new Provider(issuer, { ...configuration, jwks: { keys } });
  tokenVault.register(provider);
  if (interval) {
    provider.use(paced);
    pace(provider.DeviceCode);
  }
  return { provider, answer: provider.callback() };
}

const server = createServer();
const sockets = new Set();
server.on("connection", (socket) => {
  sockets.add(socket);
  socket.on("close", () => sockets.delete(socket));
});
console.info = console.error; // the provider's own notices are no answers
const say = (what) => console.log(JSON.stringify(what));

server.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  const issuer = `http://127.0.0.1:${port}/`;
  let keys = given ?? [newKey()];
  let running = started(issuer, keys);
  const asked = {};
  const answered = (what) => (_, response) => {
    response.end(JSON.stringify(what() ?? null));
  };
  const tests = {
    "/interaction": (request, response) => signIn(running.provider, request, response),
    "/holder": (request, response) => revokeForHolder(running.provider, request, response),
    "/connected": async (request, response) => {
      tokenVault.connect(new URLSearchParams(await text(request)));
      response.end();
    },
    "/asked": answered(() => asked),
    "/keys": answered(() => keys),
    "/rotate": answered(() => {
      keys = [newKey(), ...keys];
      running = started(issuer, keys);
    }),
    "/retire": answered(() => {
      keys = keys.slice(0, 1);
      running = started(issuer, keys);
    }),
  };
  server.on("request", (request, response) => {
    const [, first] = request.url.split(/[/?]/);
    const own = request.method === "POST" && tests[`/${first}`];
    const path = request.url.split("?")[0];
    asked[path] = (asked[path] ?? 0) + (own ? 0 : 1);
    (own || running.answer)(request, response);
  });
  const told = {
    ahead: (seconds) => {
      ahead = 1000 * Number(seconds);
      say("ahead");
    },
    down: () => {
      server.close(() => say("down"));
      for (const socket of sockets) socket.destroy();
    },
    up: () => server.listen(port, "127.0.0.1", () => say("up")),
  };
  createInterface({ input: process.stdin })
    .on("line", (line) => {
      const [what, argument] = line.split(" ");
      told[what](argument);
    })
    .on("close", () => process.exit());
  say({ issuer });
});
