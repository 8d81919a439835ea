//! The hypercall dispatcher: a table row for each call, and the one path that every call takes.
//!
//! Parameters are copied in before the handler runs and results are copied out after it, so a handler never sees
//! memory that its caller can change. A rep call that stops early is made again with a moved start index, from the
//! caller's own instruction: pending interrupts come between, and the caller sees one call.

pub mod device;
pub mod intercept;
pub mod memory;
pub mod message;
pub mod partition;
pub mod port;
pub mod property;
pub mod registers;
pub mod state;
pub mod stats;
pub mod system;
mod table;
pub mod vp;

pub use table::root_table;

use hal::{
    addr::{Gpa, PAGE_SIZE},
    virt::{R8, RAX, RBX, RCX, RDI, RDX, RSI, Vcpu},
};
use model::call::{CallSpec, FAST_BYTES, Plan, resume};
use tlfs::{CallCode, HvStatus, HypercallInput, HypercallOutput, partition::Privileges};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::port::Party;

/// How many list elements a rep call works on before it lets interrupts in.
pub const REPS_AT_ONCE: usize = 64;

/// No partition has guest-physical addresses from here on.
pub const GPA_LIMIT: u64 = 1 << 48;

/// The parameters' copies, one pair for each LP: too large for a stack frame that is entered often.
pub struct Buffers {
    input: [u8; PAGE_SIZE],
    output: [u8; PAGE_SIZE],
}

impl Buffers {
    /// Empty buffers.
    pub const fn new() -> Self {
        Self { input: [0; PAGE_SIZE], output: [0; PAGE_SIZE] }
    }
}

/// A guest address that a call needs and that leads nowhere now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmapped {
    /// The address.
    pub gpa: Gpa,
    /// It was to be written.
    pub write: bool,
}

/// Why a call was not carried out.
pub enum Undone {
    /// An address leads nowhere; the instruction is to be made again once it does.
    Unmapped(Unmapped),
    /// The caller's parent is to answer it.
    Deferred,
}

/// The virtual processor that makes a call.
pub trait Caller {
    /// Its hardware state.
    fn vcpu(&mut self) -> &mut Vcpu;
    /// What its partition may do.
    fn privileges(&self) -> Privileges;
    /// Its partition, as a sender.
    fn party(&self) -> Party;
    /// Whether the parent of its partition is asked, rather than the caller told, that a call ended with `status`.
    fn defers(&self, _status: HvStatus) -> bool {
        false
    }
    /// Copies from its memory.
    ///
    /// # Errors
    /// Nothing can be read there.
    fn read(&mut self, gpa: Gpa, into: &mut [u8]) -> Result<(), Unmapped>;
    /// Copies to its memory.
    ///
    /// # Errors
    /// Nothing can be written there.
    fn write(&mut self, gpa: Gpa, from: &[u8]) -> Result<(), Unmapped>;
}

/// One call in progress: its parameters, and how far it got.
pub struct Call<'a> {
    plan: Plan,
    input: &'a [u8],
    output: &'a mut [u8],
    done: usize,
}

