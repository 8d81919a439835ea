//! Messages of one VP that wait for their slots: one queue per source, in common storage.

use tlfs::{SintIndex, synic::HvMessage};

#[derive(Clone, Copy, Debug)]
struct Entry {
    sint: SintIndex,
    /// Ascending with each push; compared by distance, so that it may wrap.
    ticket: u32,
    message: HvMessage,
}

/// At most `N` messages.
#[derive(Clone, Debug)]
pub(super) struct Queue<const N: usize> {
    entries: [Option<Entry>; N],
    tickets: u32,
    /// Messages per source.
    waiting: [u8; SintIndex::COUNT],
}

impl<const N: usize> Queue<N> {
    pub(super) const fn new() -> Self {
        const { assert!(N <= u8::MAX as usize) };
        Self { entries: [None; N], tickets: 0, waiting: [0; SintIndex::COUNT] }
    }

    pub(super) fn is_waiting(&self, sint: SintIndex) -> bool {
        self.waiting.get(sint.0 as usize).is_some_and(|&count| count != 0)
    }

    /// Appends a message; false if there is no room.
    pub(super) fn push(&mut self, sint: SintIndex, message: &HvMessage) -> bool {
        let free = self.entries.iter_mut().find(|entry| entry.is_none());
        let (Some(entry), Some(count)) = (free, self.waiting.get_mut(sint.0 as usize)) else { return false };
        *entry = Some(Entry { sint, ticket: self.tickets, message: *message });
        *count += 1;
        self.tickets = self.tickets.wrapping_add(1);
        true
    }

    /// Passes the oldest message of a source to `deliver` and removes it; false if there is none. The pending flag
    /// of the message tells whether more wait behind it.
    pub(super) fn pop(&mut self, sint: SintIndex, deliver: impl FnOnce(&HvMessage)) -> bool {
        let age = |entry: &Entry| self.tickets.wrapping_sub(entry.ticket);
        let mine =
            self.entries.iter_mut().filter(|slot| slot.as_ref().is_some_and(|entry| entry.sint == sint));
        let oldest = mine.max_by_key(|slot| slot.as_ref().map(age)).and_then(Option::take);
        let (Some(mut entry), Some(count)) = (oldest, self.waiting.get_mut(sint.0 as usize)) else {
            return false;
        };
        *count -= 1;
        entry.message.header.flags = entry.message.header.flags.with_message_pending(*count != 0);
        deliver(&entry.message);
        true
    }

    /// Removes the messages from `origin`.
    pub(super) fn forget(&mut self, origin: u64) {
        for slot in &mut self.entries {
            if let Some(entry) = slot.take_if(|entry| entry.message.header.origin == origin)
                && let Some(count) = self.waiting.get_mut(entry.sint.0 as usize)
            {
                *count -= 1;
            }
        }
    }
}
