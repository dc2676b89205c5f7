//! A bundle's trial: a model of activation, and random histories of the device against it. At each moment the device
//! serves the policy that the model names; after a power cut the one from before the step or the one after it.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tidegate::bundle::activate::Slots;
use tidegate::bundle::verify::{Findings, Judge, Purpose, Verdict, Whole, verify};
use tidegate::bundle::{Origin, Refused, pack};
use tidegate::clock::BootId;
use tidegate::disk::Disk;
use tidegate::disk::double::CrashDisk;
use tidegate::store::time::BUILD_TIME;

use crate::revocation;
use crate::world::{GOLDEN_SEQ, Policy, bundle, compile, device_facts, root};

const STATE: &str = "/state";
/// So many bundles there are, numbered upwards from the golden one's sequence number.
const BUNDLES: usize = 8;

/// What a bundle serves: its own number.
fn text(number: usize) -> String {
    format!("policy {number}")
}

fn bytes(number: usize) -> &'static [u8] {
    static ALL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let make = || (0..BUNDLES).map(|number| bundle(GOLDEN_SEQ + number as u64, &text(number))).collect();
    &ALL.get_or_init(make)[number]
}

/// The device: its disk, its process and its boot.
struct Device {
    disk: Arc<CrashDisk>,
    slots: Option<Slots>,
    boot: u8,
    serving: Option<Policy>,
    origin: Origin,
}

impl Device {
    fn new(is_honest: bool) -> Self {
        let disk = CrashDisk::new();
        if !is_honest {
            disk.ignore_folder_syncs();
        }
        disk.create_folder(Path::new(STATE)).expect("power");
        disk.sync_folder(Path::new("/")).expect("power");
        let mut device = Self { disk: Arc::new(disk), slots: None, boot: 0, serving: None, origin: Origin::Fresh };
        device.start();
        device
    }

    fn start(&mut self) {
        let disk = Arc::<CrashDisk>::clone(&self.disk);
        let boot = BootId([self.boot; 16]);
        let started = Slots::open(disk, Path::new(STATE), root(), &device_facts(), compile, boot).expect("it starts");
        self.serving = started.serving.map(|active| active.policy);
        self.origin = started.origin;
        self.slots = Some(started.slots);
    }

    fn slots(&mut self) -> &mut Slots {
        self.slots.as_mut().expect("it runs")
    }

    /// SIGTERM, or a start that ended with an error.
    fn restart(&mut self) {
        self.slots = None;
        self.start();
    }

    /// A panic, the watchdog, a fatal signal.
    fn crash(&mut self) {
        std::mem::forget(self.slots.take());
        self.start();
    }

    /// `during` runs while the power lasts for so many more steps; then it is gone.
    fn cut(&mut self, steps: u64, seed: u64, during: impl FnOnce(&mut Self)) {
        self.disk.cut_after(steps);
        during(self);
        std::mem::forget(self.slots.take());
        self.disk = Arc::new(self.disk.after_power_cut(seed));
        self.boot += 1;
        self.start();
    }

    fn offer(&mut self, number: usize) -> Result<(), Refused> {
        self.import(bytes(number))
    }

    fn import(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let facts = device_facts();
        let trust = self.slots().trust().clone();
        let by = Judge { trust: &trust, lower: BUILD_TIME, device: &facts, purpose: Purpose::Install };
        let mut source = Whole(Cursor::new(bytes));
        match verify(&mut source, &by, compile, &mut Findings::default())? {
            Verdict::Accepted(verified) => {
                self.serving = Some(self.slots().activate(*verified)?.policy);
                Ok(())
            }
            Verdict::Revocations(list) => {
                self.slots().revoke(*list, &mut source)?;
                if let Some(resumed) = self.slots().resume(&facts, compile).serving {
                    self.serving = Some(resumed.policy);
                }
                Ok(())
            }
            Verdict::AlreadyInstalled(_) => Ok(()),
            other => panic!("{other:?}"),
        }
    }

    fn on_trial(&self) -> bool {
        self.slots.as_ref().expect("it runs").on_trial().is_some()
    }
}

/// What the device should do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    active: Option<usize>,
    on_trial: bool,
    /// And whether it passed its trial.
    previous: Option<(usize, bool)>,
    highest: Option<usize>,
    ends: u8,
    bad: BTreeSet<usize>,
}

