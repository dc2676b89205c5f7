//! `tidegate demo`: a whole site on this machine, broken on purpose, and its books.
//!
//! In a throw-away folder: a sample upstream, the hub and the gateway, each a process of its own started
//! from this very binary, a bundle made by the operator's own commands, ports of its own. Then traffic
//! good and bad, while the link to the hub is cut, the gateway is killed, and both come back. At the end
//! every request that got a whole answer must be one record at the hub.

mod books;
mod link;
mod process;
mod site;
mod traffic;
mod upstream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};

use self::books::{Books, HubSide, compare};
use self::link::Link;
use self::process::{Process, free_address};
use self::site::Site;
use self::traffic::{State, Traffic};
use super::print;
use crate::config::Config;
use crate::{daemon, exit, hub};

/// A gateway, its upstream and a hub on this machine; cuts the link, kills the gateway, does the books.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate demo --exit --dir books")]
pub(super) struct Demo {
    /// End after the books: 0 if they balance by request id.
    #[arg(long)]
    exit: bool,
    /// Keep everything in this folder, which must be empty or absent: client.jsonl, hub.sqlite, policy, logs.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Requests in each of the four phases.
    #[arg(long, default_value_t = 1500, value_name = "N", value_parser = clap::value_parser!(u64).range(50..=1_000_000))]
    requests: u64,
}

/// What a child of the demo is.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Role {
    /// The gateway.
    Gateway { config: PathBuf },
    /// The hub.
    Hub { config: PathBuf },
    /// The sample service.
    Upstream { listen: SocketAddr },
}

/// How long the hub may take to have everything once the link is back.
const SETTLE: Duration = Duration::from_secs(60);
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(20);

/// The spool's child of the demo's gateway.
pub(super) fn spool_child() -> ExitCode {
    match crate::spool::child::run() {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => {
            eprintln!("tidegate: the spool's child: {error}");
            ExitCode::from(exit::IO)
        }
    }
}

/// Runs a child's part.
pub(super) fn play(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Gateway { config } => {
            let config = Config::load(&config, std::iter::empty())?;
            Ok(daemon::run(config, super::SPOOL_CHILD)?)
        }
        Role::Hub { config } => Ok(hub::run(hub::Config::read(&config)?, |_| {})?),
        Role::Upstream { listen } => runtime()?.block_on(upstream::serve(listen)),
    }
}

/// Runs the demo.
pub(super) fn run(demo: &Demo) -> anyhow::Result<()> {
    let kept = demo.dir.as_deref().map(empty_folder).transpose()?;
    let thrown_away = kept.is_none().then(ThrowAway::new).transpose()?;
    let folder = kept.or_else(|| thrown_away.as_ref().map(|folder| folder.0.clone()));
    let folder = folder.context("there is no folder to work in")?;
    tokio::task::LocalSet::new().block_on(&runtime()?, show(demo, &folder))
}

