//! Private and shared memory of a TD, and its measurement.

use super::{
    MEMORY_BYTES, SHARED, address_bits, finalised, init_vm, initialised, new_td, payload, run_to_halt,
};
use crate::world::Seen;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::{ExitReason, MEMORY_EXIT_FLAG_PRIVATE, MemoryFault};
use exeunt_abi::kvm::tdx::{InitMemRegion, InitVm};
use exeunt_abi::tdx::report::{TD_REPORT_TYPE, TdReport};
use exeunt_abi::tdx::{CompletionStatus, operand};
use exeunt_abi::{Errno, Gpa};
use exeunt_model::guest::tdx::{AcceptSize, TdRegs, accept_range};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{SparseMemory, TdxPlatform, UserMemory, Vcpu, Vm};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::host::{Action, Backing, Host as _, Vcpu as _};
use sha2::{Digest, Sha384};
use zerocopy::FromBytes;

const PAGE: Gpa = Gpa(0x20_0000);
/// Where the process has the contents of the first pages.
const SOURCE: u64 = 0x7f00_0010_0000;

/// A TD with `pages` pages from address 0 on, filled with their numbers from 1 on and measured, and a vCPU.
fn launched<P, F>(vm: &Vm, pages: u8, measure: bool, program: P) -> Vcpu
where
    P: FnOnce(Cpu) -> F,
    F: Future<Output = Result<(), GuestFault>> + Send + 'static,
{
    let memory = SparseMemory::new();
    for page in 0..pages {
        memory.write(SOURCE + u64::from(page) * 0x1000, &[page + 1; 0x1000]).unwrap();
    }
    let mut vcpu = super::vcpu_with(vm, 0, program);
    let mut region = InitMemRegion { source_addr: SOURCE, gpa: 0, nr_pages: pages.into() };
    if pages > 0 {
        vcpu.tdx_init_mem_region(&mut region, measure, &memory).unwrap();
    }
    vm.tdx_finalize_vm().unwrap();
    vcpu
}

#[test]
fn initial_memory_is_there_without_being_accepted_and_what_is_shared_is_apart() {
    let vm = initialised();
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = launched(&vm, 2, true, |cpu| async move {
        log.push(cpu.read(Gpa(0x1000), 4, Access::Private).await?);
        Ok(())
    });
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [vec![2; 4]]);
    let mut shared = [9; 4];
    vm.read_shared(Gpa(0x1000), &mut shared).unwrap();
    assert_eq!(shared, [0; 4], "the host does not see it");
}

#[test]
fn a_page_is_zero_when_it_was_accepted_and_can_be_accepted_once() {
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = finalised(&initialised(), |cpu| async move {
        log.push(cpu.tdg_mem_page_accept(PAGE, AcceptSize::Size4K).await?);
        cpu.write(PAGE, b"secret", Access::Private).await?;
        log.push(cpu.tdg_mem_page_accept(PAGE, AcceptSize::Size4K).await?);
        assert_eq!(cpu.read(PAGE, 6, Access::Private).await?, b"secret");
        Ok(())
    });
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [CompletionStatus::SUCCESS, CompletionStatus::PAGE_ALREADY_ACCEPTED]);
}

#[test]
fn two_mib_are_never_mapped_as_one_so_the_guest_accepts_them_page_by_page() {
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = finalised(&initialised(), |cpu| async move {
        log.push(cpu.tdg_mem_page_accept(PAGE, AcceptSize::Size2M).await?);
        log.push(accept_range(&cpu, PAGE, 2 << 20).await?);
        cpu.write(Gpa(PAGE.0 + 0x1f_f000), &[1; 0x1000], Access::Private).await?;
        log.push(cpu.tdg_mem_page_accept(PAGE, AcceptSize::Size2M).await?);
        Ok(())
    });
    run_to_halt(&mut vcpu);
    let mismatch = CompletionStatus::PAGE_SIZE_MISMATCH.with(1);
    assert_eq!(seen.take(), [mismatch, CompletionStatus::SUCCESS, mismatch]);
}

#[test]
fn what_cannot_be_accepted_is_refused_by_the_module() {
    let seen = Seen::new();
    let log = seen.clone();
    // Levels that are not there, unaligned, reserved bits, shared, too wide.
    let bad = [2, 3, 4, 7, 0x8, 0x800, 0x1000 | 1, SHARED, SHARED | 1, 1 << 48, 1 << 52, u64::MAX];
    let mut vcpu = finalised(&initialised(), |cpu| async move {
        for rcx in bad {
            log.push(cpu.tdcall(TdRegs { rax: 6, rcx, ..TdRegs::default() }).await?.completion());
        }
        Ok(())
    });
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [CompletionStatus::OPERAND_INVALID.with(operand::RCX); 12]);
}

