//! The worker's life: one order from the daemon, then one machine after another until the guest or the daemon
//! has enough.
//!
//! One thread waits for everything but the processors: the daemon, the console's clients, the PIT's timer and
//! the end of the machine.

use std::{
    io::{self, Read},
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    sync::Arc,
};

use control::{
    Ending, VmConfig, WorkerEvent, WorkerRequest,
    codec::{self, Decoder},
};
use rustix::event::{PollFd, PollFlags, poll};
use storvsp::controller::Controller;

use crate::{
    boot,
    console::{Console, ConsoleServer},
    machine::{Machine, StartError},
    signal::Outcome,
    synthetic::disk::{self, DiskError},
    vp,
};

/// The link to the daemon.
struct Link {
    stream: UnixStream,
    decoder: Decoder,
}

impl Link {
    fn send(&mut self, event: &WorkerEvent) -> io::Result<()> {
        codec::send(&self.stream, event)
    }

    /// Requests that have arrived; `None` when the daemon is gone.
    fn requests(&mut self) -> io::Result<Option<Vec<WorkerRequest>>> {
        let mut buffer = [0; 4096];
        let len = self.stream.read(&mut buffer)?;
        self.decoder.push(&buffer[..len]);
        let mut requests = Vec::new();
        while let Some(request) = self.decoder.message()? {
            requests.push(request);
        }
        Ok((len > 0).then_some(requests))
    }
}

/// What ends a life of the machine.
enum End {
    /// The machine itself.
    Machine(Outcome),
    /// The daemon is gone, and nobody would know of this machine.
    Orphaned,
}

/// Takes one order from the daemon and carries it out.
///
/// # Errors
///
/// When the link to the daemon fails.
pub fn run(daemon: UnixStream) -> io::Result<()> {
    let order = codec::receive(&daemon)?;
    let mut link = Link { stream: daemon, decoder: Decoder::default() };
    match order {
        WorkerRequest::Check(config) => {
            link.send(&check(&config).map_or_else(WorkerEvent::Refused, |()| WorkerEvent::Checked))
        }
        WorkerRequest::Start { config, console, log } => {
            vp::prepare_interrupts()?;
            let controller = match disk::controller(&config) {
                Ok(controller) => controller,
                Err(error) => return link.send(&WorkerEvent::Refused(error.to_string())),
            };
            let lives = Lives { config, controller, terminal: Console::new()?, link, exits: 0, resets: 0 };
            lives.run(console, log)
        }
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other:?} is no first order"))),
    }
}

/// Looks at all files of a configuration; what is wrong is one line.
fn check(config: &VmConfig) -> Result<(), String> {
    boot::load(config).map_err(|error| error.to_string())?;
    match disk::controller(config) {
        // It is looked at again when the machine starts.
        Ok(_) | Err(DiskError::InUse(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The lives of a machine, with what outlasts each.
struct Lives {
    config: VmConfig,
    /// Its disks stay open, and locked, over resets.
    controller: Option<Arc<Controller>>,
    terminal: Arc<Console>,
    link: Link,
    /// Exits in earlier lives.
    exits: u64,
    resets: u64,
}

impl Lives {
    fn run(mut self, console: PathBuf, log: PathBuf) -> io::Result<()> {
        let mut server = match ConsoleServer::new(self.terminal.clone(), &console) {
            Ok(server) => server,
            Err(error) => {
                let reason = format!("cannot listen at {}: {error}", console.display());
                return self.link.send(&WorkerEvent::Refused(reason));
            }
        };
        let ending = self.live(&mut server)?;
        server.finish(&log);
        match ending {
            Some(Err(refused)) => self.link.send(&WorkerEvent::Refused(refused.to_string())),
            Some(Ok(ending)) => self.link.send(&WorkerEvent::Ended(ending)),
            None => Ok(()),
        }
    }

    /// Starts the machine again and again until it ends for good; `None` when the daemon is gone.
    fn live(&mut self, server: &mut ConsoleServer) -> io::Result<Option<Result<Ending, StartError>>> {
        loop {
            let machine = match Machine::start(&self.config, self.controller.clone(), self.terminal.clone()) {
                Ok(machine) => machine,
                Err(error) if self.resets == 0 => return Ok(Some(Err(error))),
                Err(error) => return Ok(Some(Ok(Ending::Failed(format!("cannot start again: {error}"))))),
            };
            if self.resets == 0 {
                self.link.send(&WorkerEvent::Running)?;
            }
            let end = self.watch(&machine, server);
            self.exits += machine.exits();
            machine.stop();
            tracing::debug!("partition and memory are gone");
            match end? {
                End::Orphaned => return Ok(None),
                End::Machine(Outcome::PowerOff) => return Ok(Some(Ok(Ending::PowerOff))),
                End::Machine(Outcome::Failed(reason)) => return Ok(Some(Ok(Ending::Failed(reason)))),
                End::Machine(Outcome::Reset) => self.resets += 1,
            }
        }
    }

    /// Waits until the machine ends.
    fn watch(&mut self, machine: &Machine, server: &mut ConsoleServer) -> io::Result<End> {
        let board = machine.board();
        loop {
            let (daemon, timer) = {
                let mut fds = vec![
                    PollFd::new(&self.link.stream, PollFlags::IN),
                    PollFd::from_borrowed_fd(board.timer(), PollFlags::IN),
                    PollFd::from_borrowed_fd(board.signal.as_fd(), PollFlags::IN),
                ];
                fds.extend(
                    server.interests().into_iter().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)),
                );
                match poll(&mut fds, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                (!fds[0].revents().is_empty(), !fds[1].revents().is_empty())
            };
            if timer {
                board.expire_timer();
            }
            server.serve(|bytes| board.type_in(bytes));
            if let Some(outcome) = board.signal.outcome() {
                return Ok(End::Machine(outcome));
            }
            if daemon && self.obey(machine)?.is_none() {
                return Ok(End::Orphaned);
            }
        }
    }

    /// Carries out what the daemon has sent; `None` when it is gone.
    fn obey(&mut self, machine: &Machine) -> io::Result<Option<()>> {
        let Some(requests) = self.link.requests()? else { return Ok(None) };
        for request in requests {
            match request {
                WorkerRequest::PowerButton => machine.board().press_power_button(),
                WorkerRequest::Stats { processors } => {
                    let processors = if processors { machine.processors() } else { Vec::new() };
                    let exits = self.exits + machine.exits();
                    self.link.send(&WorkerEvent::Stats { exits, resets: self.resets, processors })?;
                }
                other => tracing::warn!(?other, "order out of turn"),
            }
        }
        Ok(Some(()))
    }
}
