//! `KVM_MEMORY_ENCRYPT_OP` itself, and `KVM_SEV_INIT2`: which check comes first and what is written back.

use crate::snp_world::{psp, vm_on};
use crate::world::kernel;
use exeunt_abi::kvm::sev::{Init2, SevCmd, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::vmsa::sev_features;
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use exeunt_model::launch::SevHost;
use exeunt_model::psp::{CommandError, Psp, PspConfig, PspFault};
use exeunt_model::{Host, Kvm, Vm};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Where the struct lies in the process.
const ARG: u64 = 0x7e00_0000_0000;

fn new(vm_type: VmType) -> Vm {
    Kvm::new(kernel(Dialect::Linux7_2)).create_vm(vm_type).unwrap()
}

/// Executes a command with a poisoned `error`, and returns the result and `error` as it is afterwards.
fn op(vm: &Vm, id: u32) -> (Result<(), Errno>, u32) {
    let cmd = SevCmd { id, pad0: 0xffff_ffff, data: ARG + 0x1000, error: 0xdead, sev_fd: SevHost::FILE };
    vm.user_memory().write(ARG, cmd.as_bytes()).unwrap();
    let result = vm.memory_encrypt_op(ARG);
    let mut cmd = SevCmd::new_zeroed();
    vm.user_memory().read(ARG, cmd.as_mut_bytes()).unwrap();
    (result, SevCmd::read_from_bytes(cmd.as_bytes()).unwrap().error)
}

#[test]
fn a_host_without_sev_refuses_before_it_looks_at_the_argument() {
    let kernel = kernel(Dialect::Linux7_2);
    let vm = Kvm::on(Host::INTEL, kernel).create_vm(VmType::Default).unwrap();
    assert_eq!(vm.memory_encrypt_op(0), Err(Errno::ENOTTY));
    let arm = Kernel { arch: Arch::Arm64, ..kernel };
    assert_eq!(Kvm::new(arm).create_vm(VmType::Default).unwrap().memory_encrypt_op(0), Err(Errno::ENOTTY));
}

#[test]
fn no_argument_is_success_and_one_that_is_not_there_a_fault() {
    for vm_type in [VmType::Default, VmType::SevEs, VmType::Snp] {
        assert_eq!(new(vm_type).memory_encrypt_op(0), Ok(()), "{vm_type:?}");
    }
    assert_eq!(
        new(VmType::Snp).memory_encrypt_op(!0xfff | 0x8000_0000_0000_0000),
        Err(Errno::EINVAL),
        "zeros"
    );
}

#[test]
fn on_an_snp_guest_every_command_below_100_is_refused_with_eperm_and_nothing_is_written_back() {
    let vm = vm_on(psp(0));
    for id in 0..100 {
        assert_eq!(op(&vm, id), (Err(Errno::EPERM), 0xdead), "{id}");
    }
    // Before INIT2 the VM is no SNP guest yet.
    assert_eq!(op(&new(VmType::Snp), id::LAUNCH_START).0, Err(Errno::ENOTTY));
}

#[test]
fn a_command_without_a_handler_is_invalid_and_nothing_is_written_back() {
    for id in [10, 14, 19, 23, 99, 104, 1000, u32::MAX] {
        assert_eq!(op(&new(VmType::SevEs), id), (Err(Errno::EINVAL), 0xdead), "{id}");
    }
    for id in [104, 105, u32::MAX] {
        assert_eq!(op(&vm_on(psp(0)), id), (Err(Errno::EINVAL), 0xdead), "{id}");
    }
}

#[test]
fn a_kernel_that_is_older_than_a_command_does_not_know_it() {
    let old = Kvm::new(kernel(Dialect::Linux6_1)).create_vm(VmType::Default).unwrap();
    for id in [id::INIT2, id::SNP_LAUNCH_START, id::SNP_LAUNCH_UPDATE, id::SNP_LAUNCH_FINISH] {
        assert_eq!(op(&old, id), (Err(Errno::EINVAL), 0xdead), "{id}");
    }
    let vm = Kvm::new(kernel(Dialect::Linux6_12)).create_vm(VmType::Snp).unwrap();
    assert_eq!(op(&vm, id::SNP_ENABLE_REQ_CERTS), (Err(Errno::EINVAL), 0xdead));
    assert_eq!(op(&vm, id::INIT2), (Ok(()), 0xdead), "success leaves what was in `error`");
}

#[test]
fn init2_refuses_each_thing_that_does_not_fit_the_type() {
    let init = |vm_type, change: fn(&mut Init2)| {
        let mut params = Init2::new_zeroed();
        change(&mut params);
        new(vm_type).sev_command(id::INIT2, &mut params).map_err(|failed| failed.errno)
    };
    let (es, snp) = (VmType::SevEs, VmType::Snp);
    for vm_type in [es, snp] {
        assert_eq!(init(vm_type, |_| ()), Ok(()));
        assert_eq!(init(vm_type, |p| p.flags = 1), Err(Errno::EINVAL));
        assert_eq!(init(vm_type, |p| p.ghcb_version = 3), Err(Errno::EINVAL));
        assert_eq!(init(vm_type, |p| p.ghcb_version = 2), Ok(()));
        assert_eq!(init(vm_type, |p| p.vmsa_features = sev_features::DEBUG_SWAP), Ok(()));
        assert_eq!(init(vm_type, |p| p.vmsa_features = sev_features::SNP_ACTIVE), Err(Errno::EINVAL));
        assert_eq!(init(vm_type, |p| p.vmsa_features = 1 << 63), Err(Errno::EINVAL));
        assert_eq!(init(vm_type, |p| (p.pad1, p.pad2) = (!0, [!0; 8])), Ok(()), "padding is not looked at");
    }
    assert_eq!(init(es, |p| p.ghcb_version = 1), Ok(()));
    assert_eq!(init(snp, |p| p.ghcb_version = 1), Err(Errno::EINVAL));
    assert_eq!(init(snp, |p| p.vmsa_features = sev_features::SECURE_TSC), Ok(()));
    assert_eq!(init(es, |p| p.vmsa_features = sev_features::SECURE_TSC), Err(Errno::EINVAL));
    assert_eq!(init(VmType::Default, |_| ()), Err(Errno::EINVAL));
    assert_eq!(init(VmType::SwProtected, |_| ()), Err(Errno::EINVAL));
}

#[test]
fn the_old_init_commands_are_for_the_default_type() {
    for id in [id::INIT, id::ES_INIT] {
        let vm = new(VmType::Default);
        assert_eq!(op(&vm, id).0, Ok(()));
        assert_eq!(op(&vm, id).0, Err(Errno::EINVAL), "a second time");
        for vm_type in [VmType::SevEs, VmType::Snp, VmType::SwProtected] {
            assert_eq!(op(&new(vm_type), id).0, Err(Errno::EINVAL), "{vm_type:?}");
        }
    }
}

#[test]
fn vcpus_come_after_init2() {
    for vm_type in [VmType::SevEs, VmType::Snp] {
        let vm = new(vm_type);
        let _vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        assert_eq!(vm.sev_init2(0), Err(Errno::EINVAL));
    }
}

#[test]
fn asids_are_shared_by_the_vms_of_a_host_and_free_again_when_a_vm_is_gone() {
    let host = SevHost::new(Psp::new(PspConfig { es_asids: 2, ..PspConfig::default() }));
    let vm = || {
        let vm = new(VmType::Snp);
        vm.set_sev_host(host.clone()).unwrap();
        vm
    };
    let vms = [vm(), vm(), vm()];
    assert_eq!([vms[0].sev_init2(0), vms[1].sev_init2(0)], [Ok(()); 2]);
    assert_eq!(vms[2].sev_init2(0), Err(Errno::EBUSY));
    let [first, ..] = vms;
    drop(first);
    assert_eq!(vm().sev_init2(0), Ok(()));
    let none = SevHost::new(Psp::new(PspConfig { es_asids: 0, ..PspConfig::default() }));
    let vm = new(VmType::SevEs);
    vm.set_sev_host(none).unwrap();
    assert_eq!(vm.sev_init2(0), Err(Errno::ENOTTY), "no ASID of the class at all");
}

#[test]
fn a_processor_that_cannot_be_initialised_leaves_the_vm_as_it_was_and_says_why() {
    let psp = psp(0);
    let vm = new(VmType::Snp);
    vm.set_sev_host(SevHost::new(psp.clone())).unwrap();
    let init = || vm.sev_command(id::INIT2, &mut Init2::new_zeroed());
    psp.set_fault(PspFault::Status { status: 0x13, commands: 1 });
    assert_eq!(init(), Err(CommandError { errno: Errno::EIO, error: 0x13 }));
    assert_eq!(init(), Ok(()));
    assert_eq!(init().unwrap_err().errno, Errno::EPERM, "a second time");
}
