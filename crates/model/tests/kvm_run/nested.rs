//! Guests with guests of their own: whose is a triple fault, whose an exception.

use crate::world::{DATA, Seen, kernel, reason, run_to_halt};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::{VALID_PAYLOAD, VALID_SMM, VcpuEvents};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::guest::{Cpu, GuestFault};
use exeunt_model::{Host, Intercepts, Kvm, NestedExit, Slot, Vcpu};
use exeunt_proto::host::{Events as _, Vcpu as _};
use zerocopy::FromZeros as _;

const GUEST_MODE: u16 = 1 << 2;
const SVM_SHUTDOWN: u64 = 0x7f;
const VMX_TRIPLE_FAULT: u64 = 2;
const VALID: u64 = 1 << 31;
const SHUTDOWN: Intercepts = Intercepts {
    exceptions: 0,
    shutdown: true,
    page_fault_mask: 0,
    page_fault_match: 0,
    host_state_fails: false,
};

/// A guest that enters L2, which halts for ever; L1 notes how it came back, and halts.
fn in_l2(host: Host, dialect: Dialect, intercepts: Intercepts) -> (Vcpu, Seen<NestedExit>) {
    l2(host, dialect, intercepts, Gpa(0x3000))
}

fn l2(host: Host, dialect: Dialect, intercepts: Intercepts, control: Gpa) -> (Vcpu, Seen<NestedExit>) {
    let vm = Kvm::on(host, kernel(dialect)).create_vm(VmType::Default).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), 0x10_0000).unwrap()).unwrap();
    vm.enable_cap(Cap::EXCEPTION_PAYLOAD, 1).unwrap();
    if dialect.has_triple_fault_event() {
        vm.enable_cap(Cap::X86_TRIPLE_FAULT_EVENT, 1).unwrap();
    }
    let seen = Seen::new();
    let log = seen.clone();
    let program = move |cpu: Cpu| async move {
        let exit = match cpu.enter_l2(control, intercepts).await {
            Ok(()) => loop {
                // An instruction that exits to userspace, and one that does not.
                let acts = [cpu.port_out(0x80, 1, 0).await, cpu.write_cr4(0).await];
                let exits = acts.into_iter().find_map(|act| match act {
                    Err(GuestFault::NestedExit(exit)) => Some(exit),
                    _ => None,
                });
                if let Some(exit) = exits {
                    break exit;
                }
            },
            Err(GuestFault::NestedExit(exit)) => exit,
            Err(fault) => return Err(fault),
        };
        log.push(exit);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::IO, "L2 runs");
    (vcpu, seen)
}

/// `L2` whose act `write_cr4` or `port_out` ends with an exit.
fn exit_of(vcpu: &mut Vcpu, seen: &Seen<NestedExit>) -> NestedExit {
    for _ in 0..3 {
        assert_eq!(vcpu.enter(), Ok(()));
        if let [exit] = seen.take()[..] {
            assert_eq!(reason(vcpu), ExitReason::HLT, "L1 is done");
            return exit;
        }
    }
    panic!("L2 runs on");
}

#[test]
fn the_flags_say_that_l2_is_active_on_kernels_that_say_so() {
    for dialect in [Dialect::Linux6_1, Dialect::Linux6_12, Dialect::Linux7_2] {
        let (vcpu, _) = in_l2(Host::AMD, dialect, SHUTDOWN);
        let says = vcpu.page().flags & GUEST_MODE != 0;
        assert_eq!(says, dialect.says_guest_mode(), "{dialect}");
    }
}

#[test]
fn a_triple_fault_of_l2_is_l1s_on_vmx_and_on_svm_if_l1_looks() {
    for (host, intercepts, code) in [
        (Host::INTEL, Intercepts::default(), VMX_TRIPLE_FAULT),
        (Host::INTEL, SHUTDOWN, VMX_TRIPLE_FAULT),
        (Host::AMD, SHUTDOWN, SVM_SHUTDOWN),
    ] {
        let (mut vcpu, seen) = in_l2(host, Dialect::Linux7_2, intercepts);
        vcpu.raise_triple_fault();
        let exit = exit_of(&mut vcpu, &seen);
        assert_eq!(exit, NestedExit { reason: code, ..NestedExit::default() });
        assert_eq!(vcpu.page().flags & GUEST_MODE, 0, "L1 runs");
        assert_eq!(vcpu.events().unwrap().triple_fault_pending, 0, "the request is cleared");
    }
}

#[test]
fn a_triple_fault_of_l2_that_l1_does_not_look_at_shuts_an_svm_vm_down() {
    let (mut vcpu, seen) = in_l2(Host::AMD, Dialect::Linux7_2, Intercepts::default());
    vcpu.raise_triple_fault();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
    assert_ne!(vcpu.page().flags & GUEST_MODE, 0, "nothing was reset: L2 is still active");
    assert_eq!(vcpu.events().unwrap().triple_fault_pending, 0, "the exit took the request");
    assert!(seen.take().is_empty());
}

