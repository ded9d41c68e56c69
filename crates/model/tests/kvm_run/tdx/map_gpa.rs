//! `MapGPA`.

use super::{SHARED, finalised, initialised, initialised_with, payload, r10_r11, run_to_halt};
use crate::world::{Seen, answer, hypercall};
use exeunt_abi::Errno;
use exeunt_abi::ghci::{Status, leaf};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::{VALID_NMI_PENDING, VcpuEvents};
use exeunt_abi::kvm::run::{ExitReason, HYPERCALL_LONG_MODE, Hypercall, MAP_GPA_RANGE};
use exeunt_model::guest::tdx::{TdRegs, map_gpa};
use exeunt_model::{Vcpu, Vm};
use exeunt_proto::host::{Events as _, Vcpu as _};
use zerocopy::FromZeros;

/// A guest that asks for these conversions, each with the registers that it gets back.
fn asking(vm: &Vm, ranges: Vec<(u64, u64)>) -> (Vcpu, Seen<TdRegs>) {
    let seen = Seen::new();
    let log = seen.clone();
    let vcpu = finalised(vm, |cpu| async move {
        for (gpa, bytes) in ranges {
            log.push(cpu.tdvmcall(leaf::MAP_GPA, [gpa, bytes, 0, 0]).await?);
        }
        Ok(())
    });
    (vcpu, seen)
}

fn expect_chunk(vcpu: &Vcpu, gpa: u64, pages: u64, attributes: u64) {
    let Hypercall { nr, args, ret, flags } = hypercall(vcpu);
    assert_eq!(
        (nr, &args[..3], ret, flags),
        (MAP_GPA_RANGE, &[gpa, pages, attributes][..], 0, HYPERCALL_LONG_MODE)
    );
}

#[test]
fn five_mib_from_an_odd_start_are_chunks_of_two_two_and_one_mib() {
    let (mut vcpu, seen) = asking(&initialised(), vec![(0x1000 | SHARED, 5 << 20)]);
    for (gpa, pages) in [(0x1000, 512), (0x20_1000, 512), (0x40_1000, 256)] {
        assert_eq!(vcpu.enter(), Ok(()));
        expect_chunk(&vcpu, gpa, pages, 0);
        assert!(seen.take().is_empty(), "the guest waits");
    }
    run_to_halt(&mut vcpu);
    let regs = seen.take();
    assert_eq!(r10_r11(&regs[0]), (Status::SUCCESS, leaf::MAP_GPA), "r11 is what the guest put there");
}

#[test]
fn a_chunk_that_is_put_off_is_named_in_r11_with_its_shared_bit() {
    let start = 0x1000 | SHARED;
    for (ret, status) in [(11, Status::RETRY), (22, Status::INVALID_OPERAND)] {
        let (mut vcpu, seen) = asking(&initialised(), vec![(start, 5 << 20)]);
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(vcpu.enter(), Ok(()));
        expect_chunk(&vcpu, 0x20_1000, 512, 0);
        answer(&mut vcpu, ret);
        run_to_halt(&mut vcpu);
        assert_eq!(r10_r11(&seen.take()[0]), (status, start + 0x20_0000), "{ret}");
    }
}

#[test]
fn a_private_range_has_the_bit_of_a_private_one() {
    let (mut vcpu, _) = asking(&initialised(), vec![(0x20_0000, 0x3000)]);
    assert_eq!(vcpu.enter(), Ok(()));
    expect_chunk(&vcpu, 0x20_0000, 3, 0x10);
}

#[test]
fn any_other_answer_fails_once_and_reads_as_success_after_that() {
    for ret in [1, 7, 12, 28, u64::MAX, 22u64.wrapping_neg(), 1 << 32 | 0x16] {
        let (mut vcpu, seen) = asking(&initialised(), vec![(0x1000 | SHARED, 5 << 20)]);
        assert_eq!(vcpu.enter(), Ok(()));
        answer(&mut vcpu, ret);
        assert_eq!(vcpu.enter(), Err(Errno::EINVAL), "{ret:#x}");
        // Only one of three chunks was asked for.
        run_to_halt(&mut vcpu);
        assert_eq!(seen.take()[0].status(), Status::SUCCESS, "{ret:#x}");
    }
}

#[test]
fn an_answer_is_taken_under_immediate_exit_and_the_next_chunk_follows() {
    let (mut vcpu, _) = asking(&initialised(), vec![(SHARED, 5 << 20)]);
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(vcpu.enter_immediately(), Ok(()));
    expect_chunk(&vcpu, 0x20_0000, 512, 0);
    assert_eq!(vcpu.enter_immediately(), Ok(()));
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
}

#[test]
fn an_nmi_between_two_chunks_sends_the_guest_back_for_the_rest() {
    let vm = initialised();
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = finalised(&vm, |cpu| async move {
        log.push(map_gpa(&cpu, SHARED, 6 << 20).await?);
        Ok(())
    });
    assert_eq!(vcpu.enter(), Ok(()));
    let mut events = VcpuEvents::new_zeroed();
    (events.flags, events.nmi_pending) = (VALID_NMI_PENDING, 1);
    vcpu.set_events(&events).unwrap();
    assert_eq!(vcpu.enter(), Ok(()), "RETRY, and the guest asks again from there");
    expect_chunk(&vcpu, 0x20_0000, 512, 0);
    assert_eq!(vcpu.enter(), Ok(()));
    expect_chunk(&vcpu, 0x40_0000, 512, 0);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [Status::SUCCESS]);
}

