//! From a request for a quote to the quote in the TD's buffer.

use super::slots::{Slots, Taken};
use crate::layer::trace::Observer;
use crate::memory::GuestMemory;
use crate::plan::apply_all;
use crate::sync::{Mutex, MutexGuard};
use exeunt_abi::ghci::{QuoteHeader, Status};
use exeunt_abi::{Errno, Gpa};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::ghci::{QuoteStatus, quote_request_bytes};
use exeunt_proto::host::{Action, Host};
use std::fmt;
use std::mem::{offset_of, size_of};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};
use thiserror::Error;

/// Bytes before the data of a buffer.
const HEADER_BYTES: usize = size_of::<QuoteHeader>();

/// Someone who makes quotes, or knows who does.
pub trait QuoteProvider: Send + Sync {
    /// Makes a quote of this report, which is what the TD handed over. It runs on the thread of a vCPU and must not
    /// wait: the sink goes to whoever will have the quote. The TD has been told that its request was taken.
    fn submit(&self, report: &[u8], sink: QuoteSink);
}

/// Someone who writes to a TD's memory when a quote is there, on whichever thread.
///
/// It is called under a lock that [`Quotes::cancel`] and the vCPUs of the TD may wait for, so it must call neither
/// [`Quotes`] nor a [`QuoteSink`], nor convert pages, and it must not panic.
pub trait GuestWriter: Send + Sync {
    /// Writes to shared memory. The TD watches while it is done: 8 bytes on a border of 8 bytes are one store.
    ///
    /// # Errors
    ///
    /// The error number of what failed. Some of the bytes may be written.
    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno>;
}

/// Someone who sends interrupts. It is called as a [`GuestWriter`] is.
pub trait Notifier: Send + Sync {
    /// Sends an interrupt, on whichever thread. One that cannot be sent is lost: the TD also polls.
    fn notify(&self, target: NotifyTarget);
}

/// Where the interrupt goes that says that a quote is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyTarget {
    /// The vCPU that asked for it, as [`Host::vcpu_id`] counts.
    pub vcpu: u64,
    /// The vector, 32 to 255.
    pub vector: u8,
}

/// Why there is no quote. The TD finds it in the status of its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoQuote {
    /// The quoting service cannot be reached.
    #[error("the quoting service cannot be reached")]
    Unavailable,
    /// The quoting service made none.
    #[error("no quote was made")]
    Failed,
}

impl NoQuote {
    const fn status(self) -> QuoteStatus {
        match self {
            Self::Unavailable => QuoteStatus::ServiceUnavailable,
            Self::Failed => QuoteStatus::Error,
        }
    }
}

/// How much a TD may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuoteLimits {
    /// Quotes that may be in the making at the same time. A TD that asks for more is told to come back.
    pub slots: usize,
    /// The largest buffer, in bytes.
    pub max_bytes: u64,
}

impl Default for QuoteLimits {
    /// 16 quotes, 128 KiB.
    fn default() -> Self {
        Self { slots: 16, max_bytes: 128 << 10 }
    }
}

/// Quotes of one TD: who makes them and how many are being made. Clones are the same, and only they are equal.
#[derive(Clone)]
pub struct Quotes {
    provider: Arc<dyn QuoteProvider>,
    desk: Arc<Desk>,
    max_bytes: u64,
}

/// What sinks keep. It does not keep the provider, so a provider that forgets its sinks is no cycle.
struct Desk {
    memory: Arc<GuestMemory>,
    writer: Arc<dyn GuestWriter>,
    notifier: Option<Arc<dyn Notifier>>,
    target: Mutex<Option<NotifyTarget>>,
    slots: Slots,
}

impl Quotes {
    /// Quotes of this provider into this memory, which the policy knows too. Without a notifier a TD has to poll.
    #[must_use]
    pub fn new(
        provider: Arc<dyn QuoteProvider>,
        memory: Arc<GuestMemory>,
        writer: Arc<dyn GuestWriter>,
        notifier: Option<Arc<dyn Notifier>>,
        limits: QuoteLimits,
    ) -> Self {
        let slots = Slots::new(limits.slots);
        let desk = Desk { memory, writer, notifier, target: Mutex::new(None), slots };
        Self { provider, desk: Arc::new(desk), max_bytes: limits.max_bytes }
    }

