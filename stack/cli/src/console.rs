//! The serial console of a machine on this terminal.

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
};

use anyhow::{Context, bail};
use control::{Request, Response, RunDir, VmName};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr},
};

use crate::{link::ask, options::Console};

/// Ctrl-], which detaches.
const ESCAPE: u8 = 0x1d;

/// Connects standard input and output to the console.
///
/// # Errors
///
/// When there is no such console, or it breaks off.
pub(crate) fn attach(run_dir: &RunDir, options: &Console) -> anyhow::Result<()> {
    let stream = match UnixStream::connect(run_dir.console(&options.name)) {
        Ok(stream) => stream,
        Err(_) => return without_worker(run_dir, options),
    };
    if options.dump {
        stream.shutdown(Shutdown::Write).context("the console hung up")?;
    }
    if options.dump || options.follow {
        return copy(&stream, false);
    }
    if !io::stdin().is_terminal() {
        return copy(&stream, true);
    }
    eprintln!("Connected to {}; Ctrl-] detaches.", options.name);
    let raw = RawMode::enter().context("cannot set up this terminal")?;
    let result = copy(&stream, true);
    drop(raw);
    eprintln!();
    result
}

/// Nobody listens: what a worker that has ended left behind, or why there is nothing.
fn without_worker(run_dir: &RunDir, options: &Console) -> anyhow::Result<()> {
    let name = &options.name;
    match ask(run_dir, &Request::Show { name: name.clone() })? {
        Response::Error(line) => bail!(line),
        Response::Status(status) if options.dump => print_log(run_dir, name, &status.state.to_string()),
        Response::Status(_) => {
            bail!(
                "'{name}' is not running: \
                 start it with 'bulkhead start {name}', or see its last words with --dump"
            )
        }
        other => bail!("the daemon answers with {other:?}: mixed versions?"),
    }
}

fn print_log(run_dir: &RunDir, name: &VmName, state: &str) -> anyhow::Result<()> {
    let log = fs::read(run_dir.console_log(name))
        .with_context(|| format!("'{name}' has left no console output (it is {state})"))?;
    print_bytes(&log);
    Ok(())
}

/// Prints bytes as they are. Whoever closed the output early has seen enough.
fn print_bytes(bytes: &[u8]) -> bool {
    let mut output = io::stdout().lock();
    output.write_all(bytes).and_then(|()| output.flush()).is_ok()
}

/// Copies until the console ends or, with `typing`, until the escape. The end of the input alone ends
/// nothing, so that commands can be piped in.
fn copy(stream: &UnixStream, mut typing: bool) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    let typed = io::stdin();
    loop {
        let mut fds = vec![PollFd::new(stream, PollFlags::IN)];
        if typing {
            fds.push(PollFd::new(&typed, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the console"),
        }
        let ready = |fd: usize| fds.get(fd).is_some_and(|fd| !fd.revents().is_empty());
        let (said, input) = (ready(0), ready(1));
        if said {
            let len = match (&*stream).read(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error).context("the console broke off"),
            };
            if len == 0 || !print_bytes(&buffer[..len]) {
                return Ok(());
            }
        }
        if input {
            let len = rustix::io::read(&typed, &mut buffer)?;
            typing = len > 0;
            let keys = &buffer[..len];
            let until = keys.iter().position(|key| *key == ESCAPE);
            (&*stream).write_all(&keys[..until.unwrap_or(len)]).context("the console broke off")?;
            if until.is_some() {
                return Ok(());
            }
        }
    }
}

/// The terminal without echo, lines and signals, until this is dropped.
struct RawMode(Termios);

impl RawMode {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
