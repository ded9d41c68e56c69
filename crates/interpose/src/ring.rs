//! Where records go: memory that the processes of a VMM and `exeunt` share.
//!
//! It is a log and not a circle: a record is appended by one addition that takes its place, and nothing waits for a
//! reader. A record that does not fit is dropped, and a flag says so. A process that dies in the middle of a record
//! leaves a gap, which is passed over once nobody writes any more.
//!
//! A VMM can write what it wants here, so nothing that is read is believed before it is checked.

use crate::pages_unsafe::Shared;
use crate::record::{self, MAX_BYTES, Record};
use exeunt_abi::Errno;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// The first word: what this memory is, and the version of its form.
const MAGIC: u64 = 0x6578_6575_6e74_0001;
/// Word 1: how many words were taken, more than there are if some did not fit.
const TAKEN: usize = 1;
/// Word 2: [`FULL`] and [`HUNG`].
const FLAGS: usize = 2;
/// Word 3: how often `KVM_RUN` was called, or waited on.
const ENTRIES: usize = 3;
/// The first word of the log.
const LOG: usize = 8;

/// Something did not fit.
const FULL: u64 = 1 << 0;
/// A VMM is not let in any more.
const HUNG: u64 = 1 << 1;

/// Bits 63:32 of the word before a record.
const HEAD: u64 = 0x7265_6364 << 32;
/// The record behind it is complete.
const DONE: u64 = 1 << 31;
/// Bytes of the record behind it.
const LENGTH: u64 = 0x00ff_ffff;

/// Who appends.
#[derive(Debug)]
pub struct Writer(Shared);

