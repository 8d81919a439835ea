//! A partition with one processor, whose guest does one thing at a time as it is told.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use mshv_bindings::{
    HV_PAGE_SIZE, MSHV_SET_MEM_BIT_EXECUTABLE, MSHV_SET_MEM_BIT_WRITABLE, StandardRegisters,
    hv_partition_property_code_HV_PARTITION_PROPERTY_SYNTHETIC_PROC_FEATURES as SYNTHETIC_FEATURES,
    mshv_user_mem_region,
};
use mshv_ioctls::{Mshv, VmFd, VmType};
use tlfs::{CallCode, partition::SyntheticFeatures};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use worker::{boot::Entry, exit::Exit, layout::GDT, memory, memory::GuestRam, raw::OwnedVcpu, vp};

const BYTES: u64 = 1 << 20;
const CODE: u64 = 0x1000;
const IDT: u64 = 0x2000;
const STACK: u64 = 0x4000;
const HYPERCALL_PAGE: u64 = 0x5000;
const SIMP: u64 = 0x6000;
const SIEFP: u64 = 0x7000;
const INTERRUPTS: u64 = 0x8000;
const TABLES: [u64; 3] = [0x9000, 0xb000, 0xc000];
/// Where a hypercall's input in memory is.
pub const INPUT: u64 = 0xa000;
/// The source that is used, and its vector.
pub const SINT: u8 = 2;
const VECTOR: u64 = 0x40;

/// `out 0x10, eax`: the end of what the guest was told to do.
const DONE: (u64, &[u8]) = (CODE, &[0xe7, 0x10]);
/// `wrmsr`, and to the end.
const WRITE_MSR: (u64, &[u8]) = (CODE + 0x10, &[0x0f, 0x30, 0xeb, 0xec]);
/// `call rbx`, and to the end.
const CALL: (u64, &[u8]) = (CODE + 0x20, &[0xff, 0xd3, 0xeb, 0xdc]);
/// `sti; hlt; cli`, and to the end.
const WAIT: (u64, &[u8]) = (CODE + 0x30, &[0xfb, 0xf4, 0xfa, 0xeb, 0xcb]);
/// `inc qword [INTERRUPTS]; iretq`: without an end of interrupt, which the source does by itself.
const HANDLER: (u64, &[u8]) = (CODE + 0x40, &[0x48, 0xff, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00, 0x48, 0xcf]);

/// A hypercall that the parent was asked to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// RCX: the control word.
    pub control: u64,
    /// RDX: the input, or where it is.
    pub input: u64,
}

/// The partition.
pub struct Guest {
    /// Its descriptor.
    pub vm: VmFd,
    vp: OwnedVcpu,
    ram: GuestRam,
}

impl Guest {
    /// Creates it and switches on its local APIC, hypercalls and SynIC.
    ///
    /// # Errors
    /// What the kernel or the hypervisor refused.
    pub fn new() -> Result<Self> {
        let mshv = Mshv::new()?;
        let vm = mshv.create_vm_with_args(&mshv.make_default_partition_create_arg(VmType::Normal))?;
        let features = mshv.make_default_synthetic_features_mask() | SyntheticFeatures::SIGNAL_EVENTS.0;
        vm.set_partition_property(SYNTHETIC_FEATURES, features)?;
        vm.initialize()?;
        let ram = memory::allocate(BYTES).map_err(anyhow::Error::msg)?;
        let address = ram.get_host_address(GuestAddress(0))?.addr() as u64;
        vm.map_user_memory(mshv_user_mem_region {
            size: BYTES,
            guest_pfn: 0,
            userspace_addr: address,
            flags: 1 << MSHV_SET_MEM_BIT_WRITABLE | 1 << MSHV_SET_MEM_BIT_EXECUTABLE,
            ..Default::default()
        })?;
        let vp = OwnedVcpu::new(vm.create_vcpu(0)?);
        let guest = Self { vm, vp, ram };
        guest.prepare()?;
        Ok(guest)
    }

