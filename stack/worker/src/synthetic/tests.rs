//! A guest without processors, on the other end of a link that is not the hypervisor's.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32},
    },
    time::{Duration, Instant},
};

use vm_memory::{Bytes, GuestAddress};
use vmbus::protocol::{SIGNAL_CONNECTION_BASE, kind, message};

use super::*;
use crate::memory;

/// First page of the rings: eight for the one, eight for the other.
const RINGS: u64 = 0x100;
const GPADL: u32 = 0xe1e10;

/// What reached the guest.
#[derive(Default)]
struct Wire {
    messages: Mutex<Vec<HvMessage>>,
    /// There is no room for a message.
    full: AtomicBool,
    bells: Mutex<BTreeMap<u32, EventFd>>,
    signals: AtomicU32,
}

impl Link for Wire {
    fn post(&self, vp: u32, sint: u8, message: &HvMessage) -> Result<(), MshvError> {
        assert_eq!((vp, sint), (0, 2));
        if self.full.load(Ordering::Acquire) {
            let status_raw = HvStatus::INSUFFICIENT_BUFFERS.0;
            return Err(MshvError::Hypercall { code: 0xc1, status_raw, status: None });
        }
        self.messages.lock().unwrap().push(*message);
        Ok(())
    }

    fn signal(&self, vp: u32, sint: u8, flag: u16) -> Result<(), MshvError> {
        assert_eq!((vp, sint, flag), (1, 2, 1));
        self.signals.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn ring(&self, bell: &EventFd, connection: u32) -> Result<(), MshvError> {
        let taken = self.bells.lock().unwrap().insert(connection, bell.try_clone().unwrap());
        assert!(taken.is_none(), "two doorbells at {connection:#x}");
        Ok(())
    }

    fn unring(&self, _: &EventFd, connection: u32) {
        assert!(self.bells.lock().unwrap().remove(&connection).is_some(), "no doorbell at {connection:#x}");
    }
}

/// The guest, with its bus.
pub(crate) struct Guest {
    wire: Arc<Wire>,
    ram: Arc<GuestRam>,
    signal: Arc<Signal>,
    synthetic: Synthetic,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let (wire, ram) = (Arc::new(Wire::default()), Arc::new(memory::allocate(2 << 20).unwrap()));
        let signal = Arc::new(Signal::new().unwrap());
        let controller = Arc::new(Controller::new(0));
        let synthetic = Synthetic::start(wire.clone(), ram.clone(), 4, controller, signal.clone()).unwrap();
        Self { wire, ram, signal, synthetic }
    }

    pub(crate) fn post(&self) -> Post {
        self.synthetic.post()
    }

    fn say(&self, kind: u32, body: &[u32]) {
        assert_eq!(self.post().message(MESSAGE_CONNECTION_5, &message(kind, body)), HvStatus::SUCCESS);
    }

    /// Waits for the next message, which is of this type; the words of its body.
    fn hear(&self, kind: u32) -> Vec<u32> {
        let mut first = None;
        wait(|| {
            let mut messages = self.wire.messages.lock().unwrap();
            first = (!messages.is_empty()).then(|| messages.remove(0));
            first.is_some()
        });
        let message = first.unwrap();
        let bytes = &message.payload[..message.header.payload_size.into()];
        let words: Vec<u32> = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        assert_eq!((message.header.message_type.0, words[0]), (1, kind));
        words[2..].to_vec()
    }

    fn bells(&self) -> Vec<u32> {
        self.wire.bells.lock().unwrap().keys().copied().collect()
    }

    /// As `vmbus_connect`, `vmbus_request_offers` and `vmbus_open` of Linux do, for VP 1.
    fn open(&self) -> u32 {
        self.say(kind::INITIATE_CONTACT, &[0x5_0003, 0, 2, 0, 0x1000, 0, 0x2000, 0]);
        self.hear(kind::VERSION_RESPONSE);
        self.say(kind::REQUEST_OFFERS, &[]);
        let id = self.hear(kind::OFFER_CHANNEL)[44];
        self.hear(kind::ALL_OFFERS_DELIVERED);
        let pages = (RINGS..RINGS + 16).flat_map(|page| [u32::try_from(page).unwrap(), 0]);
        let header = [id, GPADL, (8 + 8 * 16) | 1 << 16, 16 * 4096, 0];
        self.say(kind::GPADL_HEADER, &header.into_iter().chain(pages).collect::<Vec<_>>());
        assert_eq!(self.hear(kind::GPADL_CREATED), [id, GPADL, 0]);
        let mut open = vec![id, id, GPADL, 1, 8];
        open.resize(35, 0);
        self.say(kind::OPEN_CHANNEL, &open);
        assert_eq!(self.hear(kind::OPEN_CHANNEL_RESULT), [id, id, 0]);
        assert_eq!(self.bells(), [SIGNAL_CONNECTION_BASE + id]);
        id
    }

    fn signal(&self, id: u32) {
        self.wire.bells.lock().unwrap()[&(SIGNAL_CONNECTION_BASE + id)].write(1).unwrap();
    }