impl Writer {
    /// Opens the memory that a [`Reader`] made, by a path that leads to its descriptor.
    ///
    /// # Errors
    ///
    /// The error of `open`, `fstat` or `mmap`; `EINVAL` for another file.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let file = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
        Self::of(file.as_fd())
    }

    /// The same for an open descriptor, which is not needed afterwards.
    ///
    /// # Errors
    ///
    /// As [`Writer::open`].
    pub fn of(file: BorrowedFd<'_>) -> Result<Self, Errno> {
        let size = rustix::fs::fstat(file).map_err(errno)?.st_size;
        let size = usize::try_from(size).ok().filter(|size| *size >= LOG * 8).ok_or(Errno::EINVAL)?;
        let shared = Shared::map(file, size)?;
        let is_ours = shared.words().first().is_some_and(|word| word.load(Ordering::Relaxed) == MAGIC);
        if is_ours { Ok(Self(shared)) } else { Err(Errno::EINVAL) }
    }

    /// Appends a record, or marks that it did not fit.
    pub fn put(&self, record: &Record) {
        self.append(&record::encode(record));
    }

    /// Marks that a VMM is not let in any more, which is seen even if the log is full.
    pub fn set_hung(&self) {
        self.set(HUNG);
    }

    /// Counts a call of `KVM_RUN`, and each time that it waited for a moment, so that a reader sees a VMM live that makes
    /// no records.
    #[inline]
    pub fn enter(&self) {
        if let Some(entries) = self.0.words().get(ENTRIES) {
            // Two at the same time may count as one: a reader only looks whether the number changes.
            entries.store(entries.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    fn set(&self, flag: u64) {
        if let Some(flags) = self.0.words().get(FLAGS) {
            flags.fetch_or(flag, Ordering::Relaxed);
        }
    }

    fn append(&self, bytes: &[u8]) -> bool {
        let words = bytes.len().div_ceil(8).saturating_add(1);
        let Some(place) = self.take(words).filter(|_| bytes.len() <= MAX_BYTES) else {
            self.set(FULL);
            return false;
        };
        let Some((head, body)) = place.split_first() else { return false };
        let length = HEAD | bytes.len() as u64;
        head.store(length, Ordering::Release);
        for (word, chunk) in body.iter().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        head.store(length | DONE, Ordering::Release);
        true
    }

    fn take(&self, words: usize) -> Option<&[AtomicU64]> {
        let all = self.0.words();
        let log = all.get(LOG..)?;
        let taken = all.get(TAKEN)?.fetch_add(words as u64, Ordering::Relaxed);
        let start = usize::try_from(taken).ok()?;
        log.get(start..start.checked_add(words)?)
    }
}

/// Who made the log and reads it.
#[derive(Debug)]
pub struct Reader {
    file: OwnedFd,
    shared: Shared,
    /// The next word of the log.
    next: usize,
    is_torn: bool,
}

impl Reader {
    /// A log for about so many bytes. It takes memory as it fills.
    ///
    /// # Errors
    ///
    /// The error of `memfd_create`, `ftruncate` or `mmap`.
    pub fn new(bytes: usize) -> Result<Self, Errno> {
        let bytes = bytes.saturating_add(LOG * 8).checked_next_multiple_of(4096).ok_or(Errno::EINVAL)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("exeunt-ring", flags).map_err(errno)?;
        rustix::fs::ftruncate(&file, bytes as u64).map_err(errno)?;
        // A process that writes could make it shorter, and whoever reads would be killed by `SIGBUS`.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(errno)?;
        let shared = Shared::map(file.as_fd(), bytes)?;
        if let Some(word) = shared.words().first() {
            word.store(MAGIC, Ordering::Relaxed);
        }
        Ok(Self { file, shared, next: 0, is_torn: false })
    }

    /// The descriptor, for a path or a [`Writer`] of one's own.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Something did not fit.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.flags() & FULL != 0
    }

    /// A VMM is not let in any more.
    #[must_use]
    pub fn is_hung(&self) -> bool {
        self.flags() & HUNG != 0
    }

    /// How often `KVM_RUN` was called or waited.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.word(ENTRIES)
    }

    /// The log holds what nobody who keeps to its form writes, or a record that nobody finished.
    #[must_use]
    pub const fn is_torn(&self) -> bool {
        self.is_torn
    }

    /// The next record that is complete; `None` if there is none yet.
    pub fn next_record(&mut self) -> Option<Record> {
        self.take(false)
    }

    /// The same when nobody writes any more: what was begun and not finished is passed over.
    pub fn next_left(&mut self) -> Option<Record> {
        self.take(true)
    }

    fn flags(&self) -> u64 {
        self.word(FLAGS)
    }

    fn word(&self, word: usize) -> u64 {
        self.shared.words().get(word).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn take(&mut self, is_over: bool) -> Option<Record> {
        loop {
            let all = self.shared.words();
            let log = all.get(LOG..)?;
            let taken = all.get(TAKEN)?.load(Ordering::Relaxed);
            let taken = usize::try_from(taken).unwrap_or(usize::MAX).min(log.len());
            if self.next >= taken {
                return None;
            }
            let head = log.get(self.next)?.load(Ordering::Acquire);
            let length = usize::try_from(head & LENGTH).unwrap_or(0);
            let words = length.div_ceil(8).saturating_add(1);
            let body = log.get(self.next.saturating_add(1)..self.next.saturating_add(words));
            let body = body.filter(|_| head & !(LENGTH | DONE) == HEAD && length <= MAX_BYTES);
            match body {
                Some(body) if head & DONE != 0 => {
                    self.next = self.next.saturating_add(words);
                    let mut bytes: Vec<u8> =
                        body.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
                    bytes.truncate(length);
                    match record::decode(&bytes) {
                        Some(record) => return Some(record),
                        None => self.is_torn = true,
                    }
                }
                _ if !is_over && (head == 0 || body.is_some()) => return None,
                // A gap that a dead process left, or garbage: the next record is looked for word by word.
                Some(_) => {
                    self.is_torn = true;
                    self.next = self.next.saturating_add(words);
                }
                None => {
                    self.is_torn = true;
                    self.next = self.next.saturating_add(1);
                }
            }
        }
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::What;

    fn record(pid: u32, text: &str) -> Record {
        Record { pid, what: What::Trouble { why: text.into() } }
    }

    #[test]
    fn records_come_back_in_their_order() {
        let mut reader = Reader::new(1 << 16).unwrap();
        let writer = Writer::of(reader.file()).unwrap();
        assert_eq!(reader.next_record(), None);
        let records: Vec<Record> = (0..40).map(|n| record(n, &"x".repeat(n as usize))).collect();
        for record in &records {
            writer.put(record);
        }
        for expected in records {
            assert_eq!(reader.next_record(), Some(expected));
        }
        assert_eq!((reader.next_record(), reader.is_full(), reader.is_torn()), (None, false, false));
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_said() {
        let mut reader = Reader::new(4096).unwrap();
        let writer = Writer::of(reader.file()).unwrap();
        let mut put = 0;
        while !reader.is_full() {
            writer.put(&record(1, "0123456789"));
            put += 1;
        }
        assert_eq!(std::iter::from_fn(|| reader.next_record()).count(), put - 1);
    }

    #[test]
    fn threads_append_at_the_same_time_and_nothing_is_lost() {
        let mut reader = Reader::new(1 << 20).unwrap();
        std::thread::scope(|scope| {
            for pid in 0..4 {
                let writer = Writer::of(reader.file()).unwrap();
                scope.spawn(move || (0..1000).for_each(|n| writer.put(&record(pid, &format!("{n}")))));
            }
        });
        let mut next = [0; 4];
        for record in std::iter::from_fn(|| reader.next_record()) {
            let What::Trouble { why } = record.what else { panic!("{record:?}") };
            let next = &mut next[record.pid as usize];
            assert_eq!(why, next.to_string(), "process {}", record.pid);
            *next += 1;
        }
        assert_eq!(next, [1000; 4]);
    }

    #[test]
    fn what_a_dead_process_left_is_passed_over() {
        let mut reader = Reader::new(1 << 16).unwrap();
        let writer = Writer::of(reader.file()).unwrap();
        writer.put(&record(1, "first"));
        // It took its place and wrote nothing; another one wrote its head and nothing else.
        assert!(writer.take(5).is_some());
        writer.take(4).unwrap()[0].store(HEAD | 0x18, Ordering::Relaxed);
        writer.put(&record(2, "second"));
        assert_eq!(reader.next_record(), Some(record(1, "first")));
        assert_eq!(reader.next_record(), None);
        assert_eq!(reader.next_left(), Some(record(2, "second")));
        assert_eq!((reader.next_left(), reader.is_torn()), (None, true));
    }

    #[test]
    fn garbage_is_no_record_and_never_a_panic() {
        for garbage in [u64::MAX, HEAD | DONE | LENGTH, HEAD | DONE | 0x9, HEAD, 1, DONE] {
            let mut reader = Reader::new(4096).unwrap();
            for word in &reader.shared.words()[TAKEN..] {
                word.store(garbage, Ordering::Relaxed);
            }
            while reader.next_record().is_some() {}
            assert_eq!(reader.next_left(), None, "{garbage:#x}");
        }
    }

    #[test]
    fn whoever_writes_cannot_take_the_memory_from_under_the_reader() {
        let mut reader = Reader::new(1 << 16).unwrap();
        Writer::of(reader.file()).unwrap().put(&record(1, "first"));
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader.file()));
        let theirs = std::fs::File::options().read(true).write(true).open(path).unwrap();
        for length in [0, 8, 1 << 20] {
            assert_eq!(theirs.set_len(length).unwrap_err().raw_os_error(), Some(Errno::EPERM.0), "{length}");
        }
        assert_eq!(reader.next_record(), Some(record(1, "first")));
    }

    #[test]
    fn any_words_are_read_to_their_end() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..200 {
            let mut reader = Reader::new(1 << 14).unwrap();
            let writer = Writer::of(reader.file()).unwrap();
            for word in &reader.shared.words()[LOG..] {
                let value = next();
                // Heads that are nearly right are what garbage has to be to get anywhere.
                let value =
                    if value.trailing_zeros() >= 2 { HEAD | DONE | value >> 54 } else { value & 0xff };
                word.store(value, Ordering::Relaxed);
            }
            writer.take(1 << 12);
            let most = reader.shared.words().len();
            assert!(std::iter::from_fn(|| reader.next_record()).take(most).count() < most);
            assert!(std::iter::from_fn(|| reader.next_left()).take(most).count() < most);
            assert_eq!(reader.next_left(), None);
        }
    }

    #[test]
    fn another_file_is_no_log() {
        let file = rustix::fs::memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(Writer::of(file.as_fd()).unwrap_err(), Errno::EINVAL);
        rustix::fs::ftruncate(&file, 4096).unwrap();
        assert_eq!(Writer::of(file.as_fd()).unwrap_err(), Errno::EINVAL);
        assert_eq!(Writer::open(Path::new("/nowhere/ring")).unwrap_err(), Errno::ENOENT);
    }
}
