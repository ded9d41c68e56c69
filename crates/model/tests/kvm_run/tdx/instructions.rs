//! Leaves that stand for instructions.

use super::{SHARED, finalised, initialised, payload, run_to_halt};
use crate::world::Seen;
use exeunt_abi::ghci::{Status, leaf};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{ExitReason, Io, Mmio, X86Msr, msr_exit_reason};
use exeunt_model::Vcpu;
use exeunt_model::guest::tdx::TdRegs;
use exeunt_proto::host::Vcpu as _;

fn calling(leaf: u64, args: [u64; 4]) -> (Vcpu, Seen<TdRegs>) {
    let seen = Seen::new();
    let log = seen.clone();
    let vm = initialised();
    let vcpu = finalised(&vm, |cpu| async move {
        log.push(cpu.tdvmcall(leaf, args).await?);
        Ok(())
    });
    (vcpu, seen)
}

fn refused(leaf: u64, args: [u64; 4]) {
    let (mut vcpu, seen) = calling(leaf, args);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take()[0].status(), Status::INVALID_OPERAND, "{leaf} {args:x?}");
}

#[test]
fn port_output_shows_the_value_and_ends_without_a_result() {
    for (size, value) in [(1, 0xdd), (2, 0xccdd), (4, 0xaabb_ccddu64)] {
        let (mut vcpu, seen) = calling(leaf::IO, [size, 1, 0x3f8, 0xffff_ffff_aabb_ccdd]);
        assert_eq!(vcpu.enter(), Ok(()));
        let io: Io = payload(&vcpu, ExitReason::IO);
        assert_eq!((io.direction, u64::from(io.size), io.port, io.count), (1, size, 0x3f8, 1));
        let data = vcpu.port_data().first_chunk().copied().map(u64::from_le_bytes).unwrap();
        assert_eq!(data & (u64::MAX >> (64 - size * 8)), value);
        run_to_halt(&mut vcpu);
        let regs = seen.take()[0];
        assert_eq!((regs.status(), regs.r11), (Status::SUCCESS, leaf::IO));
    }
}

#[test]
fn port_input_goes_to_r11_at_its_size() {
    for (size, value) in [(1, 0x88), (2, 0x7788), (4, 0x5566_7788u64)] {
        let (mut vcpu, seen) = calling(leaf::IO, [size, 0, 0x1_03f8, 0]);
        assert_eq!(vcpu.enter(), Ok(()));
        let io: Io = payload(&vcpu, ExitReason::IO);
        assert_eq!((io.direction, u64::from(io.size), io.port), (0, size, 0x3f8), "a port has 16 bits");
        vcpu.port_data()[..8].copy_from_slice(&0x1122_3344_5566_7788u64.to_le_bytes());
        run_to_halt(&mut vcpu);
        let regs = seen.take()[0];
        assert_eq!((regs.status(), regs.r11), (Status::SUCCESS, value));
    }
}

#[test]
fn port_io_of_another_size_or_direction_makes_no_exit() {
    for size in (0..16).filter(|size| ![1, 2, 4].contains(size)).chain([1 << 32 | 1, u64::MAX]) {
        refused(leaf::IO, [size, 0, 0x3f8, 0]);
    }
    for direction in [2, 3, 1 << 32, u64::MAX] {
        refused(leaf::IO, [1, direction, 0x3f8, 0]);
    }
}

#[test]
fn a_write_to_mmio_shows_its_bytes_and_leaves_the_others_of_the_page() {
    for size in [1usize, 2, 4, 8] {
        let (mut vcpu, seen) =
            calling(leaf::MMIO, [size as u64, 1, 0xfee0_0000 | SHARED, 0x1122_3344_5566_7788]);
        vcpu.page_mut().exit = [0xaa; 256];
        assert_eq!(vcpu.enter(), Ok(()));
        let mmio: Mmio = payload(&vcpu, ExitReason::MMIO);
        assert_eq!((mmio.phys_addr, mmio.len as usize, mmio.is_write), (0xfee0_0000, size, 1));
        let mut expected = [0xaa; 8];
        expected[..size].copy_from_slice(&0x1122_3344_5566_7788u64.to_le_bytes()[..size]);
        assert_eq!(mmio.data, expected);
        run_to_halt(&mut vcpu);
        let regs = seen.take()[0];
        assert_eq!((regs.status(), regs.r11), (Status::SUCCESS, leaf::MMIO));
    }
}

