// A client on openid-client as it comes from npm: reads what to use, tells what it got.

import { json } from "node:stream/consumers";

import * as openid from "openid-client";

const { issuer, client_id, client_secret } = await json(process.stdin);
const url = new URL(issuer);
const found = { algorithm: "oauth2" };

async function told(call) {
  try {
    return await call();
  } catch ({ error, code }) {
    return { raised: error ?? code };
  }
}

const config = await openid.discovery(
  url, client_id, undefined, openid.ClientSecretBasic(client_secret), found,
);
const wrong = await openid.discovery(
  url, client_id, undefined, openid.ClientSecretPost("wrong"), found,
);
const scope = "write:calendar";
const token = await openid.clientCredentialsGrant(config, { scope });
const said = {
  discovered: config.serverMetadata(),
  token,
  introspected: await openid.tokenIntrospection(config, token.access_token),
  revoked: await told(() => openid.tokenRevocation(config, token.access_token)),
  after: await openid.tokenIntrospection(config, token.access_token),
  scope: await told(() => openid.clientCredentialsGrant(config, { scope: "no:such" })),
  secret: await told(() => openid.clientCredentialsGrant(wrong, { scope })),
};
console.log(JSON.stringify(said));
