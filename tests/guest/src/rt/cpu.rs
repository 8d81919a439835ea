//! Single instructions, and how to execute one that may fault.

use core::arch::{
    asm,
    x86_64::{__cpuid_count, CpuidResult},
};

/// Executes assembly that may fault, and gives what it comes to: `Ok(())`, or the fault. The assembly may not end
/// in a jump, and may use any register but R11 as usual.
macro_rules! attempt {
    ($($assembly:expr),+ ; $($operand:tt)*) => {{
        let cpu = $crate::rt::percpu::Cpu::current();
        cpu.expect_fault();
        // SAFETY: a fault resumes behind the assembly with the stack as before it (`trap`), and the caller vouches
        // for the instruction itself.
        unsafe {
            core::arch::asm!(
                "lea r11, [rip + 2f]", "mov gs:[8], r11", "mov gs:[16], rsp",
                $($assembly,)+
                "2:", "mov qword ptr gs:[8], 0",
                out("r11") _, $($operand)*
            );
        }
        cpu.fault()
    }};
}

pub(crate) use attempt;

/// CPUID.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// The time stamp counter, read after all that comes before it.
pub(crate) fn tsc() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads a counter.
    unsafe {
        asm!("lfence", "rdtsc", out("rax") low, out("rdx") high, options(nomem, nostack, preserves_flags))
    };
    high << 32 | low
}

/// Lets interrupts in.
pub(crate) fn enable_interrupts() {
    // SAFETY: every vector has a handler.
    unsafe { asm!("sti", "nop", options(nostack)) };
}

/// Keeps interrupts out.
pub(crate) fn disable_interrupts() {
    // SAFETY: only delays handlers.
    unsafe { asm!("cli", options(nostack)) };
}

/// Waits for an interrupt with the interrupt flag as it is.
pub(crate) fn halt() {
    // SAFETY: every interrupt has a handler.
    unsafe { asm!("hlt", options(nostack)) };
}

/// Lets interrupts in and waits for one, so that none comes between.
pub(crate) fn enable_and_halt() {
    // SAFETY: as for `halt`.
    unsafe { asm!("sti", "hlt", options(nostack)) };
}

/// PAUSE.
pub(crate) fn pause() {
    core::hint::spin_loop();
}

/// Makes a function that reads a control register, and one that writes it.
macro_rules! control_registers {
    ($($read:ident $write:ident $name:literal)*) => { $(
        #[doc = concat!("Reads ", $name, ".")]
        pub(crate) fn $read() -> u64 {
            let value;
            // SAFETY: has no effect.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }

        #[doc = concat!("Writes ", $name, "; tells whether that faulted.")]
        pub(crate) fn $write(value: u64) -> Result<(), super::percpu::Fault> {
            attempt!(concat!("mov ", $name, ", {value}"); value = in(reg) value)
        }
    )* };
}

control_registers! {
    cr0 set_cr0 "cr0"
    cr3 set_cr3 "cr3"
    cr4 set_cr4 "cr4"
    cr8 set_cr8 "cr8"
    dr0 set_dr0 "dr0"
    dr3 set_dr3 "dr3"
    dr6 set_dr6 "dr6"
    dr7 set_dr7 "dr7"
}

/// Reads CR2, the address of the last page fault.
pub(crate) fn cr2() -> u64 {
    let value;
    // SAFETY: has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Makes the next exception a triple fault: there is no interrupt table any more.
pub(crate) fn triple_fault() -> ! {
    let nothing = [0_u64; 2];
    // SAFETY: ends the machine, which is what the caller wants.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &raw const nothing, options(noreturn)) };
}

/// What the instructions of virtualization come to: VMRUN, VMLOAD, VMSAVE, STGI, CLGI and INVLPGA, those with an
/// operand with `page`.
pub(crate) fn virtualization(page: u64) -> [Result<(), super::percpu::Fault>; 6] {
    [
        attempt!("vmrun rax"; in("rax") page),
        attempt!("vmload rax"; in("rax") page),
        attempt!("vmsave rax"; in("rax") page),
        attempt!("stgi";),
        attempt!("clgi";),
        attempt!("invlpga rax, ecx"; in("rax") page, in("ecx") 1),
    ]
}

/// Makes functions that execute one instruction with ten registers as given, which are RBX's stand-in RSI, RDI, R8 to
/// R10 and R12 to R15, and RBP's stand-in; and the same instruction with the trap flag set.
macro_rules! instructions {
    ($($name:literal $assembly:literal $rax:literal $rcx:literal $rdx:literal;)*) => {
        /// Instructions that leave a guest, with ten registers that they must leave alone.
        pub(crate) const EXITS: &[(&str, fn(&mut [u64; 10]))] = &[$(($name, |registers| {
            let [rsi, rdi, r8, r9, r10, r12, r13, r14, r15, rbx] = registers;
            // SAFETY: the instructions read, or write what is there.
            unsafe {
                asm!("xchg rbx, r11", $assembly, "xchg rbx, r11",
                    inout("rax") $rax => _, inout("rcx") $rcx => _, inout("rdx") $rdx => _,
                    inout("rsi") *rsi, inout("rdi") *rdi, inout("r8") *r8, inout("r9") *r9, inout("r10") *r10,
                    inout("r11") *rbx, inout("r12") *r12, inout("r13") *r13, inout("r14") *r14, inout("r15") *r15);
            }
            if $name == "CPUID" {
                // It is about RBX too.
                *rbx = 0x1234_5678_9abc_def0 ^ 9 << 40;
            }
        })),*];

        /// What a single step over each of these instructions comes to, and where it ends.
        pub(crate) const STEPS: &[(&str, fn() -> (Result<(), super::percpu::Fault>, u64))] = &[$(($name, || {
            let end: u64;
            let cpu = super::percpu::Cpu::current();
            cpu.expect_fault();
            // SAFETY: as in `attempt`; RBX is put back however it ends.
            unsafe {
                asm!(
                    "mov r9, rbx", "lea r11, [rip + 2f]", "mov gs:[8], r11", "mov gs:[16], rsp",
                    "lea r10, [rip + 4f]", "pushfq", "or dword ptr [rsp], 0x100", "popfq",
                    $assembly, "4:", "nop",
                    "2:", "mov qword ptr gs:[8], 0", "mov rbx, r9",
                    inout("rax") $rax => _, inout("rcx") $rcx => _, inout("rdx") $rdx => _,
                    out("r9") _, out("r10") end, out("r11") _,
                );
            }
            let fault = cpu.fault();
            (fault, end)
        })),*];
    };
}

instructions! {
    "NOP" "nop" 0_u64 0_u64 0_u64;
    "CPUID" "cpuid" 0x4000_0003_u64 0_u64 0_u64;
    "RDMSR" "rdmsr" 0_u64 0xc000_0080_u64 0_u64;
    "WRMSR" "wrmsr" 0_u64 0x200_u64 0_u64;
    "IN" "in al, dx" 0_u64 0_u64 0x61_u64;
    "OUT" "out dx, al" 0_u64 0_u64 0x80_u64;
    "RDTSC" "rdtsc" 0_u64 0_u64 0_u64;
    "PAUSE" "pause" 0_u64 0_u64 0_u64;
}
