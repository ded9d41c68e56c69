//! KVM's part of a page-state change: batches of entries that follow each other, one exit each.
//!
//! Mirrors `Vcpu::next_range`, `Vcpu::mark_batch_done` and `Vcpu::complete_psc` of `crates/model/src/ghcb/psc.rs`.
//! KVM reads each entry once on the way to an exit and once more behind it, and what it reads of one entry does not
//! depend on another, so a write by the guest between two reads is the same as one before the first of them.

use exeunt_abi::Errno;
use exeunt_abi::ghcb::psc::{Entry, operation, result};
use exeunt_abi::kvm::run::map_gpa_range;
use exeunt_proto::ghcb::{PscEntry, PscOperation};

/// Entries of the requests.
pub(super) const ENTRIES: usize = 3;

/// The descriptor, in memory that the guest can write to at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Descriptor {
    pub(super) cur: u16,
    pub(super) end: u16,
    pub(super) entries: [u64; ENTRIES],
}

/// Where KVM is in a request. Nothing of it is the guest's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Psc {
    /// The first entry of the exit under way.
    pub(super) cur: u16,
    end: u16,
    /// Entries that the exit under way covers.
    batch: u16,
}

/// What KVM does wrong, if anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flaws {
    /// Entries are marked as done when their exit begins.
    pub(super) marks_early: bool,
    /// `cur_entry` and `end_entry` are read again for each batch, as 6.12 does.
    pub(super) reads_header_again: bool,
}

/// What comes next of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Next {
    /// An exit with these arguments.
    Exit([u64; 3]),
    /// The guest goes on with this `SW_EXITINFO2`.
    Over(u64),
}

impl Descriptor {
    pub(super) fn entry(&self, index: usize) -> Entry {
        Entry(self.entries[index])
    }
}

impl Psc {
    /// The guest asks.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_begin_psc`.
    pub(super) fn begin(&mut self, descriptor: &mut Descriptor, flaws: Flaws) -> Next {
        if usize::from(descriptor.end) >= ENTRIES {
            return self.over(result::INVALID_HDR);
        }
        (self.cur, self.end) = (descriptor.cur, descriptor.end);
        self.go_on(descriptor, flaws)
    }

    /// Userspace has answered: 0, or an error that the guest is told of, or nonsense.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_complete_psc_one`.
    pub(super) fn complete(
        &mut self,
        descriptor: &mut Descriptor,
        flaws: Flaws,
        ret: u64,
    ) -> Result<Next, Errno> {
        const EINVAL: u64 = Errno::EINVAL.0.unsigned_abs() as u64;
        const EAGAIN: u64 = Errno::EAGAIN.0.unsigned_abs() as u64;
        match ret {
            0 => {
                self.mark_done(descriptor);
                Ok(self.go_on(descriptor, flaws))
            }
            EINVAL | EAGAIN => Ok(self.over(result::GENERIC)),
            _ => Err(Errno::EINVAL),
        }
    }

    fn over(&mut self, result: u64) -> Next {
        *self = Self::default();
        Next::Over(result)
    }

    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_do_psc`.
    fn go_on(&mut self, descriptor: &mut Descriptor, flaws: Flaws) -> Next {
        loop {
            if self.batch != 0 {
                // The answer to the last exit got lost.
                return self.over(result::GENERIC);
            }
            if flaws.reads_header_again {
                (self.cur, self.end) = (descriptor.cur, descriptor.end);
                if usize::from(self.end) >= ENTRIES {
                    return self.over(result::INVALID_HDR);
                }
            }
            let first = loop {
                if self.cur > self.end {
                    return self.over(result::SUCCESS);
                }
                let entry = descriptor.entry(self.cur.into());
                let Ok(decoded) = PscEntry::decode(entry) else { return self.over(result::INVALID_ENTRY) };
                if decoded.range.is_some() {
                    break entry;
                }
                descriptor.cur = descriptor.cur.wrapping_add(1);
                self.cur += 1;
            };
            let pages = self.gather(descriptor, first);
            if flaws.marks_early {
                let Self { cur, batch, .. } = *self;
                self.mark_done(descriptor);
                (self.cur, self.batch) = (cur, batch);
            }
            let private = match first.operation() {
                operation::PRIVATE => map_gpa_range::ENCRYPTED,
                operation::SHARED => 0,
                _ => {
                    self.mark_done(descriptor);
                    continue;
                }
            };
            let hint = if first.is_2m() { map_gpa_range::PAGE_SIZE_2M } else { 0 };
            return Next::Exit([(first.gfn() + first.cur_page()) << 12, pages, private | hint]);
        }
    }

    /// Adds the entries that follow the first, and returns the pages of all.
    fn gather(&mut self, descriptor: &Descriptor, first: Entry) -> u64 {
        let is_2m = first.is_2m() && first.cur_page() == 0;
        let mut pages = first.pages() - first.cur_page();
        self.batch = 1;
        while self.cur + self.batch <= self.end {
            let entry = descriptor.entry((self.cur + self.batch).into());
            let follows = entry.operation() == first.operation()
                // The pages that are left, not the end of the first entry: a crafted follower is merged.
                && entry.gfn() == first.gfn() + pages
                && entry.cur_page() == 0
                && entry.is_2m() == is_2m;
            if !follows {
                break;
            }
            self.batch += 1;
            pages += entry.pages();
        }
        pages
    }

    fn mark_done(&mut self, descriptor: &mut Descriptor) {
        let end = self.cur + self.batch;
        for index in self.cur..end {
            // Read again: a size that the guest changed in the meantime decides what "done" is.
            let entry = descriptor.entry(index.into());
            descriptor.entries[usize::from(index)] = entry.with_cur_page(entry.pages()).0;
        }
        self.cur = end;
        self.batch = 0;
        descriptor.cur = end;
    }
}

/// Whether KVM takes an operation for a conversion; it takes others for done.
pub(super) fn is_conversion(entry: Entry) -> bool {
    matches!(PscOperation::from_number(entry.operation()), PscOperation::Assign(_))
}
