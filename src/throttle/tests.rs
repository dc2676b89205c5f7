use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(mono_ns: u64) -> Now {
    Now { mono_ns, wall: 0 }
}

fn wall(wall: UnixSeconds) -> Now {
    Now { mono_ns: 0, wall }
}

fn rate(subject_id: u64, rate: Rate) -> Charge {
    Charge { limit_id: 1, subject_id, limit: Limit::Rate(rate) }
}

fn quota(subject_id: u64, count: u64, window: Window) -> Charge {
    Charge { limit_id: 2, subject_id, limit: Limit::Quota(Quota::new(count, window)) }
}

#[test]
fn a_burst_passes_at_once_and_then_one_per_interval() {
    let throttle = Throttle::new(Config::default());
    let charge = [rate(1, Rate::new(10, Duration::from_secs(1), 3))];
    let passed = (0..10).filter(|_| throttle.decide(&charge, at(0)).is_ok()).count();
    assert_eq!(passed, 3);
    let refused = throttle.decide(&charge, at(0)).expect_err("the burst is used up");
    assert_eq!(refused, Refused { charge: 0, quota: false, retry_after: 1 });
    assert!(throttle.decide(&charge, at(SECOND / 10 - 1)).is_err());
    assert!(throttle.decide(&charge, at(SECOND / 10)).is_ok());
}

#[test]
fn retry_after_is_when_the_next_request_passes() {
    let throttle = Throttle::new(Config::default());
    let charge = [rate(1, Rate::new(1, Duration::from_secs(60), 1))];
    assert!(throttle.decide(&charge, at(0)).is_ok());
    let refused = throttle.decide(&charge, at(SECOND / 2)).expect_err("one a minute");
    assert_eq!(refused.retry_after, 60);
    assert!(throttle.decide(&charge, at(SECOND / 2 + 60 * SECOND)).is_ok());
}

#[test]
fn a_request_refused_by_one_limit_uses_up_no_other() {
    let throttle = Throttle::new(Config::default());
    let wide = rate(1, Rate::new(5, Duration::from_secs(1), 5));
    let narrow = quota(2, 1, Window::Hour);
    assert!(throttle.decide(&[wide, narrow], at(0)).is_ok());
    for _ in 0..100 {
        let refused = throttle.decide(&[wide, narrow], at(0)).expect_err("the quota is used up");
        assert_eq!((refused.charge, refused.quota), (1, true));
    }
    let left = (0..10).filter(|_| throttle.decide(&[wide], at(0)).is_ok()).count();
    assert_eq!(left, 4);
}

#[test]
fn a_request_that_several_limits_refuse_is_told_the_longest_wait_and_the_first_of_them() {
    let throttle = Throttle::new(Config::default());
    let (short, long) = (rate(1, Rate::new(1, Duration::from_secs(1), 1)), quota(2, 1, Window::Hour));
    assert!(throttle.decide(&[short, long], at(0)).is_ok());
    let refused = throttle.decide(&[short, long], at(0)).expect_err("both are used up");
    assert_eq!(refused, Refused { charge: 0, quota: false, retry_after: 3_600 });
}

#[test]
fn a_refused_request_forgets_nobody() {
    let throttle = Throttle::new(Config { slots: 16 });
    let used_up = quota(99, 0, Window::Month);
    let slow = Rate::new(1, Duration::from_secs(60), 1);
    (0..16).for_each(|subject| assert!(throttle.decide(&[rate(subject, slow)], at(0)).is_ok()));
    for stranger in 100..200 {
        assert!(throttle.decide(&[rate(stranger, slow), used_up], at(0)).is_err());
    }
    assert_eq!(throttle.forgotten(), 0);
    (0..16).for_each(|subject| assert!(throttle.decide(&[rate(subject, slow)], at(0)).is_err(), "{subject}"));
}

