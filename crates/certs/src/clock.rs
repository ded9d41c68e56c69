//! Time, so that tests of waiting take none.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime};

/// The clocks of a system, and its way of waiting.
pub trait Clock: Debug + Send + Sync {
    /// Time since some moment in the past. It never goes back.
    fn now(&self) -> Duration;
    /// The time of the calendar. It can be set back and forth.
    fn wall(&self) -> SystemTime;
    /// Lets this much time pass.
    fn sleep(&self, time: Duration);
}

/// The clocks of this system.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

#[cfg(test)]
pub(crate) mod manual {
    use super::{Clock, Duration, SystemTime};
    use std::sync::Mutex;

    /// A clock that only sleeping moves on.
    #[derive(Debug)]
    pub(crate) struct ManualClock {
        start: SystemTime,
        slept: Mutex<Vec<Duration>>,
    }

    impl ManualClock {
        pub(crate) fn new() -> Self {
            Self::at(SystemTime::now())
        }

        pub(crate) fn at(start: SystemTime) -> Self {
            Self { start, slept: Mutex::new(Vec::new()) }
        }

        /// Each sleep, in order.
        pub(crate) fn slept(&self) -> Vec<Duration> {
            self.slept.lock().unwrap().clone()
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> Duration {
            self.slept.lock().unwrap().iter().sum()
        }

        fn wall(&self) -> SystemTime {
            self.start + self.now()
        }

        fn sleep(&self, time: Duration) {
            self.slept.lock().unwrap().push(time);
        }
    }
}
