//! The workloads. Each has a region number for the plugin, which the reports repeat, and says what one operation is.

use std::arch::x86_64::__cpuid;
use std::hint::black_box;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::measure::Meter;
use crate::raw;

/// This program, as it can start itself.
const SELF: &str = "/proc/self/exe";
/// Steps of one operation of the processor loop.
const LOOP: u64 = 1000;
/// Bytes of one operation of the memory copy.
const COPY: usize = 8 << 20;
/// Elements the pointer chase goes through, one in each cache line: 32 MiB, which no TLB reaches.
const CHASE: usize = (32 << 20) / 64;
/// Above glibc's largest threshold (32 MiB) an allocation is a mapping of its own, unmapped when it is dropped.
const MAPPING: usize = 40 << 20;
const PAGE: usize = 4096;
/// What the timer sleep asks for.
const SLEEP: Duration = Duration::from_micros(200);

/// What an idle machine is watched for.
const IDLE: Duration = Duration::from_millis(100);

/// Measures all workloads that the meter wants.
///
/// # Errors
/// The first that fails.
pub(crate) fn all(meter: &Meter) -> Result<()> {
    type Workload = fn(&Meter, u32, &str) -> Result<()>;
    let workloads: [(&str, Workload); 15] = [
        ("cpu-loop-1", cpu_loop_one),
        ("cpu-loop-all", cpu_loop_all),
        ("memory-copy", memory_copy),
        ("chase", chase),
        ("getpid", getpid),
        ("clock-gettime", clock),
        ("cpuid", cpuid),
        ("page-fault", page_fault),
        ("fork", fork),
        ("fork-exec", fork_exec),
        ("pipe-1", |meter, region, name| ping_pong(meter, region, name, 0)),
        ("pipe-2", |meter, region, name| ping_pong(meter, region, name, 1)),
        ("tlb-shootdown", shoot_down),
        ("sleep-200us", sleep),
        ("idle", idle),
    ];
    // Region 0 is the boot.
    for (region, (name, workload)) in (1..).zip(workloads) {
        if meter.wants(name) {
            workload(meter, region, name).context(name)?;
        }
    }
    Ok(())
}

/// Processors this program may use.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Binds the calling thread to a processor.
///
/// # Errors
/// There is no such processor.
pub(crate) fn bind(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on processor {processor}"))
}

/// Runs `work` bound to a processor; afterwards the thread is as free as before.
fn bound(processor: usize, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = sched_getaffinity(None)?;
    bind(processor)?;
    work()?;
    Ok(sched_setaffinity(None, &before)?)
}