#[test]
fn a_triple_fault_that_the_processor_finds_in_l2_goes_the_same_ways() {
    for (host, intercepts, code) in [
        (Host::INTEL, Intercepts::default(), Some(VMX_TRIPLE_FAULT)),
        (Host::AMD, SHUTDOWN, Some(SVM_SHUTDOWN)),
        (Host::AMD, Intercepts::default(), None),
    ] {
        let vm = Kvm::on(host, kernel(Dialect::Linux7_2)).create_vm(VmType::Default).unwrap();
        vm.add_slot(Slot::shared(0, Gpa(0), 0x10_0000).unwrap()).unwrap();
        let seen = Seen::new();
        let log = seen.clone();
        let program = move |cpu: Cpu| async move {
            cpu.enter_l2(Gpa(0x3000), intercepts).await?;
            cpu.triple_fault().await;
            log.push(cpu.exit_l2().await);
            Ok(())
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        if code.is_none() {
            assert_eq!(vcpu.enter(), Ok(()));
            assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
            assert_eq!(vcpu.page().flags & GUEST_MODE, 0, "the INIT took L1 back");
            run_to_halt(&mut vcpu);
            assert!(seen.take().is_empty(), "what ran before is lost");
            continue;
        }
        run_to_halt(&mut vcpu);
        assert_eq!(seen.take(), [Err(GuestFault::InvalidOpcode)], "L2 is no more");
        if let (Some(code), false) = (code, host.is_intel()) {
            let mut written = [0; 8];
            vm.read_shared(Gpa(0x3070), &mut written).unwrap();
            assert_eq!(u64::from_le_bytes(written), code, "EXITCODE of the VMCB");
        }
    }
}

#[test]
fn l2_leaves_by_an_instruction_that_l1_always_sees() {
    for (host, code) in [(Host::AMD, 0x81), (Host::INTEL, 18)] {
        let vm = Kvm::on(host, kernel(Dialect::Linux7_2)).create_vm(VmType::Default).unwrap();
        vm.add_slot(Slot::shared(0, Gpa(0), 0x10_0000).unwrap()).unwrap();
        let program = move |cpu: Cpu| async move {
            for _ in 0..3 {
                cpu.enter_l2(Gpa(0x3000), Intercepts::default()).await?;
                assert_eq!(cpu.enter_l2(Gpa(0x4000), SHUTDOWN).await, Err(GuestFault::InvalidOpcode));
                assert_eq!(cpu.exit_l2().await?.reason, code);
            }
            for (control, fault) in
                [(0x3001, GuestFault::GeneralProtection), (DATA.0, GuestFault::GeneralProtection)]
            {
                assert_eq!(cpu.enter_l2(Gpa(control), SHUTDOWN).await, Err(fault));
            }
            Ok(())
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        run_to_halt(&mut vcpu);
    }
}

/// An exception that userspace makes pending or injected.
fn stuffed(nr: u8, error_code: u32, pending: bool) -> VcpuEvents {
    let mut events = VcpuEvents::new_zeroed();
    events.flags = VALID_PAYLOAD;
    events.exception_nr = nr;
    (events.exception_pending, events.exception_injected) = (u8::from(pending), u8::from(!pending));
    (events.exception_has_error_code, events.exception_error_code) = (1, error_code);
    (events.exception_has_payload, events.exception_payload) = (1, 0x7000);
    events
}

#[test]
fn a_stuffed_exception_that_l1_wants_becomes_an_exit_at_the_next_run() {
    let wants = Intercepts { exceptions: 1 << 13 | 1 << 14, ..Intercepts::default() };
    for (host, nr, exit) in [
        (Host::AMD, 13, NestedExit { reason: 0x4d, info_1: 5, ..NestedExit::default() }),
        (Host::AMD, 14, NestedExit { reason: 0x4e, info_1: 5, info_2: 0x7000, vectoring: 0 }),
        (
            Host::INTEL,
            14,
            NestedExit { reason: 0, info_1: VALID | 3 << 8 | 1 << 11 | 0xe, info_2: 0x7000, vectoring: 0 },
        ),
    ] {
        let (mut vcpu, seen) = in_l2(host, Dialect::Linux7_2, wants);
        vcpu.set_events(&stuffed(nr, 5, true)).unwrap();
        assert_eq!(exit_of(&mut vcpu, &seen), exit, "vector {nr}");
        let events = vcpu.events().unwrap();
        assert_eq!((events.exception_pending, events.exception_injected), (0, 0));
    }
}

#[test]
fn the_conversion_happens_before_immediate_exit_and_is_reported_as_pending() {
    let wants = Intercepts { exceptions: 1 << 13, ..Intercepts::default() };
    let (mut vcpu, seen) = in_l2(Host::AMD, Dialect::Linux7_2, wants);
    vcpu.set_events(&stuffed(13, 5, true)).unwrap();
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
    let events = vcpu.events().unwrap();
    assert_eq!((events.exception_pending, events.exception_nr), (1, 13), "the one that leaves is reported");
    let mut none = events;
    none.exception_pending = 0;
    vcpu.set_events(&none).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::IO, "KVM_SET_VCPU_EVENTS drops it, L2 runs on");
    assert!(seen.take().is_empty());
}

#[test]
fn an_injected_exception_and_one_that_l1_does_not_want_are_l2s() {
    let wants = Intercepts { exceptions: 1 << 13, ..Intercepts::default() };
    for (nr, pending) in [(13, false), (12, true), (14, true)] {
        for host in [Host::AMD, Host::INTEL] {
            let (mut vcpu, seen) = in_l2(host, Dialect::Linux7_2, wants);
            vcpu.set_events(&stuffed(nr, 0, pending)).unwrap();
            assert_eq!(vcpu.enter(), Ok(()));
            // On VMX a clear mask compares equal, and bit 14 is clear.
            assert!(seen.take().is_empty(), "vector {nr}, pending {pending}");
            assert_eq!(reason(&vcpu), ExitReason::IO);
        }
    }
}

#[test]
fn vmx_compares_the_error_code_of_a_page_fault() {
    for (bit, mask, wanted, code, exits) in [
        (0, 0, 0, 7, false),
        (1, 0, 0, 7, true),
        (1, 1, 1, 7, true),
        (1, 1, 0, 7, false),
        (0, 1, 0, 7, true),
        (1, 0xffff_0000, 0, 0xabcd_0000, true),
    ] {
        let intercepts = Intercepts {
            exceptions: bit << 14,
            page_fault_mask: mask,
            page_fault_match: wanted,
            ..Intercepts::default()
        };
        let (mut vcpu, seen) = in_l2(Host::INTEL, Dialect::Linux7_2, intercepts);
        vcpu.set_events(&stuffed(14, code, true)).unwrap();
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(seen.take().len(), usize::from(exits), "{bit} {mask:#x} {wanted:#x} {code:#x}");
    }
}

#[test]
fn what_was_being_delivered_to_l2_is_written_down() {
    for (host, vectoring) in
        [(Host::AMD, 0xd | 3 << 8 | 1 << 11 | VALID | 5 << 32), (Host::INTEL, 0xd | 3 << 8 | 1 << 11 | VALID)]
    {
        let (mut vcpu, seen) = in_l2(host, Dialect::Linux7_2, SHUTDOWN);
        vcpu.set_events(&stuffed(13, 5, false)).unwrap();
        vcpu.raise_triple_fault();
        assert_eq!(exit_of(&mut vcpu, &seen).vectoring, vectoring);
    }
}

#[test]
fn an_exit_to_an_l1_whose_state_cannot_be_loaded_is_a_triple_fault() {
    for host in [Host::AMD, Host::INTEL] {
        let intercepts = Intercepts { host_state_fails: true, ..SHUTDOWN };
        let (mut vcpu, seen) = in_l2(host, Dialect::Linux7_2, intercepts);
        vcpu.raise_triple_fault();
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
        assert_eq!(vcpu.page().flags & GUEST_MODE, 0, "L2 was left");
        assert!(seen.take().is_empty());
    }
}

#[test]
fn a_change_of_system_management_mode_takes_l1_back_without_an_exit() {
    let (mut vcpu, seen) = in_l2(Host::AMD, Dialect::Linux7_2, SHUTDOWN);
    let mut events = VcpuEvents::new_zeroed();
    (events.flags, events.smi_smm) = (VALID_SMM, 1);
    vcpu.set_events(&events).unwrap();
    assert_eq!(exit_of(&mut vcpu, &seen).reason, u64::MAX);
}

#[test]
fn l2_that_clears_svme_takes_its_vm_down_or_gives_l1_back() {
    const EFER: u32 = 0xc000_0080;
    for (dialect, is_shutdown) in [(Dialect::Linux6_12, false), (Dialect::Linux7_2, true)] {
        let vm = Kvm::new(kernel(dialect)).create_vm(VmType::Default).unwrap();
        vm.add_slot(Slot::shared(0, Gpa(0), 0x10_0000).unwrap()).unwrap();
        let seen = Seen::new();
        let log = seen.clone();
        let program = move |cpu: Cpu| async move {
            cpu.enter_l2(Gpa(0x3000), Intercepts::default()).await?;
            log.push(cpu.wrmsr(EFER, 0).await);
            Ok(())
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu) == ExitReason::SHUTDOWN, is_shutdown, "{dialect}");
        if !is_shutdown {
            let back = NestedExit { reason: u64::MAX, ..NestedExit::default() };
            assert_eq!(seen.take(), [Err(GuestFault::NestedExit(back))]);
        }
    }
}
