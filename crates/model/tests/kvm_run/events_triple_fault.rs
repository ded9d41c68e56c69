//! Where triple faults come from: a third exception, a machine check, userspace.

use crate::world::{kernel, launched, reason, run_to_halt};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::run::{ExitReason, X86Msr};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::guest::Cpu;
use exeunt_model::{Host, Kvm, MachineCheck, Vcpu};
use exeunt_proto::events::{triple_fault, with_triple_fault};
use exeunt_proto::host::{Events as _, Vcpu as _};

const DF: u8 = 8;
const GP: u8 = 13;
const MC: u8 = 18;
const VAL: u64 = 1 << 63;
const UC: u64 = 1 << 61;
const PCC: u64 = 1 << 57;
/// `MCG_CAP`: ten banks and a control register.
const TEN_BANKS: u64 = 1 << 8 | 0xa;
const CR4_MCE: u64 = 1 << 6;

/// A guest that sets CR4 and halts.
fn with_cr4(host: Host, cr4: u64) -> Vcpu {
    let vm = Kvm::on(host, kernel(Dialect::Linux7_2)).create_vm(VmType::Default).unwrap();
    vm.enable_cap(Cap::X86_TRIPLE_FAULT_EVENT, 1).unwrap();
    vm.enable_cap(Cap::EXCEPTION_PAYLOAD, 1).unwrap();
    let program = move |cpu: Cpu| async move {
        cpu.write_cr4(cr4).await?;
        cpu.hlt().await;
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    run_to_halt(&mut vcpu);
    vcpu
}

fn uncorrected(bank: u8) -> MachineCheck {
    MachineCheck { status: VAL | UC | PCC, addr: 0x1000, misc: 0, mcg_status: 4, bank }
}

fn is_triple(vcpu: &mut Vcpu) -> bool {
    triple_fault(&vcpu.events().unwrap()).unwrap()
}

fn inject(vcpu: &mut Vcpu, nr: u8) {
    let mut events = vcpu.events().unwrap();
    (events.exception_injected, events.exception_nr) = (1, nr);
    vcpu.set_events(&events).unwrap();
}

#[test]
fn a_machine_check_is_judged_in_the_order_of_the_kernel() {
    let mut vcpu = with_cr4(Host::AMD, CR4_MCE);
    assert_eq!(vcpu.set_mce(&uncorrected(32)), Err(Errno::EINVAL), "no such bank");
    let invalid = MachineCheck { status: UC | PCC, ..uncorrected(0) };
    assert_eq!(vcpu.set_mce(&invalid), Err(Errno::EINVAL), "not valid");
    assert_eq!(vcpu.set_mce(&uncorrected(0)), Ok(()));
    let events = vcpu.events().unwrap();
    assert_eq!((events.exception_pending, is_triple(&mut vcpu)), (0, false), "the bank is off");

    vcpu.setup_mce(TEN_BANKS).unwrap();
    assert_eq!(vcpu.set_mce(&uncorrected(10)), Err(Errno::EINVAL), "ten banks only");
    let no_action = MachineCheck { status: VAL | UC, mcg_status: 0, ..uncorrected(0) };
    assert_eq!(vcpu.set_mce(&no_action), Ok(()));
    let corrected = MachineCheck { status: VAL, ..uncorrected(1) };
    assert_eq!(vcpu.set_mce(&corrected), Ok(()));
    let events = vcpu.events().unwrap();
    assert_eq!((events.exception_pending, is_triple(&mut vcpu)), (0, false), "no exception");

    assert_eq!(vcpu.set_mce(&uncorrected(0)), Ok(()));
    let events = vcpu.events().unwrap();
    assert_eq!((events.exception_pending, events.exception_nr), (1, MC));
    assert!(!is_triple(&mut vcpu));
    assert_eq!(vcpu.set_mce(&uncorrected(0)), Ok(()));
    assert!(is_triple(&mut vcpu), "one is being handled already");
}

#[test]
fn a_machine_check_without_cr4_mce_is_a_triple_fault_once_the_banks_are_on() {
    let mut vcpu = with_cr4(Host::AMD, 0);
    vcpu.set_mce(&uncorrected(0)).unwrap();
    assert!(!is_triple(&mut vcpu), "IA32_MC0_CTL is 0 before KVM_X86_SETUP_MCE");
    vcpu.setup_mce(1).unwrap();
    vcpu.set_mce(&uncorrected(0)).unwrap();
    assert!(is_triple(&mut vcpu));
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
    assert!(!is_triple(&mut vcpu), "taken");
    run_to_halt(&mut vcpu);
}

#[test]
fn the_capability_of_machine_checks_is_checked_against_the_host() {
    for (host, bits) in
        [(Host::AMD, 1u64 << 8 | 1 << 24), (Host::INTEL, 1 << 8 | 1 << 10 | 1 << 24 | 1 << 27)]
    {
        let mut vcpu = with_cr4(host, 0);
        for bit in 8..64 {
            let allowed = bits >> bit & 1 == 1 || (16..24).contains(&bit);
            assert_eq!(vcpu.setup_mce(1 | 1u64 << bit).is_ok(), allowed, "bit {bit}");
        }
        assert_eq!(vcpu.setup_mce(0), Err(Errno::EINVAL));
        assert_eq!(vcpu.setup_mce(33), Err(Errno::EINVAL));
    }
}

#[test]
fn an_exception_while_a_double_fault_waits_is_a_triple_fault() {
    let mut vcpu = with_cr4(Host::AMD, CR4_MCE);
    vcpu.setup_mce(1).unwrap();
    inject(&mut vcpu, DF);
    vcpu.set_mce(&uncorrected(0)).unwrap();
    assert!(is_triple(&mut vcpu));
    let events = vcpu.events().unwrap();
    assert_eq!((events.exception_injected, events.exception_nr), (1, DF), "the double fault stays");
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
}

/// A guest whose read of a register userspace refuses, with an exception injected meanwhile.
fn refused_read(nr: u8) -> Vcpu {
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    vm.enable_cap(Cap::X86_TRIPLE_FAULT_EVENT, 1).unwrap();
    vm.enable_cap(Cap::X86_USER_SPACE_MSR, 2).unwrap();
    let program = |cpu: Cpu| async move {
        let _ = cpu.rdmsr(0x1234_5678).await;
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::X86_RDMSR);
    let mut answer: X86Msr = vcpu.page().payload();
    answer.error = 1;
    vcpu.page_mut().set_payload(&answer);
    inject(&mut vcpu, nr);
    vcpu
}

#[test]
fn contributory_exceptions_make_a_double_and_then_a_triple_fault() {
    let mut vcpu = refused_read(GP);
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR), "the completion raises #GP over #GP");
    let events = vcpu.events().unwrap();
    assert_eq!((events.exception_nr, is_triple(&mut vcpu)), (DF, false));
    run_to_halt(&mut vcpu);

    let mut vcpu = refused_read(DF);
    assert_eq!(vcpu.enter(), Ok(()), "#GP over #DF");
    assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
    run_to_halt(&mut vcpu);

    let mut vcpu = refused_read(MC);
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR), "#GP takes the place of #MC");
    let events = vcpu.events().unwrap();
    assert_eq!((events.exception_nr, is_triple(&mut vcpu)), (GP, false));
}

