use super::instructions::Outcome;
use super::*;
use exeunt_abi::rmp::{State, npf, vmpl};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::collections::BTreeMap;

const ASID: u16 = 7;

fn fields(gfn: u64, is_2m: bool, immutable: bool) -> Fields {
    Fields { assigned: true, is_2m, immutable, gfn, asid: ASID }
}

fn at(pfn: u64, is_2m: bool) -> Target {
    // In these tests a page lies at the frame number of its host frame and 2^20 more.
    Target { pfn, gfn: pfn + (1 << 20), asid: ASID, is_2m }
}

fn prepared(pfns: Range<u64>) -> Rmp {
    let mut rmp = Rmp::default();
    rmp.prepare(pfns.clone(), pfns.start + (1 << 20), ASID);
    rmp
}

const DONE: Result<Outcome, Violation> = Ok(Outcome { code: instruction::SUCCESS, unchanged: false });
const UNCHANGED: Result<Outcome, Violation> = Ok(Outcome { code: instruction::SUCCESS, unchanged: true });

#[test]
fn a_page_goes_through_the_states_of_its_life() {
    let mut rmp = Rmp::default();
    assert_eq!(rmp.get(5).state(), State::Hypervisor);
    assert_eq!(rmp.rmpupdate(5, fields(9, false, true)), instruction::SUCCESS);
    assert_eq!(rmp.get(5).state(), State::PreGuest);
    // The hypervisor cannot take it back while it is the firmware's turn.
    assert_eq!(
        rmp.rmpupdate(5, Fields { assigned: false, ..fields(0, false, false) }),
        instruction::FAIL_PERMISSION
    );
    rmp.set(5, rmp.get(5).with_immutable(false).with_validated(true));
    assert_eq!(rmp.get(5).state(), State::GuestValid);
    assert_eq!(rmp.rmpupdate(5, fields(9, false, false)), instruction::SUCCESS);
    assert_eq!(rmp.get(5).state(), State::GuestInvalid);
    rmp.make_shared(5..6);
    assert_eq!((rmp.get(5).state(), rmp.run_count()), (State::Hypervisor, 0));
}

#[test]
fn what_is_made_anew_is_not_validated_no_vmsa_and_vmpl_0s_alone() {
    let mut rmp = prepared(3..4);
    rmp.set(3, rmp.get(3).with_validated(true).with_vmsa(true).with_permissions(2, vmpl::READ));
    assert_eq!(rmp.rmpupdate(3, fields(3 + (1 << 20), false, false)), instruction::SUCCESS);
    let entry = rmp.get(3);
    assert!(!entry.is_validated() && !entry.is_vmsa());
    assert_eq!([0, 1, 2, 3].map(|level| entry.permissions(level)), [vmpl::FULL, 0, 0, 0]);
}

#[test]
fn pages_of_both_sizes_do_not_overlap() {
    let mut rmp = Rmp::default();
    assert_eq!(rmp.rmpupdate(513, fields(0, true, false)), instruction::FAIL_INPUT);
    assert_eq!(rmp.rmpupdate(512, fields(512, true, false)), instruction::SUCCESS);
    assert_eq!(rmp.rmpupdate(600, fields(600, false, false)), instruction::FAIL_OVERLAP);
    assert_eq!(rmp.rmpupdate(1030, fields(0, false, false)), instruction::SUCCESS);
    assert_eq!(rmp.rmpupdate(1024, fields(0, true, false)), instruction::FAIL_OVERLAP);
    assert_eq!(rmpupdate_result(instruction::FAIL_OVERLAP), Err(Errno::EFAULT));
    assert_eq!(rmpupdate_result(instruction::SUCCESS), Ok(()));
}

#[test]
fn the_size_of_a_sub_page_is_said_by_the_first_of_its_2_mib() {
    let mut rmp = Rmp::default();
    assert_eq!(rmp.rmpupdate(512, fields(512, true, false)), instruction::SUCCESS);
    rmp.entries.clear(700..701);
    assert_eq!(rmp.lookup(700), (false, true));
    assert_eq!(rmp.lookup(1024), (false, false));
}

#[test]
fn psmash_keeps_everything_but_the_size() {
    let mut rmp = Rmp::default();
    assert_eq!(rmp.psmash(0), instruction::FAIL_INPUT);
    rmp.prepare_2m(0, 1 << 20, ASID);
    assert_eq!(rmp.pvalidate(Validate { target: at(0, true), validate: true }), DONE);
    assert_eq!(rmp.psmash(3), instruction::FAIL_INPUT);
    assert_eq!(rmp.psmash(0), instruction::SUCCESS);
    for pfn in 0..512 {
        assert_eq!(rmp.get(pfn).state(), State::GuestValid);
        assert_eq!(rmp.get(pfn).fields(), Fields { gfn: pfn + (1 << 20), ..fields(0, false, false) });
    }
    assert_eq!(rmp.run_count(), 1);
}