#[test]
fn a_read_of_mmio_goes_to_r11_at_its_size() {
    for (size, value) in [(1, 0x88), (2, 0x7788), (4, 0x5566_7788), (8, 0x1122_3344_5566_7788u64)] {
        let (mut vcpu, seen) = calling(leaf::MMIO, [size, 0, 0xfec0_0010 | SHARED, 0]);
        vcpu.page_mut().exit = [0xaa; 256];
        assert_eq!(vcpu.enter(), Ok(()));
        let mut mmio: Mmio = payload(&vcpu, ExitReason::MMIO);
        assert_eq!((mmio.phys_addr, u64::from(mmio.len), mmio.is_write), (0xfec0_0010, size, 0));
        assert_eq!(mmio.data, [0xaa; 8], "a read writes no data");
        mmio.data = 0x1122_3344_5566_7788u64.to_le_bytes();
        vcpu.page_mut().set_payload(&mmio);
        run_to_halt(&mut vcpu);
        let regs = seen.take()[0];
        assert_eq!((regs.status(), regs.r11), (Status::SUCCESS, value));
    }
}

#[test]
fn mmio_of_another_size_or_direction_or_at_a_private_address_makes_no_exit() {
    for size in (0..32).filter(|size| ![1, 2, 4, 8].contains(size)) {
        refused(leaf::MMIO, [size, 0, SHARED, 0]);
    }
    for direction in [2, u64::from(u32::MAX)] {
        refused(leaf::MMIO, [4, direction, SHARED, 0]);
    }
    for gpa in [0, 0xfee0_0000, SHARED - 4, (SHARED << 1) - 4 + 1] {
        refused(leaf::MMIO, [4, 0, gpa, 0]);
    }
}

#[test]
fn mmio_keeps_size_and_direction_in_32_bits() {
    let (mut vcpu, _) = calling(leaf::MMIO, [1 << 32 | 4, 1 << 32 | 1, SHARED, 9]);
    assert_eq!(vcpu.enter(), Ok(()));
    let mmio: Mmio = payload(&vcpu, ExitReason::MMIO);
    assert_eq!((mmio.len, mmio.is_write), (4, 1));
}

#[test]
fn cpuid_is_what_the_vmm_set_and_comes_in_r12_to_r15() {
    let (mut vcpu, seen) = calling(leaf::CPUID, [7, 0, 0, 0]);
    run_to_halt(&mut vcpu);
    let regs = seen.take()[0];
    assert_eq!([regs.r10, regs.r12, regs.r13, regs.r14, regs.r15], [0, 1, 2, 3, 4]);
}

#[test]
fn hlt_blocks_in_the_kernel_until_something_comes() {
    use exeunt_abi::kvm::events::{VALID_NMI_PENDING, VcpuEvents};
    use exeunt_proto::host::Events as _;
    use zerocopy::FromZeros;
    let (mut vcpu, seen) = calling(leaf::HLT, [0; 4]);
    for _ in 0..3 {
        run_to_halt(&mut vcpu);
        assert!(seen.take().is_empty(), "the guest has not gone on");
    }
    let mut events = VcpuEvents::new_zeroed();
    (events.flags, events.nmi_pending) = (VALID_NMI_PENDING, 1);
    vcpu.set_events(&events).unwrap();
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take()[0].status(), Status::SUCCESS);
}

const CR_PAT: u64 = 0x277;
const MISC_ENABLE: u64 = 0x1a0;

