//! Devices that a person adds to a running hub and takes away again, and what a configuration is told that cannot work.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use tidegate::bundle::document::{Document, DocumentKind};
use tidegate::bundle::enrolment::{Enrolment, Labels};
use tidegate::hub::Config;
use tidegate::ids::{DeviceId, hex};
use tidegate::keys::SigningKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::enrol::root;
use crate::http::{put, raw, refusal, status, told};
use crate::scene::{DEADLINE, Premises, Running, device, file, hub_key, key, path};

/// The settings that the command is to go by, and what is in `more`.
fn settings(premises: &Premises, more: &str) {
    let text = format!(
        "listen = \"127.0.0.1:0\"\ndatabase = {:?}\nkey_file = {:?}\n{more}\n",
        premises.path("usage.sqlite"),
        premises.path("hub.key")
    );
    fs::write(premises.path("hub.toml"), text).expect("written");
}

/// Exit code and all that the program says.
fn hub(premises: &Premises, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-hub"));
    let output = command.args(arguments).current_dir(premises.path("")).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

fn id(key: &SigningKey) -> DeviceId {
    DeviceId::from(key.public().id())
}

/// How long it takes until the upload of `key` is answered so.
async fn becomes(hub: &Running, key: &SigningKey, told: (String, String)) -> Duration {
    let begun = Instant::now();
    let request = put(&path(key, 1), "", &file(key, 1, None, 1).bytes);
    loop {
        let answer = raw(hub.address, &request).await;
        let now = if status(&answer) == "200" { crate::http::told("200", "") } else { refusal(&answer) };
        if now == told {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < DEADLINE, "{now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_device_is_added_revoked_and_added_again_while_the_hub_runs_and_each_counts_within_two_seconds() {
    let premises = Premises::new();
    settings(&premises, "");
    let running = Running::start(premises.config()).await;
    let (late, listed) = (key(2), device());
    let raw_key = hex(late.public().raw());
    becomes(&running, &late, told("403", "UnknownDevice")).await;
    let steps: [(&[&str], &SigningKey, (String, String)); 5] = [
        (&["device", "add", "--config", "hub.toml", "quay 2", &raw_key], &late, told("200", "")),
        (&["device", "revoke", "--config", "hub.toml", &id(&late).to_string()], &late, told("403", "DeviceRevoked")),
        (&["device", "add", "--config", "hub.toml", "quay 2", &raw_key], &late, told("200", "")),
        // One that the configuration lists as well.
        (
            &["device", "revoke", "--config", "hub.toml", &id(&listed).to_string()],
            &listed,
            told("403", "DeviceRevoked"),
        ),
        (&["device", "revoke", "--config", "hub.toml", &id(&late).to_string()], &late, told("403", "DeviceRevoked")),
    ];
    for (arguments, key, expected) in steps {
        let (code, said) = hub(&premises, arguments);
        assert_eq!(code, Some(0), "{said}");
        let took = becomes(&running, key, expected.clone()).await;
        println!("{}: {expected:?} after {took:?}", arguments[1]);
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let (code, said) = hub(&premises, &["device", "list", "--config", "hub.toml"]);
    assert_eq!((code, said.matches(" revoked by ").count()), (Some(0), 2), "{said}");
    assert!(said.contains(&format!("{} revoked by command \"quay 2\" key {raw_key}", id(&late))), "{said}");
    let (code, said) = hub(&premises, &["device", "revoke", "--config", "hub.toml", &"0".repeat(32)]);
    assert!(code == Some(65) && said.contains("device list"), "{said}");
    let (code, said) = hub(&premises, &["device", "add", "--config", "hub.toml", "weak", &"0".repeat(64)]);
    assert!(code == Some(78) && said.contains("weak"), "{said}");
    running.stop().await;
    // After a start too, and the list of the configuration takes no revocation back.
    let running = Running::start(premises.config()).await;
    becomes(&running, &listed, told("403", "DeviceRevoked")).await;
    running.stop().await;
}

#[tokio::test]
async fn an_enrolment_that_the_root_vouches_for_lets_usage_in_and_a_revocation_goes_before_it() {
    let premises = Premises::new();
    let (bundles, new, stranger) = (premises.path("bundles"), key(6), key(7));
    fs::create_dir(&bundles).expect("made");
    fs::write(premises.path("root.json"), root().bytes()).expect("written");
    settings(&premises, "");
    let config = Config { bundles: Some(bundles.clone()), root: Some(premises.path("root.json")), ..premises.config() };
    let running = Running::start(config).await;
    becomes(&running, &new, told("403", "UnknownDevice")).await;
    let enrol = |device: &SigningKey, by: &SigningKey, name: &str| {
        let enrolment = Enrolment::new(&root(), &device.public(), Labels::new(), 1, 1).expect("sound");
        let document = Document::sign(DocumentKind::Enrolment, &enrolment, by).expect("signed");
        fs::write(bundles.join(".part"), document.to_bytes()).expect("written");
        fs::rename(bundles.join(".part"), bundles.join(name)).expect("moved");
    };
    enrol(&stranger, &key(8), "stranger.tgd");
    enrol(&new, &hub_key(), "new.tgd");
    let took = becomes(&running, &new, told("200", "")).await;
    println!("enrolled by the folder after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    becomes(&running, &stranger, told("403", "UnknownDevice")).await;
    let (code, said) = hub(&premises, &["device", "revoke", "--config", "hub.toml", &id(&new).to_string()]);
    assert_eq!(code, Some(0), "it is in the ledger since its first file: {said}");
    becomes(&running, &new, told("403", "DeviceRevoked")).await;
    running.stop().await;
}

/// Reads from a stream of events until `end` was seen, or it ends.
async fn hears(stream: &mut TcpStream, end: &str) -> String {
    let (mut text, mut part) = (String::new(), [0; 1024]);
    while !text.contains(end) {
        let read = tokio::time::timeout(DEADLINE, stream.read(&mut part)).await;
        match read.unwrap_or_else(|_| panic!("no {end:?} in {text}")) {
            Ok(0) | Err(_) => break,
            Ok(read) => text.push_str(&String::from_utf8_lossy(&part[..read])),
        }
    }
    text
}

async fn listen(hub: &Running, device: DeviceId) -> TcpStream {
    let mut stream = TcpStream::connect(hub.address).await.expect("the hub listens");
    let head = format!("GET /v1/events/{device} HTTP/1.1\r\nHost: hub\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    stream
}

#[tokio::test]
async fn a_stream_of_events_tells_each_new_hint_once_and_ends_with_the_hub_and_with_its_devices_standing() {
    let premises = Premises::new();
    settings(&premises, "");
    let bundles = premises.path("bundles");
    fs::create_dir(&bundles).expect("made");
    let running = Running::start(Config { bundles: Some(bundles.clone()), events: 3, ..premises.config() }).await;
    let mine = id(&device());
    let mut stream = listen(&running, mine).await;
    let first = hears(&mut stream, "\n\n").await;
    assert!(first.contains("text/event-stream") && first.contains("event: bundles\ndata: "), "{first}");
    let begun = Instant::now();
    fs::write(bundles.join(".part"), crate::bundles::list(1)).expect("written");
    fs::rename(bundles.join(".part"), bundles.join("1.tgb")).expect("moved");
    let second = hears(&mut stream, "\n\n").await;
    println!("told after {:?}", begun.elapsed());
    assert!(second.contains("event: bundles\ndata: ") && begun.elapsed() < Duration::from_secs(2), "{second}");
    let hint = |text: &str| text.rsplit_once("data: ").map(|(_, hint)| hint[..16].to_owned());
    assert_ne!(hint(&first), hint(&second));
    // What is nothing for devices says nothing, and the next stream begins with the same.
    fs::write(bundles.join("x.txt"), b"").expect("written");
    let mut again = listen(&running, mine).await;
    assert_eq!(hint(&hears(&mut again, "\n\n").await), hint(&second));
    let mut third = listen(&running, mine).await;
    hears(&mut third, "\n\n").await;
    let mut full = listen(&running, mine).await;
    let answer = hears(&mut full, "Overloaded").await;
    assert!(answer.contains("503") && answer.to_lowercase().contains("retry-after: "), "{answer}");
    // It ends when the hub drains, at once.
    let begun = Instant::now();
    running.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(hears(&mut stream, "never").await, "", "nothing more");

    let running = Running::start(Config { bundles: Some(bundles), ..premises.config() }).await;
    let mut stream = listen(&running, mine).await;
    hears(&mut stream, "\n\n").await;
    let (code, said) = hub(&premises, &["device", "revoke", "--config", "hub.toml", &mine.to_string()]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(hears(&mut stream, "never").await, "", "it ends");
    let mut stream = listen(&running, mine).await;
    assert!(hears(&mut stream, "DeviceRevoked").await.contains("403"));
    running.stop().await;
}

#[test]
fn each_thing_that_cannot_work_is_told_by_check_and_the_wrong_key_for_the_root_by_run_too() {
    let premises = Premises::new();
    let check = |more: &str| {
        settings(&premises, more);
        hub(&premises, &["check", "--config", "hub.toml"])
    };
    let (code, said) = check("");
    assert!(code == Some(0) && said.contains("ok: "), "{said}");
    fs::create_dir(premises.path("there")).expect("made");
    fs::write(premises.path("root.json"), root().bytes()).expect("written");
    let (code, said) = check("root = \"root.json\"\nbundles = \"there\"");
    assert!(code == Some(0), "{said}");

    let made = rcgen::generate_simple_self_signed(["hub".to_owned()]).expect("a certificate");
    fs::write(premises.path("hub.pem"), made.cert.pem()).expect("written");
    fs::write(premises.path("other.pem"), rcgen::KeyPair::generate().expect("a key").serialize_pem()).expect("written");
    fs::write(premises.path("tls.pem"), made.signing_key.serialize_pem()).expect("written");
    assert_eq!(check("[tls]\ncertificate = \"hub.pem\"\nkey = \"tls.pem\"").0, Some(0));
    let wrong = "root = \"absent.json\"\nbundles = \"absent-b\"\nrequests = \"absent-r\"\n\
                 [tls]\ncertificate = \"hub.pem\"\nkey = \"other.pem\"";
    let (code, said) = check(wrong);
    assert_eq!(code, Some(78));
    for name in ["absent.json", "absent-b", "absent-r", "other.pem"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    // Another hub's key: its receipts would free nothing.
    let other = Premises::new();
    fs::remove_file(other.path("hub.key")).expect("there");
    let (code, said) = hub(&other, &["key", "new", "hub.key"]);
    assert_eq!(code, Some(0), "{said}");
    fs::copy(premises.path("root.json"), other.path("root.json")).expect("copied");
    settings(&other, "root = \"root.json\"");
    for verb in ["check", "run"] {
        let (code, said) = hub(&other, &[verb, "--config", "hub.toml"]);
        assert!(code == Some(78) && said.contains("hub role of root.json"), "{verb}: {said}");
    }
    fs::write(premises.path("usage.sqlite"), b"not a database, but something else of some length").expect("written");
    let (code, said) = check("");
    assert!(code == Some(78) && said.contains("database"), "{said}");
}
