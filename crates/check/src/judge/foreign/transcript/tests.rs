use super::*;
use crate::judge::Verdict;
use crate::judge::foreign::{Case, Ending, Played};
use crate::rules::{self, Severity};
use exeunt_abi::kvm::memory::{CreateGuestMemfd, UserspaceMemoryRegion2};
use exeunt_abi::kvm::run::{ExitReason, Hypercall, MAP_GPA_RANGE, RunPage};
use exeunt_scenes::situations;
use zerocopy::IntoBytes;

fn ioctl(on: File, request: Ioctl, arg: u64, bytes: &[u8], result: u32, made: Option<File>) -> Record {
    let (before, after) = (bytes.to_vec(), bytes.to_vec());
    let what = What::Ioctl { on, request: request.0, arg, before, after, result: Ok(result), made };
    Record { pid: 1, what }
}

const GMEM_FD: u32 = 12;

/// A VM with 16 MiB, of which all can be private.
fn vm() -> Vec<Record> {
    let region = UserspaceMemoryRegion2 {
        slot: 0,
        flags: 4,
        guest_phys_addr: 0,
        memory_size: 0x100_0000,
        userspace_addr: 0x7000_0000,
        guest_memfd_offset: 0,
        guest_memfd: GMEM_FD,
        pad1: 0,
        pad2: [0; 14],
    };
    let create = CreateGuestMemfd { size: 0x100_0000, flags: 0, reserved: [0; 6] };
    let gmem = Some(File::Gmem(0, 0));
    vec![
        ioctl(File::System, nr::KVM_CREATE_VM, 1, &[], 10, Some(File::Vm(0))),
        ioctl(File::Vm(0), nr::KVM_CREATE_GUEST_MEMFD, 0, create.as_bytes(), GMEM_FD, gmem),
        ioctl(File::Vm(0), nr::KVM_SET_USER_MEMORY_REGION2, 0, region.as_bytes(), 0, None),
        ioctl(File::Vm(0), nr::KVM_CREATE_VCPU, 0, &[], 11, Some(File::Vcpu(0, 0))),
    ]
}

fn conversion(ret: u64) -> RunPage {
    let mut page = RunPage::zeroed();
    page.exit_reason = ExitReason::HYPERCALL.0;
    let args = [0x4000, 2, 0x10, 0, 0, 0];
    page.set_payload(&Hypercall { nr: MAP_GPA_RANGE, args, ret, flags: 0 });
    page
}

fn run(before: RunPage, after: RunPage) -> Record {
    let run = Run { vm: 0, vcpu: 0, immediate: false, injected: false, before, result: Ok(()), after };
    Record { pid: 1, what: What::Run(Box::new(run)) }
}

/// Two pages become private: an answer, and what is done for it.
fn converted(ret: u64, effects: Vec<Record>) -> Vec<Record> {
    let mut halted = RunPage::zeroed();
    halted.exit_reason = ExitReason::HLT.0;
    let (asks, answers) = (run(RunPage::zeroed(), conversion(0x5a)), run(conversion(ret), halted));
    [vm(), vec![asks], effects, vec![answers]].concat()
}

fn attributes(gpa: u64) -> Record {
    let attributes = MemoryAttributes { address: gpa, size: 0x2000, attributes: 8, flags: 0 };
    ioctl(File::Vm(0), nr::KVM_SET_MEMORY_ATTRIBUTES, 0, attributes.as_bytes(), 0, None)
}

fn discard(uaddr: u64) -> Record {
    let memory = Memory::Shared { uaddr, bytes: 0x2000 };
    Record { pid: 1, what: What::Discard { memory, result: Ok(()) } }
}

/// The rules that bit, and those that were broken.
fn judged(records: &[Record], ending: Ending) -> (Vec<&'static str>, Vec<&'static str>) {
    judged_in(records, ending, false)
}

fn judged_in(
    records: &[Record],
    ending: Ending,
    is_on_kernel: bool,
) -> (Vec<&'static str>, Vec<&'static str>) {
    let situation = situations::find("conversion-there-and-back").unwrap();
    let played =
        Played { situation: &situation, is_on_kernel, records, ending, output: "", certificate_pages: None };
    let rules: Vec<_> = rules::all().collect();
    let (mut kept, mut broken) = (Vec::new(), Vec::new());
    for judged in Case::new(&played).judge(&rules) {
        match judged.verdict {
            Verdict::Passed => kept.push(judged.rule),
            // That a capability is not enabled is a hazard, and none of these VMMs enables one.
            Verdict::Warned(_) if rules::find(judged.rule).unwrap().severity == Severity::Hazard => {}
            Verdict::Failed(_) | Verdict::Warned(_) => broken.push(judged.rule),
            Verdict::NotExercised { .. } => {}
        }
    }
    (kept, broken)
}

