//! Saved APIC state, for HvCallGetVpState and HvCallSetVpState.
//!
//! Each register holds what the guest would read in the APIC's mode. IA32_APIC_BASE, IA32_TSC_DEADLINE and the TPR (as
//! CR8) are VP registers of their own; a restore sets the first of them before this state and the others after it.

use tlfs::vp::LocalApicState;

use super::icr::ICR_STORED;
use super::regs::{DFR_ONES, LDR_STORED, SVR_STORED, VERSION};
use super::vectors::Vectors;
use super::{Lapic, Mode};

/// Errors an APIC can have recorded.
const ESR_STORED: u32 = 0xff;

impl Lapic {
    /// The state at `now`, after anything the timer owes.
    pub fn state(&mut self, now: u64) -> LocalApicState {
        self.timer_expire(now);
        LocalApicState {
            apic_id: self.id_register(),
            version: VERSION,
            ldr: self.ldr_register(),
            dfr: self.dfr,
            spurious: self.svr,
            isr: self.isr.0,
            tmr: self.tmr.0,
            irr: self.irr.0,
            esr: self.esr,
            icr_high: self.icr_high,
            icr_low: self.icr_low,
            lvt: self.lvt.0,
            lvt_cmci: 0,
            error_status: self.errors,
            initial_count: self.timer.initial(),
            current_count: self.current_count(now),
            divide_configuration: self.timer.divide(),
            remote_read: 0,
        }
    }

    /// Takes over a saved state; a running count goes on from `now`. Reserved bits are dropped, and so are the id, the
    /// version and (in x2APIC mode) the LDR, which are not the caller's to choose. Unlike a guest's write this may
    /// unmask LVT entries of a software-disabled APIC: VMMs set up LINT0 and LINT1 so before the first instruction. The
    /// caller then looks at [`Lapic::pending`] and [`Lapic::timer_deadline`].
    pub fn set_state(&mut self, state: &LocalApicState, now: u64) {
        let is_xapic = self.mode != Mode::X2Apic;
        if is_xapic {
            self.ldr = state.ldr & LDR_STORED;
        }
        self.dfr = state.dfr | DFR_ONES;
        self.svr = state.spurious & SVR_STORED;
        self.isr = Vectors::from_registers(state.isr);
        self.tmr = Vectors::from_registers(state.tmr);
        self.irr = Vectors::from_registers(state.irr);
        self.esr = state.esr & ESR_STORED;
        self.errors = state.error_status & ESR_STORED;
        self.icr_high = if is_xapic { state.icr_high & LDR_STORED } else { state.icr_high };
        self.icr_low = state.icr_low & ICR_STORED;
        let was_tsc_deadline = self.lvt.timer().tsc_deadline();
        for (index, entry) in state.lvt.into_iter().enumerate() {
            self.lvt.set_register(index, entry, self.features.tsc_deadline);
        }
        self.load_timer(state, was_tsc_deadline, now);
        self.top_irr = self.irr.highest();
        self.top_isr = self.isr.highest();
        self.evaluate();
    }

    fn load_timer(&mut self, state: &LocalApicState, was_tsc_deadline: bool, now: u64) {
        let is_tsc_deadline = self.lvt.timer().tsc_deadline();
        if !(is_tsc_deadline && was_tsc_deadline) {
            self.timer.stop();
        }
        if is_tsc_deadline {
            self.timer.set_divide(state.divide_configuration);
        } else {
            self.timer.load(state.initial_count, state.current_count, state.divide_configuration, now);
        }
    }
}
