-- The hub's tables in ClickHouse, version 1. The hub embeds this file and makes at its start whatever is missing, so
-- there is nothing to do by hand. It keeps to what ClickHouse 18.16 and today's have in common.
--
-- Read the views: records, roll_ups, gaps, daily, streams, forks, fleet, waiting. Ids are raw bytes in the tables and
-- hexadecimal text in the views. Times are milliseconds since the Unix epoch.
--
-- Nothing is ever changed in place, and whoever writes may die between any two statements: every table takes the same
-- row any number of times, and every view reads through FINAL or a GROUP BY of the whole key.

CREATE TABLE IF NOT EXISTS devices (
    device      FixedString(16),    -- first half of the key id
    key         FixedString(32),    -- raw Ed25519 key
    name        String,
    enrolled_by String,             -- 'config', 'command', or 'any' where the hub enrols whoever comes
    enrolled_ms Int64,
    version     UInt64
) ENGINE = ReplacingMergeTree(version) ORDER BY device;

CREATE TABLE IF NOT EXISTS revocations (
    device      FixedString(16),
    revoked_ms  Int64,              -- 0: a person took it back
    version     UInt64
) ENGINE = ReplacingMergeTree(version) ORDER BY device;

-- The ledger: a claim for each usage file or tombstone, written after its rows. A hub that finds, having written one,
-- that another claim contradicts it, withdraws its own and gives no receipt.
CREATE TABLE IF NOT EXISTS claims (
    device       FixedString(16),
    stream       FixedString(8),    -- big-endian
    seq          UInt64,
    first_seq    UInt64,            -- the lowest number that it stands for; seq of a file
    kind         UInt8,             -- 1 a file, 2 a tombstone
    digest       FixedString(32),
    claim        UInt64,            -- random: whose claim it is
    previous     String,            -- digest of the file before first_seq; empty for the first
    chain_digest FixedString(32),   -- what the next one names as previous
    policy       String,            -- manifest digest of the bundle in force, or empty
    requests     UInt32,
    others       UInt32,
    first_ms     Int64,
    last_ms      Int64,
    received_ms  Int64,
    bytes        UInt32,
    withdrawn    UInt8
) ENGINE = ReplacingMergeTree(withdrawn) ORDER BY (device, stream, seq, first_seq, kind, digest, claim);

-- How far each stream has come: the highest value of each mark is true.
CREATE TABLE IF NOT EXISTS marks (
    device      FixedString(16),
    stream      FixedString(8),
    mark        UInt8,              -- 1 contiguous, 2 highest, 3 contact_ms; 4 the same of no stream
    value       UInt64
) ENGINE = ReplacingMergeTree(value) ORDER BY (device, stream, mark);

-- What waits on a device, as it told last. A hint.
CREATE TABLE IF NOT EXISTS backlogs (
    device      FixedString(16),
    told_ms     UInt64,             -- when it told that
    files       UInt64,
    bytes       UInt64,
    oldest_s    Nullable(Int64)     -- nothing in them is older, by the device's clock, in seconds
) ENGINE = ReplacingMergeTree(told_ms) ORDER BY device;

-- Files that contradict the chain: kept apart, never counted.
CREATE TABLE IF NOT EXISTS fork_counts (
    device      FixedString(16),
    stream      FixedString(8),
    seq         UInt64,
    digest      FixedString(32),
    reason      String,             -- 'ChainFork' or 'PreviousMismatch'
    times       UInt64
) ENGINE = SummingMergeTree(times) ORDER BY (device, stream, seq, digest, reason);

CREATE TABLE IF NOT EXISTS fork_files (
    device      FixedString(16),
    stream      FixedString(8),
    seq         UInt64,
    digest      FixedString(32),
    received_ms Int64,
    bytes       String
) ENGINE = ReplacingMergeTree ORDER BY (device, stream, seq, digest);

