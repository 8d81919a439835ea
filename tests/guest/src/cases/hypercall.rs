//! The hypercall interface: its page, its calling conventions, its checks (TLFS hypercall-interface).

use tlfs::{
    CallCode, HvStatus,
    cpuid::FeaturesEdx,
    msr::{GUEST_OS_ID, HYPERCALL},
};

use super::{Case, feature::own_features};
use crate::{
    report::{Outcome, check, equal, needs},
    rt::{
        hypercall::{self, FAST, OS_ID, rep, try_call, variable},
        machine::Machine,
        memory::Page,
        msr,
        paging::{self, Window},
        smp, user,
    },
};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "hypercall_identity",
        1,
        "the page stays disabled until the guest names itself (TLFS guest OS identity)",
        identity,
    )
    .partition(),
    Case::new(
        "hypercall_page",
        1,
        "enabling shows a page that can be called, again and elsewhere (TLFS hypercall page)",
        page,
    )
    .partition(),
    Case::new(
        "hypercall_overlay",
        1,
        "disabling brings back what the page covered (TLFS overlay pages)",
        overlay,
    )
    .partition(),
    Case::new("hypercall_read_only", 1, "a write to the page raises #GP (TLFS hypercall page)", read_only)
        .hypercalls(),
    Case::new("hypercall_lock", 1, "a locked MSR keeps its value (TLFS HV_X64_MSR_HYPERCALL)", lock)
        .hypercalls(),
    Case::new(
        "hypercall_beyond",
        1,
        "a page beyond all memory raises #GP (TLFS HV_X64_MSR_HYPERCALL)",
        beyond,
    )
    .partition(),
    Case::new(
        "hypercall_everywhere",
        4,
        "the MSRs are the partition's, every VP can call (TLFS hypercall-interface)",
        everywhere,
    )
    .hypercalls(),
    Case::new(
        "hypercall_disabled",
        1,
        "without an enabled page a call raises #UD (TLFS legal environments)",
        disabled,
    )
    .partition(),
    Case::new("hypercall_user", 1, "a call from user mode raises #UD (TLFS legal environments)", from_user)
        .hypercalls(),
    Case::new(
        "hypercall_32_bit",
        1,
        "32-bit code passes parameters in pairs of registers (TLFS register conventions)",
        from_32_bit,
    )
    .hypercalls(),
    Case::new(
        "hypercall_input",
        1,
        "malformed control words have their statuses (TLFS common status codes)",
        input,
    )
    .hypercalls(),
    Case::new(
        "hypercall_alignment",
        1,
        "lists that are unaligned, cross a page or lie nowhere are refused (TLFS alignment)",
        alignment,
    )
    .hypercalls(),
    Case::new(
        "hypercall_reps",
        1,
        "reps completed counts from the list's start (TLFS hypercall outputs)",
        reps,
    )
    .hypercalls(),
    Case::new(
        "hypercall_registers",
        1,
        "a call changes no register but RAX, and RCX of a rep call (TLFS volatile registers)",
        registers,
    )
    .hypercalls(),
    Case::new(
        "hypercall_root_only",
        1,
        "calls of the root are refused, all of them (TLFS partition privileges)",
        root_only,
    )
    .hypercalls(),
    Case::new(
        "long_spin_wait",
        4,
        "the hint is taken from every VP (TLFS HvCallNotifyLongSpinWait)",
        long_spin_wait,
    )
    .hypercalls(),
    Case::new(
        "no_connection",
        1,
        "messages and events on unknown connections are refused (TLFS HvCallPostMessage)",
        no_connection,
    )
    .hypercalls(),
    Case::new(
        "vp_from_apic_id",
        4,
        "APIC ids give VP indices (TLFS HvCallGetVpIndexFromApicId)",
        vp_from_apic_id,
    )
    .hypercalls(),
];

/// A call that every partition may make, and that does nothing.
fn ping() -> HvStatus {
    hypercall::fast(CallCode::NOTIFY_LONG_SPIN_WAIT, 1, 0)
}

