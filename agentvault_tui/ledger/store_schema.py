"""The team's PostgreSQL schema: tables, the function that appends, and their version.

Every broker writes through ``agentvault.append``, one statement that locks the head,
compares the keys written since the broker's known head (see `keys`), numbers, stamps
and chains the events, and commits: a broker that dies at any moment holds no lock over
a round trip.
"""

from __future__ import annotations

from typing import Final

FINISHED: Final = 1
"""The statement of `store prepare --finish`: every broker opens secrets that are
encrypted with their origins."""
_LISTED: Final = 256
"""The number of transactions whose written keys are stored."""
_FOLLOWED: Final = (
    f"""
CREATE TABLE agentvault.head (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  version integer NOT NULL,
  team text NOT NULL,
  ledger text NOT NULL,
  seq bigint NOT NULL DEFAULT 0,
  hash bytea NOT NULL,
  time text COLLATE "C",
  revision bigint NOT NULL DEFAULT 0,
  batch uuid NOT NULL,
  n bigint NOT NULL DEFAULT 0,
  fault text,
  copied text,
  turn text,
  turn_ends timestamptz NOT NULL DEFAULT '-infinity',
  finished integer NOT NULL DEFAULT {FINISHED}
)""",
    """
CREATE TABLE agentvault.events (
  seq bigint PRIMARY KEY, body bytea NOT NULL, hash bytea NOT NULL
)""",
    """
CREATE TABLE agentvault.state (
  kind text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  n bigint NOT NULL,
  revision bigint NOT NULL,
  expires text COLLATE "C",
  doc bytea NOT NULL,
  PRIMARY KEY (kind, key)
)""",
    """
CREATE INDEX state_by_revision ON agentvault.state (revision)""",
    """
CREATE INDEX state_by_number ON agentvault.state (kind, n)""",
)
_OWN: Final = (
    """
CREATE TABLE agentvault.appends (
  broker text PRIMARY KEY, batch uuid NOT NULL, seq bigint NOT NULL,
  hash bytea NOT NULL, time text, revision bigint NOT NULL, n bigint NOT NULL,
  asked integer NOT NULL
)""",
    # A server that crashed, or was promoted, has none of it: then brokers follow first.
    """
CREATE UNLOGGED TABLE agentvault.written (
  revision bigint PRIMARY KEY, batch uuid NOT NULL, keys text[] NOT NULL
)""",
    """
CREATE TABLE agentvault.brokers (
  id text PRIMARY KEY, seen timestamptz NOT NULL, doc bytea NOT NULL,
  run text NOT NULL
)""",
    # Not logged: what these hold ends with its broker, costs no flush and waits for no
    # replica. Rows of calls are changed often, in their page (HOT): no index of n.
    """
CREATE UNLOGGED TABLE agentvault.calls (
  broker text NOT NULL, id text NOT NULL, run text NOT NULL, n bigint NOT NULL,
  ended timestamptz, doc bytea NOT NULL, PRIMARY KEY (broker, id)
) WITH (fillfactor = 50)""",
    """
CREATE UNLOGGED TABLE agentvault.asks (
  id text NOT NULL, broker text NOT NULL, at timestamptz NOT NULL, doc bytea NOT NULL,
  answer bytea, PRIMARY KEY (broker, id)
)""",
)
_GUARD: Final = (
    """
CREATE FUNCTION agentvault.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'events are never changed or deleted'; END $$""",
    """
CREATE TRIGGER events_are_kept BEFORE UPDATE OR DELETE OR TRUNCATE
ON agentvault.events EXECUTE FUNCTION agentvault.refuse()""",
)
_TIME: Final = """
CREATE FUNCTION agentvault.time_ago(seconds integer) RETURNS text
LANGUAGE sql VOLATILE AS $$ SELECT to_char(
  clock_timestamp() AT TIME ZONE 'UTC' - make_interval(secs => seconds),
  'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$"""
