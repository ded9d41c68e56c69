//! What kernels with a proposal of the lists do.

use crate::world::{Seen, launched, reason};
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::run::{ExitReason, RunPage, VmgexitV10};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gfn};
use exeunt_model::guest::Cpu;
use exeunt_proto::events::{triple_fault, with_triple_fault};
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::host::{Events as _, Vcpu as _};
use zerocopy::FromZeros;

async fn halts(cpu: Cpu) -> Result<(), exeunt_model::guest::GuestFault> {
    loop {
        cpu.hlt().await;
    }
}

#[test]
fn the_flag_of_march_2022_raises_a_triple_fault_without_a_capability_and_reports_none() {
    let vm = launched(Dialect::ShutdownFlagV4, VmType::Default);
    let mut vcpu = vm.create_vcpu(0, halts).unwrap();
    // The byte behind the flag did not exist, so it does not matter.
    for pending in [false, true] {
        let events = with_triple_fault(VcpuEvents::new_zeroed(), pending);
        assert_eq!(vcpu.set_events(&events), Ok(()));
        assert_eq!(triple_fault(&vcpu.events().unwrap()), None);
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
    }
}

#[test]
fn a_release_before_the_event_does_not_know_the_flag_and_changes_nothing() {
    for dialect in [Dialect::Linux5_10, Dialect::Linux5_17] {
        let vm = launched(dialect, VmType::Default);
        let mut vcpu = vm.create_vcpu(0, halts).unwrap();
        let mut events = with_triple_fault(VcpuEvents::new_zeroed(), true);
        events.exception_injected = 1;
        events.exception_nr = 13;
        assert_eq!(vcpu.set_events(&events), Err(Errno::EINVAL));
        assert_eq!(vcpu.events().unwrap().exception_injected, 0, "{dialect}");
    }
}

#[test]
fn a_forwarded_vmgexit_takes_any_answer_and_its_ret_is_stale() {
    let vm = launched(Dialect::VmgexitV10, VmType::Snp);
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.vmgexit(MsrRequest::psc(Gfn(5), 1)).await?);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    vcpu.page_mut().exit = [0xaa; 256];
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason(50));
    let page: &RunPage = vcpu.page();
    assert_eq!(page.payload::<VmgexitV10>().ghcb_msr, MsrRequest::psc(Gfn(5), 1));
    assert_eq!(page.exit[8..16], [0xaa; 8], "an unaware VMM returns what was there");
    vcpu.page_mut().set_payload(&VmgexitV10 { ghcb_msr: 0x1234_5678_9abc_d000, ret: 7 });
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(seen.take(), [0x1234_5678_9abc_d000]);
}
