//! The provider that asks a service behind a socket.

use crate::Address;
use crate::client::{GetQuoteError, get_quote_on};
use crate::stream::hang_up;
use exeunt::tdx::{NoQuote, QuoteProvider, QuoteSink};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// How long a quote may take, unless the VMM says otherwise: 30 seconds, as long as a Linux guest waits for one.
///
/// Source: Linux v7.2 `drivers/virt/coco/tdx-guest/tdx-guest.c`, `getquote_timeout`.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Threads that ask at the same time, unless the VMM says otherwise: as many as there are slots of quotes.
pub const WORKERS: usize = 16;

/// Who is told why a quote was not made. It runs on the thread that asked.
pub type OnFailure = Box<dyn Fn(&GetQuoteError) + Send + Sync>;

/// Asks a quote generation service. Each request is a connection and a thread of its own; there are never more than
/// the workers allow, and each ends in time. Dropping the provider hangs up.
pub struct SocketProvider {
    shared: Arc<Shared>,
}

struct Shared {
    address: Address,
    time: Duration,
    workers: usize,
    on_failure: Option<OnFailure>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    busy: usize,
    is_closed: bool,
    open: Vec<Weak<OwnedFd>>,
}

impl SocketProvider {
    /// A provider with the default limits.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self::with(address, TIMEOUT, WORKERS, None)
    }

    /// A provider with limits of its own: the time for a quote, and how many are asked for at once.
    #[must_use]
    pub fn with(address: Address, time: Duration, workers: usize, on_failure: Option<OnFailure>) -> Self {
        let state = Mutex::default();
        Self { shared: Arc::new(Shared { address, time, workers, on_failure, state }) }
    }

    /// How many threads are asking.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.shared.state().busy
    }
}

impl QuoteProvider for SocketProvider {
    /// With all workers busy the service counts as unavailable. Without a thread no quote is made.
    fn submit(&self, report: &[u8], sink: QuoteSink) {
        let Some(worker) = Worker::start(&self.shared) else {
            return sink.complete(Err(NoQuote::Unavailable));
        };
        let report = report.to_vec();
        let thread = thread::Builder::new().name("exeunt-quote".into());
        // Without a thread the sink is dropped, which tells the TD.
        let _ = thread.spawn(move || {
            let answer = worker.ask(&report, &sink);
            // The worker is free before the slot is: a TD that sees its quote may ask for the next one at once.
            drop(worker);
            sink.complete(answer.as_deref().map_err(|none| *none));
        });
    }
}

impl Drop for SocketProvider {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_closed = true;
        for socket in state.open.drain(..).filter_map(|socket| socket.upgrade()) {
            hang_up(&socket);
        }
    }
}

impl fmt::Debug for SocketProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("SocketProvider");
        fields.field("address", &self.shared.address).field("busy", &self.busy()).finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the threads. It counts until it is dropped.
struct Worker(Arc<Shared>);

impl Worker {
    fn start(shared: &Arc<Shared>) -> Option<Self> {
        let mut state = shared.state();
        if state.busy >= shared.workers {
            return None;
        }
        state.busy = state.busy.saturating_add(1);
        Some(Self(Arc::clone(shared)))
    }

    fn ask(&self, report: &[u8], sink: &QuoteSink) -> Result<Vec<u8>, NoQuote> {
        let Self(shared) = self;
        let room_bytes = usize::try_from(sink.room_bytes()).unwrap_or(usize::MAX);
        let connected = |socket: &Arc<OwnedFd>| shared.state().add(socket);
        get_quote_on(&shared.address, report, room_bytes, shared.time, connected).map_err(|error| {
            if let Some(on_failure) = &shared.on_failure {
                on_failure(&error);
            }
            match error {
                GetQuoteError::Connect { .. } => NoQuote::Unavailable,
                _ => NoQuote::Failed,
            }
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.busy = state.busy.saturating_sub(1);
    }
}

impl State {
    fn add(&mut self, socket: &Arc<OwnedFd>) {
        if self.is_closed {
            hang_up(socket);
            return;
        }
        self.open.retain(|socket| socket.strong_count() > 0);
        self.open.push(Arc::downgrade(socket));
    }
}
