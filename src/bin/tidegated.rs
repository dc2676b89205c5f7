//! The daemon's program: flags, configuration, run, exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use tidegate::config::{Config, Problem, Problems};
use tidegate::spool::child;
use tidegate::{daemon, exit};

const USAGE: &str = "\
tidegated: the gateway's daemon

  tidegated run   [--config FILE]   serve until SIGTERM; settings from FILE, FILE's .d folder and TIDEGATE_*
  tidegated check [--config FILE]   report every problem of the settings at once; exit 78 if there is one. Changes
                                    nothing. Run it as the daemon's user: root may do more
  tidegated --version | --help

FILE is /etc/tidegate/tidegated.toml unless given.
";

/// Makes this binary the spool's child. Not for people.
const SPOOL_CHILD: &str = "spool-child";

fn spool_child() -> ExitCode {
    match child::run() {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => {
            eprintln!("tidegated: the spool's child: {error}");
            ExitCode::from(exit::IO)
        }
    }
}

enum Task {
    Run,
    Check,
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == SPOOL_CHILD) {
        return spool_child();
    }
    match flags() {
        Ok(Some((task, config))) => ExitCode::from(perform(&task, &config)),
        Ok(None) => ExitCode::from(exit::OK),
        Err(error) => {
            eprintln!("tidegated: {error}\n\n{USAGE}");
            ExitCode::from(exit::USAGE)
        }
    }
}

fn flags() -> Result<Option<(Task, PathBuf)>, lexopt::Error> {
    let mut task = None;
    let mut config = PathBuf::from("/etc/tidegate/tidegated.toml");
    let mut flags = lexopt::Parser::from_env();
    while let Some(flag) = flags.next()? {
        match flag {
            Value(word) if task.is_none() && word == "run" => task = Some(Task::Run),
            Value(word) if task.is_none() && word == "check" => task = Some(Task::Check),
            Long("config") | Short('c') => config = flags.value()?.into(),
            Long("version") | Short('V') => {
                println!("tidegated {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Long("help") | Short('h') => {
                print!("{USAGE}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    task.map(|task| Some((task, config))).ok_or_else(|| "say what to do: run or check".into())
}

fn perform(task: &Task, path: &std::path::Path) -> u8 {
    let (config, mut problems) = Config::read(path, std::env::vars_os());
    let Some(config) = config else { return complain(problems) };
    daemon::check(&config, &mut problems);
    let is_wrong = !problems.is_empty();
    daemon::probe(&config, &mut problems);
    match task {
        Task::Check if problems.is_empty() => {
            println!("{}: all settings are good", path.display());
            exit::OK
        }
        Task::Check => complain(problems),
        Task::Run if is_wrong => complain(problems),
        Task::Run => {
            if !problems.is_empty() {
                complain(problems); // and try: what a folder lacks may come yet
            }
            match daemon::run(config, SPOOL_CHILD) {
                Ok(()) => exit::OK,
                Err(error) => {
                    eprintln!("tidegated: {}", daemon::chain(&error));
                    error.exit_code()
                }
            }
        }
    }
}

fn complain(problems: Vec<Problem>) -> u8 {
    eprintln!("tidegated: {}", Problems(problems));
    exit::CONFIG
}
