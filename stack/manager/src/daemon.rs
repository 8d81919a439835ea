//! The daemon's sockets and processes: one loop around [`poll`].

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::DirBuilderExt,
            net::{UnixListener, UnixStream},
            process::ExitStatusExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::Instant,
};

use anyhow::{Context, bail};
use control::{
    Request, Response, RunDir, VmName, WorkerEvent, WorkerRequest,
    codec::{self, Decoder},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::registry::{ClientId, Host, Registry, WorkerId};

/// Commands served at a time; further ones wait, so that descriptors are left for workers.
const MAX_CLIENTS: usize = 64;

struct Client {
    stream: UnixStream,
    decoder: Decoder,
    /// The answer, as far as it is not sent.
    unsent: Vec<u8>,
    /// Nothing more will be said to it.
    answered: bool,
}

struct Process {
    child: Child,
    /// Readable when the process has ended.
    ended: OwnedFd,
    stream: UnixStream,
    decoder: Decoder,
    /// The console socket that it leaves behind if it is killed.
    console: Option<PathBuf>,
}

/// What the registry acts on.
struct Outside {
    run_dir: RunDir,
    program: PathBuf,
    clients: BTreeMap<ClientId, Client>,
    processes: BTreeMap<WorkerId, Process>,
    next_id: u64,
}

/// The daemon.
pub(crate) struct Daemon {
    listener: UnixListener,
    registry: Registry,
    outside: Outside,
}

/// What a descriptor of the poll set belongs to.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Client(ClientId),
    Link(WorkerId),
    End(WorkerId),
}

impl Daemon {
    /// Listens in `run_dir`, with `program` as the worker.
    pub(crate) fn new(run_dir: RunDir, program: PathBuf) -> anyhow::Result<Self> {
        let listener = listen(&run_dir)?;
        let socket = run_dir.control_socket();
        tracing::info!(socket = %socket.display(), worker = %program.display(), "listening");
        let outside = Outside {
            run_dir: run_dir.clone(),
            program,
            clients: BTreeMap::new(),
            processes: BTreeMap::new(),
            next_id: 0,
        };
        Ok(Self { listener, registry: Registry::new(run_dir), outside })
    }

    /// Serves for ever.
    pub(crate) fn run(mut self) -> anyhow::Result<Infallible> {
        loop {
            for source in self.wait()? {
                match source {
                    Source::Listener => self.outside.accept(&self.listener),
                    Source::Client(id) => self.client(id),
                    Source::Link(id) => self.listen_to(id),
                    Source::End(id) => self.reap(id),
                }
            }
            self.registry.expire(Instant::now(), &mut self.outside);
            self.hang_up();
        }
    }

    /// Waits for something to do.
    fn wait(&self) -> anyhow::Result<Vec<Source>> {
        let mut sources = vec![Source::Listener];
        let mut listener = PollFlags::empty();
        listener.set(PollFlags::IN, self.outside.clients.len() < MAX_CLIENTS);
        let mut fds = vec![PollFd::new(&self.listener, listener)];
        for (id, client) in &self.outside.clients {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, !client.unsent.is_empty());
            sources.push(Source::Client(*id));
            fds.push(PollFd::new(&client.stream, flags));
        }
        for (id, process) in &self.outside.processes {
            sources.extend([Source::Link(*id), Source::End(*id)]);
            fds.push(PollFd::new(&process.stream, PollFlags::IN));
            fds.push(PollFd::new(&process.ended, PollFlags::IN));
        }
        let timeout = self.registry.deadline().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            // One nanosecond more, so that the deadline has passed when the wait is over.
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos().saturating_add(1).min(999_999_999)),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for commands"),
        }
        let ready = sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, _)| source).collect())
    }

    fn client(&mut self, id: ClientId) {
        let Some(client) = self.outside.clients.get_mut(&id) else { return };
        client.flush();
        match client.request() {
            Ok(Some(request)) => self.registry.request(Instant::now(), id, request, &mut self.outside),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(?id, %error, "command hangs up");
                self.registry.client_gone(id);
                self.outside.clients.remove(&id);
            }
        }
    }

    /// Takes what a worker has reported. A link that fails or ends is closed by the death of the worker, not
    /// before.
    fn listen_to(&mut self, id: WorkerId) {
        let Some(process) = self.outside.processes.get_mut(&id) else { return };
        let events = process.events();
        for event in events {
            self.registry.event(Instant::now(), id, event, &mut self.outside);
        }
    }

    /// A worker has ended: hears its last words, then tells the registry.
    fn reap(&mut self, id: WorkerId) {
        self.listen_to(id);
        let Some(mut process) = self.outside.processes.remove(&id) else { return };
        let how = match process.child.wait() {
            Ok(status) => describe(status),
            Err(error) => format!("its worker is lost: {error}"),
        };
        if let Some(console) = &process.console {
            // Its own exit has usually done this.
            let _ = std::fs::remove_file(console);
        }
        self.registry.gone(Instant::now(), id, &how, &mut self.outside);
    }

    /// Closes the connections that have their answer.
    fn hang_up(&mut self) {
        self.outside.clients.retain(|_, client| !client.answered || !client.unsent.is_empty());
    }
}