impl Call<'_> {
    /// The fixed input.
    ///
    /// # Errors
    /// The table row does not fit the type: a bug of ours that must not become a panic.
    pub fn header<T: FromBytes + KnownLayout + Immutable>(&self) -> Result<T, HvStatus> {
        self.at(self.plan.header().start)
    }

    /// A value at `offset` in the input.
    ///
    /// # Errors
    /// The input ends before it.
    pub fn at<T: FromBytes + KnownLayout + Immutable>(&self, offset: usize) -> Result<T, HvStatus> {
        let bytes = self.input.get(offset..).ok_or(HvStatus::INVALID_HYPERCALL_INPUT)?;
        T::read_from_prefix(bytes).map(|(value, _)| value).map_err(|_| HvStatus::INVALID_HYPERCALL_INPUT)
    }

    /// The variable header.
    pub fn variable(&self) -> &[u8] {
        self.input.get(self.plan.variable()).unwrap_or_default()
    }

    /// List element `rep`.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn element<T: FromBytes + KnownLayout + Immutable>(&self, rep: usize) -> Result<T, HvStatus> {
        self.at(self.plan.element(rep).start)
    }

    /// The elements to work on now: at most [`REPS_AT_ONCE`].
    pub fn batch(&self) -> core::ops::Range<usize> {
        let reps = self.plan.reps();
        reps.start..reps.end.min(reps.start + REPS_AT_ONCE)
    }

    /// All elements that are still to be done.
    pub fn reps(&self) -> core::ops::Range<usize> {
        self.plan.reps()
    }

    /// Records that the elements before `rep` are done.
    pub fn set_done(&mut self, rep: usize) {
        self.done = rep;
    }

    /// Ends a call that succeeded: sets the fixed output, and returns what its handler returns.
    pub fn answer<T: IntoBytes + Immutable>(&mut self, value: &T) -> Outcome {
        self.put(self.plan.output().start, value.as_bytes());
        Ok(())
    }

    /// Sets output element `rep`.
    pub fn set_output_element<T: IntoBytes + Immutable>(&mut self, rep: usize, value: &T) {
        self.put(self.plan.output_element(rep).start, value.as_bytes());
    }

    fn put(&mut self, start: usize, bytes: &[u8]) {
        if let Some(place) = self.output.get_mut(start..start + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// What a handler returns: nothing, or the status for the caller.
pub type Outcome = Result<(), HvStatus>;

/// A row of the table.
pub struct Row<C> {
    /// The call's parameters.
    pub spec: CallSpec,
    /// What the caller's partition must be allowed to do.
    pub privilege: Privileges,
    /// What happens.
    pub handler: fn(&mut C, &mut Call) -> Outcome,
}

/// A row.
pub const fn row<C>(
    spec: CallSpec,
    privilege: Privileges,
    handler: fn(&mut C, &mut Call) -> Outcome,
) -> Option<Row<C>> {
    Some(Row { spec, privilege, handler })
}

/// Carries out the call that `caller` made by the hypercall instruction, and returns its code. Code of 32 bits passes
/// words in pairs of registers (TLFS hypercall-interface, "Register Mapping").
///
/// # Errors
/// It was not carried out, and the registers are as before.
pub fn execute<C: Caller>(
    caller: &mut C,
    buffers: &mut Buffers,
    table: fn(CallCode) -> Option<Row<C>>,
) -> Result<CallCode, Undone> {
    let is_64_bit = caller.vcpu().runs_64_bit_code();
    let gprs = caller.vcpu().gprs();
    let pair = |high, low| gprs[high] << 32 | gprs[low] & u64::from(u32::MAX);
    let [control, addresses @ ..] = match is_64_bit {
        true => [gprs[RCX], gprs[RDX], gprs[R8]],
        false => [pair(RDX, RAX), pair(RBX, RCX), pair(RDI, RSI)],
    };
    let control = HypercallInput::from_bits(control);
    let (status, done) = match check(caller, table, control, addresses) {
        Ok((row, plan)) => perform(caller, buffers, &row, plan, addresses).map_err(Undone::Unmapped)?,
        Err(status) => (status, control.rep_start()),
    };
    if caller.defers(status) {
        return Err(Undone::Deferred);
    }
    let vcpu = caller.vcpu();
    let is_done = status != HvStatus::SUCCESS || done >= control.rep_count();
    let word = match is_done {
        true => HypercallOutput::result(status, done).into_bits(),
        false => resume(control, done).into_bits(),
    };
    match is_64_bit {
        true => vcpu.gprs_mut()[if is_done { RAX } else { RCX }] = word,
        false => [vcpu.gprs_mut()[RAX], vcpu.gprs_mut()[RDX]] = [word & u64::from(u32::MAX), word >> 32],
    }
    if is_done {
        vcpu.skip_instruction(3);
    }
    Ok(control.call())
}

/// Finds the row of a call, and checks what can be checked before a parameter is read.
fn check<C: Caller>(
    caller: &C,
    table: fn(CallCode) -> Option<Row<C>>,
    control: HypercallInput,
    [input, output]: [u64; 2],
) -> Result<(Row<C>, Plan), HvStatus> {
    let row = table(control.call()).ok_or(HvStatus::INVALID_HYPERCALL_CODE)?;
    if !caller.privileges().contains(row.privilege) {
        return Err(HvStatus::ACCESS_DENIED);
    }
    let plan = row.spec.plan(control)?;
    if !plan.is_fast() {
        plan.check_addresses(input, output)?;
        let beyond = |address: u64, bytes: usize| bytes != 0 && address >= GPA_LIMIT;
        if beyond(input, plan.input_bytes()) || beyond(output, plan.output_bytes()) {
            return Err(HvStatus::INVALID_ALIGNMENT);
        }
    }
    Ok((row, plan))
}

/// Copies the parameters in, makes the call, and copies the results out: the fixed output of a call that succeeded, and
/// the elements that were done. Returns the status, and the repetition that comes next.
fn perform<C: Caller>(
    caller: &mut C,
    buffers: &mut Buffers,
    row: &Row<C>,
    plan: Plan,
    [input, output]: [u64; 2],
) -> Result<(HvStatus, usize), Unmapped> {
    let copy = buffers.input.get_mut(..plan.input_bytes().max(FAST_BYTES)).unwrap_or_default();
    if plan.is_fast() {
        for (place, word) in copy.chunks_exact_mut(8).zip([input, output]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    } else if let Some(copy) = copy.get_mut(..plan.input_bytes()).filter(|copy| !copy.is_empty()) {
        caller.read(Gpa(input), copy)?;
    }
    let result = buffers.output.get_mut(..plan.output_bytes()).unwrap_or_default();
    result.fill(0);
    let start = plan.reps().start;
    let mut call = Call { plan, input: copy, output: result, done: start };
    let status = (row.handler)(caller, &mut call).err().unwrap_or(HvStatus::SUCCESS);
    let done = call.done;
    let fixed = if status == HvStatus::SUCCESS { plan.output() } else { 0..0 };
    let elements = plan.output_element(start).start..plan.output_element(done).start;
    for range in [fixed, elements] {
        let start = range.start as u64;
        if let Some(bytes) = buffers.output.get(range).filter(|bytes| !bytes.is_empty()) {
            // A call with output is not fast, so that its address was checked.
            caller.write(Gpa(output + start), bytes)?;
        }
    }
    Ok((status, done))
}
