//! A child's memory as the hypervisor sees it on the child's behalf: copied, never referenced.
//!
//! A page of a child can be unmapped at any time: Linux maps a child's memory page by page as it is touched, and
//! takes pages back when it likes. Whatever needs one that is not there ends in [`ChildCpu::need`]: the root is
//! told as if the guest had touched the page, maps it, and the VP does the same again.

use hal::{
    addr::{Gpa, Hpa, PAGE_SIZE},
    cpu,
    mem::foreign,
    virt::{Register, SegmentName, Vcpu},
};
use model::{
    ensure, insn,
    intercept::InstructionBytes,
    walk::{self, GpaError, GuestMemory, Paging, WalkError},
};
use tlfs::{HvStatus, partition::Privileges, vp::TranslateFlags};

use super::{ChildCpu, Next};
use crate::{
    hypercall::{Caller, Unmapped},
    partition::Partition,
    port::Party,
};

/// A partition's physical memory, for a walk of the guest's page tables.
pub struct Walker<'a>(pub &'a Partition);

impl Walker<'_> {
    fn with<R>(&self, gpa: u64, write: bool, access: impl FnOnce(Hpa) -> Option<R>) -> Result<R, GpaError> {
        let result = self.0.space.with(Gpa(gpa), |translation| {
            ensure(!write || translation.access.write, GpaError::NoWriteAccess)?;
            access(translation.hpa).ok_or(GpaError::Unmapped)
        });
        result.unwrap_or(Err(GpaError::Unmapped))
    }
}

impl GuestMemory for Walker<'_> {
    fn read_u64(&self, gpa: u64) -> Result<u64, GpaError> {
        self.with(gpa, false, |hpa| foreign::read_value(hpa).ok())
    }

    fn set_bits(&self, gpa: u64, expected: u64, bits: u64) -> Result<bool, GpaError> {
        self.with(gpa, true, |hpa| foreign::set_bits(hpa, expected, bits).ok())
    }
}

/// What decides how the VP's virtual addresses are translated.
pub fn paging(vcpu: &Vcpu) -> Paging {
    Paging {
        cr0: vcpu.get(Register::Cr0),
        cr3: vcpu.get(Register::Cr3),
        cr4: vcpu.get(Register::Cr4),
        efer: vcpu.get(Register::Efer),
        physical_bits: cpu::physical_address_bits() as u8,
        has_1g_pages: cpu::has_gigabyte_pages(),
    }
}

/// Copies from or to consecutive guest-physical addresses, page by page.
fn each_page(
    partition: &Partition,
    gpa: Gpa,
    len: usize,
    write: bool,
    mut copy: impl FnMut(Hpa, core::ops::Range<usize>) -> bool,
) -> Result<(), Unmapped> {
    let mut done = 0;
    while done < len {
        let at = gpa.checked_add(done as u64).ok_or(Unmapped { gpa, write })?;
        let now = (len - done).min(PAGE_SIZE - at.offset());
        let range = done..done + now;
        let copied = partition
            .space
            .with(at, |translation| (!write || translation.access.write) && copy(translation.hpa, range));
        ensure(copied == Some(true), Unmapped { gpa: at, write })?;
        done += now;
    }
    Ok(())
}

/// Copies from a partition's memory.
///
/// # Errors
/// A page is not mapped.
pub fn read(partition: &Partition, gpa: Gpa, into: &mut [u8]) -> Result<(), Unmapped> {
    let len = into.len();
    each_page(partition, gpa, len, false, |hpa, range| {
        into.get_mut(range).is_some_and(|into| foreign::read(hpa, into).is_ok())
    })
}

/// Copies to a partition's memory.
///
/// # Errors
/// A page is not mapped, or not writable.
pub fn write(partition: &Partition, gpa: Gpa, from: &[u8]) -> Result<(), Unmapped> {
    each_page(partition, gpa, from.len(), true, |hpa, range| {
        from.get(range).is_some_and(|from| foreign::write(hpa, from).is_ok())
    })
}

