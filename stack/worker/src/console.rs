//! The console: what COM1 has said lately, and the clients that read it and type.
//!
//! Processors write into the scroll-back and never wait for a client. Every client has a place of its own in
//! the stream of all bytes ever written, and one that falls behind by more than the scroll-back loses the
//! middle, not the end. Any number of clients may be connected; what they type is merged.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, PollFlags, eventfd};

use crate::{
    device::serial::Terminal,
    signal::{drain, notify},
};

/// Bytes that a new client gets to see.
const SCROLL_BACK: usize = 64 << 10;
/// Typed bytes that wait for the guest; beyond them, clients wait.
const TYPED_AHEAD: usize = 4 << 10;
/// More clients than a person has terminals; further ones are turned away.
const MAX_CLIENTS: usize = 32;

/// The last bytes of a stream, addressed by their place in all of it.
#[derive(Default)]
struct ScrollBack {
    bytes: VecDeque<u8>,
    /// Bytes that were ever written.
    end: u64,
}

impl ScrollBack {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.end += bytes.len() as u64;
        let excess = self.bytes.len().saturating_sub(SCROLL_BACK);
        self.bytes.drain(..excess);
    }

    /// What is left from place `from` on, in one piece, and the place where it begins.
    fn since(&self, from: u64) -> (u64, &[u8]) {
        let start = self.end - self.bytes.len() as u64;
        let from = from.clamp(start, self.end);
        let skip = usize::try_from(from - start).unwrap_or(usize::MAX);
        let (first, second) = self.bytes.as_slices();
        match skip.checked_sub(first.len()) {
            None => (from, &first[skip..]),
            Some(rest) => (from, &second[rest.min(second.len())..]),
        }
    }
}

/// The processors' side of the console.
pub struct Console {
    scroll_back: Mutex<ScrollBack>,
    /// A notification is under way; saves a system call for each further byte.
    notified: AtomicBool,
    event: OwnedFd,
}

impl Console {
    /// A console that has said nothing.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Arc<Self>> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { scroll_back: Mutex::default(), notified: AtomicBool::new(false), event }))
    }

    fn wake(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            notify(&self.event);
        }
    }

    /// Takes the notification. What was written before this is seen by a look at the scroll-back after it,
    /// and what is written later notifies anew: the flag falls last, since an event that is taken while the
    /// flag stands would silence all later ones.
    fn woken(&self) {
        drain(&self.event);
        self.notified.swap(false, Ordering::AcqRel);
    }

    fn end(&self) -> u64 {
        self.scroll_back.lock().expect("no holder of this lock panics").end
    }
}

impl Terminal for Console {
    fn output(&self, bytes: &[u8]) {
        self.scroll_back.lock().expect("no holder of this lock panics").push(bytes);
        self.wake();
    }

    fn input_wanted(&self) {
        self.wake();
    }
}

struct Client {
    stream: UnixStream,
    /// Place of the next byte to send.
    next: u64,
    /// It types no more, and leaves when it has seen all.
    done: bool,
}

/// The clients' side of the console.
pub struct ConsoleServer {
    console: Arc<Console>,
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
    typed: VecDeque<u8>,
}

impl ConsoleServer {
    /// Listens at `path`, where an earlier worker of the same name may have left a socket.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made.
    pub fn new(console: Arc<Console>, path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let (clients, typed) = (Vec::new(), VecDeque::new());
        Ok(Self { console, listener, path: path.to_owned(), clients, typed })
    }

    /// What to wait for, and which events. The order is that of [`ConsoleServer::serve`].
    pub fn interests(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let end = self.console.end();
        let mut interests =
            vec![(self.console.event.as_fd(), PollFlags::IN), (self.listener.as_fd(), PollFlags::IN)];
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !client.done && self.typed.len() < TYPED_AHEAD);
            flags.set(PollFlags::OUT, client.next < end);
            interests.push((client.stream.as_fd(), flags));
        }
        interests
    }

    /// Does what can be done without waiting: new clients, output, input. `type_in` takes bytes for the guest
    /// and says how many it took.
    pub fn serve(&mut self, type_in: impl FnOnce(&[u8]) -> usize) {
        self.console.woken();
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, next: 0, done: false });
            }
        }
        self.read();
        self.write();
        if !self.typed.is_empty() {
            let taken = type_in(self.typed.make_contiguous());
            self.typed.drain(..taken);
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 512];
        for client in &mut self.clients {
            while !client.done && self.typed.len() < TYPED_AHEAD {
                match client.stream.read(&mut buffer) {
                    Ok(0) => client.done = true,
                    Ok(len) => self.typed.extend(&buffer[..len]),
                    Err(error) if would_wait(&error) => break,
                    Err(_) => client.done = true,
                }
            }
        }
    }

    /// Sends every client what it has not seen, as far as it takes it.
    fn write(&mut self) {
        let scroll_back = self.console.scroll_back.lock().expect("no holder of this lock panics");
        self.clients.retain_mut(|client| {
            loop {
                let (at, bytes) = scroll_back.since(client.next);
                client.next = at;
                if bytes.is_empty() {
                    return !client.done;
                }
                match client.stream.write(bytes) {
                    Ok(len) => client.next += len as u64,
                    Err(error) if would_wait(&error) => return true,
                    Err(_) => return false,
                }
            }
        });
    }

    /// The end: leaves the scroll-back in `log` and lets the clients see the rest, as long as they take it.
    pub fn finish(mut self, log: &Path) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let deadline = Instant::now() + PATIENCE;
        self.serve(|_| 0);
        while self.clients.iter().any(|client| client.next < self.console.end()) && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
            self.write();
        }
        for client in &self.clients {
            let _ = client.stream.shutdown(Shutdown::Both);
        }
        let mut scroll_back = self.console.scroll_back.lock().expect("no holder of this lock panics");
        if let Err(error) = std::fs::write(log, scroll_back.bytes.make_contiguous()) {
            tracing::warn!(%error, log = %log.display(), "the console's scroll-back is lost");
        }
    }
}

