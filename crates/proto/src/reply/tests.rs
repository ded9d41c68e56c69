use super::*;
use exeunt_abi::kvm::run::UNION_BYTES;

fn stale_page() -> RunPage {
    let mut page = RunPage::zeroed();
    page.exit = [0xaa; UNION_BYTES];
    page
}

#[test]
fn a_conversion_is_answered_with_0_22_or_11_and_nothing_else_is_written() {
    let answers = [(ConversionReply::Done, 0), (ConversionReply::Invalid, 22), (ConversionReply::Again, 11)];
    for (answer, ret) in answers {
        let mut page = stale_page();
        encode(Reply::Conversion(answer), Kernel::default(), &mut page);
        assert_eq!(page.payload::<Hypercall>().ret, ret);
        assert_eq!(page.exit[..56], [0xaa; 56]);
        assert_eq!(page.exit[64..], [0xaa; UNION_BYTES - 64]);
    }
}

#[test]
fn an_unknown_hypercall_is_refused_and_not_answered_with_success() {
    let mut page = RunPage::zeroed();
    encode(Reply::UnknownHypercall, Kernel::default(), &mut page);
    assert_eq!(page.payload::<Hypercall>().ret, 1000u64.wrapping_neg());
}

#[test]
fn only_a_buffer_that_is_too_small_changes_npages() {
    let answers = [
        (CertsReply::Installed, 0, 3),
        (CertsReply::TooSmall { pages: 9 }, 28, 9),
        (CertsReply::Busy, 11, 3),
        (CertsReply::Failed, 5, 3),
    ];
    for (answer, ret, npages) in answers {
        let mut page = stale_page();
        page.set_payload(&SnpReqCerts { gpa: 0x1000, npages: 3, ret: 0xaa });
        encode(Reply::Certs(answer), Kernel::default(), &mut page);
        assert_eq!(page.payload::<SnpReqCerts>(), SnpReqCerts { gpa: 0x1000, npages, ret });
    }
}

#[test]
fn no_reply_writes_nothing_and_a_read_fills_only_the_data() {
    let mut page = stale_page();
    encode(Reply::None, Kernel::default(), &mut page);
    assert_eq!(page, stale_page());
    encode(Reply::MmioRead([7; 8]), Kernel::default(), &mut page);
    assert_eq!(page.exit[8..16], [7; 8]);
    page.exit[8..16].fill(0xaa);
    assert_eq!(page, stale_page());
}

#[test]
fn a_status_for_a_td_is_written_to_ret_and_nowhere_else() {
    for status in [Status::SUCCESS, Status::INVALID_OPERAND, Status::GPA_INUSE, Status(77)] {
        let mut page = stale_page();
        encode(Reply::Tdx(TdxReply::Status(status)), Kernel::default(), &mut page);
        assert_eq!(page.payload::<Tdx>().ret, status.0);
        page.exit[16..24].fill(0xaa);
        assert_eq!(page, stale_page(), "{status}");
    }
}

#[test]
fn the_registers_of_an_info_reply_lie_behind_the_leaf_which_stays() {
    let mut page = stale_page();
    encode(Reply::Tdx(TdxReply::Info { r11: 2, r12: 3, r13: 4, r14: 5 }), Kernel::default(), &mut page);
    let stale = 0xaaaa_aaaa_aaaa_aaaa;
    let wire: TdxGetTdVmCallInfo = page.payload();
    let expected =
        TdxGetTdVmCallInfo { flags: stale, nr: stale, ret: 0, leaf: stale, r11: 2, r12: 3, r13: 4, r14: 5 };
    assert_eq!(wire, expected);
    assert_eq!(page.exit[64..], [0xaa; UNION_BYTES - 64]);
}

#[test]
fn a_register_is_read_written_or_faults_and_its_index_stays() {
    let asked = X86Msr { error: 9, pad: [0; 7], reason: 2, index: 0x10, data: 7 };
    let cases = [(MsrReply::Read(99), 0, 99), (MsrReply::Written, 0, 7), (MsrReply::Fault, 1, 7)];
    for (answer, error, data) in cases {
        let mut page = stale_page();
        page.set_payload(&asked);
        encode(Reply::Msr(answer), Kernel::default(), &mut page);
        assert_eq!(page.payload::<X86Msr>(), X86Msr { error, data, ..asked });
        assert_eq!(page.exit[24..], [0xaa; UNION_BYTES - 24]);
    }
}

#[test]
fn the_proposal_of_2024_takes_its_own_numbers_in_32_bits() {
    let kernel = Kernel { dialect: exeunt_abi::Dialect::CocoV1, ..Kernel::default() };
    let answers = [
        (CertsReply::Installed, 0, 3),
        (CertsReply::TooSmall { pages: 9 }, 1, 9),
        (CertsReply::TooSmall { pages: u64::MAX }, 1, u32::MAX),
        (CertsReply::Busy, 1 << 31, 3),
        (CertsReply::Failed, 1 << 31, 3),
    ];
    for (answer, ret, npages) in answers {
        let mut page = stale_page();
        let wire = CocoV1 { nr: 0, pad0: [0; 7], gfn: 7, npages: 3, ret: 0xaa };
        page.set_payload(&wire);
        encode(Reply::Certs(answer), kernel, &mut page);
        assert_eq!(page.payload::<CocoV1>(), CocoV1 { npages, ret, ..wire });
    }
}

#[test]
fn the_proposal_of_2023_takes_a_result_or_a_response() {
    let mut page = stale_page();
    encode(Reply::Vmgexit(VmgexitReply::Page(7)), Kernel::default(), &mut page);
    assert_eq!(page.payload::<VmgexitV10>().ret, 7);
    assert_eq!(page.exit[..8], [0xaa; 8]);
    encode(Reply::Vmgexit(VmgexitReply::Msr(0x15)), Kernel::default(), &mut page);
    assert_eq!(page.payload::<VmgexitV10>(), VmgexitV10 { ghcb_msr: 0x15, ret: 0 });
    assert_eq!(page.exit[16..], [0xaa; UNION_BYTES - 16]);
}
