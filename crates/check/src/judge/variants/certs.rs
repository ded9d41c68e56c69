//! Wrong with certificates.

use super::Variant;
use crate::judge::machine::table;
use crate::judge::transcript::Effect;
use crate::judge::twist::{EnableCerts, FileHabit, Seen, Twist};
use exeunt_abi::Gpa;
use exeunt_abi::kvm::run::{RunPage, SnpReqCerts as Wire};
use exeunt_proto::certs::ENTRY_BYTES;
use exeunt_proto::exit::Exit;

pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: "writes-where-no-memory-is",
        what: "writes the table to any address that the guest names",
        breaks: &["RC-1"],
        twist: || writes_at(Gpa(0x4000_0000)),
    },
    Variant {
        name: "looks-at-the-first-page-only",
        what: "says that the table is there, when only the first page of the buffer is in memory",
        breaks: &["RC-1"],
        twist: || {
            answer(|before, answer| {
                if before.gpa == 0xff_f000 && answer.ret == EIO {
                    answer.ret = 0;
                }
            })
        },
    },
    Variant {
        name: "asks-for-a-page-more",
        what: "answers ENOSPC with one page more than the table needs",
        breaks: &["RC-2"],
        twist: || too_small(|answer| answer.npages += 1),
    },
    Variant {
        name: "asks-in-bytes",
        what: "answers ENOSPC with bytes in the place of pages",
        breaks: &["RC-2"],
        twist: || too_small(|answer| answer.npages *= 4096),
    },
    Variant {
        name: "does-not-say-how-many",
        what: "answers ENOSPC and leaves npages as it is",
        breaks: &["RC-2"],
        twist: || {
            answer(|before, answer| {
                if answer.ret == ENOSPC {
                    answer.npages = before.npages;
                }
            })
        },
    },
    Variant {
        name: "negative-errno-for-certificates",
        what: "answers -EIO",
        breaks: &["RC-3"],
        twist: || failed(|answer| answer.ret = EIO.wrapping_neg()),
    },
    Variant {
        name: "einval-for-certificates",
        what: "answers EINVAL to a request that makes no sense",
        breaks: &["RC-3"],
        twist: || failed(|answer| answer.ret = 22),
    },
    Variant {
        name: "private-buffer-succeeds",
        what: "says that the table is in a buffer that is private",
        breaks: &["RC-4"],
        twist: || {
            answer(|before, answer| {
                if before.gpa == PRIVATE.0 {
                    answer.ret = 0;
                }
            })
        },
    },
    Variant {
        name: "writes-beside-a-private-buffer",
        what: "writes the table to the shared memory behind a private buffer",
        breaks: &["RC-4"],
        twist: || writes_at(PRIVATE),
    },
    Variant {
        name: "reads-without-a-lock",
        what: "reads the certificate file while it may be changed",
        breaks: &["RC-5"],
        twist: || at_the_file(FileHabit::NoLock),
    },
    Variant {
        name: "unlocks-early",
        what: "gives the lock back when the file is read",
        breaks: &["RC-5"],
        twist: || at_the_file(FileHabit::EarlyUnlock),
    },
    Variant {
        name: "waits-for-ever",
        what: "waits for the lock as long as it takes, and the guest with it",
        breaks: &["RC-6"],
        twist: || at_the_file(FileHabit::Forever),
    },
    Variant {
        name: "busy-is-broken",
        what: "answers EIO when the lock cannot be had, and the guest gives up its key",
        breaks: &["RC-6"],
        twist: || {
            answer(|_, answer| {
                if answer.ret == EAGAIN {
                    answer.ret = EIO;
                }
            })
        },
    },
    Variant {
        name: "no-last-entry",
        what: "writes a table without an entry of zeroes",
        breaks: &["RC-7"],
        twist: || {
            writes(|table| {
                if let Some(last) = table.chunks_mut(ENTRY_BYTES).nth(3) {
                    last.fill(0xff);
                }
            })
        },
    },
    Variant {
        name: "guids-in-memory-order",
        what: "writes GUIDs with the first three fields reversed",
        breaks: &["RC-7"],
        twist: || {
            writes(|table| {
                for entry in table.chunks_mut(ENTRY_BYTES).take(3) {
                    for field in [0..4, 4..6, 6..8] {
                        entry.get_mut(field).unwrap_or_default().reverse();
                    }
                }
            })
        },
    },
    Variant {
        name: "enables-certificates-unasked",
        what: "does not ask whether there is such a command",
        breaks: &["RC-8"],
        twist: || Twist { enable_certs: EnableCerts::Unasked, ..Twist::default() },
    },
    Variant {
        name: "enables-certificates-late",
        what: "enables certificates when the vCPUs are there",
        breaks: &["RC-8"],
        twist: || Twist { enable_certs: EnableCerts::Late, ..Twist::default() },
    },
    Variant {
        name: "reads-certificates-once",
        what: "gives the certificates of the TCB at its start",
        breaks: &["RC-9"],
        twist: || at_the_file(FileHabit::ReadOnce),
    },
];

