// A platform on jose: serves its key set, and signs its workload's tokens.

import { createServer } from "node:http";
import { createInterface } from "node:readline/promises";

import * as jose from "jose";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { algorithms, claims } = JSON.parse((await lines.next()).value);
const keys = [];
const tokens = {};
for (const alg of algorithms) {
  const pair = await jose.generateKeyPair(alg, { extractable: true });
  keys.push({ ...(await jose.exportJWK(pair.publicKey)), kid: alg, alg, use: "sig" });
  const token = new jose.SignJWT(claims).setProtectedHeader({ alg, kid: alg, typ: "JWT" });
  tokens[alg] = await token.sign(pair.privateKey);
}
const server = createServer((_, answer) => {
  answer.setHeader("Content-Type", "application/jwk-set+json");
  answer.end(JSON.stringify({ keys }));
});
server.listen(0, "127.0.0.1", () => {
  const url = `http://127.0.0.1:${server.address().port}/keys`;
  console.log(JSON.stringify({ url, tokens }));
});
await lines.next();
server.close();
