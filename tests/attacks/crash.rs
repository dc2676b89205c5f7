//! Power cuts at every step of an activation: the old policy or the new one, never neither, never a mix.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tidegate::bundle::Refused;
use tidegate::bundle::activate::{Slots, Started};
use tidegate::bundle::pack::with_chain;
use tidegate::bundle::verify::{Findings, Judge, Purpose, Verdict, Verified, Whole, verify};
use tidegate::clock::BootId;
use tidegate::disk::Disk;
use tidegate::disk::double::CrashDisk;
use tidegate::store::time::BUILD_TIME;

use crate::permit;
use crate::revocation;
use crate::rotation::{link as rotation_link, signed, third};
use crate::world::{GOLDEN_SEQ, Policy, bundle, compile, device_facts, golden, root};

const STATE: &str = "/state";
const SEEDS: u64 = 12;

/// A boot of its own for each start: here every one follows a power cut.
fn boot() -> BootId {
    static BOOTS: AtomicU64 = AtomicU64::new(0);
    BootId(u128::from(BOOTS.fetch_add(1, Ordering::Relaxed)).to_be_bytes())
}

fn new_disk() -> Arc<CrashDisk> {
    let disk = CrashDisk::new();
    disk.create_folder(Path::new(STATE)).expect("power");
    disk.sync_folder(Path::new("/")).expect("power");
    Arc::new(disk)
}

fn start(disk: &Arc<CrashDisk>) -> Started<Policy> {
    Slots::open(Arc::<CrashDisk>::clone(disk), Path::new(STATE), root(), &device_facts(), compile, boot())
        .expect("it starts")
}

fn verified(slots: &Slots, bytes: &[u8]) -> Verified<Policy> {
    verified_with(slots, bytes, &mut Findings::default())
}

fn verified_with(slots: &Slots, bytes: &[u8], found: &mut Findings) -> Verified<Policy> {
    let device = device_facts();
    let by = Judge { trust: slots.trust(), lower: BUILD_TIME, device: &device, purpose: Purpose::Install };
    match verify(&mut Whole(Cursor::new(bytes)), &by, compile, found) {
        Ok(Verdict::Accepted(verified)) => *verified,
        other => panic!("{other:?}"),
    }
}

fn activate(slots: &mut Slots, bytes: &[u8]) -> Result<(), Refused> {
    let verified = verified(slots, bytes);
    slots.activate(verified).map(|_| ())
}

fn serving(started: &Started<Policy>) -> Option<&str> {
    started.serving.as_ref().map(|active| active.policy.as_str())
}

/// Activates `second` over what `first` holds, with a power cut after each step in turn; what serves after
/// each cut, for every seed, goes to `judge` with whether the activation was acknowledged.
fn cut_everywhere(first: &[Vec<u8>], second: &[u8], ignore: bool, mut judge: impl FnMut(Option<&str>, bool, String)) {
    let mut cut = 0;
    loop {
        let disk = new_disk();
        if ignore {
            disk.ignore_folder_syncs();
        }
        let mut slots = start(&disk).slots;
        for bytes in first {
            activate(&mut slots, bytes).expect("power");
        }
        let candidate = verified(&slots, second);
        let before = disk.steps();
        disk.cut_after(cut);
        let acknowledged = slots.activate(candidate).is_ok();
        let reached = disk.steps() - before;
        for seed in 0..SEEDS {
            let after = Arc::new(disk.after_power_cut(seed));
            let why = format!("cut {cut}, seed {seed}, acknowledged {acknowledged}");
            match Slots::open(
                Arc::<CrashDisk>::clone(&after),
                Path::new(STATE),
                root(),
                &device_facts(),
                compile,
                boot(),
            ) {
                Ok(started) => judge(serving(&started), acknowledged, why),
                Err(error) => judge(None, acknowledged, format!("{why}: {error}")),
            }
        }
        if reached < cut {
            return;
        }
        cut += 1;
    }
}

