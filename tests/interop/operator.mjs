// An operator elsewhere on oauth4webapi's DPoP; jose verifies a proof of our own client.

import { createHash } from "node:crypto";
import { createInterface } from "node:readline/promises";

import * as jose from "jose";
import * as oauth from "oauth4webapi";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (value) => console.log(JSON.stringify(value));
const { url, proof, token } = JSON.parse((await lines.next()).value);

const checked = await jose.jwtVerify(proof, jose.EmbeddedJWK, {
  typ: "dpop+jwt", algorithms: ["ES256"], maxTokenAge: 60,
});
say({
  ...checked.payload,
  same_token: checked.payload.ath === createHash("sha256").update(token).digest("base64url"),
  thumbprint: await jose.calculateJwkThumbprint(checked.protectedHeader.jwk),
});

const dpop = oauth.DPoP({ client_id: "operator" }, await oauth.generateKeyPair("ES256"));

async function begin() {
  const at = new URL("/api/auth/session", url);
  const headers = new Headers();
  await dpop.addProof(at, headers, "POST"); // there is no access token yet
  const answer = await fetch(at, { method: "POST", headers });
  dpop.cacheNonce(answer, at);
  return answer;
}

async function get(path, accessToken) {
  const ask = () => oauth.protectedResourceRequest(
    accessToken, "GET", new URL(path, url), undefined, undefined, { DPoP: dpop },
  );
  try {
    return (await ask()).status;
  } catch (error) {
    if (oauth.isDPoPNonceError(error)) return (await ask()).status;
    return error.cause?.[0]?.parameters?.error ?? String(error);
  }
}

const challenge = await begin();
const begun = await begin();
const { access_token } = await begun.json();
say({ challenge: challenge.headers.get("www-authenticate"), status: begun.status });
say({ waiting: await get("/api/agents", access_token) });
await lines.next(); // a person signs in
say({
  agents: await get("/api/agents?limit=1", access_token),
  stolen: await get("/api/agents", token),
});