FOLLOW: Final = """
SELECT 0, seq, revision, n, batch::text, fault,
  (SELECT hash FROM agentvault.events WHERE seq = %(seq)s), NULL::bytea,
  (SELECT broker FROM agentvault.appends WHERE batch = %(own)s::uuid)
  FROM agentvault.head
UNION ALL (
  SELECT 1, seq, NULL, NULL, NULL, NULL, body, hash, NULL FROM agentvault.events
  WHERE seq > %(seq)s AND seq < %(end_seq)s ORDER BY seq LIMIT %(limit)s)
UNION ALL
SELECT 2, n, revision, NULL, kind, NULL, doc, NULL, NULL FROM agentvault.state
  WHERE revision > %(revision)s AND revision < %(end_revision)s
  AND least((SELECT seq FROM agentvault.head), %(end_seq)s - 1)
    <= %(seq)s::bigint + %(limit)s
"""
"""In one snapshot: the head, and whether a transaction of our own is placed; the events
after the known head up to an end; and once those are all, the rows."""
REQUESTED: Final = (
    "SELECT id, doc FROM agentvault.asks WHERE broker = %s AND answer IS NULL"
    " AND at > clock_timestamp() - interval '10 seconds' ORDER BY at"
)
"""The questions that wait for a broker; see `StoreCalls`."""
FROM_HERE_ON: Final = {"end_seq": 2**63 - 1, "end_revision": 2**63 - 1, "own": None}
_NAMES: Final = {"seq": "known_seq", "revision": "known_revision", "limit": "most"}
_MISSED: Final = FOLLOW % {**FROM_HERE_ON, **_NAMES, "own": "NULL"}
_QUEUE: Final = """
CREATE TABLE agentvault.queue ()"""
"""Locked by a reader of the head, and by no role without rights to it: an advisory lock
can be taken by any role that may connect."""
_APPEND: Final = f"""
CREATE OR REPLACE FUNCTION agentvault.append(
  known uuid, known_seq bigint, known_revision bigint, most bigint,
  writer text, placed uuid, urgent boolean, depends text[], changes text[],
  parts bytea[], adds bigint[], kinds text[], keys text[], numbers bigint[],
  ends text[], docs bytea[], binding bigint[]
) RETURNS TABLE (part integer, a bigint, b bigint, c bigint, d text, e text,
  f bytea, g bytea, h text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  head agentvault.head;
  became agentvault.appends;
  outcome text := 'placed';
  body bytea := '';
BEGIN
  IF NOT urgent THEN
    -- These queue for their turn to ask for the head, and a revocation does not.
    BEGIN
      LOCK TABLE agentvault.queue IN EXCLUSIVE MODE;
    EXCEPTION WHEN lock_not_available THEN
      RETURN QUERY SELECT -1, known_seq, known_revision, 0::bigint, 'wait',
        NULL::text, NULL::bytea, NULL::bytea, NULL::text;
      RETURN;
    END;
  END IF;
  SELECT * INTO STRICT head FROM agentvault.head FOR UPDATE;
  became := (writer, placed, head.seq, head.hash, head.time, head.revision, head.n, 0);
  -- A write, so that its commit waits for replicas until the first one's has arrived.
  UPDATE agentvault.appends o SET asked = o.asked + 1
    WHERE o.broker = writer AND o.batch = placed;
  IF FOUND THEN
    SELECT * INTO STRICT became FROM agentvault.appends o WHERE o.broker = writer;
  ELSIF head.turn <> writer AND head.turn_ends > clock_timestamp() AND NOT urgent THEN
    -- The lock alone makes this a commit that waits for replicas, and holds the head.
    PERFORM set_config('synchronous_commit', 'off', true);
    outcome := 'wait';
  ELSIF head.batch <> known AND (head.seq > known_seq + most OR (
    -- Each transaction since the known one is listed, and wrote no key of this one's.
    SELECT count(*) <> head.revision - known_revision + 1
      OR coalesce(bool_and(w.revision <> known_revision OR w.batch <> known), true)
      OR bool_or(w.revision > known_revision AND w.keys && depends)
    FROM agentvault.written w WHERE w.revision >= known_revision)) THEN
    -- Whoever was late is next once it has followed: else the last to write, which
    -- knows the head, would always be first. Nothing is lost with this: no flush.
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE agentvault.head SET turn = writer,
      turn_ends = clock_timestamp() + interval '25 milliseconds';
    outcome := 'behind';
    RETURN QUERY {_MISSED};
  ELSIF head.fault IS NOT NULL AND NOT urgent THEN
    outcome := 'fault';
  ELSE
    IF head.batch <> known THEN
      RETURN QUERY {_MISSED};
    END IF;
    became.revision := head.revision + 1;
    IF cardinality(parts) > 0 THEN
      became.time := greatest(head.time, agentvault.time_ago(0));
    END IF;
    FOR i IN 1 .. cardinality(parts) LOOP
      body := body || parts[i];
      IF adds[i] = -1 THEN
        body := body || convert_to(became.time, 'UTF8');
      ELSIF adds[i] >= 0 THEN
        body := body || convert_to((CASE adds[i] WHEN 0 THEN became.seq + 1
          ELSE head.n + adds[i] END)::text, 'UTF8');
      ELSE
        became.seq := became.seq + 1;
        became.hash := sha256('agentvault event v1\\012'::bytea || became.hash
          || int8send(became.seq) || int8send(length(body)) || body);
        INSERT INTO agentvault.events VALUES (became.seq, body, became.hash);
        body := '';
      END IF;
    END LOOP;
    INSERT INTO agentvault.state AS s
      SELECT k, CASE k WHEN 'tokens' THEN x::text ELSE y END, x, became.revision, e,
        CASE k WHEN 'tokens'
          THEN convert_to('[' || x || ',', 'UTF8') || d
            || convert_to(',' || head.seq + i || ']', 'UTF8')
          ELSE '['::bytea || d || convert_to(',' || x || ']', 'UTF8') END
      FROM unnest(kinds, keys, numbers, ends, docs, binding) AS u(k, y, r, e, d, i),
        LATERAL (SELECT head.n + r) AS v(x)
      ON CONFLICT (kind, key) DO UPDATE SET n = excluded.n,
        revision = excluded.revision, expires = excluded.expires, doc = excluded.doc
      WHERE excluded.n > s.n AND s.kind <> 'dropped';
    UPDATE agentvault.head o SET seq = became.seq, hash = became.hash,
      time = became.time, revision = became.revision, batch = placed, turn = NULL,
      n = head.n + coalesce((SELECT max(x) FROM unnest(numbers) AS x), 0);
    INSERT INTO agentvault.appends AS o VALUES (became.*)
      ON CONFLICT (broker) DO UPDATE SET batch = excluded.batch, seq = excluded.seq,
        hash = excluded.hash, time = excluded.time, revision = excluded.revision,
        n = excluded.n;
    INSERT INTO agentvault.written VALUES (became.revision, placed, changes);
    IF became.revision % {_LISTED // 4} = 0 THEN
      DELETE FROM agentvault.written WHERE revision <= became.revision - {_LISTED};
    END IF;
  END IF;
  RETURN QUERY SELECT -1, became.seq, became.revision, became.n, outcome,
    became.time, became.hash, NULL::bytea, NULL::text;
END $$"""  # noqa: S608 - of constants alone
"""Shows a broker that another wrote before the part it missed, in the same round trip.

A body comes in *parts*, and the insertion after each: -1 the time, -2 nothing, as it is
whole, 0 its number, and else the number of a row, counted from the head's."""
_TENANT: Final = (
    "CREATE SCHEMA agentvault_tenant",
    """
CREATE TABLE agentvault_tenant.facts (
  name text COLLATE "C" PRIMARY KEY, value text NOT NULL
)""",
    """
CREATE TABLE agentvault_tenant.signing_keys (
  use text PRIMARY KEY CHECK (use IN ('current', 'next')),
  kid text NOT NULL UNIQUE, sealed bytea NOT NULL, created_at text NOT NULL,
  signed_until float8 NOT NULL DEFAULT 0
)""",
    """
CREATE TABLE agentvault_tenant.users (
  sub text PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE,
  password_hash text NOT NULL, otp_sealed bytea NOT NULL,
  otp_version bigint NOT NULL, otp_last_step bigint NOT NULL,
  created_at text NOT NULL, roles text NOT NULL DEFAULT '[]',
  blocked bigint NOT NULL DEFAULT 0 CHECK (blocked IN (0, 1)),
  profile text NOT NULL DEFAULT '{}'
)""",
    """
CREATE TABLE agentvault_tenant.lockouts (
  who text NOT NULL, factor text NOT NULL
    CHECK (factor IN ('password', 'otp', 'code')),
  failures bigint NOT NULL, locked_until float8 NOT NULL, last_at float8 NOT NULL,
  PRIMARY KEY (who, factor)
)""",
    """
CREATE TABLE agentvault_tenant.device_codes (
  device_code_hash text PRIMARY KEY, user_code_hash text NOT NULL UNIQUE,
  client_id text NOT NULL, scope text NOT NULL, details text,
  created_at text COLLATE "C" NOT NULL, expires_wall text COLLATE "C" NOT NULL,
  expires_boot float8 NOT NULL, boot_id text NOT NULL,
  failures bigint NOT NULL DEFAULT 0,
  state text NOT NULL DEFAULT 'pending'
    CHECK (state IN ('pending', 'approved', 'denied', 'spent')),
  sub text, sid text, authenticated_at bigint, audience text, stepup_id text,
  amr text, outcome text, origin text
)""",
    """
CREATE INDEX device_codes_of
ON agentvault_tenant.device_codes (stepup_id, created_at)""",
    """
CREATE TABLE agentvault_tenant.access_tokens (
  token_hash text PRIMARY KEY, client_id text NOT NULL, sub text NOT NULL,
  scope text NOT NULL, expires_at float8 NOT NULL
)""",
    """
CREATE TABLE agentvault_tenant.objects (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL,
  id text NOT NULL, name text NOT NULL, doc text NOT NULL,
  UNIQUE (kind, id), UNIQUE (kind, name)
)""",
    """
CREATE TABLE agentvault_tenant.client_secrets (
  client_id text PRIMARY KEY, secret_hash text NOT NULL
)""",
    """
CREATE TABLE agentvault_tenant.refresh_tokens (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE,
  user_id text NOT NULL, client_id text NOT NULL, session_id text,
  audience text NOT NULL, reach text NOT NULL, created_at float8 NOT NULL,
  last_exchanged_at float8, gone_at float8
)""",
    """
CREATE INDEX refresh_tokens_of
ON agentvault_tenant.refresh_tokens (user_id, client_id)""",
    """
CREATE TABLE agentvault_tenant.refresh_secrets (
  token_hash text PRIMARY KEY, id text NOT NULL
)""",
    """
CREATE TABLE agentvault_tenant.auth_codes (
  code_hash text PRIMARY KEY, client_id text NOT NULL, redirect_uri text NOT NULL,
  challenge text, login text NOT NULL, scope text NOT NULL, audience text,
  nonce text, expires_at float8 NOT NULL, spent bigint NOT NULL, refresh_id text
)""",
    """
CREATE TABLE agentvault_tenant.connected_accounts (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE,
  user_id text NOT NULL, connection text NOT NULL, account text NOT NULL,
  scope text NOT NULL, created_at float8 NOT NULL, version bigint NOT NULL,
  sealed bytea NOT NULL, token_expires_at float8 NOT NULL, last_used_at float8,
  UNIQUE (user_id, connection, account)
)""",
    """
CREATE TABLE agentvault_tenant.connect_requests (
  session_hash text PRIMARY KEY, ticket_hash text NOT NULL UNIQUE,
  user_id text NOT NULL, client_id text NOT NULL, connection text NOT NULL,
  redirect_uri text NOT NULL, state text, challenge text, scope text NOT NULL,
  expires_at float8 NOT NULL, code_hash text, account text
)""",
    """
CREATE TABLE agentvault_tenant.provider_grants (
  id text PRIMARY KEY, connection text NOT NULL, account text NOT NULL,
  scope text NOT NULL, refresh_hash text NOT NULL UNIQUE, created_at float8 NOT NULL
)""",
    """
CREATE TABLE agentvault_tenant.provider_tokens (
  token_hash text PRIMARY KEY, grant_id text NOT NULL, scope text NOT NULL,
  expires_at float8 NOT NULL
)""",
    """
CREATE TABLE agentvault_tenant.journal (
  log_id text COLLATE "C" PRIMARY KEY, type text NOT NULL,
  visible_at float8 NOT NULL, doc text NOT NULL
)""",
    """
CREATE TABLE agentvault_tenant.passkeys (
  id text PRIMARY KEY, sub text NOT NULL, public_key bytea NOT NULL,
  counter bigint NOT NULL, synced bigint NOT NULL, host text NOT NULL,
  created_at text COLLATE "C" NOT NULL, last_used_at text
)""",
    """
CREATE TABLE agentvault_tenant.passkey_uses (
  passkey text NOT NULL, challenge text NOT NULL, at float8 NOT NULL,
  PRIMARY KEY (passkey, challenge)
)""",
    """
CREATE TABLE agentvault_tenant.passkey_links (
  link_hash text PRIMARY KEY, sub text NOT NULL, expires_at float8 NOT NULL
)""",
    """
CREATE TABLE agentvault_tenant.page_sessions (
  cookie_hash text PRIMARY KEY, sub text NOT NULL, expires_at float8 NOT NULL
)""",
    """
CREATE TABLE agentvault_tenant.activations (
  id_hash text PRIMARY KEY, code_key text NOT NULL, user_code_sealed bytea NOT NULL,
  browser text NOT NULL, expires_at float8 NOT NULL, step text NOT NULL,
  sub text, authenticated_at bigint, page bigint NOT NULL, used bigint NOT NULL
)""",
)
"""The embedded tenant's: the same tables and columns as those in a home's file, whose
text orders by bytes (``COLLATE "C"``) wherever it is ordered or compared by size."""