fn expect_fault(vcpu: &mut Vcpu, gpa: u64, flags: u64) {
    assert_eq!(vcpu.enter(), Err(Errno::EFAULT));
    let fault: MemoryFault = payload(vcpu, ExitReason::MEMORY_FAULT);
    assert_eq!((fault.flags, fault.gpa, fault.size), (flags, gpa, 0x1000));
}

#[test]
fn accepting_a_page_that_the_host_keeps_shared_is_a_memory_fault_until_it_is_private() {
    for size in [AcceptSize::Size4K, AcceptSize::Size2M] {
        let vm = initialised();
        vm.set_memory_attributes(PAGE, 2 << 20, 0).unwrap();
        let seen = Seen::new();
        let log = seen.clone();
        let mut vcpu = finalised(&vm, |cpu| async move {
            log.push(cpu.tdg_mem_page_accept(PAGE, size).await?);
            Ok(())
        });
        for _ in 0..2 {
            expect_fault(&mut vcpu, PAGE.0, MEMORY_EXIT_FLAG_PRIVATE);
        }
        vm.set_memory_attributes(PAGE, 0x1000, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
        run_to_halt(&mut vcpu);
        let expected = match size {
            AcceptSize::Size4K => CompletionStatus::SUCCESS,
            AcceptSize::Size2M => CompletionStatus::PAGE_SIZE_MISMATCH.with(1),
        };
        assert_eq!(seen.take(), [expected]);
    }
}

#[test]
fn an_access_of_the_other_kind_is_a_memory_fault_without_the_shared_bit() {
    let vm = initialised();
    vm.set_memory_attributes(PAGE, 0x1000, 0).unwrap();
    let mut vcpu = finalised(&vm, |cpu| async move { cpu.write(PAGE, b"x", Access::Private).await });
    expect_fault(&mut vcpu, PAGE.0, MEMORY_EXIT_FLAG_PRIVATE);
    let vm = initialised();
    let mut vcpu = finalised(&vm, |cpu| async move {
        // By the bit of the address, whatever the page tables say.
        cpu.write(Gpa(PAGE.0 | SHARED), b"x", Access::Private).await
    });
    expect_fault(&mut vcpu, PAGE.0, 0);
    vm.set_memory_attributes(PAGE, 0x1000, 0).unwrap();
    run_to_halt(&mut vcpu);
    let mut shared = [0];
    vm.read_shared(PAGE, &mut shared).unwrap();
    assert_eq!(&shared, b"x");
}

#[test]
fn private_memory_touched_before_it_is_accepted_kills_the_vm_for_ever() {
    let vm = initialised();
    let mut other = super::vcpu_with(&vm, 0, super::halts);
    let mut vcpu = finalised(&vm, |cpu| async move { cpu.write(PAGE, b"x", Access::Private).await });
    for vcpu in [&mut vcpu, &mut other] {
        for _ in 0..3 {
            assert_eq!(vcpu.enter(), Err(Errno::EIO));
            assert_eq!(vcpu.enter_immediately(), Err(Errno::EIO));
            assert_eq!(vcpu.page().exit_reason, 0);
        }
    }
}

#[test]
fn a_td_that_wants_to_know_gets_a_ve_for_a_page_that_it_did_not_accept() {
    let vm = new_td();
    vm.tdx_init_vm(&InitVm { attributes: 0, ..init_vm() }, &[address_bits(48)]).unwrap();
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = finalised(&vm, |cpu| async move {
        log.push(cpu.write(PAGE, b"x", Access::Private).await);
        cpu.tdg_mem_page_accept(PAGE, AcceptSize::Size4K).await?;
        log.push(cpu.write(PAGE, b"x", Access::Private).await);
        Ok(())
    });
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [Err(GuestFault::VirtualizationException { gpa: PAGE.0 }), Ok(())]);
}

#[test]
fn a_shared_address_without_memory_is_a_ve() {
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = finalised(&initialised(), |cpu| async move {
        log.push(cpu.read(Gpa(0xfee0_0000), 4, Access::Shared).await);
        Ok(())
    });
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [Err(GuestFault::VirtualizationException { gpa: 0xfee0_0000 })]);
}

