//! All processors at work against each other: timers, wake-ups of other processors, page faults, translations that
//! others must forget, processes. What each of them finds must be right; how fast it is does not matter.

use std::hint::black_box;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{raw, work};

/// What a timer is asked for.
const SLEEP: Duration = Duration::from_micros(100);
/// Words of a mapping: one of glibc's own, made and removed each time, whose removal every processor hears of.
const WORDS: usize = (40 << 20) / size_of::<u64>();
/// Words of a page.
const PAGE: usize = 4096 / size_of::<u64>();
/// Pages of the mapping that are touched.
const TOUCHED: usize = 32;
/// Rounds of the other work between two processes.
const ROUNDS: u64 = 16;

/// What all processors share.
struct Shared {
    begin: Instant,
    stop: AtomicBool,
    /// The latest time, in nanoseconds since `begin`, that any of them has seen.
    latest: AtomicU64,
}

impl Shared {
    /// Looks at the clock, which must not be behind what another processor has seen before.
    fn look(&self) -> Result<()> {
        let before = self.latest.load(Ordering::SeqCst);
        let now = u64::try_from(self.begin.elapsed().as_nanos())?;
        ensure!(now >= before, "the clock goes back by {} ns", before - now);
        self.latest.fetch_max(now, Ordering::SeqCst);
        Ok(())
    }
}

/// Works all processors for so many seconds and tells what each has done.
///
/// # Errors
/// One of them finds something wrong.
pub(crate) fn run(seconds: u64) -> Result<()> {
    let processors = work::processors();
    let shared = Shared { begin: Instant::now(), stop: AtomicBool::new(false), latest: AtomicU64::new(0) };
    let outcomes = thread::scope(|scope| {
        let threads: Vec<_> = (0..processors)
            .map(|own| {
                let shared = &shared;
                scope.spawn(move || {
                    let outcome = one(own, (own + 1) % processors, shared);
                    // A failure of one ends them all.
                    shared
                        .stop
                        .store(outcome.is_err() || shared.stop.load(Ordering::SeqCst), Ordering::SeqCst);
                    outcome
                })
            })
            .collect();
        let end = Duration::from_secs(seconds);
        while shared.begin.elapsed() < end && !shared.stop.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(100));
        }
        shared.stop.store(true, Ordering::SeqCst);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a panic"))))
            .collect::<Vec<_>>()
    });
    for (processor, outcome) in outcomes.into_iter().enumerate() {
        let rounds = outcome.with_context(|| format!("processor {processor}"))?;
        ensure!(rounds > 0, "processor {processor} came to nothing");
        println!("processor {processor} made {rounds} rounds");
    }
    println!("all {processors} processors worked for {seconds} s");
    Ok(())
}

/// The work of one processor, until all are told to stop: how many rounds it made. `other` echoes its bytes.
fn one(own: usize, other: usize, shared: &Shared) -> Result<u64> {
    let ((near, to), (from, far)) = (pipe()?, pipe()?);
    thread::scope(|scope| {
        let echo = scope.spawn(move || echo(other, near, far));
        let rounds = rounds(own, to, from, shared);
        echo.join().map_err(|_| anyhow::anyhow!("the echo panicked"))??;
        rounds
    })
}

fn rounds(own: usize, mut to: PipeWriter, mut from: PipeReader, shared: &Shared) -> Result<u64> {
    work::bind(own)?;
    let mut round = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        shared.look()?;
        let begin = Instant::now();
        thread::sleep(SLEEP);
        ensure!(begin.elapsed() >= SLEEP, "a sleep took {:?} only", begin.elapsed());
        let mut byte = [round as u8];
        to.write_all(&byte)?;
        from.read_exact(&mut byte)?;
        ensure!(byte == [round as u8], "{} came back instead of {}", byte[0], round as u8);
        touch(own as u64 ^ round << 8)?;
        if round.is_multiple_of(ROUNDS) {
            raw::fork(Some((c"/proc/self/exe", c"exit")))?;
        }
        round += 1;
    }
    Ok(round)
}

/// Makes a mapping, in which every page is new, zero, and keeps what is written.
fn touch(pattern: u64) -> Result<()> {
    let mut mapping = black_box(vec![0_u64; WORDS]);
    for page in 0..TOUCHED {
        let word = &mut mapping[page * PAGE];
        ensure!(*word == 0, "a new page has {word:#x} in it");
        *word = pattern;
    }
    let mapping = black_box(mapping);
    for page in 0..TOUCHED {
        let word = mapping[page * PAGE];
        ensure!(word == pattern, "a page has {word:#x} instead of {pattern:#x}");
    }
    Ok(())
}

/// Returns each byte, bound to a processor, until there are no more.
fn echo(processor: usize, mut from: PipeReader, mut to: PipeWriter) -> Result<()> {
    work::bind(processor)?;
    let mut byte = [0];
    while from.read(&mut byte)? == 1 {
        to.write_all(&byte)?;
    }
    Ok(())
}