#[test]
fn a_power_cut_at_any_step_leaves_the_old_policy_or_the_new_one() {
    let next = bundle(GOLDEN_SEQ + 1, "next");
    let newest = bundle(GOLDEN_SEQ + 2, "newest");
    let mut seen = [0, 0];
    for (first, old) in [(vec![golden()], "golden"), (vec![golden(), next.clone()], "next")] {
        cut_everywhere(&first, &newest, false, |serving, acknowledged, why| {
            let new = serving == Some("newest");
            assert!(new || serving == Some(old) && !acknowledged, "{why}: {serving:?}");
            seen[usize::from(new)] += 1;
        });
    }
    assert!(seen.iter().all(|n| *n > 20), "both ends were reached: {seen:?}");
}

#[test]
fn the_first_activation_of_all_ends_in_safe_mode_or_in_the_policy() {
    cut_everywhere(&[], &golden(), false, |serving, acknowledged, why| {
        assert!(serving == Some("golden") || serving.is_none() && !acknowledged, "{why}: {serving:?}");
    });
}

#[test]
fn without_the_folder_syncs_the_same_cuts_lose_the_policy() {
    // The negative control: the double can tell a durable activation from one that only looks so.
    let mut lost = 0;
    cut_everywhere(&[golden()], &bundle(GOLDEN_SEQ + 1, "next"), true, |serving, acknowledged, _| {
        lost += usize::from(serving.is_none() || acknowledged && serving != Some("next"));
    });
    assert!(lost > 0);
}

#[test]
fn a_power_cut_in_the_start_itself_loses_nothing() {
    for cut in 0..40 {
        let disk = new_disk();
        activate(&mut start(&disk).slots, &golden()).expect("power");
        disk.cut_after(cut);
        let _ = Slots::open(Arc::<CrashDisk>::clone(&disk), Path::new(STATE), root(), &device_facts(), compile, boot());
        for seed in 0..SEEDS {
            let started = start(&Arc::new(disk.after_power_cut(seed)));
            assert_eq!(serving(&started), Some("golden"), "cut {cut}, seed {seed}");
        }
    }
}

/// What the device goes by: the root's version, 0 where it is lost.
fn root_version(started: &Started<Policy>) -> u64 {
    let trust = started.slots.trust();
    if trust.lost.is_some() { 0 } else { trust.root.version() }
}

#[test]
fn a_power_cut_at_any_step_of_a_rotation_leaves_the_old_root_or_the_new_one_and_the_policy() {
    let third = third(|_| ());
    let chain = [rotation_link(&third, &[1, 2, 11, 12])];
    let next = with_chain(&signed(&third, GOLDEN_SEQ + 1, "next", &[14, 15]), &chain).expect("it fits");
    let mut seen = [0; 3];
    for cut in 0.. {
        let disk = new_disk();
        let mut slots = start(&disk).slots;
        activate(&mut slots, &golden()).expect("power");
        let mut found = Findings::default();
        let candidate = verified_with(&slots, &next, &mut found);
        let before = disk.steps();
        disk.cut_after(cut);
        let rotated = slots.rotate(&found.roots).is_ok();
        let activated = rotated && slots.activate(candidate).is_ok();
        let reached = disk.steps() - before;
        for seed in 0..SEEDS {
            let after = Arc::new(disk.after_power_cut(seed));
            // Each start may find more than the one before it, and never less.
            let mut least = if rotated { 3 } else { 2 };
            for _ in 0..2 {
                let started = start(&after);
                let (root, serves) = (root_version(&started), serving(&started));
                let why =
                    format!("cut {cut}, seed {seed}, rotated {rotated}, activated {activated}: {root} {serves:?}");
                assert!(root == 3 || root == least, "{why}");
                assert!(serves == Some("next") && root == 3 || serves == Some("golden") && !activated, "{why}");
                least = root;
                seen[usize::from(root == 3) + usize::from(serves == Some("next"))] += 1;
            }
        }
        if reached < cut {
            break;
        }
    }
    assert!(seen.iter().all(|n| *n > 20), "old, rotated and activated were all reached: {seen:?}");
}

