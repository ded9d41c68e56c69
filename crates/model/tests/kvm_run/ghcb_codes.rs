//! What each exit code of a request by page does.

use crate::asked::{Ask, answers, asking, infos, served};
use crate::world::{GHCB, Seen, launched, reason, run_to_halt, snp};
use exeunt_abi::ghcb::exit_code::{self, ap_jump_table, ioio};
use exeunt_abi::ghcb::msr;
use exeunt_abi::ghcb::page::{self, Field, malformed};
use exeunt_abi::kvm::cpuid::{CpuidEntry2, FLAG_SIGNIFICANT_INDEX};
use exeunt_abi::kvm::run::{ExitReason, Hypercall, InternalError, suberror};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::Vm;
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_proto::host::Vcpu as _;

const SCRATCH: u64 = GHCB.0 + page::SHARED_BUFFER;
/// RAX, RBX, RCX, RDX with something in them.
const REGISTERS: [(Field, u64); 4] =
    [(page::RAX, 0x1111), (page::RBX, 0x2222), (page::RCX, 0x3333), (page::RDX, 0x4444)];

fn sev_es() -> Vm {
    launched(Dialect::Linux7_2, VmType::SevEs)
}

/// The rows of the table of required fields: the code, `SW_EXITINFO1`, and what is needed beside the exit itself.
fn required() -> Vec<(u64, u64, Vec<Field>)> {
    use page::{CPL, RAX, RCX, RDX, SW_SCRATCH, XCR0};
    vec![
        (exit_code::READ_DR7, 0, vec![]),
        (exit_code::WRITE_DR7, 0, vec![RAX]),
        (exit_code::RDTSC, 0, vec![]),
        (exit_code::RDPMC, 0, vec![RCX]),
        (exit_code::CPUID, 0, vec![RAX, RCX]),
        (exit_code::CPUID, 0, vec![RAX, RCX, XCR0]),
        (exit_code::INVD, 0, vec![]),
        (exit_code::IOIO, ioio::STRING | 0x10, vec![SW_SCRATCH]),
        (exit_code::IOIO, 0x10, vec![RAX]),
        (exit_code::IOIO, ioio::TYPE_IN | 0x10, vec![]),
        (exit_code::MSR, 0, vec![RCX]),
        (exit_code::MSR, 1, vec![RCX, RAX, RDX]),
        (exit_code::VMMCALL, 0, vec![RAX, CPL]),
        (exit_code::RDTSCP, 0, vec![]),
        (exit_code::WBINVD, 0, vec![]),
        (exit_code::MONITOR, 0, vec![RAX, RCX, RDX]),
        (exit_code::MWAIT, 0, vec![RAX, RCX]),
        (exit_code::MMIO_READ, 0, vec![SW_SCRATCH]),
        (exit_code::MMIO_WRITE, 0, vec![SW_SCRATCH]),
        (exit_code::NMI_COMPLETE, 0, vec![]),
        (exit_code::AP_JUMP_TABLE, 1, vec![]),
        (exit_code::PSC, 0, vec![SW_SCRATCH]),
        (exit_code::AP_CREATION, 1 << 32, vec![RAX]),
        (exit_code::AP_CREATION, 1 << 32 | 2, vec![]),
        (exit_code::HV_FEATURES, 0, vec![]),
    ]
}

#[test]
fn each_exit_needs_the_fields_of_its_row_and_no_others() {
    for (code, info_1, fields) in required() {
        // CPUID needs XCR0 for the leaf that depends on it only.
        let leaf = if fields.contains(&page::XCR0) { 0xd } else { 1 };
        let value = |field: Field| if field == page::RAX && code == exit_code::CPUID { leaf } else { 0 };
        let ask = |without: Option<Field>| {
            let there = fields.iter().filter(|field| Some(**field) != without);
            Ask::new(code, [info_1, 0], &there.map(|field| (*field, value(*field))).collect::<Vec<_>>())
        };
        let missing = [2, malformed::MISSING_INPUT];
        let vm = snp();
        for field in &fields {
            // Without RAX the leaf reads as 0.
            let counts = !(code == exit_code::CPUID && *field == page::XCR0 && leaf != 0xd);
            assert_eq!(infos(&vm, vec![ask(Some(*field))])[0] == missing, counts, "{code:#x}, {field:?}");
        }
        let (mut vcpu, seen) = asking(&vm, vec![ask(None)]);
        served(&mut vcpu, |_, _| {});
        assert_ne!(seen.take()[0].map(|got| [got.info_1, got.info_2]), Ok(missing), "{code:#x}, {fields:?}");
    }
}

