//! Scripts out of seeds.

mod events;

use super::{ARENA_BYTES, Act, Features, HOLE, LOW_BYTES, MAX_ACTS, Region, Script, Step};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::{MEM_GUEST_MEMFD, MEM_LOG_DIRTY_PAGES, MEM_READONLY, MEMORY_ATTRIBUTE_PRIVATE};
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_model::Rng;

/// Where slots of scripts begin, behind the one that the guest's own code is in.
const SLOTS: u64 = 0x10_0000;
/// An address without memory.
const NOWHERE: u64 = 0x3000_0000;
/// Pages of the arena that slots of scripts use: those behind the guest's own, and the hole.
const ARENA_PAGES: u64 = (ARENA_BYTES as u64 - LOW_BYTES) / 0x1000;

/// What a script is mostly about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// Events that leave the guest as it is, and entries.
    CalmEvents,
    /// Events with everything in them; the guest is not run.
    WildEvents,
    /// Ports, halts, hypercalls, system events, and their answers.
    Exits,
    /// Slots, and a guest that touches them.
    Slots,
    /// Private memory.
    Private,
    /// Arguments that no VMM should pass.
    Arguments,
}

/// The script of a number under a seed.
#[must_use]
pub fn generate(seed: u64, number: u64, features: Features) -> Script {
    let mut rng = Rng::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let subject = match (rng.below(12), features.sw_protected) {
        (0 | 1, _) | (8, false) => Subject::CalmEvents,
        (2, _) => Subject::WildEvents,
        (3..=5, _) | (9, false) => Subject::Exits,
        (6 | 7, _) | (10, false) => Subject::Slots,
        (8..=10, true) => Subject::Private,
        _ => Subject::Arguments,
    };
    Maker { rng, features, subject }.script()
}

struct Maker {
    rng: Rng,
    features: Features,
    subject: Subject,
}

impl Maker {
    fn script(mut self) -> Script {
        let subject = self.subject;
        let vm_type = match subject {
            Subject::Private => VmType::SwProtected.number(),
            Subject::Slots | Subject::Arguments if self.features.sw_protected && self.one_in(3) => {
                VmType::SwProtected.number()
            }
            Subject::Arguments if self.one_in(6) => self.among(&[6, 7, 31, 255, 1 << 32]),
            _ => VmType::Default.number(),
        };
        let mut steps = self.set_up();
        let acts = self.acts();
        let length = self.rng.below(14).saturating_add(2);
        for _ in 0..length {
            let step = self.step();
            let enters = matches!(step, Step::Enter | Step::EnterImmediately);
            if enters && self.one_in(3) {
                let byte = self.among(&[0xaa, 0, 0xff]);
                steps.push(Step::Fill(byte));
            }
            steps.push(step);
        }
        Script { vm_type, acts, steps }
    }

    /// What a script is about wants some things to be there.
    fn set_up(&mut self) -> Vec<Step> {
        let mut steps = vec![Step::Fill(0xaa)];
        match self.subject {
            Subject::CalmEvents | Subject::WildEvents => {
                for cap in [Cap::EXCEPTION_PAYLOAD, Cap::X86_TRIPLE_FAULT_EVENT] {
                    if self.one_in(2) {
                        steps.push(Step::EnableCap { cap: cap.0, flags: 0, argument: 1 });
                    }
                }
            }
            Subject::Exits => {
                if !self.one_in(4) {
                    let argument = 1 << MAP_GPA_RANGE;
                    steps.push(Step::EnableCap { cap: Cap::EXIT_HYPERCALL.0, flags: 0, argument });
                }
                if self.one_in(2) {
                    let cap = Cap::X86_TRIPLE_FAULT_EVENT.0;
                    steps.push(Step::EnableCap { cap, flags: 0, argument: 1 });
                }
            }
            Subject::Slots => {
                for slot in 1..=self.rng.below(3) {
                    let region = self.good_region(slot);
                    steps.push(Step::SetRegion(region));
                }
            }
            Subject::Private => {
                let argument = 1 << MAP_GPA_RANGE;
                steps.push(Step::EnableCap { cap: Cap::EXIT_HYPERCALL.0, flags: 0, argument });
                steps.push(Step::CreateFile { size: 0x1_0000, flags: 0 });
                let pages = self.rng.below(8).saturating_add(1);
                steps.push(Step::SetRegion(Region {
                    second: true,
                    slot: 1,
                    flags: MEM_GUEST_MEMFD,
                    gpa: SLOTS,
                    size: pages << 12,
                    offset: LOW_BYTES,
                    file: 0,
                    file_offset: self.rng.below(8) << 12,
                }));
            }
            Subject::Arguments => {}
        }
        steps
    }

