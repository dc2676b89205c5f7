//! What the spool costs: nanoseconds per record, and memory of the process and its child together.
//!
//! ```text
//! cargo run --release --example spool-bench -- DIR RATE SECONDS     RATE 0: as fast as it goes
//! cargo run --example spool-bench -- DIR flash KIB                  bytes that each step sends to the disk, with
//!                                                                   generations of this many KiB
//! cargo run --release --example spool-bench -- DIR backlog MILLIONS [HUB [DEVICES [URL]]]
//!                                                                   memory and disk with that many records waiting, and
//!                                                                   while they are read and acknowledged; or sent to a
//!                                                                   hub, of that many devices at once: its program, and
//!                                                                   a ClickHouse if it is to be one
//! ```

mod drain;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::ids::RequestId;
use tidegate::keys::SigningKey;
use tidegate::spool::backlog::{Backlog as _, UsageFile};
use tidegate::spool::record::{Client, Outcome, UsageRecord};
use tidegate::spool::{Config, Program, Spool, Status, child};
use tidegate::units::{Bytes, Span, TimeQuality};

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "spool-child") {
        child::run().expect("the child serves");
        return std::process::ExitCode::SUCCESS;
    }
    if let [folder, word, kib] = &arguments[..]
        && word == "flash"
    {
        flash(Path::new(folder), kib.parse().expect("a size"));
        return std::process::ExitCode::SUCCESS;
    }
    if let [folder, word, millions, hub @ ..] = &arguments[..]
        && word == "backlog"
    {
        backlog(Path::new(folder), millions.parse().expect("a number"), hub);
        return std::process::ExitCode::SUCCESS;
    }
    let [folder, rate, seconds] = &arguments[..] else { panic!("spool-bench DIR RATE SECONDS") };
    run(Path::new(folder), rate.parse().expect("a rate"), seconds.parse().expect("seconds"));
    std::process::ExitCode::SUCCESS
}

