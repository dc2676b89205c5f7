//! The gateway alone, for measuring: `gateway LISTEN UPSTREAM FOLDER`. All stages are on; each usage record is one
//! write(2) to a file in FOLDER, in the spool's row form. Writes FOLDER/tokens.lua for wrk and serves until killed.

#[path = "../gateway/rig.rs"]
#[allow(dead_code)]
mod rig;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tidegate::gateway::{
    Config, Counters, Gateway, Intake, Listener, ListenerConfig, PSEUDONYMS, Shared, TimeState, bind,
};
use tidegate::keys::SigningKey;
use tidegate::spool::record::{ROW_LIMIT, Row, UsageRecord};
use tidegate::telemetry::Heartbeats;
use tidegate::throttle::{self, Throttle};

struct Log {
    file: File,
    row: [u8; ROW_LIMIT],
}

impl Intake for Log {
    fn append(&mut self, record: &UsageRecord<'_>) {
        let row = Row::Request(*record).encode(&mut self.row).expect("rows fit");
        self.file.write_all(row).expect("the log takes rows");
    }

    fn append_open(&mut self, record: &UsageRecord<'_>) {
        self.append(record);
    }

    fn append_unauthenticated(&mut self, record: &UsageRecord<'_>, _: Duration) {
        self.append(record);
    }

    fn flush(&mut self) {}
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("usage: gateway LISTEN UPSTREAM FOLDER");
    let listen: SocketAddr = next().parse().expect("LISTEN is ADDRESS:PORT");
    let upstream: SocketAddr = next().parse().expect("UPSTREAM is ADDRESS:PORT");
    let folder = PathBuf::from(next());

    let rig = rig::Rig::new();
    let mut script = String::from("local tokens = {\n");
    for number in 0..1_000 {
        writeln!(script, "  \"{}\",", rig.token(number)).expect("strings take text");
    }
    script.push_str(include_str!("tokens.lua"));
    std::fs::write(folder.join("tokens.lua"), script).expect("FOLDER takes a file");

    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let shared = Shared {
        policy: Arc::new(ArcSwap::from_pointee(rig.snapshot(&rig::Terms::to(upstream)))),
        throttle: Arc::new(Throttle::new(throttle::Config::default())),
        time: Arc::new(ArcSwap::from_pointee(TimeState::exact(i64::try_from(wall.as_millis()).expect("this era")))),
        counters: Arc::new(Counters::default()),
        origin: Instant::now(),
        pseudonyms: Arc::new(SigningKey::generate().expect("random bytes").mac_key(PSEUDONYMS)),
        hearts: Heartbeats::new(Instant::now(), Duration::from_secs(60)),
    };
    let socket = bind(listen).expect("the address is free");
    let listener = Listener::new(socket, &ListenerConfig::default(), None);
    let log = Log { file: File::create(folder.join("usage.log")).expect("FOLDER takes a file"), row: [0; ROW_LIMIT] };
    let _running = Gateway::start(&Config::default(), vec![listener], &shared, vec![Box::new(log)]).expect("it starts");
    while shared.hearts.all_fresh(Instant::now()).is_ok() {
        std::thread::sleep(Duration::from_secs(1));
    }
}