#[test]
fn a_triple_fault_comes_before_a_signal_that_is_pending() {
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    vm.enable_cap(Cap::X86_TRIPLE_FAULT_EVENT, 1).unwrap();
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let requested: VcpuEvents = with_triple_fault(vcpu.events().unwrap(), true);
    vcpu.set_events(&requested).unwrap();
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR), "immediate_exit comes first");
    assert!(is_triple(&mut vcpu));
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
}

#[test]
fn an_smi_whose_state_cannot_be_saved_is_a_triple_fault_or_the_end_of_the_vm() {
    for dialect in [Dialect::Linux6_12, Dialect::Linux7_2] {
        let vm = Kvm::new(kernel(dialect)).create_vm(VmType::Default).unwrap();
        let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        vcpu.smi().unwrap();
        assert_eq!(vcpu.events().unwrap().smi_pending, 1, "latched by the look");
        if dialect == Dialect::Linux7_2 {
            assert_eq!(vcpu.enter(), Ok(()));
            assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
            assert_eq!(vcpu.events().unwrap().smi_smm, 1, "there is no way back");
        } else {
            for _ in 0..2 {
                assert_eq!(vcpu.enter(), Err(Errno::EIO));
            }
        }
    }
}

#[test]
fn an_smi_saves_the_state_and_the_guest_goes_on() {
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    vcpu.smi().unwrap();
    run_to_halt(&mut vcpu);
    let events = vcpu.events().unwrap();
    assert_eq!((events.smi_pending, events.smi_smm), (0, 0));
    let mut revision = [0; 4];
    vm.read_shared(exeunt_abi::Gpa(0x3_fefc), &mut revision).unwrap();
    assert_eq!(u32::from_le_bytes(revision), 0x2_0064);
}
