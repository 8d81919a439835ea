//! The hypercall dispatcher: a table arm for each call, and the one path that every call takes.
//!
//! How large the parameters of a call are is what the types of its handler say, so that no table can contradict them.
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

use core::{marker::PhantomData, ops::Range};

use hal::{
    addr::{Gpa, Hpa, PAGE_SIZE},
    list::{Full, List},
    mem::space::MapError,
    virt::{R8, RAX, RBX, RCX, RDI, RDX, RSI, Vcpu},
};
use model::{
    call::{CallSpec, FAST_BYTES, Plan, resume},
    ensure,
};
use tlfs::{CallCode, HvStatus, HypercallInput, HypercallOutput, partition::Privileges};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::port::Party;
use partition::map_status;

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

/// A value that a call takes.
pub trait Input: FromBytes + KnownLayout + Immutable {}
impl<T: FromBytes + KnownLayout + Immutable> Input for T {}

/// A value that a call returns.
pub trait Output: IntoBytes + Immutable {}
impl<T: IntoBytes + Immutable> Output for T {}

/// What a handler without output returns: nothing, or the status for the caller.
pub type Outcome<T = ()> = Result<T, HvStatus>;

/// How a call ended: its status, and the repetition that comes next. Without either, an address leads nowhere.
pub type Answer = Result<(HvStatus, usize), Unmapped>;

/// One call in progress: its parameters, and how far it got. Its list has elements `E`, and returns elements `R`.
pub struct Call<'a, E = (), R = ()> {
    plan: Plan,
    input: &'a [u8],
    output: &'a mut [u8],
    done: usize,
    elements: PhantomData<(E, R)>,
}

impl<E: Input, R: Output> Call<'_, E, R> {
    /// A value at `offset` in the input.
    ///
    /// # Errors
    /// The input ends before it.
    pub fn at<T: Input>(&self, offset: usize) -> Outcome<T> {
        let bytes = self.input.get(offset..).ok_or(HvStatus::INVALID_HYPERCALL_INPUT)?;
        T::read_from_prefix(bytes).map(|(value, _)| value).map_err(|_| HvStatus::INVALID_HYPERCALL_INPUT)
    }

    /// The variable header.
    pub fn variable(&self) -> &[u8] {
        self.input.get(self.plan.variable()).unwrap_or_default()
    }

    /// The elements to work on now: at most [`REPS_AT_ONCE`].
    pub fn batch(&self) -> Range<usize> {
        let reps = self.plan.reps();
        reps.start..reps.end.min(reps.start + REPS_AT_ONCE)
    }

    /// Ends a call that did all its elements at once.
    ///
    /// # Errors
    /// None.
    pub fn finish(&mut self) -> Outcome {
        self.done = self.plan.reps().end;
        Ok(())
    }

    /// Ends a batch, of which so many elements were done in a space.
    ///
    /// # Errors
    /// What stopped it.
    pub fn did(&mut self, (done, result): (usize, Result<(), MapError>)) -> Outcome {
        self.done = self.plan.reps().start + done;
        result.map_err(map_status)
    }

    /// Works on the elements of a batch, given by number and value, up to one that fails; those before it are done.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn each(&mut self, mut work: impl FnMut(usize, E) -> Outcome<R>) -> Outcome {
        for rep in self.batch() {
            let result = work(rep, self.at(self.plan.element(rep).start)?)?;
            self.put(self.plan.output_element(rep).start, &result);
            self.done = rep + 1;
        }
        Ok(())
    }

    fn put(&mut self, start: usize, value: &impl Output) {
        let bytes = value.as_bytes();
        if let Some(place) = self.output.get_mut(start..start + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

impl<R: Output> Call<'_, u64, R> {
    /// The pages of a batch that lists them.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`: no memory can be there.
    pub fn pages(&self) -> Outcome<List<Hpa, REPS_AT_ONCE>> {
        let mut pages = List::default();
        for rep in self.batch() {
            let number: u64 = self.at(self.plan.element(rep).start)?;
            ensure(number < 1 << 40, HvStatus::INVALID_PARAMETER)?;
            pages.push(Hpa::from_page(number)).map_err(|Full| HvStatus::NO_RESOURCES)?;
        }
        Ok(pages)
    }
}

/// A call on its way through the table of its caller's calls. An arm of the table says what the caller's partition
/// must be allowed to do, and hands the call to its handler by the method that fits the call's kind.
pub struct Request<'a, C> {
    caller: &'a mut C,
    buffers: &'a mut Buffers,
    control: HypercallInput,
    addresses: [u64; 2],
}

