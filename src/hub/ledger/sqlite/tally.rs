//! Sums that a page shows every few seconds, kept up with each file: what counts by day and outcome, and by device.
//!
//! They say what the views `daily` and `gaps` say, and cost a few rows of each file that comes or is covered. A sum that no
//! integer holds stops at its end.

use rusqlite::Connection;

use super::super::Error;

/// What a file adds to the days.
const DAYS: &str = "
INSERT INTO outcomes
SELECT day, outcome, CAST(total(requests) AS INTEGER) FROM sums WHERE file = ?1 GROUP BY day, outcome
ON CONFLICT DO UPDATE SET requests = min(requests + excluded.requests, 9223372036854775807)";

/// What a file adds to its device: requests, and gaps as `report gaps` tells them.
const DEVICE: &str = "
INSERT INTO tallies
SELECT device, (SELECT CAST(total(requests) AS INTEGER) FROM sums s WHERE s.file = f.file),
       (SELECT count(count) FROM gap_rows g WHERE g.file = f.file),
       (SELECT CAST(total(count) AS INTEGER) FROM gap_rows g WHERE g.file = f.file),
       (SELECT count(*) FROM gap_rows g WHERE g.file = f.file AND count IS NULL)
FROM files f WHERE file = ?1
ON CONFLICT DO UPDATE SET requests = min(requests + excluded.requests, 9223372036854775807),
                          gaps = gaps + excluded.gaps,
                          lost = min(lost + excluded.lost, 9223372036854775807),
                          unknown = unknown + excluded.unknown";

const DAYS_LESS: &str = "
UPDATE outcomes SET requests = max(requests - n, 0)
FROM (SELECT day AS d, outcome AS o, CAST(total(requests) AS INTEGER) AS n
      FROM sums WHERE file = ?1 GROUP BY day, outcome)
WHERE day = d AND outcome = o";

const DEVICE_LESS: &str = "
UPDATE tallies SET requests = max(requests - r, 0), gaps = max(gaps - g, 0), lost = max(lost - l, 0),
                   unknown = max(unknown - u, 0)
FROM (SELECT f.device AS d, (SELECT CAST(total(requests) AS INTEGER) FROM sums s WHERE s.file = f.file) AS r,
             (SELECT count(count) FROM gap_rows g WHERE g.file = f.file) AS g,
             (SELECT CAST(total(count) AS INTEGER) FROM gap_rows g WHERE g.file = f.file) AS l,
             (SELECT count(*) FROM gap_rows g WHERE g.file = f.file AND count IS NULL) AS u
      FROM files f WHERE f.file = ?1)
WHERE device = d";

/// All of it anew, for a database of an older hub.
const FILL: &str = "
INSERT INTO outcomes
SELECT day, outcome, CAST(total(s.requests) AS INTEGER) FROM sums s JOIN files USING (file)
WHERE covered IS NULL GROUP BY day, outcome;
INSERT INTO tallies
SELECT device, CAST(total(r) AS INTEGER), total(g), CAST(total(l) AS INTEGER), total(u)
FROM (SELECT file, total(requests) AS r, 0 AS g, 0 AS l, 0 AS u FROM sums GROUP BY file
      UNION ALL SELECT file, 0, count(count), total(count), count(*) - count(count) FROM gap_rows GROUP BY file)
JOIN files USING (file)
WHERE covered IS NULL GROUP BY device";

/// The rows of a file that counts are written.
pub(super) fn add(db: &Connection, file: i64) -> Result<(), Error> {
    change(db, [DAYS, DEVICE], file)
}

/// A file that counted does so no more.
pub(super) fn take_away(db: &Connection, file: i64) -> Result<(), Error> {
    change(db, [DAYS_LESS, DEVICE_LESS], file)
}

/// From all that is there.
pub(super) fn fill(db: &Connection) -> Result<(), Error> {
    Ok(db.execute_batch(FILL)?)
}

fn change(db: &Connection, statements: [&str; 2], file: i64) -> Result<(), Error> {
    for sql in statements {
        db.prepare_cached(sql)?.execute([file])?;
    }
    Ok(())
}