#[test]
fn a_power_cut_at_any_step_of_a_list_leaves_the_list_before_or_the_new_one_and_the_policy() {
    let late = i64::MAX;
    let lists = [
        revocation::list(1, revocation::table(&[(5, late)], &[])),
        revocation::list(2, revocation::table(&[(5, late), (9, late)], &[])),
    ];
    let take = |slots: &mut Slots, list: &[u8]| {
        let device = device_facts();
        let by = Judge { trust: slots.trust(), lower: BUILD_TIME, device: &device, purpose: Purpose::Install };
        match verify(&mut Whole(Cursor::new(list)), &by, compile, &mut Findings::default()) {
            Ok(Verdict::Revocations(verified)) => slots.revoke(*verified, &mut Whole(Cursor::new(list))).map(|_| ()),
            other => panic!("{other:?}"),
        }
    };
    let ids = |started: &Started<Policy>| started.list.as_ref().map_or(0, |list| list.policy.len().0);
    for held in 0..2 {
        let mut seen = [0; 2];
        for cut in 0.. {
            let disk = new_disk();
            let mut slots = start(&disk).slots;
            activate(&mut slots, &golden()).expect("power");
            lists.iter().take(held).for_each(|list| take(&mut slots, list).expect("power"));
            let before = disk.steps();
            disk.cut_after(cut);
            // It reads what is held, and so fails at once where the power is gone.
            let taken = cut > 0 && take(&mut slots, &lists[held]).is_ok();
            let reached = disk.steps() - before;
            for seed in 0..SEEDS {
                let started = start(&Arc::new(disk.after_power_cut(seed)));
                let why = format!("held {held}, cut {cut}, seed {seed}, taken {taken}");
                assert_eq!(serving(&started), Some("golden"), "{why}");
                let new = ids(&started) == held + 1;
                assert!(new || ids(&started) == held && !taken, "{why}: {} ids", ids(&started));
                seen[usize::from(new)] += 1;
            }
            if reached < cut {
                break;
            }
        }
        assert!(seen.iter().all(|n| *n > 20), "both ends were reached: {seen:?}");
    }
}

#[test]
fn a_power_cut_at_any_step_of_a_permitted_way_back_leaves_one_bundle_or_the_other_and_spends_the_permit_once() {
    let leave = permit::permit(1, &golden(), &permit::older());
    let judged = |slots: &Slots, bytes: &[u8]| {
        let device = device_facts();
        let by = Judge { trust: slots.trust(), lower: BUILD_TIME, device: &device, purpose: Purpose::Install };
        verify(&mut Whole(Cursor::new(bytes)), &by, compile, &mut Findings::default())
    };
    let mut seen = [0; 3];
    for cut in 0.. {
        let disk = new_disk();
        let mut slots = start(&disk).slots;
        activate(&mut slots, &golden()).expect("power");
        let before = disk.steps();
        disk.cut_after(cut);
        let Ok(Verdict::Permit(verified)) = judged(&slots, &leave) else { panic!("a permit") };
        let permitted = slots.permit(&verified).is_ok();
        let gone_back = permitted && activate(&mut slots, &permit::older()).is_ok();
        let reached = disk.steps() - before;
        for seed in 0..SEEDS {
            let started = start(&Arc::new(disk.after_power_cut(seed)));
            let waits = started.slots.trust().history.pending.is_some();
            let why = format!("cut {cut}, seed {seed}, permitted {permitted}, gone back {gone_back}, waits {waits}");
            match serving(&started) {
                Some("older") => assert!(!waits, "{why}"),
                Some("golden") => assert!(!gone_back && (waits || !permitted), "{why}"),
                other => panic!("{why}: {other:?}"),
            }
            let again = judged(&started.slots, &leave).map_err(|refused| refused.name());
            match serving(&started) {
                Some("older") => assert!(matches!(again, Err("PermitUsed")), "{why}: {again:?}"),
                _ if waits => assert!(matches!(again, Ok(Verdict::AlreadyInstalled(_))), "{why}: {again:?}"),
                _ => assert!(matches!(again, Ok(Verdict::Permit(_))), "{why}: {again:?}"),
            }
            seen[usize::from(waits) + 2 * usize::from(serving(&started) == Some("older"))] += 1;
        }
        if reached < cut {
            break;
        }
    }
    assert!(seen.iter().all(|n| *n > 20), "each state was reached: {seen:?}");
}

