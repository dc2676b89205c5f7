//! A hub beside the bench, and the devices' own uploaders that empty their spools into it.

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
use tokio::task::JoinSet;

use crate::{memory, memory_of};

/// A `tidegate-hub run`, ended when dropped.
struct Hub {
    process: Child,
    address: String,
    key: PublicKey,
}

impl Hub {
    fn start(program: &Path, folder: &Path, devices: &[PublicKey], clickhouse: Option<&str>) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let key = folder.join("hub.key");
        let made = Command::new(program).args(["key", "new"]).arg(&key).stdout(Stdio::null()).status();
        assert!(made.expect("the hub's program runs").success(), "the hub has a key");
        let config = folder.join("hub.toml");
        let sink = clickhouse.map_or(String::new(), |url| format!("[clickhouse]\nurl = \"{url}\"\n"));
        let database = folder.join("usage.sqlite");
        let mut text = format!("listen = \"127.0.0.1:0\"\ndatabase = {database:?}\nkey_file = {key:?}\n{sink}");
        for (number, device) in devices.iter().enumerate() {
            text += &format!("[[devices]]\nname = \"bench {number}\"\nkey = \"{}\"\n", hex(device.raw()));
        }
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

/// A device: its spool and its key.
pub(crate) type Device = (Arc<Spool>, SigningKey);

/// Empties the spools of `devices`, which hold `records`, into a hub of its own, all at once; prints how long that takes, and
/// what memory.
pub(crate) fn drain(devices: &[Device], folder: &Path, records: u64, program: &Path, sink: Option<&str>) {
    let keys: Vec<PublicKey> = devices.iter().map(|(_, key)| key.public()).collect();
    let hub = Hub::start(program, &folder.join("hub"), &keys, sink);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config =
        Config { hubs: vec![format!("http://{}", hub.address)], interval: Span::millis(200), ..Config::default() };
    let uplink = Uplink::new(&config, Box::new(|| None), None).expect("the configuration is right");
    let hubs = watch::Sender::new(Arc::from([hub.key.clone()]));
    let files: u64 = devices.iter().map(|(spool, _)| spool.status().files).sum();
    let waiting = || devices.iter().any(|(spool, _)| spool.status().files > 0);
    let (begun, mut most, hub_before) = (Instant::now(), 0, cpu(&hub.pid()));
    runtime.block_on(async {
        let hearts = Heartbeats::new(Instant::now(), Duration::from_secs(60));
        let mut tasks = JoinSet::new();
        for (spool, key) in devices {
            let (spool, wakes) = (Arc::clone(spool), Wakes::default());
            let worker = Worker::new(config.clone(), &uplink, spool, &Identity::new(key), hubs.subscribe(), wakes);
            let worker = worker.expect("the configuration is right").expect("it names a hub");
            tasks.spawn(worker.run(hearts.register("upload", Instant::now())));
        }
        while waiting() {
            most = most.max(memory().0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let (hub_cpu, hub_memory) = (cpu(&hub.pid()) - hub_before, memory_of(&hub.pid(), "VmHWM:"));
    println!(
        "{files} files of {records} records, of {} devices, at the hub in {seconds:.1} s: {:.0} records a second; devices at \
         most {most} KB; hub at most {hub_memory} KB, {hub_cpu:.1} s of processor: {:.2} µs a record",
        devices.len(),
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