#[test]
fn a_private_address_without_memory_is_a_memory_fault() {
    let vm = initialised();
    vm.set_memory_attributes(Gpa(MEMORY_BYTES), 0x1000, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    let mut vcpu =
        finalised(
            &vm,
            |cpu| async move { cpu.read(Gpa(MEMORY_BYTES), 4, Access::Private).await.map(|_| ()) },
        );
    expect_fault(&mut vcpu, MEMORY_BYTES, MEMORY_EXIT_FLAG_PRIVATE);
}

#[test]
fn a_page_that_went_shared_and_back_is_pending_and_its_contents_are_lost() {
    let vm = initialised();
    let handle = vm.clone();
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = finalised(&vm, |cpu| async move {
        for page in [PAGE, Gpa(PAGE.0 + 0x1000)] {
            cpu.tdg_mem_page_accept(page, AcceptSize::Size4K).await?;
            cpu.write(page, b"secret", Access::Private).await?;
        }
        handle.set_memory_attributes(PAGE, 0x1000, 0).unwrap();
        handle.set_memory_attributes(PAGE, 0x2000, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
        log.push(cpu.tdg_mem_page_accept(PAGE, AcceptSize::Size4K).await?);
        assert_eq!(cpu.read(PAGE, 6, Access::Private).await?, [0; 6]);
        // Its neighbour was private all the time.
        assert_eq!(cpu.read(Gpa(PAGE.0 + 0x1000), 6, Access::Private).await?, b"secret");
        Ok(())
    });
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [CompletionStatus::SUCCESS]);
}

#[test]
fn a_page_whose_memory_or_slot_went_away_is_pending_again() {
    for deletes_slot in [false, true] {
        let vm = initialised();
        let handle = vm.clone();
        let seen = Seen::new();
        let log = seen.clone();
        let mut vcpu = finalised(&vm, |cpu| async move {
            cpu.tdg_mem_page_accept(PAGE, AcceptSize::Size4K).await?;
            cpu.write(PAGE, b"secret", Access::Private).await?;
            let slot = handle.slots()[0];
            if deletes_slot {
                handle.delete_slot(0).unwrap();
                handle.add_slot(slot).unwrap();
            } else {
                let range = PageRange::new(PAGE.gfn(), 1).unwrap();
                let discard = Action::Discard { range, backing: Backing::Private };
                handle.effects().apply(&discard).unwrap();
            }
            log.push(cpu.tdg_mem_page_accept(PAGE, AcceptSize::Size4K).await?);
            assert_eq!(cpu.read(PAGE, 6, Access::Private).await?, [0; 6]);
            Ok(())
        });
        run_to_halt(&mut vcpu);
        assert_eq!(seen.take(), [CompletionStatus::SUCCESS], "slot deleted: {deletes_slot}");
    }
}

#[test]
fn memory_is_faulted_in_beforehand_after_finalize_only_and_stays_pending() {
    use exeunt_abi::kvm::memory::PreFaultMemory;
    let vm = initialised();
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = super::vcpu_with(&vm, 0, |cpu| async move {
        log.push(cpu.tdg_mem_page_accept(PAGE, AcceptSize::Size4K).await?);
        Ok(())
    });
    let mut range = PreFaultMemory { gpa: PAGE.0, size: 0x1000, flags: 0, padding: [0; 5] };
    assert_eq!(vcpu.pre_fault_memory(&mut range), Err(Errno::EOPNOTSUPP));
    vm.tdx_finalize_vm().unwrap();
    assert_eq!(vcpu.pre_fault_memory(&mut range), Ok(()));
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [CompletionStatus::SUCCESS]);
}

/// MRTD by hand: one record for each page, and one before each 256 bytes of its contents.
fn mrtd(pages: &[u8], measure: bool) -> [u8; 48] {
    let mut hash = Sha384::new();
    for (index, fill) in (0u64..).zip(pages) {
        let mut record = |name: &[u8], gpa: u64| {
            let mut record = [0; 128];
            record[..name.len()].copy_from_slice(name);
            record[16..24].copy_from_slice(&gpa.to_le_bytes());
            hash.update(record);
            if name == b"MR.EXTEND" {
                hash.update([*fill; 256]);
            }
        };
        record(b"MEM.PAGE.ADD", index * 0x1000);
        for chunk in 0..if measure { 16 } else { 0 } {
            record(b"MR.EXTEND", index * 0x1000 + chunk * 256);
        }
    }
    hash.finalize().into()
}

const REPORT: Gpa = Gpa(0x30_0000);
const REPORT_DATA: Gpa = Gpa(0x30_0400);