#[test]
fn subjects_do_not_share_a_budget() {
    let throttle = Throttle::new(Config::default());
    for subject in 0..100 {
        assert!(throttle.decide(&[quota(subject, 1, Window::Day)], wall(0)).is_ok());
        assert!(throttle.decide(&[quota(subject, 1, Window::Day)], wall(0)).is_err());
    }
    assert_eq!(throttle.forgotten(), 0);
}

#[test]
fn a_quota_begins_anew_with_the_calendar() {
    // 2024-02-29T23:59:00Z: the last minute of an hour, a day and a month, in a leap year.
    let late = 1_709_251_140;
    for (subject, window) in [(1, Window::Hour), (2, Window::Day), (3, Window::Month)] {
        let throttle = Throttle::new(Config::default());
        let charge = [quota(subject, 1, window)];
        assert!(throttle.decide(&charge, wall(late)).is_ok());
        let refused = throttle.decide(&charge, wall(late)).expect_err("used up");
        assert_eq!((refused.quota, refused.retry_after), (true, 60), "{window:?}");
        assert!(throttle.decide(&charge, wall(late + 59)).is_err());
        assert!(throttle.decide(&charge, wall(late + 60)).is_ok());
    }
    // 2025-12-01T00:00:00Z: December has 31 days.
    let throttle = Throttle::new(Config::default());
    let charge = [quota(4, 0, Window::Month)];
    let refused = throttle.decide(&charge, wall(1_764_547_200)).expect_err("nothing is allowed");
    assert_eq!(refused.retry_after, 31 * 86_400);
}

#[test]
fn a_clock_that_steps_back_gives_no_second_budget_and_locks_nobody_out() {
    let throttle = Throttle::new(Config::default());
    let charge = [quota(1, 2, Window::Day)];
    assert!(throttle.decide(&charge, wall(10 * 86_400)).is_ok());
    assert!(throttle.decide(&charge, wall(10 * 86_400 - 1)).is_ok());
    assert!(throttle.decide(&charge, wall(10 * 86_400)).is_err(), "a trembling clock");
    assert!(throttle.decide(&charge, wall(0)).is_err());
    assert!(throttle.decide(&charge, wall(11 * 86_400)).is_ok());

    // Used up on day 20; then the clock is no longer trusted and shows day 15. A day later it is another day.
    let throttle = Throttle::new(Config::default());
    let charge = [quota(1, 1, Window::Day)];
    let later = |days: u64, shown: i64| Now { mono_ns: days * 86_400 * SECOND, wall: shown * 86_400 };
    assert!(throttle.decide(&charge, later(0, 20)).is_ok());
    let refused = throttle.decide(&charge, later(0, 15)).expect_err("used up");
    assert_eq!(refused.retry_after, 86_400);
    assert!(throttle.decide(&charge, later(1, 16)).is_ok(), "as told");
    // Trusted again, it shows the day that was counted meanwhile.
    assert!(throttle.decide(&charge, later(1, 21)).is_err(), "no second budget");

    let charge = [rate(2, Rate::new(1, Duration::from_secs(1), 5))];
    assert!(throttle.decide(&charge, at(1_000_000 * SECOND)).is_ok());
    let refused = throttle.decide(&charge, at(0)).expect_err("the clock stepped back");
    assert!(refused.retry_after <= 5, "{refused:?}");
}

#[test]
fn a_full_table_forgets_what_is_worth_least_and_counts_it() {
    let throttle = Throttle::new(Config { slots: 16 });
    let slow = Rate::new(1, Duration::from_secs(60), 2);
    for subject in 0..16 {
        assert!(throttle.decide(&[rate(subject, slow)], at(0)).is_ok());
    }
    assert_eq!(throttle.forgotten(), 0);
    // In the same moment all sixteen are in use; later all are idle, and forgetting an idle rate loses nothing.
    assert!(throttle.decide(&[rate(16, slow)], at(1)).is_ok());
    assert_eq!(throttle.forgotten(), 1);
    assert!(throttle.decide(&[rate(17, slow)], at(600 * SECOND)).is_ok());
    assert_eq!(throttle.forgotten(), 1);
}

