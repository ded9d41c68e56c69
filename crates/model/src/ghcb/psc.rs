//! Page-state change by GHCB page: batches of adjacent entries, one exit each.

use crate::faults::{Fault, Point};
use crate::memory::Memory;
use crate::vcpu::Completion;
use crate::vcpu::Step;
use crate::vcpu::Vcpu;
use exeunt_abi::Gpa;
use exeunt_abi::ghcb::page::malformed;
use exeunt_abi::ghcb::psc::{self, Entry, operation, result};
use exeunt_abi::kvm::run::map_gpa_range;
use exeunt_proto::exit::map_gpa_range_by_psc;

/// A GFN of an entry is a bit-field of 40 bits.
const GFN_MASK: u64 = 0xff_ffff_ffff;

/// The compiler that built the kernel, which shows where a frame follows the last of the 40 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compiler {
    /// A sum with a bit-field keeps its 40 bits, so frame 0 follows the last one. Distributions build with gcc.
    #[default]
    Gcc,
    /// The sum has 64 bits, and nothing follows the last frame.
    Clang,
}

impl Compiler {
    /// The frame so many pages behind an entry's own.
    const fn follows(self, gfn: u64, pages: u64) -> u64 {
        let sum = gfn.saturating_add(pages);
        match self {
            Self::Gcc => sum & GFN_MASK,
            Self::Clang => sum,
        }
    }
}

/// Progress of a request. From 7.2 on the header is read once; before, only `cur` and `batch` are KVM's own and the
/// rest lives in the guest's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PscState {
    pub(crate) cur: u64,
    pub(crate) end: u64,
    /// Entries that the exit under way covers.
    pub(crate) batch: u64,
    pub(crate) is_2m: bool,
}

/// A run of pages that one exit asks for.
struct Range {
    first: Entry,
    gfn: u64,
    pages: u64,
}

/// The outcome of looking for the next range.
enum Next {
    Range(Range),
    /// The request is over, with this result.
    Over(u64),
}

impl Vcpu {
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_begin_psc`.
    pub(crate) fn begin_psc(&mut self) -> Step {
        let vm = self.vm.clone();
        let mut state = vm.lock();
        let Some(usable) = self.ghcb.scratch_bytes(psc::HEADER_BYTES) else {
            self.ghcb.refuse(&mut state.memory, malformed::INVALID_SCRATCH_AREA);
            return Step::Resume;
        };
        if !vm.map_gpa_range_exits() {
            return self.end_psc(&mut state.memory, result::GENERIC);
        }
        if self.kernel.dialect.reads_psc_header_once() {
            let [cur, end] = self.psc_header(&mut state.memory);
            if end >= max_entries(usable) {
                return self.end_psc(&mut state.memory, result::INVALID_HDR);
            }
            self.psc.cur = cur;
            self.psc.end = end;
        }
        drop(state);
        self.continue_psc()
    }

    /// Finds the next range and exits with it, until a range needs userspace or nothing is left.
    fn continue_psc(&mut self) -> Step {
        let vm = self.vm.clone();
        let mut state = vm.lock();
        loop {
            if self.psc.batch != 0 {
                // The answer to the last exit got lost.
                self.warnings = self.warnings.saturating_add(1);
                return self.end_psc(&mut state.memory, result::GENERIC);
            }
            let compiler = state.compiler;
            let range = match self.next_range(&mut state.memory, compiler) {
                Next::Range(range) => range,
                Next::Over(code) => return self.end_psc(&mut state.memory, code),
            };
            let private = match range.first.operation() {
                operation::PRIVATE => map_gpa_range::ENCRYPTED,
                operation::SHARED => 0,
                _ => {
                    // An operation that KVM does not know counts as done.
                    self.mark_batch_done(&mut state.memory);
                    continue;
                }
            };
            let hint = if range.first.is_2m() { map_gpa_range::PAGE_SIZE_2M } else { 0 };
            self.completion = Some(Completion::Psc);
            let gpa = range.gfn << 12;
            map_gpa_range_by_psc(gpa, range.pages, private | hint, self.kernel, &mut self.page);
            return Step::Exit(Ok(()));
        }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_do_psc`.
    fn next_range(&mut self, memory: &mut Memory, compiler: Compiler) -> Next {
        let reads_header_again = !self.kernel.dialect.reads_psc_header_once();
        if reads_header_again {
            [self.psc.cur, self.psc.end] = self.psc_header(memory);
            let usable = self.ghcb.scratch_bytes(psc::HEADER_BYTES).unwrap_or(0);
            if self.psc.end >= max_entries(usable) {
                return Next::Over(result::INVALID_HDR);
            }
        }
        let end = self.psc.end;
        let mut index = self.psc.cur;
        let (first, gfn, mut pages) = loop {
            if index > end {
                return Next::Over(result::SUCCESS);
            }
            let entry = self.psc_entry(memory, index);
            let full = entry.pages();
            if entry.cur_page() > full || entry.gfn() & full.saturating_sub(1) != 0 {
                return Next::Over(result::INVALID_ENTRY);
            }
            let left = full.saturating_sub(entry.cur_page());
            if left > 0 {
                break (entry, entry.gfn().saturating_add(entry.cur_page()) & GFN_MASK, left);
            }
            // The guest sees its header advance over entries that were done already.
            let [cur, _] = self.psc_header(memory);
            self.set_psc_cur_entry(memory, cur.wrapping_add(1));
            index = index.saturating_add(1);
        };
        self.psc.cur = index;
        self.psc.is_2m = first.is_2m() && first.cur_page() == 0;
        self.psc.batch = 1;
        let step = if self.psc.is_2m { 512 } else { 1 };
        loop {
            index = index.saturating_add(1);
            if index > end {
                break;
            }
            let entry = self.psc_entry(memory, index);
            let follows = entry.operation() == first.operation()
                && entry.gfn() == compiler.follows(first.gfn(), pages)
                && entry.cur_page() == 0
                && entry.is_2m() == self.psc.is_2m;
            if !follows {
                break;
            }
            self.psc.batch = self.psc.batch.saturating_add(1);
            pages = pages.saturating_add(step);
        }
        Next::Range(Range { first, gfn, pages })
    }

