use super::*;
use exeunt_abi::kvm::run::{HYPERCALL_LONG_MODE, RunPage};
use exeunt_abi::{Arch, Dialect, Kernel};

const KERNEL: Kernel = Kernel { dialect: Dialect::Linux7_2, arch: Arch::X86 };

fn stale_page() -> RunPage {
    let mut page = RunPage::zeroed();
    page.exit = [0xaa; UNION_BYTES];
    page
}

fn every_exit() -> [Exit; 22] {
    let words = Words::from_slice(&[0x100, 7]);
    let mut bytes = [0x5a; UNION_BYTES];
    bytes[0] = 1;
    [
        Exit::Again(Errno::EINTR),
        Exit::Again(Errno::EAGAIN),
        Exit::Io(Io { is_out: true, size: 4, port: 0x3f8, count: 1024, start: 0 }),
        Exit::Mmio(Mmio { gpa: Gpa(0xfee0_0000), data: [1; 8], len: 8, is_write: true }),
        Exit::Hlt,
        Exit::Hypercall(Hypercall { nr: 12, args: [0x1000, 2, 0x10, 0, 0, 0], flags: HYPERCALL_LONG_MODE }),
        Exit::Hypercall(Hypercall { nr: 99, args: [1, 2, 3, 4, 5, 6], flags: 0 }),
        Exit::Shutdown,
        Exit::FailEntry(FailEntry { reason: u64::MAX, cpu: 3 }),
        Exit::InternalError(InternalError { suberror: 4, data: words }),
        Exit::SystemEvent(SystemEvent { event: EventType::SevTerm, data: words }),
        Exit::Notify { flags: 1 },
        Exit::MemoryFault(MemoryFault {
            gpa: Gpa(0x5000),
            size: 0x1000,
            private: true,
            unknown_flags: 1 << 17,
            poisoned: true,
        }),
        Exit::SnpReqCerts(SnpReqCerts { gpa: Gpa(0x8000), pages: 4 }),
        Exit::ApResetHold,
        tdx(TdxCall::GetQuote { gpa: Gpa(0x9000), size_bytes: 0x2000 }),
        tdx(TdxCall::GetTdVmCallInfo { leaf: 1 }),
        tdx(TdxCall::SetupEventNotify { vector: 0x50 }),
        tdx(TdxCall::Unknown { nr: 0x10005, data: [1, 2, 3, 4, u64::MAX] }),
        Exit::Rdmsr(Rdmsr { index: 0xc001_0131, reason: 4 }),
        Exit::Wrmsr(Wrmsr { index: 0x10, reason: 1, value: u64::MAX }),
        Exit::Other(Other { reason: ExitReason::XEN, bytes }),
    ]
}

fn tdx(call: TdxCall) -> Exit {
    Exit::Tdx(Tdx { flags: 0, call })
}

#[test]
fn decode_undoes_encode_for_every_kind_of_exit_on_a_stale_page() {
    for exit in every_exit() {
        let mut page = stale_page();
        let entered = encode(&exit, KERNEL, &mut page);
        assert_eq!(decode(entered, &page, KERNEL), Ok(exit));
    }
}

#[test]
fn every_reason_decodes_without_a_panic_and_the_unknown_keeps_its_bytes() {
    for number in 0..=64 {
        for fill in [0, 1, 0x7f, 0xff] {
            let mut page = RunPage::zeroed();
            page.exit_reason = number;
            page.exit = [fill; UNION_BYTES];
            if let Ok(Exit::Other(other)) = decode(Ok(()), &page, KERNEL) {
                assert_eq!((other.reason, other.bytes), (ExitReason(number), page.exit));
            }
        }
    }
}

#[test]
fn an_error_of_kvm_run_makes_the_reason_stale() {
    let mut page = stale_page();
    for reason in 0..64 {
        page.exit_reason = reason;
        for errno in 1..200 {
            let got = decode(Err(Errno(errno)), &page, KERNEL);
            match (Errno(errno), ExitReason(reason)) {
                (Errno::EINTR | Errno::EAGAIN, _) => assert_eq!(got, Ok(Exit::Again(Errno(errno)))),
                (Errno::EFAULT | Errno::EHWPOISON, ExitReason::MEMORY_FAULT) => {
                    assert!(matches!(got, Ok(Exit::MemoryFault(_))));
                }
                (errno, stale) => assert_eq!(got, Err(DecodeError::Failed { errno, stale })),
            }
        }
    }
}