#[test]
fn the_exit_code_and_both_infos_have_to_be_valid_whatever_is_asked() {
    let exit = [page::SW_EXIT_CODE, page::SW_EXIT_INFO_1, page::SW_EXIT_INFO_2];
    for field in exit {
        let vm = sev_es();
        let bitmap: u128 = exit.iter().filter(|other| **other != field).map(|other| other.mask()).sum();
        let program = move |cpu: Cpu| async move {
            let code = exit_code::HV_FEATURES.to_le_bytes();
            cpu.write(page::SW_EXIT_CODE.at(GHCB), &code, Access::Shared).await?;
            cpu.write(Gpa(GHCB.0 + page::VALID_BITMAP), &bitmap.to_le_bytes(), Access::Shared).await?;
            cpu.vmgexit(GHCB.0).await.map(|_| ())
        };
        run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
        let mut got = [0; 8];
        vm.read_shared(page::SW_EXIT_INFO_2.at(GHCB), &mut got).unwrap();
        assert_eq!(u64::from_le_bytes(got), malformed::MISSING_INPUT, "{field:?}");
    }
}

#[test]
fn exits_that_ask_for_nothing_leave_the_registers_as_they_were() {
    const CODES: [u64; 6] = [
        exit_code::READ_DR7,
        exit_code::WRITE_DR7,
        exit_code::INVD,
        exit_code::WBINVD,
        exit_code::MONITOR,
        exit_code::MWAIT,
    ];
    for vm in [snp(), sev_es()] {
        for answer in answers(&vm, CODES.map(|code| Ask::new(code, [0, 0], &REGISTERS)).to_vec()) {
            let got = answer.unwrap();
            assert_eq!([got.info_1, got.info_2], [0, 0]);
            assert_eq!([got.rax, got.rbx, got.rcx, got.rdx], REGISTERS.map(|(_, value)| value));
        }
    }
}

#[test]
fn registers_that_the_guest_did_not_mark_as_valid_come_back_as_zero() {
    let asks =
        vec![Ask::new(exit_code::WBINVD, [0, 0], &[]), Ask::new(exit_code::WBINVD, [0, 0], &REGISTERS[..1])];
    let got: Vec<_> = answers(&snp(), asks).into_iter().map(|got| got.unwrap().rax).collect();
    assert_eq!(got, [0, 0x1111]);
}

#[test]
fn rdtsc_has_no_handler_and_stops_the_vcpu_with_an_internal_error() {
    let (mut vcpu, seen) = asking(&snp(), vec![Ask::new(exit_code::RDTSC, [0, 0], &[])]);
    let mut exits = 0;
    served(&mut vcpu, |vcpu, entered| {
        assert_eq!((entered, reason(vcpu)), (Ok(()), ExitReason::INTERNAL_ERROR));
        let error: InternalError = vcpu.page().payload();
        let got = (error.suberror, error.ndata, error.data[0], error.data[1]);
        assert_eq!(got, (suberror::UNEXPECTED_EXIT_REASON, 2, 0x6e, 0));
        exits += 1;
    });
    assert_eq!(
        (exits, seen.take()[0].unwrap().info_1),
        (1, 0),
        "a VMM that enters again lets the guest go on"
    );
}

#[test]
fn rdtscp_raises_an_invalid_opcode_in_the_guest() {
    let got = answers(&snp(), vec![Ask::new(exit_code::RDTSCP, [0, 0], &[])]);
    assert_eq!(got, [Err(GuestFault::InvalidOpcode)]);
}

