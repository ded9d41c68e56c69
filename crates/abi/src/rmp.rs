//! The reverse map table of SNP, and what a nested page fault says about it.

use core::fmt;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An entry as it lies in memory. The format is not architectural: it is that of Zen 3 and Zen 4, which KVM reads
/// where the CPU has no `RMPREAD`.
///
/// Layout: Linux v7.2 `arch/x86/virt/svm/sev.c`, `struct rmpentry_raw`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawEntry {
    /// Assigned 0, page size 1, immutable 2, reserved 11:3, guest frame 50:12, ASID 60:51, VMSA 61, validated 62.
    pub low: u64,
    /// Permissions of the privilege levels and more, opaque to Linux.
    pub high: u64,
}
const _: () = assert!(size_of::<RawEntry>() == 16 && offset_of!(RawEntry, high) == 8);

/// Bits of [`RawEntry::low`].
pub mod bits {
    crate::named::named! {
        u64;
        ASSIGNED = 1 << 0, "The page does not belong to the hypervisor.";
        PAGE_SIZE_2M = 1 << 1, "The entry covers 2 MiB.";
        IMMUTABLE = 1 << 2, "`RMPUPDATE` cannot change the entry.";
        VMSA = 1 << 61, "The page is a VMSA.";
        VALIDATED = 1 << 62, "The guest accepted the page with `PVALIDATE`.";
    }
}

/// What an entry says about its page.
///
/// Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, chapter 5 "Page Management". KVM makes the
/// states [`State::Hypervisor`], [`State::GuestInvalid`] and [`State::PreGuest`], the guest and the firmware the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not assigned: host and guests share it.
    Hypervisor,
    /// Not assigned and immutable: the host's alone, until the next reset.
    HvFixed,
    /// Assigned to nobody, not immutable: the firmware gave it back, the host has to take it.
    Reclaim,
    /// Assigned to a guest that has not accepted it.
    GuestInvalid,
    /// Assigned to a guest that accepted it.
    GuestValid,
    /// Assigned to a guest and immutable: between `RMPUPDATE` and the firmware's launch command.
    PreGuest,
    /// As [`State::PreGuest`], and accepted: between `RMPUPDATE` and the firmware's swap command.
    PreSwap,
    /// Assigned to nobody and immutable: the firmware's, or a guest's context or metadata, which these bits do not
    /// tell apart.
    Firmware,
    /// A combination that no state has.
    Unknown,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Hypervisor,
        Self::HvFixed,
        Self::Reclaim,
        Self::GuestInvalid,
        Self::GuestValid,
        Self::PreGuest,
        Self::PreSwap,
        Self::Firmware,
        Self::Unknown,
    ];

    /// The name as the specification writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hypervisor => "Hypervisor",
            Self::HvFixed => "HV-Fixed",
            Self::Reclaim => "Reclaim",
            Self::GuestInvalid => "Guest-Invalid",
            Self::GuestValid => "Guest-Valid",
            Self::PreGuest => "Pre-Guest",
            Self::PreSwap => "Pre-Swap",
            Self::Firmware => "Firmware",
            Self::Unknown => "unknown",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What `RMPUPDATE` writes, and what `RMPREAD` reads of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// As [`bits::ASSIGNED`].
    pub assigned: bool,
    /// As [`bits::PAGE_SIZE_2M`].
    pub is_2m: bool,
    /// As [`bits::IMMUTABLE`].
    pub immutable: bool,
    /// The guest frame that the page is mapped at, 39 bits.
    pub gfn: u64,
    /// The guest, 10 bits: 0 for none.
    pub asid: u16,
}

impl RawEntry {
    /// The entry that `RMPUPDATE` makes: validated and VMSA are clear. Bits that do not fit are dropped.
    #[must_use]
    pub const fn new(fields: Fields) -> Self {
        let flags = fields.assigned as u64 | (fields.is_2m as u64) << 1 | (fields.immutable as u64) << 2;
        Self {
            low: flags | (fields.gfn & 0x7f_ffff_ffff) << 12 | (fields.asid as u64 & 0x3ff) << 51,
            high: 0,
        }
    }

    /// What `RMPUPDATE` wrote.
    #[must_use]
    pub const fn fields(self) -> Fields {
        Fields {
            assigned: self.low & bits::ASSIGNED != 0,
            is_2m: self.low & bits::PAGE_SIZE_2M != 0,
            immutable: self.low & bits::IMMUTABLE != 0,
            gfn: self.low >> 12 & 0x7f_ffff_ffff,
            asid: (self.low >> 51 & 0x3ff) as u16,
        }
    }

    /// Whether the guest accepted the page.
    #[must_use]
    pub const fn is_validated(self) -> bool {
        self.low & bits::VALIDATED != 0
    }

    /// Whether the page is a VMSA.
    #[must_use]
    pub const fn is_vmsa(self) -> bool {
        self.low & bits::VMSA != 0
    }