STATEMENTS: Final = (
    "CREATE SCHEMA agentvault",
    *_FOLLOWED,
    *_OWN,
    *_GUARD,
    _TIME,
    _QUEUE,
    _APPEND,
    *_TENANT,
)
"""The statements for the schema, of `store_connection.VERSION`, in a database without
one."""
FINISHED_NOW: Final = "SELECT to_jsonb(h) ->> 'finished' FROM agentvault.head AS h"
"""Also where an earlier version made the store, without such a column."""
FINISH: Final = (
    f"ALTER TABLE agentvault.head ADD finished integer NOT NULL DEFAULT {FINISHED}",
)
"""The parts that end with the last broker of an earlier version."""
_WRITTEN: Final = ("state", "appends", "written", "brokers", "calls", "asks", "queue")
_BROKERS_ROLES: Final = """
DO $$ DECLARE role regrole; BEGIN
  FOR role IN SELECT DISTINCT grantee FROM pg_class, aclexplode(relacl)
    WHERE oid = 'agentvault.head'::regclass AND grantee <> 0
      AND privilege_type = 'UPDATE' LOOP
    EXECUTE format('GRANT SELECT, UPDATE ON agentvault.queue TO %s', role);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %s', current_database(), role);
  END LOOP;
END $$"""
"""Adds the rights for a role that serves already."""
PUBLIC: Final = """
SELECT array_agg(privilege_type::text ORDER BY privilege_type)
FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
WHERE datname = current_database() AND grantee = 0
  AND privilege_type IN ('CONNECT', 'TEMPORARY')"""
