//! Progress lines: what happens now, how long it has taken, and how long a long step is known to take.

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Time since the first call of anything in this module.
pub(crate) fn elapsed() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// Prints one line with the time since the start in front of it.
pub(crate) fn say(text: impl Display) {
    eprintln!("[{:7.1} s] {text}", elapsed().as_secs_f64());
}

/// Announces `what`, does it, and says how long it took if it was more than two seconds.
///
/// # Errors
/// Those of `work`.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    say(format_args!("{what} …"));
    let begin = Instant::now();
    let value = work()?;
    let took = begin.elapsed();
    if took > Duration::from_secs(2) {
        say(format_args!("  took {:.0} s", took.as_secs_f64()));
    }
    Ok(value)
}