#[test]
fn a_success_never_brings_a_memory_fault() {
    let mut page = RunPage::zeroed();
    page.exit_reason = ExitReason::MEMORY_FAULT.0;
    assert!(matches!(decode(Ok(()), &page, KERNEL), Ok(Exit::Other(_))));
}

#[test]
fn an_old_kernel_knows_no_memory_fault_no_certificates_no_td_and_no_reset_hold() {
    let old = Kernel { dialect: Dialect::Linux6_1, arch: Arch::X86 };
    let mut page = RunPage::zeroed();
    page.exit_reason = ExitReason::MEMORY_FAULT.0;
    assert!(matches!(decode(Err(Errno::EFAULT), &page, old), Err(DecodeError::Failed { .. })));
    page.exit_reason = ExitReason::SNP_REQ_CERTS.0;
    assert!(matches!(decode(Ok(()), &page, old), Ok(Exit::Other(_))));
    page.exit_reason = ExitReason::TDX.0;
    assert!(matches!(decode(Ok(()), &page, old), Ok(Exit::Other(_))));
    page.exit_reason = ExitReason::AP_RESET_HOLD.0;
    assert_eq!(decode(Ok(()), &page, old), Ok(Exit::ApResetHold));
    let older = Kernel { dialect: Dialect::Linux5_10, arch: Arch::X86 };
    assert!(matches!(decode(Ok(()), &page, older), Ok(Exit::Other(_))));
}

#[test]
fn a_call_of_a_td_arrives_with_the_answer_that_kvm_presets_and_nothing_else_written() {
    let refused = 0x8000_0000_0000_0003_u64.to_le_bytes();
    let cases = [
        (TdxCall::GetQuote { gpa: Gpa(0), size_bytes: 0 }, refused, 40),
        (TdxCall::GetTdVmCallInfo { leaf: 1 }, [0; 8], 64),
        (TdxCall::SetupEventNotify { vector: 32 }, refused, 32),
    ];
    for (call, ret, written) in cases {
        let mut page = stale_page();
        assert_eq!(encode(&tdx(call), KERNEL, &mut page), Ok(()));
        assert_eq!(page.exit[16..24], ret, "{call:?}");
        assert!(page.exit[written..].iter().all(|byte| *byte == 0xaa), "{call:?}");
    }
}

#[test]
fn exits_without_a_payload_write_the_reason_only() {
    for exit in [Exit::Hlt, Exit::Shutdown, Exit::ApResetHold] {
        let mut page = stale_page();
        assert_eq!(encode(&exit, KERNEL, &mut page), Ok(()));
        assert_eq!(page.exit, [0xaa; UNION_BYTES]);
        assert_eq!(Some(page.reason()), exit.reason(KERNEL.dialect));
    }
}

#[test]
fn an_emulation_failure_gives_the_instruction_and_what_follows_it() {
    let error = |suberror, words: &[u64]| InternalError { suberror, data: Words::from_slice(words) };
    let with = error(1, &[1, 0x9090_9090_90c3_0f02, 0x9090_9090_9090_9090, 0x7b, 5]).emulation().unwrap();
    assert_eq!(with.instruction.unwrap().as_slice(), [0x0f, 0xc3]);
    assert_eq!((with.flags, with.info.as_slice()), (1, [0x7b, 5].as_slice()));
    let without = error(1, &[0, 0x7b, 5]).emulation().unwrap();
    assert_eq!((without.instruction, without.info.as_slice()), (None, [0x7b, 5].as_slice()));
    let too_long = error(1, &[1, 0xff, 0]).emulation().unwrap().instruction.unwrap();
    assert_eq!((too_long.size_bytes, too_long.as_slice().len()), (255, 15));
    let broken_promise = error(1, &[1, 0x7b]).emulation().unwrap();
    assert_eq!((broken_promise.instruction, broken_promise.info.as_slice().len()), (None, 0));
    assert_eq!(error(1, &[]).emulation(), None);
    for suberror in [0, 2, 3, 4, u32::MAX] {
        assert_eq!(error(suberror, &[1, 2, 3]).emulation(), None);
    }
}

