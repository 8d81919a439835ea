use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    vec::Vec,
};

use proptest::prelude::*;
use tlfs::port::ConnectionInfo;

use super::*;

fn doorbell(gpa: u64, trigger_value: u64, flags: u64) -> Result<Doorbell, HvStatus> {
    let body = [gpa, trigger_value, flags];
    Doorbell::new(&ConnectionInfo { body, ..ConnectionInfo::ZEROED }.as_doorbell())
}

const ANY_VALUE: u64 = 1 << 31;

#[test]
fn size_and_value_both_have_to_match() {
    let exact = doorbell(0x1000, 7, 2).unwrap();
    assert!(exact.rings(0x1000, 2, 7));
    assert!(!exact.rings(0x1000, 2, 8));
    assert!(!exact.rings(0x1000, 4, 7));
    assert!(!exact.rings(0x1002, 2, 7));
}

#[test]
fn any_size_and_any_value_match_every_write_to_the_address() {
    let any = doorbell(0x1000, 7, ANY_VALUE).unwrap();
    assert!([1, 2, 4, 8].iter().all(|&bytes| any.rings(0x1000, bytes, 0x1234)));
    assert!(!any.rings(0x1001, 1, 7));
    let any_size = doorbell(0x1000, 7, 0).unwrap();
    assert!(
        any_size.rings(0x1000, 1, 0xff07)
            && any_size.rings(0x1000, 8, 7)
            && !any_size.rings(0x1000, 8, 0x107)
    );
}

#[test]
fn unknown_flags_and_writes_across_a_page_are_refused() {
    for (gpa, flags) in [(0x1000, 5), (0x1000, 8), (0x1000, 1 << 32), (0x1ffd, 3)] {
        assert_eq!(doorbell(gpa, 0, flags), Err(HvStatus::INVALID_PARAMETER));
    }
    assert!(doorbell(0x1ffc, 0, 3).is_ok());
}

/// What the two sides share.
#[derive(Default)]
struct Shared {
    data: Vec<u32>,
    full: bool,
    masked: bool,
}

/// Where the consumer stands in its algorithm; each step makes one access to the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Idle,
    Look,
    CheckFull,
    Notify,
    LookAfterNotify,
    Unmask,
    LookAgain,
    Mask(u32),
    Take(u32),
}

#[derive(Default)]
struct Consumer {
    tail: usize,
    step: Step,
    signals: u32,
    heard: Vec<u32>,
}

impl Consumer {
    /// Makes one step; false if it cannot, because it is idle or needs the hypervisor.
    fn step(&mut self, shared: &mut Shared) -> bool {
        let entry = shared.data[self.tail];
        let found = |otherwise| if entry == 0 { otherwise } else { Step::Mask(entry) };
        self.step = match self.step {
            Step::Idle if self.signals == 0 => return false,
            Step::Idle => {
                self.signals -= 1;
                Step::Look
            }
            Step::Look => {
                if entry == 0 {
                    Step::CheckFull
                } else {
                    Step::Take(entry)
                }
            }
            Step::CheckFull if shared.full => {
                shared.full = false;
                Step::Notify
            }
            Step::CheckFull => Step::Unmask,
            Step::Notify => return false,
            Step::LookAfterNotify => found(Step::Unmask),
            Step::Unmask => {
                shared.masked = false;
                Step::LookAgain
            }
            Step::LookAgain => found(Step::Idle),
            Step::Mask(port) => {
                shared.masked = true;
                Step::Take(port)
            }
            Step::Take(port) => {
                shared.data[self.tail] = 0;
                self.tail = (self.tail + 1) % EVENT_RING_ENTRIES;
                self.heard.push(port);
                Step::Look
            }
        };
        true
    }
}

/// The ring's memory as the producer sees it: before each access the consumer makes some steps.
struct Interleaved {
    shared: Shared,
    consumer: Consumer,
    schedule: VecDeque<u8>,
}

#[derive(Clone)]
struct Memory(Rc<RefCell<Interleaved>>);

impl Memory {
    fn new(schedule: Vec<u8>) -> Self {
        let shared = Shared { data: std::vec![0; EVENT_RING_ENTRIES], ..Shared::default() };
        Self(Rc::new(RefCell::new(Interleaved {
            shared,
            consumer: Consumer::default(),
            schedule: schedule.into(),
        })))
    }