#[test]
fn a_right_conversion_keeps_the_rules_of_conversions() {
    let records = converted(0, vec![attributes(0x4000), discard(0x7000_4000)]);
    let (kept, broken) = judged(&records, Ending::GuestDone);
    assert_eq!(broken, Vec::<&str>::new());
    for rule in ["HC-2", "HC-4", "HC-5", "HC-8", "HC-9"] {
        assert!(kept.contains(&rule), "{rule} in {kept:?}");
    }
}

#[test]
fn each_wrong_conversion_breaks_its_rule() {
    for (what, records, rule) in [
        ("a negative errno", converted(22u64.wrapping_neg(), vec![]), "HC-2"),
        ("ret is stale", converted(0x5a, vec![attributes(0x4000), discard(0x7000_4000)]), "HC-3"),
        ("no discard", converted(0, vec![attributes(0x4000)]), "HC-8"),
        ("the discard of other pages", converted(0, vec![attributes(0x4000), discard(0x7000_8000)]), "HC-8"),
        ("the discard first", converted(0, vec![discard(0x7000_4000), attributes(0x4000)]), "HC-8"),
        ("other pages", converted(0, vec![attributes(0x6000)]), "HC-9"),
    ] {
        let (_, broken) = judged(&records, Ending::GuestDone);
        assert!(broken.contains(&rule), "{what}: {broken:?}");
    }
}

#[test]
fn without_a_vm_nothing_bites() {
    assert_eq!(judged(&[], Ending::Exited(1)), (vec![], vec![]));
    assert_eq!(judged(&vm(), Ending::Exited(0)).1, Vec::<&str>::new());
}

#[test]
fn any_bytes_in_place_of_structs_are_survived() {
    for bytes in [&[][..], &[0xff; 3], &[0xff; 200]] {
        for request in [
            nr::KVM_ENABLE_CAP,
            nr::KVM_SET_USER_MEMORY_REGION,
            nr::KVM_SET_USER_MEMORY_REGION2,
            nr::KVM_SET_MEMORY_ATTRIBUTES,
            nr::KVM_MEMORY_ENCRYPT_OP,
            nr::KVM_GET_VCPU_EVENTS,
            nr::KVM_SET_VCPU_EVENTS,
            nr::KVM_GET_DEVICE_ATTR,
        ] {
            for on in [File::System, File::Vm(0), File::Vcpu(0, 7)] {
                let mut records = vm();
                records.push(ioctl(on, request, u64::MAX, bytes, u32::MAX, None));
                records.push(discard(u64::MAX - 0x1000));
                judged(&records, Ending::Crashed);
            }
        }
    }
}

#[test]
fn a_signal_of_the_vmms_own_need_not_be_followed_by_an_entry() {
    let mut page = RunPage::zeroed();
    page.exit_reason = ExitReason::INTR.0;
    let result = Err(Errno::EINTR);
    let before = RunPage::zeroed();
    let run = Run { vm: 0, vcpu: 0, immediate: false, injected: false, before, result, after: page };
    let records = [vm(), vec![Record { pid: 1, what: What::Run(Box::new(run)) }]].concat();
    assert_eq!(judged_in(&records, Ending::Exited(1), false).1, ["RN-2"]);
    assert_eq!(judged_in(&records, Ending::Exited(1), true).1, Vec::<&str>::new());
}

#[test]
fn capabilities_without_a_field_may_be_enabled_without_a_question() {
    let enable = |cap: Cap| {
        let mut bytes = vec![0; 104];
        bytes[..4].copy_from_slice(&cap.0.to_le_bytes());
        [vm(), vec![ioctl(File::Vm(0), nr::KVM_ENABLE_CAP, 0, &bytes, 0, None)]].concat()
    };
    let ask = ioctl(File::System, nr::KVM_CHECK_EXTENSION, 1, &[], 1, None);
    let broken = |cap| judged(&[vec![ask.clone()], enable(cap)].concat(), Ending::Exited(0)).1;
    assert_eq!(broken(Cap::MAX_VCPU_ID), Vec::<&str>::new());
    assert_eq!(broken(Cap::EXIT_HYPERCALL), ["AB-3"]);
}
