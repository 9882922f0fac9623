/**
 * AgentVault, credentials-exchange Action: limit the tokens that Auth0 itself issues to a
 * machine-to-machine application, by country and by rate.
 *
 * The broker's limits hold for what agents ask of it. An agent that has a client of its
 * own at the tenant asks past it: this Action is for those. What an application may do is
 * in its metadata; one that says neither passes through untouched.
 *
 *   agentvault_countries    "DE FR": from where; an address without a country is refused
 *   agentvault_per_minute   "30": how many tokens in 60 seconds
 *
 * The cache that counts is Auth0's, kept for a trigger and not promised to last: the
 * rate is a brake, and no ceiling. Exact limits are the broker's, or Auth0's own token
 * quotas. `agentvault auth0 apply` binds it with `--token-limits` alone.
 */

const WINDOW_MS = 60 * 1000;
// A metadata value that is no such number refuses, and lets nothing through by mistake.
const NUMBER = /^[1-9][0-9]{0,4}$/;
const CODE = /^[A-Z]{2}$/;
const MOST_KEPT = 200;

exports.onExecuteCredentialsExchange = async (event, api) => {
  const said = event.client.metadata ?? {};
  const { agentvault_countries: countries, agentvault_per_minute: rate } = said;

  if (countries !== undefined) {
    const known = countries.split(/[\s,]+/).filter(Boolean);
    const country = event.request?.geoip?.countryCode;
    if (!known.every((code) => CODE.test(code)) || !known.includes(country)) {
      return api.access.deny(
        "invalid_request",
        `This application gets no tokens from ${country ?? "an unknown country"}.`,
      );
    }
  }

  if (rate === undefined) return;
  const most = NUMBER.test(rate) ? Number(rate) : 0;
  const key = `agentvault ${event.client.client_id}`.slice(0, 64);
  const now = Date.now();
  let times = [];
  try {
    times = JSON.parse(api.cache.get(key)?.value ?? "[]");
  } catch {
    // Not ours: counted anew.
  }
  times = times.filter((time) => time > now - WINDOW_MS).slice(-MOST_KEPT);
  if (times.length >= Math.min(most, MOST_KEPT)) {
    const wait = Math.max(1, Math.ceil(((times[0] ?? now) + WINDOW_MS - now) / 1000));
    return api.access.deny(
      "invalid_request",
      `This application asks too often: ask again in ${wait} s.`,
    );
  }
  api.cache.set(key, JSON.stringify([...times, now]), { ttl: WINDOW_MS });
};