#[test]
fn ndata_is_not_read_from_a_kernel_that_left_it_stale() {
    let mut page = stale_page();
    for (arch, expected) in [(Arch::X86, 0), (Arch::Arm64, 1)] {
        let kernel = Kernel { dialect: Dialect::Linux5_17, arch };
        let event = SystemEvent { event: EventType::Reset, data: Words::new(expected, [0; 16]) };
        let entered = encode(&Exit::SystemEvent(event), kernel, &mut page);
        assert_eq!(decode(entered, &page, kernel), Ok(Exit::SystemEvent(event)));
    }
}

#[test]
fn bit_31_is_part_of_the_event_type() {
    let event = EventType::from_number(0x8000_0006);
    assert_eq!(event, EventType::Unknown(0x8000_0006));
    assert_eq!(event.number(), 0x8000_0006);
    for number in 0..64 {
        assert_eq!(EventType::from_number(number).number(), number);
    }
}

#[test]
fn ndata_above_16_is_kept_and_not_read_past() {
    let words = Words::new(u32::MAX, [7; 16]);
    assert_eq!(words.count, u32::MAX);
    assert_eq!(words.as_slice().len(), 16);
    assert_eq!(Words::new(2, [7; 16]).as_slice(), [7, 7]);
    assert_eq!(Words::new(2, [7; 16]), Words::from_slice(&[7, 7]));
}

#[test]
fn a_page_state_change_leaves_the_flags_stale_and_presets_ret_in_its_dialect() {
    for (dialect, ret) in [(Dialect::Linux6_12, [0xaa; 8]), (Dialect::Linux7_2, [0; 8])] {
        let mut page = stale_page();
        map_gpa_range_by_psc(0x5000, 1, 0x10, Kernel { dialect, arch: Arch::X86 }, &mut page);
        assert_eq!(page.exit[32..56], [0xaa; 24], "args[3..] are not written");
        assert_eq!(page.exit[56..64], ret);
        assert_eq!(page.exit[64..72], [0xaa; 8]);
    }
}

#[test]
fn bytes_that_contradict_the_interface_are_refused() {
    let io = run_io(2, 1, 1, 0x1000);
    assert_eq!(io, Err(DecodeError::IoDirection { direction: 2 }));
    for size in 0..=u8::MAX {
        let expected = if matches!(size, 1..=7) { None } else { Some(DecodeError::IoSize { size }) };
        assert_eq!(
            run_io(0, size, 1, 0x1000).err(),
            expected,
            "the size of a guest's GHCB is a number of 3 bits"
        );
    }
    for (count, offset) in [(1, 0), (4097, 0x1000), (1, 0x2000), (u32::MAX, 0x1000), (1, u64::MAX)] {
        let refused = run_io(1, 1, count, offset);
        assert_eq!(refused, Err(DecodeError::IoData { offset, bytes: u64::from(count) }));
    }
    assert!(run_io(1, 1, 4096, 0x1000).is_ok());
    let mut page = RunPage::zeroed();
    page.exit_reason = ExitReason::MMIO.0;
    for len in [0, 9, u32::MAX] {
        page.set_bytes(16, &len.to_le_bytes());
        assert_eq!(decode(Ok(()), &page, KERNEL), Err(DecodeError::MmioLen { len }));
    }
}

fn run_io(direction: u8, size: u8, count: u32, data_offset: u64) -> Result<Exit, DecodeError> {
    let mut page = RunPage::zeroed();
    page.exit_reason = ExitReason::IO.0;
    page.set_payload(&exeunt_abi::kvm::run::Io { direction, size, port: 0x80, count, data_offset });
    decode(Ok(()), &page, KERNEL)
}
