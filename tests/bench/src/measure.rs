//! Measuring: batches long enough for the clock, each between two marks.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

use crate::raw;

/// Batches a workload is measured in.
const BATCHES: usize = 7;
/// How long one batch takes unless the command line says otherwise.
const BATCH: Duration = Duration::from_millis(60);
/// After a report and before the next region: what the report caused elsewhere (a console's way through the
/// hypervisor and the root) is over by then.
const PAUSE: Duration = Duration::from_millis(100);

/// Measures what it is given and reports it.
pub(crate) struct Meter {
    only: Option<Vec<String>>,
    batch: Duration,
}

impl Meter {
    /// `only` is a list of names with commas; `batch` a number of milliseconds.
    ///
    /// # Errors
    /// `batch` is no number.
    pub(crate) fn new(only: Option<&str>, batch: Option<&str>) -> Result<Self> {
        let only = only.map(|names| names.split(',').map(str::to_string).collect());
        let batch = batch.map(str::parse).transpose().context("bench.batch")?.map(Duration::from_millis);
        Ok(Self { only, batch: batch.unwrap_or(BATCH) })
    }

    /// Whether this workload was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|names| names.iter().any(|wanted| wanted == name))
    }

    /// [`Self::measure_from`] a batch of one operation.
    ///
    /// # Errors
    /// Those of `work`.
    pub(crate) fn measure(&self, region: u32, name: &str, work: impl FnMut(u64) -> Result<()>) -> Result<()> {
        self.measure_from(1, region, name, work)
    }

    /// Finds how many operations a batch has, which also warms up, then measures the batches and prints the
    /// result. A batch has `least` operations or more, so that a slow start does not make it short. `work` carries out as many operations as it is told. The
    /// first error of `work` ends it all.
    ///
    /// # Errors
    /// Those of `work`.
    pub(crate) fn measure_from(
        &self,
        least: u64,
        region: u32,
        name: &str,
        mut work: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut time = |count| -> Result<Duration> {
            let begin = Instant::now();
            work(count)?;
            Ok(begin.elapsed())
        };
        let mut count = least;
        loop {
            // The better of two: a disturbance must not make the batches short.
            let took = time(count)?.min(time(count)?);
            if took >= self.batch / 2 {
                count = scale(count, self.batch, took).max(least);
                break;
            }
            count = scale(count, self.batch, took).clamp(count * 2, count * 16);
        }
        std::thread::sleep(PAUSE);
        let mut batches = [Duration::ZERO; BATCHES];
        for batch in &mut batches {
            raw::mark_begin(region);
            *batch = time(count)?;
            raw::mark_end(region);
        }
        report(region, name, count, batches);
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

/// `count` operations took `took`: how many take `wanted`.
fn scale(count: u64, wanted: Duration, took: Duration) -> u64 {
    (u128::from(count) * wanted.as_nanos() / took.as_nanos().max(1)).try_into().unwrap_or(u64::MAX)
}

/// `iterations` are those of one batch; times are for one operation.
fn report(region: u32, name: &str, count: u64, mut batches: [Duration; BATCHES]) {
    batches.sort_unstable();
    let per_op = |batch: Duration| batch.as_nanos() as f64 / count as f64;
    let [min, .., max] = batches;
    println!(
        "BENCH {{\"region\":{region},\"name\":\"{name}\",\"iterations\":{count},\"ns_per_op\":{:.1},\"min\":{:.1},\"max\":{:.1}}}",
        per_op(batches[BATCHES / 2]),
        per_op(min),
        per_op(max)
    );
}

/// Time since the kernel started to keep it.
pub(crate) fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_sized_by_time() {
        let ms = Duration::from_millis;
        assert_eq!(scale(10, ms(60), ms(30)), 20);
        assert_eq!(scale(10, ms(60), ms(600)), 1);
        assert_eq!(scale(1, ms(60), Duration::ZERO), 60_000_000);
    }

    #[test]
    fn names_choose_workloads() {
        let meter = Meter::new(Some("fork,cpuid"), None).unwrap();
        assert!(meter.wants("cpuid") && !meter.wants("chase"));
        assert!(Meter::new(None, None).unwrap().wants("chase"));
        assert!(Meter::new(None, Some("soon")).is_err());
    }
}
