BEGIN TRANSACTION;
CREATE TABLE activity (
  agent_id TEXT NOT NULL, facet TEXT NOT NULL, value TEXT NOT NULL,
  outcome TEXT NOT NULL, events INTEGER NOT NULL, last TEXT NOT NULL,
  PRIMARY KEY (agent_id, facet, value, outcome)
) WITHOUT ROWID;
INSERT INTO "activity" VALUES('agt_4zn0cb7wdacret59','quarter','2026-11-24T10:00','allowed',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "activity" VALUES('agt_4zn0cb7wdacret59','scope','write:calendar','allowed',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "activity" VALUES('agt_7d15aj60ghv31exz','quarter','2026-11-24T10:00','allowed',2,'2026-11-24T10:00:00.000000Z');
INSERT INTO "activity" VALUES('agt_7d15aj60ghv31exz','scope','write:calendar','allowed',2,'2026-11-24T10:00:00.000000Z');
INSERT INTO "activity" VALUES('agt_8zdnem7z9qhvd52f','quarter','2026-11-24T10:00','escalated',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "activity" VALUES('agt_8zdnem7z9qhvd52f','scope','send:payment','escalated',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "activity" VALUES('agt_ar0xczhx0xan8b8q','quarter','2026-11-24T10:00','escalated',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "activity" VALUES('agt_ar0xczhx0xan8b8q','scope','send:payment','escalated',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "activity" VALUES('agt_d942eja2c8qk9peh','quarter','2026-11-24T10:00','escalated',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "activity" VALUES('agt_d942eja2c8qk9peh','scope','send:payment','escalated',1,'2026-11-24T10:00:00.000000Z');
CREATE TABLE agents (
  id TEXT PRIMARY KEY, doc TEXT NOT NULL, n INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "agents" VALUES('agt_4zn0cb7wdacret59','{"id":"agt_4zn0cb7wdacret59","client_id":"agt_4zn0cb7wdacret59","name":"cut","owner":"olga","purpose":"tests","scopes":["send:payment","write:calendar"],"created_at":"2026-11-24T10:00:00.000000Z","status":"revoked","resource_server":false,"secret_sha256":"d8a60dbc9db686ba671aefc19c6eabe53d177f378af689f0df614e49fa30045d","public_key":null,"revoked_at":"2026-11-24T10:00:00.000000Z"}',7);
INSERT INTO "agents" VALUES('agt_7d15aj60ghv31exz','{"id":"agt_7d15aj60ghv31exz","client_id":"agt_7d15aj60ghv31exz","name":"live","owner":"olga","purpose":"tests","scopes":["send:payment","write:calendar"],"created_at":"2026-11-24T10:00:00.000000Z","status":"active","resource_server":false,"secret_sha256":"4cceff89245c635dffc800345baf4fcbf40a1cd309b068e539135a7bd0566ad5","public_key":null,"revoked_at":null}',1);
INSERT INTO "agents" VALUES('agt_8zdnem7z9qhvd52f','{"id":"agt_8zdnem7z9qhvd52f","client_id":"agt_8zdnem7z9qhvd52f","name":"denied","owner":"olga","purpose":"tests","scopes":["send:payment","write:calendar"],"created_at":"2026-11-24T10:00:00.000000Z","status":"active","resource_server":false,"secret_sha256":"50f6c1a4f21a867abd5b5b28bb9b597fc902a8b84fa7972b63eea427447fed1c","public_key":null,"revoked_at":null}',16);
INSERT INTO "agents" VALUES('agt_ar0xczhx0xan8b8q','{"id":"agt_ar0xczhx0xan8b8q","client_id":"agt_ar0xczhx0xan8b8q","name":"waits","owner":"olga","purpose":"tests","scopes":["send:payment","write:calendar"],"created_at":"2026-11-24T10:00:00.000000Z","status":"active","resource_server":false,"secret_sha256":"d661198341114eb24a2fdb5fe01995ec90ceb432bc262049b9266f4935c6157c","public_key":null,"revoked_at":null}',9);
INSERT INTO "agents" VALUES('agt_d942eja2c8qk9peh','{"id":"agt_d942eja2c8qk9peh","client_id":"agt_d942eja2c8qk9peh","name":"approved","owner":"olga","purpose":"tests","scopes":["send:payment","write:calendar"],"created_at":"2026-11-24T10:00:00.000000Z","status":"active","resource_server":false,"secret_sha256":"d58eeaad9901f4cf9734d6d24774c9ed3de78c8cc3ccdca9199d9b781b0cdd10","public_key":null,"revoked_at":null}',11);
CREATE TABLE dropped (
  id TEXT PRIMARY KEY, n INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "dropped" VALUES('tok_vwxy97hzq3f5cxgf',4);
CREATE TABLE eras (
  first_seq INTEGER PRIMARY KEY
);
INSERT INTO "eras" VALUES(1);
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, time TEXT NOT NULL, type TEXT NOT NULL,
  agent_id TEXT, outcome TEXT, text TEXT NOT NULL,
  body TEXT NOT NULL, hash BLOB NOT NULL
);
INSERT INTO "events" VALUES(1,'2026-11-24T10:00:00.000000Z','agent.registered','agt_7d15aj60ghv31exz',NULL,'olga
agent
live
credential
secret
owner
olga
purpose
tests
resource_server
scopes
send:payment
write:calendar','{"action":null,"actor":{"id":"uid:1000","kind":"operator","name":"olga"},"agent_id":"agt_7d15aj60ghv31exz","decision_id":null,"detail":{"agent":"live","credential":"secret","owner":"olga","purpose":"tests","resource_server":false,"scopes":["send:payment","write:calendar"]},"outcome":null,"reason":null,"resource":null,"rule":null,"seq":1,"time":"2026-11-24T10:00:00.000000Z","type":"agent.registered"}',X'729B0BA28C5AD83249E6BDACFAE11D5B7F6A2E990F92DE6C283E4273D16890B6');
INSERT INTO "events" VALUES(2,'2026-11-24T10:00:00.000000Z','token.decision','agt_7d15aj60ghv31exz','allowed','live
write:calendar
granted
granted-low-and-medium-risk
dec_js2yrz77kaxp2e80
expires_at
2026-11-24t11:00:00.000000z
policy_version
a1fc5de603ae
scope
write:calendar
token_id
tok_5dms5nmeb6frdqz2','{"action":"write:calendar","actor":{"id":"agt_7d15aj60ghv31exz","kind":"agent","name":"live"},"agent_id":"agt_7d15aj60ghv31exz","decision_id":"dec_js2yrz77kaxp2e80","detail":{"expires_at":"2026-11-24T11:00:00.000000Z","policy_version":"a1fc5de603ae","scope":"write:calendar","token_id":"tok_5dms5nmeb6frdqz2"},"outcome":"allowed","reason":"granted","resource":null,"rule":"granted-low-and-medium-risk","seq":2,"time":"2026-11-24T10:00:00.000000Z","type":"token.decision"}',X'F9A960E4D05F4FE395EE151675688D7B4C6F02CECF58959AC66A4787823FAF9B');
INSERT INTO "events" VALUES(3,'2026-11-24T10:00:00.000000Z','token.decision','agt_7d15aj60ghv31exz','allowed','live
write:calendar
granted
granted-low-and-medium-risk
dec_nan0ry2vvdfqj9wq
expires_at
2026-11-24t11:00:00.000000z
policy_version
a1fc5de603ae
scope
write:calendar
token_id
tok_vwxy97hzq3f5cxgf','{"action":"write:calendar","actor":{"id":"agt_7d15aj60ghv31exz","kind":"agent","name":"live"},"agent_id":"agt_7d15aj60ghv31exz","decision_id":"dec_nan0ry2vvdfqj9wq","detail":{"expires_at":"2026-11-24T11:00:00.000000Z","policy_version":"a1fc5de603ae","scope":"write:calendar","token_id":"tok_vwxy97hzq3f5cxgf"},"outcome":"allowed","reason":"granted","resource":null,"rule":"granted-low-and-medium-risk","seq":3,"time":"2026-11-24T10:00:00.000000Z","type":"token.decision"}',X'23C3D0D4032D0594D560DD6D007AAF4E03F0BACFD1C041FF2F5F420E1D28DA20');
INSERT INTO "events" VALUES(4,'2026-11-24T10:00:00.000000Z','token.revoked','agt_7d15aj60ghv31exz',NULL,'live
write:calendar
handed back
expires_at
2026-11-24t11:00:00.000000z
token_id
tok_vwxy97hzq3f5cxgf','{"action":"write:calendar","actor":{"id":"agt_7d15aj60ghv31exz","kind":"agent","name":"live"},"agent_id":"agt_7d15aj60ghv31exz","decision_id":null,"detail":{"expires_at":"2026-11-24T11:00:00.000000Z","token_id":"tok_vwxy97hzq3f5cxgf"},"outcome":null,"reason":"handed back","resource":null,"rule":null,"seq":4,"time":"2026-11-24T10:00:00.000000Z","type":"token.revoked"}',X'88F4428471D702E2E604E959FD173581D9F9433D6B632198AFFB3BD25A01C211');
INSERT INTO "events" VALUES(5,'2026-11-24T10:00:00.000000Z','agent.registered','agt_4zn0cb7wdacret59',NULL,'olga
agent
cut
credential
secret
owner
olga
purpose
tests
resource_server
scopes
send:payment
write:calendar','{"action":null,"actor":{"id":"uid:1000","kind":"operator","name":"olga"},"agent_id":"agt_4zn0cb7wdacret59","decision_id":null,"detail":{"agent":"cut","credential":"secret","owner":"olga","purpose":"tests","resource_server":false,"scopes":["send:payment","write:calendar"]},"outcome":null,"reason":null,"resource":null,"rule":null,"seq":5,"time":"2026-11-24T10:00:00.000000Z","type":"agent.registered"}',X'8122482850275D4B8E29D1ED0189F091937D353B3E5BF6A6AF820CF77602B435');
INSERT INTO "events" VALUES(6,'2026-11-24T10:00:00.000000Z','token.decision','agt_4zn0cb7wdacret59','allowed','cut
write:calendar
granted
granted-low-and-medium-risk
dec_khhtx20x5p7gaafq
expires_at
2026-11-24t11:00:00.000000z
policy_version
a1fc5de603ae
scope
write:calendar
token_id
tok_b47b4pvpbkmgc1cc','{"action":"write:calendar","actor":{"id":"agt_4zn0cb7wdacret59","kind":"agent","name":"cut"},"agent_id":"agt_4zn0cb7wdacret59","decision_id":"dec_khhtx20x5p7gaafq","detail":{"expires_at":"2026-11-24T11:00:00.000000Z","policy_version":"a1fc5de603ae","scope":"write:calendar","token_id":"tok_b47b4pvpbkmgc1cc"},"outcome":"allowed","reason":"granted","resource":null,"rule":"granted-low-and-medium-risk","seq":6,"time":"2026-11-24T10:00:00.000000Z","type":"token.decision"}',X'C8BB593E1042BD3C0E7C1926737C8495A44222161DA1FC6AECEA7EB1D6EA029C');
INSERT INTO "events" VALUES(7,'2026-11-24T10:00:00.000000Z','agent.revoked','agt_4zn0cb7wdacret59',NULL,'olga
x
agent
cut
owner
olga
scopes
send:payment
write:calendar
stepups_cancelled
0
tokens
tok_b47b4pvpbkmgc1cc
tokens_revoked
1','{"action":null,"actor":{"id":"uid:1000","kind":"operator","name":"olga"},"agent_id":"agt_4zn0cb7wdacret59","decision_id":null,"detail":{"agent":"cut","owner":"olga","scopes":["send:payment","write:calendar"],"stepups_cancelled":0,"tokens":["tok_b47b4pvpbkmgc1cc"],"tokens_revoked":1},"outcome":null,"reason":"x","resource":null,"rule":null,"seq":7,"time":"2026-11-24T10:00:00.000000Z","type":"agent.revoked"}',X'EA1AEBBAF8F778F2243FF63FD647A1BBA9699399405AF26BEFABD80D18FDD8EF');
INSERT INTO "events" VALUES(8,'2026-11-24T10:00:00.000000Z','agent.registered','agt_ar0xczhx0xan8b8q',NULL,'olga
agent
waits
credential
secret
owner
olga
purpose
tests
resource_server
scopes
send:payment
write:calendar','{"action":null,"actor":{"id":"uid:1000","kind":"operator","name":"olga"},"agent_id":"agt_ar0xczhx0xan8b8q","decision_id":null,"detail":{"agent":"waits","credential":"secret","owner":"olga","purpose":"tests","resource_server":false,"scopes":["send:payment","write:calendar"]},"outcome":null,"reason":null,"resource":null,"rule":null,"seq":8,"time":"2026-11-24T10:00:00.000000Z","type":"agent.registered"}',X'E03654C178480A881BA2F627A4AD6EC4198EBEDECFA5594950C6D63E91FDED4C');
INSERT INTO "events" VALUES(9,'2026-11-24T10:00:00.000000Z','token.decision','agt_ar0xczhx0xan8b8q','escalated','waits
send:payment
stripe:acct_42
stepup_required
payments-need-step-up
dec_fr83y2wt9wnxhte3
agent_says
invoice 1881
parameters
amount
4200
currency
usd
policy_version
a1fc5de603ae
scope
send:payment
stepup_id
sup_j956zezwd7t38g2a','{"action":"send:payment","actor":{"id":"agt_ar0xczhx0xan8b8q","kind":"agent","name":"waits"},"agent_id":"agt_ar0xczhx0xan8b8q","decision_id":"dec_fr83y2wt9wnxhte3","detail":{"agent_says":"Invoice 1881","parameters":{"amount":4200,"currency":"USD"},"policy_version":"a1fc5de603ae","scope":"send:payment","stepup_id":"sup_j956zezwd7t38g2a"},"outcome":"escalated","reason":"stepup_required","resource":"stripe:acct_42","rule":"payments-need-step-up","seq":9,"time":"2026-11-24T10:00:00.000000Z","type":"token.decision"}',X'3683F3780D4C9662ACAF383F26189F8E7176D3B57E039838765C5797C36F9D7E');
INSERT INTO "events" VALUES(10,'2026-11-24T10:00:00.000000Z','stepup.requested','agt_ar0xczhx0xan8b8q',NULL,'waits
send:payment
stripe:acct_42
invoice 1881
payments-need-step-up
dec_fr83y2wt9wnxhte3
digest
sha256:b37a2d93ae414a94f257a8d672ec0c57fb5824315ed823d5aa0f62b5885b6a9d
expires_at
2026-11-24t10:05:00.000000z
nonce
n_5f4catrndweqdnkpkxbnd6uofphvyror8gkwouaimpy
parameters
amount
4200
currency
usd
policy_version
a1fc5de603ae
risk
high
scope
send:payment
stepup_id
sup_j956zezwd7t38g2a
ttl
300
why
money leaves an account, and a payment cannot be called back.','{"action":"send:payment","actor":{"id":"agt_ar0xczhx0xan8b8q","kind":"agent","name":"waits"},"agent_id":"agt_ar0xczhx0xan8b8q","decision_id":"dec_fr83y2wt9wnxhte3","detail":{"digest":"sha256:b37a2d93ae414a94f257a8d672ec0c57fb5824315ed823d5aa0f62b5885b6a9d","expires_at":"2026-11-24T10:05:00.000000Z","nonce":"n_5f4caTrNDwEQDNKPkXBnd6uOfPhvyrOR8GKwOuAIMpY","parameters":{"amount":4200,"currency":"USD"},"policy_version":"a1fc5de603ae","risk":"high","scope":"send:payment","stepup_id":"sup_j956zezwd7t38g2a","ttl":300,"why":"Money leaves an account, and a payment cannot be called back."},"outcome":null,"reason":"Invoice 1881","resource":"stripe:acct_42","rule":"payments-need-step-up","seq":10,"time":"2026-11-24T10:00:00.000000Z","type":"stepup.requested"}',X'9C57E09497B3983A37F6D8721CBF272B7F9B4B0C0A26090C16A722D086AA56FE');
INSERT INTO "events" VALUES(11,'2026-11-24T10:00:00.000000Z','agent.registered','agt_d942eja2c8qk9peh',NULL,'olga
agent
approved
credential
secret
owner
olga
purpose
tests
resource_server
scopes
send:payment
write:calendar','{"action":null,"actor":{"id":"uid:1000","kind":"operator","name":"olga"},"agent_id":"agt_d942eja2c8qk9peh","decision_id":null,"detail":{"agent":"approved","credential":"secret","owner":"olga","purpose":"tests","resource_server":false,"scopes":["send:payment","write:calendar"]},"outcome":null,"reason":null,"resource":null,"rule":null,"seq":11,"time":"2026-11-24T10:00:00.000000Z","type":"agent.registered"}',X'812450C8860642E857480F4D937D980A0EF2417320B5139D05750EC520CAAD36');
INSERT INTO "events" VALUES(12,'2026-11-24T10:00:00.000000Z','token.decision','agt_d942eja2c8qk9peh','escalated','approved
send:payment
stripe:acct_42
stepup_required
payments-need-step-up
dec_f2wny94wy2pqjcs1
agent_says
invoice 1881
parameters
amount
4200
currency
usd
policy_version
a1fc5de603ae
scope
send:payment
stepup_id
sup_9rstex7q2dyb45w3','{"action":"send:payment","actor":{"id":"agt_d942eja2c8qk9peh","kind":"agent","name":"approved"},"agent_id":"agt_d942eja2c8qk9peh","decision_id":"dec_f2wny94wy2pqjcs1","detail":{"agent_says":"Invoice 1881","parameters":{"amount":4200,"currency":"USD"},"policy_version":"a1fc5de603ae","scope":"send:payment","stepup_id":"sup_9rstex7q2dyb45w3"},"outcome":"escalated","reason":"stepup_required","resource":"stripe:acct_42","rule":"payments-need-step-up","seq":12,"time":"2026-11-24T10:00:00.000000Z","type":"token.decision"}',X'995C22477625FC5F062D099E964D28172682B6579A67065E1EFA592E7BBD56B0');
INSERT INTO "events" VALUES(13,'2026-11-24T10:00:00.000000Z','stepup.requested','agt_d942eja2c8qk9peh',NULL,'approved
send:payment
stripe:acct_42
invoice 1881
payments-need-step-up
dec_f2wny94wy2pqjcs1
digest
sha256:a782e8d3042b6a945eff25d16300c37f5b696111e635cec55cbad13b3d392876
expires_at
2026-11-24t10:05:00.000000z
nonce
n_av5qxmu_hjpfcdtkiqopeeyditzuc5ct_lmavhyugf8
parameters
amount
4200
currency
usd
policy_version
a1fc5de603ae
risk
high
scope
send:payment
stepup_id
sup_9rstex7q2dyb45w3
ttl
300
why
money leaves an account, and a payment cannot be called back.','{"action":"send:payment","actor":{"id":"agt_d942eja2c8qk9peh","kind":"agent","name":"approved"},"agent_id":"agt_d942eja2c8qk9peh","decision_id":"dec_f2wny94wy2pqjcs1","detail":{"digest":"sha256:a782e8d3042b6a945eff25d16300c37f5b696111e635cec55cbad13b3d392876","expires_at":"2026-11-24T10:05:00.000000Z","nonce":"n_AV5QxMU_hJpFCdTkiQOpeeyDitZUC5ct_lMavHYUgF8","parameters":{"amount":4200,"currency":"USD"},"policy_version":"a1fc5de603ae","risk":"high","scope":"send:payment","stepup_id":"sup_9rstex7q2dyb45w3","ttl":300,"why":"Money leaves an account, and a payment cannot be called back."},"outcome":null,"reason":"Invoice 1881","resource":"stripe:acct_42","rule":"payments-need-step-up","seq":13,"time":"2026-11-24T10:00:00.000000Z","type":"stepup.requested"}',X'EC1D22A2CA4A5046F96CDA32724C6F97BB31F6D173FCA319A93B164DD7112453');
INSERT INTO "events" VALUES(14,'2026-11-24T10:00:00.000000Z','stepup.authorizing','agt_d942eja2c8qk9peh',NULL,'olga
send:payment
stripe:acct_42
payments-need-step-up
dec_f2wny94wy2pqjcs1
digest
sha256:a782e8d3042b6a945eff25d16300c37f5b696111e635cec55cbad13b3d392876
stepup_id
sup_9rstex7q2dyb45w3','{"action":"send:payment","actor":{"id":"uid:1000","kind":"operator","name":"olga"},"agent_id":"agt_d942eja2c8qk9peh","decision_id":"dec_f2wny94wy2pqjcs1","detail":{"digest":"sha256:a782e8d3042b6a945eff25d16300c37f5b696111e635cec55cbad13b3d392876","stepup_id":"sup_9rstex7q2dyb45w3"},"outcome":null,"reason":null,"resource":"stripe:acct_42","rule":"payments-need-step-up","seq":14,"time":"2026-11-24T10:00:00.000000Z","type":"stepup.authorizing"}',X'77EBA0C2171BF5734FEE905A71919AA3248E846E6557FB00252C7A917E9832F4');
INSERT INTO "events" VALUES(15,'2026-11-24T10:00:00.000000Z','stepup.approved','agt_d942eja2c8qk9peh',NULL,'alice
send:payment
stripe:acct_42
payments-need-step-up
dec_f2wny94wy2pqjcs1
amr
mfa
otp
auth_time
2026-11-24t10:00:01.000000z
digest
sha256:a782e8d3042b6a945eff25d16300c37f5b696111e635cec55cbad13b3d392876
id_token_sha256
7025a8019f0a68357da85d361b2d5919c56c62b9b6b5d25bf3ffd5ea53f403bf
scope
send:payment
stepup_id
sup_9rstex7q2dyb45w3
token_fetch_before
2026-11-24t10:05:00.000000z
token_id
tok_vp6dhs15jj87zyjw','{"action":"send:payment","actor":{"id":"agentvault|alice","kind":"operator","name":"alice"},"agent_id":"agt_d942eja2c8qk9peh","decision_id":"dec_f2wny94wy2pqjcs1","detail":{"amr":["mfa","otp"],"auth_time":"2026-11-24T10:00:01.000000Z","digest":"sha256:a782e8d3042b6a945eff25d16300c37f5b696111e635cec55cbad13b3d392876","id_token_sha256":"7025a8019f0a68357da85d361b2d5919c56c62b9b6b5d25bf3ffd5ea53f403bf","scope":"send:payment","stepup_id":"sup_9rstex7q2dyb45w3","token_fetch_before":"2026-11-24T10:05:00.000000Z","token_id":"tok_vp6dhs15jj87zyjw"},"outcome":null,"reason":null,"resource":"stripe:acct_42","rule":"payments-need-step-up","seq":15,"time":"2026-11-24T10:00:00.000000Z","type":"stepup.approved"}',X'B50738099E756EC0D803E8E5FD9546413716BE257FAD398A3C93E7986C0A73DC');
INSERT INTO "events" VALUES(16,'2026-11-24T10:00:00.000000Z','agent.registered','agt_8zdnem7z9qhvd52f',NULL,'olga
agent
denied
credential
secret
owner
olga
purpose
tests
resource_server
scopes
send:payment
write:calendar','{"action":null,"actor":{"id":"uid:1000","kind":"operator","name":"olga"},"agent_id":"agt_8zdnem7z9qhvd52f","decision_id":null,"detail":{"agent":"denied","credential":"secret","owner":"olga","purpose":"tests","resource_server":false,"scopes":["send:payment","write:calendar"]},"outcome":null,"reason":null,"resource":null,"rule":null,"seq":16,"time":"2026-11-24T10:00:00.000000Z","type":"agent.registered"}',X'465A2802E5CD99293D88327A2BEC9D04032A558AE22B87659F4B77544BE81855');
INSERT INTO "events" VALUES(17,'2026-11-24T10:00:00.000000Z','token.decision','agt_8zdnem7z9qhvd52f','escalated','denied
send:payment
stripe:acct_42
stepup_required
payments-need-step-up
dec_awag2tj7skpnmdcx
agent_says
invoice 1881
parameters
amount
4200
currency
usd
policy_version
a1fc5de603ae
scope
send:payment
stepup_id
sup_q15wm1jm1qejtwkf','{"action":"send:payment","actor":{"id":"agt_8zdnem7z9qhvd52f","kind":"agent","name":"denied"},"agent_id":"agt_8zdnem7z9qhvd52f","decision_id":"dec_awag2tj7skpnmdcx","detail":{"agent_says":"Invoice 1881","parameters":{"amount":4200,"currency":"USD"},"policy_version":"a1fc5de603ae","scope":"send:payment","stepup_id":"sup_q15wm1jm1qejtwkf"},"outcome":"escalated","reason":"stepup_required","resource":"stripe:acct_42","rule":"payments-need-step-up","seq":17,"time":"2026-11-24T10:00:00.000000Z","type":"token.decision"}',X'E2BA9652CD5AC09CA8CE827F4EEE381CF4528AFB4759CEF71E0B47D5903AA90C');
INSERT INTO "events" VALUES(18,'2026-11-24T10:00:00.000000Z','stepup.requested','agt_8zdnem7z9qhvd52f',NULL,'denied
send:payment
stripe:acct_42
invoice 1881
payments-need-step-up
dec_awag2tj7skpnmdcx
digest
sha256:720d8588392713c3aaa09c8090273bf2f8aedf24a5d9b7c2fe462a3df6481a6f
expires_at
2026-11-24t10:05:00.000000z
nonce
n_ul99aivndy2dbrjvf70u0jqpyranoanwtyoxxhpnroq
parameters
amount
4200
currency
usd
policy_version
a1fc5de603ae
risk
high
scope
send:payment
stepup_id
sup_q15wm1jm1qejtwkf
ttl
300
why
money leaves an account, and a payment cannot be called back.','{"action":"send:payment","actor":{"id":"agt_8zdnem7z9qhvd52f","kind":"agent","name":"denied"},"agent_id":"agt_8zdnem7z9qhvd52f","decision_id":"dec_awag2tj7skpnmdcx","detail":{"digest":"sha256:720d8588392713c3aaa09c8090273bf2f8aedf24a5d9b7c2fe462a3df6481a6f","expires_at":"2026-11-24T10:05:00.000000Z","nonce":"n_UL99aIVNDY2DbrJvf70U0JqpyRANoanwtyoxxhpNROQ","parameters":{"amount":4200,"currency":"USD"},"policy_version":"a1fc5de603ae","risk":"high","scope":"send:payment","stepup_id":"sup_q15wm1jm1qejtwkf","ttl":300,"why":"Money leaves an account, and a payment cannot be called back."},"outcome":null,"reason":"Invoice 1881","resource":"stripe:acct_42","rule":"payments-need-step-up","seq":18,"time":"2026-11-24T10:00:00.000000Z","type":"stepup.requested"}',X'DFF0FC522E32B4F6913060B61DCF0E1EFC6AA700562C2CFB74D08CB24F414658');
INSERT INTO "events" VALUES(19,'2026-11-24T10:00:00.000000Z','stepup.denied','agt_8zdnem7z9qhvd52f',NULL,'olga
send:payment
stripe:acct_42
no
payments-need-step-up
dec_awag2tj7skpnmdcx
digest
sha256:720d8588392713c3aaa09c8090273bf2f8aedf24a5d9b7c2fe462a3df6481a6f
stepup_id
sup_q15wm1jm1qejtwkf','{"action":"send:payment","actor":{"id":"uid:1000","kind":"operator","name":"olga"},"agent_id":"agt_8zdnem7z9qhvd52f","decision_id":"dec_awag2tj7skpnmdcx","detail":{"digest":"sha256:720d8588392713c3aaa09c8090273bf2f8aedf24a5d9b7c2fe462a3df6481a6f","stepup_id":"sup_q15wm1jm1qejtwkf"},"outcome":null,"reason":"no","resource":"stripe:acct_42","rule":"payments-need-step-up","seq":19,"time":"2026-11-24T10:00:00.000000Z","type":"stepup.denied"}',X'81CBD7DB5D70CD71E6AC3382B8795A6580F7004CF62B526AA946FB47B09DD97F');
CREATE TABLE meta (
  key TEXT PRIMARY KEY, value TEXT, n INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "meta" VALUES('cooldown:agt_8zdnem7z9qhvd52f','[1,"2026-11-24T10:00:30.000000Z",1030.0,"b0"]',19);
INSERT INTO "meta" VALUES('ledger','9bcff4b3b4945532b50c23f882404201',0);
CREATE TABLE outbox (
  id TEXT PRIMARY KEY, status TEXT NOT NULL, doc TEXT NOT NULL, n INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE stepups (
  id TEXT PRIMARY KEY, status TEXT NOT NULL, agent_id TEXT NOT NULL,
  action TEXT NOT NULL, decided TEXT, doc TEXT NOT NULL, n INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "stepups" VALUES('sup_9rstex7q2dyb45w3','approved','agt_d942eja2c8qk9peh','send:payment','2026-11-24T10:00:00.000000Z','{"id":"sup_9rstex7q2dyb45w3","agent_id":"agt_d942eja2c8qk9peh","agent_name":"approved","scope":"send:payment","action":"send:payment","resource":"stripe:acct_42","parameters":{"amount":4200,"currency":"USD"},"reason":"Invoice 1881","rule":"payments-need-step-up","why":"Money leaves an account, and a payment cannot be called back.","risk":"high","policy_version":"a1fc5de603ae","nonce":"n_AV5QxMU_hJpFCdTkiQOpeeyDitZUC5ct_lMavHYUgF8","digest":"sha256:a782e8d3042b6a945eff25d16300c37f5b696111e635cec55cbad13b3d392876","decision_id":"dec_f2wny94wy2pqjcs1","ttl":300,"count":1,"status":"approved","problem":null,"denial":null,"authorization_details":[{"type":"x"}],"resource_indicator":null,"connection":null,"requested_at":"2026-11-24T10:00:00.000000Z","expires":["2026-11-24T10:05:00.000000Z",1300.0,"b0"],"decided_at":"2026-11-24T10:00:00.000000Z","begun_at":"2026-11-24T10:00:00.000000Z","redeemed_at":null,"fetched_at":null,"decided_by":["agentvault|alice","alice",["mfa","otp"],"2026-11-24T10:00:01.000000Z"],"device":null}',14);
INSERT INTO "stepups" VALUES('sup_j956zezwd7t38g2a','pending','agt_ar0xczhx0xan8b8q','send:payment',NULL,'{"id":"sup_j956zezwd7t38g2a","agent_id":"agt_ar0xczhx0xan8b8q","agent_name":"waits","scope":"send:payment","action":"send:payment","resource":"stripe:acct_42","parameters":{"amount":4200,"currency":"USD"},"reason":"Invoice 1881","rule":"payments-need-step-up","why":"Money leaves an account, and a payment cannot be called back.","risk":"high","policy_version":"a1fc5de603ae","nonce":"n_5f4caTrNDwEQDNKPkXBnd6uOfPhvyrOR8GKwOuAIMpY","digest":"sha256:b37a2d93ae414a94f257a8d672ec0c57fb5824315ed823d5aa0f62b5885b6a9d","decision_id":"dec_fr83y2wt9wnxhte3","ttl":300,"count":1,"status":"pending","problem":null,"denial":null,"authorization_details":[{"type":"x"}],"resource_indicator":null,"connection":null,"requested_at":"2026-11-24T10:00:00.000000Z","expires":["2026-11-24T10:05:00.000000Z",1300.0,"b0"],"decided_at":null,"begun_at":null,"redeemed_at":null,"fetched_at":null,"decided_by":null,"device":null}',10);
INSERT INTO "stepups" VALUES('sup_q15wm1jm1qejtwkf','denied','agt_8zdnem7z9qhvd52f','send:payment','2026-11-24T10:00:00.000000Z','{"id":"sup_q15wm1jm1qejtwkf","agent_id":"agt_8zdnem7z9qhvd52f","agent_name":"denied","scope":"send:payment","action":"send:payment","resource":"stripe:acct_42","parameters":{"amount":4200,"currency":"USD"},"reason":"Invoice 1881","rule":"payments-need-step-up","why":"Money leaves an account, and a payment cannot be called back.","risk":"high","policy_version":"a1fc5de603ae","nonce":"n_UL99aIVNDY2DbrJvf70U0JqpyRANoanwtyoxxhpNROQ","digest":"sha256:720d8588392713c3aaa09c8090273bf2f8aedf24a5d9b7c2fe462a3df6481a6f","decision_id":"dec_awag2tj7skpnmdcx","ttl":300,"count":1,"status":"denied","problem":null,"denial":"no","authorization_details":[{"type":"x"}],"resource_indicator":null,"connection":null,"requested_at":"2026-11-24T10:00:00.000000Z","expires":["2026-11-24T10:05:00.000000Z",1300.0,"b0"],"decided_at":"2026-11-24T10:00:00.000000Z","begun_at":null,"redeemed_at":null,"fetched_at":null,"decided_by":["uid:1000","olga",[],null],"device":null}',18);
CREATE TABLE tally (
  agent_id TEXT NOT NULL, type TEXT NOT NULL, outcome TEXT NOT NULL,
  events INTEGER NOT NULL, seen TEXT,
  PRIMARY KEY (agent_id, type, outcome)
) WITHOUT ROWID;
INSERT INTO "tally" VALUES('agt_4zn0cb7wdacret59','agent.registered','',1,NULL);
INSERT INTO "tally" VALUES('agt_4zn0cb7wdacret59','agent.revoked','',1,NULL);
INSERT INTO "tally" VALUES('agt_4zn0cb7wdacret59','token.decision','allowed',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "tally" VALUES('agt_7d15aj60ghv31exz','agent.registered','',1,NULL);
INSERT INTO "tally" VALUES('agt_7d15aj60ghv31exz','token.decision','allowed',2,'2026-11-24T10:00:00.000000Z');
INSERT INTO "tally" VALUES('agt_7d15aj60ghv31exz','token.revoked','',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "tally" VALUES('agt_8zdnem7z9qhvd52f','agent.registered','',1,NULL);
INSERT INTO "tally" VALUES('agt_8zdnem7z9qhvd52f','stepup.denied','',1,NULL);
INSERT INTO "tally" VALUES('agt_8zdnem7z9qhvd52f','stepup.requested','',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "tally" VALUES('agt_8zdnem7z9qhvd52f','token.decision','escalated',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "tally" VALUES('agt_ar0xczhx0xan8b8q','agent.registered','',1,NULL);
INSERT INTO "tally" VALUES('agt_ar0xczhx0xan8b8q','stepup.requested','',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "tally" VALUES('agt_ar0xczhx0xan8b8q','token.decision','escalated',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "tally" VALUES('agt_d942eja2c8qk9peh','agent.registered','',1,NULL);
INSERT INTO "tally" VALUES('agt_d942eja2c8qk9peh','stepup.approved','',1,NULL);
INSERT INTO "tally" VALUES('agt_d942eja2c8qk9peh','stepup.authorizing','',1,NULL);
INSERT INTO "tally" VALUES('agt_d942eja2c8qk9peh','stepup.requested','',1,'2026-11-24T10:00:00.000000Z');
INSERT INTO "tally" VALUES('agt_d942eja2c8qk9peh','token.decision','escalated',1,'2026-11-24T10:00:00.000000Z');
CREATE TABLE tokens (
  n INTEGER PRIMARY KEY, id TEXT NOT NULL, agent_id TEXT NOT NULL,
  expires TEXT NOT NULL, doc TEXT NOT NULL
);
INSERT INTO "tokens" VALUES(2,'tok_5dms5nmeb6frdqz2','agt_7d15aj60ghv31exz','2026-11-24T11:00:00.000000Z','["f97556e2dfc58c697f87372e760733cb5b6caa333296aedee714c585f5698410","write:calendar","standard","2026-11-24T10:00:00.000000Z","2026-11-24T11:00:00.000000Z",4600.0,"b0",null,null,null]');
INSERT INTO "tokens" VALUES(3,'tok_vwxy97hzq3f5cxgf','agt_7d15aj60ghv31exz','2026-11-24T11:00:00.000000Z','["e14d7e1f1030870ebd913da48024bba9d3169cfe18d5a0f642d5aa4ca79a2350","write:calendar","standard","2026-11-24T10:00:00.000000Z","2026-11-24T11:00:00.000000Z",4600.0,"b0",null,null,null]');
INSERT INTO "tokens" VALUES(6,'tok_b47b4pvpbkmgc1cc','agt_4zn0cb7wdacret59','2026-11-24T11:00:00.000000Z','["d0814b1fc1983996635fd6f514a3eada288ba1d7752d4ec600e76a255ff40535","write:calendar","standard","2026-11-24T10:00:00.000000Z","2026-11-24T11:00:00.000000Z",4600.0,"b0",null,null,null]');
INSERT INTO "tokens" VALUES(15,'tok_vp6dhs15jj87zyjw','agt_d942eja2c8qk9peh','2026-11-24T10:05:00.000000Z','["undelivered:tok_vp6dhs15jj87zyjw","send:payment","elevated","2026-11-24T10:00:00.000000Z","2026-11-24T10:05:00.000000Z",1300.0,"b0",[{"type":"x"}],null,"sup_9rstex7q2dyb45w3"]');
CREATE TABLE voided (
  agent_id TEXT PRIMARY KEY, n INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "voided" VALUES('agt_4zn0cb7wdacret59',8);
CREATE INDEX events_by_agent ON events (agent_id, type, outcome);
CREATE INDEX events_by_type ON events (type, outcome);
CREATE INDEX stepups_by_status ON stepups (status, n);
CREATE INDEX stepups_by_kind ON stepups (agent_id, action, decided);
CREATE TRIGGER events_are_appended BEFORE INSERT ON events
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events)
BEGIN SELECT RAISE(ABORT, 'events are only ever appended'); END;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
COMMIT;
