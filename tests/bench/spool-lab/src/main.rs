//! What sled costs in memory and time, before the spool is built on it. Its table is in
//! `docs/spool-measurements.md`; run it with `tests/bench/spool-lab/run`.
//!
//! ```text
//! spool-lab write DIR key=value…   one process writes sealed usage files, generation after generation
//! spool-lab jobs  DIR key=value…   one child per usage file: open, commit, exit
//! spool-lab job   DIR key=value…   such a child
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

struct Options(HashMap<String, String>);

impl Options {
    fn number(&self, key: &str, default: u64) -> u64 {
        self.0.get(key).map_or(default, |text| text.parse().expect("a number"))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mode, folder) = (arguments[0].as_str(), Path::new(&arguments[1]));
    let pairs = arguments[2..].iter().filter_map(|pair| pair.split_once('='));
    let options = Options(pairs.map(|(key, value)| (key.into(), value.into())).collect());
    match mode {
        "write" => write(folder, &options),
        "jobs" => jobs(folder, &options, &arguments[2..]),
        "job" => job(folder, &options),
        other => panic!("no mode {other}"),
    }
}

/// Kilobytes of one line of /proc/self/status.
fn status(line: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("procfs");
    let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
    found.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn report(what: &str) {
    println!(
        "{what:<28} VmRSS {:>6} KB  RssAnon {:>6} KB  VmHWM {:>6} KB  threads {}",
        status("VmRSS"),
        status("RssAnon"),
        status("VmHWM"),
        status("Threads")
    );
}

fn open(folder: &Path, options: &Options) -> sled::Db {
    let mut config = sled::Config::new()
        .path(folder)
        .use_compression(false)
        .cache_capacity(options.number("cache", 1 << 20))
        .flush_every_ms(match options.number("flush", 500) {
            0 => None,
            ms => Some(ms),
        });
    let segment = options.number("segment", 512 << 10);
    config = config.segment_size(segment as usize);
    config.open().expect("sled opens")
}

fn commit(folder: &Path, db: &sled::Db) {
    db.flush().expect("flush");
    File::open(folder.join("db")).and_then(|file| file.sync_data()).expect("fdatasync");
}

fn put(db: &sled::Db, seq: u64, options: &Options) {
    let (size, chunk) = (options.number("file", 160 << 10), options.number("chunk", 7 << 10) as usize);
    let mut state = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes: Vec<u8> = (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    let mut batch = sled::Batch::default();
    for (index, part) in bytes.chunks(chunk).enumerate() {
        let mut key = seq.to_be_bytes().to_vec();
        key.extend_from_slice(&(index as u16).to_be_bytes());
        batch.insert(key, part);
    }
    db.apply_batch(batch).expect("batch");
}

/// Reads a file back chunk by chunk, as the uploader does, and deletes it.
fn take(db: &sled::Db, seq: u64) -> u64 {
    let mut read = 0;
    let mut batch = sled::Batch::default();
    for index in 0..u16::MAX {
        let mut key = seq.to_be_bytes().to_vec();
        key.extend_from_slice(&index.to_be_bytes());
        let Some(value) = db.get(&key).expect("get") else { break };
        read += value.len() as u64;
        batch.remove(key);
    }
    db.apply_batch(batch).expect("batch");
    read
}

fn write(folder: &Path, options: &Options) {
    let (generation, rate) = (options.number("generation", 4 << 20), options.number("rate", 0));
    let (files, size) = (options.number("files", 60), options.number("file", 160 << 10));
    let drain = options.number("drain", 0) == 1;
    report("start");
    let every = (rate > 0).then(|| Duration::from_secs_f64(size as f64 / 16.0 / rate as f64));
    let (mut number, mut written, mut seq) = (0, 0, 0);
    let mut path = folder.join(number.to_string());
    let mut db = Some(open(&path, options));
    report("first open");
    let begun = Instant::now();
    let mut peak = 0;
    for file in 0..files {
        let due = begun + every.unwrap_or_default() * file as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if written >= generation {
            drop(db.take());
            if drain {
                fs::remove_dir_all(&path).expect("removed");
            }
            number += 1;
            if number % 5 == 0 || number < 3 {
                report(&format!("{number} generations closed"));
            }
            path = folder.join(number.to_string());
            db = Some(open(&path, options));
            written = 0;
        }
        let open = db.as_ref().expect("open");
        put(open, seq, options);
        commit(&path, open);
        if drain {
            assert_eq!(take(open, seq), size);
        }
        seq += 1;
        written += size;
        peak = peak.max(status("RssAnon"));
    }
    report(&format!("{files} files, {number} closed"));
    println!("peak RssAnon {peak} KB, {:.1} ms a file", begun.elapsed().as_secs_f64() * 1e3 / files as f64);
    drop(db);
    report("closed");
}

fn job(folder: &Path, options: &Options) {
    let begun = Instant::now();
    let base = status("VmRSS");
    let db = open(folder, options);
    let opened = begun.elapsed();
    let seq = options.number("seq", 0);
    for i in 0..options.number("batch", 1) {
        put(&db, seq + i, options);
        commit(folder, &db);
    }
    let committed = begun.elapsed();
    if options.number("read", 1) == 1 {
        take(&db, seq);
        commit(folder, &db);
    }
    println!(
        "{} {} {} {} {}",
        opened.as_micros(),
        (committed - opened).as_micros(),
        base,
        status("VmHWM"),
        status("RssAnon")
    );
    if options.number("quick", 0) == 1 {
        std::process::exit(0); // everything is committed; sled's drop has nothing to add
    }
}

fn jobs(folder: &Path, options: &Options, pass: &[String]) {
    let (generation, size) = (options.number("generation", 4 << 20), options.number("file", 160 << 10));
    let exe = std::env::current_exe().expect("own path");
    let per = (generation / size).max(1);
    println!("   n   open µs  commit µs  total µs  base KB  VmHWM KB  RssAnon KB");
    for n in 0..options.number("files", 20) {
        let begun = Instant::now();
        let output = Command::new(&exe)
            .arg("job")
            .arg(folder.join((n / per).to_string()))
            .args(pass)
            .arg(format!("seq={n}"))
            .output()
            .expect("child");
        let total = begun.elapsed().as_micros();
        let text = String::from_utf8_lossy(&output.stdout);
        let fields: Vec<&str> = text.split_whitespace().collect();
        if n % (options.number("files", 20) / 5).max(1) == 0 || n + 1 == per {
            println!(
                "{n:>4} {:>9} {:>10} {total:>9} {:>8} {:>9} {:>11}",
                fields[0], fields[1], fields[2], fields[3], fields[4]
            );
        }
    }
}
