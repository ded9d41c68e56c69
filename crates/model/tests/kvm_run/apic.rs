//! The local APIC in the kernel: processors that wait, INIT, startup interrupts, and what an SEV-ES guest sees of them.

use crate::world::{GHCB, Seen, kernel, launched, new_vm, reason, run_to_halt};
use exeunt_abi::ghcb::exit_code::{self, ap_creation};
use exeunt_abi::ghcb::{msr, page};
use exeunt_abi::kvm::cpuid::CpuidEntry2;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::mp_state;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa, PAGE_SIZE, msr_index};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{MpState, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;

/// The interrupt command register in x2APIC mode.
const ICR: u32 = 0x830;
/// INIT to the processor with APIC id 1.
const INIT: u64 = 1 << 32 | 5 << 8 | 1 << 14;
/// The startup interrupt to the same, with vector 0x9a.
const SIPI: u64 = 1 << 32 | 6 << 8 | 1 << 14 | 0x9a;
/// `MSR_IA32_APICBASE` with x2APIC mode on.
const X2APIC: u64 = 0xfee0_0000 | 1 << 11 | 1 << 10;

/// A VM with the local APICs in the kernel.
fn vm(vm_type: VmType) -> Vm {
    let vm = launched(Dialect::Linux7_2, vm_type);
    vm.create_irqchip().unwrap();
    vm
}

/// CPUID with x2APIC.
fn show_x2apic(vcpu: &mut Vcpu) {
    vcpu.set_cpuid2(&[CpuidEntry2 { function: 1, eax: 0x00a2_0f10, ecx: 1 << 21, ..CpuidEntry2::default() }])
        .unwrap();
}

fn waits(vcpu: &mut Vcpu) {
    assert_eq!((vcpu.enter(), reason(vcpu)), (Err(Errno::EINTR), ExitReason::INTR));
}

/// A message that brings INIT or the startup interrupt to a processor.
fn message(vm: &Vm, id: u64, data: u32) -> u64 {
    vm.signal_msi(0xfee0_0000 | id << 12, data).unwrap()
}

const NMI_MESSAGE: u32 = 4 << 8;
const INIT_MESSAGE: u32 = 5 << 8;
const SIPI_MESSAGE: u32 = 6 << 8 | 0x9a;

#[test]
fn the_local_apics_are_in_the_kernel_if_that_was_chosen_before_the_first_vcpu_and_once() {
    let new = || new_vm(kernel(Dialect::Linux7_2), VmType::Default);
    let vm = new();
    assert_eq!(
        (vm.create_irqchip(), vm.create_irqchip(), vm.split_irqchip(24)),
        (Ok(()), Err(Errno::EEXIST), Err(Errno::EEXIST))
    );
    let vm = new();
    assert_eq!(vm.split_irqchip(4097), Err(Errno::EINVAL));
    assert_eq!(
        (vm.split_irqchip(24), vm.split_irqchip(24), vm.create_irqchip()),
        (Ok(()), Err(Errno::EEXIST), Err(Errno::EEXIST))
    );
    let vm = new();
    vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    assert_eq!((vm.create_irqchip(), vm.split_irqchip(24)), (Err(Errno::EINVAL), Err(Errno::EEXIST)));
    assert_eq!(vm.signal_msi(0xfee0_0000, INIT_MESSAGE), Err(Errno::EINVAL));
}

#[test]
fn every_mp_state_of_x86_can_be_set_with_the_apic_in_the_kernel_and_runnable_alone_without() {
    for (in_kernel, settable) in [(false, vec![0]), (true, vec![0, 1, 2, 3, 4, 9])] {
        let vm = launched(Dialect::Linux7_2, VmType::SevEs);
        if in_kernel {
            vm.split_irqchip(24).unwrap();
        }
        let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        for state in 0..=12 {
            let expected = if settable.contains(&state) { Ok(()) } else { Err(Errno::EINVAL) };
            assert_eq!(vcpu.set_mp_state(state), expected, "mp_state {state}");
            let read = vcpu.mp_state().number();
            match state {
                // A startup interrupt that waits is acted on when the state is read.
                mp_state::SIPI_RECEIVED if in_kernel => assert_eq!(read, mp_state::RUNNABLE),
                state if settable.contains(&state) => assert_eq!(read, state),
                _ => {}
            }
        }
    }
}

#[test]
fn an_application_processor_waits_for_init_and_the_startup_interrupt_and_learns_its_vector() {
    let vm = vm(VmType::Default);
    let first = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.sipi_vector());
        cpu.port_out(0x80, 1, 0).await
    };
    let mut second = vm.create_vcpu(0, program).unwrap();
    assert_eq!((first.id(), second.mp_state()), (0, MpState::Uninitialized));
    waits(&mut second);
    assert_eq!(message(&vm, 1, SIPI_MESSAGE), 1, "without INIT it is lost");
    assert_eq!((second.enter(), second.mp_state()), (Err(Errno::EAGAIN), MpState::Uninitialized));
    assert_eq!(message(&vm, 1, INIT_MESSAGE), 1);
    assert_eq!((second.enter(), second.mp_state()), (Err(Errno::EAGAIN), MpState::InitReceived));
    waits(&mut second);
    message(&vm, 1, SIPI_MESSAGE);
    assert_eq!((second.enter(), reason(&second)), (Ok(()), ExitReason::IO));
    assert_eq!((second.mp_state(), seen.take()), (MpState::Runnable, vec![Some(0x9a)]));
    assert_eq!(message(&vm, 7, INIT_MESSAGE), 0, "nobody has this id");
}