#[test]
fn rdpmc_reads_four_counters_and_raises_gp_for_another() {
    let ask = |counter: u64| Ask::new(exit_code::RDPMC, [0, 0], &[(page::RCX, counter)]);
    let vm = snp();
    let (mut vcpu, seen) = asking(&vm, [0, 3, 4, 0xffff_ffff].map(ask).to_vec());
    vcpu.set_msr(exeunt_abi::msr_index::K7_PERFCTR0 + 3, 0x1_2345_6789).unwrap();
    served(&mut vcpu, |vcpu, _| panic!("{}", reason(vcpu)));
    let got: Vec<_> = seen.take().into_iter().map(|answer| answer.map(|got| (got.rax, got.rdx))).collect();
    let refused = Err(GuestFault::GeneralProtection);
    assert_eq!(got, [Ok((0, 0)), Ok((0x2345_6789, 1)), refused, refused]);
}

fn leaf(function: u32, index: Option<u32>, registers: [u32; 4]) -> CpuidEntry2 {
    let [eax, ebx, ecx, edx] = registers;
    let flags = if index.is_some() { FLAG_SIGNIFICANT_INDEX } else { 0 };
    CpuidEntry2 { function, index: index.unwrap_or(0), flags, eax, ebx, ecx, edx, padding: [0; 3] }
}

#[test]
fn cpuid_is_the_table_of_the_vcpu_and_follows_the_guests_xcr0() {
    let ask = |function: u64, index: u64, xcr0: u64| {
        Ask::new(exit_code::CPUID, [0, 0], &[(page::RAX, function), (page::RCX, index), (page::XCR0, xcr0)])
    };
    let vm = snp();
    let asks = vec![ask(1, 0, 1), ask(4, 1, 1), ask(4, 2, 1), ask(0xd, 0, 1), ask(0xd, 0, 7), ask(0xd, 0, 0)];
    let (mut vcpu, seen) = asking(&vm, asks);
    let table = [
        leaf(1, None, [0x00a2_0f10, 2, 3, 4]),
        leaf(4, Some(1), [0x21, 0x22, 0x23, 0x24]),
        leaf(0xd, Some(0), [7, 0, 0x340, 0]),
    ];
    vcpu.set_cpuid2(&table).unwrap();
    served(&mut vcpu, |vcpu, _| panic!("{}", reason(vcpu)));
    let got: Vec<_> = seen
        .take()
        .into_iter()
        .map(|got| got.map(|got| [got.rax, got.rbx, got.rcx, got.rdx]).unwrap())
        .collect();
    let xsave = |bytes| [7, bytes, 0x340, 0];
    let expected =
        [[0x00a2_0f10, 2, 3, 4], [0x21, 0x22, 0x23, 0x24], [0; 4], xsave(576), xsave(832), xsave(832)];
    assert_eq!(got, expected, "an XCR0 without x87 state is not taken");
    assert_eq!(vcpu.set_cpuid2(&table), Ok(()), "the same table may be set again");
    assert_eq!(
        vcpu.set_cpuid2(&table[1..]),
        Err(Errno::EINVAL),
        "another one may not, once the vCPU has run"
    );
    assert_eq!(vcpu.set_cpuid2(&[leaf(1, None, [0; 4]); 257]), Err(Errno::E2BIG));
}

#[test]
fn a_hypercall_by_page_is_checked_in_the_order_of_kvm() {
    let ask = |nr: u64, cpl: u64, args: [u64; 3]| {
        let [a0, a1, a2] = args;
        let fields = [(page::CPL, cpl), (page::RAX, nr), (page::RBX, a0), (page::RCX, a1), (page::RDX, a2)];
        Ask::new(exit_code::VMMCALL, [0, 0], &fields)
    };
    let rax = |vm: &Vm, ask: Ask| answers(vm, vec![ask])[0].unwrap().rax;
    let (eperm, einval, enosys) = (1u64.wrapping_neg(), 22u64.wrapping_neg(), 1000u64.wrapping_neg());
    let (bad, vm) = ([1, 0, 0], snp());
    assert_eq!(rax(&vm, ask(12, 3, bad)), eperm, "the ring comes first");
    assert_eq!(rax(&vm, ask(99, 1, bad)), eperm);
    assert_eq!(rax(&vm, ask(99, 0, bad)), enosys);
    assert_eq!(rax(&vm, ask(12, 0, bad)), einval);
    for args in [[0x1001, 1, 0], [0x1000, 0, 0], [0xffff_ffff_ffff_f000, u64::MAX, 0]] {
        assert_eq!(rax(&vm, ask(12, 0, args)), einval, "{args:x?}");
    }
    vm.enable_cap(exeunt_abi::kvm::caps::Cap::EXIT_HYPERCALL, 0).unwrap();
    assert_eq!(rax(&vm, ask(12, 0, bad)), enosys, "without the capability the arguments are not looked at");
    // What KVM answers itself: the poll, a kick and a yield that nobody hears, a clock that is not there, IPIs of
    // local APICs that are in userspace.
    let einval_ipi = Ask::new(
        exit_code::VMMCALL,
        [0, 0],
        &[(page::CPL, 0), (page::RAX, 10), (page::RBX, 1), (page::RSI, 1 << 18)],
    );
    let eopnotsupp = 95u64.wrapping_neg();
    for (nr, expected) in
        [(1, 0), (5, 0), (9, eopnotsupp), (10, eopnotsupp), (11, 0), (2, enosys), (13, enosys)]
    {
        assert_eq!(rax(&vm, ask(nr, 0, [0, 0, 0])), expected, "hypercall {nr}");
    }
    assert_eq!(rax(&vm, einval_ipi), einval);
}

