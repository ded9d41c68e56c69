use super::*;

#[test]
fn a_payload_reads_back_and_leaves_the_bytes_behind_it_alone() {
    let mut page = RunPage::zeroed();
    page.exit = [0xaa; UNION_BYTES];
    let fault = MemoryFault { flags: MEMORY_EXIT_FLAG_PRIVATE, gpa: 0x5000, size: 0x1000 };
    page.set_payload(&fault);
    assert_eq!(page.payload::<MemoryFault>(), fault);
    assert_eq!(page.exit[24..], [0xaa; UNION_BYTES - 24]);
}

#[test]
fn bytes_outside_the_union_are_dropped_and_read_as_zero() {
    let mut page = RunPage::zeroed();
    page.set_bytes(254, &[1, 2, 3, 4]);
    assert_eq!(page.exit[254..], [1, 2]);
    assert_eq!(page.u32_at(254), 0);
    assert_eq!(page.u32_at(300), 0);
    page.set_bytes(300, &[9]);
    assert_eq!(page.u32_at(252), 0x0201_0000);
}

#[test]
fn the_hypercall_ret_of_the_run_page_is_at_byte_88() {
    let mut page = RunPage::zeroed();
    let hypercall = Hypercall { nr: 12, args: [1, 2, 3, 0, 0, 0], ret: u64::MAX, flags: 1 };
    page.set_payload(&hypercall);
    let bytes = page.as_bytes();
    assert_eq!(bytes[88..96], [0xff; 8]);
    assert_eq!(bytes[96], 1);
}

#[test]
fn an_old_i386_reader_finds_ndata_where_it_expects_flags() {
    let mut page = RunPage::zeroed();
    let mut data = [0; 16];
    data[0] = PSCI_RESET2;
    page.set_payload(&SystemEvent { event_type: event_type::RESET, ndata: 1, data });
    assert_eq!(page.payload::<SystemEventV5_17>().flags, 1);
    assert_eq!(page.payload::<SystemEventV5_17Ilp32>().flags.get(), 0x1_0000_0001);
}

#[test]
fn every_reason_up_to_43_has_a_name_and_no_other() {
    for number in 0..=43 {
        assert!(ExitReason(number).name().is_some(), "{number}");
    }
    for number in 44..0x1000 {
        assert_eq!(ExitReason(number).name(), None);
    }
    assert_eq!(ExitReason(u32::MAX).name(), None);
}

#[test]
fn every_reason_comes_back_from_its_name() {
    for number in 0..=43 {
        let name = ExitReason(number).name().unwrap();
        assert_eq!(ExitReason::from_name(name), Some(ExitReason(number)));
    }
    assert_eq!(ExitReason::from_name("VMGEXIT"), None);
}

#[test]
fn every_form_of_a_tdx_call_answers_at_byte_48_of_the_run_page() {
    let mut page = RunPage::zeroed();
    let (flags, ret) = (0, u64::MAX);
    page.set_payload(&TdxGetQuote { flags, nr: 0x10002, ret, gpa: 0x5000, size: 24 });
    let unknown: Tdx = page.payload();
    assert_eq!((unknown.nr, unknown.ret, unknown.data), (0x10002, ret, [0x5000, 24, 0, 0, 0]));
    page.set_payload(&TdxSetupEventNotify { flags, nr: 0x10004, ret, vector: 33 });
    assert_eq!(page.payload::<Tdx>().data, [33, 24, 0, 0, 0]);
    let info = TdxGetTdVmCallInfo { flags, nr: 0x10000, ret, leaf: 1, r11: 2, r12: 3, r13: 4, r14: 5 };
    page.set_payload(&info);
    assert_eq!(page.payload::<Tdx>().data, [1, 2, 3, 4, 5]);
    assert_eq!(page.as_bytes()[48..56], [0xff; 8]);
}

#[test]
fn an_emulation_failure_is_an_internal_error_by_another_name() {
    let mut page = RunPage::zeroed();
    let mut data = [0; 16];
    data[..3].copy_from_slice(&[1, 0x9090_9090_90c3_0f02, 0x9090_9090_9090_9090]);
    page.set_payload(&InternalError { suberror: suberror::EMULATION, ndata: 3, data });
    let failure: EmulationFailure = page.payload();
    assert_eq!((failure.flags, failure.insn_size), (EMULATION_FLAG_INSTRUCTION_BYTES, 2));
    assert_eq!(failure.insn_bytes[..2], [0x0f, 0xc3]);
    assert_eq!(page.as_bytes()[48], 2);
}

#[test]
fn a_reader_of_the_shipped_form_finds_flags_of_the_queued_one_in_its_first_word() {
    let mut page = RunPage::zeroed();
    let event_type = sev_term_v4_1::SEV_TERM | sev_term_v4_1::NDATA_VALID;
    let mut data = [0; 16];
    data[0] = 0x1234_5100;
    page.set_payload(&SystemEventQueued { event_type, ndata: 1, flags: 7, data });
    let shipped: SystemEvent = page.payload();
    assert_eq!((shipped.ndata, shipped.data[0], shipped.data[1]), (1, 7, 0x1234_5100));
    assert_eq!(event_type::name(shipped.event_type), None, "bit 31 is part of the number");
    page.set_payload(&SystemEventV4_1 { event_type, ndata: 1, data });
    assert_eq!(page.payload::<SystemEvent>().data[0], 0x1234_5100);
}
