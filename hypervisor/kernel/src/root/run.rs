//! The loop in which each LP runs its root processor, and through it the children that the root dispatches.

use core::sync::atomic::Ordering;

use hal::{
    addr::Gpa,
    lp::PerLp,
    mem::{
        boot, foreign, frame,
        space::{Access, MapError, PageSize},
    },
    sync::SpinLock,
    virt::{Event, Exit, GpaFault, Register, Segment, SegmentName, Vcpu, lps, svm::Kind},
};
use tlfs::partition::Privileges;

use super::{INIT, RootVp, START, cpuid, identity, msr, root, start::Entry};
use crate::{
    hypercall::{self, Buffers, Caller, Unmapped},
    port::Party,
    timer::{self, Holder},
};

/// A root processor, on the LP that runs it.
pub struct RootCpu {
    /// Its registers.
    pub vcpu: Vcpu,
    /// What others see of it.
    pub vp: &'static RootVp,
    /// Copies of hypercall parameters; absent while a call is being carried out.
    buffers: Option<&'static mut Buffers>,
    /// The same for the child that this LP runs.
    pub child_buffers: Option<&'static mut Buffers>,
    /// Its NMI waits for the guest to take another event first.
    nmi: bool,
    /// Who has the APIC timer, as the intercepts are set.
    timer: Holder,
}

static CPUS: PerLp<SpinLock<Option<RootCpu>>> = PerLp::new();

/// Makes the root's processors. Boot only, on LP 0, after the root was built.
pub fn make_cpus() {
    CPUS.init(|lp| {
        let vcpu = Vcpu::new(Kind::Root, root().maps.free, root().maps.ports);
        let make = || boot::slice(1, |_| Buffers::new()).and_then(|slice| slice.first_mut());
        let (buffers, child_buffers) = (make(), make());
        let vp = &root().vps[lp.0 as usize];
        let complete = vcpu.ok().filter(|_| buffers.is_some() && child_buffers.is_some());
        SpinLock::new(complete.map(|vcpu| RootCpu {
            vcpu,
            vp,
            buffers,
            child_buffers,
            nmi: false,
            timer: Holder::Root,
        }))
    });
}

/// Runs the root processor of this LP for ever: from `entry`, or from a start-up IPI.
pub fn run(entry: Option<Entry>) -> ! {
    let cpu = CPUS.this().lock().take();
    let mut cpu = cpu.expect("the boot reserve holds every processor of the root");
    match entry {
        Some(entry) => cpu.enter_linux(entry),
        None => cpu.wait_for_startup(),
    }
    cpu.vcpu.load_extended();
    loop {
        cpu.step();
    }
}

impl RootCpu {
    fn step(&mut self) {
        self.obey_startup();
        self.follow_timer();
        self.nmi |= lps::take_foreign_nmis();
        if self.nmi && !self.vcpu.has_event() {
            self.vcpu.inject(Event::Nmi);
            self.nmi = false;
        }
        let exit = self.vcpu.run(&root().space);
        timer::recall();
        match exit {
            Exit::Cpuid => cpuid::access(&mut self.vcpu),
            Exit::Msr { write } => msr::access(self, write),
            Exit::Hypercall => self.hypercall(),
            Exit::Interrupt => drop(timer::sort_interrupt()),
            Exit::Kick | Exit::Nmi | Exit::Init => {}
            Exit::GpaFault => self.fault(self.vcpu.gpa_fault()),
            Exit::Undefined => self.vcpu.inject(Event::UNDEFINED),
            Exit::Shutdown => triple_fault(self),
            exit => panic!("the root left by {exit:?} at {:#x}", self.vcpu.get(Register::Rip)),
        }
    }

    /// While the hypervisor has this LP's timer, the root's interrupts and timer registers exit; while it is lent, the
    /// ends of interrupts do.
    fn follow_timer(&mut self) {
        let holder = timer::holder();
        if holder != self.timer {
            self.timer = holder;
            let maps = &root().maps;
            self.vcpu.set_msr_map(match holder {
                Holder::Root => maps.free,
                Holder::Lent => maps.lent,
                Holder::Hypervisor => maps.borrowed,
            });
            self.vcpu.exit_on_interrupt(holder == Holder::Hypervisor);
        }
    }

