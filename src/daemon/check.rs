//! What is wrong with the settings, beyond what reading them shows; all of it at once, and nothing is changed.
//!
//! [`check`] finds what only a person can put right; with such a problem the daemon does not start, and systemd is not
//! to try again. [`probe`] looks at the machine's folders, which may yet come (a disk that is mounted late): the daemon
//! tells of them and tries. Called by `tidegated`, for `check` and before `run`.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{chain, credentials, sockets};
use crate::bundle;
use crate::config::{Config, Problem};
use crate::gateway::{self, ListenerConfig};
use crate::store::device_key::{self, DeviceKeyError};

/// Descriptors of all but the connections: logs of the spool, sockets, folders, the child; and the runtime, open logs and
/// some idle connections to upstreams of each worker.
const DESCRIPTORS: u64 = 64;
const DESCRIPTORS_OF_A_WORKER: u64 = 16;

/// Adds what is wrong with the settings themselves and with the files that they name.
pub fn check(config: &Config, problems: &mut Vec<Problem>) {
    add(problems, config.check());
    let mut found = Vec::new();
    let listeners = &config.gateway.listeners;
    if listeners.is_empty() {
        found.push(problem("gateway.listeners", "names no address, so nothing could be served"));
    }
    for listener in listeners {
        if let Err(error) = sockets::tls(listener) {
            found.push(problem("gateway.listeners", format!("{}: {}", listener.address, chain(&error))));
        }
    }
    found.extend(overlaps(listeners, config.admin.listen.map(|listen| listen.address())));
    if config.admin.socket.symlink_metadata().is_ok_and(|at| !at.file_type().is_socket()) {
        found.push(problem("admin.socket", format!("{} is there, and is not a socket", config.admin.socket.display())));
    }
    found.extend(descriptors(&config.gateway, getrlimit(Resource::Nofile).maximum));
    if let Err(error) = bundle::importer::pinned_root(&config.trust.root) {
        found.push(problem("trust.root", chain(&error)));
    }
    add(problems, found);
}

/// Addresses of which only one can be bound. `[::]` beside an IPv4 address is not judged: where systemd passes the sockets
/// it may have IPv6 to itself.
fn overlaps(listeners: &[ListenerConfig], admin: Option<SocketAddr>) -> Vec<Problem> {
    let listeners = listeners.iter().map(|listener| ("gateway.listeners", listener.address));
    let all: Vec<_> = listeners.chain(admin.map(|listen| ("admin.listen", listen))).collect();
    let is_same = |a: SocketAddr, b: SocketAddr| {
        let is_wide = a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
        a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || is_wide)
    };
    let of = |(at, &(key, address)): (usize, &(&str, SocketAddr))| {
        let (_, other) = all.iter().take(at).find(|(_, before)| is_same(*before, address))?;
        Some(problem(key, format!("{address} is taken by {other} of gateway.listeners")))
    };
    all.iter().enumerate().filter_map(of).collect()
}

/// More connections than there are descriptors for: a request that is forwarded takes two, and the rest of the daemon a
/// few. Beyond them nothing is accepted, no upstream is reached and no usage file is written. `limit` is what the system
/// gives at most, for [`raise_descriptors`] takes it.
fn descriptors(gateway: &gateway::Config, limit: Option<u64>) -> Option<Problem> {
    let connections = u64::from(gateway.limits.connections);
    let workers = u64::from(gateway.worker_count().min(gateway::WORKERS_LIMIT));
    let needed = 2 * connections + DESCRIPTORS + DESCRIPTORS_OF_A_WORKER * workers;
    let limit = limit.filter(|limit| *limit < needed)?;
    let message = format!(
        "{connections} take up to {needed} descriptors, and the system gives {limit}: ask for less, or raise the limit \
         (LimitNOFILE= of the unit)"
    );
    Some(problem("gateway.limits.connections", message))
}

/// Takes all the descriptors that the system gives: most supervisors set far less for those who do not ask.
pub(super) fn raise_descriptors() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        Ok(())
    } else {
        Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
    }
}

/// Adds what keeps this user from using the folders that the settings name, and what is in them.
pub fn probe(config: &Config, problems: &mut Vec<Problem>) {
    let door = config.admin.socket.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folders = [
        ("state", writable(&config.state, Missing::IsMade)),
        ("inbox", writable(&config.inbox, Missing::IsMade)),
        ("admin.socket", writable(door, Missing::IsWrong)),
    ];
    let mut found: Vec<_> = folders.into_iter().filter_map(|(key, result)| Some(problem(key, result.err()?))).collect();
    // The daemon ends with a code of its own for each.
    let key = device_key::existing(&config.state, credentials().as_deref());
    if let Err(error @ (DeviceKeyError::Exposed { .. } | DeviceKeyError::Malformed { .. })) = key {
        found.push(problem("state", error.to_string()));
    }
    add(problems, found);
}