#[test]
fn limits_of_one_request_never_push_each_other_out() {
    let throttle = Throttle::new(Config { slots: 16 });
    let one = Rate::new(1, Duration::from_secs(60), 1);
    for round in 0..10 {
        let charges: Vec<Charge> = (0..8).map(|subject| rate(round * 8 + subject, one)).collect();
        assert!(throttle.decide(&charges, at(0)).is_ok());
        for charge in charges {
            assert!(throttle.decide(&[charge], at(0)).is_err(), "round {round}");
        }
    }
}

#[test]
fn extremes_neither_overflow_nor_admit_without_end() {
    let spans = [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(60), Duration::MAX];
    for (count, per, burst) in spans.iter().flat_map(|per| [(0, per, 0), (u32::MAX, per, u32::MAX), (1, per, u32::MAX)])
    {
        let throttle = Throttle::new(Config { slots: 1 });
        for now in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX, 0] {
            let _ = throttle.decide(&[rate(1, Rate::new(count, *per, burst))], at(now));
        }
    }
    for now in [i64::MIN, -1, 0, 59, 2_147_483_648, 4_294_967_296, 253_402_300_799, i64::MAX] {
        for window in [Window::Hour, Window::Day, Window::Month] {
            let throttle = Throttle::new(Config { slots: 1 });
            assert!(throttle.decide(&[quota(1, 1, window)], wall(now)).is_ok());
            let refused = throttle.decide(&[quota(1, 1, window)], wall(now)).expect_err("used up");
            assert!((1..=31 * 86_400).contains(&refused.retry_after));
        }
    }
}

#[test]
fn workers_that_race_admit_exactly_the_limit() {
    let throttle = Throttle::new(Config::default());
    let charges = [quota(1, 1_000, Window::Month), rate(2, Rate::new(1, Duration::from_secs(3_600), 700))];
    let admitted: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..1_000).filter(|_| throttle.decide(&charges, at(0)).is_ok()).count()))
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
    });
    assert_eq!(admitted, 700);
}

proptest! {
    /// Whatever the steps of time, no window of the rate's length holds more than count + burst.
    #[test]
    fn no_window_holds_more_than_count_and_burst(
        count in 1u32..50,
        per_ms in 1u64..5_000,
        burst in 1u32..20,
        steps in prop::collection::vec(0u64..200_000_000, 1..400),
    ) {
        let throttle = Throttle::new(Config { slots: 16 });
        let per = Duration::from_millis(per_ms);
        let charge = [rate(1, Rate::new(count, per, burst))];
        let mut now = 0;
        let mut admitted: Vec<u64> = Vec::new();
        for step in steps {
            now += step / u64::from(count);
            if throttle.decide(&charge, at(now)).is_ok() {
                admitted.push(now);
            }
        }
        let window = per_ms * 1_000_000;
        for (first, start) in admitted.iter().enumerate() {
            let within = admitted[first..].iter().take_while(|at| **at - start < window).count();
            prop_assert!(within <= (count + burst) as usize, "{within} in a window");
        }
    }

    /// A request that waits as long as it was told passes, if nobody else asked meanwhile.
    #[test]
    fn waiting_as_told_is_enough(count in 1u32..50, per_s in 1u64..120, burst in 1u32..20, asks in 1usize..200) {
        let throttle = Throttle::new(Config { slots: 16 });
        let charge = [rate(1, Rate::new(count, Duration::from_secs(per_s), burst))];
        let mut now = 0;
        for _ in 0..asks {
            if let Err(refused) = throttle.decide(&charge, at(now)) {
                now += u64::from(refused.retry_after) * SECOND;
                prop_assert!(throttle.decide(&charge, at(now)).is_ok());
            }
        }
    }
}
