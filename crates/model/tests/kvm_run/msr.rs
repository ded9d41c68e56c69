//! `RDMSR` and `WRMSR`: what KVM does itself, what the filter denies, and what userspace is asked for.

use crate::asked::{Ask, asking, infos, served};
use crate::world::{Seen, launched, reason, run_to_halt, snp};
use exeunt_abi::ghcb::exit_code;
use exeunt_abi::ghcb::page;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{ExitReason, X86Msr, msr_exit_reason};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, msr_index};
use exeunt_model::guest::{Cpu, GuestFault};
use exeunt_model::{MsrFilter, MsrFilterRange, Vcpu, Vm};
use exeunt_proto::exit::Entered;
use exeunt_proto::host::Vcpu as _;

/// A register that KVM does not have.
const UNKNOWN: u32 = 0x1234;
/// `SW_EXITINFO2` of a refused access.
const RAISE_GP: u64 = 0xffff_ffff_8000_030d;

fn read(index: u32) -> Ask {
    Ask::new(exit_code::MSR, [0, 0], &[(page::RCX, u64::from(index))])
}

fn write(index: u32, value: u64) -> Ask {
    let fields = [(page::RCX, u64::from(index)), (page::RAX, value & 0xffff_ffff), (page::RDX, value >> 32)];
    Ask::new(exit_code::MSR, [1, 0], &fields)
}

fn plain() -> Vm {
    launched(Dialect::Linux7_2, VmType::Default)
}

/// Expects an MSR exit and answers it.
fn answer(vcpu: &mut Vcpu, entered: Entered, expected: (ExitReason, u32, u32, u64), error: u8, data: u64) {
    assert_eq!(entered, Ok(()));
    let mut msr: X86Msr = vcpu.page().payload();
    assert_eq!((reason(vcpu), msr.reason, msr.index, msr.data), expected);
    assert_eq!((msr.error, msr.pad), (0, [0; 7]), "preset");
    (msr.error, msr.data) = (error, data);
    vcpu.page_mut().set_payload(&msr);
}

#[test]
fn what_a_guest_writes_by_page_it_reads_by_page() {
    let value = 0x1122_3344_5566_7788;
    let asks = vec![write(msr_index::STAR, value), read(msr_index::STAR), read(msr_index::IA32_CR_PAT)];
    let (mut vcpu, seen) = asking(&snp(), asks);
    served(&mut vcpu, |vcpu, _| panic!("{}", reason(vcpu)));
    let got: Vec<_> =
        seen.take().into_iter().map(|got| got.map(|got| (got.info_1, got.rdx, got.rax))).collect();
    let [_, star, pat] = got.try_into().unwrap();
    assert_eq!(star, Ok((0, 0x1122_3344, 0x5566_7788)));
    assert_eq!(pat, Ok((0, 0x0007_0406, 0x0007_0406)));
}

#[test]
fn a_refused_access_by_page_asks_the_guest_to_raise_gp_with_a_sign_that_grew() {
    let asks = vec![
        read(UNKNOWN),
        write(UNKNOWN, 0),
        write(msr_index::IA32_CR_PAT, 2),
        write(msr_index::MTRRCAP, 0),
    ];
    assert_eq!(infos(&snp(), asks), [[1, RAISE_GP]; 4]);
}

#[test]
fn userspace_is_asked_for_the_reasons_that_it_chose() {
    for mask in 0..8 {
        let vm = snp();
        vm.enable_cap(Cap::X86_USER_SPACE_MSR, mask).unwrap();
        let denied = MsrFilterRange { flags: 3, base: msr_index::STAR, nmsrs: 1, bitmap: vec![0] };
        vm.set_msr_filter(MsrFilter { flags: 0, ranges: vec![denied] }).unwrap();
        let asks = vec![write(msr_index::IA32_CR_PAT, 2), read(UNKNOWN), read(msr_index::STAR)];
        let (mut vcpu, _) = asking(&vm, asks);
        let mut reasons = 0;
        served(&mut vcpu, |vcpu, _| reasons |= vcpu.page().payload::<X86Msr>().reason);
        assert_eq!(u64::from(reasons), mask);
    }
    assert_eq!(snp().enable_cap(Cap::X86_USER_SPACE_MSR, 8), Err(Errno::EINVAL));
}

#[test]
fn the_answer_of_userspace_goes_to_edx_eax_and_an_error_asks_for_gp() {
    let vm = snp();
    vm.enable_cap(Cap::X86_USER_SPACE_MSR, 7).unwrap();
    let asks = vec![read(UNKNOWN), read(UNKNOWN), write(UNKNOWN, 0x5_0000_0006), write(UNKNOWN, 7)];
    let (mut vcpu, seen) = asking(&vm, asks);
    let mut step = 0;
    served(&mut vcpu, |vcpu, entered| {
        let unknown = msr_exit_reason::UNKNOWN;
        let (kind, value, error) = match step {
            0 => (ExitReason::X86_RDMSR, 0, 0),
            1 => (ExitReason::X86_RDMSR, 0, 1),
            2 => (ExitReason::X86_WRMSR, 0x5_0000_0006, 0),
            _ => (ExitReason::X86_WRMSR, 7, 0xff),
        };
        answer(vcpu, entered, (kind, unknown, UNKNOWN, value), error, 0xaaaa_bbbb_cccc_dddd);
        step += 1;
    });
    let got: Vec<_> = seen.take().into_iter().map(Result::unwrap).collect();
    let infos: Vec<_> = got.iter().map(|got| [got.info_1, got.info_2]).collect();
    assert_eq!(infos, [[0, 0], [1, RAISE_GP], [0, 0], [1, RAISE_GP]]);
    assert_eq!((got[0].rdx, got[0].rax), (0xaaaa_bbbb, 0xcccc_dddd));
    assert_eq!((got[1].rdx, got[1].rax), (0, 0), "a refused read leaves the registers");
}