fn run(folder: &Path, rate: u64, seconds: u64) {
    let key = SigningKey::from_seed(&[7; 32]).expect("a key");
    let program = Program { path: "/proc/self/exe".into(), arguments: vec!["spool-child".into()] };
    fs::create_dir_all(folder).expect("a folder");
    let spool = Spool::start(&Config::default(), folder, &key, program, 1).expect("it starts");
    spool.hub_in_reach(true);
    let mut intake = spool.intake(0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    println!("idle at start: {} KB, {} children", memory().0, memory().1);

    let (begun, mut appended, mut busy, mut most) = (Instant::now(), 0u64, Duration::ZERO, 0);
    let (mut sum, mut files, mut bytes) = (0, 0, 0);
    let mut samples = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        let due = if rate == 0 { appended + 2000 } else { (begun.elapsed().as_millis() as u64) * rate / 1000 };
        let burst = Instant::now();
        while appended < due {
            intake.append(&record(appended));
            appended += 1;
        }
        busy += burst.elapsed();
        let now = memory().0;
        most = most.max(now);
        sum += now;
        samples += 1;
        if samples % 50 == 0 && spool.status().files > 0 {
            // the uploader's part
            if let Ok(Some(file)) = runtime.block_on(spool.oldest(None)) {
                (files, bytes) = (files + 1, bytes + file.bytes.len());
                runtime.block_on(spool.acknowledge(file.at, &file.digest)).expect("it answers");
            }
        }
        if rate > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let status = spool.status();
    println!("{appended} records, {} ns each to append", busy.as_nanos() / u128::from(appended.max(1)));
    println!("memory with the child: {} KB on average, {most} KB at most", sum / samples.max(1));
    println!("{files} files taken, {} bytes each; {status:?}", bytes / files.max(1));
    std::thread::sleep(Duration::from_secs(3));
    println!("idle at the end: {} KB, {} children", memory().0, memory().1);
    println!("CPU: {}", cpu());
    drop(intake);
    spool.stop();
}

/// Fills spools as months without a hub do, and empties them as uploaders do.
fn backlog(folder: &Path, millions: u64, hub: &[String]) {
    let [hub, more @ ..] = hub else { return alone(folder, millions) };
    let devices: u8 = more.first().map_or(1, |devices| devices.parse().expect("a number of devices"));
    let fill = |number| {
        let key = SigningKey::from_seed(&[7 + number; 32]).expect("a key");
        (fill(&folder.join(format!("device-{number}")), &key, millions), key)
    };
    let devices: Vec<drain::Device> = (0..devices).map(fill).collect();
    let records = devices.iter().map(|(spool, _)| spool.status().appended).sum();
    drain::drain(&devices, folder, records, Path::new(hub), more.get(1).map(String::as_str));
    for (number, (spool, _)) in devices.iter().enumerate() {
        let left = taken(&folder.join(format!("device-{number}/generations"))) >> 10;
        println!("device {number}: summed {}, disk {left} KiB at the end", spool.status().rolled_up);
        spool.stop();
    }
}

/// A spool with a backlog of its own. Prints what it took.
fn fill(folder: &Path, key: &SigningKey, millions: u64) -> Arc<Spool> {
    let program = Program { path: "/proc/self/exe".into(), arguments: vec!["spool-child".into()] };
    fs::create_dir_all(folder).expect("a folder");
    let config = Config { backlog_limit: Bytes(1 << 40), ..Config::default() };
    let spool = Arc::new(Spool::start(&config, folder, key, program, 1).expect("it starts"));
    let mut intake = spool.intake(0);
    let (mut most, mut next) = (0, 0);
    for million in 1..=millions {
        let begun = Instant::now();
        while next < million * 1_000_000 {
            (next..next + 2000).for_each(|number| intake.append(&record(number)));
            next += 2000;
            most = most.max(memory().0);
            // No faster than it is sealed: what does not fit into the open logs would be summed.
            while spool.status().open_bytes > 24 << 20 {
                most = most.max(memory().0);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if million % 10 == 0 || million == millions {
            let (status, seconds) = (spool.status(), begun.elapsed().as_secs_f64());
            let ratio = taken(&folder.join("generations")) as f64 / status.bytes.max(1) as f64;
            println!(
                "{million} M records: {} files, {} MB, disk {ratio:.2} times that; memory at most {most} KB, the last million in {seconds:.1} s",
                status.files,
                status.bytes >> 20,
            );
        }
    }
    drop(intake);
    spool.seal_now();
    std::thread::sleep(Duration::from_secs(3));
    let Status { rolled_up, lost, .. } = spool.status();
    println!("summed {rolled_up}, lost {lost}; idle with the backlog: {} KB", memory().0);
    spool
}

/// Fills one and empties it without a hub.
fn alone(folder: &Path, millions: u64) {
    let key = SigningKey::from_seed(&[7; 32]).expect("a key");
    let spool = fill(folder, &key, millions);
    let disk = || taken(&folder.join("generations"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (mut files, mut bytes, mut ratio, mut most) = (0u64, 0u64, 0f64, 0);
    let begun = Instant::now();
    while let Some(file) = runtime.block_on(spool.oldest(None)).expect("it answers") {
        runtime.block_on(spool.acknowledge(file.at, &file.digest)).expect("it answers");
        (files, bytes, most) = (files + 1, bytes + file.bytes.len() as u64, most.max(memory().0));
        let live = spool.status().bytes;
        if live > 16 << 20 && files % 64 == 0 {
            ratio = ratio.max(disk() as f64 / live as f64);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{files} files, {bytes} bytes, read and acknowledged in {seconds:.1} s: {:.0} records a second; memory at most {most} KB, \
         disk at most {ratio:.2} times what was left, {} KiB at the end",
        millions as f64 * 1e6 / seconds,
        disk() >> 10,
    );
    spool.stop();
}

/// What sealing, uploading and looking write, by the kernel's count for this process and its ended children.
fn flash(folder: &Path, kib: u64) {
    let key = SigningKey::from_seed(&[7; 32]).expect("a key");
    let program = Program { path: "/proc/self/exe".into(), arguments: vec!["spool-child".into()] };
    fs::create_dir_all(folder).expect("a folder");
    let hour = Span::secs(3600);
    let config =
        Config { seal_after: hour, seal_after_offline: hour, generation_size: Bytes(kib << 10), ..Config::default() };
    let spool = Spool::start(&config, folder, &key, program, 1).expect("it starts");
    let mut intake = spool.intake(0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let oldest = || runtime.block_on(spool.oldest(None)).expect("it answers");
    let acknowledge =
        |file: &UsageFile| runtime.block_on(spool.acknowledge(file.at, &file.digest)).expect("it answers");
    // Long enough for the child to be let go, and so to be counted.
    let step = |what: &str, times: u64, work: &mut dyn FnMut(u64)| {
        let settle = || std::thread::sleep(Duration::from_millis(2200));
        settle();
        let before = written();
        for time in 0..times {
            work(time);
            settle();
        }
        println!("{what}: {} KiB each, {} files wait", (written() - before) / times / 1024, spool.status().files);
    };
    let mut next = 0;
    for records in [1, 100, 1000, 10_000] {
        let mut seal = |_| {
            (next..next + records).for_each(|number| intake.append(&record(number)));
            next += records;
            spool.seal_now();
        };
        step(&format!("{records} records, the log, synced, and the seal in a child of its own"), 8, &mut seal);
    }
    println!(
        "{} KiB of files take {} KiB of disk",
        spool.status().bytes / 1024,
        taken(&folder.join("generations")) / 1024
    );
    step("reading the oldest file", 4, &mut |_| drop(oldest()));
    step("reading and acknowledging a file", 8, &mut |_| acknowledge(&oldest().expect("there are files")));
    let mut eight = |_| (0..8).for_each(|_| acknowledge(&oldest().expect("there are files")));
    step("reading and acknowledging eight files", 2, &mut eight);
    while let Some(file) = oldest() {
        acknowledge(&file);
    }
    let mut all = |_| {
        (next..next + 1000).for_each(|number| intake.append(&record(number)));
        next += 1000;
        spool.seal_now();
        acknowledge(&oldest().expect("it was sealed"));
    };
    step("1000 records, sealed and acknowledged by one child", 8, &mut all);
    step("asking an empty spool", 4, &mut |_| drop(oldest()));
    step("nothing", 4, &mut |_| {});
    println!("{:?}", spool.status());
}

/// Bytes of disk that a folder takes. Looks again where a generation was renamed or removed meanwhile.
fn taken(folder: &Path) -> u64 {
    fn sum(folder: &Path) -> std::io::Result<u64> {
        fs::read_dir(folder)?.try_fold(0, |bytes, entry| {
            let entry = entry?;
            let metadata = entry.metadata()?;
            Ok(bytes + if metadata.is_dir() { sum(&entry.path())? } else { metadata.blocks() * 512 })
        })
    }
    let found = (0..100).find_map(|_| sum(folder).ok());
    found.expect("a folder that can be read")
}

/// Bytes that this process and its ended children sent to the disk.
fn written() -> u64 {
    let text = fs::read_to_string("/proc/self/io").expect("procfs");
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("it counts");
    line.parse().expect("a number")
}

/// Resident kilobytes of this process and its children, and how many children there are.
fn memory() -> (u64, usize) {
    let children = fs::read_dir("/proc/self/task").expect("procfs").flatten();
    let children: Vec<String> = children
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>())
        .collect();
    // The hub of `drain` is none of the device's.
    let is_ours =
        |pid: &&String| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| !name.contains("hub"));
    let resident = |pid: &str| memory_of(pid, "VmRSS:");
    (resident("self") + children.iter().filter(is_ours).map(|pid| resident(pid)).sum::<u64>(), children.len())
}

/// Kilobytes of a process, by the word of procfs.
fn memory_of(pid: &str, word: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// utime, stime of this process and of its ended children, in clock ticks of 10 ms.
fn cpu() -> String {
    let stat = fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    format!("own user {} sys {}, children user {} sys {} (10 ms)", fields[11], fields[12], fields[13], fields[14])
}

fn record<'a>(number: u64) -> UsageRecord<'a> {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[..8].copy_from_slice(&number.wrapping_mul(0xd1b5_4a32_d192_ed03).to_be_bytes());
    const ROUTES: [&str; 4] = ["/pets", "/pets/{id}", "/store/orders", "/store/orders/{id}"];
    const APPLICATIONS: [&str; 8] = ["till", "kiosk", "web", "mobile", "batch", "audit", "lab", "partner"];
    UsageRecord {
        at_ms: 1_700_000_000_000 + i64::try_from(number / 20).expect("small"),
        time: TimeQuality::Synced,
        request: RequestId(id),
        api: "petstore",
        version: "1.0",
        route: ROUTES[number as usize % 4],
        method: "GET",
        status: 200,
        outcome: Outcome::Admitted,
        application: APPLICATIONS[(number / 3) as usize % 8],
        plan: "gold",
        principal: "",
        bytes_in: 0,
        bytes_out: 400 + number % 300,
        total_us: 700 + (number % 1013) as u32,
        upstream_us: 500 + (number % 997) as u32,
        upstream: "127.0.0.1:9000",
        client: Client::Absent,
        consumer: "shop",
        issuer: "https://idp.example",
    }
}
