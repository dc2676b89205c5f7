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
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::books::{Books, HubSide, compare};
use self::link::Link;
use self::process::{Process, free_address};
use self::site::Site;
use self::traffic::{Phase, State, Traffic};
use super::{print, runtime};
use crate::config::Config;
use crate::{daemon, hub};

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
/// The same where it passes soon.
const SHORT_LOOK: Duration = Duration::from_millis(1);

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
    let shown = tokio::task::LocalSet::new().block_on(&runtime()?, show(demo, &folder));
    if thrown_away.is_some() { shown.context("the logs are gone with the folder, --dir DIR keeps it") } else { shown }
}

/// The site after its last phase.
struct Played {
    site: Site,
    children: Children,
    wrong: usize,
}

struct Children {
    upstream: Process,
    hub: Process,
    /// Absent between its kill and its start.
    gateway: Option<Process>,
}

impl Children {
    /// Does `work` while every child lives; ends with an error as soon as one has ended.
    async fn during<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let watch = async {
            loop {
                self.upstream.lives()?;
                self.hub.lives()?;
                self.gateway.as_mut().map_or(Ok(()), Process::lives)?;
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            done = work => done,
            ended = watch => ended,
        }
    }
}

/// Whoever stops the demo: its children are to end with it.
struct Stop([Signal; 3]);

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let [int, term, hup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([int?, term?, hup?]))
    }

    async fn asked(&mut self) {
        let [int, term, hup] = &mut self.0;
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    }
}

async fn show(demo: &Demo, folder: &Path) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let played = tokio::select! {
        played = play_out(demo, folder) => played?,
        () = stop.asked() => bail!("broken off by a signal; all that it had started is ended"),
    };
    let Played { site, children, wrong } = played;
    if !demo.exit {
        println!("\nThe site keeps serving until Ctrl-C. Try:\n\n{}\n", site.curl()?);
        stop.asked().await;
    }
    let Children { upstream, hub, gateway } = children;
    let ended = gateway.context("the gateway runs")?.stop()?;
    hub.stop()?;
    upstream.stop()?;
    if !ended.success() {
        bail!("the gateway ended with {ended}");
    }
    if wrong == 0 { Ok(()) } else { bail!("{wrong} things do not balance") }
}

/// The four phases and the books. What it has started is killed where it ends early.
async fn play_out(demo: &Demo, folder: &Path) -> anyhow::Result<Played> {
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
    upstream.wait_listening(upstream_at).await?;
    let hub = ["demo-role".as_ref(), "hub".as_ref(), hub_settings.as_os_str()];
    let mut hub = Process::start("hub", folder, hub)?;
    hub.wait_listening(hub_at).await?;
    let start_gateway = async || {
        let gateway = ["demo-role".as_ref(), "gateway".as_ref(), gateway_settings.as_os_str()];
        let mut gateway = Process::start("gateway", folder, gateway)?;
        gateway.wait_listening(gateway_at).await?;
        anyhow::Ok(gateway)
    };
    let gateway = start_gateway().await?;
    let mut children = Children { upstream, hub, gateway: Some(gateway) };
    println!(
        "  upstream {upstream_at}, hub {hub_at}, gateway {gateway_at}; the gateway has no policy yet and refuses all"
    );
    site.drop_bundle()?;
    let judged = await_until("the gateway judges the bundle", LOOK, || site.bundle_result().is_some());
    children.during(judged).await?;
    match site.bundle_result().as_deref() {
        Some("Activated") => println!("  the signed bundle is in the inbox, verified, and in force\n"),
        other => bail!("the gateway answered to the bundle: {}", other.unwrap_or("nothing")),
    }

    let bar = progress(count * 4);
    let traffic = Traffic::new(gateway_at, kinds.clone());
    bar.set_message(Phase::LinkUp.told());
    children.during(traffic.send(Phase::LinkUp, count, &bar)).await?;

    link.cut();
    bar.set_message(Phase::LinkCut.told());
    children.during(traffic.send(Phase::LinkCut, count, &bar)).await?;

    bar.set_message(Phase::Kill.told());
    let callers = tokio::task::spawn_local({
        let (traffic, bar) = (Rc::clone(&traffic), bar.clone());
        async move { traffic.send(Phase::Kill, count, &bar).await }
    });
    let begun = bar.position();
    // In mid-request, unless there are so few that all of them are answered between two looks.
    let flows = || callers.is_finished() || (bar.position() > begun + demo.requests / 3 && traffic.in_flight() > 0);
    children.during(await_until("traffic flows", SHORT_LOOK, flows)).await?;
    let in_flight = traffic.in_flight();
    children.gateway.take().context("the gateway runs")?.kill()?;
    children.gateway = Some(children.during(start_gateway()).await?);
    children.during(async { callers.await.context("the callers broke off")? }).await?;

    bar.set_message(Phase::Restored.told());
    link.restore();
    children.during(traffic.send(Phase::Restored, count, &bar)).await?;
    bar.finish_with_message("sent");

    let seen = traffic.seen();
    traffic.write_log(&site.path("client.jsonl"))?;
    let hub_side = children.during(settled(&site.path("hub.sqlite"), &seen)).await?;
    let books = compare(&seen, &kinds, &hub_side, in_flight);
    println!("{}", table(&seen, &books, &hub_side));
    if books.wrong.is_empty() {
        println!(
            "The books balance: every whole answer is one record at the hub, every other record is a request that the kill broke."
        );
    } else {
        println!("The books do NOT balance:");
        books.wrong.iter().take(20).for_each(|wrong| println!("  {wrong}"));
    }
    if let Some(unshown) = books.unshown {
        println!("Not shown: {unshown}");
    }
    if let Some(folder) = &demo.dir {
        println!(
            "Do them again: {0}/client.jsonl, {0}/hub.sqlite (select request_id, status, outcome from records)",
            folder.display()
        );
    }
    Ok(Played { site, children, wrong: books.wrong.len() })
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

async fn await_until(what: &str, pause: Duration, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE;
    while !done() {
        if Instant::now() > deadline {
            bail!("waited {SETTLE:?} in vain until {what}");
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
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
