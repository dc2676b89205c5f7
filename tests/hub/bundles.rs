//! What the hub has for devices, and how a device fetches it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::bundle::document::{Document, DocumentKind};
use tidegate::bundle::enrolment::Enrolment;
use tidegate::bundle::manifest::{Author, EntryKind, Permit, Target};
use tidegate::bundle::pack::{self, Draft};
use tidegate::bundle::root::{Role, RoleKeys, RootDocument, RootDraft};
use tidegate::hub::DeviceEntry;
use tidegate::ids::{DeviceId, Digest, hex};
use tidegate::spool::protocol::BundleKind;
use tidegate::telemetry::Heartbeats;
use tidegate::units::Span;
use tidegate::upload::{Config, Identity, Known, Puller, Shelf, Status, Uplink};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::http::{raw, status};
use crate::scene::{DEADLINE, Premises, Running, device, key};

fn root() -> RootDocument {
    let role = RoleKeys { keys: vec![0], threshold: 1 };
    RootDocument::build(RootDraft {
        deployment: "harbour".into(),
        epoch: 1,
        version: 1,
        issued_at: 1,
        keys: vec![("ada".into(), key(4).public())],
        roles: BTreeMap::from([(Role::Root, role.clone()), (Role::Policy, role)]),
    })
    .expect("a sound root")
}

fn draft(seq: u64, target: Target, entry: EntryKind, size: usize) -> Draft {
    Draft {
        author: Author { who: "Ada".into(), tool: "tests".into(), reason: String::new() },
        target,
        seq,
        security_floor: 0,
        issued_at: 1,
        expires_at: None,
        base: None,
        requires: Vec::new(),
        entries: BTreeMap::from([(entry, ("part".into(), vec![b'x'; size]))]),
    }
}

/// A bundle without signatures, of `size` bytes and some: the hub does not look.
fn bundle(seq: u64, target: Target, size: usize) -> Vec<u8> {
    draft(seq, target, EntryKind::Routes, size).assemble(&root()).expect("a sound draft")
}

/// A list of revocations, likewise.
pub(crate) fn list(seq: u64) -> Vec<u8> {
    draft(seq, Target::All, EntryKind::Revocations, 10).assemble_list(&root()).expect("a sound draft")
}

fn labelled(site: &str) -> Target {
    Target::Labels([("site".to_owned(), vec![site.to_owned()])].into())
}

fn enrolment(seq: u64, site: &str) -> Vec<u8> {
    let labels = [("site".to_owned(), site.to_owned())].into();
    let enrolment = Enrolment::new(&root(), &device().public(), labels, seq, 1).expect("sound");
    Document::sign(DocumentKind::Enrolment, &enrolment, &key(4)).expect("signed").to_bytes()
}

fn tag(bundle: &[u8]) -> String {
    format!("\"{}\"", pack::digest(bundle).expect("it has a digest"))
}

/// The folder of a hub.
fn folder(premises: &Premises) -> PathBuf {
    let folder = premises.path("bundles");
    fs::create_dir_all(&folder).expect("made");
    folder
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    fs::write(folder.join(".part"), bytes).expect("written");
    fs::rename(folder.join(".part"), folder.join(name)).expect("moved");
}

async fn ask(hub: SocketAddr, method: &str, device: DeviceId, kind: &str, more: &str) -> Vec<u8> {
    let head = format!("{method} /v1/bundles/{device}/{kind} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{more}\r\n");
    raw(hub, head.as_bytes()).await
}

