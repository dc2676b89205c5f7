//! Writes the man pages of `tidegate` and the shells' completions of both programs into a folder, for cross/package.sh:
//! `cargo run --example pages -- DIR`. The programs themselves carry nothing of it.
//!
//! ```text
//! DIR/man/tidegate*.1    from the definition of the command line
//! DIR/bash, zsh, fish    each by the name that its shell looks for
//! ```
//!
//! The daemon's page is written by hand (cross/tidegated.8), and its few words are told here once more: tests/package/run
//! holds both to what `tidegated --help` says.

use std::error::Error;
use std::path::Path;

use clap::{Arg, Command, CommandFactory as _, ValueHint};
use clap_complete::Shell;
use tidegate::cli::Arguments;

/// What comes with features that devices' builds have not.
const NOT_ON_DEVICES: [&str; 2] = ["demo", "demo-role"];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: pages DIR")?;
    let folder = Path::new(&folder);
    let man = folder.join("man");
    std::fs::create_dir_all(&man)?;
    clap_mangen::generate_to(operator(), &man)?;
    for (name, shell) in [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)] {
        let beside = folder.join(name);
        std::fs::create_dir_all(&beside)?;
        for (program, mut command) in [("tidegate", operator()), ("tidegated", daemon())] {
            let written = clap_complete::generate_to(shell, &mut command, program, &beside)?;
            // bash looks for a file of the program's name.
            if shell == Shell::Bash {
                std::fs::rename(written, beside.join(program))?;
            }
        }
    }
    Ok(())
}

/// The operator's command line as devices have it, whatever features this program was built with.
fn operator() -> Command {
    let whole = Arguments::command();
    let on_devices = whole.get_subcommands().filter(|command| !NOT_ON_DEVICES.contains(&command.get_name())).cloned();
    let about = whole.get_about().cloned().unwrap_or_default();
    Command::new("tidegate").version(env!("CARGO_PKG_VERSION")).about(about).subcommands(on_devices)
}

/// The daemon's command line, which its own program reads without clap.
fn daemon() -> Command {
    let config = Arg::new("config").short('c').long("config").value_name("FILE").value_hint(ValueHint::FilePath);
    let config = config.help("The settings (default /etc/tidegate/tidegated.toml)");
    Command::new("tidegated")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The gateway's daemon")
        .disable_help_subcommand(true)
        .subcommand(Command::new("run").about("Serve until SIGTERM").arg(config.clone()))
        .subcommand(Command::new("check").about("Report every problem of the settings at once").arg(config))
}