    fn acts(&mut self) -> Vec<Act> {
        let count = match self.subject {
            Subject::CalmEvents | Subject::WildEvents => 0,
            _ => self.rng.below(MAX_ACTS as u64 - 4).saturating_add(1),
        };
        let mut acts = Vec::new();
        for _ in 0..count {
            let act = self.act();
            let is_last = act == Act::TripleFault;
            acts.push(act);
            if is_last {
                break;
            }
        }
        acts
    }

    fn act(&mut self) -> Act {
        let touches = match self.subject {
            Subject::Exits => 2,
            _ => 8,
        };
        match self.rng.below(10) {
            number if number < touches => self.touch(),
            8 if self.features.hypercalls => self.hypercall(),
            9 if self.subject == Subject::Private && self.features.hypercalls => self.hypercall(),
            9 if self.one_in(12) => Act::TripleFault,
            _ => match self.rng.below(8) {
                0 | 1 => Act::Out {
                    port: self.among(&[0x3f8, 0x80, 0, 0xffff, 0xcf8]),
                    size: self.among(&[1, 2, 4]),
                    value: self.any_u32(),
                },
                2 | 3 => {
                    Act::In { port: self.among(&[0x60, 0x3fd, 0, 0xffff]), size: self.among(&[1, 2, 4]) }
                }
                4 if self.features.hyperv => Act::HypervReset,
                5..=7 if self.features.hypercalls => self.hypercall(),
                _ => Act::Hlt,
            },
        }
    }

    fn touch(&mut self) -> Act {
        let page = match self.rng.below(16) {
            0 if self.subject != Subject::Private => NOWHERE,
            // Behind most slots of scripts.
            1 => SLOTS.wrapping_add(self.rng.below(32) << 12),
            _ => SLOTS.wrapping_add(self.rng.below(6) << 12),
        };
        let size = self.among(&[1u8, 2, 4, 8]);
        let within = match self.rng.below(12) {
            // Across the end of the page.
            0 if size > 1 && page != NOWHERE => 0x1000u64.wrapping_sub(u64::from(size) / 2),
            _ => self.rng.below(4).wrapping_mul(0x3f8),
        };
        let gpa = page.wrapping_add(within);
        if self.one_in(2) {
            Act::Read { gpa, size }
        } else {
            Act::Write { gpa, size, value: self.rng.next_u64() }
        }
    }