CREATE TABLE IF NOT EXISTS request_rows (
    device      FixedString(16),
    stream      FixedString(8),
    seq         UInt64,
    first_seq   UInt64,
    kind        UInt8,
    digest      FixedString(32),
    row         UInt32,             -- position in the file, from 0
    at_ms       Int64,
    request     FixedString(16),
    api         String,
    version     String,
    route       String,
    method      String,
    upstream    String,
    application String,
    plan        String,
    consumer    String,
    issuer      String,
    principal   String,
    client      Nullable(String),
    status      UInt16,
    outcome     String,
    time        String,
    bytes_in    UInt64,
    bytes_out   UInt64,
    total_us    UInt32,
    upstream_us UInt32
) ENGINE = ReplacingMergeTree ORDER BY (device, stream, seq, first_seq, kind, digest, row);

CREATE TABLE IF NOT EXISTS roll_up_rows (
    device      FixedString(16),
    stream      FixedString(8),
    seq         UInt64,
    first_seq   UInt64,
    kind        UInt8,
    digest      FixedString(32),
    row         UInt32,
    from_ms     Int64,
    to_ms       Int64,
    outcome     String,
    count       UInt64,
    bytes_in    UInt64,
    bytes_out   UInt64,
    api         String,
    application String
) ENGINE = ReplacingMergeTree ORDER BY (device, stream, seq, first_seq, kind, digest, row);

CREATE TABLE IF NOT EXISTS gap_rows (
    device      FixedString(16),
    stream      FixedString(8),
    seq         UInt64,
    first_seq   UInt64,
    kind        UInt8,
    digest      FixedString(32),
    row         UInt32,
    reason      String,
    from_ms     Int64,
    to_ms       Int64,
    count       Nullable(UInt64)    -- NULL: nobody can know
) ENGINE = ReplacingMergeTree ORDER BY (device, stream, seq, first_seq, kind, digest, row);

-- Claims that stand, one for each file: when it came first, whichever hub took it.
CREATE VIEW IF NOT EXISTS held AS
SELECT device, stream, seq, first_seq, kind, digest, min(received) AS received_ms
FROM (
    SELECT device, stream, seq, first_seq, kind, digest, claim, min(received_ms) AS received
    FROM claims
    GROUP BY device, stream, seq, first_seq, kind, digest, claim
    HAVING max(withdrawn) = 0
)
GROUP BY device, stream, seq, first_seq, kind, digest;

-- What counts: of one range a file before a tombstone and the first before a later one; and nothing that a wider
-- tombstone covers.
CREATE VIEW IF NOT EXISTS counted AS
SELECT device, stream, seq, first_seq, kind, digest
FROM (
    SELECT device, stream, seq, first_seq, kind, digest,
           arrayExists((f, l) -> f <= first_seq AND seq <= l AND (f < first_seq OR seq < l), firsts, lasts) AS is_covered
    FROM (
        SELECT device, stream, seq, first_seq, kind, digest
        FROM held
        ORDER BY device, stream, seq, first_seq, kind, received_ms, digest
        LIMIT 1 BY device, stream, seq, first_seq
    ) AS one
    ANY LEFT JOIN (
        SELECT device, stream, groupArray(first_seq) AS firsts, groupArray(seq) AS lasts
        FROM held
        WHERE kind = 2
        GROUP BY device, stream
    ) AS wide USING (device, stream)
)
WHERE is_covered = 0;

CREATE VIEW IF NOT EXISTS records AS
SELECT lower(hex(d)) AS device, lower(hex(s)) AS stream, seq, row, at_ms, time, lower(hex(request)) AS request_id,
       api, version, route, method, status, outcome, application, plan, principal, bytes_in, bytes_out, total_us,
       upstream_us, upstream, client, consumer, issuer
FROM (
    SELECT device AS d, stream AS s, seq, row, at_ms, time, request, api, version, route, method, status, outcome,
           application, plan, principal, bytes_in, bytes_out, total_us, upstream_us, upstream, client, consumer, issuer
    FROM request_rows FINAL
    WHERE (device, stream, seq, first_seq, kind, digest)
       IN (SELECT device, stream, seq, first_seq, kind, digest FROM counted)
);

