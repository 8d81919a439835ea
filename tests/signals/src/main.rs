//! Messages and events between the root and a child, over what `/dev/mshv` offers: the direct calls, the doorbells of
//! events, the intercept of unknown connections (`docs/adr/0010-guest-to-host-signals.md`).
//!
//! Says `CASE name: ok` of each case, or what is wrong.

mod guest;

use std::{arch::x86_64::__cpuid, process::ExitCode, thread, time::Duration};

use anyhow::{Result, ensure};
use mshv_bindings::{
    HV_INTERCEPT_ACCESS_MASK_EXECUTE, hv_intercept_type_HV_INTERCEPT_TYPE_HYPERCALL, mshv_install_intercept,
};
use mshv_ioctls::{IoEventAddress, NoDatamatch};
use tlfs::{
    CallCode, ConnectionId, HvStatus, cpuid,
    synic::{HvMessage, MessageType},
};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::IntoBytes;

use guest::{Asked, Guest, INPUT, SINT};

type Case = (&'static str, fn(&Guest) -> Result<()>);

const CASES: [Case; 7] = [
    ("discovery", discovery),
    ("message", message),
    ("queue", queue),
    ("event", event),
    ("wake", wake),
    ("event-doorbell", event_doorbell),
    ("intercept", intercept),
];

fn main() -> ExitCode {
    let mut failed = false;
    for (name, case) in CASES {
        let outcome = Guest::new().and_then(|guest| case(&guest));
        failed |= outcome.is_err();
        match outcome {
            Ok(()) => println!("CASE {name}: ok"),
            Err(error) => println!("CASE {name}: {error:#}"),
        }
    }
    ExitCode::from(u8::from(failed))
}

fn post(guest: &Guest, kind: u32) -> Result<(), mshv_ioctls::MshvError> {
    let message = HvMessage::new(MessageType(kind), 7, &u64::from(kind));
    guest.vm.post_message_direct(0, SINT, message.as_bytes())
}

/// The root's user space finds what this hypervisor has beyond the TLFS.
fn discovery(_: &Guest) -> Result<()> {
    let seen = __cpuid(cpuid::EXTENSIONS);
    let base = u64::from(seen.edx) << 32 | u64::from(seen.ecx);
    ensure!(seen.eax == cpuid::EXTENSIONS_SIGNATURE && seen.ebx & 3 == 3, "{seen:x?}");
    ensure!(ConnectionId(0).event_doorbell() == Some(base), "the doorbells are at {base:x}");
    Ok(())
}

/// A message arrives in its slot, with an interrupt that ends itself.
fn message(guest: &Guest) -> Result<()> {
    for round in 1..=2 {
        post(guest, round)?;
        guest.wait()?;
        let slot = guest.slot()?;
        ensure!(slot == [u64::from(round) | 8 << 32, 7, u64::from(round)], "the slot has {slot:x?}");
        ensure!(guest.interrupts()? == u64::from(round), "{} interrupts", guest.interrupts()?);
        guest.end_message()?;
    }
    for (vp, sint, bytes) in [(1, SINT, [1; 256]), (0, 16, [1; 256]), (0, SINT, [0; 256])] {
        ensure!(
            guest.vm.post_message_direct(vp, sint, &bytes).is_err(),
            "VP {vp}, source {sint} took a message"
        );
    }
    Ok(())
}

/// Behind a full slot messages wait in order, until there are too many.
fn queue(guest: &Guest) -> Result<()> {
    post(guest, 1)?;
    guest.wait()?;
    let mut last = 1;
    let refusal = loop {
        match post(guest, last + 1) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
        ensure!(last < 100, "nothing is ever refused");
    };
    let status = format!("{refusal:?}");
    ensure!(last > 8 && status.contains("InsufficientBuffers"), "{last} messages, then {status}");
    for kind in 1..=last {
        let [head, _, payload] = guest.slot()?;
        ensure!(
            (head as u32, payload) == (kind, u64::from(kind)),
            "the slot has {head:x}, {payload:x}, not {kind:x}"
        );
        guest.end_message()?;
    }
    ensure!(guest.slot()?[0] == 0, "the slot is not empty");
    post(guest, last + 1)?;
    guest.wait()?;
    ensure!(guest.slot()?[0] as u32 == last + 1, "the queue does not go on");
    Ok(())
}

/// An event flag is set once, and interrupts when it was clear.
fn event(guest: &Guest) -> Result<()> {
    for (flag, interrupts) in [(77, 1), (2047, 2)] {
        ensure!(guest.vm.signal_event_direct(0, SINT, flag)?, "flag {flag} was set before");
        ensure!(!guest.vm.signal_event_direct(0, SINT, flag)?, "flag {flag} was clear after it was set");
        guest.wait()?;
        let flags = guest.flags(u64::from(flag) / 64 * 64)?;
        ensure!(flags == 1 << (flag % 64), "the flags are {flags:x}");
        ensure!(guest.interrupts()? == interrupts, "{} interrupts", guest.interrupts()?);
    }
    ensure!(guest.vm.signal_event_direct(0, SINT, 2048).is_err(), "there is a flag 2048");
    ensure!(guest.vm.signal_event_direct(0, SINT + 1, 0).is_err(), "a masked source took an event");
    Ok(())
}

/// A processor that halts wakes up, wherever it waits.
fn wake(guest: &Guest) -> Result<()> {
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            thread::sleep(Duration::from_millis(500));
            post(guest, 5)?;
            thread::sleep(Duration::from_millis(500));
            guest.vm.signal_event_direct(0, SINT, 3)
        });
        guest.wait()?;
        ensure!(guest.slot()?[0] as u32 == 5, "it woke without the message");
        guest.wait()?;
        ensure!(guest.flags(0)? == 8, "it woke without the event");
        ensure!(waiting.join().is_ok_and(|signalled| signalled.is_ok_and(|new| new)), "not signalled");
        Ok(())
    })
}