"""The rights of any role of the server on the database."""
EXAMINE: Final = (
    "SELECT current_database(), current_user, prosrc,"
    " to_regclass('agentvault.queue') IS NOT NULL"
    " FROM (VALUES (1)) AS one LEFT JOIN pg_proc"
    " ON pronamespace = to_regnamespace('agentvault') AND proname = 'append'"
)


def updates(source: str | None, *, queue: bool) -> tuple[str, ...]:
    """Return the statements that bring a schema of this version up to date.

    Args:
        source: of the function that appends, as the database has it.
        queue: whether the table is there that it locks.
    """
    made = () if queue else (_QUEUE, _BROKERS_ROLES)
    same = source is not None and source in _APPEND
    return made if same else (*made, _APPEND)


def closing_to_public(database: str, user: str) -> tuple[str, ...]:
    """Return the statements that exclude roles without rights from the database.

    A role that may connect can hold locks and fill the disk with temporary tables.
    """
    name, role = _quoted(database), _quoted(user)
    return (
        f"GRANT CONNECT ON DATABASE {name} TO {role}",
        _BROKERS_ROLES,
        f"REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC",
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def grants(role: str, database: str = "") -> tuple[str, ...]:
    """Return the rights with which *role*, which owns nothing, serves as a broker.

    It changes and deletes no event, and no table, trigger or function. Without a
    *database* anybody may connect to it.
    """
    name = _quoted(role)
    connect = f"GRANT CONNECT ON DATABASE {_quoted(database)} TO {name}"
    written = ", ".join(f"agentvault.{one}" for one in _WRITTEN)
    every = "SELECT, INSERT, UPDATE, DELETE"
    return (
        *((connect,) if database else ()),
        f"GRANT USAGE ON SCHEMA agentvault, agentvault_tenant TO {name}",
        f"GRANT SELECT, INSERT ON agentvault.events TO {name}",
        f"GRANT SELECT, UPDATE ON agentvault.head TO {name}",
        f"GRANT {every} ON {written} TO {name}",
        f"GRANT {every} ON ALL TABLES IN SCHEMA agentvault_tenant TO {name}",
    )


PRUNE: Final = (
    """
DELETE FROM agentvault.state WHERE kind = 'tokens' AND expires < agentvault.time_ago(0)
  AND n IN (SELECT n FROM agentvault.state WHERE kind = 'tokens' ORDER BY n LIMIT 512)
""",
    """
DELETE FROM agentvault.state WHERE kind IN ('dropped', 'voided')
  AND n < (SELECT min(n) FROM agentvault.state WHERE kind = 'tokens')
""",
    """
DELETE FROM agentvault.state WHERE kind = 'meta'
  AND key > 'jti:' AND key < 'jti:' || agentvault.time_ago(600)
""",
    """
DELETE FROM agentvault.brokers WHERE seen < clock_timestamp() - interval '24 hours'
""",
    """
DELETE FROM agentvault.calls AS c WHERE NOT EXISTS (
  SELECT FROM agentvault.brokers AS b WHERE b.id = c.broker AND b.run = c.run
  AND b.seen > clock_timestamp() - interval '1 minute')
""",
    """
DELETE FROM agentvault.asks WHERE at < clock_timestamp() - interval '10 seconds'
""",
)
"""The same as `state.prune`, here, by the store's time, and for brokers that died."""
