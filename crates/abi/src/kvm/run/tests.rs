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
