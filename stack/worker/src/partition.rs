//! A child partition on `/dev/mshv`: created, given features and memory, asked for processors and interrupts.
//!
//! The order is the kernel's (Linux `drivers/hv/mshv_root_main.c`): features between creation and
//! initialization, memory and processors after it. The partition goes when its last descriptor and mapping
//! are closed, which the end of the process does in any case.

use std::{fmt, sync::Arc};

use control::VmConfig;
use mshv_bindings::{
    HV_INTERCEPT_ACCESS_MASK_EXECUTE, HV_PAGE_SIZE, MSHV_NUM_CPU_FEATURES_BANKS,
    MSHV_PT_BIT_CPU_AND_XSAVE_FEATURES, MSHV_PT_BIT_GPA_SUPER_PAGES, MSHV_PT_BIT_LAPIC, MSHV_PT_BIT_X2APIC,
    MSHV_SET_MEM_BIT_EXECUTABLE, MSHV_SET_MEM_BIT_WRITABLE,
    hv_intercept_type_HV_INTERCEPT_TYPE_HYPERCALL as HYPERCALLS, hv_interrupt_type,
    hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSOR_FEATURES0 as PROCESSOR_FEATURES_0,
    hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSOR_FEATURES1 as PROCESSOR_FEATURES_1,
    hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSORS_PER_SOCKET as PROCESSORS_PER_SOCKET,
    hv_partition_property_code_HV_PARTITION_PROPERTY_SYNTHETIC_PROC_FEATURES as SYNTHETIC_FEATURES,
    hv_partition_property_code_HV_PARTITION_PROPERTY_UNIMPLEMENTED_MSR_ACTION as UNIMPLEMENTED_MSR_ACTION,
    hv_unimplemented_msr_action_HV_UNIMPLEMENTED_MSR_ACTION_IGNORE_WRITE_READ_ZERO as IGNORE_WRITE_READ_ZERO,
    mshv_create_partition_v2, mshv_install_intercept, mshv_user_mem_region,
};
use mshv_ioctls::{InterruptRequest, IoEventAddress, Mshv, MshvError, NoDatamatch, VmFd};
use tlfs::{ConnectionId, synic::HvMessage};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::IntoBytes;

use crate::{
    device::ioapic::{Interrupt, InterruptSink},
    memory::GuestRam,
    raw::OwnedVcpu,
    synthetic::Link,
};

/// What the guest gets of the hypervisor (`hv_partition_synthetic_processor_features`): presence and
/// interface, reference counter and TSC page, SynIC, timers (direct mode too), APIC registers, hypercalls, VP
/// index, guest idle, frequencies, sparse processor sets, TLB flush, cluster IPIs, long spin waits, messages
/// and events, VP registers. A hypervisor that lacks one leaves it out.
const ENLIGHTENMENTS: u64 = bits(&[0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 22, 24, 25, 26, 27, 29, 38]);
/// XSAVE features that a guest may have (`hv_partition_processor_xsave_features`): XSAVE with its optimized,
/// compacted and supervisor forms, AVX, AVX2 and FMA.
const XSAVE_FEATURES: u64 = bits(&[0, 1, 2, 3, 4, 11, 12]);

const fn bits(set: &[u32]) -> u64 {
    let (mut mask, mut at) = (0, 0);
    while at < set.len() {
        mask |= 1 << set[at];
        at += 1;
    }
    mask
}

/// A step that the kernel or the hypervisor refused.
#[derive(Debug)]
pub struct PartitionError {
    step: &'static str,
    error: MshvError,
}

