//! A provider that answers in time, around one that may not.

use exeunt::certs::{Lease, Provider, Unavailable};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Asks another provider on a thread of its own and waits for `limit` at most. Then the guest is told to come back, and
/// so is everybody who asks before the other provider has answered: one request is under way, however many vCPUs ask.
///
/// [`super::file::FileProvider`] bounds its waiting by itself. This is for providers that ask a service, or whose file
/// lies where a read may hang.
#[derive(Debug)]
pub struct Bounded<P> {
    inner: Arc<P>,
    limit: Duration,
    /// Who waits for the answer of a request that was late.
    late: Mutex<Option<Receiver<Answer>>>,
}

type Answer = Result<Lease, Unavailable>;

impl<P: Provider + 'static> Bounded<P> {
    /// Bounds each request. A Linux guest that is told to come back does so after 2 seconds, for a minute.
    #[must_use]
    pub fn new(inner: P, limit: Duration) -> Self {
        Self { inner: Arc::new(inner), limit, late: Mutex::new(None) }
    }

    /// Has the provider asked. `None` if there is no thread to be had.
    fn ask(&self) -> Option<Receiver<Answer>> {
        let (sender, receiver): (SyncSender<Answer>, _) = sync_channel(1);
        let inner = Arc::clone(&self.inner);
        let asking = std::thread::Builder::new().name("exeunt-certs".into());
        // Nobody joins it: it may never end. An answer that nobody waits for ends its lease here.
        let asked = asking.spawn(move || drop(sender.send(inner.lease())));
        asked.is_ok().then_some(receiver)
    }
}

impl<P: Provider + 'static> Provider for Bounded<P> {
    fn lease(&self) -> Result<Lease, Unavailable> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receiver) = late.take() {
            // The answer to an earlier request is of an earlier time: its lease ends, and the provider is asked again.
            if matches!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout)) {
                *late = Some(receiver);
                return Err(Unavailable::Busy);
            }
        }
        let receiver = self.ask().ok_or(Unavailable::Busy)?;
        match receiver.recv_timeout(self.limit) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                *late = Some(receiver);
                Err(Unavailable::Busy)
            }
            // It panicked.
            Err(RecvTimeoutError::Disconnected) => Err(Unavailable::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt::certs::{CheckedTable, Guard};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Answers when it is let, each with a lease that counts its end.
    #[derive(Debug)]
    struct Slow {
        gate: Mutex<Receiver<()>>,
        asked: Arc<AtomicU32>,
        ended: Arc<AtomicU32>,
    }

    #[derive(Debug)]
    struct Counted(Arc<AtomicU32>);

    impl Guard for Counted {}

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Provider for Slow {
        fn lease(&self) -> Result<Lease, Unavailable> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            assert!(self.gate.lock().unwrap().recv().is_ok(), "the test is over");
            Ok(Lease::guarded(Arc::new(CheckedTable::empty()), Counted(Arc::clone(&self.ended))))
        }
    }

    #[test]
    fn a_provider_that_hangs_is_busy_and_is_asked_once() {
        let (open, gate) = sync_channel(8);
        let (asked, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let slow = Slow { gate: Mutex::new(gate), asked: Arc::clone(&asked), ended: Arc::clone(&ended) };
        let bounded = Bounded::new(slow, Duration::from_millis(20));
        for _ in 0..5 {
            assert_eq!(bounded.lease().unwrap_err(), Unavailable::Busy);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "however many ask");
        // The late answer is of another time: its lease ends, and the next request is a new one.
        open.send(()).unwrap();
        open.send(()).unwrap();
        let lease = loop {
            match bounded.lease() {
                Ok(lease) => break lease,
                Err(unavailable) => assert_eq!(unavailable, Unavailable::Busy),
            }
        };
        assert_eq!((asked.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (2, 1));
        drop(lease);
        assert_eq!(ended.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_provider_that_panics_is_busy() {
        #[derive(Debug)]
        struct Panics;
        impl Provider for Panics {
            fn lease(&self) -> Result<Lease, Unavailable> {
                panic!("as the test wants it")
            }
        }
        let bounded = Bounded::new(Panics, Duration::from_secs(60));
        for _ in 0..2 {
            assert_eq!(bounded.lease().unwrap_err(), Unavailable::Busy);
        }
    }
}
