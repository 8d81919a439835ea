//! What machine this is: what the loader says, and what the processor says.

use super::{apic, cpu, memory, msr, percpu::MAX_VPS, time};

/// Longest command line that is read.
const MAX_LINE: usize = 512;
/// Most entries of the memory map that are kept.
const MAX_RAM: usize = 8;

/// What cases are told.
pub(crate) struct Machine {
    /// Whether the hypervisor's interface is there.
    pub(crate) is_partition: bool,
    /// Processors that run, this one included.
    pub(crate) vps: usize,
    /// RAM as start and end, where there is any.
    pub(crate) ram: [(u64, u64); MAX_RAM],
    line: [u8; MAX_LINE],
    line_len: usize,
}

/// `struct hvm_start_info` (Xen's `public/arch-x86/hvm/start_info.h`), version 1.
#[derive(Clone, Copy)]
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

/// `struct hvm_memmap_table_entry`.
#[derive(Clone, Copy)]
#[repr(C)]
struct MemoryMapEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

impl Machine {
    /// Reads what the loader left, and finds out how fast the time stamp counter runs.
    pub(super) fn discover(info: u64) -> Self {
        const RAM: u32 = 1;
        let info: StartInfo = memory::loaded(info);
        let mut machine = Self {
            is_partition: is_partition(),
            vps: 1,
            ram: [(0, 0); MAX_RAM],
            line: [0; MAX_LINE],
            line_len: 0,
        };
        for (index, byte) in machine.line.iter_mut().enumerate() {
            *byte = memory::loaded(info.command_line + index as u64);
            if *byte == 0 {
                break;
            }
            machine.line_len = index + 1;
        }
        let entries = (0..u64::from(info.memory_map_entries))
            .map(|nth| memory::loaded::<MemoryMapEntry>(info.memory_map + nth * 24))
            .filter(|entry| entry.kind == RAM);
        for (place, entry) in machine.ram.iter_mut().zip(entries) {
            *place = (entry.address, entry.address + entry.size);
        }
        let told = machine.is_partition.then(|| msr::try_read(tlfs::msr::TSC_FREQUENCY).ok()).flatten();
        time::set_tsc_hz(told.unwrap_or_else(|| time::measure_tsc(20_000)));
        if apic::has_x2apic() {
            apic::choose(apic::Mode::X2Apic);
        }
        machine
    }

    /// The value of `key=value` on the command line.
    pub(crate) fn parameter(&self, key: &str) -> Option<&str> {
        let line = str::from_utf8(self.line.get(..self.line_len)?).ok()?;
        line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// How many processors the command line says there are.
    pub(crate) fn told_vps(&self) -> Option<usize> {
        self.parameter("vps")?.parse().ok().filter(|vps| (1..=MAX_VPS).contains(vps))
    }
}

/// Whether CPUID tells of the interface (TLFS feature-discovery).
fn is_partition() -> bool {
    use tlfs::cpuid::{HYPERVISOR_PRESENT, INTERFACE, INTERFACE_SIGNATURE};
    cpu::cpuid(1, 0).ecx & HYPERVISOR_PRESENT != 0 && cpu::cpuid(INTERFACE, 0).eax == INTERFACE_SIGNATURE
}
