//! Processors that an SNP guest starts with a VMSA of its own.

use crate::asked::{Ask, infos};
use crate::world::{DATA, GHCB, Seen, launched, reason, registered, run_to_halt};
use exeunt_abi::ghcb::exit_code::{self, ap_creation};
use exeunt_abi::ghcb::page::{self, malformed};
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::{ExitReason, FailEntry};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::vmsa::sev_features;
use exeunt_abi::{Dialect, Errno, Gpa, PAGE_SIZE};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{MpState, Vcpu, Vm};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::host::{Action, Backing, Host as _, Vcpu as _};

/// A page that the guest makes a VMSA of.
const VMSA: Gpa = Gpa(0x30_1000);
/// Another one.
const OTHER: Gpa = Gpa(0x30_2000);
/// `RMPADJUST` that makes a VMSA of a page.
const MAKE_VMSA: u64 = 1 | 1 << 16;

/// A VM whose two pages for VMSAs are private.
fn vm(dialect: Dialect) -> Vm {
    let vm = launched(dialect, VmType::Snp);
    vm.set_memory_attributes(VMSA, 2 * PAGE_SIZE, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    vm
}

/// `AP_CREATION` for a vCPU.
async fn ask(cpu: &Cpu, ghcb: &Ghcb, request: u32, id: u64, vmsa: Gpa) -> Result<[u64; 2], GuestFault> {
    let rax = [(page::RAX, sev_features::SNP_ACTIVE)];
    let info = [id << 32 | u64::from(request), vmsa.0];
    let answer = ghcb.request(cpu, exit_code::AP_CREATION, info, &rax).await?;
    Ok([answer.info_1, answer.info_2])
}

/// Makes a page a VMSA.
async fn make_vmsa(cpu: &Cpu, gpa: Gpa) -> Result<(), GuestFault> {
    cpu.pvalidate(gpa, true).await?;
    cpu.write(gpa, &[0; 4096], Access::Private).await?;
    cpu.rmpadjust(gpa, false, MAKE_VMSA).await.map(|_| ())
}

/// Requests of the first vCPU for another one, with a halt after each.
fn starter(vm: &Vm, vmsas: &'static [Gpa], requests: &'static [(u32, Gpa)]) -> Vcpu {
    let program = |cpu: Cpu| async move {
        let ghcb = registered(&cpu).await?;
        for vmsa in vmsas {
            make_vmsa(&cpu, *vmsa).await?;
        }
        for (request, vmsa) in requests {
            assert_eq!(ask(&cpu, &ghcb, *request, 1, *vmsa).await?, [0, 0]);
            cpu.hlt().await;
        }
        Ok(())
    };
    vm.create_vcpu(0, program).unwrap()
}

/// A processor whose own program halts, and that tells which VMSA it runs with after each of its halts.
fn target(vm: &Vm) -> (Vcpu, Seen<Option<u64>>) {
    let seen = Seen::new();
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    for vmsa in [VMSA, OTHER] {
        let log = seen.clone();
        vcpu.load_vmsa(vmsa, 0, |cpu| async move {
            loop {
                log.push(cpu.vmsa().map(|gpa| gpa.0));
                cpu.hlt().await;
            }
        });
    }
    (vcpu, seen)
}

fn fails_entry(vcpu: &mut Vcpu) {
    assert_eq!((vcpu.enter(), reason(vcpu)), (Ok(()), ExitReason::FAIL_ENTRY));
    let fail: FailEntry = vcpu.page().payload();
    assert_eq!(fail.hardware_entry_failure_reason, u64::MAX);
}

#[test]
fn each_malformed_request_is_invalid_input_and_leaves_the_target_alone() {
    const CREATE: u64 = 1 << 32 | ap_creation::CREATE as u64;
    let ask = |info_1: u64, vmsa: u64, features: u64| {
        Ask::new(exit_code::AP_CREATION, [info_1, vmsa], &[(page::RAX, features)])
    };
    let create = |vmsa, features| ask(CREATE, vmsa, features);
    let asks = vec![
        // No such vCPU, or no such request.
        ask(9 << 32 | 1, VMSA.0, 1),
        ask(0xffff_ffff << 32 | 2, 0, 1),
        ask(1 << 32 | 3, VMSA.0, 1),
        // Other features than the VM has.
        create(VMSA.0, 0),
        create(VMSA.0, 1 | sev_features::DEBUG_SWAP),
        create(VMSA.0, 1 | sev_features::RESTRICTED_INJECTION),
        // An address within a page, above the guest's 36 bits, or at a border of 2 MiB.
        create(VMSA.0 + 8, 1),
        create(1 << 36 | VMSA.0, 1),
        create(DATA.0, 1),
        create(0, 1),
    ];
    let vm = vm(Dialect::Linux7_2);
    let mut target = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let count = asks.len();
    // The one that asks is the second vCPU, and means itself with 1.
    assert_eq!(infos(&vm, asks), vec![[2, malformed::INVALID_INPUT]; count]);
    assert_eq!(target.mp_state(), MpState::Runnable);
    run_to_halt(&mut target);
}

#[test]
fn linux_6_12_compares_the_modes_of_injection_only() {
    let ask = |features: u64| Ask::new(exit_code::AP_CREATION, [0, OTHER.0], &[(page::RAX, features)]);
    let vm = vm(Dialect::Linux6_12);
    vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let asks =
        [0, sev_features::DEBUG_SWAP, sev_features::RESTRICTED_INJECTION, sev_features::ALTERNATE_INJECTION];
    let refused = [2, malformed::INVALID_INPUT];
    assert_eq!(infos(&vm, asks.map(ask).to_vec()), [[0, 0], [0, 0], refused, refused]);
}

#[test]
fn a_created_processor_begins_with_the_vmsa_that_the_guest_made() {
    const REQUESTS: &[(u32, Gpa)] =
        &[(ap_creation::CREATE, VMSA), (ap_creation::CREATE, OTHER), (ap_creation::CREATE, VMSA)];
    let vm = vm(Dialect::Linux7_2);
    let mut first = starter(&vm, &[VMSA, OTHER], REQUESTS);
    let (mut second, seen) = target(&vm);
    run_to_halt(&mut second);
    assert!(seen.take().is_empty(), "it runs with the VMSA that KVM made");
    for (_, vmsa) in REQUESTS {
        run_to_halt(&mut first);
        run_to_halt(&mut second);
        assert_eq!(seen.take(), [Some(vmsa.0)]);
    }
}

#[test]
fn a_creation_on_init_waits_for_the_init() {
    let vm = vm(Dialect::Linux7_2);
    let mut first = starter(&vm, &[VMSA], &[(ap_creation::CREATE_ON_INIT, VMSA)]);
    let (mut second, seen) = target(&vm);
    run_to_halt(&mut first);
    run_to_halt(&mut second);
    assert_eq!((seen.take(), second.mp_state()), (vec![], MpState::Runnable));
}

#[test]
fn a_destroyed_processor_is_halted_and_can_be_created_again() {
    const REQUESTS: &[(u32, Gpa)] =
        &[(ap_creation::CREATE, VMSA), (ap_creation::DESTROY, Gpa(0)), (ap_creation::CREATE, VMSA)];
    let vm = vm(Dialect::Linux7_2);
    let mut first = starter(&vm, &[VMSA], REQUESTS);
    let (mut second, seen) = target(&vm);
    run_to_halt(&mut first);
    run_to_halt(&mut second);
    run_to_halt(&mut first);
    assert_eq!((second.enter(), reason(&second)), (Err(Errno::EINTR), ExitReason::INTR), "it waits");
    assert_eq!((second.mp_state(), second.is_blocked()), (MpState::Halted, true));
    // A VMM that forces it to run finds out why that is not possible.
    second.set_mp_state(0).unwrap();
    fails_entry(&mut second);
    run_to_halt(&mut first);
    run_to_halt(&mut second);
    assert_eq!(seen.take(), [Some(VMSA.0); 2]);
}

#[test]
fn a_processor_may_destroy_and_replace_itself() {
    let vm = vm(Dialect::Linux7_2);
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        let ghcb = registered(&cpu).await?;
        make_vmsa(&cpu, VMSA).await?;
        ask(&cpu, &ghcb, ap_creation::CREATE, 0, VMSA).await?;
        panic!("the registers of this VMSA are not used any more");
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    vcpu.load_vmsa(VMSA, 0, |cpu| async move {
        log.push(cpu.vmsa().map(|gpa| gpa.0));
        ask(&cpu, &Ghcb::at(GHCB), ap_creation::DESTROY, 0, Gpa(0)).await.map(|_| ())
    });
    assert_eq!(vcpu.enter(), Err(Errno::EINTR), "nobody wakes it up");
    assert_eq!((seen.take(), vcpu.mp_state()), (vec![Some(VMSA.0)], MpState::Halted));
}

#[test]
fn a_vmsa_outside_of_guest_memory_fails_the_entry_of_a_running_target_and_halts_it_in_linux_6_12() {
    const NOWHERE: &[(u32, Gpa)] = &[(ap_creation::CREATE, Gpa(0x7000_1000))];
    let vm_7_2 = vm(Dialect::Linux7_2);
    let mut first = starter(&vm_7_2, &[], NOWHERE);
    let (mut second, _) = target(&vm_7_2);
    run_to_halt(&mut first);
    fails_entry(&mut second);
    assert_eq!(second.mp_state(), MpState::Runnable);
    fails_entry(&mut second);
    let vm_6_12 = vm(Dialect::Linux6_12);
    let mut first = starter(&vm_6_12, &[], NOWHERE);
    let (mut second, _) = target(&vm_6_12);
    run_to_halt(&mut first);
    assert_eq!((second.enter(), second.mp_state()), (Err(Errno::EINTR), MpState::Halted));
}

#[test]
fn a_page_that_is_no_vmsa_in_the_reverse_map_is_refused_by_the_processor_and_not_by_kvm() {
    let vm = vm(Dialect::Linux7_2);
    let mut first = starter(&vm, &[], &[(ap_creation::CREATE, VMSA)]);
    let (mut second, seen) = target(&vm);
    run_to_halt(&mut first);
    fails_entry(&mut second);
    assert_eq!((second.mp_state(), seen.take()), (MpState::Runnable, vec![]));
}

#[test]
fn a_vmsa_whose_page_is_taken_away_is_looked_up_again_and_fails_the_entry() {
    let vm = vm(Dialect::Linux7_2);
    let mut first = starter(&vm, &[VMSA], &[(ap_creation::CREATE, VMSA)]);
    let (mut second, seen) = target(&vm);
    run_to_halt(&mut first);
    run_to_halt(&mut second);
    let page = PageRange::new(VMSA.gfn(), 1).unwrap();
    vm.effects().apply(&Action::Discard { range: page, backing: Backing::Private }).unwrap();
    fails_entry(&mut second);
    assert_eq!(vm.page_state(VMSA.gfn()), PageState::Private);
    assert_eq!(seen.take(), [Some(VMSA.0)]);
}

#[test]
fn a_program_that_has_not_begun_begins_with_the_vmsa_of_the_guest() {
    let vm = vm(Dialect::Linux7_2);
    let mut first = starter(&vm, &[VMSA], &[(ap_creation::CREATE, VMSA)]);
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.vmsa());
        Ok(())
    };
    let mut second = vm.create_vcpu(0, program).unwrap();
    run_to_halt(&mut first);
    run_to_halt(&mut second);
    assert_eq!(seen.take(), [Some(VMSA)]);
}