impl Model {
    fn offer(&mut self, number: usize) -> Option<&'static str> {
        if self.bad.contains(&number) {
            return Some("KnownBad");
        }
        if self.active == Some(number) {
            return None;
        }
        if self.highest.is_some_and(|highest| number < highest) {
            return Some("Rollback");
        }
        let proven = self.previous.filter(|(_, proven)| *proven && self.on_trial);
        self.previous = proven.or(self.active.map(|active| (active, !self.on_trial)));
        (self.active, self.on_trial, self.highest, self.ends) = (Some(number), true, Some(number), 0);
        None
    }

    fn pass(&mut self) {
        self.on_trial = false;
    }

    fn crash(&mut self) {
        if !self.on_trial {
            return;
        }
        self.ends += 1;
        if self.ends == 3 {
            self.fail();
        }
    }

    fn fail(&mut self) {
        self.bad.extend(self.active);
        self.active = self.previous.map(|(number, _)| number);
        self.on_trial = self.previous.is_some_and(|(_, proven)| !proven);
        (self.previous, self.ends) = (None, 0);
    }
}

#[derive(Debug, Clone)]
enum Action {
    Offer(usize),
    Pass,
    Restart,
    Crash,
    CutWhileIdle(u64),
    CutInOffer(usize, u64, u64),
    CutInPass(u64, u64),
    CutInStart(u64, u64),
}

fn action() -> impl Strategy<Value = Action> {
    let steps = 0..30_u64;
    prop_oneof![
        4 => (0..BUNDLES).prop_map(Action::Offer),
        2 => Just(Action::Pass),
        1 => Just(Action::Restart),
        6 => Just(Action::Crash),
        1 => any::<u64>().prop_map(Action::CutWhileIdle),
        2 => (0..BUNDLES, steps.clone(), any::<u64>()).prop_map(|(n, at, seed)| Action::CutInOffer(n, at, seed)),
        1 => (steps.clone(), any::<u64>()).prop_map(|(at, seed)| Action::CutInPass(at, seed)),
        1 => (steps, any::<u64>()).prop_map(|(at, seed)| Action::CutInStart(at, seed)),
    ]
}

/// The model after a cut: as it was or as it would be, whichever the device shows; the new boot counts no ends.
fn either(before: Model, after: Model, device: &Device) -> Result<Model, TestCaseError> {
    let shows = |model: &Model| device.serving == model.active.map(text) && device.on_trial() == model.on_trial;
    let mut model = match (shows(&after), shows(&before)) {
        (true, _) => after,
        (_, true) => before,
        _ => {
            let shown = (&device.serving, device.on_trial());
            return Err(TestCaseError::fail(format!("{shown:?} is neither {before:?} nor {after:?}")));
        }
    };
    model.ends = 0;
    Ok(model)
}

fn step(model: &mut Model, device: &mut Device, action: &Action) -> Result<(), TestCaseError> {
    let before = model.clone();
    match *action {
        Action::Offer(number) => {
            let refused = device.offer(number).err().map(|refused| refused.name());
            prop_assert_eq!(refused, model.offer(number), "bundle {}", number);
        }
        Action::Pass => {
            if device.on_trial() {
                device.slots().pass().expect("power");
            }
            model.pass();
        }
        Action::Restart => device.restart(),
        Action::Crash => {
            device.crash();
            model.crash();
        }
        Action::CutWhileIdle(seed) => {
            device.cut(0, seed, |_| ());
            model.ends = 0;
        }
        Action::CutInOffer(number, at, seed) => {
            device.cut(at, seed, |device| drop(device.offer(number)));
            model.offer(number);
            *model = either(before, model.clone(), device)?;
        }
        Action::CutInPass(at, seed) => {
            if device.on_trial() {
                device.cut(at, seed, |device| drop(device.slots().pass()));
                model.pass();
                *model = either(before, model.clone(), device)?;
            }
        }
        Action::CutInStart(at, seed) => {
            // The cut comes while the device starts after one more abnormal end.
            model.crash();
            device.cut(at, seed, |device| {
                std::mem::forget(device.slots.take());
                let disk = Arc::<CrashDisk>::clone(&device.disk);
                let boot = BootId([device.boot; 16]);
                let started = Slots::open(disk, Path::new(STATE), root(), &device_facts(), compile, boot);
                std::mem::forget(started);
            });
            *model = either(before, model.clone(), device)?;
        }
    }
    prop_assert_eq!(&device.serving, &model.active.map(text), "{:?}: {:?}", action, model);
    prop_assert_eq!(device.on_trial(), model.on_trial, "{:?}: {:?}", action, model);
    Ok(())
}