#[test]
fn a_register_that_kvm_emulates_is_written_and_read_back_in_r11() {
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = finalised(&initialised(), |cpu| async move {
        for (leaf, args) in [
            (leaf::WRMSR, [CR_PAT, 0x0606_0606_0606_0606, 0, 0]),
            (leaf::RDMSR, [1 << 32 | CR_PAT, 0, 0, 0]),
            // IA32_FEAT_CTL, which is locked.
            (leaf::RDMSR, [0x3a, 0, 0, 0]),
        ] {
            log.push(cpu.tdvmcall(leaf, args).await?);
        }
        Ok(())
    });
    run_to_halt(&mut vcpu);
    let got: Vec<_> = seen.take().iter().map(|regs| (regs.status(), regs.r11)).collect();
    let value = 0x0606_0606_0606_0606;
    assert_eq!(got, [(Status::SUCCESS, leaf::WRMSR), (Status::SUCCESS, value), (Status::SUCCESS, 1)]);
}

#[test]
fn a_register_that_kvm_does_not_emulate_or_a_value_that_it_does_not_take_is_an_invalid_operand() {
    // Those of the module, read-only ones, and one that no processor has.
    for index in [0x10, 0x808, 0xc000_0081, 0xc001_0015, 0x4b56_4d00, 0x4d0, 0x1234] {
        refused(leaf::RDMSR, [index, 0, 0, 0]);
    }
    for (index, value) in [(0x1b, 0xfee0_0000), (0xc000_0080, 0), (0x3a, 1), (CR_PAT, 2), (0x10, 0)] {
        refused(leaf::WRMSR, [index, value, 0, 0]);
    }
}

#[test]
fn userspace_is_asked_for_registers_if_it_wants_to_be() {
    for (leaf, error) in [(leaf::RDMSR, 0), (leaf::RDMSR, 1), (leaf::WRMSR, 0), (leaf::WRMSR, 7)] {
        let seen = Seen::new();
        let log = seen.clone();
        let vm = initialised();
        vm.enable_cap(Cap::X86_USER_SPACE_MSR, 7).unwrap();
        let mut vcpu = finalised(&vm, |cpu| async move {
            log.push(cpu.tdvmcall(leaf, [0x10, 0x1122_3344_5566_7788, 0, 0]).await?);
            Ok(())
        });
        assert_eq!(vcpu.enter(), Ok(()));
        let is_read = leaf == leaf::RDMSR;
        let reason = if is_read { ExitReason::X86_RDMSR } else { ExitReason::X86_WRMSR };
        let mut exit: X86Msr = payload(&vcpu, reason);
        assert_eq!((exit.error, exit.index, exit.reason), (0, 0x10, msr_exit_reason::INVAL));
        assert_eq!(exit.data, if is_read { 0 } else { 0x1122_3344_5566_7788 });
        (exit.error, exit.data) = (error, 0x99_aabb_ccdd);
        vcpu.page_mut().set_payload(&exit);
        run_to_halt(&mut vcpu);
        let regs = seen.take()[0];
        let expected = match (error, is_read) {
            (0, true) => (Status::SUCCESS, 0x99_aabb_ccdd),
            (0, false) => (Status::SUCCESS, leaf),
            _ => (Status::INVALID_OPERAND, leaf),
        };
        assert_eq!((regs.status(), regs.r11), expected);
    }
}

#[test]
fn instructions_that_leave_the_guest_are_a_ve_in_a_td() {
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = finalised(&initialised(), |cpu| async move {
        log.push(cpu.cpuid(0, 0).await.is_err());
        log.push(cpu.port_in(0x60, 1).await.is_err());
        log.push(cpu.rdmsr(0x10).await.is_err());
        log.push(cpu.wrmsr(MISC_ENABLE.try_into().unwrap(), 0).await.is_err());
        log.push(cpu.vmmcall(12, [0; 4]).await.is_err());
        log.push(cpu.vmgexit(0x100).await.is_err());
        Ok(())
    });
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [true; 6]);
}