#[test]
fn immediate_exit_does_not_let_an_uninitialized_processor_wait() {
    let vm = vm(VmType::Default);
    vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let mut second = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let before = reason(&second);
    assert_eq!((second.enter_immediately(), reason(&second)), (Err(Errno::EINTR), before));
}

#[test]
fn a_plain_guest_starts_its_other_processor_through_the_icr() {
    let vm = vm(VmType::Default);
    let program = |cpu: Cpu| async move {
        cpu.wrmsr(msr_index::IA32_APICBASE, X2APIC).await?;
        for icr in [INIT, SIPI] {
            cpu.wrmsr(ICR, icr).await?;
        }
        assert_eq!(cpu.rdmsr(ICR).await?, SIPI);
        assert_eq!(cpu.rdmsr(0x802).await?, 0);
        // Reserved bits, and a number of no register.
        assert!(cpu.wrmsr(ICR, 1 << 20).await.is_err() && cpu.wrmsr(0x8ff, 0).await.is_err());
        cpu.port_out(0x80, 1, 0).await
    };
    let mut first = vm.create_vcpu(0, program).unwrap();
    show_x2apic(&mut first);
    let mut second = vm.create_vcpu(0, |cpu| async move { cpu.port_out(0x81, 1, 0).await }).unwrap();
    assert_eq!((first.enter(), reason(&first)), (Ok(()), ExitReason::IO));
    assert_eq!(second.enter(), Err(Errno::EAGAIN));
    assert_eq!((second.enter(), reason(&second)), (Ok(()), ExitReason::IO));
}

#[test]
fn a_second_init_starts_a_plain_processor_anew_and_what_it_did_is_lost() {
    let vm = vm(VmType::Default);
    vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let mut second = vm
        .create_vcpu(0, |cpu| async move {
            cpu.port_in(0x80, 1).await?;
            panic!("an INIT came in between");
        })
        .unwrap();
    for data in [INIT_MESSAGE, SIPI_MESSAGE] {
        message(&vm, 1, data);
    }
    assert_eq!(second.enter(), Err(Errno::EAGAIN));
    assert_eq!((second.enter(), reason(&second)), (Ok(()), ExitReason::IO));
    second.load(0, |cpu| async move { cpu.port_out(0x81, 1, 0).await });
    for data in [INIT_MESSAGE, SIPI_MESSAGE] {
        message(&vm, 1, data);
    }
    assert_eq!((second.enter(), reason(&second)), (Ok(()), ExitReason::IO));
    assert_eq!(second.port_data()[0], 0);
    let io: exeunt_abi::kvm::run::Io = second.page().payload();
    assert_eq!(io.port, 0x81);
}

/// An SEV-ES guest's application processor that holds itself in reset, once by each protocol, and tells what came.
fn holding(vm: &Vm) -> (Vcpu, Seen<[u64; 3]>) {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        let ghcb = Ghcb::at(Gpa(GHCB.0 + PAGE_SIZE));
        loop {
            log.push([cpu.vmgexit(msr::AP_RESET_HOLD_REQUEST).await?, 0, 0]);
            let answer = ghcb.request(&cpu, exit_code::AP_HLT_LOOP, [0, 0], &[(page::RBX, 5)]).await?;
            log.push([answer.info_1, answer.info_2, answer.rdx]);
        }
    };
    (vm.create_vcpu(0, program).unwrap(), seen)
}

