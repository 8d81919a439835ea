//! The one ioctl for which `mshv-ioctls` has no function: a hypercall about the root itself.
#![expect(unsafe_code, reason = "an ioctl that hands addresses to the kernel")]

use std::fs::File;

use mshv_bindings::mshv_root_hvcall;
use rustix::ioctl::{Updater, ioctl, opcode};
use tlfs::{
    CallCode, PartitionId,
    partition::{GetPartitionPropertyExInput, LogProperty, PropertyArgument, PropertyCode},
};

/// `MSHV_ROOT_HVCALL` (Linux include/uapi/linux/mshv.h).
const ROOT_HVCALL: rustix::ioctl::Opcode = opcode::read_write::<mshv_root_hvcall>(0xb8, 0x07);

/// Reads the hypervisor's log from byte `from`.
///
/// # Errors
/// The driver or the hypervisor refuses.
pub(crate) fn log_piece(driver: &File, from: u32) -> rustix::io::Result<LogProperty> {
    let input = GetPartitionPropertyExInput {
        partition_id: PartitionId::SELF,
        property_code: PropertyCode::BULKHEAD_LOG,
        padding: 0,
        argument: PropertyArgument::new().with_argument(from),
    };
    let mut output = LogProperty::ZEROED;
    let mut call = mshv_root_hvcall {
        code: CallCode::GET_PARTITION_PROPERTY_EX.0,
        in_sz: size_of_val(&input) as u16,
        out_sz: size_of_val(&output) as u16,
        in_ptr: (&raw const input).addr() as u64,
        out_ptr: (&raw mut output).expose_provenance() as u64,
        ..Default::default()
    };
    // SAFETY: the opcode is that of the ioctl, and its argument has this type.
    let call = unsafe { Updater::<ROOT_HVCALL, _>::new(&mut call) };
    // SAFETY: the kernel reads `input` and writes `output`, each within the size that the call names; every pattern of
    // bits is a value of `LogProperty`.
    unsafe { ioctl(driver, call)? };
    Ok(output)
}