#[test]
fn a_power_cut_and_a_rotten_record_do_not_bring_the_old_root_back() {
    let third = third(|_| ());
    let next =
        with_chain(&signed(&third, GOLDEN_SEQ + 1, "next", &[14, 15]), &[rotation_link(&third, &[1, 2, 11, 12])]);
    for record in ["/state/trust/state.0", "/state/trust/state.1"] {
        for cut in 0..12 {
            let disk = new_disk();
            let mut slots = start(&disk).slots;
            activate(&mut slots, &golden()).expect("power");
            let mut found = Findings::default();
            let candidate = verified_with(&slots, next.as_ref().expect("it fits"), &mut found);
            slots.rotate(&found.roots).expect("power");
            slots.activate(candidate).expect("power");
            disk.rot(Path::new(record), 20);
            disk.cut_after(cut);
            let _ =
                Slots::open(Arc::<CrashDisk>::clone(&disk), Path::new(STATE), root(), &device_facts(), compile, boot());
            for seed in 0..SEEDS {
                let started = start(&Arc::new(disk.after_power_cut(seed)));
                let why = format!("{record}, cut {cut}, seed {seed}");
                assert_eq!((root_version(&started), serving(&started)), (3, Some("next")), "{why}");
            }
        }
    }
}

#[test]
fn without_the_folder_syncs_the_same_cuts_lose_the_root_and_it_shows() {
    // The negative control; and what is lost is told, in place of an older root.
    let third = third(|_| ());
    let chain = [rotation_link(&third, &[1, 2, 11, 12])];
    let next = with_chain(&bundle(GOLDEN_SEQ + 1, "old keys"), &chain).expect("it fits");
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..100 {
        let disk = new_disk();
        let mut slots = start(&disk).slots;
        activate(&mut slots, &golden()).expect("power");
        let mut found = Findings::default();
        let device = device_facts();
        let by = Judge { trust: slots.trust(), lower: BUILD_TIME, device: &device, purpose: Purpose::Install };
        verify(&mut Whole(Cursor::new(&next)), &by, compile, &mut found).expect_err("the old keys");
        disk.ignore_folder_syncs();
        slots.rotate(&found.roots).expect("power");
        disk.cut_after(0);
        match root_version(&start(&Arc::new(disk.after_power_cut(seed)))) {
            0 => lost += 1,
            3 => kept += 1,
            other => panic!("seed {seed}: root {other}"),
        }
    }
    assert!(lost > 0 && kept > 0, "{lost} {kept}");
}

#[test]
fn a_power_cut_while_a_broken_record_is_made_good_rolls_nothing_back() {
    for record in ["/state/trust/state.0", "/state/trust/state.1"] {
        for cut in 0..12 {
            let disk = new_disk();
            let mut slots = start(&disk).slots;
            activate(&mut slots, &golden()).expect("power");
            activate(&mut slots, &bundle(GOLDEN_SEQ + 1, "next")).expect("power");
            disk.rot(Path::new(record), 20);
            disk.cut_after(cut);
            let _ =
                Slots::open(Arc::<CrashDisk>::clone(&disk), Path::new(STATE), root(), &device_facts(), compile, boot());
            for seed in 0..SEEDS {
                let started = start(&Arc::new(disk.after_power_cut(seed)));
                assert_eq!(serving(&started), Some("next"), "{record}, cut {cut}, seed {seed}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Activations, restarts and power cuts in any order: what serves is always the last acknowledged
    /// bundle, or the one that was under way; the order of bundles never goes back.
    #[test]
    fn any_row_of_activations_and_power_cuts_keeps_the_last_acknowledged(
        cuts in proptest::collection::vec((0_u64..40, any::<u64>()), 1..10)
    ) {
        let mut disk = new_disk();
        let mut acknowledged: Option<String> = None;
        for (seq, (cut, seed)) in (1_u64..).zip(cuts) {
            let mut started = start(&disk);
            let name = format!("policy {}", seq + GOLDEN_SEQ);
            let candidate = verified(&started.slots, &bundle(seq + GOLDEN_SEQ, &name));
            disk.cut_after(cut);
            let done = started.slots.activate(candidate).is_ok();
            disk = Arc::new(disk.after_power_cut(seed));
            let after = start(&disk);
            let serves = serving(&after).map(str::to_owned);
            if done {
                prop_assert_eq!(serves.as_deref(), Some(name.as_str()));
            } else {
                prop_assert!(serves == acknowledged || serves.as_deref() == Some(name.as_str()), "{:?}", serves);
            }
            acknowledged = serves;
        }
    }
}
