//! The boot order, and what ends in a panic.

use core::{fmt, panic::PanicInfo};

use hal::{
    boot::BootInfo,
    crash, log,
    lp::{self, LpIndex},
    mem,
    virt::{Unsupported, lps},
};

use crate::{
    options::Options,
    root::{self, start},
    timer,
};

mod entry {
    hal::entry!(super::kernel_main, super::lp_main);
}

/// LP 0. `hal` has learned the machine, made the final address space and measured the clocks.
fn kernel_main(boot: BootInfo) -> ! {
    log::attach_serial();
    let options = Options::parse(boot.command_line);
    hal::info!("Bulkhead on {} processors, started by {:?}", lp::count(), boot.loader);
    lp::start_all(&boot);
    lps::init().unwrap_or_else(refuse);
    lps::enable().unwrap_or_else(refuse);
    timer::init();
    let entry = start::build(&boot, options).unwrap_or_else(|failure| stop(format_args!("{failure}")));
    root::make_cpus();
    hal::info!("{} pages are left for the root's page tables", mem::boot::seal());
    if !options.serial_log {
        // From here on the serial port is the root's.
        log::detach_serial();
    }
    lp::release();
    root::run(Some(entry))
}

/// The other LPs, once LP 0 has built the root.
fn lp_main(_: LpIndex) -> ! {
    lps::enable().unwrap_or_else(refuse);
    root::run(None)
}

fn refuse<T>(lack: Unsupported) -> T {
    let missing = match lack {
        Unsupported::NoSvm => "no SVM, or the firmware disabled it",
        Unsupported::NoNestedPaging => "no nested paging",
        Unsupported::NoXsave => "no XSAVE",
        Unsupported::NoMemory => stop(format_args!("too little memory for the hypervisor: add memory")),
    };
    stop(format_args!(
        "this processor has {missing}: enable it, or use one that has it, or with QEMU -cpu EPYC-v4"
    ))
}

/// Ends the boot for a reason that the user can mend.
fn stop(reason: fmt::Arguments) -> ! {
    hal::error!("cannot start: {reason}");
    crash::refuse()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    crash::panic(info)
}
