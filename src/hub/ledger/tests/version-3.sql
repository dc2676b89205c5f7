-- The hub's database, version 3. Ids are blobs in the tables and hexadecimal text in the views; read the views:
-- streams, records, roll_ups, gaps, daily, fleet. Times are milliseconds since the Unix epoch.

-- Devices whose files are taken.
CREATE TABLE devices (
    device      BLOB    NOT NULL PRIMARY KEY,   -- 16 bytes: first half of the key id
    key         BLOB    NOT NULL,               -- raw Ed25519 key
    name        TEXT    NOT NULL,
    enrolled_by TEXT    NOT NULL,               -- 'config', 'command', or 'any' where the hub enrols whoever comes
    enrolled_ms INTEGER NOT NULL,
    revoked_ms  INTEGER                         -- NULL: it is not
) STRICT, WITHOUT ROWID;

-- Counts what happened to devices, whoever did it, so that a running hub sees it at little cost.
CREATE TABLE changes (devices INTEGER NOT NULL) STRICT;
INSERT INTO changes VALUES (1);
CREATE TRIGGER device_added AFTER INSERT ON devices BEGIN UPDATE changes SET devices = devices + 1; END;
CREATE TRIGGER device_changed AFTER UPDATE ON devices BEGIN UPDATE changes SET devices = devices + 1; END;
CREATE TRIGGER device_removed AFTER DELETE ON devices BEGIN UPDATE changes SET devices = devices + 1; END;