/// The report of a TD with this many pages, whose guest extends RTMR 2 with 48 bytes of 0x22.
fn report_of(vm: &Vm, pages: u8, measure: bool) -> TdReport {
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = launched(vm, pages, measure, |cpu| async move {
        accept_range(&cpu, REPORT, 0x1000).await?;
        cpu.write(REPORT_DATA, &[0x22; 64], Access::Private).await?;
        assert_eq!(cpu.tdg_mr_rtmr_extend(REPORT_DATA, 2).await?, CompletionStatus::SUCCESS);
        assert_eq!(cpu.tdg_mr_report(REPORT.0, REPORT_DATA.0).await?, CompletionStatus::SUCCESS);
        log.push(cpu.read(REPORT, 1024, Access::Private).await?);
        Ok(())
    });
    run_to_halt(&mut vcpu);
    TdReport::read_from_bytes(&seen.take()[0]).unwrap()
}

#[test]
fn a_report_carries_the_measurement_of_the_launch_and_what_the_vmm_and_the_guest_said() {
    for (pages, measure) in [(0, true), (1, false), (3, true)] {
        let vm = new_td();
        let init = InitVm { mrconfigid: [1; 6], mrowner: [2; 6], mrownerconfig: [3; 6], ..init_vm() };
        vm.tdx_init_vm(&init, &[address_bits(48)]).unwrap();
        let report = report_of(&vm, pages, measure);
        let fills: Vec<u8> = (1..=pages).collect();
        assert_eq!(report.td_info.mrtd, mrtd(&fills, measure), "{pages} {measure}");
        assert_eq!(report.mac.report_type, TD_REPORT_TYPE);
        assert_eq!(report.mac.report_data, [0x22; 64]);
        assert_eq!(u64::from_le_bytes(report.td_info.attributes), 1 << 28);
        assert_eq!(u64::from_le_bytes(report.td_info.xfam), 0xe7);
        assert_eq!(report.td_info.mrowner[..8], 2u64.to_le_bytes());
        let extended: [u8; 48] =
            Sha384::new().chain_update([0; 48]).chain_update([0x22; 48]).finalize().into();
        assert_eq!(report.td_info.rtmr, [[0; 48], [0; 48], extended, [0; 48]]);
    }
}

#[test]
fn a_report_is_verified_by_the_platform_that_made_it() {
    let vm = initialised();
    let platform = TdxPlatform::simulated(42);
    vm.set_tdx_platform(platform.clone());
    let report = report_of(&vm, 1, true);
    assert!(platform.verify(&report));
    assert!(!TdxPlatform::simulated(43).verify(&report));
}

#[test]
fn operands_of_reports_and_registers_are_checked_in_their_order() {
    let seen = Seen::new();
    let log = seen.clone();
    let calls = [
        // TDG.MR.REPORT: alignment of both, then the bytes, then the subtype.
        (4, 0x200, 0x20, 9, operand::RCX),
        (4, 1 << 52, 0, 9, operand::RCX),
        (4, REPORT.0, 0x20, 9, operand::RDX),
        (4, REPORT.0, REPORT_DATA.0, 1, operand::R8),
        // TDG.MR.RTMR.EXTEND: the address, then the register.
        (2, 0x20, 9, 0, operand::RCX),
        (2, SHARED, 0, 0, operand::RCX),
        (2, REPORT_DATA.0, 4, 0, operand::RDX),
        (2, REPORT_DATA.0, u64::MAX, 0, operand::RDX),
    ];
    let mut vcpu = finalised(&initialised(), |cpu| async move {
        accept_range(&cpu, REPORT, 0x1000).await?;
        for (rax, rcx, rdx, r8, _) in calls {
            let regs = TdRegs { rax, rcx, rdx, r8, ..TdRegs::default() };
            log.push(cpu.tdcall(regs).await?.completion());
        }
        Ok(())
    });
    run_to_halt(&mut vcpu);
    let expected = calls.map(|(.., operand)| CompletionStatus::OPERAND_INVALID.with(operand));
    assert_eq!(seen.take(), expected);
}

#[test]
fn a_report_may_go_to_shared_memory_once_the_host_has_made_it_shared() {
    let vm = initialised();
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = finalised(&vm, |cpu| async move {
        accept_range(&cpu, REPORT, 0x1000).await?;
        log.push(cpu.tdg_mr_report(PAGE.0 | SHARED, REPORT_DATA.0).await?);
        Ok(())
    });
    expect_fault(&mut vcpu, PAGE.0, 0);
    vm.set_memory_attributes(PAGE, 0x1000, 0).unwrap();
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [CompletionStatus::SUCCESS]);
    let mut report = [0; 1024];
    vm.read_shared(PAGE, &mut report).unwrap();
    assert!(TdxPlatform::default().verify(&TdReport::read_from_bytes(&report).unwrap()));
}