#[tokio::test]
async fn of_each_kind_the_newest_that_names_the_device_is_served_once() {
    let premises = Premises::new();
    let bundles = folder(&premises);
    let newest = bundle(3, labelled("quay"), 10);
    put(&bundles, "1.tgb", &bundle(1, Target::All, 10));
    put(&bundles, "3.tgb", &newest);
    put(&bundles, "4.tgb", &bundle(4, labelled("pier"), 10));
    put(&bundles, "5.tgb", &bundle(5, Target::Devices(vec![DeviceId([1; 16])]), 10));
    put(&bundles, "old.tgd", &enrolment(1, "pier"));
    put(&bundles, "new.tgd", &enrolment(2, "quay"));
    put(&bundles, "garbage.tgb", b"garbage");
    let hub = Running::start(tidegate::hub::Config { bundles: Some(bundles), ..premises.config() }).await;
    let id = DeviceId::from(device().public().id());

    let answer = ask(hub.address, "GET", id, "policy", "").await;
    let text = String::from_utf8_lossy(&answer);
    assert!(status(&answer) == "200" && text.contains(&tag(&newest)) && answer.ends_with(&newest), "{text}");
    let again = ask(hub.address, "GET", id, "policy", &format!("If-None-Match: {}\r\n", tag(&newest))).await;
    assert!(status(&again) == "304" && again.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&again));
    let answer = ask(hub.address, "GET", id, "enrolment", "").await;
    assert!(status(&answer) == "200" && answer.ends_with(&enrolment(2, "quay")));
    for (method, device, kind, told) in [
        ("GET", id, "permit", "404"),
        ("GET", id, "release", "404"),
        ("GET", id, "../policy", "404"),
        ("PUT", id, "policy", "405"),
        ("GET", DeviceId([1; 16]), "policy", "403"),
    ] {
        assert_eq!(status(&ask(hub.address, method, device, kind, "").await), told, "{method} {kind}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_permit_leads_its_devices_to_the_bundle_that_it_names_until_there_is_a_newer_one() {
    let premises = Premises::new();
    let bundles = folder(&premises);
    let policies = [1, 2, 3].map(|seq| bundle(seq, Target::All, 10));
    let [one, two, three] = &policies;
    put(&bundles, "1.tgb", one);
    put(&bundles, "2.tgb", two);
    let id = DeviceId::from(device().public().id());
    let [to, from] = [one, two].map(|bundle| pack::digest(bundle).expect("a digest"));
    let permit = Draft { entries: BTreeMap::new(), ..draft(1, Target::Devices(vec![id]), EntryKind::Routes, 1) };
    let permit = permit.assemble_permit(Permit { from, to }, &root()).expect("a sound permit");
    let mut config = tidegate::hub::Config { bundles: Some(bundles.clone()), ..premises.config() };
    config.devices.push(DeviceEntry { name: "other".into(), key: hex(key(2).public().raw()) });
    let hub = Running::start(config).await;
    let other = DeviceId::from(key(2).public().id());
    let serves = async |device, policy: &Vec<u8>| {
        let begun = Instant::now();
        while !ask(hub.address, "GET", device, "policy", "").await.ends_with(policy) {
            assert!(begun.elapsed() < DEADLINE, "another one");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    serves(id, two).await;
    put(&bundles, "permit.tgb", &permit);
    serves(id, one).await;
    serves(other, two).await;
    put(&bundles, "3.tgb", three);
    serves(id, three).await;
    // The bundle that it names is not there.
    fs::remove_file(bundles.join("3.tgb")).expect("there");
    fs::remove_file(bundles.join("1.tgb")).expect("there");
    serves(id, two).await;
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_without_such_a_folder_has_nothing() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let id = DeviceId::from(device().public().id());
    assert_eq!(status(&ask(hub.address, "GET", id, "policy", "").await), "404");
    hub.stop().await;
}

/// Asks for the policy, and reads nothing of the answer: little of it fits the socket.
async fn ask_and_stall(hub: SocketAddr, id: DeviceId) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 << 10).expect("it is set");
    let mut stream = socket.connect(hub).await.expect("the hub listens");
    let head = format!("GET /v1/bundles/{id}/policy HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    stream
}

/// Bytes of memory that this process holds.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("Linux tells");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

#[tokio::test]
async fn devices_that_take_nothing_of_what_they_ask_for_cost_the_hub_no_memory_and_lose_their_places() {
    let premises = Premises::new();
    let bundles = folder(&premises);
    let policy = bundle(1, Target::All, 4 << 20);
    put(&bundles, "1.tgb", &policy);
    let config = tidegate::hub::Config { bundles: Some(bundles), body_timeout: Span::secs(2), ..premises.config() };
    let hub = Running::start(config).await;
    let id = DeviceId::from(device().public().id());
    let (before, begun) = (resident(), Instant::now());
    let mut stalled = Vec::new();
    for _ in 0..64 {
        let mut stream = ask_and_stall(hub.address, id).await;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.expect("it answers");
        assert_eq!(status(&head), "200");
        stalled.push(stream);
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes for 64 answers of 4 MiB");
    assert_eq!(status(&ask(hub.address, "GET", id, "policy", "").await), "503", "{:?}", begun.elapsed());
    // They are ended, and the file is there for others.
    while status(&ask(hub.address, "GET", id, "policy", "").await) != "200" {
        assert!(begun.elapsed() < DEADLINE, "the places stay taken");
    }
    for mut stream in stalled {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("it is closed");
        assert!(rest.len() < policy.len(), "it got all of it");
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_slow_device_gets_all_of_a_bundle_as_long_as_it_takes_some() {
    let premises = Premises::new();
    let bundles = folder(&premises);
    let policy = bundle(1, Target::All, 1 << 20);
    put(&bundles, "1.tgb", &policy);
    let config = tidegate::hub::Config { bundles: Some(bundles), body_timeout: Span::millis(500), ..premises.config() };
    let hub = Running::start(config).await;
    let begun = Instant::now();
    let mut stream = ask_and_stall(hub.address, DeviceId::from(device().public().id())).await;
    let (mut answer, mut part) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        match tokio::time::timeout(DEADLINE, stream.read(&mut part)).await.expect("it moves").expect("it is open") {
            0 => break,
            read => answer.extend_from_slice(&part[..read]),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(answer.ends_with(&policy));
    assert!(begun.elapsed() > Duration::from_millis(600), "longer than its time-out");
    hub.stop().await;
}

/// An inbox, and what fetches into it.
struct Fetching {
    folder: tempfile::TempDir,
    known: Arc<Known>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fetching {
    fn start(hub: SocketAddr, in_force: Vec<(BundleKind, Digest)>, most: u64, request_timeout: Span) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("inbox")).expect("made");
        let known = Arc::new(Known::open(folder.path().join("fetched.json"), in_force));
        let task = Self::task(hub, &folder.path().join("inbox"), &known, most, request_timeout);
        Self { folder, known, task }
    }

    fn task(
        hub: SocketAddr,
        inbox: &Path,
        known: &Arc<Known>,
        most: u64,
        request_timeout: Span,
    ) -> tokio::task::JoinHandle<()> {
        let config = Config {
            hubs: vec![format!("http://{hub}")],
            pull_interval: Span::millis(100),
            retry_base: Span::millis(10),
            request_timeout,
            ..Config::default()
        };
        let shelf = Shelf { inbox: inbox.into(), most };
        let (_, link) = watch::channel(Status::default());
        let uplink = Uplink::new(&config, Box::new(|| None), None).expect("sound");
        let identity = Identity::new(&device());
        let puller = Puller::new(config, &uplink, &identity, shelf, Arc::clone(known), link, Arc::default());
        let heart = Heartbeats::new(Instant::now(), DEADLINE).register("pull", Instant::now());
        tokio::spawn(puller.expect("sound").expect("a hub").run(heart))
    }

    /// The device stops and starts.
    fn again(&mut self, hub: SocketAddr, in_force: Vec<(BundleKind, Digest)>) {
        self.task.abort();
        self.known = Arc::new(Known::open(self.folder.path().join("fetched.json"), in_force));
        self.task = Self::task(hub, &self.inbox(), &self.known, 1 << 20, Span::secs(20));
    }

    /// Until it is written down that this was fetched, which follows the file.
    async fn remembers(&self, digest: &str) {
        let begun = Instant::now();
        while !fs::read_to_string(self.folder.path().join("fetched.json")).is_ok_and(|text| text.contains(digest)) {
            assert!(begun.elapsed() < DEADLINE, "{digest} is not written down");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn inbox(&self) -> PathBuf {
        self.folder.path().join("inbox")
    }

    /// What is in the inbox.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.inbox()).expect("the inbox");
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    async fn until(&self, seen: impl Fn(&[String]) -> bool) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let names = self.names();
            if seen(&names) {
                return names;
            }
            assert!(begun.elapsed() < DEADLINE, "{names:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_device_fetches_each_new_bundle_once_and_none_that_it_has() {
    let premises = Premises::new();
    let bundles = folder(&premises);
    let (one, two) = (bundle(1, Target::All, 900_000), bundle(2, Target::All, 10));
    put(&bundles, "1.tgb", &one);
    let hub = Running::start(tidegate::hub::Config { bundles: Some(bundles.clone()), ..premises.config() }).await;
    let named = |bundle: &[u8]| format!("pull=127.0.0.1=policy-{}.tgb", pack::digest(bundle).expect("a digest"));
    let fresh = Fetching::start(hub.address, Vec::new(), 1 << 20, Span::secs(20));
    let known = vec![(BundleKind::Policy, pack::digest(&one).expect("a digest"))];
    let has_it = Fetching::start(hub.address, known, 1 << 20, Span::secs(20));

    let names = fresh.until(|names| names.iter().any(|name| name.starts_with("pull="))).await;
    assert_eq!(names, [named(&one)]);
    assert_eq!(fs::read(fresh.inbox().join(&names[0])).expect("there"), one);
    // The daemon takes it out; it does not come again, and the next one does.
    fs::remove_file(fresh.inbox().join(&names[0])).expect("there");
    put(&bundles, "2.tgb", &two);
    for device in [&fresh, &has_it] {
        assert_eq!(device.until(|names| names.contains(&named(&two))).await, [named(&two)]);
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_refused_bundle_is_not_fetched_at_each_start_but_once_something_that_it_needed_was_accepted() {
    let premises = Premises::new();
    let bundles = folder(&premises);
    let (one, two) = (bundle(1, Target::All, 10), bundle(2, Target::All, 10));
    put(&bundles, "1.tgb", &one);
    let hub = Running::start(tidegate::hub::Config { bundles: Some(bundles.clone()), ..premises.config() }).await;
    let digest = |bundle: &[u8]| pack::digest(bundle).expect("a digest");
    let named = |bundle: &[u8]| format!("pull=127.0.0.1=policy-{}.tgb", digest(bundle));
    // A stick has brought a later policy than the hub has.
    let in_force = || vec![(BundleKind::Policy, Digest([9; 32]))];
    let mut device = Fetching::start(hub.address, in_force(), 1 << 20, Span::secs(20));
    for start in 0..3 {
        if start == 0 {
            device.until(|names| names.contains(&named(&one))).await;
            fs::remove_file(device.inbox().join(named(&one))).expect("the importer refuses it");
        }
        // Between two lists it has asked for everything once.
        for seq in [1, 2] {
            let list = list(2 * start + seq);
            put(&bundles, "list.tgb", &list);
            let list = digest(&list).to_string();
            let came = device.until(|names| names.iter().any(|name| name.contains(&list))).await;
            assert_eq!(came.len(), 1, "start {start}: {came:?}");
            fs::remove_file(device.inbox().join(&came[0])).expect("taken");
            device.remembers(&list).await;
        }
        device.again(hub.address, in_force());
    }
    // What it needed comes by hand.
    device.known.accepted(BundleKind::Policy, Digest([8; 32]));
    device.until(|names| names.contains(&named(&one))).await;
    // The next is another one, and comes at once.
    put(&bundles, "2.tgb", &two);
    device.until(|names| names.contains(&named(&two))).await;
    hub.stop().await;
}

#[tokio::test]
async fn what_is_left_of_a_fetch_that_a_stop_cut_off_is_swept_at_the_next_start() {
    let (address, _count) = hostile(Vec::new()).await; // it says nothing, so that nothing is fetched
    let mut device = Fetching::start(address, Vec::new(), 65_536, Span::secs(20));
    fs::write(device.inbox().join(".pull.part"), b"half").expect("written");
    device.again(address, Vec::new());
    device.until(<[String]>::is_empty).await;
}

/// A hub that answers each request with these bytes, and then says nothing more.
async fn hostile(answer: Vec<u8>) -> (SocketAddr, watch::Receiver<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (counted, count) = watch::channel(0);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 2_048];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(&answer).await;
            counted.send_modify(|count| *count += 1);
            open.push(stream);
        }
    });
    (address, count)
}

/// A hub that answers as `answer` says for a path, one request a connection.
async fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 2_048];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let _ = stream.write_all(&answer(head.split(' ').nth(1).unwrap_or_default())).await;
        }
    });
    address
}

#[tokio::test]
async fn a_kind_that_cannot_be_had_keeps_none_behind_it_from_coming() {
    let good = format!("HTTP/1.1 200 OK\r\nETag: \"{}\"\r\nContent-Length: 3\r\n\r\nabc", "ab".repeat(32));
    for bad in [
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nETag: \"abababababababababababababababababababababababababababababababab\"\r\nContent-Length: 30\r\n\r\nabc",
    ] {
        let good = good.clone();
        let hub = answering(move |path| if path.ends_with("policy") { good.clone() } else { bad.into() }.into()).await;
        let fetching = Fetching::start(hub, Vec::new(), 65_536, Span::secs(5));
        fetching.until(|names| names.iter().any(|name| name.contains("=policy-"))).await;
    }
}

#[tokio::test]
async fn a_hostile_hub_gets_nothing_into_the_inbox() {
    let tag = format!("ETag: \"{}\"\r\n", "ab".repeat(32));
    let many = "x".repeat(70_000);
    for (about, answer) in [
        ("it claims too much", format!("HTTP/1.1 200 OK\r\n{tag}Content-Length: 65537\r\n\r\n{many}")),
        ("it sends too much", format!("HTTP/1.1 200 OK\r\n{tag}Transfer-Encoding: chunked\r\n\r\n11170\r\n{many}\r\n")),
        ("it stands still", format!("HTTP/1.1 200 OK\r\n{tag}Content-Length: 1000\r\n\r\nabc")),
        ("it names nothing", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc".to_owned()),
        ("it names a path", "HTTP/1.1 200 OK\r\nETag: \"../../x\"\r\nContent-Length: 3\r\n\r\nabc".to_owned()),
        ("it redirects", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("it is no hub", "SSH-2.0-OpenSSH\r\n".to_owned()),
        ("it says nothing", String::new()),
    ] {
        let (address, mut count) = hostile(answer.into_bytes()).await;
        let fetching = Fetching::start(address, Vec::new(), 65_536, Span::millis(50));
        // It gave up on the first answer, for it asks again.
        let again = tokio::time::timeout(DEADLINE, count.wait_for(|count| *count >= 3)).await;
        again.unwrap_or_else(|_| panic!("{about}: it hangs")).expect("the hub stands");
        let names = fetching.names();
        assert!(names.iter().all(|name| name == ".pull.part"), "{about}: {names:?}");
    }
    // The control: a good answer of the same form gets in.
    let good = format!("HTTP/1.1 200 OK\r\n{tag}Content-Length: 3\r\n\r\nabc");
    let (address, _count) = hostile(good.into_bytes()).await;
    let fetching = Fetching::start(address, Vec::new(), 65_536, Span::millis(50));
    fetching.until(|names| names.iter().any(|name| name.starts_with("pull="))).await;
}
