//! Ten thousand devices that all come at once: each holds a stream of events and brings a file, and obeys Retry-After.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate::ids::{DeviceId, hex, unhex};
use tidegate::keys::SigningKey;
use tidegate::spool::protocol::{PROOF_TYPE, proof, proof_message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::scene::{Premises, file, path};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(600);

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn device(number: u32) -> SigningKey {
    let mut seed = [0x5a; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SigningKey::from_seed(&seed).expect("a seed makes a key")
}

/// A number of kilobytes of a process's status.
fn kilobytes(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(field)).expect("Linux tells");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// From an address of its own among many, for one has not as many ports.
async fn connect(hub: SocketAddr, number: u32) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 1, u8::try_from(number % 100).unwrap_or(0) + 1], 0)))?;
    socket.connect(hub).await
}

/// The head of the answer and what came with it.
async fn head(stream: &mut TcpStream, end: &str) -> std::io::Result<String> {
    let (mut text, mut part) = (String::new(), [0; 2048]);
    while !text.contains(end) {
        match stream.read(&mut part).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => text.push_str(&String::from_utf8_lossy(&part[..read])),
        }
    }
    Ok(text)
}

/// How long the hub wants this one to wait.
fn asked(answer: &str) -> Option<Duration> {
    let (_, rest) = answer.split_once("retry-after: ")?;
    rest.split_once("\r\n")?.0.parse().ok().map(Duration::from_secs)
}

/// One device: what it has at the end, how long that took and how often it was sent away.
async fn lives(hub: SocketAddr, number: u32, begun: Instant) -> (TcpStream, Duration, u32) {
    let key = device(number);
    let id = DeviceId::from(key.public().id());
    let mut away = 0;
    let events = format!("/v1/events/{id}");
    let stream = loop {
        let tried = async {
            let mut stream = connect(hub, number).await?;
            let ask = |more: &str| format!("GET {events} HTTP/1.1\r\nHost: hub\r\n{more}\r\n");
            stream.write_all(ask("").as_bytes()).await?;
            let answer = head(&mut stream, "}").await?;
            let Some((_, challenge)) = answer.split_once("tidegate-challenge: ") else { return Ok(Err(answer)) };
            let challenge = unhex(&challenge[..64]).expect("64 digits");
            let signature = key.sign(PROOF_TYPE, &proof_message(&challenge, "GET", &events));
            let header = format!("Tidegate-Proof: {}\r\n", proof(&challenge, &signature));
            stream.write_all(ask(&header).as_bytes()).await?;
            let answer = head(&mut stream, "\n\n").await?;
            if answer.contains("event: bundles") { Ok(Ok(stream)) } else { Ok::<_, std::io::Error>(Err(answer)) }
        };
        match tried.await {
            Ok(Ok(stream)) => break stream,
            Ok(Err(answer)) => tokio::time::sleep(asked(&answer).expect("it says when")).await,
            Err(_) => tokio::time::sleep(Duration::from_millis(500 + u64::from(number % 1000))).await,
        }
        away += 1;
    };
    let file = file(&key, 1, None, u64::from(number));
    let signature = hex(&file.bytes[file.bytes.len() - 64..]);
    let put = format!(
        "PUT {} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nTidegate-Signature: {signature}\r\nContent-Length: {}\r\n\r\n",
        path(&key, 1),
        file.bytes.len()
    );
    loop {
        let tried = async {
            let mut stream = connect(hub, number).await?;
            stream.write_all(&[put.as_bytes(), &file.bytes].concat()).await?;
            head(&mut stream, "\r\n\r\n").await
        };
        match tried.await {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => return (stream, begun.elapsed(), away),
            Ok(answer) => {
                let wait = asked(&answer).unwrap_or_else(|| panic!("{answer}"));
                tokio::time::sleep(wait).await;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(500 + u64::from(number % 1000))).await,
        }
        away += 1;
    }
}

fn herd(devices: u32) {
    let premises = Premises::new();
    fs::create_dir(premises.path("bundles")).expect("made");
    let mut settings = format!(
        "listen = \"127.0.0.1:0\"\ndatabase = {:?}\nkey_file = {:?}\nbundles = {:?}\n",
        premises.path("usage.sqlite"),
        premises.path("hub.key"),
        premises.path("bundles")
    );
    for number in 0..devices {
        let key = hex(device(number).public().raw());
        write!(settings, "[[devices]]\nname = \"{number}\"\nkey = \"{key}\"\n").expect("memory");
    }
    fs::write(premises.path("hub.toml"), settings).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-hub"));
    command.args(["run", "--config"]).arg(premises.path("hub.toml"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let stdout = child.stdout.take().expect("a pipe");
    let mut hub = Ended(child);
    let line = BufReader::new(stdout).lines().next().expect("a line").expect("text");
    let address: SocketAddr = line.rsplit(' ').next().and_then(|at| at.parse().ok()).expect("an address");
    let (pid, before) = (hub.0.id(), kilobytes(hub.0.id(), "VmRSS:"));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut served = runtime.block_on(async {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..devices {
            tasks.spawn(lives(address, number, begun));
        }
        tokio::time::timeout(PATIENCE, tasks.join_all()).await.expect("all are served in the end")
    });
    served.sort_by_key(|(_, took, _)| *took);
    let (peak, now) = (kilobytes(pid, "VmHWM:"), kilobytes(pid, "VmRSS:"));
    let took: Vec<Duration> = served.iter().map(|(_, took, _)| *took).collect();
    let at = |part: usize| took[(took.len() - 1) * part / 100];
    let away = served.iter().map(|(_, _, away)| *away);
    println!(
        "{devices} devices: half served after {:.1?}, 99 of 100 after {:.1?}, all after {:.1?}",
        at(50),
        at(99),
        at(100)
    );
    println!("sent away at most {} times, {} all in all", away.clone().max().unwrap_or(0), away.sum::<u32>());
    println!("the hub's memory: {before} kB before, {peak} kB at most, {now} kB with {devices} streams of events");
    assert_eq!(premises.number("SELECT count(*) FROM files"), i64::from(devices), "none is lost");
    assert_eq!(premises.number("SELECT count(*) FROM records"), 10 * i64::from(devices), "and none counts twice");
    // It goes at once, though all their streams are open.
    let begun = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&hub.0), rustix::process::Signal::TERM)
        .expect("it runs");
    let status = hub.0.wait().expect("it is our child");
    println!("it drained within {:.1?}", begun.elapsed());
    assert!(status.success() && begun.elapsed() < Duration::from_secs(10), "{status}");
    drop(served);
    // What an unoptimised build keeps of each connection is several times as much.
    let most = if cfg!(debug_assertions) { 512 << 10 } else { 100 << 10 };
    assert!(peak < most, "{peak} kB");
}

#[test]
fn three_hundred_devices_that_come_at_once_are_all_served_and_none_is_lost() {
    herd(300);
}

#[test]
#[ignore = "a minute or more: cargo test --test hub ten_thousand -- --ignored --nocapture"]
fn ten_thousand_devices_that_come_at_once_are_all_served_and_none_is_lost() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("up to the hard limit");
    herd(10_000);
}