/// Adds what is not about a setting that has a problem already.
fn add(problems: &mut Vec<Problem>, found: Vec<Problem>) {
    let known = problems.len();
    let is_news = |one: &Problem| !problems.iter().take(known).any(|before| before.covers(one));
    let news: Vec<_> = found.into_iter().filter(is_news).collect();
    problems.extend(news);
}

fn problem(key: &str, message: impl Into<String>) -> Problem {
    Problem { source: "settings".into(), key: key.into(), message: message.into() }
}

/// What a folder's absence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// The daemon makes it, and those above it.
    IsMade,
    IsWrong,
}

/// Whether files can be made in `folder`, or in the nearest one above it that is there. Only asks: root may do what the
/// daemon's user may not, so for root this says little.
fn writable(folder: &Path, missing: Missing) -> Result<(), String> {
    let at = |what: &str| format!("{}: {what}", folder.display());
    let there = match missing {
        Missing::IsMade => folder.ancestors().find(|above| above.symlink_metadata().is_ok()).unwrap_or(Path::new(".")),
        Missing::IsWrong => folder,
    };
    let subject = if there == folder { at("") } else { at(&format!("cannot be made: {}: ", there.display())) };
    let subject = subject.trim_end();
    match there.metadata() {
        Err(error) => return Err(format!("{subject} {error}")),
        Ok(found) if !found.is_dir() => return Err(format!("{subject} not a folder")),
        Ok(_) => {}
    }
    match access(there, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Err(Errno::ROFS) => return Err(format!("{subject} on a file system that is read-only")),
        Err(error) => return Err(format!("{subject} this user may not write there ({error})")),
        Ok(()) => {}
    }
    // What the kernel makes up (/proc, /sys) has no blocks, whatever its modes say.
    match statvfs(there) {
        Ok(system) if system.f_blocks == 0 => Err(format!("{subject} on a file system that keeps no files")),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_is_asked_for_without_being_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").expect("written");
        symlink(at("nowhere"), at("dangling")).expect("linked");
        for (name, missing, says) in [
            ("", Missing::IsWrong, ""),
            ("new", Missing::IsMade, ""),
            ("new/newer/newest", Missing::IsMade, ""),
            ("new", Missing::IsWrong, "No such file"),
            ("file", Missing::IsMade, "not a folder"),
            ("file/new", Missing::IsMade, "not a folder"),
            ("dangling", Missing::IsMade, "No such file"),
        ] {
            match writable(&at(name), missing) {
                Ok(()) => assert_eq!(says, "", "{name}"),
                Err(message) => assert!(!says.is_empty() && message.contains(says), "{name}: {message}"),
            }
        }
        assert!(writable(Path::new("/proc/nowhere"), Missing::IsMade).is_err());
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 2, "nothing was made");
    }

    #[test]
    fn addresses_that_cannot_all_be_bound_are_told_whatever_their_order() {
        let told = |listeners: &[&str], admin: Option<&str>| {
            let at = |text: &&str| text.parse::<SocketAddr>().expect("an address");
            let block = |address| ListenerConfig { address: at(address), ..ListenerConfig::default() };
            let listeners: Vec<_> = listeners.iter().map(block).collect();
            let found = overlaps(&listeners, admin.as_ref().map(at));
            found.into_iter().map(|problem| problem.key).collect::<Vec<_>>()
        };
        for pair in [
            ["127.0.0.1:80", "127.0.0.1:80"],
            ["0.0.0.0:80", "127.0.0.1:80"],
            ["127.0.0.1:80", "0.0.0.0:80"],
            ["[::1]:80", "[::]:80"],
        ] {
            assert_eq!(told(&pair, None), ["gateway.listeners"], "{pair:?}");
            assert_eq!(told(&pair[..1], Some(pair[1])), ["admin.listen"], "{pair:?}");
        }
        assert_eq!(told(&["0.0.0.0:80", "127.0.0.1:80", "127.0.0.2:80"], Some("127.0.0.1:80")).len(), 3);
        let good = ["127.0.0.1:80", "127.0.0.2:80", "127.0.0.1:81", "[::]:80", "127.0.0.1:0", "127.0.0.1:0"];
        assert!(told(&good, Some("[::1]:81")).is_empty());
    }

    #[test]
    fn connections_that_there_are_no_descriptors_for_are_told() {
        let with = |connections, limit| {
            let limits = gateway::Limits { connections, ..gateway::Limits::default() };
            descriptors(&gateway::Config { workers: 4, limits, ..gateway::Config::default() }, limit)
        };
        assert_eq!(with(1_024, Some(8_192)), None, "as it ships");
        assert_eq!((with(4_032, Some(8_192)), with(65_536, None)), (None, None));
        let told = with(4_033, Some(8_192)).expect("too many").message;
        assert!(told.contains("8194 descriptors") && told.contains("gives 8192"), "{told}");
    }

    #[test]
    fn what_stands_in_for_a_setting_that_could_not_be_read_is_not_judged() {
        let mut problems = vec![problem("state", "not a path")];
        add(&mut problems, vec![problem("state", "not a folder"), problem("inbox", "not a folder")]);
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["state", "inbox"]);
    }
}
