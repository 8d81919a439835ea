//! An open channel: its thread, and its signals in both directions.

use std::{
    fmt, io,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::Sender,
    },
    thread::{self, JoinHandle},
};

use mshv_ioctls::MshvError;
use storvsp::queue::{Queue, Service};
use vmbus::{
    ring::Signal,
    server::{ChannelId, Open},
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use super::{Event, Link};

/// Packets that are taken before the guest hears of those that are done.
const BUDGET: usize = 64;

/// Why a channel cannot be served.
#[derive(Debug)]
pub(super) enum OpenError {
    Host(io::Error),
    Doorbell(MshvError),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => write!(f, "the host is out of threads or descriptors: {error}"),
            Self::Doorbell(error) => write!(f, "there is no doorbell for its signals: {error}"),
        }
    }
}

/// What a channel has cost.
pub(super) struct Closed {
    wakes: u64,
    signals: u64,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} wake-ups of its thread and {} signals to the guest", self.wakes, self.signals)
    }
}

/// What the bus's thread and the channel's share.
struct Shared {
    id: ChannelId,
    link: Arc<dyn Link>,
    /// The guest's signals, and whatever else the thread is to look at.
    bell: EventFd,
    stop: AtomicBool,
    /// The VP that is signalled; none if the guest looks by itself.
    target_vp: Mutex<Option<u32>>,
    sint: u8,
    flag: u16,
    events: Sender<Event>,
    wakes: AtomicU64,
    signals: AtomicU64,
}

/// An open channel.
pub(super) struct Channel {
    shared: Arc<Shared>,
    connection: u32,
    thread: Option<JoinHandle<()>>,
}

impl Channel {
    /// Serves `queue` in a thread of its own.
    pub(super) fn start(
        id: ChannelId,
        link: Arc<dyn Link>,
        open: &Open,
        queue: Queue,
        events: Sender<Event>,
    ) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared {
            id,
            link,
            bell: EventFd::new(EFD_CLOEXEC)?,
            stop: AtomicBool::new(false),
            target_vp: Mutex::new(open.target_vp),
            sint: open.sint,
            flag: open.event_flag,
            events,
            wakes: AtomicU64::new(0),
            signals: AtomicU64::new(0),
        });
        shared.link.ring(&shared.bell, open.connection).map_err(OpenError::Doorbell)?;
        let own = shared.clone();
        let thread = thread::Builder::new().name(format!("channel{}", id.0)).spawn(move || own.run(queue));
        match thread {
            Ok(thread) => Ok(Self { shared, connection: open.connection, thread: Some(thread) }),
            Err(error) => {
                shared.link.unring(&shared.bell, open.connection);
                Err(error.into())
            }
        }
    }

    /// Asks the thread to end; it says [`Event::Ended`] when it has.
    pub(super) fn ask_to_end(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.ring();
    }

    /// Waits for the thread, and takes the doorbell away.
    pub(super) fn end(self) -> Closed {
        let shared = self.shared.clone();
        drop(self);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Closed { wakes: count(&shared.wakes), signals: count(&shared.signals) }
    }

    /// Signals go to another VP from now on.
    pub(super) fn retarget(&self, target_vp: Option<u32>) {
        *self.shared.target_vp.lock().expect("no holder of this lock panics") = target_vp;
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.ask_to_end();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a channel's thread has panicked");
        }
        self.shared.link.unring(&self.shared.bell, self.connection);
    }
}

impl Shared {
    fn run(&self, mut queue: Queue) {
        // A thread that panicked would never answer the guest, nor say that it uses its memory no more.
        let served = panic::catch_unwind(AssertUnwindSafe(|| self.serve(&mut queue)));
        let defect = || Err("the worker has a defect; its log has the place".to_owned());
        if let Err(reason) = served.unwrap_or_else(|_| defect()) {
            self.tell(Event::Broken(self.id, reason));
            while !self.stop.load(Ordering::Acquire) {
                self.wait();
            }
        }
        drop(queue);
        self.tell(Event::Ended(self.id));
    }

    /// Serves the rings until it is asked to end.
    ///
    /// # Errors
    ///
    /// The channel has to be withdrawn: for what reason.
    fn serve(&self, queue: &mut Queue) -> Result<(), String> {
        while !self.stop.load(Ordering::Acquire) {
            let service = queue.service(BUDGET).map_err(|fault| fault.to_string())?;
            self.publish(&service);
            if !service.more {
                self.wait();
            }
        }
        // The storage answers at once, so nothing is under way.
        debug_assert!(queue.is_idle());
        Ok(())
    }

    /// Waits for the guest's signal, or to be asked to end.
    fn wait(&self) {
        if let Err(error) = self.bell.read() {
            tracing::warn!(channel = self.id.0, %error, "event descriptor fails");
        }
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }

    fn ring(&self) {
        if let Err(error) = self.bell.write(1) {
            tracing::warn!(channel = self.id.0, %error, "event descriptor fails");
        }
    }

    fn publish(&self, service: &Service) {
        if service.signal == Signal::Needed {
            self.signal();
        }
        if let Some(count) = service.subchannels {
            self.tell(Event::Subchannels(self.id, count));
        }
    }

    /// Sets the channel's flag in the guest. Under the lock, so that none reaches a VP that is no longer meant.
    fn signal(&self) {
        let target = self.target_vp.lock().expect("no holder of this lock panics");
        let Some(vp) = *target else { return };
        self.signals.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.link.signal(vp, self.sint, self.flag) {
            tracing::debug!(channel = self.id.0, %error, "the guest takes no signal");
        }
    }

    fn tell(&self, event: Event) {
        // Without a bus the machine is ending.
        let _ = self.events.send(event);
    }
}
