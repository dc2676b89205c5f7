//! The operator's command.

fn main() -> std::process::ExitCode {
    tidegate::cli::run()
}