impl Drop for ConsoleServer {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "console socket is gone");
        }
    }
}

fn would_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> (Arc<Console>, ConsoleServer) {
        let path = std::env::temp_dir().join(format!("bulkhead-console-{}-{name}", std::process::id()));
        let console = Console::new().unwrap();
        (console.clone(), ConsoleServer::new(console, &path).unwrap())
    }

    fn connect(server: &mut ConsoleServer) -> UnixStream {
        let stream = UnixStream::connect(&server.path).unwrap();
        server.serve(|_| 0);
        stream
    }

    fn seen(stream: &mut UnixStream) -> Vec<u8> {
        stream.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    }

    #[test]
    fn client_sees_what_was_said_before_it_came_and_after() {
        let (console, mut server) = server("late");
        console.output(b"before ");
        let mut client = connect(&mut server);
        console.output(b"after");
        server.serve(|_| 0);
        assert_eq!(seen(&mut client), b"before after");
    }

    #[test]
    fn slow_client_loses_the_middle_and_keeps_the_end() {
        let mut scroll_back = ScrollBack::default();
        scroll_back.push(b"old");
        scroll_back.push(&[b'x'; SCROLL_BACK]);
        scroll_back.push(b"new");
        let (mut at, mut got) = (0, Vec::new());
        loop {
            let (from, bytes) = scroll_back.since(at);
            if bytes.is_empty() {
                break;
            }
            got.extend(bytes);
            at = from + bytes.len() as u64;
        }
        assert_eq!((got.len(), at), (SCROLL_BACK, SCROLL_BACK as u64 + 6));
        assert!(got.ends_with(b"new"));
    }

    #[test]
    fn typed_bytes_wait_until_the_guest_takes_them() {
        let (_, mut server) = server("typed");
        let mut client = connect(&mut server);
        client.write_all(b"abc").unwrap();
        server.serve(|_| 1);
        let mut rest: Vec<u8> = Vec::new();
        server.serve(|bytes| {
            rest.extend(bytes);
            bytes.len()
        });
        assert_eq!(rest, b"bc");
        server.serve(|_| panic!("nothing is left"));
    }

    #[test]
    fn client_that_stops_typing_gets_the_scroll_back_and_the_end() {
        let (console, mut server) = server("dump");
        console.output(b"all");
        let mut client = UnixStream::connect(&server.path).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        server.serve(|_| 0);
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.as_slice(), server.clients.len()), (&b"all"[..], 0));
    }

    #[test]
    fn output_wakes_once_until_it_is_served() {
        let (console, mut server) = server("wake");
        console.output(b"a");
        console.output(b"b");
        assert_eq!(drain(&console.event), 1);
        server.serve(|_| 0);
        console.output(b"c");
        assert_eq!(drain(&console.event), 1);
    }

    #[test]
    fn no_byte_of_a_busy_guest_goes_without_a_notification() {
        const BYTES: u64 = 20_000;
        let (console, mut server) = server("busy");
        let writer = std::thread::spawn(move || (0..BYTES).for_each(|_| console.output(b"x")));
        let _client = connect(&mut server);
        let patience = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        while server.console.end() < BYTES || server.clients[0].next < BYTES {
            let event = server.console.clone();
            let mut fds = [rustix::event::PollFd::new(&event.event, PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut fds, Some(&patience)), Ok(1), "no notification");
            server.serve(|_| 0);
        }
        writer.join().unwrap();
    }

    #[test]
    fn end_leaves_the_scroll_back_and_no_socket() {
        let (console, mut server) = server("end");
        let path = server.path.clone();
        let log = path.with_extension("log");
        let mut client = connect(&mut server);
        console.output(b"bye");
        server.finish(&log);
        assert_eq!((seen(&mut client), std::fs::read(&log).unwrap()), (b"bye".to_vec(), b"bye".to_vec()));
        assert!(!path.exists());
        std::fs::remove_file(log).unwrap();
    }
}