impl fmt::Display for PartitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, error } = self;
        write!(f, "cannot {step}: {error}")?;
        if *step == OPEN {
            write!(
                f,
                "; start bulkheadd in the root partition, as root, with a kernel that has CONFIG_MSHV_ROOT"
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for PartitionError {}

const OPEN: &str = "open /dev/mshv";

/// Turns an error of one call into one that says which call it was.
trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, PartitionError>;
}

impl<T> Step<T> for Result<T, MshvError> {
    fn step(self, step: &'static str) -> Result<T, PartitionError> {
        self.map_err(|error| PartitionError { step, error })
    }
}

/// A child partition.
#[derive(Clone)]
pub struct Partition {
    vm: Arc<VmFd>,
}

impl Partition {
    /// Creates and initializes a partition with local APICs and with what of the host's processor guests can
    /// have.
    ///
    /// # Errors
    ///
    /// The step that failed.
    pub fn create(config: &VmConfig) -> Result<Self, PartitionError> {
        let mshv = Mshv::new().step(OPEN)?;
        let feature = |code| {
            mshv.get_host_partition_property(code).step("ask the hypervisor for the processor's features")
        };
        let disabled = [!feature(PROCESSOR_FEATURES_0)?, !feature(PROCESSOR_FEATURES_1)?];
        let flags = bits(&[
            MSHV_PT_BIT_LAPIC,
            MSHV_PT_BIT_X2APIC,
            MSHV_PT_BIT_GPA_SUPER_PAGES,
            MSHV_PT_BIT_CPU_AND_XSAVE_FEATURES,
        ]);
        let arguments = mshv_create_partition_v2 {
            pt_flags: flags,
            pt_num_cpu_fbanks: MSHV_NUM_CPU_FEATURES_BANKS as u16,
            pt_cpu_fbanks: disabled,
            pt_disabled_xsave: !XSAVE_FEATURES,
            ..Default::default()
        };
        let vm = mshv.create_vm_with_args(&arguments).step("create a partition")?;
        let features = if config.enlightenments { ENLIGHTENMENTS } else { 0 };
        vm.set_partition_property(SYNTHETIC_FEATURES, features).step("set the partition's features")?;
        vm.initialize().step("initialize the partition")?;
        vm.set_partition_property(UNIMPLEMENTED_MSR_ACTION, IGNORE_WRITE_READ_ZERO.into())
            .step("choose what unimplemented registers do")?;
        // One socket. Without the property the hypervisor has a topology of its own choice.
        if let Err(error) = vm.set_partition_property(PROCESSORS_PER_SOCKET, config.vps.into()) {
            tracing::debug!(%error, "topology cannot be chosen");
        }
        Ok(Self { vm: Arc::new(vm) })
    }

    /// Makes `ram` the partition's memory. It must outlive the partition's last processor.
    ///
    /// # Errors
    ///
    /// What the kernel or the hypervisor says.
    pub fn map(&self, ram: &GuestRam) -> Result<(), PartitionError> {
        const PAGE: u64 = HV_PAGE_SIZE as u64;
        for region in ram.iter() {
            let address = ram.get_host_address(region.start_addr()).map_or(0, |host| host.addr() as u64);
            let request = mshv_user_mem_region {
                size: region.len(),
                guest_pfn: region.start_addr().raw_value() / PAGE,
                userspace_addr: address,
                flags: 1 << MSHV_SET_MEM_BIT_WRITABLE | 1 << MSHV_SET_MEM_BIT_EXECUTABLE,
                ..Default::default()
            };
            self.vm.map_user_memory(request).step("give the partition its memory")?;
        }
        Ok(())
    }

    /// Has messages that the guest posts to connections which it does not have reported as hypercalls
    /// (`docs/adr/0010-guest-to-host-signals.md`).
    ///
    /// # Errors
    ///
    /// What the kernel or the hypervisor says.
    pub fn report_messages(&self) -> Result<(), PartitionError> {
        let calls = mshv_install_intercept {
            access_type_mask: HV_INTERCEPT_ACCESS_MASK_EXECUTE,
            intercept_type: HYPERCALLS,
            ..Default::default()
        };
        self.vm.install_intercept(calls).step("have hypercalls of the guest reported")
    }

    /// Adds the processor with this index, which is also its APIC id.
    ///
    /// # Errors
    ///
    /// What the kernel or the hypervisor says.
    pub fn create_vp(&self, index: u8) -> Result<OwnedVcpu, PartitionError> {
        self.vm.create_vcpu(index).step("create a virtual processor").map(OwnedVcpu::new)
    }
}

/// Where a signal of the guest counts as a write. Connection ids have 24 bits, so all have a place.
fn doorbell(connection: u32) -> IoEventAddress {
    IoEventAddress::Mmio(ConnectionId(connection).event_doorbell().unwrap_or(u64::MAX))
}

impl Link for Partition {
    fn post(&self, vp: u32, sint: u8, message: &HvMessage) -> Result<(), MshvError> {
        self.vm.post_message_direct(vp, sint, message.as_bytes())
    }

    fn signal(&self, vp: u32, sint: u8, flag: u16) -> Result<(), MshvError> {
        self.vm.signal_event_direct(vp, sint, flag).map(drop)
    }

    fn ring(&self, bell: &EventFd, connection: u32) -> Result<(), MshvError> {
        self.vm.register_ioevent(bell, &doorbell(connection), NoDatamatch)
    }

    fn unring(&self, bell: &EventFd, connection: u32) {
        if let Err(error) = self.vm.unregister_ioevent(bell, &doorbell(connection), NoDatamatch) {
            tracing::warn!(connection, %error, "the doorbell stays");
        }
    }
}

impl InterruptSink for Partition {
    fn assert(&self, interrupt: Interrupt) {
        let request = InterruptRequest {
            // The numbers of the delivery modes are those of the I/O APIC.
            interrupt_type: hv_interrupt_type::from(interrupt.delivery),
            apic_id: interrupt.destination.into(),
            vector: interrupt.vector.into(),
            level_triggered: interrupt.level,
            logical_destination_mode: interrupt.logical,
            long_mode: false,
        };
        if let Err(error) = self.vm.request_virtual_interrupt(&request) {
            tracing::warn!(?interrupt, %error, "interrupt is lost");
        }
    }
}