    fn access<T>(&self, access: impl FnOnce(&mut Shared) -> T) -> T {
        let Interleaved { shared, consumer, schedule } = &mut *self.0.borrow_mut();
        let steps = schedule.pop_front().unwrap_or(0);
        for _ in 0..steps {
            consumer.step(shared);
        }
        access(shared)
    }
}

impl RingMemory for Memory {
    fn entry(&self, index: usize) -> u32 {
        self.access(|shared| shared.data[index])
    }

    fn set_entry(&mut self, index: usize, port: PortId) {
        self.access(|shared| shared.data[index] = port.0);
    }

    fn set_full(&mut self) {
        self.access(|shared| shared.full = true);
    }

    fn mask_signal(&mut self) -> bool {
        self.access(|shared| core::mem::replace(&mut shared.masked, true))
    }
}

/// The whole: ring, remembered ports, and who is still owed a hearing.
struct World {
    memory: Memory,
    ring: EventRing,
    remembered: BTreeSet<u32>,
    owed: BTreeSet<u32>,
}

impl World {
    fn new(schedule: Vec<u8>) -> Self {
        let (remembered, owed) = Default::default();
        Self { memory: Memory::new(schedule), ring: EventRing::new(), remembered, owed }
    }

    fn ring(&mut self, port: u32) {
        self.hear();
        self.owed.insert(port);
        let rung = self.ring.ring(&mut self.memory, PortId(port));
        if !rung.is_stored {
            self.remembered.insert(port);
        }
        self.memory.0.borrow_mut().consumer.signals += u32::from(rung.signal);
        self.hear();
    }

    /// Lets the consumer run for `steps` steps, with the hypervisor answering its calls.
    fn consume(&mut self, steps: usize) {
        for _ in 0..steps {
            let mut all = self.memory.0.borrow_mut();
            let Interleaved { shared, consumer, .. } = &mut *all;
            if !consumer.step(shared) && consumer.step == Step::Notify {
                consumer.step = Step::LookAfterNotify;
                drop(all);
                self.ring.refill(&mut self.memory, || self.remembered.pop_first().map(PortId));
            }
        }
        self.hear();
    }

    fn hear(&mut self) {
        for port in self.memory.0.borrow_mut().consumer.heard.drain(..) {
            self.owed.remove(&port);
        }
    }
}

#[test]
fn only_the_first_of_several_ports_signals() {
    let mut memory = Memory::new(Vec::new());
    let mut ring = EventRing::new();
    assert_eq!(ring.ring(&mut memory, PortId(1)), Rung { is_stored: true, signal: true });
    assert_eq!(ring.ring(&mut memory, PortId(2)), Rung { is_stored: true, signal: false });
}

#[test]
fn a_full_ring_remembers_ports_until_it_is_reported_empty() {
    let mut world = World::new(Vec::new());
    for port in 1..=200 {
        world.ring(port);
    }
    assert_eq!(world.remembered.len(), 200 - EVENT_RING_ENTRIES);
    world.consume(10_000);
    assert_eq!((world.remembered.len(), world.owed.len()), (0, 0));
    assert_eq!(world.memory.0.borrow().consumer.step, Step::Idle);
}

#[test]
fn a_port_that_finds_the_ring_full_is_heard_though_the_consumer_empties_it_meanwhile() {
    for steps in 0..=255 {
        let accesses_to_fill = 3 * EVENT_RING_ENTRIES;
        let mut schedule = std::vec![0; accesses_to_fill];
        schedule.extend([0, steps]);
        let mut world = World::new(schedule);
        for port in 1..=EVENT_RING_ENTRIES as u32 + 1 {
            world.ring(port);
        }
        world.consume(1000);
        assert!(world.owed.is_empty(), "after {steps} steps");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_port_is_ever_lost(
        schedule in prop::collection::vec(prop_oneof![4 => 0u8..3, 1 => any::<u8>()], 0..400),
        actions in prop::collection::vec((1u32..100, prop_oneof![3 => Just(0usize), 1 => 0usize..60]), 0..300),
    ) {
        let mut world = World::new(schedule);
        for (port, steps) in actions {
            world.ring(port);
            world.consume(steps);
        }
        world.consume(20_000);
        prop_assert!(world.owed.is_empty(), "unheard: {:?}", world.owed);
    }
}
