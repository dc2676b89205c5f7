//! What comes to lie at the hub is in force on the device at once: the hub says so over a stream that the device holds.

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate::admin::PolicyStatus;

use crate::site::{Daemon, Site, drop_in, free_address, serves, until};
use crate::wire::{get, upstream};

/// What the design promises.
const AT_ONCE: Duration = Duration::from_secs(2);

struct Hub(Child);

impl Hub {
    fn start(site: &Site) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-hub"));
        command.args(["run", "--config", "hub.toml"]).current_dir(site.path(""));
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A link that can be cut: whoever connects is connected to `to`, unless it is.
struct Link {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Link {
    fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let link =
            Self { address: listener.local_addr().expect("it listens"), is_cut: Arc::default(), open: Arc::default() };
        let (is_cut, open) = (Arc::clone(&link.is_cut), Arc::clone(&link.open));
        std::thread::spawn(move || {
            for outside in listener.incoming().flatten() {
                let inside = TcpStream::connect(to).ok().filter(|_| !is_cut.load(Ordering::SeqCst));
                let Some(inside) = inside else { continue };
                let twice = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                open.lock().expect("no panic").extend([twice(&outside), twice(&inside)]);
                for (mut from, mut to) in [(twice(&outside), twice(&inside)), (inside, outside)] {
                    std::thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        link
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for stream in self.open.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn restore(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn hears(daemon: &Daemon) -> bool {
    daemon.status().upload.expect("it has a hub").hears_events
}

fn is_in_force(daemon: &Daemon, wanted: u64) -> bool {
    matches!(daemon.status().policy, PolicyStatus::Active { seq, .. } if seq == wanted)
}

/// Puts a file into the hub's folder, and waits until it is seen; how long that took.
fn told(site: &Site, name: &str, bytes: &[u8], mut seen: impl FnMut() -> bool) -> Duration {
    drop_in(&site.path("bundles"), name, bytes);
    let begun = Instant::now();
    until(name, || seen().then_some(()));
    begun.elapsed()
}

#[test]
fn what_lies_at_the_hub_is_in_force_within_two_seconds_also_after_a_cut_and_after_the_hub_was_started_again() {
    let mut site = Site::new();
    let (address, bundles) = (free_address(), site.path("bundles"));
    fs::create_dir(&bundles).expect("made");
    // All as it comes: devices prove themselves, and nothing is looked for but once an hour.
    let settings = format!(
        "listen = \"{address}\"\ndatabase = {:?}\nkey_file = {:?}\nroot = {:?}\nbundles = {bundles:?}\nenrol = \"any\"\n",
        site.path("usage.sqlite"),
        site.path("policy/keys/hub.key"),
        site.path("policy/root.json"),
    );
    fs::write(site.path("hub.toml"), settings).expect("written");
    let (hub, link) = (Hub::start(&site), Link::to(address));
    site.more = format!(
        "[upload]\nhubs = [\"http://{}\"]\npull_interval = \"1h\"\nretry_base = \"50ms\"\nretry_cap = \"200ms\"\n",
        link.address
    );
    let serving = upstream("one");
    let names = ["one", "two", "three", "four"];
    let policies = names.map(|_| site.bundle(serving));
    site.tidegate(&["revoke", "policy", "-o", "list.tgb", "--issuer", "site", "--sub", "ada"]);
    site.tidegate(&["bundle", "sign", "list.tgb", "--key", "policy/keys/revocation.key", "--yes"]);
    let list = fs::read(site.path("list.tgb")).expect("made");
    let token = site.token();

    let daemon = site.start();
    until("it hears the hub", || hears(&daemon).then_some(()));
    let took = told(&site, "1.tgb", &policies[0], || is_in_force(&daemon, 1));
    println!("a policy is in force {took:?} after its rename");
    assert!(took < AT_ONCE, "{took:?}");
    serves(&site, &token, "one");
    let is_revoked = || get(site.gateway, "/quay/ping", Some(&token)).status == 401;
    let took = told(&site, "list.tgb", &list, is_revoked);
    println!("a list of revocations is in force {took:?} after its rename");
    assert!(took < AT_ONCE, "{took:?}");

    // What is missed while the link is cut is made up for.
    link.cut();
    until("it hears the hub no more", || (!hears(&daemon)).then_some(()));
    drop_in(&bundles, "2.tgb", &policies[1]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_in_force(&daemon, 1), "the control: over a link that is cut nothing comes");
    link.restore();
    let begun = Instant::now();
    until("the second is in force", || is_in_force(&daemon, 2).then_some(()));
    println!("what was missed is in force {:?} after the link is back", begun.elapsed());
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());

    drop(hub);
    until("it hears the hub no more", || (!hears(&daemon)).then_some(()));
    drop_in(&bundles, "3.tgb", &policies[2]);
    let _hub = Hub::start(&site);
    let begun = Instant::now();
    until("the third is in force", || is_in_force(&daemon, 3).then_some(()));
    println!("what was missed is in force {:?} after the hub is started", begun.elapsed());
    until("it hears the hub again", || hears(&daemon).then_some(()));
    let took = told(&site, "4.tgb", &policies[3], || is_in_force(&daemon, 4));
    println!("a policy is in force {took:?} after its rename, by a hub that was started again");
    assert!(took < AT_ONCE, "{took:?}");
    daemon.stop();
}

#[test]
fn a_device_that_is_to_hold_no_stream_holds_none_and_asks_now_and_then() {
    let mut site = Site::new();
    let (address, bundles) = (free_address(), site.path("bundles"));
    fs::create_dir(&bundles).expect("made");
    let settings = format!(
        "listen = \"{address}\"\ndatabase = {:?}\nkey_file = {:?}\nbundles = {bundles:?}\nenrol = \"any\"\n",
        site.path("usage.sqlite"),
        site.path("policy/keys/hub.key"),
    );
    fs::write(site.path("hub.toml"), settings).expect("written");
    let _hub = Hub::start(&site);
    site.more = format!(
        "[upload]\nhubs = [\"http://{address}\"]\nevents = false\npull_interval = \"200ms\"\nretry_base = \"50ms\"\n"
    );
    let policy = site.bundle(free_address());
    let daemon = site.start();
    told(&site, "1.tgb", &policy, || is_in_force(&daemon, 1));
    assert!(!hears(&daemon));
    daemon.stop();
}
