// A console on openid-client: signs a person in by device flow, and out again.

import { createInterface } from "node:readline/promises";

import * as openid from "openid-client";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (value) => console.log(JSON.stringify(value));
const { issuer, client_id, audience } = JSON.parse((await lines.next()).value);

// Plain HTTP on loopback; ID tokens are checked against the tenant's keys.
const config = await openid.discovery(new URL(issuer), client_id, undefined, openid.None(), {
  execute: [openid.allowInsecureRequests, openid.enableNonRepudiationChecks],
});

async function told(call) {
  try {
    return await call();
  } catch ({ error, status }) {
    return { raised: error, status };
  }
}

async function signIn() {
  config[openid.customFetch] = fetch;
  const scope = "openid profile email offline_access";
  const flow = await openid.initiateDeviceAuthorization(config, { scope, audience });
  say(flow);
  config[openid.customFetch] = async (url, options) => {
    const path = new URL(url).pathname;
    if (path === "/oauth/token") await lines.next(); // polls when told to
    const answer = await fetch(url, options);
    say({ path, status: answer.status });
    return answer;
  };
  // The tenant's clock is moved by hand: what counts there is not waited for here.
  return openid.pollDeviceAuthorizationGrant(config, { ...flow, interval: 0.01 });
}

const tokens = await signIn();
say(tokens.claims());
config[openid.customFetch] = fetch;
const { refresh_token } = tokens;
say((await openid.refreshTokenGrant(config, refresh_token)).claims());
await openid.tokenRevocation(config, refresh_token);
say(await told(() => openid.refreshTokenGrant(config, refresh_token)));
say(await told(signIn));