impl<C: Caller> Request<'_, C> {
    /// The call's code.
    pub fn code(&self) -> CallCode {
        self.control.call()
    }

    /// A call that the table does not have.
    pub fn unknown(self) -> Answer {
        Ok((HvStatus::INVALID_HYPERCALL_CODE, self.control.rep_start()))
    }

    /// A call without repetitions.
    pub fn simple<I: Input, O: Output>(
        self,
        privilege: Privileges,
        handler: fn(&mut C, I) -> Outcome<O>,
    ) -> Answer {
        self.make::<(), ()>(CallSpec::simple(size_of::<I>(), size_of::<O>()), privilege, |caller, call| {
            let output = handler(caller, call.at(0)?)?;
            call.put(0, &output);
            Ok(())
        })
    }

    /// A call without repetitions that may have a variable header.
    pub fn variable<I: Input, O: Output>(
        self,
        privilege: Privileges,
        handler: fn(&mut C, I, &Call) -> Outcome<O>,
    ) -> Answer {
        let spec = CallSpec::simple(size_of::<I>(), size_of::<O>()).variable();
        self.make(spec, privilege, |caller, call| {
            let output = handler(caller, call.at(0)?, call)?;
            call.put(0, &output);
            Ok(())
        })
    }

    /// A call with a list of input elements, output elements, both or neither.
    pub fn rep<I: Input, E: Input, R: Output>(
        self,
        privilege: Privileges,
        handler: fn(&mut C, I, &mut Call<E, R>) -> Outcome,
    ) -> Answer {
        let spec = CallSpec::rep(size_of::<I>(), size_of::<E>(), size_of::<R>());
        self.make(spec, privilege, |caller, call| handler(caller, call.at(0)?, call))
    }

    /// A call with a list that may have a variable header.
    pub fn variable_rep<I: Input, E: Input, R: Output>(
        self,
        privilege: Privileges,
        handler: fn(&mut C, I, &mut Call<E, R>) -> Outcome,
    ) -> Answer {
        let spec = CallSpec::rep(size_of::<I>(), size_of::<E>(), size_of::<R>()).variable();
        self.make(spec, privilege, |caller, call| handler(caller, call.at(0)?, call))
    }

    /// Copies the parameters in, makes the call, and copies the results out: the fixed output of a call that succeeded,
    /// and the elements that were done.
    fn make<E: Input, R: Output>(
        mut self,
        spec: CallSpec,
        privilege: Privileges,
        handler: impl FnOnce(&mut C, &mut Call<E, R>) -> Outcome,
    ) -> Answer {
        let plan = match self.check(spec, privilege) {
            Ok(plan) => plan,
            Err(status) => return Ok((status, self.control.rep_start())),
        };
        self.copy_in(&plan)?;
        let Buffers { input, output } = &mut *self.buffers;
        let input = input.get(..plan.input_bytes().max(FAST_BYTES)).unwrap_or_default();
        let output = output.get_mut(..plan.output_bytes()).unwrap_or_default();
        let mut call = Call { plan, input, output, done: plan.reps().start, elements: PhantomData };
        let status = handler(self.caller, &mut call).err().unwrap_or(HvStatus::SUCCESS);
        let done = call.done;
        self.copy_out(&plan, status, done)?;
        Ok((status, done))
    }

    /// Checks what can be checked before a parameter is read.
    fn check(&self, spec: CallSpec, privilege: Privileges) -> Outcome<Plan> {
        ensure(self.caller.privileges().contains(privilege), HvStatus::ACCESS_DENIED)?;
        let plan = spec.plan(self.control)?;
        let [input, output] = self.addresses;
        if !plan.is_fast() {
            plan.check_addresses(input, output)?;
            let is_within = |address: u64, bytes: usize| bytes == 0 || address < GPA_LIMIT;
            let are_within = is_within(input, plan.input_bytes()) && is_within(output, plan.output_bytes());
            ensure(are_within, HvStatus::INVALID_ALIGNMENT)?;
        }
        Ok(plan)
    }

    fn copy_in(&mut self, plan: &Plan) -> Result<(), Unmapped> {
        let Buffers { input, output } = &mut *self.buffers;
        output.get_mut(..plan.output_bytes()).unwrap_or_default().fill(0);
        if plan.is_fast() {
            for (place, word) in input.chunks_exact_mut(8).zip(self.addresses) {
                place.copy_from_slice(&word.to_le_bytes());
            }
            return Ok(());
        }
        let copy = input.get_mut(..plan.input_bytes()).unwrap_or_default();
        if copy.is_empty() { Ok(()) } else { self.caller.read(Gpa(self.addresses[0]), copy) }
    }

    fn copy_out(&mut self, plan: &Plan, status: HvStatus, done: usize) -> Result<(), Unmapped> {
        let fixed = if status == HvStatus::SUCCESS { plan.output() } else { 0..0 };
        let elements = plan.output_element(plan.reps().start).start..plan.output_element(done).start;
        for range in [fixed, elements] {
            let start = range.start as u64;
            if let Some(bytes) = self.buffers.output.get(range).filter(|bytes| !bytes.is_empty()) {
                // A call with output is not fast, so that its address was checked.
                self.caller.write(Gpa(self.addresses[1] + start), bytes)?;
            }
        }
        Ok(())
    }
}

/// Carries out the call that `caller` made by the hypercall instruction, and returns its code. Code of 32 bits passes
/// words in pairs of registers (TLFS hypercall-interface, "Register Mapping").
///
/// # Errors
/// It was not carried out, and the registers are as before.
pub fn execute<C: Caller>(
    caller: &mut C,
    buffers: &mut Buffers,
    table: fn(Request<C>) -> Answer,
) -> Result<CallCode, Undone> {
    let is_64_bit = caller.vcpu().runs_64_bit_code();
    let gprs = caller.vcpu().gprs();
    let pair = |high, low| gprs[high] << 32 | gprs[low] & u64::from(u32::MAX);
    let [control, addresses @ ..] = match is_64_bit {
        true => [gprs[RCX], gprs[RDX], gprs[R8]],
        false => [pair(RDX, RAX), pair(RBX, RCX), pair(RDI, RSI)],
    };
    let control = HypercallInput::from_bits(control);
    let request = Request { caller: &mut *caller, buffers, control, addresses };
    let (status, done) = table(request).map_err(Undone::Unmapped)?;
    ensure(!caller.defers(status), Undone::Deferred)?;
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