#[test]
fn a_hold_by_msr_and_by_page_ends_with_a_result_when_a_startup_interrupt_comes() {
    let vm = vm(VmType::SevEs);
    vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let (mut second, seen) = holding(&vm);
    let start = |vm: &Vm| {
        message(vm, 1, INIT_MESSAGE);
        message(vm, 1, SIPI_MESSAGE);
    };
    // The first startup interrupt lets the processor run with the state that userspace gave it.
    start(&vm);
    assert_eq!(second.enter(), Err(Errno::EAGAIN));
    waits(&mut second);
    assert_eq!((second.mp_state(), seen.take().len()), (MpState::ApResetHold, 0));
    start(&vm);
    waits(&mut second);
    assert_eq!(seen.take(), [[1 << 12 | msr::AP_RESET_HOLD_RESPONSE, 0, 0]]);
    assert_eq!(second.mp_state(), MpState::ApResetHold);
    start(&vm);
    waits(&mut second);
    // The INIT took KVM's copies of the registers: RDX is the signature.
    assert_eq!(seen.take(), [[0, 1, 0x600]]);
}

#[test]
fn a_hold_that_another_event_ends_has_no_result() {
    let vm = vm(VmType::SevEs);
    vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let (mut second, seen) = holding(&vm);
    second.set_mp_state(mp_state::RUNNABLE).unwrap();
    waits(&mut second);
    message(&vm, 1, NMI_MESSAGE);
    waits(&mut second);
    assert_eq!(seen.take()[0], [msr::AP_RESET_HOLD_RESPONSE, 0, 0]);
}

#[test]
fn a_startup_interrupt_without_an_init_before_it_does_not_end_a_hold() {
    let vm = vm(VmType::SevEs);
    vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let (mut second, seen) = holding(&vm);
    second.set_mp_state(mp_state::RUNNABLE).unwrap();
    waits(&mut second);
    message(&vm, 1, SIPI_MESSAGE);
    waits(&mut second);
    assert_eq!(seen.take()[0], [msr::AP_RESET_HOLD_RESPONSE, 0, 0], "it is an event, and brings no result");
}

#[test]
fn an_sev_es_guest_sends_init_and_startup_by_msr_requests_of_its_ghcb() {
    let vm = vm(VmType::SevEs);
    let program = |cpu: Cpu| async move {
        let ghcb = Ghcb::at(GHCB);
        for (index, value) in [(msr_index::IA32_APICBASE, X2APIC), (ICR, INIT), (ICR, SIPI)] {
            let fields =
                [(page::RCX, u64::from(index)), (page::RAX, value & 0xffff_ffff), (page::RDX, value >> 32)];
            assert_eq!(ghcb.request(&cpu, exit_code::MSR, [1, 0], &fields).await?.info_1, 0);
        }
        Ok(())
    };
    let mut first = vm.create_vcpu(0, program).unwrap();
    show_x2apic(&mut first);
    let (mut second, seen) = holding(&vm);
    waits(&mut first);
    assert_eq!(first.mp_state(), MpState::Halted, "a halt stays in the kernel");
    assert_eq!(second.enter(), Err(Errno::EAGAIN));
    waits(&mut second);
    assert_eq!((second.mp_state(), seen.take()), (MpState::ApResetHold, vec![]));
}

#[test]
fn an_interrupt_wakes_a_halted_processor_whose_apic_is_enabled() {
    let vm = vm(VmType::Default);
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        cpu.wrmsr(msr_index::IA32_APICBASE, X2APIC).await?;
        cpu.hlt().await;
        log.push(cpu.take_interrupt());
        cpu.wrmsr(0x80f, 0x1ff).await?;
        for _ in 0..3 {
            cpu.hlt().await;
            log.push(cpu.take_interrupt());
        }
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    show_x2apic(&mut vcpu);
    waits(&mut vcpu);
    assert_eq!(message(&vm, 0, 0x41), 0, "the APIC is not enabled in software");
    waits(&mut vcpu);
    vcpu.set_mp_state(mp_state::RUNNABLE).unwrap();
    waits(&mut vcpu);
    assert_eq!(seen.take(), [None]);
    for vector in [0x41, 0xfe] {
        assert_eq!(message(&vm, 0, vector), 1);
    }
    waits(&mut vcpu);
    assert_eq!(seen.take(), [Some(0xfe), Some(0x41)], "the highest first");
    assert!(vcpu.is_blocked());
}

