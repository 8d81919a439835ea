//! One question to the daemon.

use std::{io, os::unix::net::UnixStream};

use anyhow::{Context, anyhow};
use control::{Request, Response, RunDir, codec};

/// Asks and waits for the answer.
///
/// # Errors
///
/// When there is no daemon, or it hangs up.
pub(crate) fn ask(run_dir: &RunDir, request: &Request) -> anyhow::Result<Response> {
    let path = run_dir.control_socket();
    let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            anyhow!("no daemon listens at {}: start bulkheadd", path.display())
        }
        _ => anyhow!("cannot reach the daemon at {}: {error}", path.display()),
    })?;
    codec::send(&stream, request).context("the daemon does not listen")?;
    codec::receive(&stream).context("the daemon hung up; its log may tell why")
}