    /// Writes where the ring to the host is written next.
    fn set_write_index(&self, index: u32) {
        self.ram.store(index, GuestAddress(RINGS * 4096), Ordering::SeqCst).unwrap();
    }
}

fn wait(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(20), "nothing happens");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_request_is_answered_with_one_signal_after_the_guest_has_rung() {
    let guest = Guest::new();
    let id = guest.open();
    // In-band packet of 2 + 8 words: descriptor (type 6, header 2, length 10, completion wanted, transaction), then
    // BEGIN_INITIALIZATION.
    let mut packet = [0u32; 22];
    packet[..4].copy_from_slice(&[6 | 2 << 16, 10 | 1 << 16, 0x1234, 0]);
    packet[4] = 7;
    let bytes: Vec<u8> = packet.iter().flat_map(|word| word.to_le_bytes()).collect();
    guest.ram.write_slice(&bytes, GuestAddress((RINGS + 1) * 4096)).unwrap();
    guest.set_write_index(88);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(guest.wire.signals.load(Ordering::Acquire), 0, "it polls");
    guest.signal(id);
    wait(|| guest.wire.signals.load(Ordering::Acquire) > 0);
    // The answer: a completion (type 11) of the same transaction, which went well.
    let answer = GuestAddress((RINGS + 9) * 4096);
    let words: [u32; 8] = guest.ram.read_obj::<[u32; 8]>(answer).unwrap();
    assert_eq!((words[0] & 0xffff, words[2], words[4], words[6]), (11, 0x1234, 1, 0), "{words:x?}");
    guest.signal(id);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(guest.wire.signals.load(Ordering::Acquire), 1, "a signal without an answer");
}

#[test]
fn a_guest_that_breaks_a_ring_loses_that_channel_and_nothing_else() {
    let guest = Guest::new();
    let id = guest.open();
    guest.set_write_index(3);
    guest.signal(id);
    assert_eq!(guest.hear(kind::RESCIND_CHANNEL_OFFER), [id]);
    assert!(guest.bells().is_empty(), "its doorbell is left");
    // The bus lives.
    guest.say(kind::INITIATE_CONTACT, &[0x5_0003, 0, 2, 0, 0x1000, 0, 0x2000, 0]);
    guest.hear(kind::VERSION_RESPONSE);
    guest.say(kind::REQUEST_OFFERS, &[]);
    guest.hear(kind::ALL_OFFERS_DELIVERED);
    assert_eq!(guest.signal.outcome(), None);
}

#[test]
fn memory_comes_back_when_nobody_serves_the_channel_any_more() {
    let guest = Guest::new();
    let id = guest.open();
    guest.say(kind::CLOSE_CHANNEL, &[id]);
    guest.say(kind::GPADL_TEARDOWN, &[id, GPADL]);
    assert_eq!(guest.hear(kind::GPADL_TORNDOWN), [GPADL]);
    assert!(guest.bells().is_empty(), "its doorbell is left");
    guest.say(kind::UNLOAD, &[]);
    guest.hear(kind::UNLOAD_RESPONSE);
}

#[test]
fn a_guest_that_starts_anew_finds_its_devices_again() {
    let guest = Guest::new();
    assert_eq!(guest.open(), 1);
    assert_eq!(guest.open(), 1);
    drop(guest.synthetic);
    assert!(guest.wire.bells.lock().unwrap().is_empty(), "its doorbell is left");
}

#[test]
fn a_guest_that_takes_no_messages_may_post_a_few_and_goes_on_when_it_does() {
    let guest = Guest::new();
    guest.wire.full.store(true, Ordering::Release);
    let contact = message(kind::INITIATE_CONTACT, &[0x5_0003_u32, 0, 2, 0, 0x1000, 0, 0x2000, 0][..]);
    let posts = (0..100).map(|_| {
        // So that the bus takes what it can.
        thread::sleep(Duration::from_millis(1));
        guest.post().message(MESSAGE_CONNECTION_5, &contact)
    });
    let statuses: Vec<_> = posts.collect();
    let taken = statuses.iter().take_while(|status| **status == HvStatus::SUCCESS).count();
    assert!((MAX_WAITING..=MAX_WAITING + 1).contains(&taken), "{taken} messages wait");
    assert!(statuses[taken..].iter().all(|status| *status == HvStatus::INSUFFICIENT_BUFFERS));
    guest.wire.full.store(false, Ordering::Release);
    for _ in 0..taken {
        guest.hear(kind::VERSION_RESPONSE);
    }
    guest.open();
}

#[test]
fn messages_to_other_connections_have_no_receiver() {
    let guest = Guest::new();
    for connection in [0, 2, 3, 5, 0x2001, u32::MAX] {
        assert_eq!(guest.post().message(connection, &[]), HvStatus::INVALID_CONNECTION_ID);
    }
    assert_eq!(guest.post().message(MESSAGE_CONNECTION, &[]), HvStatus::SUCCESS);
    // A bus that has ended takes none.
    let post = guest.post();
    drop(guest);
    assert_eq!(post.message(MESSAGE_CONNECTION, &[]), HvStatus::INVALID_CONNECTION_ID);
}