#[test]
fn an_interrupt_between_two_chunks_does_the_same() {
    let vm = initialised();
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = finalised(&vm, |cpu| async move {
        // The guest enables its local APIC.
        cpu.tdvmcall(leaf::WRMSR, [0x80f, 0x1ff, 0, 0]).await?;
        log.push(cpu.tdvmcall(leaf::MAP_GPA, [SHARED, 6 << 20, 0, 0]).await?);
        Ok(())
    });
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(vm.signal_msi(0xfee0_0000, 0x40), Ok(1));
    run_to_halt(&mut vcpu);
    assert_eq!(r10_r11(&seen.take()[0]), (Status::RETRY, SHARED + 0x20_0000));
}

#[test]
fn the_linux_guest_gives_up_after_three_retries_at_one_address() {
    let vm = initialised();
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = finalised(&vm, |cpu| async move {
        log.push(map_gpa(&cpu, SHARED, 0x1000).await?);
        Ok(())
    });
    let mut exits = 0;
    while vcpu.enter() == Ok(()) {
        exits += 1;
        answer(&mut vcpu, 11);
    }
    assert_eq!((exits, seen.take()), (3, vec![Status::RETRY]));
}

#[test]
fn what_cannot_be_converted_is_refused_in_the_order_of_the_kernel() {
    use Status as S;
    let top = 1 << 48;
    let cases = [
        // Wraps, or is empty.
        (0x1000, 0, S::INVALID_OPERAND),
        (0x1001, 0, S::INVALID_OPERAND),
        (u64::MAX - 0xfff, 0x1000, S::INVALID_OPERAND),
        (0x1000, u64::MAX, S::INVALID_OPERAND),
        // Not an address of 52 bits.
        (1 << 52, 0x1000, S::INVALID_OPERAND),
        ((1 << 52) - 0x1000, 0x2000, S::INVALID_OPERAND),
        // Half of it shared.
        (SHARED - 0x1000, 0x2000, S::INVALID_OPERAND),
        (SHARED - 0x1001, 0x2000, S::INVALID_OPERAND),
        // Unaligned.
        (0x1001, 0x1000, S::ALIGN_ERROR),
        (0x1000, 0xfff, S::ALIGN_ERROR),
        (0x1000 | SHARED, 0x1001, S::ALIGN_ERROR),
        (top | 1, 0x1000, S::ALIGN_ERROR),
    ];
    let ranges = cases.iter().map(|(gpa, bytes, _)| (*gpa, *bytes)).collect();
    let (mut vcpu, seen) = asking(&initialised(), ranges);
    run_to_halt(&mut vcpu);
    for ((gpa, bytes, status), regs) in cases.iter().zip(seen.take()) {
        assert_eq!(r10_r11(&regs), (*status, *gpa), "{gpa:#x} {bytes:#x}");
    }
}

#[test]
fn without_the_capability_nothing_else_is_looked_at() {
    let vm = initialised();
    vm.enable_cap(Cap::EXIT_HYPERCALL, 0).unwrap();
    let (mut vcpu, seen) = asking(&vm, vec![(0x1000, 0x1000), (0x1001, 0)]);
    run_to_halt(&mut vcpu);
    let got: Vec<_> = seen.take().iter().map(r10_r11).collect();
    assert_eq!(got, [(Status::SUBFUNC_UNSUPPORTED, 0x1000), (Status::SUBFUNC_UNSUPPORTED, 0x1001)]);
}

#[test]
fn the_capability_counts_when_a_conversion_begins_only() {
    let vm = initialised();
    let (mut vcpu, _) = asking(&vm, vec![(SHARED, 4 << 20)]);
    assert_eq!(vcpu.enter(), Ok(()));
    vm.enable_cap(Cap::EXIT_HYPERCALL, 0).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    expect_chunk(&vcpu, 0x20_0000, 512, 0);
}

#[test]
fn the_shared_bit_is_47_or_51_as_the_vmm_chose_the_width_of_addresses() {
    for (bits, shared) in [(48, 1 << 47), (52, 1 << 51)] {
        let (mut vcpu, _) = asking(&initialised_with(bits), vec![(0x1000 | shared, 0x1000)]);
        assert_eq!(vcpu.enter(), Ok(()), "{bits}");
        expect_chunk(&vcpu, 0x1000, 1, 0);
    }
    // In a TD with 52 bits, bit 47 is one of the address.
    let (mut vcpu, _) = asking(&initialised_with(52), vec![(0x1000 | SHARED, 0x1000)]);
    assert_eq!(vcpu.enter(), Ok(()));
    expect_chunk(&vcpu, 0x1000 | SHARED, 1, 0x10);
}

#[test]
fn an_address_beyond_the_cpuid_of_the_vcpu_is_refused() {
    let vm = initialised();
    let (mut vcpu, seen) = asking(&vm, vec![(0x1000 | SHARED, 0x1000), (0x1000, 0x1000)]);
    vcpu.set_cpuid2(&super::cpuid(46)).unwrap();
    assert_eq!(vcpu.enter(), Ok(()), "the private range alone");
    assert_eq!(seen.take()[0].status(), Status::INVALID_OPERAND);
    let exit: Hypercall = payload(&vcpu, ExitReason::HYPERCALL);
    assert_eq!(exit.args[0], 0x1000);
}