fn identity(_: &Machine) -> Outcome {
    let page = Page::take();
    equal!(msr::read(GUEST_OS_ID), 0, "identity at first");
    equal!(msr::read(HYPERCALL) & 1, 0, "enable bit at first");
    msr::write(HYPERCALL, page.address() | 1);
    equal!(msr::read(HYPERCALL) & 1, 0, "enable bit without an identity");
    msr::write(GUEST_OS_ID, OS_ID);
    equal!(msr::read(GUEST_OS_ID), OS_ID, "identity");
    msr::write(HYPERCALL, page.address() | 1);
    equal!(msr::read(HYPERCALL), page.address() | 1, "MSR with an identity");
    msr::write(GUEST_OS_ID, 0);
    equal!(msr::read(HYPERCALL) & 1, 0, "enable bit after the identity was taken back");
    hypercall::set_page(page.address());
    let seen = try_call(u64::from(CallCode::NOTIFY_LONG_SPIN_WAIT.0) | FAST, 1, 0);
    check!(seen.is_err(), "a call without an identity gives {seen:x?}");
    Ok(())
}

fn page(_: &Machine) -> Outcome {
    let first = hypercall::enable();
    equal!(ping(), HvStatus::SUCCESS, "call by the first page");
    check!(!first.is_all(0), "the page is empty");
    let second = Page::take();
    msr::write(HYPERCALL, second.address() | 1);
    equal!(msr::read(HYPERCALL), second.address() | 1, "MSR after the page was moved");
    hypercall::set_page(second.address());
    equal!(ping(), HvStatus::SUCCESS, "call by the second page");
    msr::write(HYPERCALL, first.address());
    equal!(msr::read(HYPERCALL), first.address(), "MSR of a page that is disabled");
    msr::write(HYPERCALL, first.address() | 1);
    hypercall::set_page(first.address());
    equal!(ping(), HvStatus::SUCCESS, "call by the first page again");
    Ok(())
}

fn overlay(_: &Machine) -> Outcome {
    const MARK: u64 = 0x1122_3344_5566_7788;
    let page = Page::take();
    page.fill(MARK);
    msr::write(GUEST_OS_ID, OS_ID);
    msr::write(HYPERCALL, page.address() | 1);
    check!(!page.is_all(MARK), "the page does not appear");
    msr::write(HYPERCALL, page.address());
    check!(page.is_all(MARK), "what the page covered is lost: {:#x}", page.get(0));
    Ok(())
}

fn read_only(_: &Machine) -> Outcome {
    let page = hypercall::enable();
    let before = page.get(0);
    let seen = paging::poke(page.address(), !before);
    check!(seen.is_err_and(|fault| fault.is_protection()), "a write gives {seen:x?}");
    equal!(page.get(0), before, "code after the write");
    equal!(ping(), HvStatus::SUCCESS, "call after the write");
    Ok(())
}

fn lock(_: &Machine) -> Outcome {
    const LOCKED: u64 = 1 << 1;
    let value = msr::read(HYPERCALL);
    let other = Page::take();
    check!(msr::try_write(HYPERCALL, value | LOCKED).is_ok(), "locking faults");
    let locked = msr::read(HYPERCALL);
    needs!(locked & LOCKED != 0, "the MSR cannot be locked");
    let seen = msr::try_write(HYPERCALL, other.address() | 1);
    if let Err(fault) = seen {
        check!(fault.is_protection(), "a write to a locked MSR raises {fault}");
    }
    equal!(msr::read(HYPERCALL), locked, "a locked MSR after it was written");
    let _ = msr::try_write(HYPERCALL, 0);
    equal!(msr::read(HYPERCALL), locked, "a locked MSR after it was cleared");
    equal!(ping(), HvStatus::SUCCESS, "call with a locked MSR");
    check!(other.is_all(0), "the locked page shows elsewhere");
    Ok(())
}

fn beyond(_: &Machine) -> Outcome {
    msr::write(GUEST_OS_ID, OS_ID);
    for address in [1 << 52, 1 << 62, !0xfff] {
        let seen = msr::try_write(HYPERCALL, address | 1);
        check!(seen.is_err_and(|fault| fault.is_protection()), "a page at {address:#x} gives {seen:x?}");
        equal!(msr::read(HYPERCALL) & 1, 0, "enable bit after a page at {address:#x}");
    }
    Ok(())
}

