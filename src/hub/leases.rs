//! Quotas that devices share: gives each a part for the window that is, and never more than the limit all in all.
//!
//! What a lease takes is in the database for good before the lease is signed: a crash between the two wastes it until the
//! window's end, and nothing is given twice. Several requests at once wait for one transaction each. The database is the
//! hub's own file, also where its ledger is elsewhere: one hub of a fleet keeps the quotas.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use serde::Deserialize;
use time::{Month, OffsetDateTime, Time};
use tokio::sync::Semaphore;
use tracing::error;

use super::config::{Quota, Window};
use super::refusal::Refusal;
use crate::ids::DeviceId;
use crate::keys::SigningKey;
use crate::spool::lease::Lease;
use crate::units::UnixSeconds;

/// Longest request, in bytes.
pub(super) const LENGTH_LIMIT: usize = 1 << 10;
/// Requests at a time; more get 503.
const AT_ONCE: usize = 64;
/// How long the database may be busy with files.
const BUSY: Duration = Duration::from_secs(10);

/// What a device asks for.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    want: u64,
    /// What is left of the lease of that number, which the device spends no more of.
    #[serde(default)]
    back: u64,
    lease: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Leases {
    quotas: HashMap<String, Quota>,
    db: Mutex<Connection>,
    key: SigningKey,
    places: Arc<Semaphore>,
}

