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

// Prefixed, so that another application's "operator" is none of ours.
const ROLE_PREFIX = "agentvault-";
const KNOWN_ROLES = ["viewer", "operator", "approver"];

// Which factor it was is in `type`, and only there. One that is not named may have been
// a text message or an e-mail, and which factors the tenant has switched on can change
// at any time: so an unnamed one does not count, and the refusal says that it was that.
const FACTORS = ["webauthn-roaming", "webauthn-platform", "otp"];

// The challenge ended seconds ago. The list of methods covers the whole browser session,
// so one that is an hour old stands there too, and proves nothing about this sign-in.
// A remembered browser leaves no new entry: it is refused like any other old factor.
const FRESH_MS = 60 * 1000;
const SKEW_MS = 5 * 1000;

exports.onExecutePostLogin = async (event, api) => {
  if (event.client.metadata?.agentvault !== "console") return;

  const roles = (event.authorization?.roles ?? [])
    .filter((name) => name.startsWith(ROLE_PREFIX))
    .map((name) => name.slice(ROLE_PREFIX.length))
    .filter((name) => KNOWN_ROLES.includes(name));

  if (event.transaction?.protocol !== "oauth2-device-code") {
    // A refreshed or exchanged token had no person at it: it gets the roles as they are
    // now, and no time.
    stamp(api, ROLES, roles);
    return;
  }

  const now = Date.now();
  const fresh = (event.authentication?.methods ?? [])
    .filter((method) => method.name === "mfa")
    .map((method) => ({ type: method.type, at: Date.parse(method.timestamp) }))
    // A time that cannot be read compares as false. One that has not come yet is no
    // proof either (but for the clocks of two machines of Auth0's own).
    .filter(({ at }) => at <= now + SKEW_MS && now - at <= FRESH_MS);
  const proved = fresh.filter(({ type }) => FACTORS.includes(type));
  if (!proved.length) {
    return api.access.deny(
      fresh.some(({ type }) => type === undefined || type === null)
        ? "AgentVault cannot tell which second factor that was: the login named none."
        : "AgentVault needs a fresh second factor: start again.",
    );
  }
  const newest = Math.max(...proved.map(({ at }) => at));
  stamp(api, MFA_AT, Math.floor(newest / 1000));
  stamp(api, ROLES, roles);
};

/** On both: the broker reads the ID token, a resource server only the access token. */
function stamp(api, name, value) {
  api.idToken.setCustomClaim(name, value);
  api.accessToken.setCustomClaim(name, value);
}
