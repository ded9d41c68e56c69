//! A provider that answers in time, around one that may not.

use exeunt::certs::{Lease, Provider, Unavailable};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Asks another provider on a thread of its own and waits for `limit` at most. Then the guest is told to come back, and
/// so is everybody who asks before the other provider has answered: one request is under way, however many vCPUs ask.
///
/// [`super::file::FileProvider`] bounds its waiting by itself. This is for providers that ask a service, or whose file
/// lies where a read may hang.
#[derive(Debug)]
pub struct Bounded<P> {
    inner: Arc<P>,
    limit: Duration,
    turn: Mutex<Turn>,
    /// The turn is free again.
    is_free: Condvar,
}

/// Whose turn it is to ask.
#[derive(Debug, Default)]
struct Turn {
    is_taken: bool,
    /// Lives for as long as a request that was late is under way.
    late: Weak<()>,
}

type Answer = Result<Lease, Unavailable>;

impl<P: Provider + 'static> Bounded<P> {
    /// Bounds each request. A Linux guest that is told to come back does so after 2 seconds, for a minute.
    #[must_use]
    pub fn new(inner: P, limit: Duration) -> Self {
        Self { inner: Arc::new(inner), limit, turn: Mutex::default(), is_free: Condvar::new() }
    }

    /// Has the provider asked, and waits for `limit`. With the answer comes what shows that a late request is under way.
    fn ask(&self, limit: Duration) -> (Answer, Weak<()>) {
        let (sender, receiver) = sync_channel(1);
        let inner = Arc::clone(&self.inner);
        let token = Arc::new(());
        let under_way = Arc::downgrade(&token);
        let asking = std::thread::Builder::new().name("exeunt-certs".into());
        // Nobody joins it: it may never end. An answer that nobody waits for ends its lease here.
        let asked = asking.spawn(move || {
            drop(sender.send(inner.lease()));
            drop(token);
        });
        match asked.map(|_| receiver.recv_timeout(limit)) {
            Ok(Ok(answer)) => (answer, Weak::new()),
            Ok(Err(RecvTimeoutError::Timeout)) => (Err(Unavailable::Busy), under_way),
            // It panicked, or there is no thread to be had.
            Ok(Err(RecvTimeoutError::Disconnected)) | Err(_) => (Err(Unavailable::Busy), Weak::new()),
        }
    }
}

impl<P: Provider + 'static> Provider for Bounded<P> {
    fn lease(&self) -> Result<Lease, Unavailable> {
        let start = Instant::now();
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.is_free.wait_timeout_while(turn, self.limit, |turn| turn.is_taken);
        let (mut turn, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if turn.is_taken || turn.late.strong_count() > 0 {
            return Err(Unavailable::Busy);
        }
        turn.is_taken = true;
        drop(turn);
        let (answer, late) = self.ask(self.limit.saturating_sub(start.elapsed()));
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Turn { is_taken: false, late };
        self.is_free.notify_one();
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt::certs::{CheckedTable, Guard};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::Receiver;

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
    fn a_lease_that_comes_too_late_ends_although_nobody_asks_again() {
        let (open, gate) = sync_channel(8);
        let (asked, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let slow = Slow { gate: Mutex::new(gate), asked, ended: Arc::clone(&ended) };
        let bounded = Bounded::new(slow, Duration::from_millis(20));
        assert_eq!(bounded.lease().unwrap_err(), Unavailable::Busy);
        open.send(()).unwrap();
        let start = Instant::now();
        while ended.load(Ordering::SeqCst) == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "an updater waits for the lock of a late answer"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn of_many_who_ask_at_once_nobody_waits_for_longer_than_the_limit() {
        /// Answers in time, and not twice in that time.
        #[derive(Debug)]
        struct Steady;
        impl Provider for Steady {
            fn lease(&self) -> Result<Lease, Unavailable> {
                std::thread::sleep(Duration::from_millis(300));
                Ok(Lease::of(Arc::new(CheckedTable::empty())))
            }
        }
        let bounded = Bounded::new(Steady, Duration::from_millis(500));
        let start = Instant::now();
        let answered = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| bounded.lease().is_ok())).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|is_ok| *is_ok).count()
        });
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert!((1..16).contains(&answered), "{answered} of 16");
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