-- When a device was last heard of beside its files, whose contacts stand in `chains`.
CREATE TABLE contacts (
    device      BLOB    NOT NULL PRIMARY KEY,
    contact_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The ledger: one line for each usage file or tombstone, written in one transaction with its rows. A number is never
-- used twice. A line counts if and only if it is not covered.
CREATE TABLE files (
    file         INTEGER PRIMARY KEY AUTOINCREMENT,
    device       BLOB    NOT NULL,
    stream       BLOB    NOT NULL,              -- 8 bytes, big-endian
    seq          INTEGER NOT NULL,
    digest       BLOB    NOT NULL,
    previous     BLOB,                          -- digest of the file before first_seq
    policy       BLOB,                          -- manifest digest of the bundle in force
    requests     INTEGER NOT NULL,
    others       INTEGER NOT NULL,
    first_ms     INTEGER NOT NULL,
    last_ms      INTEGER NOT NULL,
    received_ms  INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    kind         INTEGER NOT NULL,              -- 1 a file, 2 a tombstone
    first_seq    INTEGER NOT NULL,              -- the lowest number that it stands for; seq of a file
    chain_digest BLOB    NOT NULL,              -- what the next one names as previous; digest of a file
    covered      INTEGER,                       -- which line stands for all of this one
    UNIQUE (device, stream, seq, first_seq, kind, digest)
) STRICT;
CREATE INDEX tombstones ON files (device, stream, seq) WHERE kind = 2;

-- How far each stream has come without a hole.
CREATE TABLE chains (
    device      BLOB    NOT NULL,
    stream      BLOB    NOT NULL,
    contiguous  INTEGER NOT NULL,               -- no file is missing up to here; 0 if the first is
    highest     INTEGER NOT NULL,
    contact_ms  INTEGER NOT NULL,               -- when a file last came, a repeat too
    PRIMARY KEY (device, stream)
) STRICT, WITHOUT ROWID;

-- Files that contradict the chain: kept apart, never counted.
CREATE TABLE forks (
    device      BLOB    NOT NULL,
    stream      BLOB    NOT NULL,
    seq         INTEGER NOT NULL,
    digest      BLOB    NOT NULL,
    reason      TEXT    NOT NULL,               -- 'ChainFork' or 'PreviousMismatch'
    received_ms INTEGER NOT NULL,
    times       INTEGER NOT NULL,               -- how often it came
    bytes       BLOB,                           -- the file; NULL past the first few of a stream
    PRIMARY KEY (device, stream, seq, digest)
) STRICT, WITHOUT ROWID;

-- Requests, as the usage file has them: what repeats stands once in a dictionary of the file. An id is
-- file * 16384 + position in the file or its dictionary, from 0, so everything is written at the end of its table.
CREATE TABLE requests (
    id          INTEGER PRIMARY KEY,
    at_ms       INTEGER NOT NULL,
    endpoint    INTEGER NOT NULL,               -- position in the dictionary; so the next four
    caller      INTEGER NOT NULL,
    principal   INTEGER NOT NULL,
    client      INTEGER NOT NULL,
    ending      INTEGER NOT NULL,
    id_high     INTEGER NOT NULL,               -- the request's id, its halves as signed numbers
    id_low      INTEGER NOT NULL,
    bytes_in    INTEGER NOT NULL,
    bytes_out   INTEGER NOT NULL,
    total_us    INTEGER NOT NULL,
    upstream_us INTEGER NOT NULL
) STRICT;
CREATE TABLE endpoints (
    id          INTEGER PRIMARY KEY,
    api         TEXT    NOT NULL,
    version     TEXT    NOT NULL,
    route       TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    upstream    TEXT    NOT NULL
) STRICT;
CREATE TABLE callers (
    id          INTEGER PRIMARY KEY,
    application TEXT    NOT NULL,
    plan        TEXT    NOT NULL,
    consumer    TEXT    NOT NULL,
    issuer      TEXT    NOT NULL
) STRICT;
CREATE TABLE principals (id INTEGER PRIMARY KEY, principal TEXT NOT NULL) STRICT;
CREATE TABLE clients (id INTEGER PRIMARY KEY, client TEXT) STRICT;
CREATE TABLE endings (id INTEGER PRIMARY KEY, status INTEGER NOT NULL, outcome TEXT NOT NULL, time TEXT NOT NULL) STRICT;

CREATE TABLE roll_up_rows (
    file        INTEGER NOT NULL REFERENCES files,
    row         INTEGER NOT NULL,
    from_ms     INTEGER NOT NULL,
    to_ms       INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,
    count       INTEGER NOT NULL,
    bytes_in    INTEGER NOT NULL,
    bytes_out   INTEGER NOT NULL,
    api         TEXT    NOT NULL,
    application TEXT    NOT NULL,
    PRIMARY KEY (file, row)
) STRICT, WITHOUT ROWID;

CREATE TABLE gap_rows (
    file        INTEGER NOT NULL REFERENCES files,
    row         INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    from_ms     INTEGER NOT NULL,
    to_ms       INTEGER NOT NULL,
    count       INTEGER,                        -- NULL: nobody can know
    PRIMARY KEY (file, row)
) STRICT, WITHOUT ROWID;

-- What a file adds to each day (days since the Unix epoch, UTC); a roll-up counts on the day of its end.
CREATE TABLE sums (
    file        INTEGER NOT NULL REFERENCES files,
    day         INTEGER NOT NULL,
    api         TEXT    NOT NULL,
    application TEXT    NOT NULL,
    outcome     TEXT    NOT NULL,
    requests    INTEGER NOT NULL,
    bytes_in    INTEGER NOT NULL,
    bytes_out   INTEGER NOT NULL,
    PRIMARY KEY (file, day, api, application, outcome)
) STRICT, WITHOUT ROWID;

CREATE VIEW streams AS
SELECT lower(hex(c.device)) AS device, coalesce(d.name, '') AS name, lower(hex(c.stream)) AS stream, c.contiguous,
       c.highest, c.contact_ms
FROM chains c LEFT JOIN devices d USING (device);

CREATE VIEW fleet AS
SELECT lower(hex(d.device)) AS device, d.name, d.enrolled_by, d.enrolled_ms, d.revoked_ms,
       nullif(max(coalesce((SELECT contact_ms FROM contacts c WHERE c.device = d.device), 0),
                  coalesce((SELECT max(contact_ms) FROM chains c WHERE c.device = d.device), 0)), 0) AS contact_ms,
       (SELECT count(*) FROM forks k WHERE k.device = d.device) AS forks
FROM devices d;

-- CROSS JOIN tells SQLite the order: by file, each in its place in every table.
CREATE VIEW records AS
SELECT lower(hex(f.device)) AS device, lower(hex(f.stream)) AS stream, f.seq, r.id & 16383 AS row,
       r.at_ms, g.time, printf('%016x%016x', r.id_high, r.id_low) AS request_id, e.api, e.version, e.route, e.method,
       g.status, g.outcome, a.application, a.plan, p.principal, r.bytes_in, r.bytes_out, r.total_us, r.upstream_us,
       e.upstream, c.client, a.consumer, a.issuer
FROM files f
CROSS JOIN requests r ON r.id BETWEEN f.file << 14 AND (f.file << 14) + 16383
CROSS JOIN endpoints e ON e.id = (f.file << 14) + r.endpoint
CROSS JOIN callers a ON a.id = (f.file << 14) + r.caller
CROSS JOIN principals p ON p.id = (f.file << 14) + r.principal
CROSS JOIN clients c ON c.id = (f.file << 14) + r.client
CROSS JOIN endings g ON g.id = (f.file << 14) + r.ending
WHERE f.covered IS NULL;

CREATE VIEW roll_ups AS
SELECT lower(hex(f.device)) AS device, lower(hex(f.stream)) AS stream, f.seq, r.row,
       r.from_ms, r.to_ms, r.outcome, r.count, r.bytes_in, r.bytes_out, r.api, r.application
FROM roll_up_rows r JOIN files f USING (file) WHERE f.covered IS NULL;

CREATE VIEW gaps AS
SELECT lower(hex(f.device)) AS device, lower(hex(f.stream)) AS stream, f.seq, r.row, r.reason, r.from_ms, r.to_ms, r.count
FROM gap_rows r JOIN files f USING (file) WHERE f.covered IS NULL;

-- Sums beyond what an integer holds stop at its end.
CREATE VIEW daily AS
SELECT date(s.day * 86400, 'unixepoch') AS day, s.api, s.application, lower(hex(f.device)) AS device, s.outcome,
       CAST(total(s.requests) AS INTEGER) AS requests, CAST(total(s.bytes_in) AS INTEGER) AS bytes_in,
       CAST(total(s.bytes_out) AS INTEGER) AS bytes_out
FROM sums s JOIN files f USING (file) WHERE f.covered IS NULL
GROUP BY s.day, s.api, s.application, f.device, s.outcome;
