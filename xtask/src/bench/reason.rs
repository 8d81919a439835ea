//! Names of world switches (APM 2 appendix C; TLFS hypercalls).

/// Names the reason of an exit. `detail` is what the plugin adds to the exit code.
pub(super) fn name(code: u64, detail: u64) -> String {
    let number = detail & 0xffff_ffff;
    match code {
        0x40..=0x5f => format!("exception {}", code - 0x40),
        0x60 => "interrupt".into(),
        0x61 => "NMI".into(),
        0x63 => "INIT".into(),
        0x72 => "CPUID".into(),
        0x74 => "IRET".into(),
        0x77 => "PAUSE".into(),
        0x78 => "HLT".into(),
        0x7b => format!("port {detail:#x}"),
        0x7c if detail >> 32 == 0 => format!("read of MSR {}", msr(number)),
        0x7c => format!("write of MSR {}", msr(number)),
        0x7f => "shutdown".into(),
        0x81 => format!("hypercall {}", hypercall(detail)),
        0x8d => "XSETBV".into(),
        0x400 => format!("nested page fault ({detail:#x})"),
        code => format!("exit {code:#x}"),
    }
}

/// Registers that matter often enough to be known by name (SDM 4; TLFS msr).
fn msr(number: u64) -> String {
    let name = match number {
        0x1b => "APIC_BASE",
        0x6e0 => "TSC_DEADLINE",
        0x80b => "EOI",
        0x830 => "ICR",
        0x832 => "LVT_TIMER",
        0x838 => "TIMER_INITIAL_COUNT",
        0x4000_0070 => "HV_X64_MSR_EOI",
        0x4000_0071 => "HV_X64_MSR_ICR",
        0x4000_0084 => "HV_X64_MSR_EOM",
        0x4000_00b0 => "HV_X64_MSR_STIMER0_CONFIG",
        0x4000_00b1 => "HV_X64_MSR_STIMER0_COUNT",
        0x4000_00f0 => "HV_X64_MSR_GUEST_IDLE",
        number => return format!("{number:#x}"),
    };
    name.into()
}

/// Calls that matter often enough to be known by name.
fn hypercall(code: u64) -> String {
    let name = match code {
        0x02 | 0x13 => "FlushVirtualAddressSpace",
        0x03 | 0x14 => "FlushVirtualAddressList",
        0x08 => "NotifyLongSpinWait",
        0x0b | 0x15 => "SendSyntheticClusterIpi",
        0x50 => "GetVpRegisters",
        0x51 => "SetVpRegisters",
        0x5c => "PostMessage",
        0x5d => "SignalEvent",
        0x94 => "AssertVirtualInterrupt",
        0xc2 => "DispatchVp",
        code => return format!("{code:#x}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn reasons_have_names() {
        assert_eq!(name(0x72, 0), "CPUID");
        assert_eq!(name(0x7b, 0x3f8), "port 0x3f8");
        assert_eq!(name(0x7c, 1 << 32 | 0x830), "write of MSR ICR");
        assert_eq!(name(0x7c, 0x123), "read of MSR 0x123");
        assert_eq!(name(0x81, 0xc2), "hypercall DispatchVp");
    }
}
