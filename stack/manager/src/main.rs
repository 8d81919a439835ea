//! `bulkheadd`: owns the names of virtual machines and the workers that run them.
//!
//! [`registry`] decides, [`daemon`] waits and carries out. The daemon has one thread and no state on disk:
//! when it ends, its workers end, and what they ran is gone.

mod daemon;
mod registry;

use std::{io, path::PathBuf, process::ExitCode};

use clap::Parser;
use control::RunDir;
use tracing_subscriber::EnvFilter;

use crate::daemon::Daemon;

/// The daemon that owns the virtual machines of this root partition.
#[derive(Parser)]
#[command(name = "bulkheadd", version)]
struct Options {
    /// Directory of the daemon's socket and of the consoles
    #[arg(long, env = "BULKHEAD_RUN_DIR", default_value = RunDir::DEFAULT)]
    run_dir: PathBuf,
    /// The worker program [default: bulkhead-worker beside this program]
    #[arg(long)]
    worker: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_env("BULKHEAD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter).init();
    let daemon =
        worker_program(options.worker).and_then(|worker| Daemon::new(RunDir::new(options.run_dir), worker));
    match daemon.and_then(Daemon::run) {
        Ok(never) => match never {},
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn worker_program(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let program = match given {
        Some(program) => program,
        None => std::env::current_exe()?.with_file_name("bulkhead-worker"),
    };
    anyhow::ensure!(program.is_file(), "no worker at {}: name it with --worker", program.display());
    Ok(program)
}