CREATE VIEW IF NOT EXISTS roll_ups AS
SELECT lower(hex(d)) AS device, lower(hex(s)) AS stream, seq, row, from_ms, to_ms, outcome, count, bytes_in, bytes_out,
       api, application
FROM (
    SELECT device AS d, stream AS s, seq, row, from_ms, to_ms, outcome, count, bytes_in, bytes_out, api, application
    FROM roll_up_rows FINAL
    WHERE (device, stream, seq, first_seq, kind, digest)
       IN (SELECT device, stream, seq, first_seq, kind, digest FROM counted)
);

CREATE VIEW IF NOT EXISTS gaps AS
SELECT lower(hex(d)) AS device, lower(hex(s)) AS stream, seq, row, reason, from_ms, to_ms, count
FROM (
    SELECT device AS d, stream AS s, seq, row, reason, from_ms, to_ms, count
    FROM gap_rows FINAL
    WHERE (device, stream, seq, first_seq, kind, digest)
       IN (SELECT device, stream, seq, first_seq, kind, digest FROM counted)
);

-- Daily use in UTC: a request counts on the day of its moment, a roll-up as a whole on the day of its end.
CREATE VIEW IF NOT EXISTS daily AS
SELECT toDate(toUInt16(day_number)) AS day, api, application, device, outcome, sum(n) AS requests,
       sum(b_in) AS bytes_in, sum(b_out) AS bytes_out
FROM (
    SELECT greatest(0, least(65535, intDiv(at_ms, 86400000))) AS day_number, api, application, device, outcome,
           toUInt64(1) AS n, bytes_in AS b_in, bytes_out AS b_out
    FROM records
    UNION ALL
    SELECT greatest(0, least(65535, intDiv(to_ms, 86400000))) AS day_number, api, application, device, outcome,
           count AS n, bytes_in AS b_in, bytes_out AS b_out
    FROM roll_ups
)
GROUP BY day_number, api, application, device, outcome;

CREATE VIEW IF NOT EXISTS streams AS
SELECT lower(hex(d)) AS device, name, lower(hex(s)) AS stream, contiguous, highest, contact_ms
FROM (
    SELECT device AS d, stream AS s, max(if(mark = 1, value, 0)) AS contiguous, max(if(mark = 2, value, 0)) AS highest,
           max(if(mark = 3, value, 0)) AS contact_ms
    FROM marks
    WHERE mark < 4
    GROUP BY d, s
) AS a
ANY LEFT JOIN (SELECT device AS d, name FROM devices FINAL) AS b USING d;

CREATE VIEW IF NOT EXISTS waiting AS
SELECT lower(hex(d)) AS device, told_ms, files, bytes, oldest_s
FROM (SELECT device AS d, told_ms, files, bytes, oldest_s FROM backlogs FINAL);

CREATE VIEW IF NOT EXISTS forks AS
SELECT lower(hex(d)) AS device, lower(hex(s)) AS stream, seq, lower(hex(g)) AS digest, reason, n AS times
FROM (
    SELECT device AS d, stream AS s, seq, digest AS g, reason, sum(times) AS n
    FROM fork_counts
    GROUP BY device, stream, seq, digest, reason
);

CREATE VIEW IF NOT EXISTS fleet AS
SELECT lower(hex(d)) AS device, name, enrolled_by, enrolled_ms, revoked_ms, contact_ms
FROM (
    SELECT d, name, enrolled_by, enrolled_ms, revoked_ms
    FROM (SELECT device AS d, name, enrolled_by, enrolled_ms FROM devices FINAL) AS a
    ANY LEFT JOIN (SELECT device AS d, revoked_ms FROM revocations FINAL) AS b USING d
) AS a
ANY LEFT JOIN (SELECT device AS d, max(value) AS contact_ms FROM marks WHERE mark >= 3 GROUP BY d) AS b USING d;