#[test]
fn pvalidate_says_what_changed_and_which_sizes_do_not_fit() {
    let mut rmp = prepared(0..1024);
    let validate =
        |rmp: &mut Rmp, pfn, is_2m, validate| rmp.pvalidate(Validate { target: at(pfn, is_2m), validate });
    assert_eq!(validate(&mut rmp, 1, false, false), UNCHANGED);
    assert_eq!(validate(&mut rmp, 1, false, true), DONE);
    assert_eq!(validate(&mut rmp, 1, false, true), UNCHANGED);
    assert_eq!(validate(&mut rmp, 1, false, false), DONE);
    let code = |code| Ok(Outcome { code, unchanged: false });
    assert_eq!(validate(&mut rmp, 1, true, true), code(instruction::FAIL_INPUT));
    assert_eq!(validate(&mut rmp, 512, true, true), code(instruction::FAIL_SIZEMISMATCH));
    let mut rmp = Rmp::default();
    rmp.prepare_2m(5, (1 << 20) + 5, ASID);
    let refused = Err(Violation::Npf(npf::GUEST_RMP | npf::GUEST_SIZEM));
    assert_eq!(validate(&mut rmp, 7, false, true), refused);
    assert_eq!(validate(&mut rmp, 0, true, true), DONE);
    assert!((0..512).all(|pfn| rmp.get(pfn).is_validated()));
}

#[test]
fn a_page_that_is_not_the_guests_or_not_at_home_is_refused_to_every_access() {
    let mut rmp = prepared(4..5);
    let valid = Validate { target: at(4, false), validate: true };
    assert_eq!(rmp.pvalidate(valid), DONE);
    let refused = Violation::Npf(npf::GUEST_RMP);
    for target in [
        Target { pfn: 5, ..at(4, false) },
        Target { gfn: 1, ..at(4, false) },
        Target { asid: ASID + 1, ..at(4, false) },
    ] {
        assert_eq!(rmp.check_access(target, 0, vmpl::READ), Err(refused), "{target:?}");
        assert_eq!(rmp.pvalidate(Validate { target, validate: false }), Err(refused), "{target:?}");
        assert_eq!(rmp.rmpadjust(Adjust { target, vmpl: 0, attributes: 1 }), Err(refused), "{target:?}");
    }
    assert_eq!(rmp.check_access(at(4, false), 0, vmpl::READ), Ok(()));
}

#[test]
fn rmpadjust_gives_less_privileged_levels_no_more_than_the_level_has() {
    let adjust = |rmp: &mut Rmp, vmpl, level: u64, permissions: u8, vmsa: u64| {
        let attributes = level | u64::from(permissions) << 8 | vmsa << 16;
        rmp.rmpadjust(Adjust { target: at(0, false), vmpl, attributes })
    };
    for current in 0..4u8 {
        for held in 0..16u8 {
            for level in 0..6u8 {
                for permissions in 0..16u8 {
                    for vmsa in [0, 1] {
                        let mut rmp = prepared(0..1);
                        let mut entry = rmp.get(0).with_validated(true);
                        if current > 0 {
                            entry = entry.with_permissions(current, held);
                        }
                        rmp.set(0, entry);
                        let held = if current == 0 { vmpl::FULL } else { held };
                        let expected = if level > 3 {
                            instruction::FAIL_INPUT
                        } else if level <= current || (vmsa == 1 && current > 0) || permissions & !held != 0 {
                            instruction::FAIL_PERMISSION
                        } else {
                            instruction::SUCCESS
                        };
                        let got = adjust(&mut rmp, current, u64::from(level), permissions, vmsa);
                        assert_eq!(got, Ok(expected), "{current} {held:#x} {level} {permissions:#x} {vmsa}");
                        let changed = if expected == instruction::SUCCESS {
                            entry.with_permissions(level, permissions).with_vmsa(vmsa == 1)
                        } else {
                            entry
                        };
                        assert_eq!(rmp.get(0), changed);
                    }
                }
            }
        }
    }
    let mut rmp = prepared(0..1);
    assert_eq!(adjust(&mut rmp, 0, 1, 1, 0), Err(Violation::NotValidated));
}

#[test]
fn each_level_reads_and_writes_as_it_is_permitted() {
    for level in 1..4u8 {
        for permissions in 0..16u8 {
            let mut rmp = prepared(0..1);
            rmp.set(0, rmp.get(0).with_validated(true).with_permissions(level, permissions));
            for wanted in [vmpl::READ, vmpl::WRITE] {
                let refused = Violation::Npf(npf::GUEST_RMP | npf::GUEST_VMPL);
                let expected = if permissions & wanted == 0 { Err(refused) } else { Ok(()) };
                assert_eq!(rmp.check_access(at(0, false), level, wanted), expected);
                assert_eq!(rmp.check_access(at(0, false), 0, wanted), Ok(()));
            }
        }
    }
}

/// One entry for each frame, and nothing clever.
#[derive(Debug, Default)]
struct Table(BTreeMap<u64, RmpEntry>);

