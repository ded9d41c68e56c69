//! Launching an SNP guest: `KVM_SEV_SNP_LAUNCH_START`, `_UPDATE`, `_FINISH`.

use crate::snp_world::{
    CPUID, POLICY, PRIVATE, PRIVATE_END, SECRETS, SOURCE, cpuid_page, finish, psp, start, update,
    update_params, vm_on,
};
use crate::world::{kernel, reason, run_to_halt};
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::sev::snp::{LaunchFinish, LaunchStart, LaunchUpdate, page_type, policy};
use exeunt_abi::kvm::sev::{firmware, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::psp::page::{CpuidFunction, CpuidPage};
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::guest::{Access, Cpu};
use exeunt_model::launch::{SaveArea, SevHost};
use exeunt_model::psp::{CommandError, Psp, PspConfig, PspFault, Version};
use exeunt_model::{Fault, FaultPlan, Kvm, Point, Protection, Slot, SparseMemory, Vm};
use exeunt_proto::host::Vcpu as _;
use std::sync::Arc;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const EIO: CommandError = CommandError { errno: Errno::EIO, error: 0 };

fn before(errno: Errno) -> CommandError {
    CommandError { errno, error: 0 }
}

fn launching() -> Vm {
    let vm = vm_on(psp(1));
    start(&vm, POLICY).unwrap();
    vm
}

/// One `LAUNCH_UPDATE`, which need not take all.
fn once(vm: &Vm, params: &mut LaunchUpdate) -> Result<(), CommandError> {
    vm.sev_command(id::SNP_LAUNCH_UPDATE, params)
}

#[test]
fn start_refuses_in_this_order() {
    let es = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::SevEs).unwrap();
    es.sev_init2(0).unwrap();
    assert_eq!(start(&es, POLICY), Err(before(Errno::ENOTTY)), "no SNP guest");
    let vm = vm_on(psp(1));
    let with = |change: fn(&mut LaunchStart)| {
        let mut params = LaunchStart::new_zeroed();
        params.policy = POLICY;
        change(&mut params);
        vm.sev_command(id::SNP_LAUNCH_START, &mut params)
    };
    assert_eq!(with(|p| p.flags = 1), Err(before(Errno::EINVAL)));
    for bit in (18..64).filter(|bit| ![19, 20].contains(bit)) {
        let mut params = LaunchStart::new_zeroed();
        params.policy = POLICY | 1 << bit;
        let refused = vm.sev_command(id::SNP_LAUNCH_START, &mut params);
        assert_eq!(refused, Err(before(Errno::EINVAL)), "policy bit {bit}");
    }
    assert_eq!(with(|p| p.policy = policy::SMT), Err(before(Errno::EINVAL)), "the bit that must be 1");
    assert_eq!(with(|p| (p.pad0, p.pad1) = ([!0; 6], [!0; 4])), Ok(()), "padding is not looked at");
    assert_eq!(with(|_| ()), Err(before(Errno::EINVAL)), "a second context");
}

#[test]
fn which_policy_bits_a_host_takes_depends_on_its_firmware_and_dev_kvm_tells() {
    let base = policy::SMT | policy::RSVD | policy::DEBUG | policy::SINGLE_SOCKET | 0xffff;
    let of = |minor| {
        let version = Version { minor, ..PspConfig::default().version };
        let host = SevHost::new(Psp::new(PspConfig { version, ..PspConfig::default() }));
        host.device_attr(kernel(Dialect::Linux7_2), 1)
    };
    assert_eq!(of(55), Ok(base));
    assert_eq!(of(58), Ok(base | 0x1f << 21));
    let host = SevHost::default();
    assert_eq!(host.device_attr(kernel(Dialect::Linux7_2), 0), Ok(1 << 5 | 1 << 9));
    assert_eq!(host.device_attr(kernel(Dialect::Linux6_12), 0), Ok(1 << 5));
    assert_eq!(host.device_attr(kernel(Dialect::Linux7_2), 2), Ok(1));
    for attr in 1..10 {
        assert_eq!(host.device_attr(kernel(Dialect::Linux6_12), attr), Err(Errno::ENXIO), "{attr}");
    }
    for attr in 3..10 {
        assert_eq!(host.device_attr(kernel(Dialect::Linux7_2), attr), Err(Errno::ENXIO), "{attr}");
    }
}

