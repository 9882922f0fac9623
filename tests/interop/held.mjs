// An agent on openid-client, with a key instead of a secret, that is held for a person.

import { createInterface } from "node:readline/promises";

import * as openid from "openid-client";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (value) => console.log(JSON.stringify(value));
const { issuer, client_id, jwk, details } = JSON.parse((await lines.next()).value);

const curve = { name: "ECDSA", namedCurve: "P-256" };
const key = await crypto.subtle.importKey("jwk", jwk, curve, false, ["sign"]);
const proof = openid.PrivateKeyJwt(key);
const found = { algorithm: "oauth2" };
const config = await openid.discovery(new URL(issuer), client_id, undefined, proof, found);

const scope = "send:payment";
const [first, second] = details.map((one) => JSON.stringify([one]));

async function refused(call) {
  try {
    return { unexpected: await call };
  } catch ({ error, error_description, cause }) {
    return { error, error_description, body: cause };
  }
}

// Held at the token endpoint, it goes on with what the refusal holds.
const held = (await refused(
  openid.clientCredentialsGrant(config, { scope, authorization_details: first }),
)).body;
say(held);
const begun = await openid.initiateBackchannelAuthentication(config, {
  scope: `openid ${scope}`, login_hint: "olga", authorization_details: second,
});
say(begun);
const denial = refused(openid.pollBackchannelAuthenticationGrant(config, begun));
const token = await openid.pollBackchannelAuthenticationGrant(config, held);
say(token);
say(await openid.tokenIntrospection(config, token.access_token));
say(await denial);
await lines.next();