#[test]
fn a_plain_guest_gets_the_exception_itself_and_the_answer_in_its_registers() {
    let vm = plain();
    vm.enable_cap(Cap::X86_USER_SPACE_MSR, u64::from(msr_exit_reason::UNKNOWN)).unwrap();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.rdmsr(UNKNOWN).await);
        log.push(cpu.rdmsr(UNKNOWN).await);
        log.push(cpu.wrmsr(msr_index::LSTAR, 1 << 47).await.map(|()| 0));
        log.push(cpu.wrmsr(msr_index::LSTAR, 0x7fff_0000_1000).await.map(|()| 0));
        log.push(cpu.rdmsr(msr_index::LSTAR).await);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    let asked = (ExitReason::X86_RDMSR, msr_exit_reason::UNKNOWN, UNKNOWN, 0);
    let entered = vcpu.enter();
    answer(&mut vcpu, entered, asked, 0, 0x1_2345_6789);
    let entered = vcpu.enter();
    answer(&mut vcpu, entered, asked, 1, 5);
    run_to_halt(&mut vcpu);
    let gp = Err(GuestFault::GeneralProtection);
    assert_eq!(seen.take(), [Ok(0x1_2345_6789), gp, gp, Ok(0), Ok(0x7fff_0000_1000)]);
}

#[test]
fn the_first_range_that_holds_a_register_decides_and_the_local_apic_is_not_filtered() {
    let range =
        |flags, base, nmsrs, bitmap: &[u8]| MsrFilterRange { flags, base, nmsrs, bitmap: bitmap.to_vec() };
    let vm = plain();
    let ranges = vec![range(1, 0x170, 16, &[0b1000_0000, 0]), range(3, 0x174, 3, &[0b010])];
    vm.set_msr_filter(MsrFilter { flags: 1, ranges }).unwrap();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        // The first range is for reads: bit 7 is 0x177, which KVM does not have. Writes meet the second.
        for index in [0x174, 0x175, 0x176] {
            log.push((cpu.rdmsr(index).await.is_ok(), cpu.wrmsr(index, 0).await.is_ok()));
        }
        // Denied by default; the register of the local APIC is refused for another reason.
        log.push((cpu.rdmsr(msr_index::STAR).await.is_ok(), cpu.rdmsr(0x802).await.is_ok()));
        Ok(())
    };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
    assert_eq!(seen.take(), [(false, false), (false, true), (false, false), (false, false)]);
}

#[test]
fn a_filter_is_refused_as_kvm_refuses_it() {
    let vm = plain();
    let range = |flags, nmsrs| MsrFilterRange { flags, base: 0, nmsrs, bitmap: Vec::new() };
    let set = |flags, ranges: Vec<MsrFilterRange>| vm.set_msr_filter(MsrFilter { flags, ranges });
    for (flags, ranges) in [
        (2, vec![]),
        (1, vec![]),
        (1, vec![range(3, 0)]),
        (0, vec![range(0, 1)]),
        (0, vec![range(4, 1)]),
        (0, vec![range(1, 12289)]),
    ] {
        assert_eq!(set(flags, ranges.clone()), Err(Errno::EINVAL), "{flags} {ranges:?}");
    }
    assert_eq!(set(0, vec![]), Ok(()));
    assert_eq!(set(1, vec![range(2, 12288)]), Ok(()));
    assert_eq!(set(0, vec![range(0, 0)]), Ok(()), "a range that is not used is not looked at");
}

#[test]
fn the_ioctls_reach_what_the_filter_denies_and_not_what_kvm_lacks() {
    let vm = plain();
    let all = MsrFilterRange { flags: 3, base: 0, nmsrs: 64, bitmap: Vec::new() };
    vm.set_msr_filter(MsrFilter { flags: 1, ranges: vec![all] }).unwrap();
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    assert_eq!(vcpu.set_msr(msr_index::STAR, 5), Ok(()));
    assert_eq!(vcpu.msr(msr_index::STAR), Ok(5));
    assert_eq!(vcpu.msr(UNKNOWN), Err(Errno::EINVAL));
    assert_eq!(vcpu.set_msr(msr_index::IA32_CR_PAT, 2), Err(Errno::EINVAL));
    assert_eq!(vcpu.msr(msr_index::IA32_APICBASE), Ok(0xfee0_0900), "the first processor");
}