fn everywhere(machine: &Machine) -> Outcome {
    fn compare(value: u64) -> Outcome {
        equal!(msr::read(HYPERCALL), value, "hypercall MSR");
        equal!(msr::read(GUEST_OS_ID), OS_ID, "identity");
        for _ in 0..50 {
            equal!(ping(), HvStatus::SUCCESS, "call");
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, compare, msr::read(HYPERCALL))
}

fn disabled(_: &Machine) -> Outcome {
    for (index, seen) in hypercall::by_instruction().into_iter().enumerate() {
        check!(
            seen.is_err_and(|fault| fault.is_undefined()),
            "instruction {index} without a page gives {seen:x?}"
        );
    }
    let page = hypercall::enable();
    msr::write(HYPERCALL, page.address());
    for (index, seen) in hypercall::by_instruction().into_iter().enumerate() {
        check!(
            seen.is_err_and(|fault| fault.is_undefined()),
            "instruction {index}, page disabled, gives {seen:x?}"
        );
    }
    Ok(())
}

fn from_user(_: &Machine) -> Outcome {
    let window = Window::new();
    // RCX holds the control word; then UD2.
    for code in [[0x0f, 0x01, 0xd9, 0x0f, 0x0b], [0x0f, 0x01, 0xc1, 0x0f, 0x0b]] {
        let fault = user::run(&window, &code, 0, u64::from(CallCode::NOTIFY_LONG_SPIN_WAIT.0) | FAST);
        check!(fault.is_undefined(), "user mode gets {fault}");
        equal!(fault.rip & 0xfff, 0, "place of the fault in user mode");
    }
    equal!(ping(), HvStatus::SUCCESS, "call from the kernel afterwards");
    Ok(())
}

fn from_32_bit(_: &Machine) -> Outcome {
    let page = msr::read(HYPERCALL) & !0xfff;
    let result = user::call_32(page, u64::from(CallCode::NOTIFY_LONG_SPIN_WAIT.0) | FAST, 1, 0);
    equal!(result.map(|result| result.status()), Ok(HvStatus::SUCCESS), "fast call");
    let result = user::call_32(page, 0x7ffe, 0, 0);
    equal!(result.map(|result| result.status()), Ok(HvStatus::INVALID_HYPERCALL_CODE), "unknown call");
    let result = user::call_32(page, u64::from(CallCode::NOTIFY_LONG_SPIN_WAIT.0) | FAST | 1 << 60, 1, 0);
    equal!(
        result.map(|result| result.status()),
        Ok(HvStatus::INVALID_HYPERCALL_INPUT),
        "reserved bit, in EDX"
    );
    let input = Page::take();
    let result = user::call_32(page, CallCode::NOTIFY_LONG_SPIN_WAIT.0.into(), input.address(), 0);
    equal!(result.map(|result| result.status()), Ok(HvStatus::SUCCESS), "call with input in memory");
    Ok(())
}

fn input(_: &Machine) -> Outcome {
    const SPIN: u64 = 0x0008;
    let page = Page::take();
    for code in [0x0000, 0x0006, 0x00ff, 0x01ff, 0x7fff, 0x8ffe, 0xffff] {
        let status = hypercall::call(code, page.address(), page.address()).status();
        equal!(status, HvStatus::INVALID_HYPERCALL_CODE, "call {code:#x}");
    }
    let bad = HvStatus::INVALID_HYPERCALL_INPUT;
    for bit in [27, 28, 29, 30, 44, 45, 46, 47, 60, 61, 62, 63] {
        equal!(hypercall::call(SPIN | FAST | 1 << bit, 1, 0).status(), bad, "reserved bit {bit}");
    }
    equal!(hypercall::call(SPIN | FAST | 1 << 32, 1, 0).status(), bad, "rep count for a simple call");
    equal!(hypercall::call(SPIN | FAST | 1 << 48, 1, 0).status(), bad, "rep start for a simple call");
    equal!(
        hypercall::call(variable(SPIN | FAST, 1), 1, 0).status(),
        bad,
        "variable header where there is none"
    );
    let list = CallCode::FLUSH_VIRTUAL_ADDRESS_LIST;
    for (count, start) in [(0, 0), (4, 4), (4, 5), (1, 0xfff)] {
        let status = hypercall::call(rep(list, count, start), page.address(), 0).status();
        equal!(status, bad, "rep count {count}, start {start}");
    }
    // More parameters than registers hold, without XMM registers on offer.
    if !own_features().contains(FeaturesEdx::XMM_HYPERCALL_INPUT) {
        let space = u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE.0);
        let refused = try_call(space | FAST, 0, 3).map_or(true, |result| !result.status().is_success());
        check!(refused, "24 bytes of input are taken from two registers");
    }
    Ok(())
}

