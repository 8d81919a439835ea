//! The x87 and SSE registers that HvCallGetVpRegisters and HvCallSetVpRegisters name, inside a VP's XSAVE area.
//!
//! The legacy region is a sequence of 16-byte slots, each of which has exactly the layout of one TLFS register
//! (APM 2 §11.4.4, TLFS datatypes/hv_register_name).

use super::{Layout, MXCSR, SSE, SSE_REGISTERS, X87, XSTATE_BV, number, put};
use crate::ensure;
use core::ops::Range;
use tlfs::register::{RegisterName, RegisterValue};
use tlfs::status::HvStatus;
use zerocopy::{FromBytes, IntoBytes};

/// Both control slots, eight x87 and sixteen SSE registers.
const LEGACY: usize = SSE_REGISTERS.end;

/// Where the register is, if it is one of those in the legacy region.
fn slot(name: RegisterName) -> Option<Range<usize>> {
    let index = match name {
        RegisterName::FP_CONTROL_STATUS => 0,
        RegisterName::XMM_CONTROL_STATUS => 1,
        RegisterName(n @ 0x3_0010..=0x3_0017) => 2 + (n & 7) as usize,
        RegisterName(n @ 0x3_0000..=0x3_000f) => 10 + (n & 15) as usize,
        _ => return None,
    };
    Some(index * 16..index * 16 + 16)
}

impl Layout {
    /// Reads a register from an area in the standard form; `None` if it is not an x87 or SSE register.
    #[must_use]
    pub fn register(&self, current: &[u8], name: RegisterName) -> Option<RegisterValue> {
        let slot = slot(name)?;
        RegisterValue::read_from_bytes(self.legacy(current).get(slot)?).ok()
    }

    /// Writes a register. The mask of MXCSR is the processor's and is ignored.
    ///
    /// # Errors
    /// `INVALID_REGISTER_VALUE` for a reserved bit of MXCSR, `INVALID_PARAMETER` for any other register.
    pub fn set_register(
        &self,
        current: &mut [u8],
        name: RegisterName,
        value: RegisterValue,
    ) -> Result<(), HvStatus> {
        let slot = slot(name).ok_or(HvStatus::INVALID_PARAMETER)?;
        let mut legacy = self.legacy(current);
        put(&mut legacy, slot, value.as_bytes());
        let mxcsr = number::<4>(&legacy, MXCSR) as u32;
        ensure(mxcsr & !self.mxcsr_mask == 0, HvStatus::INVALID_REGISTER_VALUE)?;
        self.copy_legacy(&legacy, X87 | SSE, mxcsr, X87 | SSE, current);
        let present = number::<8>(current, XSTATE_BV) | X87 | SSE;
        put(current, XSTATE_BV, &present.to_le_bytes());
        Ok(())
    }

    /// The legacy region with initial values in place of states that are not present.
    fn legacy(&self, current: &[u8]) -> [u8; LEGACY] {
        let mut legacy = [0; LEGACY];
        let mxcsr = number::<4>(current, MXCSR) as u32;
        self.copy_legacy(current, number::<8>(current, XSTATE_BV), mxcsr, X87 | SSE, &mut legacy);
        legacy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlfs::register::{FpControlStatus, XmmControlStatus};

    const LAYOUT_STATES: u64 = X87 | SSE;

    fn layout() -> Layout {
        Layout::new(LAYOUT_STATES, 0xffff, |_| [0; 4])
    }

    /// The state after INIT: nothing present, MXCSR at its initial value.
    fn reset() -> [u8; 576] {
        let mut area = [0; 576];
        layout().copy_legacy(&[], 0, super::super::MXCSR_INIT, X87 | SSE, &mut area);
        area
    }

    fn read(area: &[u8], name: RegisterName) -> RegisterValue {
        layout().register(area, name).unwrap()
    }

    #[test]
    fn after_reset_all_registers_have_their_initial_values() {
        let area = reset();
        let control = read(&area, RegisterName::FP_CONTROL_STATUS).as_fp_control_status();
        assert_eq!(control, FpControlStatus { control: 0x37f, ..FpControlStatus::ZEROED });
        let control = read(&area, RegisterName::XMM_CONTROL_STATUS).as_xmm_control_status();
        assert_eq!(control, XmmControlStatus { last_rdp: 0, mxcsr: 0x1f80, mxcsr_mask: 0xffff });
        assert_eq!(read(&area, RegisterName::XMM15), RegisterValue::new(0));
        assert_eq!(number::<8>(&area, XSTATE_BV), 0);
    }

    #[test]
    fn every_register_has_a_place_of_its_own() {
        let mut area = reset();
        for number in 0x3_0000..=0x3_0018 {
            let value = RegisterValue { low: u64::from(number), high: !u64::from(number) };
            layout().set_register(&mut area, RegisterName(number), value).unwrap();
        }
        for number in 0x3_0000..=0x3_0018 {
            let value = RegisterValue { low: u64::from(number), high: !u64::from(number) };
            assert_eq!(read(&area, RegisterName(number)), value);
        }
        assert_eq!(number::<8>(&area, XSTATE_BV), X87 | SSE);
        assert_eq!(number::<8>(&area, 32..40), 0x3_0010, "ST0");
        assert_eq!(number::<8>(&area, 160..168), 0x3_0000, "XMM0");
    }

    #[test]
    fn reserved_bits_of_mxcsr_are_refused() {
        let mut area = reset();
        let name = RegisterName::XMM_CONTROL_STATUS;
        let mut control = XmmControlStatus { mxcsr: 0x1_1f80, ..XmmControlStatus::ZEROED };
        let result = layout().set_register(&mut area, name, control.into());
        assert_eq!((result, area), (Err(HvStatus::INVALID_REGISTER_VALUE), reset()));
        control.mxcsr = 0x9fc0;
        layout().set_register(&mut area, name, control.into()).unwrap();
        assert_eq!(read(&area, name).as_xmm_control_status().mxcsr, 0x9fc0);
        assert_eq!(read(&area, name).as_xmm_control_status().mxcsr_mask, 0xffff);
    }

    #[test]
    fn other_registers_are_refused_and_short_areas_do_not_panic() {
        assert_eq!(layout().register(&reset(), RegisterName(0x3_001a)), None);
        let value = RegisterValue::new(0);
        let result = layout().set_register(&mut reset(), RegisterName(0x2_0000), value);
        assert_eq!(result, Err(HvStatus::INVALID_PARAMETER));
        assert!(layout().register(&[], RegisterName::XMM0).is_some());
        assert!(layout().set_register(&mut [], RegisterName::XMM0, value).is_ok());
    }
}