    fn hypercall(&mut self) {
        // TLFS hypercall-interface: only the most privileged level of long or protected mode may call.
        if self.vcpu.privilege() != 0 || !self.vcpu.runs_64_bit_code() {
            self.vcpu.inject(Event::UNDEFINED);
            return;
        }
        let Some(buffers) = self.buffers.take() else { return };
        if hypercall::execute(self, buffers, hypercall::root_table).is_err() {
            // An address of the hypervisor's, or none at all.
            self.vcpu.inject(Event::PROTECTION);
        }
        self.buffers = Some(buffers);
    }

    /// Address space beyond memory is mapped when it is first used: devices may be anywhere.
    fn fault(&mut self, fault: GpaFault) {
        let large = Gpa(fault.gpa.0 & !(PageSize::Large.bytes() - 1));
        let frames = (0..PageSize::Large.pages()).map(|n| Gpa(large.0 + n * PageSize::Small.bytes()));
        let is_device =
            frames.into_iter().all(|gpa| !frame::is_owned(identity(gpa)) && !frame::is_root(identity(gpa)));
        let result = if is_device && !fault.present {
            root().space.map(large, &[identity(large)], PageSize::Large, Access::ALL).1
        } else {
            Err(MapError::BadAddress)
        };
        if result.is_err() {
            hal::warn!(
                "the root touched {:?}, which is the hypervisor's, at {:#x}",
                fault.gpa,
                self.vcpu.get(Register::Rip)
            );
            self.vcpu.inject(Event::PROTECTION);
        }
    }

    fn obey_startup(&mut self) {
        let request = self.vp.startup.load(Ordering::Relaxed);
        if request & INIT != 0 {
            self.wait_for_startup();
        }
    }

    /// Waits for a start-up IPI and sets the state that follows it (SDM 3A §9.4.4).
    fn wait_for_startup(&mut self) {
        self.vp.online.store(false, Ordering::SeqCst);
        root().update_command_intercept();
        self.vp.startup.fetch_and(!INIT, Ordering::SeqCst);
        self.vcpu.init();
        let vector = loop {
            let request = self.vp.startup.swap(0, Ordering::SeqCst);
            if request & START != 0 {
                break request & 0xff;
            }
            if let lps::Wait::Interrupt(vector) = lps::wait() {
                timer::taken(vector);
            }
        };
        let code = Segment {
            selector: (vector << 8) as u16,
            attributes: 0x9b,
            limit: 0xffff,
            base: u64::from(vector) << 12,
        };
        self.vcpu.set_segment(SegmentName::Cs, code);
        self.vcpu.set(Register::Rip, 0);
        self.vp.online.store(true, Ordering::SeqCst);
        root().update_command_intercept();
    }

    /// Sets the state in which Linux is entered: flat 32-bit protected mode, paging off (Linux
    /// Documentation/arch/x86/boot.rst, "32-bit Boot Protocol").
    fn enter_linux(&mut self, entry: Entry) {
        let flat = |selector, attributes| Segment { selector, attributes, limit: u32::MAX, base: 0 };
        self.vcpu.set_segment(SegmentName::Cs, flat(0x10, 0xc9b));
        for name in [SegmentName::Ds, SegmentName::Es, SegmentName::Ss, SegmentName::Fs, SegmentName::Gs] {
            self.vcpu.set_segment(name, flat(0x18, 0xc93));
        }
        self.vcpu.set(Register::Cr0, 0x11);
        self.vcpu.set(Register::Rip, entry.rip);
        self.vcpu.gprs_mut()[hal::virt::RSI] = entry.boot_params;
        self.vp.online.store(true, Ordering::SeqCst);
    }
}

impl Caller for RootCpu {
    fn vcpu(&mut self) -> &mut Vcpu {
        &mut self.vcpu
    }

    fn privileges(&self) -> Privileges {
        model::cpuid::Profile::ROOT.privileges
    }

    fn party(&self) -> Party {
        None
    }

    fn read(&mut self, gpa: Gpa, into: &mut [u8]) -> Result<(), Unmapped> {
        foreign::read(identity(gpa), into).map_err(|_| Unmapped { gpa, write: false })
    }

    fn write(&mut self, gpa: Gpa, from: &[u8]) -> Result<(), Unmapped> {
        foreign::write(identity(gpa), from).map_err(|_| Unmapped { gpa, write: true })
    }
}

/// A triple fault of the root is the last way in which an operating system restarts its machine.
fn triple_fault(cpu: &RootCpu) -> ! {
    hal::warn!("the root's VP {} took a triple fault: resetting the machine", cpu.vp.lp.0);
    hal::acpi::reset(hal::acpi::tables().fadt().as_ref())
}