const EIO: u64 = 5;
const EAGAIN: u64 = 11;
const ENOSPC: u64 = 28;

/// The buffer of the scenario that is not shared.
const PRIVATE: Gpa = Gpa(0x20_0000);

/// Changes the answer to a request. The hook gets what the kernel left, and the answer.
fn answer(change: fn(Wire, &mut Wire)) -> Twist {
    let answer = move |seen: &Seen, page: &mut RunPage| {
        if matches!(seen.exit, Some(Exit::SnpReqCerts(_))) {
            let mut wire: Wire = page.payload();
            change(seen.page.payload(), &mut wire);
            page.set_payload(&wire);
        }
    };
    Twist { answer: Some(Box::new(answer)), ..Twist::default() }
}

fn too_small(change: fn(&mut Wire)) -> Twist {
    let answer = move |seen: &Seen, page: &mut RunPage| {
        let mut wire: Wire = page.payload();
        if matches!(seen.exit, Some(Exit::SnpReqCerts(_))) && wire.ret == ENOSPC {
            change(&mut wire);
            page.set_payload(&wire);
        }
    };
    Twist { answer: Some(Box::new(answer)), ..Twist::default() }
}

fn failed(change: fn(&mut Wire)) -> Twist {
    let answer = move |seen: &Seen, page: &mut RunPage| {
        let mut wire: Wire = page.payload();
        if matches!(seen.exit, Some(Exit::SnpReqCerts(_))) && wire.ret == EIO {
            change(&mut wire);
            page.set_payload(&wire);
        }
    };
    Twist { answer: Some(Box::new(answer)), ..Twist::default() }
}

/// Writes the table to a buffer that the guest gave, and says so.
fn writes_at(gpa: Gpa) -> Twist {
    let is_meant =
        move |seen: &Seen| matches!(seen.exit, Some(Exit::SnpReqCerts(request)) if request.gpa == gpa);
    Twist {
        before_entry: Some(Box::new(move |seen| {
            if is_meant(seen) { vec![Effect::Write { gpa, bytes: table(0) }] } else { Vec::new() }
        })),
        answer: Some(Box::new(move |seen, page| {
            if is_meant(seen) {
                let wire: Wire = page.payload();
                page.set_payload(&Wire { ret: 0, ..wire });
            }
        })),
        ..Twist::default()
    }
}

fn at_the_file(file: FileHabit) -> Twist {
    Twist { file, ..Twist::default() }
}

/// Writes other bytes for a table.
fn writes(change: fn(&mut [u8])) -> Twist {
    Twist {
        effect: Some(Box::new(move |seen, effect| match (effect, &seen.exit) {
            (Effect::Write { gpa, mut bytes }, Some(Exit::SnpReqCerts(_))) => {
                change(&mut bytes);
                vec![Effect::Write { gpa, bytes }]
            }
            (effect, _) => vec![effect],
        })),
        ..Twist::default()
    }
}
