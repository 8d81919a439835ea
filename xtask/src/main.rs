//! `cargo xtask`: everything that is done with this repository, from set-up to tests.

mod apt;
mod bench;
mod bundle;
mod cache;
mod cargo;
mod check;
mod child;
mod console;
mod cpio;
mod headers;
mod initramfs;
mod iso;
mod kernel;
mod machine;
mod monitor;
mod options;
mod pattern;
mod progress;
mod ring;
mod run;
mod scenario;
mod setup;
mod suite;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use options::{Cli, Task};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error)
            if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            eprintln!("{}", options::one_line(&error));
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    let outcome = match cli.task {
        Task::Setup(options) => setup::command(&options),
        Task::Run(options) => run::command(&options),
        Task::Test(options) => test::command(&options),
        Task::Check => check::command(),
        Task::Bench(options) => bench::command(&options),
        Task::Iso(options) => iso::command(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
