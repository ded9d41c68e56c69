//! Counters as text.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use exeunt::layer::event::{ActionKind, ExitKind, ReplyKind};
use exeunt::terminate::StopKind;

use super::cells::{BOUNDS_NS, Cells, Histogram};

/// Writes every series that was counted, with the head of each family.
///
/// Format: Prometheus text exposition format, version 0.0.4.
pub(super) fn write(cells: &Cells, to: &mut impl fmt::Write) -> fmt::Result {
    let exits = || ExitKind::ALL.iter().map(|kind| kind.name());
    let actions = || ActionKind::ALL.iter().map(|kind| kind.name());
    head(to, "exeunt_exits_total", "counter", "Exits of KVM_RUN that were serviced.")?;
    counters(to, "exeunt_exits_total", "kind", exits(), &cells.exits)?;
    head(to, "exeunt_exit_errors_total", "counter", "Exits with a failed effect or a failure as their end.")?;
    counters(to, "exeunt_exit_errors_total", "kind", exits(), &cells.errors)?;
    let about = "Time from a decoded exit to its answer, effects included.";
    head(to, "exeunt_exit_handling_seconds", "histogram", about)?;
    for (kind, handling) in exits().zip(&cells.handling) {
        histogram(to, "exeunt_exit_handling_seconds", kind, handling)?;
    }
    head(to, "exeunt_effects_total", "counter", "Effects on the host.")?;
    for (effect, results) in actions().zip(cells.effects.chunks_exact(2)) {
        for (result, count) in ["ok", "error"].into_iter().zip(results) {
            let count = read(count);
            if count != 0 {
                writeln!(to, "exeunt_effects_total{{effect=\"{effect}\",result=\"{result}\"}} {count}")?;
            }
        }
    }
    head(to, "exeunt_effect_bytes_total", "counter", "Bytes of guest memory in effects that succeeded.")?;
    counters(to, "exeunt_effect_bytes_total", "effect", actions(), &cells.effect_bytes)?;
    head(to, "exeunt_replies_total", "counter", "Answers to exits.")?;
    let replies = ReplyKind::ALL.iter().map(|kind| kind.name());
    counters(to, "exeunt_replies_total", "reply", replies, &cells.replies)?;
    head(to, "exeunt_stops_total", "counter", "Ends of a run.")?;
    let stops = StopKind::ALL.iter().map(|kind| kind.name());
    counters(to, "exeunt_stops_total", "kind", stops, &cells.stops)
}

fn head(to: &mut impl fmt::Write, name: &str, kind: &str, about: &str) -> fmt::Result {
    writeln!(to, "# HELP {name} {about}\n# TYPE {name} {kind}")
}

fn counters(
    to: &mut impl fmt::Write,
    name: &str,
    label: &str,
    values: impl Iterator<Item = &'static str>,
    cells: &[AtomicU64],
) -> fmt::Result {
    for (value, count) in values.zip(cells).map(|(value, cell)| (value, read(cell))) {
        if count != 0 {
            writeln!(to, "{name}{{{label}=\"{value}\"}} {count}")?;
        }
    }
    Ok(())
}

fn histogram(to: &mut impl fmt::Write, name: &str, kind: &str, histogram: &Histogram) -> fmt::Result {
    let mut buckets = histogram.buckets.iter().map(read);
    let count = buckets.clone().fold(0, u64::wrapping_add);
    if count == 0 {
        return Ok(());
    }
    let mut below: u64 = 0;
    for (bound, bucket) in BOUNDS_NS.iter().zip(&mut buckets) {
        below = below.wrapping_add(bucket);
        writeln!(to, "{name}_bucket{{kind=\"{kind}\",le=\"{}\"}} {below}", Seconds(*bound))?;
    }
    writeln!(to, "{name}_bucket{{kind=\"{kind}\",le=\"+Inf\"}} {count}")?;
    writeln!(to, "{name}_sum{{kind=\"{kind}\"}} {}", Seconds(read(&histogram.sum_ns)))?;
    writeln!(to, "{name}_count{{kind=\"{kind}\"}} {count}")
}

fn read(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

/// Nanoseconds, printed as seconds without rounding.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