async fn show(demo: &Demo, folder: &Path) -> anyhow::Result<()> {
    let count = usize::try_from(demo.requests)?;
    let (upstream_at, hub_at, gateway_at) = (free_address()?, free_address()?, free_address()?);

    println!("A site in {}", folder.display());
    let site = Site::make(folder, gateway_at, upstream_at)?;
    let link = Link::to(hub_at).await?;
    let hub_settings = site.write_hub_settings(hub_at)?;
    let gateway_settings = site.write_gateway_settings(link.address)?;
    let kinds = site.kinds()?;

    let listen = upstream_at.to_string();
    let mut upstream = Process::start("upstream", folder, ["demo-role", "upstream", &listen])?;
    upstream.wait_listening(upstream_at)?;
    let hub = ["demo-role".as_ref(), "hub".as_ref(), hub_settings.as_os_str()];
    let mut hub = Process::start("hub", folder, hub)?;
    hub.wait_listening(hub_at)?;
    let start_gateway = || {
        let gateway = ["demo-role".as_ref(), "gateway".as_ref(), gateway_settings.as_os_str()];
        let mut gateway = Process::start("gateway", folder, gateway)?;
        gateway.wait_listening(gateway_at)?;
        anyhow::Ok(gateway)
    };
    let gateway = start_gateway()?;
    println!(
        "  upstream {upstream_at}, hub {hub_at}, gateway {gateway_at}; the gateway has no policy yet and refuses all"
    );
    site.drop_bundle()?;
    await_until("the gateway judges the bundle", || Ok(site.bundle_result().is_some())).await?;
    match site.bundle_result().as_deref() {
        Some("Activated") => println!("  the signed bundle is in the inbox, verified, and in force\n"),
        other => bail!("the gateway answered to the bundle: {}", other.unwrap_or("nothing")),
    }

    let bar = progress(count * 4);
    let traffic = Traffic::new(gateway_at, kinds.clone());
    bar.set_message("the link stands");
    traffic.send(count, &bar).await;

    link.cut();
    bar.set_message("the link is cut");
    traffic.send(count, &bar).await;

    bar.set_message("the gateway is killed (SIGKILL) in mid-traffic");
    let callers = tokio::task::spawn_local({
        let (traffic, bar) = (Rc::clone(&traffic), bar.clone());
        async move { traffic.send(count, &bar).await }
    });
    let begun = bar.position();
    await_until("traffic flows", || Ok(bar.position() > begun + demo.requests / 3)).await?;
    gateway.kill()?;
    let gateway = start_gateway()?;
    callers.await.context("the callers broke off")?;

    bar.set_message("it is started again; the link is restored");
    link.restore();
    traffic.send(count, &bar).await;
    bar.finish_with_message("sent");

    let seen = traffic.seen();
    traffic.write_log(&site.path("client.jsonl"))?;
    let hub_side = settled(&site.path("hub.sqlite"), &seen).await?;
    let books = compare(&seen, &kinds, &hub_side);
    println!("{}", table(&seen, &books, &hub_side));
    let balanced = books.wrong.is_empty();
    if balanced {
        println!(
            "The books balance: every whole answer is one record at the hub, every other record is a request that the kill broke."
        );
    } else {
        println!("The books do NOT balance:");
        books.wrong.iter().take(20).for_each(|wrong| println!("  {wrong}"));
    }
    if let Some(folder) = &demo.dir {
        println!(
            "Do them again: {0}/client.jsonl, {0}/hub.sqlite (select request_id, status, outcome from records)",
            folder.display()
        );
    }

    if !demo.exit {
        println!("\nThe site keeps serving until Ctrl-C. Try:\n\n{}\n", site.curl()?);
        tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
    }
    let ended = gateway.stop()?;
    hub.stop()?;
    upstream.stop()?;
    if !ended.success() {
        bail!("the gateway ended with {ended}");
    }
    if balanced { Ok(()) } else { bail!("{} things do not balance", books.wrong.len()) }
}

/// The hub's side, once it has all that callers saw answered; what is missing at the deadline is the books' to tell.
async fn settled(database: &Path, seen: &[traffic::Seen]) -> anyhow::Result<HubSide> {
    let deadline = Instant::now() + SETTLE;
    let mut before = usize::MAX;
    loop {
        let hub = HubSide::read(database)?;
        // All of it, and for one look nothing more came: a broken request's record may come last.
        if (hub.has_all_of(seen) && hub.len() == before) || Instant::now() > deadline {
            return Ok(hub);
        }
        before = hub.len();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn table(seen: &[traffic::Seen], books: &Books, hub: &HubSide) -> String {
    let mut rows = vec![["outcome", "answered", "broken", "at the hub"].map(str::to_owned).to_vec()];
    let mut sum = books::Line::default();
    for (outcome, line) in &books.by_outcome {
        rows.push(vec![outcome.clone(), line.answered.to_string(), line.broken.to_string(), line.recorded.to_string()]);
        sum.answered += line.answered;
        sum.broken += line.broken;
        sum.recorded += line.recorded;
    }
    rows.push(vec!["all".into(), sum.answered.to_string(), sum.broken.to_string(), sum.recorded.to_string()]);
    let broken = seen.iter().filter(|seen| seen.state == State::Broken).count();
    format!(
        "\n{}\nsent {}: {} got a whole answer, {broken} broke with the gateway; {} gaps at the hub",
        print::columns(&rows),
        seen.len(),
        seen.len() - broken,
        hub.gaps
    )
}

fn progress(requests: usize) -> ProgressBar {
    let bar = ProgressBar::new(requests as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos:>6}/{len} requests  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

async fn await_until(what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE;
    while !done()? {
        if Instant::now() > deadline {
            bail!("waited {SETTLE:?} in vain until {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot make a runtime")
}

fn empty_folder(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    if std::fs::read_dir(path)?.next().is_some() {
        bail!("{} is not empty", path.display());
    }
    path.canonicalize().with_context(|| path.display().to_string())
}

/// A folder that goes with the demo.
#[derive(Debug)]
struct ThrowAway(PathBuf);

impl ThrowAway {
    fn new() -> anyhow::Result<Self> {
        let name = crate::ids::hex(&crate::keys::random::<8>().context("the system gives no random numbers")?);
        let path = std::env::temp_dir().join(format!("tidegate-demo-{name}"));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for ThrowAway {
    fn drop(&mut self) {
        // What cannot be removed lies in the system's own folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