    /// Marks the entries of the batch as done. The entry is read again, so a page size that the guest changed in the
    /// meantime decides what "done" is.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `__snp_complete_one_psc`.
    fn mark_batch_done(&mut self, memory: &mut Memory) {
        let end = self.psc.cur.saturating_add(self.psc.batch);
        for index in self.psc.cur..end {
            let entry = self.psc_entry(memory, index);
            let done = entry.with_cur_page(entry.pages());
            // The descriptor lies in the mapped GHCB.
            let _ = memory.write_u64(self.ghcb.psc_entry_at(index), done.0);
        }
        self.psc.cur = end;
        self.psc.batch = 0;
        self.set_psc_cur_entry(memory, end);
    }

    /// Userspace answered the exit of a batch. Returns what the engine is to do, or that the answer is not one.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_complete_psc_one`; v6.12 `snp_complete_one_psc`.
    pub(crate) fn complete_psc(&mut self, done: bool) -> Step {
        let vm = self.vm.clone();
        let mut state = vm.lock();
        if !done {
            return self.end_psc(&mut state.memory, result::GENERIC);
        }
        self.mark_batch_done(&mut state.memory);
        // Old kernels begin anew after each batch, and so look at the capability again.
        if !self.kernel.dialect.reads_psc_header_once() && !vm.map_gpa_range_exits() {
            return self.end_psc(&mut state.memory, result::GENERIC);
        }
        drop(state);
        self.continue_psc()
    }

    /// Ends the request: `SW_EXITINFO1` stays 0, which the dispatch wrote.
    fn end_psc(&mut self, memory: &mut Memory, code: u64) -> Step {
        self.psc = PscState::default();
        self.ghcb.answer_info_2(memory, code);
        Step::Resume
    }

    /// `cur_entry` and `end_entry`, read once.
    fn psc_header(&self, memory: &mut Memory) -> [u64; 2] {
        self.race_psc_read(memory);
        let header = memory.read_u64(self.ghcb.scratch).unwrap_or(0);
        [header & 0xffff, header >> 16 & 0xffff]
    }

    fn set_psc_cur_entry(&self, memory: &mut Memory, cur: u64) {
        let [low, high, ..] = cur.to_le_bytes();
        // The descriptor lies in the mapped GHCB.
        let _ = memory.write_shared(self.ghcb.scratch, &[low, high]);
    }

    /// The descriptor is the guest's, and another of its vCPUs may write to it between any two reads.
    fn race_psc_read(&self, memory: &mut Memory) {
        let Some(Fault::Rewrite { word, value }) = self.vm.faults.at(Point::PscRead) else { return };
        let usable = self.ghcb.scratch_bytes(psc::HEADER_BYTES).unwrap_or(0);
        let offset = word.saturating_mul(psc::ENTRY_BYTES);
        if offset.saturating_add(psc::ENTRY_BYTES) <= usable {
            // The descriptor lies in the mapped GHCB.
            let _ = memory.write_u64(Gpa(self.ghcb.scratch.0.wrapping_add(offset)), value);
        }
    }

    fn psc_entry(&self, memory: &mut Memory, index: u64) -> Entry {
        self.race_psc_read(memory);
        let at: Gpa = self.ghcb.psc_entry_at(index);
        Entry(memory.read_u64(at).unwrap_or(0))
    }
}

/// Entries that fit behind the header.
fn max_entries(usable_bytes: u64) -> u64 {
    usable_bytes.saturating_sub(psc::HEADER_BYTES) / psc::ENTRY_BYTES
}
