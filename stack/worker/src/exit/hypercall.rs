//! Hypercalls that the hypervisor leaves to the worker: messages to the synthetic bus.

use tlfs::{CallCode, HvStatus, synic::PostMessageInput};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromZeros, IntoBytes};

use super::{Fault, Hypercall};
use crate::{board::Board, cpu::Cpu, memory::GuestRam};

/// The call's code is in these bits of its control word, and bit 16 says that its input is in registers.
const CODE: u64 = 0xffff;
const FAST: u64 = 1 << 16;

pub(super) fn handle(call: &Hypercall, cpu: &impl Cpu, board: &Board, ram: &GuestRam) -> Result<(), Fault> {
    let failed = |error| Fault::at(&call.header, error);
    let mut regs = cpu.registers().map_err(failed)?;
    regs.rax = u64::from(carry_out(call, board, ram).0);
    regs.rip = call.header.rip.wrapping_add(call.header.instruction_len.into());
    cpu.set_registers(&regs).map_err(failed)
}

fn carry_out(call: &Hypercall, board: &Board, ram: &GuestRam) -> HvStatus {
    let is_post = call.control & (CODE | FAST) == u64::from(CallCode::POST_MESSAGE.0);
    // Signals have doorbells: one that comes here is for no open channel.
    let (Some(post), true) = (&board.post, is_post) else { return HvStatus::INVALID_CONNECTION_ID };
    let mut input = PostMessageInput::new_zeroed();
    if ram.read_slice(input.as_mut_bytes(), GuestAddress(call.input)).is_err() {
        return HvStatus::INVALID_HYPERCALL_INPUT;
    }
    let bytes = usize::try_from(input.payload_size).unwrap_or(usize::MAX);
    match input.payload.get(..bytes) {
        Some(payload) => post.message(input.connection_id.0, payload),
        None => HvStatus::INVALID_PARAMETER,
    }
}
