//! What a VMM wrote, of which the beginning and the end are kept.

use std::collections::VecDeque;

/// The text of standard output and standard error as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The text. Bytes that are no UTF-8 are replaced.
    pub text: String,
    /// Bytes that were left out of the middle.
    pub omitted_bytes: u64,
}

impl Output {
    /// Something was left out.
    #[must_use]
    pub const fn truncated(&self) -> bool {
        self.omitted_bytes > 0
    }

    /// Puts what came later behind it.
    pub(super) fn join(&mut self, later: &Self) {
        self.text.push_str(&later.text);
        self.omitted_bytes = self.omitted_bytes.saturating_add(later.omitted_bytes);
    }
}

/// Takes bytes in and never holds more than its limit.
#[derive(Debug)]
pub(super) struct Collector {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    half_bytes: usize,
    omitted_bytes: u64,
}

impl Collector {
    /// Keeps half of `limit_bytes` from the beginning, and half from the end.
    pub(super) const fn new(limit_bytes: usize) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), half_bytes: limit_bytes / 2, omitted_bytes: 0 }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        let room = self.half_bytes.saturating_sub(self.head.len());
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        // Of a block that is larger than the tail, only its end can stay.
        let (passed, kept) = rest.split_at(rest.len().saturating_sub(self.half_bytes));
        let surplus = self.tail.len().saturating_add(kept.len()).saturating_sub(self.half_bytes);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend(kept);
        let omitted = passed.len().saturating_add(surplus);
        self.omitted_bytes = self.omitted_bytes.saturating_add(u64::try_from(omitted).unwrap_or(u64::MAX));
    }

    pub(super) fn finish(self) -> Output {
        let tail: Vec<u8> = self.tail.into();
        let text = if self.omitted_bytes == 0 {
            // One piece, so that a character on the seam stays whole.
            let mut all = self.head;
            all.extend(tail);
            String::from_utf8_lossy(&all).into_owned()
        } else {
            let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&tail));
            format!("{head}\n[{} bytes left out]\n{tail}", self.omitted_bytes)
        };
        Output { text, omitted_bytes: self.omitted_bytes }
    }
}

/// What a VMM says, apart by whether it had entered a vCPU.
#[derive(Debug)]
pub(super) struct Speech {
    startup: Option<Output>,
    collector: Collector,
    /// What was read at the last look. The log of records is read before the output, so a VMM may have entered a vCPU and
    /// spoken of it in between; what was read at the look before that is older than the log.
    last: Vec<u8>,
    limit_bytes: usize,
}

impl Speech {
    pub(super) const fn new(limit_bytes: usize) -> Self {
        Self { startup: None, collector: Collector::new(limit_bytes), last: Vec::new(), limit_bytes }
    }

    /// A vCPU was entered after the look before the last one.
    pub(super) fn enters(&mut self) {
        if self.startup.is_none() {
            let fresh = Collector::new(self.limit_bytes);
            self.startup = Some(std::mem::replace(&mut self.collector, fresh).finish());
            self.look();
        }
    }

    /// The output is looked at again.
    pub(super) fn look(&mut self) {
        self.collector.take(&std::mem::take(&mut self.last));
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        if self.startup.is_none() {
            self.last.extend_from_slice(bytes);
        } else {
            self.collector.take(bytes);
        }
    }

    /// What was said before the first entry, if there was one, and after it.
    pub(super) fn finish(mut self) -> (Output, Output) {
        self.look();
        (self.startup.unwrap_or_default(), self.collector.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_about_an_exit_is_not_taken_for_what_came_before() {
        let mut speech = Speech::new(100);
        for words in [b"a".as_slice(), b"b"] {
            speech.look();
            speech.take(words);
        }
        // The log shows an entry now, which may be older than the b.
        speech.enters();
        speech.enters();
        speech.look();
        speech.take(b"c");
        let (startup, output) = speech.finish();
        assert_eq!((startup.text.as_str(), output.text.as_str()), ("a", "bc"));
    }

    #[test]
    fn a_vmm_that_enters_nothing_has_said_all_after_no_exit() {
        let mut speech = Speech::new(100);
        speech.take(b"a");
        let (startup, output) = speech.finish();
        assert_eq!((startup.text.as_str(), output.text.as_str()), ("", "a"));
    }

    fn collect(limit: usize, blocks: &[&[u8]]) -> Output {
        let mut collector = Collector::new(limit);
        for block in blocks {
            collector.take(block);
        }
        collector.finish()
    }

    #[test]
    fn what_fits_is_kept_whole_in_whatever_blocks_it_comes() {
        for size in 1..=10 {
            let blocks: Vec<&[u8]> = b"0123456789".chunks(size).collect();
            let expected = Output { text: "0123456789".into(), omitted_bytes: 0 };
            assert_eq!(collect(10, &blocks), expected, "blocks of {size}");
        }
        assert_eq!(collect(8, &["äöüß".as_bytes()]).text, "äöüß");
    }

    #[test]
    fn of_a_flood_the_beginning_and_the_end_are_kept_in_whatever_blocks_it_comes() {
        let flood: Vec<u8> = (0..1000_u32).flat_map(|n| format!("{n:03} ").into_bytes()).collect();
        for size in [1, 3, 7, 8, 16, 100, 4000] {
            let blocks: Vec<&[u8]> = flood.chunks(size).collect();
            let got = collect(16, &blocks);
            assert_eq!(got.text, "000 001 \n[3984 bytes left out]\n998 999 ", "blocks of {size}");
            assert_eq!((got.omitted_bytes, got.truncated()), (3984, true));
        }
    }

    #[test]
    fn a_limit_of_nothing_keeps_nothing_and_counts() {
        assert_eq!(collect(0, &[b"abc", b"d"]).omitted_bytes, 4);
    }
}
