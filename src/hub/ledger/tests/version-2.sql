-- The hub's database, version 2. Ids are blobs in the tables and hexadecimal text in the views;
-- read the views: streams, records, roll_ups, gaps. Times are milliseconds since the Unix epoch.

-- Devices whose files are taken.
CREATE TABLE devices (
    device      BLOB    NOT NULL PRIMARY KEY,   -- 16 bytes: first half of the key id
    key         BLOB    NOT NULL,               -- raw Ed25519 key
    name        TEXT    NOT NULL,
    enrolled_by TEXT    NOT NULL,               -- 'config', or 'any' where the hub enrols whoever comes
    enrolled_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The ledger: one line for each usage file, written in one transaction with the file's rows. The
-- number of a file is never used twice.
CREATE TABLE files (
    file        INTEGER PRIMARY KEY AUTOINCREMENT,
    device      BLOB    NOT NULL,
    stream      BLOB    NOT NULL,               -- 8 bytes, big-endian
    seq         INTEGER NOT NULL,
    digest      BLOB    NOT NULL,
    previous    BLOB,
    policy      BLOB,                           -- manifest digest of the bundle in force
    requests    INTEGER NOT NULL,
    others      INTEGER NOT NULL,
    first_ms    INTEGER NOT NULL,
    last_ms     INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    UNIQUE (device, stream, seq)
) STRICT;

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

CREATE TABLE request_rows (
    file        INTEGER NOT NULL REFERENCES files,
    row         INTEGER NOT NULL,               -- position in the file, from 0
    at_ms       INTEGER NOT NULL,
    time        TEXT    NOT NULL,
    request     BLOB    NOT NULL,               -- 16 bytes
    api         TEXT    NOT NULL,
    version     TEXT    NOT NULL,
    route       TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    status      INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,
    application TEXT    NOT NULL,
    plan        TEXT    NOT NULL,
    principal   TEXT    NOT NULL,
    bytes_in    INTEGER NOT NULL,
    bytes_out   INTEGER NOT NULL,
    total_us    INTEGER NOT NULL,
    upstream_us INTEGER NOT NULL,
    upstream    TEXT    NOT NULL,
    client      TEXT,
    consumer    TEXT    NOT NULL,
    issuer      TEXT    NOT NULL,
    PRIMARY KEY (file, row)
) STRICT, WITHOUT ROWID;

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

CREATE VIEW streams AS
SELECT lower(hex(c.device)) AS device, d.name, lower(hex(c.stream)) AS stream, c.contiguous, c.highest, c.contact_ms
FROM chains c JOIN devices d USING (device);

CREATE VIEW records AS
SELECT lower(hex(f.device)) AS device, lower(hex(f.stream)) AS stream, f.seq, r.row,
       r.at_ms, r.time, lower(hex(r.request)) AS request_id, r.api, r.version, r.route, r.method, r.status, r.outcome,
       r.application, r.plan, r.principal, r.bytes_in, r.bytes_out, r.total_us, r.upstream_us, r.upstream,
       r.client, r.consumer, r.issuer
FROM request_rows r JOIN files f USING (file);

CREATE VIEW roll_ups AS
SELECT lower(hex(f.device)) AS device, lower(hex(f.stream)) AS stream, f.seq, r.row,
       r.from_ms, r.to_ms, r.outcome, r.count, r.bytes_in, r.bytes_out, r.api, r.application
FROM roll_up_rows r JOIN files f USING (file);

CREATE VIEW gaps AS
SELECT lower(hex(f.device)) AS device, lower(hex(f.stream)) AS stream, f.seq, r.row, r.reason, r.from_ms, r.to_ms, r.count
FROM gap_rows r JOIN files f USING (file);
