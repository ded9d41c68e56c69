//! Takes guests that do not come back out of `KVM_RUN`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use exeunt_linux::Kicker;

/// What a script may take. Under an emulated CPU one takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked.
const TICK: Duration = Duration::from_millis(200);

/// One thread that looks after one script at a time.
#[derive(Debug)]
pub(crate) struct Watchdog {
    watched: Arc<Mutex<Option<Watched>>>,
}

#[derive(Debug)]
struct Watched {
    kicker: Kicker,
    until: Instant,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        let watched = Arc::default();
        let weak = Arc::downgrade(&watched);
        // Without a thread a guest that hangs hangs the whole, which whoever started this has to see.
        let _ = thread::Builder::new().spawn(move || look(&weak));
        Self { watched }
    }

    /// Begins to look after a vCPU, until the guard is dropped. A vCPU that took too long is kicked, and from then on
    /// each of its entries is.
    pub(crate) fn watch(&self, kicker: Kicker) -> Guard<'_> {
        *lock(&self.watched) = Some(Watched { kicker, until: Instant::now() + PATIENCE });
        Guard(self)
    }
}

/// A vCPU that is looked after.
pub(crate) struct Guard<'a>(&'a Watchdog);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        *lock(&self.0.watched) = None;
    }
}

fn lock(watched: &Mutex<Option<Watched>>) -> MutexGuard<'_, Option<Watched>> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(watched: &Weak<Mutex<Option<Watched>>>) {
    while let Some(watched) = watched.upgrade() {
        if let Some(Watched { kicker, .. }) = lock(&watched).as_ref().filter(|it| it.until < Instant::now()) {
            kicker.kick();
        }
        drop(watched);
        thread::sleep(TICK);
    }
}