    /// The state of the page.
    #[must_use]
    pub const fn state(self) -> State {
        let fields = self.fields();
        match (fields.assigned, fields.immutable, fields.asid != 0, self.is_validated()) {
            (false, false, false, false) => State::Hypervisor,
            (false, true, false, false) => State::HvFixed,
            (true, false, false, false) => State::Reclaim,
            (true, false, true, false) => State::GuestInvalid,
            (true, false, true, true) => State::GuestValid,
            (true, true, true, false) => State::PreGuest,
            (true, true, true, true) => State::PreSwap,
            (true, true, false, _) => State::Firmware,
            _ => State::Unknown,
        }
    }
}

/// Bits of the error code of a nested page fault.
///
/// Source: Linux v7.2 `arch/x86/include/asm/kvm_host.h`, `PFERR_*`. Bits 48 and 49 are KVM's own and never come from
/// the hardware.
pub mod npf {
    crate::named::named! {
        u64;
        PRESENT = 1 << 0, "The page was mapped.";
        WRITE = 1 << 1, "A write.";
        USER = 1 << 2, "An access of user code; every guest access is one to the nested tables.";
        RSVD = 1 << 3, "A reserved bit is set in the tables.";
        FETCH = 1 << 4, "An instruction fetch.";
        GUEST_RMP = 1 << 31, "The reverse map table refused the access.";
        GUEST_FINAL = 1 << 32, "While the final address was translated.";
        GUEST_PAGE = 1 << 33, "While the guest's own tables were walked.";
        GUEST_ENC = 1 << 34, "The access was private: its C-bit was set.";
        GUEST_SIZEM = 1 << 35, "`PVALIDATE` or `RMPADJUST` met an entry of another page size.";
        GUEST_VMPL = 1 << 36, "The privilege level has no permission.";
        IMPLICIT_ACCESS = 1 << 48, "KVM: an access of the CPU itself, such as to a descriptor.";
        PRIVATE_ACCESS = 1 << 49, "KVM: the access was private, for each kind of guest.";
    }
}

/// What the instructions on the reverse map leave in EAX.
///
/// Source: AMD 24594 "AMD64 Architecture Programmer's Manual volume 3", `RMPUPDATE`, `PSMASH`, `PVALIDATE`, `RMPADJUST`.
pub mod instruction {
    crate::named::named! {
        u32;
        SUCCESS = 0, "Done.";
        FAIL_INPUT = 1, "An operand is not valid.";
        FAIL_PERMISSION = 2, "The privilege level, or the entry, does not allow it.";
        FAIL_INUSE = 3, "Another processor uses the entry.";
        FAIL_OVERLAP = 4, "Entries of 2 MiB and of 4 KiB would overlap.";
        FAIL_SIZEMISMATCH = 6, "The entry covers less than the operand says.";
    }
}

/// Virtual machine privilege levels and what an entry permits to each.
///
/// Source: AMD 24593 "AMD64 Architecture Programmer's Manual volume 2", section 15.36.7 "Virtual Machine Privilege
/// Levels".
pub mod vmpl {
    /// Levels 0, the most privileged, to 3.
    pub const LEVELS: u8 = 4;
    /// Every permission.
    pub const FULL: u8 = READ | WRITE | USER_EXECUTE | SUPERVISOR_EXECUTE;
    crate::named::named! {
        u8;
        READ = 1 << 0, "Reads.";
        WRITE = 1 << 1, "Writes.";
        USER_EXECUTE = 1 << 2, "Execution at CPL 3.";
        SUPERVISOR_EXECUTE = 1 << 3, "Execution at CPL 0 to 2.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_an_entry_come_back() {
        for flags in 0..8 {
            for (gfn, asid) in [(0, 0), (0x7f_ffff_ffff, 0x3ff), (0x12_3456_789a, 0x155)] {
                let (assigned, is_2m, immutable) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
                let fields = Fields { assigned, is_2m, immutable, gfn, asid };
                let entry = RawEntry::new(fields);
                assert_eq!(entry.fields(), fields);
                assert!(!entry.is_validated() && !entry.is_vmsa());
            }
        }
    }

    #[test]
    fn every_combination_has_a_state_and_the_states_are_those_of_the_table() {
        let state = |assigned: u64, immutable: u64, asid: u64, validated: u64| {
            RawEntry { low: assigned | immutable << 2 | asid << 51 | validated << 62, high: 0 }.state()
        };
        assert_eq!(state(0, 0, 0, 0), State::Hypervisor);
        assert_eq!(state(0, 1, 0, 0), State::HvFixed);
        assert_eq!(state(1, 0, 0, 0), State::Reclaim);
        for asid in [1, 5, 0x3ff] {
            assert_eq!(state(1, 0, asid, 0), State::GuestInvalid);
            assert_eq!(state(1, 0, asid, 1), State::GuestValid);
            assert_eq!(state(1, 1, asid, 0), State::PreGuest);
            assert_eq!(state(1, 1, asid, 1), State::PreSwap);
            assert_eq!(state(0, 0, asid, 0), State::Unknown);
        }
        assert_eq!(state(1, 1, 0, 0), State::Firmware);
        assert_eq!(state(1, 1, 0, 1), State::Firmware);
        for other in [state(0, 0, 0, 1), state(0, 1, 0, 1), state(1, 0, 0, 1)] {
            assert_eq!(other, State::Unknown);
        }
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
        }
    }
}
