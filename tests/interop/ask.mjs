// A client on openid-client: asks for a person by CIBA, and waits for the answer.

import { createInterface } from "node:readline/promises";

import * as openid from "openid-client";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (value) => console.log(JSON.stringify(value));
const given = JSON.parse((await lines.next()).value);

// Plain HTTP on loopback; ID tokens are checked against the tenant's keys.
const config = await openid.discovery(
  new URL(given.issuer), given.client_id, given.client_secret, undefined,
  { execute: [openid.allowInsecureRequests, openid.enableNonRepudiationChecks] },
);
config[openid.customFetch] = async (url, options) => {
  const path = new URL(url).pathname;
  if (path === "/oauth/token") await lines.next(); // polls when told to
  const answer = await fetch(url, options);
  say({ path, status: answer.status });
  return answer;
};

async function ask() {
  try {
    const started = await openid.initiateBackchannelAuthentication(config, given.asks);
    say(started);
    // The tenant's clock is moved by hand: what counts there is not waited for here.
    const tokens = await openid.pollBackchannelAuthenticationGrant(
      config, { ...started, interval: 0.01 },
    );
    return { ...tokens.claims(), details: tokens.authorization_details };
  } catch ({ error, status }) {
    return { raised: error, status };
  }
}

say(await ask());
say(await ask());