fn alignment(_: &Machine) -> Outcome {
    let bad = HvStatus::INVALID_ALIGNMENT;
    let page = Page::take();
    let space = u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE.0);
    page.put(&[0, 3, 0]);
    equal!(hypercall::call(space, page.address(), 0).status(), HvStatus::SUCCESS, "aligned call");
    for offset in [1, 2, 4, 7, 0xfff] {
        equal!(
            hypercall::call(space, page.address() + offset, 0).status(),
            bad,
            "input at offset {offset:#x}"
        );
    }
    page.put(&[]);
    for offset in [0xff0, 0xff8] {
        equal!(
            hypercall::call(space, page.address() + offset, 0).status(),
            bad,
            "input across a page, {offset:#x}"
        );
    }
    for address in [1 << 52, 1 << 63, 0xffff_ffff_ffff_f000] {
        equal!(hypercall::call(space, address, 0).status(), bad, "input at {address:#x}, beyond all memory");
    }
    // A list longer than a page.
    let list = rep(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST, 600, 0);
    equal!(hypercall::call(list, page.address(), 0).status(), bad, "input of 4,824 bytes");
    // Without parameters, addresses mean nothing; with a fast call neither do they.
    equal!(ping(), HvStatus::SUCCESS, "call with odd registers");
    Ok(())
}

fn reps(_: &Machine) -> Outcome {
    let page = Page::take();
    page.put(&[0, 3, 0]);
    for (count, start) in [(1, 0), (10, 0), (10, 5), (100, 99), (509, 0), (509, 64)] {
        let result =
            hypercall::call(rep(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST, count, start), page.address(), 0);
        equal!(result.status(), HvStatus::SUCCESS, "rep count {count}, start {start}");
        equal!(result.reps_completed() as u64, count, "reps completed for count {count}, start {start}");
    }
    Ok(())
}

fn registers(_: &Machine) -> Outcome {
    let page = Page::take();
    page.put(&[0, 3, 0]);
    let controls = [
        u64::from(CallCode::NOTIFY_LONG_SPIN_WAIT.0) | FAST,
        u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE.0),
        rep(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST, 200, 0),
        0x7ffe,
    ];
    for control in controls {
        let before: [u64; 8] = core::array::from_fn(|index| 0x1111_1111_1111_1111 * (index as u64 + 1));
        let mut after = before;
        let (mut rdx, mut r8) = (page.address(), 0x4242);
        let (mut rcx, mut rax) = (control, 0x77);
        let result = hypercall::with_registers([&mut rax, &mut rcx, &mut rdx, &mut r8], &mut after);
        check!(result.is_ok(), "call {control:#x} faults");
        equal!(after, before, "registers after call {control:#x}");
        equal!((rdx, r8), (page.address(), 0x4242), "parameters after call {control:#x}");
        let start = 0xfff_u64 << 48;
        equal!(rcx & !start, control & !start, "control word after call {control:#x}");
        check!(rax != 0x77, "call {control:#x} returns nothing");
    }
    Ok(())
}