/// Runs random histories; what went wrong in them.
fn histories(cases: u32, is_honest: bool) -> Vec<String> {
    let mut runner =
        TestRunner::new_with_rng(ProptestConfig::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let history = prop::collection::vec(action(), 1..40);
    let run = |actions: &[Action]| {
        let (mut model, mut device) = (Model::default(), Device::new(is_honest));
        actions.iter().try_for_each(|action| step(&mut model, &mut device, action))
    };
    let one = |_| {
        let actions = history.new_tree(&mut runner).expect("a history").current();
        run(&actions).err().map(|error| format!("{error}, in {actions:?}"))
    };
    (0..cases).filter_map(one).collect()
}

#[test]
fn whatever_happens_the_device_serves_what_the_model_says() {
    let wrong = histories(192, true);
    assert!(wrong.is_empty(), "{} histories: {}", wrong.len(), wrong[0]);
}

#[test]
fn negative_control_on_a_disk_that_syncs_no_folder_it_does_not() {
    assert!(!histories(64, false).is_empty());
}

#[test]
fn three_abnormal_ends_in_a_trial_bring_the_good_policy_back_for_ever() {
    let mut device = Device::new(true);
    device.offer(0).expect("the first");
    device.slots().pass().expect("power");
    device.offer(1).expect("the next");
    for end in 1..=2 {
        device.crash();
        assert_eq!(device.serving, Some(text(1)), "end {end}");
    }
    device.crash();
    assert_eq!(device.serving, Some(text(0)));
    assert!(matches!(&device.origin, Origin::Previous(Refused::KnownBad(_))), "{:?}", device.origin);
    assert!(!device.on_trial(), "it passed its own long ago");
    assert_eq!(device.offer(1).expect_err("bad").name(), "KnownBad");
    device.restart();
    assert_eq!((&device.serving, &device.origin), (&Some(text(0)), &Origin::Active));
    assert_eq!(device.offer(1).expect_err("bad").name(), "KnownBad");
    device.offer(2).expect("the mended one");
    assert_eq!(device.serving, Some(text(2)));
}

#[test]
fn a_first_bundle_that_fails_leaves_safe_mode_and_says_why() {
    let mut device = Device::new(true);
    device.offer(0).expect("the first");
    (0..3).for_each(|_| device.crash());
    assert_eq!(device.serving, None);
    assert!(matches!(&device.origin, Origin::Nothing(Refused::KnownBad(_))), "{:?}", device.origin);
    device.offer(1).expect("the mended one");
}

#[test]
fn what_serves_again_on_trial_is_counted_against_as_ever() {
    let mut device = Device::new(true);
    let list = |seq| revocation::list(seq, revocation::table(&[(5, 1 << 40)], &[]));
    device.import(&list(1)).expect("a list");
    device.offer(0).expect("the first");
    device.slots().pass().expect("power");
    device.offer(1).expect("the next");
    // The list rots, so nothing serves; the next list brings the bundle on trial back, and that ends the process.
    let slot = Path::new(STATE).join("slots").join(pack::digest(&list(1)).expect("a head").to_string());
    device.disk.rot(&slot.join("head"), 40);
    device.restart();
    assert_eq!((&device.serving, device.on_trial()), (&None, false), "what does not serve is not on trial");
    device.import(&list(2)).expect("the next list");
    assert_eq!((&device.serving, device.on_trial()), (&Some(text(1)), true));
    (0..3).for_each(|_| device.crash());
    assert_eq!(device.serving, Some(text(0)), "three ends");
    assert_eq!(device.offer(1).expect_err("bad").name(), "KnownBad");
}

#[test]
fn neither_orderly_ends_nor_power_cuts_nor_ends_after_the_trial_count() {
    let mut device = Device::new(true);
    device.offer(0).expect("the first");
    device.slots().pass().expect("power");
    device.offer(1).expect("the next");
    for end in 0..8 {
        device.crash();
        if end % 2 == 0 {
            device.restart();
        }
        device.cut(0, end, |_| ());
    }
    assert_eq!(device.serving, Some(text(1)), "at most one a boot");
    device.slots().pass().expect("power");
    (0..8).for_each(|_| device.crash());
    assert_eq!(device.serving, Some(text(1)), "it has passed");
}