#[test]
fn a_start_that_fails_can_be_tried_again() {
    let psp = psp(2);
    let vm = vm_on(psp.clone());
    psp.set_fault(PspFault::Status { status: firmware::RESOURCE_LIMIT, commands: 1 });
    let no_context = CommandError { errno: Errno::ENOTTY, error: firmware::RESOURCE_LIMIT };
    assert_eq!(start(&vm, POLICY), Err(no_context), "whatever the reason is that there is no context");
    let too_new = policy::RSVD | policy::SMT | 0x200;
    let refused = CommandError { errno: Errno::EIO, error: firmware::POLICY_FAILURE };
    assert_eq!(start(&vm, too_new), Err(refused), "the firmware refuses the policy");
    assert_eq!(start(&vm, policy::RSVD), Err(refused), "the host has SMT on");
    let mut params = LaunchStart::new_zeroed();
    params.policy = POLICY;
    let closed = vm.sev_command_with(id::SNP_LAUNCH_START, 99, &mut params);
    assert_eq!(closed, Err(before(Errno::ENOTTY)), "no /dev/sev");
    psp.set_fault(PspFault::TimesOut);
    assert_eq!(start(&vm, POLICY), Err(before(Errno::ENOTTY)));
    psp.set_fault(PspFault::None);
    assert_eq!(start(&vm, POLICY), Ok(()));
    assert_eq!(psp.snp_platform_status().unwrap().guest_count.get(), 1, "no context is left behind");
    drop(vm);
    assert_eq!(psp.snp_platform_status().unwrap().guest_count.get(), 0);
}

#[test]
fn update_refuses_each_field_that_is_wrong() {
    let vm = vm_on(psp(1));
    let params = update_params(page_type::NORMAL, PRIVATE, 0x1000);
    assert_eq!(once(&vm, &mut params.clone()), Err(before(Errno::EINVAL)), "no context");
    start(&vm, POLICY).unwrap();
    let with = |change: &dyn Fn(&mut LaunchUpdate)| {
        let mut params = params;
        change(&mut params);
        let refused = once(&vm, &mut params);
        (refused, params.len)
    };
    let invalid = Err(before(Errno::EINVAL));
    assert_eq!(with(&|p| p.len = 0).0, invalid);
    assert_eq!(with(&|p| p.len = 0x1800).0, invalid);
    assert_eq!(with(&|p| p.flags = 1).0, invalid);
    for kind in (0..=255).filter(|kind| ![1, 3, 4, 5, 6].contains(kind)) {
        assert_eq!(with(&|p| p.page_type = kind).0, invalid, "type {kind}: a VMSA is not for userspace");
    }
    assert_eq!(with(&|p| p.uaddr += 1).0, invalid);
    assert_eq!(with(&|p| p.gfn_start = 0x10_0000).0, invalid, "no slot");
    assert_eq!(with(&|p| (p.pad0, p.pad1, p.pad2) = (1, 1, [1; 4])), (Ok(()), 0), "padding is not looked at");
    let zero =
        |p: &mut LaunchUpdate| (p.page_type, p.uaddr, p.gfn_start) = (page_type::ZERO, 1, p.gfn_start + 1);
    assert_eq!(with(&zero), (Ok(()), 0), "the address of zeros is not looked at");
    let null = |p: &mut LaunchUpdate| (p.uaddr, p.gfn_start) = (0, p.gfn_start + 2);
    assert_eq!(with(&null), (Err(EIO), 0x1000), "no address is aligned, and fails later");
}

#[test]
fn at_the_first_page_every_reason_is_eio_and_at_a_later_one_a_short_success() {
    let pages = |vm: &Vm, first: u64| {
        let mut params = update_params(page_type::NORMAL, Gpa(PRIVATE.0 + first * 0x1000), 0x3000);
        let result = once(vm, &mut params);
        (result, params.gfn_start - PRIVATE.gfn().0, params.uaddr - SOURCE, params.len)
    };
    let short = |done: u64, first: u64| (Ok(()), first + done, done * 0x1000, 0x3000 - done * 0x1000);
    let nothing = |first: u64| (Err(EIO), first, 0, 0x3000);
    // EEXIST: page 4 is the guest's already.
    let vm = launching();
    update(&vm, page_type::ZERO, Gpa(PRIVATE.0 + 0x4000), &[0; 0x1000]).unwrap();
    assert_eq!(pages(&vm, 2), short(2, 2));
    assert_eq!(pages(&vm, 4), nothing(4));
    // EINVAL: page 8 is shared.
    vm.set_memory_attributes(Gpa(PRIVATE.0 + 0x8000), 0x1000, 0).unwrap();
    assert_eq!(pages(&vm, 6), short(2, 6));
    assert_eq!(pages(&vm, 8), nothing(8));
    // EINTR: a signal before the page.
    for (after, expected) in [(0, nothing(10)), (1, short(1, 10)), (2, short(2, 11))] {
        vm.set_fault_plan(FaultPlan::new().with(Point::LaunchPage, after, Fault::Signal));
        let first = expected.1 - u64::from(expected.0.is_ok()) * (0x3000 - expected.3) / 0x1000;
        assert_eq!(pages(&vm, first), expected, "after {after}");
    }
    assert_eq!(pages(&vm, 13), (Ok(()), 16, 0x3000, 0), "the signal is gone");
}

