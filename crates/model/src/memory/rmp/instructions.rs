//! What a guest does with the reverse map: accesses, `PVALIDATE`, `RMPADJUST`.

use super::{Rmp, RmpEntry, around_2m, is_2m_aligned};
use exeunt_abi::rmp::{instruction, npf, vmpl};

/// An access or instruction that the reverse map does not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// `#NPF` to the host, with these bits of the error code besides those of the access.
    Npf(u64),
    /// `#VC` to the guest: the page is not validated.
    NotValidated,
}

/// What `PVALIDATE` or `RMPADJUST` leave in EAX and in the carry flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: u32,
    /// `PVALIDATE` found the page in the state that it was to get.
    pub(crate) unchanged: bool,
}

impl Outcome {
    const fn code(code: u32) -> Self {
        Self { code, unchanged: false }
    }
}

/// Where an instruction acts: the page and the guest frame that it was reached by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) pfn: u64,
    pub(crate) gfn: u64,
    pub(crate) asid: u16,
    pub(crate) is_2m: bool,
}

/// The operands of `PVALIDATE`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validate {
    pub(crate) target: Target,
    pub(crate) validate: bool,
}

/// The operands of `RMPADJUST`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adjust {
    pub(crate) target: Target,
    /// The privilege level of the vCPU.
    pub(crate) vmpl: u8,
    /// Target level in bits 7:0, permissions in bits 15:8, VMSA in bit 16.
    pub(crate) attributes: u64,
}

impl Rmp {
    /// The checks that each private access meets before its page is looked at closer.
    fn check_owner(&self, pfn: u64, gfn: u64, asid: u16) -> Result<RmpEntry, Violation> {
        let entry = self.get(pfn);
        let fields = entry.fields();
        // The table holds 39 bits of the frame number.
        let at_home = fields.assigned && fields.asid == asid && fields.gfn == gfn & 0x7f_ffff_ffff;
        if at_home { Ok(entry) } else { Err(Violation::Npf(npf::GUEST_RMP)) }
    }

    /// Whether a private access of a vCPU at a privilege level gets through. `permission` is the bit of [`vmpl`] that it
    /// needs.
    ///
    /// Source: AMD 24593 "APM volume 2", section 15.36.10 "RMP and VMPL Access Checks".
    pub(crate) fn check_access(&self, target: Target, level: u8, permission: u8) -> Result<(), Violation> {
        let entry = self.check_owner(target.pfn, target.gfn, target.asid)?;
        if !entry.is_validated() {
            return Err(Violation::NotValidated);
        }
        if entry.permissions(level) & permission == 0 {
            return Err(Violation::Npf(npf::GUEST_RMP | npf::GUEST_VMPL));
        }
        Ok(())
    }

    /// The page size of an instruction against that of the entry. `Some` is the instruction's outcome.
    fn check_size(&self, target: Target) -> Result<Option<Outcome>, Violation> {
        match (target.is_2m, self.lookup(target.pfn).1) {
            (true, false) => Ok(Some(Outcome::code(instruction::FAIL_SIZEMISMATCH))),
            (false, true) => Err(Violation::Npf(npf::GUEST_RMP | npf::GUEST_SIZEM)),
            _ => Ok(None),
        }
    }

    /// `PVALIDATE` at VMPL 0.
    ///
    /// Source: AMD 24594 "APM volume 3", `PVALIDATE`.
    pub(crate) fn pvalidate(&mut self, operands: Validate) -> Result<Outcome, Violation> {
        let Validate { target, validate } = operands;
        if target.is_2m && !is_2m_aligned(target.gfn) {
            return Ok(Outcome::code(instruction::FAIL_INPUT));
        }
        let entry = self.check_owner(target.pfn, target.gfn, target.asid)?;
        if let Some(outcome) = self.check_size(target)? {
            return Ok(outcome);
        }
        let unchanged = entry.is_validated() == validate;
        if !unchanged {
            self.update(target, |entry| entry.with_validated(validate));
        }
        Ok(Outcome { code: instruction::SUCCESS, unchanged })
    }

    /// `RMPADJUST`.
    ///
    /// Source: AMD 24594 "APM volume 3", `RMPADJUST`.
    pub(crate) fn rmpadjust(&mut self, operands: Adjust) -> Result<u32, Violation> {
        let Adjust { target, vmpl: current, attributes } = operands;
        let [level, permissions, flags, ..] = attributes.to_le_bytes();
        let vmsa = flags & 1 != 0;
        if level >= vmpl::LEVELS || target.is_2m && (vmsa || !is_2m_aligned(target.gfn)) {
            return Ok(instruction::FAIL_INPUT);
        }
        // Only what is less privileged can be adjusted, and only the most privileged makes a VMSA.
        if level <= current || vmsa && current != 0 {
            return Ok(instruction::FAIL_PERMISSION);
        }
        let entry = self.check_owner(target.pfn, target.gfn, target.asid)?;
        if let Some(outcome) = self.check_size(target)? {
            return Ok(outcome.code);
        }
        if !entry.is_validated() {
            return Err(Violation::NotValidated);
        }
        if permissions & vmpl::FULL & !entry.permissions(current) != 0 {
            return Ok(instruction::FAIL_PERMISSION);
        }
        self.update(target, |entry| {
            let entry = entry.with_permissions(level, permissions & vmpl::FULL);
            if current == 0 { entry.with_vmsa(vmsa) } else { entry }
        });
        Ok(instruction::SUCCESS)
    }

    fn update(&mut self, target: Target, change: impl FnMut(RmpEntry) -> RmpEntry) {
        let pages =
            if target.is_2m { around_2m(target.pfn) } else { target.pfn..target.pfn.saturating_add(1) };
        self.entries.update(pages, change);
    }
}