#[derive(Clone, Debug)]
enum Step {
    Prepare(Range<u64>),
    Prepare2m(u64),
    Share(Range<u64>),
    Smash(u64),
    Validate(u64, bool, bool),
    Adjust(u64, bool, u64),
}

const FRAMES: u64 = 1536;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let frame = || prop_oneof![0..FRAMES, (0..3u64).prop_map(|large| large * 512)];
    let range =
        move || (0..FRAMES, 0..700u64).prop_map(|(start, frames)| start..(start + frames).min(FRAMES));
    let attributes = (1..4u64, 0..16u64).prop_map(|(level, permissions)| level | permissions << 8);
    let step = prop_oneof![
        2 => range().prop_map(Step::Prepare),
        3 => frame().prop_map(Step::Prepare2m),
        2 => range().prop_map(Step::Share),
        1 => frame().prop_map(Step::Smash),
        6 => (frame(), any::<bool>(), any::<bool>()).prop_map(|(pfn, large, on)| Step::Validate(pfn, large, on)),
        2 => (frame(), any::<bool>(), attributes).prop_map(|(pfn, large, bits)| Step::Adjust(pfn, large, bits)),
    ];
    vec(step, 1..40)
}

impl Table {
    fn entry(&self, pfn: u64) -> RmpEntry {
        self.0.get(&pfn).copied().unwrap_or_default()
    }

    fn is_2m(&self, pfn: u64) -> bool {
        self.entry(pfn & !511).fields().is_2m
    }

    fn split(&mut self, pfn: u64) {
        if self.is_2m(pfn) {
            for pfn in around_2m(pfn) {
                let entry = self.entry(pfn).as_4k();
                self.0.insert(pfn, entry);
            }
        }
    }

    fn fits(&self, pfn: u64, is_2m: bool) -> bool {
        let aligned = !is_2m || pfn % 512 == 0;
        aligned && self.0.contains_key(&pfn) && self.is_2m(pfn) == is_2m
    }

    fn change(&mut self, pfn: u64, is_2m: bool, change: impl Fn(RmpEntry) -> RmpEntry) {
        let frames = if is_2m { around_2m(pfn) } else { pfn..pfn + 1 };
        for pfn in frames {
            let entry = change(self.entry(pfn));
            self.0.insert(pfn, entry);
        }
    }

    fn step(&mut self, step: &Step) {
        match step.clone() {
            Step::Prepare(pfns) => {
                for pfn in pfns {
                    let entry = RmpEntry::updated(fields(pfn + (1 << 20), false, false));
                    self.0.entry(pfn).or_insert(entry);
                }
            }
            Step::Prepare2m(pfn) if self.0.range(around_2m(pfn)).next().is_none() => {
                for pfn in around_2m(pfn) {
                    self.0.insert(pfn, RmpEntry::updated(fields(pfn + (1 << 20), true, false)));
                }
            }
            Step::Share(pfns) => {
                for border in [pfns.start, pfns.end].into_iter().filter(|border| border % 512 != 0) {
                    self.split(border);
                }
                self.0.retain(|pfn, _| !pfns.contains(pfn));
            }
            Step::Smash(pfn) if pfn % 512 == 0 => self.split(pfn),
            Step::Validate(pfn, is_2m, validate) if self.fits(pfn, is_2m) => {
                self.change(pfn, is_2m, |entry| entry.with_validated(validate));
            }
            Step::Adjust(pfn, is_2m, attributes)
                if self.fits(pfn, is_2m) && self.entry(pfn).is_validated() =>
            {
                let [level, permissions, ..] = attributes.to_le_bytes();
                self.change(pfn, is_2m, |entry| entry.with_permissions(level, permissions).with_vmsa(false));
            }
            _ => {}
        }
    }
}

fn do_step(rmp: &mut Rmp, step: &Step) {
    match step.clone() {
        Step::Prepare(pfns) => rmp.prepare(pfns.clone(), pfns.start + (1 << 20), ASID),
        Step::Prepare2m(pfn) => _ = rmp.prepare_2m(pfn, pfn + (1 << 20), ASID),
        Step::Share(pfns) => rmp.make_shared(pfns),
        Step::Smash(pfn) => _ = rmp.psmash(pfn),
        Step::Validate(pfn, is_2m, validate) => {
            let _ = rmp.pvalidate(Validate { target: at(pfn, is_2m), validate });
        }
        Step::Adjust(pfn, is_2m, attributes) => {
            let _ = rmp.rmpadjust(Adjust { target: at(pfn, is_2m), vmpl: 0, attributes });
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 60, failure_persistence: None, ..Config::default() })]

    #[test]
    fn runs_of_entries_behave_like_a_table_of_entries(steps in steps()) {
        let mut rmp = Rmp::default();
        let mut table = Table::default();
        for step in &steps {
            do_step(&mut rmp, step);
            table.step(step);
            for pfn in 0..FRAMES {
                prop_assert_eq!(rmp.get(pfn), table.entry(pfn), "{:?}, frame {}", step, pfn);
            }
        }
    }
}