#[test]
fn a_source_that_cannot_be_read_stops_like_the_rest() {
    let memory = Arc::new(SparseMemory::new());
    let user = Arc::clone(&memory);
    let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm_in(VmType::Snp, user).unwrap();
    let file = vm.create_guest_memfd(0x10_0000).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), 0x10_0000).unwrap().with_guest_memfd(file, 0)).unwrap();
    vm.set_memory_attributes(Gpa(0), 0x10_0000, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    vm.sev_init2(2).unwrap();
    start(&vm, POLICY).unwrap();
    memory.protect(SOURCE + 0x1000, Protection::None);
    let mut params = update_params(page_type::NORMAL, Gpa(0), 0x2000);
    assert_eq!((once(&vm, &mut params), params.len), (Ok(()), 0x1000));
    assert_eq!(once(&vm, &mut params), Err(EIO));
    // The CPUID table may have to be written back.
    memory.protect(SOURCE, Protection::ReadOnly);
    assert_eq!(once(&vm, &mut update_params(page_type::CPUID, Gpa(0x8000), 0x1000)), Err(EIO));
    assert_eq!(once(&vm, &mut update_params(page_type::NORMAL, Gpa(0x9000), 0x1000)), Ok(()));
}

#[test]
fn a_range_ends_at_its_slot_and_the_next_call_goes_on_in_the_next() {
    let vm = launching();
    let file = vm.create_guest_memfd(0x10_0000).unwrap();
    let next = Slot::shared(1, Gpa(PRIVATE_END), 0x10_0000).unwrap();
    vm.add_slot(next.with_guest_memfd(file, 0)).unwrap();
    vm.set_memory_attributes(Gpa(PRIVATE_END), 0x10_0000, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    let mut params = update_params(page_type::NORMAL, Gpa(PRIVATE_END - 0x1000), 0x3000);
    assert_eq!((once(&vm, &mut params), params.len), (Ok(()), 0x2000));
    assert_eq!((once(&vm, &mut params), params.len), (Ok(()), 0));
    let mut endless = update_params(page_type::ZERO, Gpa(PRIVATE_END + 0x10_0000 - 0x1000), !0xfff);
    assert_eq!((once(&vm, &mut endless), endless.len), (Ok(()), !0xfff - 0x1000), "any length ends");
}

#[test]
fn what_the_firmware_says_is_in_error_and_the_page_is_the_hosts_again() {
    let psp = psp(3);
    let vm = vm_on(psp.clone());
    start(&vm, POLICY).unwrap();
    psp.set_fault(PspFault::Status { status: firmware::INVALID_PAGE_STATE, commands: 1 });
    let mut params = update_params(page_type::NORMAL, PRIVATE, 0x1000);
    let refused = CommandError { errno: Errno::EIO, error: firmware::INVALID_PAGE_STATE };
    assert_eq!(once(&vm, &mut params), Err(refused));
    assert_eq!(once(&vm, &mut params), Ok(()));
}

#[test]
fn a_cpuid_table_that_is_refused_comes_back_corrected_and_is_then_taken() {
    let vm = launching();
    let mut table = CpuidPage::new_zeroed();
    table.count = 2;
    table.functions[0] = CpuidFunction { eax_in: 1, ecx: !0, ..CpuidFunction::default() };
    table.functions[1] = CpuidFunction { eax_in: 0x4000_0000, eax: !0, ..CpuidFunction::default() };
    let refused = CommandError { errno: Errno::EIO, error: firmware::INVALID_PARAM };
    assert_eq!(update(&vm, page_type::CPUID, CPUID, table.as_bytes()), Err(refused));
    let mut corrected = CpuidPage::new_zeroed();
    vm.user_memory().read(SOURCE, corrected.as_mut_bytes()).unwrap();
    assert_eq!(corrected.functions[0].ecx, !(1 << 24), "without the TSC deadline timer");
    assert_eq!(corrected.functions[1], table.functions[1]);
    assert_eq!(update(&vm, page_type::CPUID, CPUID, corrected.as_bytes()), Ok(()));
}

#[test]
fn launched_pages_are_validated_and_hold_what_the_firmware_made_of_them() {
    let vm = launching();
    let (normal, zero, unmeasured) = (PRIVATE, Gpa(PRIVATE.0 + 0x1000), Gpa(PRIVATE.0 + 0x2000));
    update(&vm, page_type::NORMAL, normal, &[1; 0x1000]).unwrap();
    update(&vm, page_type::ZERO, zero, &[2; 0x1000]).unwrap();
    update(&vm, page_type::UNMEASURED, unmeasured, &[3; 0x1000]).unwrap();
    update(&vm, page_type::SECRETS, SECRETS, &[4; 0x1000]).unwrap();
    update(&vm, page_type::CPUID, CPUID, &cpuid_page()).unwrap();
    let program = move |cpu: Cpu| async move {
        for (gpa, byte) in [(normal, 1), (zero, 0), (unmeasured, 3)] {
            assert_eq!(cpu.read(gpa, 0x1000, Access::Private).await?, vec![byte; 0x1000], "{gpa}");
        }
        let secrets = cpu.read(SECRETS, 0x1000, Access::Private).await?;
        assert_eq!(u32::read_from_prefix(&secrets).unwrap().0, 4, "the version of the secrets page");
        assert!(secrets[0x20..0xa0].chunks(32).all(|key| key != [0; 32]), "a key for each level");
        assert!(secrets[0xa0..].iter().all(|byte| *byte == 0));
        assert!(
            cpu.read(Gpa(PRIVATE.0 + 0x3000), 1, Access::Private).await.is_err(),
            "not launched, not validated"
        );
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    finish(&vm).unwrap();
    run_to_halt(&mut vcpu);
}

#[test]
fn finish_refuses_in_this_order_and_only_once() {
    let vm = vm_on(psp(1));
    assert_eq!(finish(&vm), Err(before(Errno::EINVAL)), "no context");
    let _vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    start(&vm, POLICY).unwrap();
    let with = |change: fn(&mut LaunchFinish)| {
        let mut params = LaunchFinish::new_zeroed();
        change(&mut params);
        vm.sev_command(id::SNP_LAUNCH_FINISH, &mut params)
    };
    assert_eq!(with(|p| p.flags = 1), Err(before(Errno::EINVAL)));
    assert_eq!(with(|p| (p.auth_key_en, p.pad0, p.pad1) = (1, [!0; 3], [!0; 4])), Ok(()));
    assert_eq!(with(|_| ()), Err(before(Errno::EINVAL)), "the vCPU is protected already");
    let vm = vm_on(psp(1));
    start(&vm, POLICY).unwrap();
    finish(&vm).unwrap();
    let running = CommandError { errno: Errno::EIO, error: firmware::INVALID_GUEST_STATE };
    assert_eq!(finish(&vm), Err(running), "without a vCPU it is the firmware that refuses");
    assert_eq!(once(&vm, &mut update_params(page_type::NORMAL, PRIVATE, 0x1000)), Err(running));
}

#[test]
fn a_failure_between_two_vcpus_leaves_the_vm_unusable() {
    let psp = psp(4);
    let vm = vm_on(psp.clone());
    let vcpus = [0, 1].map(|_| vm.create_vcpu(0, |_| async { Ok(()) }).unwrap());
    start(&vm, POLICY).unwrap();
    let digest = vm.launch_digest();
    // The first command is the VMSA of vCPU 0.
    psp.set_fault(PspFault::None);
    vm.fail_launch_vmsa(1, firmware::INVALID_PAGE_STATE);
    let refused = CommandError { errno: Errno::EIO, error: firmware::INVALID_PAGE_STATE };
    assert_eq!(finish(&vm), Err(refused));
    assert_ne!(vm.launch_digest(), digest, "vCPU 0 has been measured");
    assert_eq!(finish(&vm), Err(before(Errno::EINVAL)), "and cannot be measured again");
    assert!(
        vm.set_save_area(0, SaveArea::default()).is_err() && vm.set_save_area(1, SaveArea::default()).is_ok()
    );
    for mut vcpu in vcpus {
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::FAIL_ENTRY);
    }
}

#[test]
fn a_vcpu_that_comes_after_the_launch_has_no_encrypted_vmsa_and_fails_to_enter() {
    let vm = launching();
    finish(&vm).unwrap();
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::FAIL_ENTRY);
}

#[test]
fn the_processor_counts_its_guests() {
    let host = SevHost::new(psp(5));
    let vms: Vec<Vm> = (0..3)
        .map(|_| {
            let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::Snp).unwrap();
            vm.set_sev_host(host.clone()).unwrap();
            vm.sev_init2(0).unwrap();
            start(&vm, POLICY).unwrap();
            vm
        })
        .collect();
    assert_eq!(host.psp().snp_platform_status().unwrap().guest_count.get(), 3);
    drop(vms);
    assert_eq!(host.psp().snp_platform_status().unwrap().guest_count.get(), 0);
}
