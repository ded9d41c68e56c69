//! What the providers do under `strace`.

use crate::scenes::{Scene, mark};
use exeunt::certs::{CheckedTable, Provider as _};
use exeunt_certs::clock::SystemClock;
use exeunt_certs::file::{FileProvider, replace};
use exeunt_quote::{Address, Conduct, Server, get_quote};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// More than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}", std::process::id()))
}

#[test]
#[ignore = "played under strace by other tests"]
fn uses_certificates() {
    let path = path("certs");
    let table = CheckedTable::empty();
    let clock = SystemClock::default();
    mark(Scene::Certificates.name());
    for _ in 0..2 {
        replace(&path, &table, LIMIT, None, &clock).unwrap();
    }
    let provider = FileProvider::new(&path);
    for _ in 0..2 {
        drop(provider.lease().unwrap());
    }
    mark("end");
    std::fs::remove_file(&path).unwrap();
}

#[test]
#[ignore = "played under strace by other tests"]
fn uses_quotes() {
    let address = Address::Unix(path("quote"));
    let server = Server::new(&address, Conduct::Answer, Duration::ZERO).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| server.serve(drop));
        // The service goes on waiting in a call that it has begun already.
        thread::sleep(Duration::from_millis(50));
        mark(Scene::Quotes.name());
        let quote = get_quote(&address, &[7; 1024], 0x4000, LIMIT);
        mark("end");
        server.close();
        assert!(!quote.unwrap().is_empty());
    });
}