/// Makes the run directory, for nobody but the owner, and the socket in it.
fn listen(run_dir: &RunDir) -> anyhow::Result<UnixListener> {
    let directory = run_dir.path();
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("cannot make the run directory {}", directory.display()))?;
    let path = run_dir.control_socket();
    if UnixStream::connect(&path).is_ok() {
        bail!(
            "another bulkheadd serves {}: stop it, or choose another directory with --run-dir",
            path.display()
        );
    }
    remove_stale(&path)?;
    let listener =
        UnixListener::bind(&path).with_context(|| format!("cannot listen at {}", path.display()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the old socket {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("its worker was killed by signal {signal}"),
        (None, Some(code)) => {
            format!("its worker ended with code {code} and without a word; see the daemon's log")
        }
        (None, None) => "its worker ended".to_owned(),
    }
}

impl Client {
    /// The request, once it has arrived whole.
    ///
    /// # Errors
    ///
    /// When the client has hung up or sends junk.
    fn request(&mut self) -> io::Result<Option<Request>> {
        read_available(&mut self.stream, &mut self.decoder)?;
        self.decoder.message()
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The next read finds out that it is gone.
                Err(_) => self.unsent.clear(),
            }
        }
    }
}

impl Process {
    fn events(&mut self) -> Vec<WorkerEvent> {
        if read_available(&mut self.stream, &mut self.decoder).is_err() {
            // A worker closes its link by ending; one that is not on its way has lost its mind.
            let _ = self.child.kill();
        }
        let mut events = Vec::new();
        loop {
            match self.decoder.message() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => return events,
                Err(error) => {
                    tracing::error!(%error, "worker sends junk");
                    let _ = self.child.kill();
                    return events;
                }
            }
        }
    }
}

/// Reads until there is nothing more for now.
///
/// # Errors
///
/// `UnexpectedEof` at the end of the stream, or what the stream says.
fn read_available(stream: &mut UnixStream, decoder: &mut Decoder) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => decoder.push(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Outside {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn accept(&mut self, listener: &UnixListener) {
        while self.clients.len() < MAX_CLIENTS
            && let Ok((stream, _)) = listener.accept()
        {
            if stream.set_nonblocking(true).is_ok() {
                let id = ClientId(self.id());
                let client =
                    Client { stream, decoder: Decoder::default(), unsent: Vec::new(), answered: false };
                self.clients.insert(id, client);
            }
        }
    }

    fn start(&self, order: &WorkerRequest) -> io::Result<Process> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut child = Command::new(&self.program).stdin(OwnedFd::from(theirs)).spawn()?;
        // From here on a failure must not leave a process that nobody knows.
        let link = || -> io::Result<OwnedFd> {
            match codec::send(&ours, order) {
                // It has ended already; how it did will be said by its end.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                sent => sent?,
            }
            ours.set_nonblocking(true)?;
            Ok(pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?)
        };
        let ended = match link() {
            Ok(ended) => ended,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        let console = match order {
            WorkerRequest::Start { console, .. } => Some(console.clone()),
            _ => None,
        };
        Ok(Process { child, ended, stream: ours, decoder: Decoder::default(), console })
    }
}

impl Host for Outside {
    fn spawn(&mut self, order: &WorkerRequest) -> Result<(WorkerId, u32), String> {
        let process =
            self.start(order).map_err(|error| format!("cannot start {}: {error}", self.program.display()))?;
        let (id, pid) = (WorkerId(self.id()), process.child.id());
        self.processes.insert(id, process);
        Ok((id, pid))
    }

    fn send(&mut self, worker: WorkerId, order: &WorkerRequest) {
        let Some(process) = self.processes.get(&worker) else { return };
        if let Err(error) = codec::send(&process.stream, order) {
            tracing::warn!(?order, %error, "worker does not listen");
        }
    }

    fn kill(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if let Err(error) = process.child.kill() {
            tracing::debug!(%error, "worker has ended already");
        }
    }

    fn forget(&mut self, name: &VmName) {
        // Only a machine that has ended by itself leaves one.
        let _ = std::fs::remove_file(self.run_dir.console_log(name));
    }

    fn reply(&mut self, client: ClientId, response: &Response) {
        let Some(client) = self.clients.get_mut(&client) else { return };
        match codec::encode(response) {
            Ok(bytes) => client.unsent.extend(bytes),
            Err(error) => tracing::error!(%error, "answer does not fit a message"),
        }
        client.answered = true;
        client.flush();
    }
}
