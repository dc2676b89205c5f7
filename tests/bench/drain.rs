//! A hub beside the bench, and the device's own uploader that empties the spool into it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::bundle::keyfile::PublicHalf;
use tidegate::ids::hex;
use tidegate::keys::{PublicKey, SigningKey};
use tidegate::spool::Spool;
use tidegate::telemetry::Heartbeats;
use tidegate::units::Span;
use tidegate::upload::{Config, Identity, Uplink, Wakes, Worker};
use tokio::sync::watch;

use crate::{memory, memory_of};

/// A `tidegate-hub run`, ended when dropped.
struct Hub {
    process: Child,
    address: String,
    key: PublicKey,
}

impl Hub {
    fn start(program: &Path, folder: &Path, device: &SigningKey, clickhouse: Option<&str>) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let key = folder.join("hub.key");
        let made = Command::new(program).args(["key", "new"]).arg(&key).stdout(Stdio::null()).status();
        assert!(made.expect("the hub's program runs").success(), "the hub has a key");
        let (device, config) = (hex(device.public().raw()), folder.join("hub.toml"));
        let sink = clickhouse.map_or(String::new(), |url| format!("[clickhouse]\nurl = \"{url}\"\n"));
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndatabase = {:?}\nkey_file = {key:?}\n{sink}[[devices]]\nname = \"bench\"\nkey = \"{device}\"\n",
            folder.join("usage.sqlite"),
        );
        std::fs::write(&config, text).expect("it is written");
        let mut run = Command::new(program);
        run.args(["run", "--config"]).arg(&config).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = run.spawn().expect("the hub starts");
        let mut line = String::new();
        let out = process.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().strip_prefix("listening on ").expect("the hub listens").to_owned();
        let key = PublicHalf::open(&key).expect("a key file").0.key;
        Self { process, address, key }
    }

    fn pid(&self) -> String {
        self.process.id().to_string()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Empties `spool`, which holds `records` of `device`, into a hub of its own; prints how long that takes, and what memory.
pub(crate) fn drain(
    spool: &Arc<Spool>,
    folder: &Path,
    device: &SigningKey,
    records: u64,
    program: &Path,
    sink: Option<&str>,
) {
    let hub = Hub::start(program, &folder.join("hub"), device, sink);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config =
        Config { hubs: vec![format!("http://{}", hub.address)], interval: Span::millis(200), ..Config::default() };
    let uplink = Uplink::new(&config, Box::new(|| None), None).expect("the configuration is right");
    let hubs = watch::Sender::new(Arc::from([hub.key.clone()]));
    let identity = Identity::new(device);
    let worker = Worker::new(config, &uplink, Arc::clone(spool), &identity, hubs.subscribe(), Wakes::default());
    let worker = worker.expect("the configuration is right").expect("it names a hub");
    let mut status = worker.status();
    let heart = Heartbeats::new(Instant::now(), Duration::from_secs(60)).register("upload", Instant::now());
    let (begun, mut most, hub_before) = (Instant::now(), 0, cpu(&hub.pid()));
    let files = runtime.block_on(async {
        let task = tokio::spawn(worker.run(heart));
        while spool.status().files > 0 {
            most = most.max(memory().0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        task.abort();
        status.borrow_and_update().files
    });
    let seconds = begun.elapsed().as_secs_f64();
    let (hub_cpu, hub_memory) = (cpu(&hub.pid()) - hub_before, memory_of(&hub.pid(), "VmHWM:"));
    println!(
        "{files} files of {records} records at the hub in {seconds:.1} s: {:.0} records a second; device at most {most} KB; \
         hub at most {hub_memory} KB, {hub_cpu:.1} s of processor: {:.2} µs a record",
        records as f64 / seconds,
        hub_cpu * 1e6 / records as f64,
    );
}

/// Seconds of processor that a process has used.
fn cpu(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let mut next = || fields.next().and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (next() + next()) / 100.0
}