fn signal(guest: &Guest, connection: u32, flag: u64, answer: impl FnMut(Asked) -> u64) -> Result<u64> {
    guest.call(CallCode::SIGNAL_EVENT, true, u64::from(connection) | flag << 32, answer)
}

fn status(status: HvStatus) -> u64 {
    status.0.into()
}

/// An event on a connection that the child does not have rings the doorbell that watches its address.
fn event_doorbell(guest: &Guest) -> Result<()> {
    let address = |id| IoEventAddress::Mmio(ConnectionId(id).event_doorbell().unwrap_or(0));
    let [any, five] = [EventFd::new(libc::EFD_NONBLOCK)?, EventFd::new(libc::EFD_NONBLOCK)?];
    guest.vm.register_ioevent(&any, &address(0x1234), NoDatamatch)?;
    guest.vm.register_ioevent(&five, &address(0x1300), 5_u64)?;
    let rang = |fd: &EventFd| {
        let mut tries = (0..50).map(|_| {
            thread::sleep(Duration::from_millis(20));
            fd.read()
        });
        tries.find_map(Result::ok)
    };
    let none = |_| 0;
    for flag in [0, 9] {
        let said = signal(guest, 0x1234, flag, none)?;
        ensure!(said == 0 && rang(&any) == Some(1), "flag {flag}: status {said:x}");
    }
    ensure!(signal(guest, 0x1235, 0, none)? == status(HvStatus::INVALID_CONNECTION_ID), "another connection");
    ensure!(signal(guest, 0x1300, 4, none)? == status(HvStatus::INVALID_CONNECTION_ID), "another flag");
    ensure!(signal(guest, 0x1300, 5, none)? == 0 && rang(&five) == Some(1), "the flag that is watched");
    ensure!(any.read().is_err(), "the first doorbell rang for the second");
    guest.vm.unregister_ioevent(&any, &address(0x1234), NoDatamatch)?;
    ensure!(signal(guest, 0x1234, 0, none)? == status(HvStatus::INVALID_CONNECTION_ID), "without a doorbell");
    Ok(())
}

/// A message or an event on a connection that nobody knows is the parent's to answer, if it asked for that.
fn intercept(guest: &Guest) -> Result<()> {
    let unknown = status(HvStatus::INVALID_CONNECTION_ID);
    for (at, word) in [(0, 0x55), (8, 1 | 8 << 32), (16, 0x1122)] {
        guest.set(INPUT + at, word)?;
    }
    let mut asked = Vec::new();
    let said = guest.call(CallCode::POST_MESSAGE, false, INPUT, |call| {
        asked.push(call);
        0
    })?;
    ensure!(said == unknown && asked.is_empty(), "before it is asked for: {said:x}, {asked:x?}");
    guest.vm.install_intercept(mshv_install_intercept {
        access_type_mask: HV_INTERCEPT_ACCESS_MASK_EXECUTE,
        intercept_type: hv_intercept_type_HV_INTERCEPT_TYPE_HYPERCALL,
        ..Default::default()
    })?;
    let answer = status(HvStatus::INSUFFICIENT_BUFFERS);
    let said = guest.call(CallCode::POST_MESSAGE, false, INPUT, |call| {
        asked.push(call);
        answer
    })?;
    ensure!(said == answer && asked == [Asked { control: 0x5c, input: INPUT }], "{said:x}, {asked:x?}");
    asked.clear();
    let said = signal(guest, 0x77, 3, |call| {
        asked.push(call);
        0
    })?;
    ensure!(
        said == 0 && asked == [Asked { control: 0x1_005d, input: 0x3_0000_0077 }],
        "{said:x}, {asked:x?}"
    );
    asked.clear();
    guest.set(INPUT + 8, 0)?;
    let said = guest.call(CallCode::POST_MESSAGE, false, INPUT, |call| {
        asked.push(call);
        0
    })?;
    ensure!(said == status(HvStatus::INVALID_PARAMETER) && asked.is_empty(), "type 0: {said:x}, {asked:x?}");
    Ok(())
}
