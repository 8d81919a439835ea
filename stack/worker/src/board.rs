//! The machine's main board: every device at its address, wired to its interrupt.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex},
};

use rustix::{
    io,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

use crate::{
    device::{
        Monotonic,
        bus::{Mmio, Ports},
        i8042::KeyboardController,
        ioapic::{InterruptSink, IoApic},
        pic::Pic,
        pit::{Pit, Timer},
        pm::PowerManagement,
        reset::ResetControl,
        rtc::{Rtc, WallClock},
        serial::{SerialPort, Terminal},
    },
    layout::{IO_APIC, PIT_PIN, PM_EVENT, RESET_PORT, RTC_PORT, SCI_IRQ, SERIAL_IRQ, SERIAL_PORT},
    signal::{Signal, drain},
    synthetic::Post,
};

/// All devices of one life of a machine.
pub struct Board {
    /// Devices in I/O space.
    pub ports: Ports,
    /// Devices in memory space.
    pub mmio: Mmio,
    /// Where ends of level-triggered interrupts go.
    pub io_apic: Arc<IoApic>,
    /// Where the life ends.
    pub signal: Arc<Signal>,
    /// Where messages to the synthetic bus go, if there is one.
    pub post: Option<Post>,
    serial: Arc<Mutex<SerialPort>>,
    power: PowerManagement,
    pit: Arc<Mutex<Pit>>,
    pit_timer: Arc<OwnedFd>,
}

impl Board {
    /// A board whose interrupts go to `sink` and whose COM1 is `terminal`.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn new(sink: impl InterruptSink + 'static, terminal: Arc<dyn Terminal>) -> io::Result<Self> {
        let signal = Arc::new(Signal::new()?);
        let pit_timer = Arc::new(timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?);
        let io_apic = Arc::new(IoApic::new(sink));
        let serial = Arc::new(Mutex::new(SerialPort::new(io_apic.line(SERIAL_IRQ), terminal)));
        let power = PowerManagement::new(io_apic.line(SCI_IRQ), signal.clone());
        let timer = HostTimer(pit_timer.clone());
        let pit = Arc::new(Mutex::new(Pit::new(Monotonic, timer, io_apic.line(PIT_PIN))));

        let mut ports = Ports::default();
        ports.add(Pic::PRIMARY, Pic::PORTS, Arc::new(Mutex::new(Pic::default())));
        ports.add(Pic::SECONDARY, Pic::PORTS, Arc::new(Mutex::new(Pic::default())));
        ports.add(Pit::PORT, Pit::PORTS, pit.clone());
        ports.add(KeyboardController::PORT, 1, Arc::new(Mutex::new(KeyboardController::new(signal.clone()))));
        ports.add(RTC_PORT, Rtc::PORTS, Arc::new(Mutex::new(Rtc::new(WallClock))));
        ports.add(SERIAL_PORT, SerialPort::PORTS, serial.clone());
        ports.add(PM_EVENT, PowerManagement::PORTS, Arc::new(Mutex::new(power.ports(Monotonic))));
        ports.add(RESET_PORT, 1, Arc::new(Mutex::new(ResetControl::new(signal.clone()))));
        let mut mmio = Mmio::default();
        mmio.add(IO_APIC, IoApic::LEN, io_apic.clone());
        Ok(Self { ports, mmio, io_apic, signal, post: None, serial, power, pit, pit_timer })
    }

    /// Bytes typed at the console; returns how many COM1 took.
    pub fn type_in(&self, bytes: &[u8]) -> usize {
        self.serial.lock().expect("no device panics").receive(bytes)
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        self.power.press_power_button();
    }

    /// The descriptor that is readable when [`Board::expire_timer`] is due.
    pub fn timer(&self) -> BorrowedFd<'_> {
        self.pit_timer.as_fd()
    }

    /// Passes expirations of the host's timer on to the PIT.
    pub fn expire_timer(&self) {
        if drain(&self.pit_timer) > 0 {
            self.pit.lock().expect("no device panics").tick();
        }
    }
}

struct HostTimer(Arc<OwnedFd>);

impl Timer for HostTimer {
    fn arm(&self, first: u64, period: u64) {
        let it_value = timespec(first);
        let setting = Itimerspec { it_interval: timespec(period), it_value };
        if let Err(error) = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &setting) {
            tracing::error!(%error, "the PIT's timer cannot be set");
        }
    }
}

fn timespec(nanoseconds: u64) -> Timespec {
    const SECOND: u64 = 1_000_000_000;
    Timespec { tv_sec: (nanoseconds / SECOND).cast_signed(), tv_nsec: (nanoseconds % SECOND).cast_signed() }
}