#[test]
fn a_conversion_by_hypercall_passes_its_attributes_on_unfiltered_and_takes_any_answer() {
    let fields = [
        (page::CPL, 0),
        (page::RAX, 12),
        (page::RBX, 0x20_0000),
        (page::RCX, 3),
        (page::RDX, 0xffff_ffff_ffff_ff1f),
    ];
    let (mut vcpu, seen) = asking(&snp(), vec![Ask::new(exit_code::VMMCALL, [0, 0], &fields)]);
    served(&mut vcpu, |vcpu, entered| {
        assert_eq!((entered, reason(vcpu)), (Ok(()), ExitReason::HYPERCALL));
        let mut call: Hypercall = vcpu.page().payload();
        assert_eq!(call.args[..3], [0x20_0000, 3, 0xffff_ffff_ffff_ff1f]);
        assert_eq!((call.nr, call.ret, call.flags), (12, 0, 1), "a guest of a GHCB always counts as 64-bit");
        call.ret = 0x1234_5678_9abc_def0;
        vcpu.page_mut().set_payload(&call);
    });
    assert_eq!(seen.take()[0].unwrap().rax, 0x1234_5678_9abc_def0);
}

#[test]
fn the_jump_table_is_one_for_all_vcpus() {
    let ask = |info| Ask::new(exit_code::AP_JUMP_TABLE, info, &[]);
    let vm = sev_es();
    let got =
        infos(&vm, vec![ask([ap_jump_table::GET, 9]), ask([ap_jump_table::SET, 0xa000]), ask([2, 0xb000])]);
    assert_eq!(got, [[0, 0], [0, 0], [2, malformed::INVALID_INPUT]]);
    assert_eq!(infos(&vm, vec![ask([ap_jump_table::GET, 0])]), [[0, 0xa000]], "another vCPU");
}

#[test]
fn the_features_are_snp_and_ap_creation_for_a_guest_that_is_neither() {
    for vm in [snp(), sev_es()] {
        assert_eq!(infos(&vm, vec![Ask::new(exit_code::HV_FEATURES, [0, 0], &[])]), [[0, 3]]);
    }
}

#[test]
fn the_end_of_an_nmi_lets_the_next_one_in() {
    use exeunt_proto::host::Events as _;
    let (mut vcpu, _) = asking(&sev_es(), vec![Ask::new(exit_code::NMI_COMPLETE, [0, 0], &[])]);
    let mut events = vcpu.events().unwrap();
    events.nmi_masked = 1;
    vcpu.set_events(&events).unwrap();
    served(&mut vcpu, |vcpu, _| panic!("{}", reason(vcpu)));
    assert_eq!(vcpu.events().unwrap().nmi_masked, 0);
}

#[test]
fn an_event_that_the_guest_does_not_know_fails_kvm_run_and_leaves_the_request_done() {
    let (mut vcpu, seen) = asking(&snp(), vec![Ask::new(exit_code::UNSUPPORTED_EVENT, [0x123, 0], &[])]);
    let mut errors = Vec::new();
    served(&mut vcpu, |_, entered| errors.push(entered));
    assert_eq!(errors, [Err(Errno::EINVAL)]);
    let got = seen.take()[0].unwrap();
    assert_eq!([got.info_1, got.info_2], [0, 0]);
}

