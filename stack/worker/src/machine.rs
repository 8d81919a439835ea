//! One life of a machine, from reset to reset or to its end.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use control::{VmConfig, VpState};
use storvsp::controller::Controller;

use crate::{
    board::Board,
    boot::{self, BootError},
    device::serial::Terminal,
    partition::{Partition, PartitionError},
    raw,
    signal::Outcome,
    synthetic::Synthetic,
    vp::{self, Shared, Slot},
};

/// Why a machine did not start.
#[derive(Debug)]
pub enum StartError {
    /// Its files or its memory.
    Boot(BootError),
    /// The kernel or the hypervisor.
    Partition(PartitionError),
    /// The boot processor's registers.
    Registers(mshv_ioctls::MshvError),
    /// Threads or descriptors of the host.
    Host(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot(error) => error.fmt(f),
            Self::Partition(error) => error.fmt(f),
            Self::Registers(error) => write!(f, "cannot set the boot processor's registers: {error}"),
            Self::Host(error) => write!(f, "the host is out of threads or descriptors: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// How soon a thread that did not come back is interrupted again.
const RETRY: Duration = Duration::from_millis(2);

/// A running machine.
pub struct Machine {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    synthetic: Option<Synthetic>,
}

impl Machine {
    /// Loads the files, creates the partition and lets its processors run, with the disks of `controller`.
    ///
    /// # Errors
    ///
    /// The first thing that failed; everything made before it is gone again.
    pub fn start(
        config: &VmConfig,
        controller: Option<Arc<Controller>>,
        terminal: Arc<dyn Terminal>,
    ) -> Result<Self, StartError> {
        let (ram, entry) = boot::load(config).map_err(StartError::Boot)?;
        raw::prefer_large_pages(&ram);
        let partition = Partition::create(config).map_err(StartError::Partition)?;
        partition.map(&ram).map_err(StartError::Partition)?;
        // The check of the configuration keeps the number below the size of an index.
        let indices = 0..u8::try_from(config.vps).unwrap_or(u8::MAX);
        let vps =
            indices.map(|index| Ok((index, partition.create_vp(index)?))).collect::<Result<Vec<_>, _>>();
        let vps = vps.map_err(StartError::Partition)?;
        if let Some((_, boot_processor)) = vps.first() {
            vp::set_entry(boot_processor, entry).map_err(StartError::Registers)?;
        }
        let ram = Arc::new(ram);
        let board = Board::new(partition.clone(), terminal);
        let mut board = board.map_err(|error| StartError::Host(error.into()))?;
        let synthetic = match controller {
            Some(controller) => {
                partition.report_messages().map_err(StartError::Partition)?;
                let started = Synthetic::start(
                    Arc::new(partition),
                    ram.clone(),
                    config.vps,
                    controller,
                    board.signal.clone(),
                );
                Some(started.map_err(StartError::Host)?)
            }
            None => None,
        };
        board.post = synthetic.as_ref().map(Synthetic::post);
        let shared = Arc::new(Shared {
            board: Arc::new(board),
            ram,
            stop: AtomicBool::new(false),
            slots: vps.iter().map(|_| Slot::default()).collect(),
        });
        let mut machine = Self { shared: shared.clone(), threads: Vec::new(), synthetic };
        for (index, vp) in vps {
            match vp::spawn(index, vp, shared.clone()) {
                Ok(thread) => machine.threads.push(thread),
                Err(error) => {
                    machine.stop();
                    return Err(StartError::Host(error));
                }
            }
        }
        Ok(machine)
    }

    /// The devices.
    pub fn board(&self) -> &Board {
        &self.shared.board
    }

    /// Exits that reached this process in this life.
    pub fn exits(&self) -> u64 {
        self.shared.slots.iter().map(|slot| slot.exits.load(Ordering::Relaxed)).sum()
    }

    /// What the processors are doing. Each is stopped for a moment; one that does not stop in time is left
    /// out.
    pub fn processors(&self) -> Vec<VpState> {
        const PATIENCE: Duration = Duration::from_millis(500);
        let deadline = Instant::now() + PATIENCE;
        let slots = &self.shared.slots;
        for slot in slots {
            *slot.state.lock().expect("no holder of this lock panics") = None;
            slot.wanted.store(true, Ordering::Release);
        }
        loop {
            let missing =
                slots.iter().zip(&self.threads).filter(|(slot, _)| slot.wanted.load(Ordering::Acquire));
            let missing = missing.map(|(_, thread)| vp::interrupt(thread)).count();
            if missing == 0 || Instant::now() >= deadline {
                break;
            }
            thread::sleep(RETRY);
        }
        slots
            .iter()
            .filter_map(|slot| slot.state.lock().expect("no holder of this lock panics").clone())
            .collect()
    }

    /// Stops the processors and gives everything back: processors, synthetic devices, then the partition, then its memory.
    /// Returns why the machine ended, if that was its own doing.
    pub fn stop(self) -> Option<Outcome> {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads {
            while !thread.is_finished() {
                vp::interrupt(&thread);
                thread::sleep(RETRY);
            }
            if thread.join().is_err() {
                tracing::error!("a processor's thread has panicked");
            }
        }
        drop(self.synthetic);
        tracing::debug!("processors and synthetic devices have stopped");
        self.shared.board.signal.outcome()
    }
}
