//! Tests in network namespaces of their own: what a link does to the uploader. They need root and `unshare` and `ip`,
//! and say so where they do not have them.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use tidegate::hub::Config as HubConfig;
use tidegate::units::Span;
use tidegate::upload::Failure;

use crate::scene::{Premises, Running, Shelf, chain, hub_key};
use crate::uploader::{Uploader, config};

/// What tells a test that it has a namespace of its own, where every link is down.
const INSIDE: &str = "TIDEGATE_TEST_IN_NAMESPACE";

/// Runs the test `name` again in a network namespace of its own; whether this is that run.
pub(crate) fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !run("unshare", &["--net", "ip", "link"]) {
        println!("skipped: no network namespace can be made here (root, unshare and ip are needed)");
        return false;
    }
    let this = std::env::current_exe().expect("it has a name");
    let mut command = Command::new("unshare");
    command.arg("--net").arg(this).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    let output = command.output().expect("it ran before");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// Whether a program ended well.
pub(crate) fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn a_link_that_comes_up_ends_the_wait_for_the_hub_though_it_had_an_hour_to_go() {
    if !inside("netns::a_link_that_comes_up_ends_the_wait_for_the_hub_though_it_had_an_hour_to_go") {
        return;
    }
    let premises = Premises::new();
    let listen = "0.0.0.0:0".parse().expect("an address");
    let hub = Running::start(HubConfig { listen, ..premises.config() }).await;
    let settings = tidegate::upload::Config {
        retry_base: Span::hours(1),
        retry_cap: Span::hours(1),
        ..config(format!("http://127.0.0.1:{}", hub.address.port()))
    };
    let mut uploader = Uploader::start(settings, Shelf::of(chain(3)), hub_key().public());
    let status = uploader.until(|status| status.failure.is_some()).await;
    assert_eq!((status.failure, status.link.failures()), (Some(Failure::Connect), 1), "the loopback is down");
    // The wait is between nothing and an hour: that it does not end by itself is seen first.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(uploader.until(|_| true).await.failures, 1, "nothing has changed, and the wait goes on");
    let begun = std::time::Instant::now();
    assert!(run("ip", &["link", "set", "lo", "up"]));
    uploader.until(|status| status.files == 3).await;
    println!("uploaded {:?} after the link came up", begun.elapsed());
    hub.stop().await;
}

/// Where the hub is on the other side, and what it sees of who calls.
const THERE: &str = "10.213.9.9";

/// Another namespace, that of a process of ours, which ends with this.
struct Other(std::process::Child);

impl Other {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo; read x"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it ran before");
        let made = child.stdout.as_mut().expect("a pipe").read(&mut [0]).expect("it says that it is there");
        assert_eq!(made, 1);
        Self(child)
    }

    fn ip(&self, arguments: &[&str]) {
        let pid = self.0.id().to_string();
        assert!(run("nsenter", &[&["--net", "--target", &pid, "ip"], arguments].concat()), "{arguments:?}");
    }

    /// A listener in there, from a thread that goes there.
    fn listen(&self) -> std::net::TcpListener {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).expect("it is there");
        let listen = move || {
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
            std::net::TcpListener::bind("0.0.0.0:0").expect("a port is free")
        };
        std::thread::spawn(listen).join().expect("no panic")
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn connections_go_over_the_named_interfaces_only_in_their_order() {
    if !inside("netns::connections_go_over_the_named_interfaces_only_in_their_order") {
        return;
    }
    let other = Other::new();
    let pid = other.0.id().to_string();
    for (number, near, far) in [("0", "up0", "far0"), ("1", "up1", "far1")] {
        assert!(run("ip", &["link", "add", near, "type", "veth", "peer", "name", far, "netns", &pid]));
        assert!(run("ip", &["address", "add", &format!("10.213.{number}.1/24"), "dev", near]));
        other.ip(&["address", "add", &format!("10.213.{number}.2/24"), "dev", far]);
        other.ip(&["link", "set", far, "up"]);
        assert!(run("ip", &["link", "set", near, "up"]));
        let (way, metric) = (format!("10.213.{number}.2"), format!("{number}0"));
        assert!(run("ip", &["route", "add", "default", "via", &way, "dev", near, "metric", &metric]));
    }
    other.ip(&["link", "set", "lo", "up"]);
    other.ip(&["address", "add", &format!("{THERE}/32"), "dev", "lo"]);
    let listener = other.listen();
    let port = listener.local_addr().expect("it listens").port();
    let (callers, mut called) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let _ = callers.send(from.ip().to_string());
            let _ = stream.read(&mut [0; 1 << 10]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let settings = |names: &[&str]| tidegate::upload::Config {
        allow_plain_http: true,
        interfaces: names.iter().map(|name| (*name).to_owned()).collect(),
        ..config(format!("http://{THERE}:{port}"))
    };
    let mut caller = async |names: &[&str]| {
        while called.try_recv().is_ok() {}
        let mut uploader = Uploader::start(settings(names), Shelf::of(chain(1)), hub_key().public());
        let failed = uploader.until(|status| status.failures > 0).await.failure;
        drop(uploader);
        called.try_recv().map_err(|_| failed)
    };
    let (first, second) = (Ok("10.213.0.1".to_owned()), Ok("10.213.1.1".to_owned()));
    assert_eq!(caller(&[]).await, first, "the control: the system takes the first");
    assert_eq!(caller(&["up1"]).await, second);
    assert_eq!(caller(&["up1", "up0"]).await, second);
    assert_eq!(caller(&["up*"]).await, first);
    assert_eq!(caller(&["ppp0"]).await, Err(Some(Failure::NoInterface)));
    assert!(run("ip", &["link", "set", "up1", "down"]));
    assert_eq!(caller(&["up1"]).await, Err(Some(Failure::Connect)), "it is down, and the other is not named");
    assert_eq!(caller(&["up1", "up0"]).await, first);
}