fn root_only(_: &Machine) -> Outcome {
    let page = Page::take();
    let allowed = [0x0002, 0x0003, 0x0008, 0x000b, 0x0013, 0x0014, 0x0015, 0x005c, 0x005d, 0x009a];
    for code in (0x0001..0x0140).chain(0x8001..0x8010).filter(|code| !allowed.contains(code)) {
        for control in [code, code | FAST, rep(CallCode(code as u16), 1, 0)] {
            page.fill(0);
            let status = hypercall::call(control, page.address(), page.address() + 0x800).status();
            check!(!status.is_success(), "call {control:#x} succeeds");
        }
    }
    Ok(())
}

fn long_spin_wait(machine: &Machine) -> Outcome {
    fn wait(page: u64) -> Outcome {
        for spins in [0, 1, 0xfff, u64::from(u32::MAX)] {
            let status = hypercall::fast(CallCode::NOTIFY_LONG_SPIN_WAIT, spins, 0);
            equal!(status, HvStatus::SUCCESS, "hint of {spins:#x} spins");
        }
        let slow = hypercall::call(CallCode::NOTIFY_LONG_SPIN_WAIT.0.into(), page, 0);
        equal!(slow.status(), HvStatus::SUCCESS, "hint by memory");
        Ok(())
    }
    smp::run_on_all(machine.vps, wait, Page::take().address())
}

fn no_connection(_: &Machine) -> Outcome {
    let page = Page::take();
    let unknown = [HvStatus::INVALID_CONNECTION_ID, HvStatus::ACCESS_DENIED];
    for connection in [0, 1, 4, 0x1_2345, 0xff_ffff, u64::from(u32::MAX)] {
        let status = hypercall::fast(CallCode::SIGNAL_EVENT, connection, 0);
        check!(unknown.contains(&status), "event on connection {connection:#x}: {status:?}");
        let status = hypercall::slow(CallCode::SIGNAL_EVENT.0.into(), page, &[connection | 3 << 32]).status();
        check!(unknown.contains(&status), "event by memory on connection {connection:#x}: {status:?}");
        let words = [connection, 1 | 8 << 32, 0x55];
        let status = hypercall::slow(CallCode::POST_MESSAGE.0.into(), page, &words).status();
        check!(unknown.contains(&status), "message on connection {connection:#x}: {status:?}");
    }
    // The order of checks is not laid down.
    for (kind, size) in [(0_u64, 8_u64), (0x8000_0000, 8), (1, 241), (1, u64::from(u32::MAX))] {
        let status = hypercall::slow(CallCode::POST_MESSAGE.0.into(), page, &[1, kind | size << 32]).status();
        let refused = unknown.contains(&status) || status == HvStatus::INVALID_PARAMETER;
        check!(refused, "message of type {kind:#x}, {size} bytes: {status:?}");
    }
    let status = hypercall::fast(CallCode::SIGNAL_EVENT, 1 | 1 << 48, 0);
    let refused = unknown.contains(&status) || status == HvStatus::INVALID_PARAMETER;
    check!(refused, "event with reserved bits: {status:?}");
    let status = hypercall::fast(CallCode::POST_MESSAGE, 1, 1);
    let refused = [HvStatus::INVALID_HYPERCALL_INPUT, HvStatus::ACCESS_DENIED].contains(&status);
    check!(refused, "a message does not fit in two registers: {status:?}");
    Ok(())
}

fn vp_from_apic_id(machine: &Machine) -> Outcome {
    let page = Page::take();
    let control = rep(CallCode::GET_VP_INDEX_FROM_APIC_ID, machine.vps as u64, 0);
    // The elements are packed, as Linux passes them.
    let ids = |first: u64| (first + 1) << 32 | first;
    page.put(&[u64::MAX, 0, ids(0), ids(2)]);
    let result = hypercall::call(control, page.address(), page.address() + 0x800);
    needs!(
        ![HvStatus::INVALID_HYPERCALL_CODE, HvStatus::ACCESS_DENIED].contains(&result.status()),
        "the call is not offered"
    );
    equal!(result.status(), HvStatus::SUCCESS, "call");
    equal!(result.reps_completed(), machine.vps, "reps completed");
    for pair in 0..machine.vps as u64 / 2 {
        equal!(page.get(256 + pair as usize), ids(pair * 2), "indices of a pair of VPs");
    }
    Ok(())
}