impl ChildCpu<'_> {
    /// Fetches the bytes of the instruction at RIP, as many as can be had without crossing into a page that cannot.
    ///
    /// # Errors
    /// A page that the fetch needs is not mapped. A fault of the guest's own paging yields no bytes: the
    /// instruction was fetched once, so the guest is changing its page tables under itself.
    pub(super) fn fetch(&self) -> Result<InstructionBytes, Unmapped> {
        let vcpu = &self.ctx.vcpu;
        if !vcpu.fetched_bytes().is_empty() {
            return Ok(InstructionBytes::new(vcpu.fetched_bytes()));
        }
        let base = if vcpu.runs_64_bit_code() { 0 } else { vcpu.segment(SegmentName::Cs).base };
        let rip = base.wrapping_add(vcpu.get(Register::Rip));
        let mut bytes = [0; insn::MAX_LENGTH];
        let first = (PAGE_SIZE - (rip as usize & (PAGE_SIZE - 1))).min(bytes.len());
        let (head, tail) = bytes.split_at_mut(first);
        if !self.fetch_part(rip, head)? {
            return Ok(InstructionBytes::default());
        }
        let more = !tail.is_empty() && self.fetch_part(rip.wrapping_add(first as u64), tail).unwrap_or(false);
        Ok(InstructionBytes::new(if more { &bytes } else { bytes.get(..first).unwrap_or_default() }))
    }

    fn fetch_part(&self, gva: u64, into: &mut [u8]) -> Result<bool, Unmapped> {
        match self.walk(gva, TranslateFlags::VALIDATE_EXECUTE) {
            Ok(gpa) => read(&self.vp.partition, gpa, into).map(|()| true),
            // A page of the guest's tables is missing.
            Err(WalkError::Gpa { gpa, .. }) => Err(Unmapped { gpa: Gpa(gpa), write: false }),
            Err(_) => Ok(false),
        }
    }

    /// Translates a linear address of a data access.
    pub(super) fn translate(&self, gva: u64, write: bool) -> Result<Gpa, WalkError> {
        self.walk(gva, if write { TranslateFlags::VALIDATE_WRITE } else { TranslateFlags::VALIDATE_READ })
    }

    fn walk(&self, gva: u64, flags: TranslateFlags) -> Result<Gpa, WalkError> {
        let vcpu = &self.ctx.vcpu;
        let access = walk::Access::from_flags(flags, vcpu.privilege(), vcpu.get(Register::Rflags));
        walk::translate(&Walker(&self.vp.partition), &paging(vcpu), gva, access).map(|found| Gpa(found.gpa))
    }

    /// Ends the dispatch so that the root maps a page; the VP then does the same again.
    pub(super) fn need(&mut self, unmapped: Unmapped) -> Next {
        self.report_memory(unmapped.gpa, unmapped.write, false, InstructionBytes::default())
    }
}

impl Caller for ChildCpu<'_> {
    fn vcpu(&mut self) -> &mut Vcpu {
        &mut self.ctx.vcpu
    }

    fn privileges(&self) -> Privileges {
        self.vp.partition.profile.lock().privileges
    }

    fn party(&self) -> Party {
        Some(self.vp.partition.clone())
    }

    /// A connection that is not known here may be the parent's to serve (docs/adr/0010). No other call has this status.
    fn defers(&self, status: HvStatus) -> bool {
        status == HvStatus::INVALID_CONNECTION_ID && self.vp.partition.intercepts.has_hypercalls()
    }

    fn read(&mut self, gpa: Gpa, into: &mut [u8]) -> Result<(), Unmapped> {
        read(&self.vp.partition, gpa, into)
    }

    fn write(&mut self, gpa: Gpa, from: &[u8]) -> Result<(), Unmapped> {
        write(&self.vp.partition, gpa, from)
    }
}
