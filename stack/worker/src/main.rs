//! `bulkhead-worker`: started by `bulkheadd`, never by hand; its standard input is the link to the daemon.

use std::{io, os::fd::AsFd, os::unix::net::UnixStream, process::ExitCode};

use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("BULKHEAD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter).init();
    let link = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    match link.and_then(worker::supervisor::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "no order on standard input: this program is for bulkheadd to start");
            ExitCode::FAILURE
        }
    }
}