    fn hypercall(&mut self) -> Act {
        let page = SLOTS.wrapping_add(self.rng.below(8) << 12);
        let gpa = match self.rng.below(10) {
            0 => page | 1,
            1 => page | 0x800,
            2 => self.rng.next_u64() & !0xfff,
            _ => page,
        };
        let pages = match self.rng.below(10) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << 52,
            3 => self.rng.next_u64(),
            _ => self.rng.below(4).saturating_add(1),
        };
        let attributes = match self.rng.below(8) {
            0 => self.rng.next_u64(),
            _ => self.among(&[0x10, 0, 0x11, 0x12, 0x1f]),
        };
        let nr = match self.rng.below(12) {
            0 => self.among(&[0, 2, 3, 4, 8, 13, 99]),
            1 => self.rng.next_u64(),
            _ => MAP_GPA_RANGE,
        };
        Act::Hypercall { vmcall: self.one_in(4), nr, args: [gpa, pages, attributes, self.rng.next_u64()] }
    }

    fn step(&mut self) -> Step {
        match self.subject {
            Subject::CalmEvents => match self.rng.below(13) {
                0..=2 => Step::GetEvents,
                3..=6 => Step::SetEvents(self.calm_events()),
                7 | 8 => Step::EnterImmediately,
                9..=11 => Step::Enter,
                _ => Step::RaiseTripleFault,
            },
            Subject::WildEvents => match self.rng.below(9) {
                0..=2 => Step::GetEvents,
                3..=6 => Step::SetEvents(self.wild_events()),
                7 => Step::EnterImmediately,
                _ => Step::RaiseTripleFault,
            },
            Subject::Exits => match self.rng.below(20) {
                0..=9 => Step::Enter,
                10 => Step::EnterImmediately,
                11..=13 => self.answer(),
                14 | 15 => Step::PutPort(self.rng.next_u64()),
                16 => self.cap(),
                17 => Step::GetEvents,
                18 => Step::SetEvents(self.calm_events()),
                _ => self.any(),
            },
            Subject::Slots => match self.rng.below(12) {
                0..=5 => Step::Enter,
                6 => self.answer(),
                7 | 8 => self.region(),
                9 => self.poke(),
                10 => self.peek(),
                _ => self.any(),
            },
            Subject::Private => match self.rng.below(16) {
                0..=6 => Step::Enter,
                7 => self.answer(),
                8..=10 => self.attributes(),
                11 => self.hole(),
                12 => self.poke(),
                13 => self.peek(),
                14 => self.file(),
                _ => self.any(),
            },
            Subject::Arguments => self.any(),
        }
    }

    fn any(&mut self) -> Step {
        match self.rng.below(16) {
            0 => Step::Enter,
            1 => Step::EnterImmediately,
            2 | 3 => self.cap(),
            4 | 5 => self.region(),
            6..=10 if !self.features.private_ioctls => self.check(),
            6 | 7 => self.attributes(),
            8 | 9 => self.file(),
            10 => self.hole(),
            11 => self.check(),
            12 => Step::GetMpState,
            13 => Step::SetMpState(self.among(&[0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, u32::MAX])),
            14 => Step::GetEvents,
            _ => self.answer(),
        }
    }

    fn check(&mut self) -> Step {
        let cap = self.among(&[
            Cap::IMMEDIATE_EXIT,
            Cap::EXCEPTION_PAYLOAD,
            Cap::EXIT_HYPERCALL,
            Cap::SYSTEM_EVENT_DATA,
            Cap::ARM_SYSTEM_SUSPEND,
            Cap::X86_TRIPLE_FAULT_EVENT,
            Cap::USER_MEMORY2,
            Cap::MEMORY_FAULT_INFO,
            Cap(9999),
            if self.features.private_ioctls { Cap::MEMORY_ATTRIBUTES } else { Cap(9999) },
            if self.features.private_ioctls { Cap::GUEST_MEMFD } else { Cap(9999) },
        ]);
        Step::CheckExtension { cap: cap.0 }
    }

    fn cap(&mut self) -> Step {
        let cap = self.among(&[
            Cap::EXIT_HYPERCALL,
            Cap::EXIT_HYPERCALL,
            Cap::EXCEPTION_PAYLOAD,
            Cap::X86_TRIPLE_FAULT_EVENT,
            Cap::IMMEDIATE_EXIT,
            Cap::MEMORY_FAULT_INFO,
            Cap::ARM_SYSTEM_SUSPEND,
            Cap(9999),
        ]);
        let argument = match self.rng.below(5) {
            0 => 0,
            1 => 1 << MAP_GPA_RANGE,
            2 => self.rng.next_u64(),
            _ => 1 << self.rng.below(14),
        };
        let flags = if self.one_in(6) { self.any_u32() } else { 0 };
        Step::EnableCap { cap: cap.0, flags, argument }
    }

    /// An answer to a hypercall, a read of memory that is not there, or nothing in particular.
    fn answer(&mut self) -> Step {
        match self.rng.below(4) {
            0 => Step::PutUnion { offset: 8, value: self.rng.next_u64() },
            1 => Step::PutPort(self.rng.next_u64()),
            2 => Step::PutUnion { offset: 56, value: self.rng.next_u64() },
            _ => Step::PutUnion { offset: 56, value: self.among(&[0, 1, 11, 22, 22u64.wrapping_neg()]) },
        }
    }

    fn good_region(&mut self, slot: u64) -> Region {
        let arena = if self.features.hole_faults { ARENA_PAGES } else { (HOLE - LOW_BYTES) / 0x1000 };
        let page = self.rng.below(arena);
        let pages = self.rng.below(8).saturating_add(1).min(arena.saturating_sub(page));
        Region {
            second: self.features.dialect.has_private_memory() && self.one_in(2),
            slot: u32::try_from(slot).unwrap_or(1),
            flags: if self.one_in(6) { MEM_LOG_DIRTY_PAGES } else { 0 },
            gpa: SLOTS.wrapping_add(slot.saturating_sub(1) << 14),
            size: pages << 12,
            offset: LOW_BYTES.saturating_add(page << 12),
            file: 0,
            file_offset: 0,
        }
    }

    /// One that is good, moves, flaws or deletes what is there.
    fn region(&mut self) -> Step {
        let slot = self.rng.below(4).saturating_add(1);
        let mut region = self.good_region(slot);
        if self.subject == Subject::Private || self.one_in(3) {
            region.second = true;
            if self.one_in(2) && self.features.private_ioctls {
                region.flags |= MEM_GUEST_MEMFD;
                region.file = u32::try_from(self.rng.below(3)).unwrap_or(0);
                region.file_offset = self.among(&[0, 0x1000, 0x4000, 0x800, 0xf000, 1 << 63]);
            }
        }
        for _ in 0..self.rng.below(3) {
            match self.rng.below(12) {
                0 => region.size = 0,
                1 => region.size |= 0x800,
                2 => region.gpa |= 0x10,
                3 => region.offset |= 0x200,
                4 => region.gpa = 0xffff_ffff_ffff_f000,
                5 => region.gpa = SLOTS,
                6 => region.flags |= 1 << self.rng.below(6).saturating_add(2),
                7 => region.slot |= self.among(&[0x1_0000, 0x2_0000, 0x7fff, 0x7ffd, 0xffff]),
                8 => region.flags |= MEM_READONLY,
                9 => region.size = self.among(&[1 << 63, !0xfff]),
                10 => region.gpa = 0,
                _ => region.slot = 0,
            }
        }
        if !self.features.private_ioctls {
            region.flags &= !MEM_GUEST_MEMFD;
        }
        if !self.features.two_spaces {
            region.slot &= 0xffff;
        }
        if region.slot == 0 && region.size == 0 {
            // The guest would have no code.
            region.size = 0x1000;
        }
        Step::SetRegion(region)
    }

    fn file(&mut self) -> Step {
        match self.rng.below(4) {
            0 => Step::CloseFile { file: u32::try_from(self.rng.below(2)).unwrap_or(0) },
            1 => Step::CreateFile { size: self.among(&[0x1_0000, 0x1000, 0x20_0000]), flags: 0 },
            _ => Step::CreateFile {
                size: self.among(&[0, 1, 0x1000, 0x1001, 1 << 63, !0xfff, 0x1_0000]),
                flags: self.among(&[0, 0, 1, 2, 4, 1 << 63]),
            },
        }
    }

    fn hole(&mut self) -> Step {
        let flawed = self.one_in(6);
        Step::Fallocate {
            file: u32::try_from(self.rng.below(8) / 7).unwrap_or(0),
            allocate: self.one_in(5),
            offset: if flawed { self.among(&[0x800, 1, 1 << 63]) } else { self.rng.below(18) << 12 },
            bytes: if flawed {
                self.among(&[0, 0x1001, 0x1000])
            } else {
                self.rng.below(6).saturating_add(1) << 12
            },
        }
    }

    fn attributes(&mut self) -> Step {
        let mut address = SLOTS.wrapping_add(self.rng.below(8) << 12);
        let mut size = self.rng.below(4).saturating_add(1) << 12;
        let mut attributes = self.among(&[0, MEMORY_ATTRIBUTE_PRIVATE, MEMORY_ATTRIBUTE_PRIVATE]);
        let mut flags = 0;
        if self.one_in(4) {
            match self.rng.below(8) {
                0 => size = 0,
                1 => size |= 1,
                2 => address |= 0x800,
                3 => address = 0xffff_ffff_ffff_f000,
                4 => attributes |= 1 << self.rng.below(64),
                5 => flags = 1 << self.rng.below(64),
                // A whole number of pages as large as this is taken, and the kernel makes an entry for each page.
                6 => size = u64::MAX,
                _ => (address, size) = (NOWHERE, 0x1000),
            }
        }
        Step::SetAttributes { address, size, attributes, flags }
    }

    fn arena_offset(&mut self) -> u32 {
        let pages = (HOLE - LOW_BYTES) / 0x1000;
        let page = if self.one_in(2) { self.rng.below(6) } else { self.rng.below(pages) };
        let offset =
            LOW_BYTES.saturating_add(page << 12).saturating_add(self.rng.below(4).wrapping_mul(0x3f8));
        u32::try_from(offset).unwrap_or(0)
    }

    fn poke(&mut self) -> Step {
        Step::Poke { offset: self.arena_offset(), value: self.rng.next_u64() }
    }

    fn peek(&mut self) -> Step {
        Step::Peek { offset: self.arena_offset() }
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.rng.below(count) == 0
    }

    /// One of these, of which there is at least one.
    fn among<T: Copy>(&mut self, values: &[T]) -> T {
        let index = usize::try_from(self.rng.below(values.len() as u64)).unwrap_or(0);
        values[index]
    }

    fn any_u32(&mut self) -> u32 {
        u32::try_from(self.rng.next_u64() >> 32).unwrap_or(0)
    }

    fn any_u8(&mut self) -> u8 {
        u8::try_from(self.rng.next_u64() >> 56).unwrap_or(0)
    }
}
