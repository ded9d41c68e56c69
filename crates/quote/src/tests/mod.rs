mod provider;
mod requests;

use crate::*;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes that works.
const LONG: Duration = Duration::from_secs(20);
/// The report of a TD: 1024 bytes.
const REPORT: &[u8] = &[0xab; 1024];

/// A path of a socket that nobody else has.
fn path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("exeunt-quote-{}-{number}", std::process::id()))
}

/// Runs something against a service with threads enough for every client, and ends the service.
fn against<T>(conduct: Conduct, delay: Duration, run: impl FnOnce(&Address) -> T) -> T {
    let address = Address::Unix(path());
    let server = Server::new(&address, conduct, delay).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| server.serve(drop));
        }
        let result = run(&address);
        server.close();
        result
    })
}

/// Waits until something holds.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < end, "{what} took too long");
        thread::sleep(Duration::from_millis(1));
    }
}
