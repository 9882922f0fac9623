/**
 * AgentVault, post-login Action 2 of 2: let in only a fresh second factor, and say when.
 *
 * Bound after "AgentVault step-up challenge". Puts two claims on the console's tokens:
 * when the second factor was proved, and what the person may do. The broker compares
 * the first with the moment it was asked, so an old approval cannot answer a new one.
 *
 * Managed by `agentvault auth0 apply`, which puts back what is edited here.
 */

// Namespaced, because amr, auth_time and roles are names an Action cannot set.
const MFA_AT = "https://agentvault.dev/mfa_at";
const ROLES = "https://agentvault.dev/roles";
const ELEVATED_API = "https://agentvault.dev/elevated";

// Prefixed, so that another application's "operator" is none of ours.
const ROLE_PREFIX = "agentvault-";
const KNOWN_ROLES = ["viewer", "operator", "approver"];

const FACTORS = ["webauthn-roaming", "webauthn-platform", "otp"];

// The challenge ended seconds ago. The list of methods covers the whole browser session,
// so one that is an hour old stands there too, and proves nothing about this sign-in.
const FRESH_MS = 60 * 1000;
const SKEW_MS = 5 * 1000;

exports.onExecutePostLogin = async (event, api) => {
  const console_ = event.client.metadata?.agentvault === "console";
  const elevated = event.resource_server?.identifier === ELEVATED_API;
  if (!console_ && !elevated) return;

  const roles = (event.authorization?.roles ?? [])
    .filter((name) => name.startsWith(ROLE_PREFIX))
    .map((name) => name.slice(ROLE_PREFIX.length))
    .filter((name) => KNOWN_ROLES.includes(name));

  if (event.transaction?.protocol !== "oauth2-device-code") {
    // A refreshed or exchanged token had no person at it. For the elevated API there is
    // no such token; the console's own gets its roles as they are now, and no time.
    if (elevated) {
      return api.access.deny(
        "Elevated tokens come from the console's device flow alone.",
      );
    }
    stamp(api, ROLES, roles);
    return;
  }

  const now = Date.now();
  const newest = Math.max(
    ...(event.authentication?.methods ?? [])
      .filter((method) => method.name === "mfa" && FACTORS.includes(method.type))
      .map((method) => Date.parse(method.timestamp))
      // What cannot be read is no proof, and neither is a time that has not come yet
      // (but for the clocks of two machines of Auth0's own).
      .filter((time) => time <= now + SKEW_MS),
  );
  // Without any, Math.max is -Infinity, whose age is endless.
  if (!(now - newest <= FRESH_MS)) {
    return api.access.deny("AgentVault needs a fresh second factor: start again.");
  }
  stamp(api, MFA_AT, Math.floor(newest / 1000));
  stamp(api, ROLES, roles);
};

/** On both: the broker reads the ID token, a resource server only the access token. */
function stamp(api, name, value) {
  api.idToken.setCustomClaim(name, value);
  api.accessToken.setCustomClaim(name, value);
}