/// Arithmetic in registers, each step depending on the one before.
fn spin(operations: u64) {
    let mut state = black_box(0x2545_f491_4f6c_dd1d_u64);
    for _ in 0..operations * LOOP {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
}

fn cpu_loop_one(meter: &Meter, region: u32, name: &str) -> Result<()> {
    meter.measure(region, name, |count| {
        spin(count);
        Ok(())
    })
}

/// One operation is the loop on each of the processors at the same time.
fn cpu_loop_all(meter: &Meter, region: u32, name: &str) -> Result<()> {
    meter.measure_from(4000, region, name, |count| {
        thread::scope(|scope| {
            let threads: Vec<_> =
                (0..processors()).map(|cpu| scope.spawn(move || bind(cpu).map(|()| spin(count)))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
        })
    })
}

fn memory_copy(meter: &Meter, region: u32, name: &str) -> Result<()> {
    let (from, mut to) = (vec![1_u8; COPY], vec![2_u8; COPY]);
    meter.measure(region, name, |count| {
        for _ in 0..count {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
        }
        Ok(())
    })
}

/// One operation is one step along a random cycle.
fn chase(meter: &Meter, region: u32, name: &str) -> Result<()> {
    #[derive(Clone)]
    #[repr(align(64))]
    struct Line(usize);
    let mut lines: Vec<Line> = (0..CHASE).map(Line).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    // Sattolo's shuffle: the result is one cycle through all elements.
    for last in (1..CHASE).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        lines.swap(last, (state >> 33) as usize % last);
    }
    let mut place = 0;
    meter.measure(region, name, |count| {
        for _ in 0..count {
            place = lines[place].0;
        }
        black_box(place);
        Ok(())
    })
}

fn getpid(meter: &Meter, region: u32, name: &str) -> Result<()> {
    meter.measure(region, name, |count| {
        for _ in 0..count {
            black_box(rustix::process::getpid());
        }
        Ok(())
    })
}

fn clock(meter: &Meter, region: u32, name: &str) -> Result<()> {
    meter.measure(region, name, |count| {
        for _ in 0..count {
            black_box(Instant::now());
        }
        Ok(())
    })
}

fn cpuid(meter: &Meter, region: u32, name: &str) -> Result<()> {
    meter.measure(region, name, |count| {
        for _ in 0..count {
            black_box(__cpuid(black_box(1)));
        }
        Ok(())
    })
}

/// One operation is the first touch of a page, with its share of making and removing the mapping.
fn page_fault(meter: &Meter, region: u32, name: &str) -> Result<()> {
    meter.measure(region, name, |count| {
        let pages = MAPPING / PAGE;
        let mut left = count as usize;
        while left > 0 {
            let mut mapping = vec![0_u8; MAPPING];
            let touched = left.min(pages);
            for page in 0..touched {
                mapping[page * PAGE] = 1;
            }
            black_box(&mut mapping);
            left -= touched;
        }
        Ok(())
    })
}

fn fork(meter: &Meter, region: u32, name: &str) -> Result<()> {
    meter.measure_from(5, region, name, |count| (0..count).try_for_each(|_| raw::fork(None)))
}

fn fork_exec(meter: &Meter, region: u32, name: &str) -> Result<()> {
    meter.measure_from(3, region, name, |count| {
        (0..count).try_for_each(|_| raw::fork(Some((c"/proc/self/exe", c"exit"))))
    })
}

/// One operation is a byte to another process and back, over two pipes. We are on processor 0, it is on `other`.
fn ping_pong(meter: &Meter, region: u32, name: &str, other: usize) -> Result<()> {
    if other >= processors() {
        return Ok(());
    }
    let mut process = Command::new(SELF)
        .args(["echo", &other.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the other process")?;
    let (mut to, mut from) =
        (process.stdin.take().context("no pipe")?, process.stdout.take().context("no pipe")?);
    bound(0, || {
        meter.measure_from(100, region, name, |count| {
            let mut byte = [0];
            for _ in 0..count {
                to.write_all(&byte)?;
                from.read_exact(&mut byte)?;
            }
            Ok(())
        })
    })?;
    drop(to);
    process.wait()?;
    Ok(())
}

/// One operation is a mapping made, one page of it touched, and the mapping removed, while threads of the same
/// process run on all other processors, which must forget the page.
fn shoot_down(meter: &Meter, region: u32, name: &str) -> Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for cpu in 1..processors() {
            let stop = &stop;
            scope.spawn(move || {
                bind(cpu)?;
                while !stop.load(Ordering::Relaxed) {
                    spin(1);
                }
                anyhow::Ok(())
            });
        }
        let outcome = bound(0, || {
            meter.measure_from(10, region, name, |count| {
                for _ in 0..count {
                    let mut mapping = vec![0_u8; MAPPING];
                    mapping[0] = 1;
                    black_box(&mut mapping);
                }
                Ok(())
            })
        });
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

fn sleep(meter: &Meter, region: u32, name: &str) -> Result<()> {
    meter.measure_from(100, region, name, |count| {
        (0..count).for_each(|_| thread::sleep(SLEEP));
        Ok(())
    })
}

/// One operation is a tenth of a second in which the machine has nothing to do.
fn idle(meter: &Meter, region: u32, name: &str) -> Result<()> {
    meter.measure(region, name, |count| {
        (0..count).for_each(|_| thread::sleep(IDLE));
        Ok(())
    })
}