    /// How many quotes are in the making.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.desk.slots.taken()
    }

    /// Gives up every quote in the making and forgets the vector. Their slots are free, and once this returns nothing is
    /// written and no interrupt is sent for them any more. To be called while no vCPU runs, before the VM is reset or its
    /// memory goes away.
    pub fn cancel(&self) {
        self.desk.slots.free_all();
        *self.desk.target() = None;
    }

    pub(super) const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    pub(super) fn has_notifier(&self) -> bool {
        self.desk.notifier.is_some()
    }

    pub(super) fn set_vector(&self, target: NotifyTarget) {
        *self.desk.target() = Some(target);
    }

    /// Takes a request out of its buffer and passes it on. What cannot be a request is refused, and nothing is written.
    /// After `SUCCESS` the buffer's status tells the rest, also when the provider gives up at once.
    pub(super) fn request(
        &self,
        range: PageRange,
        host: &mut impl Host,
        observer: &mut impl Observer,
    ) -> Status {
        let mut head = [0; HEADER_BYTES];
        // The TD can change the buffer at any time: the head is read once, and so is the report.
        let head = host.read_guest(range.gpa(), &mut head).map(|()| head);
        let report_bytes = head.ok().and_then(|head| quote_request_bytes(&head, range.bytes()).ok());
        let Some(report_bytes) = report_bytes.and_then(|bytes| usize::try_from(bytes).ok()) else {
            return Status::INVALID_OPERAND;
        };
        let Some(taken) = self.desk.slots.take() else { return Status::RETRY };
        let mut report = vec![0; report_bytes];
        let buffer = self.desk.memory.hold(range);
        let marked = host.read_guest(at(range, HEADER_BYTES), &mut report).and_then(|()| {
            let bytes = &QuoteStatus::InFlight.number().to_le_bytes();
            let mark = Action::WriteGuest { gpa: at(range, offset_of!(QuoteHeader, status)), bytes };
            // The TD may have converted its buffer since the plan.
            if self.desk.memory.is_shared(range) {
                apply_all(std::iter::once(mark), host, observer)
            } else {
                Err(Errno::EFAULT)
            }
        });
        drop(buffer);
        if marked.is_err() {
            self.desk.slots.finish(&taken, || ());
            return Status::INVALID_OPERAND;
        }
        let sink = QuoteSink { desk: Arc::clone(&self.desk), taken, range, is_done: false };
        self.provider.submit(&report, sink);
        Status::SUCCESS
    }
}

impl PartialEq for Quotes {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.desk, &other.desk)
    }
}

impl Eq for Quotes {}

impl fmt::Debug for Quotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Quotes");
        fields.field("slots", &self.desk.slots.len()).field("max_bytes", &self.max_bytes);
        fields.field("notifies", &self.has_notifier()).finish_non_exhaustive()
    }
}

/// Takes the quote of one request, on any thread and at any time but amid a conversion of the buffer by this thread: it
/// waits for conversions under way. Dropping it says that there will be none.
#[must_use = "a sink that is dropped tells the TD that there is no quote"]
pub struct QuoteSink {
    desk: Arc<Desk>,
    taken: Taken,
    range: PageRange,
    is_done: bool,
}

impl QuoteSink {
    /// Gives the TD its quote, or tells it that there is none: the data first, then its length, the status last, then the
    /// interrupt, if the TD wants one. A quote that is empty or larger than [`QuoteSink::room_bytes`] is none.
    pub fn complete(mut self, answer: Result<&[u8], NoQuote>) {
        self.finish(answer);
    }

    /// How large the quote may be, in bytes.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        self.range.bytes().saturating_sub(HEADER_BYTES as u64)
    }

    /// Whether the VMM gave the request up. Nothing becomes of an answer then.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        !self.desk.slots.holds(&self.taken)
    }

    fn finish(&mut self, answer: Result<&[u8], NoQuote>) {
        // Set before anything that may panic, because the drop that follows must not try again.
        if !std::mem::replace(&mut self.is_done, true) {
            // Before the lock of the slot: who gives quotes up must not wait for a conversion.
            let _held = self.desk.memory.hold(self.range);
            self.desk.slots.finish(&self.taken, || self.desk.deliver(self.range, answer));
        }
    }
}

impl Drop for QuoteSink {
    fn drop(&mut self) {
        self.finish(Err(NoQuote::Failed));
    }
}

impl fmt::Debug for QuoteSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuoteSink").field("range", &self.range).finish_non_exhaustive()
    }
}

impl Desk {
    fn target(&self) -> MutexGuard<'_, Option<NotifyTarget>> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last of a request, under the lock of its slot, with the buffer held. A TD that took its buffer back gets nothing.
    fn deliver(&self, range: PageRange, answer: Result<&[u8], NoQuote>) {
        if !self.memory.is_shared(range) {
            return;
        }
        let room = range.bytes().saturating_sub(HEADER_BYTES as u64);
        let status = match answer {
            Ok(quote) if quote.is_empty() || quote.len() as u64 > room => QuoteStatus::Error,
            Ok(quote) => match self.write_quote(range, quote) {
                Ok(()) => QuoteStatus::Success,
                Err(_) => QuoteStatus::Error,
            },
            Err(none) => none.status(),
        };
        // A TD that sees the status sees all that was written before.
        fence(Ordering::Release);
        let status =
            self.writer.write(at(range, offset_of!(QuoteHeader, status)), &status.number().to_le_bytes());
        let target = *self.target();
        if let (Ok(()), Some(notifier), Some(target)) = (status, &self.notifier, target) {
            notifier.notify(target);
        }
    }

    fn write_quote(&self, range: PageRange, quote: &[u8]) -> Result<(), Errno> {
        self.writer.write(at(range, HEADER_BYTES), quote)?;
        let out_len = u32::try_from(quote.len()).map_err(|_| Errno::EINVAL)?;
        self.writer.write(at(range, offset_of!(QuoteHeader, out_len)), &out_len.to_le_bytes())
    }
}

/// An address in a buffer.
fn at(range: PageRange, offset_bytes: usize) -> Gpa {
    Gpa(range.gpa().0.saturating_add(offset_bytes as u64))
}
