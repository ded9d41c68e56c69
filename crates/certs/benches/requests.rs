//! Question: how many requests for certificates does a host answer while its table is updated every second?
//!
//! Each request takes the lock, reads or keeps the table, holds the lease for 200 µs as if a report were signed, and gives
//! it back, on two threads. An updater replaces the file once a second. Aims: no request fails, and nobody waits for
//! longer than an update takes.
//!
//! Unit: requests per second; the longest wait of a request and the longest update in ms; the cost of one lease alone in
//! µs, best of 5 runs.
//! Command: `cargo bench -p exeunt-certs --no-default-features --bench requests`.

use exeunt::certs::{CheckedTable, Lease, Provider as _};
use exeunt_certs::chain::{Bundle, Chain, Root, Verifier};
use exeunt_certs::clock::SystemClock;
use exeunt_certs::file::{FileProvider, Options, replace};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const RUN: Duration = Duration::from_secs(4);
const SIGNING: Duration = Duration::from_micros(200);
const LIMIT: Duration = Duration::from_secs(5);

fn table() -> CheckedTable {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut bundle = Bundle::default();
    for name in ["milan-vcek.der", "milan-ask.der", "milan-ark.der"] {
        bundle.add(&std::fs::read(folder.join(name)).expect("a certificate")).expect("a certificate");
    }
    bundle.table().expect("a table")
}

fn provider(path: &Path, keep: bool) -> FileProvider {
    FileProvider::new(path).with_options(Options { keep, wait_limit: LIMIT, ..Options::default() })
}

/// The best of five runs of 2000 rounds, in µs per round.
fn best_us(mut round: impl FnMut()) -> f64 {
    let run = |round: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..2000 {
            round();
        }
        start.elapsed().as_secs_f64() * 1e6 / 2000.0
    };
    (0..5).map(|_| run(&mut round)).fold(f64::INFINITY, f64::min)
}

/// Two threads that ask, and an updater.
fn under_updates(name: &str, path: &Path, keep: bool) {
    let provider = provider(path, keep);
    let stop = AtomicBool::new(false);
    let (requests, failures, longest) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let start = Instant::now();
    let (updates, longest_update) = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let lease = provider.lease();
                    let waited = u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX);
                    longest.fetch_max(waited, Ordering::Relaxed);
                    let is_whole = lease.as_ref().is_ok_and(Lease::is_guarded);
                    failures.fetch_add(u32::from(!is_whole), Ordering::Relaxed);
                    requests.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(SIGNING);
                }
            });
        }
        let updates = update_every_second(path);
        stop.store(true, Ordering::Relaxed);
        updates
    });
    let rate = f64::from(requests.into_inner()) / start.elapsed().as_secs_f64();
    let longest = f64::from(longest.into_inner()) / 1000.0;
    println!(
        "requests/{name} {rate:.0} requests/s, {} failed, longest wait {longest:.1} ms, {updates} updates of at \
         most {:.1} ms",
        failures.into_inner(),
        longest_update.as_secs_f64() * 1000.0
    );
}

fn update_every_second(path: &Path) -> (u32, Duration) {
    let (table, clock) = (table(), SystemClock::default());
    let (mut updates, mut longest) = (0, Duration::ZERO);
    let start = Instant::now();
    while start.elapsed() < RUN {
        std::thread::sleep(Duration::from_secs(1));
        let begun = Instant::now();
        match replace(path, &table, LIMIT, None, &clock) {
            Ok(()) => updates += 1,
            Err(error) => println!("an update failed: {error}"),
        }
        longest = longest.max(begun.elapsed());
    }
    (updates, longest)
}

fn main() {
    let folder: PathBuf = std::env::temp_dir().join(format!("exeunt-bench-certs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("certs.bin");
    std::fs::write(&path, table().as_bytes()).expect("a file");
    // A table is kept when its file has not changed for a tick of the file system.
    std::thread::sleep(Duration::from_millis(300));
    for (name, keep) in [("kept", true), ("read", false)] {
        let provider = provider(&path, keep);
        println!("lease/{name} {:.1} us/request", best_us(|| drop(provider.lease())));
    }
    let chains = Chain::all_of(&table()).expect("a chain");
    let verifier = Verifier { root: Root::Any, allow_simulated: true, at: None };
    let chain = chains.first().expect("a chain");
    println!("verify/chain {:.0} us", best_us(|| drop(verifier.verify(chain))));
    under_updates("kept", &path, true);
    under_updates("read", &path, false);
    std::fs::remove_dir_all(&folder).expect("an empty folder");
}