    fn prepare(&self) -> Result<()> {
        for (at, code) in [DONE, WRITE_MSR, CALL, WAIT, HANDLER] {
            self.ram.write_slice(code, GuestAddress(at))?;
        }
        // An interrupt gate for the code segment 0x10.
        self.set(IDT + VECTOR * 16, HANDLER.0 | 0x10 << 16 | 0x8e00 << 32)?;
        self.set(GDT + 0x10, 0x00af_9b00_0000_ffff)?;
        self.set(GDT + 0x18, 0x00cf_9300_0000_ffff)?;
        let [pml4, pdpt, directory] = TABLES;
        self.set(pml4, pdpt | 3)?;
        self.set(pdpt, directory | 3)?;
        self.set(directory, 0x83)?;
        let entry = Entry::Long { rip: DONE.0, cr3: pml4, boot_params: 0 };
        let (_, mut special) = vp::entry_state(entry, self.vp.get_sregs()?);
        (special.idt.base, special.idt.limit) = (IDT, HV_PAGE_SIZE as u16 - 1);
        self.vp.set_sregs(&special)?;
        // x2APIC mode, software enable; identity, hypercall page, controller, pages, source with auto-EOI.
        for (number, value) in [
            (0x1b, 0xfee0_0d00),
            (0x80f, 0x1ff),
            (tlfs::msr::GUEST_OS_ID, 1),
            (tlfs::msr::HYPERCALL, HYPERCALL_PAGE | 1),
            (tlfs::msr::SCONTROL, 1),
            (tlfs::msr::SIMP, SIMP | 1),
            (tlfs::msr::SIEFP, SIEFP | 1),
            (tlfs::msr::SINT0 + u32::from(SINT), VECTOR | 1 << 17),
        ] {
            self.write_msr(number, value).with_context(|| format!("MSR {number:#x}"))?;
        }
        Ok(())
    }

    /// Writes a word of the guest's memory.
    ///
    /// # Errors
    /// It is outside.
    pub fn set(&self, at: u64, value: u64) -> Result<()> {
        Ok(self.ram.store(value, GuestAddress(at), Ordering::SeqCst)?)
    }

    /// Reads a word of the guest's memory.
    ///
    /// # Errors
    /// It is outside.
    pub fn get(&self, at: u64) -> Result<u64> {
        Ok(self.ram.load(GuestAddress(at), Ordering::SeqCst)?)
    }

    /// The words of the source's message slot: type, size and flags; port; payload.
    ///
    /// # Errors
    /// None.
    pub fn slot(&self) -> Result<[u64; 3]> {
        let at = SIMP + 256 * u64::from(SINT);
        Ok([self.get(at)?, self.get(at + 8)?, self.get(at + 16)?])
    }

    /// Empties the message slot and says so to the hypervisor.
    ///
    /// # Errors
    /// As [`Self::write_msr`].
    pub fn end_message(&self) -> Result<()> {
        self.set(SIMP + 256 * u64::from(SINT), 0)?;
        self.write_msr(tlfs::msr::EOM, 0)
    }

    /// The 64 event flags of the source from `first` on.
    ///
    /// # Errors
    /// None.
    pub fn flags(&self, first: u64) -> Result<u64> {
        self.get(SIEFP + 256 * u64::from(SINT) + first / 8)
    }

    /// How many interrupts of the source the guest has taken.
    ///
    /// # Errors
    /// None.
    pub fn interrupts(&self) -> Result<u64> {
        self.get(INTERRUPTS)
    }

    /// Lets the guest write an MSR.
    ///
    /// # Errors
    /// It does not come to its end.
    pub fn write_msr(&self, number: u32, value: u64) -> Result<()> {
        let registers = StandardRegisters {
            rcx: number.into(),
            rax: value & 0xffff_ffff,
            rdx: value >> 32,
            ..Default::default()
        };
        self.run(WRITE_MSR.0, registers, |_| 0).map(drop)
    }

    /// Lets the guest halt until an interrupt comes.
    ///
    /// # Errors
    /// As [`Self::write_msr`].
    pub fn wait(&self) -> Result<()> {
        self.run(WAIT.0, StandardRegisters::default(), |_| 0).map(drop)
    }

    /// Lets the guest make a hypercall and returns its status. `answer` is asked where the hypervisor asks the parent.
    ///
    /// # Errors
    /// As [`Self::write_msr`].
    pub fn call(
        &self,
        code: CallCode,
        fast: bool,
        input: u64,
        answer: impl FnMut(Asked) -> u64,
    ) -> Result<u64> {
        let registers = StandardRegisters {
            rbx: HYPERCALL_PAGE,
            rcx: u64::from(code.0) | u64::from(fast) << 16,
            rdx: input,
            ..Default::default()
        };
        self.run(CALL.0, registers, answer)
    }

    fn run(
        &self,
        rip: u64,
        registers: StandardRegisters,
        mut answer: impl FnMut(Asked) -> u64,
    ) -> Result<u64> {
        self.vp.set_regs(&StandardRegisters { rip, rsp: STACK, rflags: 2, ..registers })?;
        loop {
            let message = self.vp.run()?;
            match Exit::of(&message) {
                Exit::IoPort(access) if access.port == 0x10 => return Ok(access.rax & 0xffff_ffff),
                Exit::Hypercall(call) => {
                    let rax = answer(Asked { control: call.control, input: call.input });
                    let rip = call.header.rip + u64::from(call.header.instruction_len);
                    self.vp.set_regs(&StandardRegisters { rax, rip, ..self.vp.get_regs()? })?;
                }
                exit => bail!("the guest left by {exit:x?}"),
            }
        }
    }
}
