// Auth0's Token Vault grant at an oidc-provider: one more grant type of its own
// registry, so that who the client is, what its tokens are and how it says no are its.

import { errors } from "oidc-provider";

export const VAULT =
  "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token";
const REFRESH = "urn:ietf:params:oauth:token-type:refresh_token";
const TO_PROVIDER =
  "http://auth0.com/oauth/token-type/federated-connection-access-token";
const PARAMETERS = [
  "connection",
  "login_hint",
  "requested_token_type",
  "scope",
  "subject_token",
  "subject_token_type",
];

class NotConnected extends errors.CustomOIDCProviderError {
  constructor() {
    super(
      "federated_connection_refresh_token_not_found",
      "Federated connection Refresh Token not found.",
    );
    this.status = this.statusCode = 401;
  }
}

const accounts = new Map();
const name = (user, connection) => JSON.stringify([user, connection]);

async function exchange(ctx) {
  const { client, params, provider } = ctx.oidc;
  if (
    params.subject_token_type !== REFRESH ||
    params.requested_token_type !== TO_PROVIDER
  ) {
    throw new errors.InvalidRequest("not an exchange that is known here");
  }
  const subject = await provider.RefreshToken.find(params.subject_token ?? "");
  const grant = subject && (await provider.Grant.find(subject.grantId));
  if (!grant || subject.clientId !== client.clientId || subject.consumed) {
    throw new errors.InvalidGrant("Unknown or invalid refresh token.");
  }
  const scope = accounts.get(name(subject.accountId, params.connection));
  if (scope === undefined) throw new NotConnected();
  const { accountId } = subject;
  const atProvider = new provider.Grant({ accountId, clientId: client.clientId });
  atProvider.addOIDCScope(scope);
  const token = new provider.AccessToken({
    accountId,
    client,
    grantId: await atProvider.save(),
    gty: "federated",
    scope,
  });
  ctx.body = {
    access_token: await token.save(),
    expires_in: token.expiration,
    issued_token_type: TO_PROVIDER,
    scope,
    token_type: "Bearer",
  };
}

export const tokenVault = {
  register: (provider) => provider.registerGrantType(VAULT, exchange, PARAMETERS),
  connect: (said) =>
    accounts.set(name(said.get("account"), said.get("connection")), said.get("scope")),
};
