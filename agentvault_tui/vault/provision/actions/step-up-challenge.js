/**
 * AgentVault, post-login Action 1 of 2: ask for a second factor, every time.
 *
 * Runs for the console's device flow alone; every other application of the tenant
 * passes through untouched. Its partner, "AgentVault step-up proof", is bound after it
 * and checks the result: this Action cannot see it, because event.authentication is
 * filled when an Action starts, and the challenge comes after.
 *
 * Managed by `agentvault auth0 apply`, which puts back what is edited here.
 */

// Factors that prove a person is there now. A phone number can be taken over, a mailbox
// may be read by the very agent that asks, and a recovery code is for recovering.
const FACTORS = ["webauthn-roaming", "webauthn-platform", "otp"];

exports.onExecutePostLogin = async (event, api) => {
  // Metadata, not the client id: it is the same on every tenant, and it survives a
  // client that is made anew. Without it the proof below is missing, and the broker
  // then refuses: nothing is granted for want of a mark.
  const console_ = event.client.metadata?.agentvault === "console";

  // Post-login also runs on refresh and on token exchange. A challenge there has no
  // browser to be answered in and fails the exchange, so the protocol is looked at.
  if (!console_ || event.transaction?.protocol !== "oauth2-device-code") return;

  // A person without a factor is refused, not enrolled: whoever holds a stolen password
  // could enrol a factor of their own and approve with it a moment later.
  const enrolled = event.user.enrolledFactors;
  if (enrolled && !enrolled.some((factor) => FACTORS.includes(factor.type))) {
    return api.access.deny(
      "AgentVault needs a second factor, and you have none enrolled: " +
        "ask your administrator for an enrolment invitation.",
    );
  }

  // A factor met earlier in this browser session does not count: only one met in this
  // very transaction is skipped. Factors the person lacks are left out by Auth0, and
  // with none left the login fails.
  api.authentication.challengeWithAny(FACTORS.map((type) => ({ type })));
};