impl Leases {
    /// Beside the ledger, which made the database.
    pub(super) fn open(path: &Path, quotas: &[Quota], key: SigningKey) -> rusqlite::Result<Self> {
        let db = Connection::open(path)?;
        db.busy_timeout(BUSY)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        // FULL: what was given away is on the disk, a power cut included.
        db.pragma_update(None, "synchronous", "FULL")?;
        db.execute_batch(include_str!("leases.sql"))?;
        let quotas = quotas.iter().map(|quota| (quota.name.clone(), quota.clone())).collect();
        Ok(Self { quotas, db: Mutex::new(db), key, places: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// The signed lease for what `body` asks; `None` where it only gives back.
    pub(super) async fn answer(
        self: Arc<Self>,
        device: DeviceId,
        quota: &str,
        body: &[u8],
        now: UnixSeconds,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let quota = self.quotas.get(quota).ok_or(Refusal::NotFound)?.clone();
        let ask: Ask = serde_json::from_slice(body).map_err(|_| Refusal::LeaseMalformed)?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Overloaded)?;
        let given = tokio::task::spawn_blocking(move || {
            let given = self.give(device, &quota, ask, now);
            drop(place);
            given.map(|lease| lease.map(|lease| lease.sign(&self.key)))
        });
        given.await.map_err(|_| Refusal::LedgerFailed)?
    }

    fn give(&self, device: DeviceId, quota: &Quota, ask: Ask, now: UnixSeconds) -> Result<Option<Lease>, Refusal> {
        let (from, to) = quota.window.around(now).ok_or(Refusal::LedgerFailed)?;
        let mut db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let given = write(&mut db, device, quota, ask, (from, to), now).map_err(|error| {
            error!(%error, "a lease could not be written down");
            Refusal::LedgerFailed
        })?;
        match given {
            _ if ask.want == 0 => Ok(None),
            None => Err(Refusal::QuotaUsedUp(u64::try_from(to.saturating_sub(now)).unwrap_or(0).clamp(1, 3_600))),
            Some((number, amount)) => {
                Ok(Some(Lease { amount, device, from, issued_at: now, number, quota: quota.name.clone(), to }))
            }
        }
    }
}

/// Number and amount of a new lease, for good; `None` where nothing is left or wanted.
fn write(
    db: &mut Connection,
    device: DeviceId,
    quota: &Quota,
    ask: Ask,
    (from, _): (UnixSeconds, UnixSeconds),
    now: UnixSeconds,
) -> rusqlite::Result<Option<(u64, u64)>> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let window = "SELECT taken, leases FROM lease_windows WHERE quota=?1 AND starts=?2";
    let window = transaction.query_row(window, params![quota.name, from], |row| Ok((row.get(0)?, row.get(1)?)));
    let (mut taken, mut number): (i64, i64) = window.optional()?.unwrap_or_default();
    if let Some(lease) = ask.lease.and_then(|lease| i64::try_from(lease).ok()) {
        let back = "UPDATE leases SET back = min(?5, amount)
                    WHERE quota=?1 AND starts=?2 AND number=?3 AND device=?4 AND back IS NULL RETURNING back";
        let back =
            transaction.query_row(back, params![quota.name, from, lease, device.0, int(ask.back)], |row| row.get(0));
        taken -= back.optional()?.unwrap_or(0_i64);
    }
    let amount = int(grant(ask.want, quota.limit, u64::try_from(taken).unwrap_or(0), quota.share));
    if amount > 0 {
        (taken, number) = (taken + amount, number + 1);
        transaction.execute(
            "INSERT INTO leases VALUES (?1,?2,?3,?4,?5,?6,NULL)",
            params![quota.name, from, number, device.0, amount, now],
        )?;
    }
    transaction.execute(
        "INSERT OR REPLACE INTO lease_windows VALUES (?1,?2,?3,?4)",
        params![quota.name, from, taken, number],
    )?;
    transaction.commit()?;
    Ok((amount > 0).then(|| (number.unsigned_abs(), amount.unsigned_abs())))
}

/// How much of what is left one lease gets: at most its share, and at least one where one is left. Pure.
fn grant(want: u64, limit: u64, taken: u64, share: f64) -> u64 {
    let left = limit.saturating_sub(taken);
    // Both are below 2^53, so the product is exact enough, and it is cut to what is left.
    let most = ((left as f64 * share) as u64).clamp(1, left.max(1));
    want.min(most).min(left)
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Window {
    /// The window that holds `now`, in UTC; `None` at a moment that no calendar has.
    fn around(self, now: UnixSeconds) -> Option<(UnixSeconds, UnixSeconds)> {
        let whole = |length: i64| {
            let from = now.div_euclid(length).checked_mul(length)?;
            Some((from, from.checked_add(length)?))
        };
        match self {
            Self::Hour => whole(3_600),
            Self::Day => whole(86_400),
            Self::Month => {
                let first =
                    OffsetDateTime::from_unix_timestamp(now).ok()?.replace_time(Time::MIDNIGHT).replace_day(1).ok()?;
                let year = if first.month() == Month::December { first.year() + 1 } else { first.year() };
                // Day 1 is in every month, so the order of the two does not matter.
                let next = first.replace_month(first.month().next()).ok()?.replace_year(year).ok()?;
                Some((first.unix_timestamp(), next.unix_timestamp()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = 1_795_564_800; // 2026-11-25T00:00:00Z

    fn key() -> SigningKey {
        SigningKey::from_seed(&[9; 32]).expect("a seed makes a key")
    }

    fn quota(limit: u64, share: f64) -> Quota {
        Quota { name: "calls".into(), limit, window: Window::Day, share }
    }

    fn ask(want: u64, back: u64, lease: Option<u64>) -> Ask {
        Ask { want, back, lease }
    }

    #[test]
    fn windows_follow_one_another_without_a_hole_and_hold_their_moment() {
        for window in [Window::Hour, Window::Day, Window::Month] {
            let mut at = NOW;
            for _ in 0..40 {
                let (from, to) = window.around(at).expect("a moment");
                assert!((from..to).contains(&at));
                assert_eq!(window.around(to - 1), Some((from, to)), "{window:?}");
                at = to;
                assert_eq!(window.around(at).expect("a moment").0, to, "{window:?}");
            }
        }
        assert_eq!(Window::Month.around(NOW), Some((1_793_491_200, 1_796_083_200)), "November 2026");
        for at in [i64::MIN, i64::MAX] {
            assert_eq!(Window::Month.around(at), None);
            let _ = (Window::Hour.around(at), Window::Day.around(at));
        }
    }

    #[test]
    fn a_lease_gets_its_share_of_what_is_left_and_the_last_one_is_given_too() {
        assert_eq!(grant(50, 1_000, 0, 0.1), 50);
        assert_eq!(grant(5_000, 1_000, 0, 0.1), 100);
        assert_eq!(grant(5_000, 1_000, 999, 0.1), 1);
        assert_eq!(grant(5_000, 1_000, 1_000, 0.1), 0);
        assert_eq!(grant(5_000, 1_000, 2_000, 1.0), 0);
        assert_eq!(grant(u64::MAX, (1 << 53) - 1, 0, 1.0), (1 << 53) - 1);
    }

    #[test]
    fn the_limit_holds_over_requests_at_once_and_over_a_start_and_what_is_given_back_is_given_again_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("usage.sqlite");
        let open = |quota: &Quota| Leases::open(&path, std::slice::from_ref(quota), key()).expect("it opens");
        let daily = quota(1_000, 0.1);
        // Two hubs on one file, four threads each.
        let hubs = [open(&daily), open(&daily)];
        let given: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread: u8| {
                    let (hub, daily) = (&hubs[usize::from(thread) % 2], &daily);
                    scope.spawn(move || {
                        let one = |_| hub.give(DeviceId([thread; 16]), daily, ask(7, 0, None), NOW).ok().flatten();
                        (0..50).filter_map(one).map(|lease| lease.amount).sum::<u64>()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(given, 1_000, "400 requests of 7, of which the limit holds");
        drop(hubs);
        let hub = open(&daily);
        let (device, other) = (DeviceId([1; 16]), DeviceId([2; 16]));
        let used_up = hub.give(device, &daily, ask(1, 0, None), NOW + 86_399);
        assert_eq!(used_up.expect_err("nothing is left").name(), "QuotaUsedUp");
        // The next day all is there again.
        let tomorrow = NOW + 86_400;
        let first = hub.give(device, &daily, ask(100, 0, None), tomorrow).expect("given").expect("a lease");
        assert_eq!((first.amount, first.number, first.from, first.to), (100, 1, tomorrow, tomorrow + 86_400));
        let taken = || {
            let db = hub.db.lock().expect("no panic");
            let sql = "SELECT taken FROM lease_windows WHERE starts = ?1";
            db.query_row(sql, [tomorrow], |row| row.get::<_, i64>(0)).expect("a row")
        };
        // Another's, one that is not there, more than it had, and twice.
        for (of, back, lease, left) in
            [(other, 100, 1, 100), (device, 100, 9, 100), (device, 1_000, 1, 0), (device, 100, 1, 0)]
        {
            assert_eq!(hub.give(of, &daily, ask(0, back, Some(lease)), tomorrow), Ok(None));
            assert_eq!(taken(), left);
        }
    }
}