#[test]
fn hypercalls_kick_and_interrupt_the_processors_that_are_there() {
    let vm = vm(VmType::Default);
    let program = |cpu: Cpu| async move {
        // Vector 0x50 to the processors 0, 1 and 70, of which two are there and one has its APIC enabled.
        let sent = cpu.vmmcall(10, [0b11, 1 << 6, 0, 0x50]).await?;
        assert_eq!((sent, cpu.vmmcall(5, [0, 1, 0, 0]).await?), (1, 0));
        cpu.port_out(0x80, 1, 0).await
    };
    let mut first = vm.create_vcpu(0, program).unwrap();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        cpu.wrmsr(msr_index::IA32_APICBASE, X2APIC).await?;
        cpu.wrmsr(0x80f, 0x1ff).await?;
        cpu.hlt().await;
        log.push(cpu.take_interrupt());
        cpu.hlt().await;
        log.push(cpu.take_interrupt());
        Ok(())
    };
    let mut second = vm.create_vcpu(0, program).unwrap();
    show_x2apic(&mut second);
    second.set_mp_state(mp_state::RUNNABLE).unwrap();
    waits(&mut second);
    assert_eq!((first.enter(), reason(&first)), (Ok(()), ExitReason::IO));
    waits(&mut second);
    assert_eq!(seen.take(), [Some(0x50)]);
}

#[test]
fn an_init_to_the_first_processor_leaves_it_running_and_its_ghcb_msr_alone() {
    let vm = vm(VmType::SevEs);
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.vmgexit(msr::HV_FEATURES_REQUEST).await?);
        cpu.hlt().await;
        log.push(cpu.rdmsr(msr_index::AMD64_SEV_ES_GHCB).await?);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    waits(&mut vcpu);
    message(&vm, 0, INIT_MESSAGE);
    waits(&mut vcpu);
    assert_eq!(seen.take(), [0x3081, 0x3081], "an INIT is no RESET");
}

#[test]
fn a_creation_on_init_is_taken_over_by_the_init_and_runs_after_the_startup_interrupt() {
    const VMSA: Gpa = Gpa(0x30_1000);
    let vm = vm(VmType::Snp);
    vm.set_memory_attributes(VMSA, PAGE_SIZE, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    let program = |cpu: Cpu| async move {
        cpu.vmgexit(GHCB.0 | msr::REGISTER_GPA_REQUEST).await?;
        cpu.pvalidate(VMSA, true).await?;
        cpu.write(VMSA, &[0; 8], Access::Private).await?;
        cpu.rmpadjust(VMSA, false, 1 | 1 << 16).await?;
        let request = 1 << 32 | u64::from(ap_creation::CREATE_ON_INIT);
        Ghcb::at(GHCB).request(&cpu, exit_code::AP_CREATION, [request, VMSA.0], &[(page::RAX, 1)]).await?;
        Ok::<(), GuestFault>(())
    };
    let mut first = vm.create_vcpu(0, program).unwrap();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.vmsa());
        Ok(())
    };
    let mut second = vm.create_vcpu(0, program).unwrap();
    waits(&mut first);
    waits(&mut second);
    message(&vm, 1, INIT_MESSAGE);
    assert_eq!((second.enter(), second.mp_state()), (Err(Errno::EAGAIN), MpState::InitReceived));
    assert!(seen.take().is_empty());
    message(&vm, 1, SIPI_MESSAGE);
    waits(&mut second);
    assert_eq!(seen.take(), [Some(VMSA)]);
}

#[test]
fn an_uninitialized_processor_that_is_created_asks_to_be_run_again() {
    let vm = vm(VmType::Snp);
    let program = |cpu: Cpu| async move {
        cpu.vmgexit(GHCB.0 | msr::REGISTER_GPA_REQUEST).await?;
        let request = 1 << 32 | u64::from(ap_creation::CREATE);
        Ghcb::at(GHCB).request(&cpu, exit_code::AP_CREATION, [request, 0x30_1000], &[(page::RAX, 1)]).await?;
        Ok::<(), GuestFault>(())
    };
    let mut first = vm.create_vcpu(0, program).unwrap();
    let mut second = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    waits(&mut first);
    for _ in 0..2 {
        assert_eq!((second.enter(), second.mp_state()), (Err(Errno::EAGAIN), MpState::Uninitialized));
    }
    // A VMM that lets it run lets the request be served, which here ends in a page that is no VMSA.
    second.set_mp_state(mp_state::RUNNABLE).unwrap();
    assert_eq!((second.enter(), reason(&second)), (Ok(()), ExitReason::FAIL_ENTRY));
}

#[test]
fn a_halt_with_the_apic_in_userspace_is_an_exit() {
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    let program = |cpu: Cpu| async move {
        cpu.hlt().await;
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    run_to_halt(&mut vcpu);
    assert_eq!(vcpu.mp_state(), MpState::Runnable);
}
