//! What running kernels were found to do, each with the release that does it.

use crate::world::{kernel, new_vm, reason};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::{VALID_NMI_PENDING, VcpuEvents};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Kernel};
use exeunt_model::Kvm;
use exeunt_model::guest::Cpu;
use exeunt_proto::host::{Events as _, Vcpu as _};
use zerocopy::FromZeros;

#[test]
fn two_pending_nmis_are_one_before_linux_6_4() {
    for (dialect, expected) in [(Dialect::Linux6_1, 1), (Dialect::Linux6_12, 2), (Dialect::Linux7_2, 2)] {
        let vm = new_vm(kernel(dialect), VmType::Default);
        let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        let mut events = VcpuEvents::new_zeroed();
        (events.flags, events.nmi_pending) = (VALID_NMI_PENDING, 2);
        vcpu.set_events(&events).unwrap();
        assert_eq!(vcpu.events().unwrap().nmi_pending, expected, "{dialect}");
    }
}

#[test]
fn the_suspend_capability_of_arm64_has_no_argument() {
    for argument in [0, 1, u64::MAX] {
        let vm = Kvm::new(Kernel { dialect: Dialect::Linux6_1, arch: Arch::Arm64 });
        let vm = vm.create_vm(VmType::Default).unwrap();
        vm.enable_cap(Cap::ARM_SYSTEM_SUSPEND, argument).unwrap();
        let program = |cpu: Cpu| async move { cpu.psci(0xc400_000e, [0x8000_0000, 0, 0]).await.map(|_| ()) };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::SYSTEM_EVENT, "{argument:#x}");
    }
}