#[test]
fn without_a_local_apic_in_the_kernel_userspace_holds_the_processor_and_no_result_comes() {
    let (mut vcpu, seen) = asking(&sev_es(), vec![Ask::new(exit_code::AP_HLT_LOOP, [0, 0], &[])]);
    let before = vcpu.page().exit;
    served(&mut vcpu, |vcpu, entered| {
        assert_eq!((entered, reason(vcpu)), (Ok(()), ExitReason::AP_RESET_HOLD));
        assert_eq!(vcpu.page().exit, before, "there is no payload");
        assert_eq!(vcpu.set_mp_state(9), Err(Errno::EINVAL));
    });
    let got = seen.take()[0].unwrap();
    assert_eq!([got.info_1, got.info_2], [0, 0]);
}

#[test]
fn codes_of_features_that_kvm_does_not_offer_are_no_events() {
    const NOT_OFFERED: [u64; 6] = [
        exit_code::HV_DOORBELL_PAGE,
        exit_code::HV_IPI,
        exit_code::HV_TIMER,
        exit_code::APIC_ID_LIST,
        exit_code::SNP_RUN_VMPL,
        exit_code::SAVIC,
    ];
    let asks = NOT_OFFERED.map(|code| Ask::new(code, [0, 0], &[(page::SW_SCRATCH, SCRATCH)])).to_vec();
    assert_eq!(infos(&snp(), asks), [[2, malformed::INVALID_EVENT]; 6]);
}

#[test]
fn a_request_that_is_refused_has_taken_xcr0_over_already() {
    let vm = snp();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        let ghcb = Ghcb::at(GHCB);
        let refused = ghcb.request(&cpu, exit_code::HV_FEATURES, [0, 0], &[(page::XCR0, 7)]).await?;
        cpu.vmgexit(GHCB.0 | msr::REGISTER_GPA_REQUEST).await?;
        // An XCR0 that is not taken, so that the one of before counts.
        let fields = [(page::RAX, 0xd), (page::RCX, 0), (page::XCR0, 2)];
        let size = ghcb.request(&cpu, exit_code::CPUID, [0, 0], &fields).await?.rbx;
        log.push([refused.info_1, refused.info_2, size]);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    vcpu.set_cpuid2(&[leaf(0xd, Some(0), [7, 0, 0, 0])]).unwrap();
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [[2, malformed::NOT_REGISTERED, 832]]);
}

#[test]
fn an_instruction_that_leaves_the_guest_is_a_vc_in_sev_es_guests_and_emulated_in_plain_ones() {
    for vm_type in [VmType::Snp, VmType::SevEs, VmType::Default] {
        let seen = Seen::new();
        let log = seen.clone();
        let program = |cpu: Cpu| async move {
            log.push(cpu.cpuid(1, 0).await);
            log.push(cpu.rdmsr(0x174).await.map(|_| [0; 4]));
            log.push(cpu.wrmsr(0x174, 0).await.map(|()| [0; 4]));
            log.push(cpu.vmmcall(99, [0; 4]).await.map(|_| [0; 4]));
            log.push(cpu.port_out(0x80, 1, 0).await.map(|()| [0; 4]));
            log.push(cpu.port_out_string(0x80, 1, GHCB, 1).await.map(|()| [0; 4]));
            Ok(())
        };
        let mut vcpu = launched(Dialect::Linux7_2, vm_type).create_vcpu(0, program).unwrap();
        vcpu.set_cpuid2(&[leaf(1, None, [1, 2, 3, 4])]).unwrap();
        served(&mut vcpu, |vcpu, _| assert_eq!((vm_type, reason(vcpu)), (VmType::Default, ExitReason::IO)));
        let got = seen.take();
        if vm_type == VmType::Default {
            assert_eq!(got, [Ok([1, 2, 3, 4]), Ok([0; 4]), Ok([0; 4]), Ok([0; 4]), Ok([0; 4]), Ok([0; 4])]);
        } else {
            assert_eq!(got, [Err(GuestFault::VmmCommunication); 6], "{vm_type:?}");
        }
    }
}
