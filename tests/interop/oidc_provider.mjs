// oidc-provider as it comes from npm, set up as Auth0 is: an issuer with a slash,
// Auth0's paths, native clients, RS256. Prints its issuer as JSON once it listens.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";

import Provider from "oidc-provider";

const DEVICE = "urn:ietf:params:oauth:grant-type:device_code";
const ROLES = "https://agentvault.dev/roles";

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
    name: "Ursula",
    email: "ursula@example.com",
    email_verified: true,
    [ROLES]: ["approver"],
  }),
});

const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const key = { ...privateKey.export({ format: "jwk" }), kid: "k1", use: "sig", alg: "RS256" };

const configuration = {
  clients: [native("console"), native("another")],
  jwks: { keys: [key] },
  cookies: { keys: ["of this run"] },
  findAccount: person,
  claims: {
    openid: ["sub", "amr", ROLES],
    profile: ["name"],
    email: ["email", "email_verified"],
  },
  conformIdTokenClaims: false,
  clockTolerance: 15,
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

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}/`;
  const provider = new Provider(issuer, configuration);
  const answer = provider.callback();
  server.on("request", (request, response) => {
    if (request.method === "POST" && request.url.startsWith("/interaction/")) {
      signIn(provider, request, response);
    } else if (request.url.startsWith("/ahead/")) {
      ahead = 1000 * Number(request.url.slice("/ahead/".length));
      response.end();
    } else {
      answer(request, response);
    }
  });
  console.log(JSON.stringify({ issuer }));
});
process.stdin.resume().on("end", () => process.exit());
