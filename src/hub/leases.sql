-- Leases of quotas, beside the ledger in the hub's database. Times are seconds since the Unix epoch.

-- What is taken of each quota in each window, and how many leases it has given.
CREATE TABLE IF NOT EXISTS lease_windows (
    quota       TEXT    NOT NULL,
    starts      INTEGER NOT NULL,
    taken       INTEGER NOT NULL,
    leases      INTEGER NOT NULL,
    PRIMARY KEY (quota, starts)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS leases (
    quota       TEXT    NOT NULL,
    starts      INTEGER NOT NULL,
    number      INTEGER NOT NULL,               -- from 1 in each window
    device      BLOB    NOT NULL,
    amount      INTEGER NOT NULL,
    issued_at   INTEGER NOT NULL,
    back        INTEGER,                        -- what was given back of it; NULL: nothing yet. Once only
    PRIMARY KEY (quota, starts, number)
) STRICT, WITHOUT ROWID;
