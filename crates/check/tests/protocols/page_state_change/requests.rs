//! The requests that the guests of this model make.

use exeunt_abi::ghcb::psc::{Entry, operation};

use super::kernel::{Descriptor, ENTRIES};

const PRIVATE: u8 = operation::PRIVATE;
const SHARED: u8 = operation::SHARED;

const fn small(gfn: u64, operation: u8) -> Entry {
    Entry::new(gfn, operation, false)
}

const fn huge(gfn: u64, operation: u8, done: u64) -> Entry {
    Entry::new(gfn, operation, true).with_cur_page(done)
}

const fn request(cur: u16, entries: [Entry; ENTRIES]) -> Descriptor {
    let [first, second, third] = entries;
    Descriptor { cur, end: 2, entries: [first.0, second.0, third.0] }
}

/// No two entries of a request name the same page.
pub(super) const REQUESTS: [Descriptor; 8] = [
    // One batch, which ends in another slot than it begins in.
    request(0, [small(512, PRIVATE), small(513, PRIVATE), small(514, PRIVATE)]),
    // Three batches.
    request(0, [small(512, PRIVATE), small(514, SHARED), small(516, PRIVATE)]),
    // The rest of a 2 MiB page, then a batch of two.
    request(0, [huge(0, PRIVATE, 510), small(512, PRIVATE), small(513, PRIVATE)]),
    // A malformed entry between two.
    request(0, [small(512, PRIVATE), huge(1, PRIVATE, 0), small(514, PRIVATE)]),
    // A hint, and an entry that is done already.
    request(0, [small(512, SHARED), small(514, operation::PSMASH), small(516, PRIVATE).with_cur_page(1)]),
    // A request that was interrupted behind its first entry.
    request(1, [small(512, PRIVATE).with_cur_page(1), small(513, PRIVATE), small(516, SHARED)]),
    // A whole 2 MiB page, whose follower has another size.
    request(0, [huge(0, SHARED, 0), small(512, SHARED), small(514, PRIVATE)]),
    // One entry, with others behind it.
    Descriptor { end: 0, ..request(0, [small(512, PRIVATE), small(514, SHARED), small(516, PRIVATE)]) },
];

/// The rest of a 2 MiB page is one page, and the next entry is the second page of the same 2 MiB. KVM looks for the
/// follower behind as many pages as are left, so it takes the two for one run.
pub(super) const CRAFTED: Descriptor =
    request(0, [huge(0, PRIVATE, 511), small(1, PRIVATE), small(514, SHARED)]);

/// Behind every slot.
const FAR: Entry = small(1 << 35, PRIVATE);

/// What another vCPU of the guest may write over a word of the descriptor.
pub(super) fn rewrites(descriptor: Descriptor) -> Vec<Descriptor> {
    let mut all = vec![
        Descriptor { cur: 0, ..descriptor },
        Descriptor { cur: u16::MAX, ..descriptor },
        Descriptor { end: 0, ..descriptor },
        Descriptor { end: 2, ..descriptor },
        Descriptor { end: u16::MAX, ..descriptor },
    ];
    for index in 0..ENTRIES {
        let entry = descriptor.entry(index);
        let flipped = Entry(entry.0 ^ 1 << 56);
        for word in [entry.with_cur_page(0), flipped, small(513, SHARED), FAR, Entry(u64::MAX)] {
            let mut rewritten = descriptor;
            rewritten.entries[index] = word.0;
            all.push(rewritten);
        }
    }
    all
}
