//! One value for each LP.

use crate::{lp, lp::LpIndex, mem::boot, sync::Once};

/// Keeps two LPs' values from sharing a cache line, or the line the processor fetches with it.
#[repr(align(128))]
struct Slot<T>(T);

/// A value for each LP, made at boot when the number of LPs is known.
///
/// It is shared like any static: what an LP changes in its own value is inside a cell fit for it.
pub struct PerLp<T: 'static> {
    slots: Once<&'static [Slot<T>]>,
}

impl<T: Send + Sync> PerLp<T> {
    /// Returns storage that is still to be made.
    pub const fn new() -> Self {
        Self { slots: Once::new() }
    }

    /// Makes every LP's value. Boot only, once.
    ///
    /// # Panics
    /// The values exist already, or the boot reserve has no room for them.
    pub fn init(&self, mut make: impl FnMut(LpIndex) -> T) {
        let slots = boot::slice(lp::count() as usize, |index| Slot(make(LpIndex(index as u32))));
        let slots: &'static [Slot<T>] = slots.expect("the boot reserve holds every LP's storage");
        assert!(self.slots.set(slots).is_ok(), "storage for LPs is made once");
    }

    /// Returns the value of the LP that executes this.
    ///
    /// # Panics
    /// The values were not made yet.
    pub fn this(&self) -> &'static T {
        &self.slots()[lp::this().0 as usize].0
    }

    /// Returns the value of `lp`, or nothing where there is no such LP.
    ///
    /// # Panics
    /// The values were not made yet.
    pub fn get(&self, lp: LpIndex) -> Option<&'static T> {
        self.slots().get(lp.0 as usize).map(|slot| &slot.0)
    }

    fn slots(&self) -> &'static [Slot<T>] {
        self.slots.get().expect("storage for LPs is made before it is used")
    }
}
