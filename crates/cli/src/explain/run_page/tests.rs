use super::*;
use exeunt_abi::{Arch, Dialect, Kernel};

/// A page with an exit reason and bytes at offsets of `kvm_run`, the rest as a test of a real kernel fills it.
fn page(reason: u32, parts: &[(usize, &[u8])]) -> Input {
    let mut bytes = vec![0; HEAD_BYTES];
    bytes[UNION..].fill(0xaa);
    bytes[8..12].copy_from_slice(&reason.to_le_bytes());
    for (at, part) in parts {
        bytes[*at..at + part.len()].copy_from_slice(part);
    }
    Input { name: "page".into(), bytes, is_text: false }
}

fn on(dialect: Dialect) -> Settings {
    Settings { kernel: Kernel { dialect, arch: Arch::X86 }, ..Settings::default() }
}

fn field<'a>(explanation: &'a Explanation, name: &str) -> &'a Field {
    explanation.fields.iter().find(|field| field.name == name).unwrap()
}

/// As 6.1 and 7.2 were measured to write it.
fn map_gpa(ret: Option<u64>, flags: &[u8]) -> Input {
    let words = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let (call, ret) = (words(&[12, 0x10_0000, 2, 0x10]), ret.map(u64::to_le_bytes));
    page(3, &[(0x20, &call), (0x58, ret.as_ref().map_or(&[], |ret| ret.as_slice())), (0x60, flags)])
}

#[test]
fn a_conversion_is_read_as_each_kernel_wrote_it() {
    let new = explain(&map_gpa(Some(0), &1u64.to_le_bytes()), &on(Dialect::Linux7_2)).unwrap();
    assert_eq!(
        new.title,
        "KVM_EXIT_HYPERCALL (3): KVM_HC_MAP_GPA_RANGE, make [0x100000-0x101fff] private: 2 pages"
    );
    assert_eq!((field(&new, "flags").value.as_str(), field(&new, "ret").value.as_str()), ("0x0", "0"));
    assert!(field(&new, "args[3..6]").meaning.starts_with("stale"));
    let old = explain(&map_gpa(None, &[1, 0, 0, 0]), &on(Dialect::Linux6_1)).unwrap();
    let flags = old.fields.iter().find(|field| field.offset == "0x60").unwrap();
    assert_eq!(flags.value, "0x1", "the upper half is stale and dropped");
    assert!(field(&old, "ret").meaning.contains("stale on this kernel"));
}

#[test]
fn a_memory_fault_needs_its_errno_and_a_stale_page_is_not_read() {
    let fault = [8u64, 0x5000, 0x1000].iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let input = page(39, &[(0x20, &fault)]);
    let assumed = explain(&input, &on(Dialect::Linux7_2)).unwrap();
    assert!(assumed.title.contains("a private access to 0x1000 bytes at 0x5000"), "{}", assumed.title);
    assert!(assumed.fields[0].meaning.contains("MF-1"));
    let with = |errno| Settings { entered: Some(Err(errno)), ..on(Dialect::Linux7_2) };
    assert!(explain(&input, &with(Errno::EHWPOISON)).unwrap().title.contains("poisoned"));
    let stale = explain(&input, &with(Errno::EINVAL)).unwrap();
    assert!(stale.title.contains("stale") && stale.fields.iter().all(|field| field.name != "gpa"));
    // EFAULT alone is not enough, as a page that is unmapped showed on a real kernel.
    let zero = explain(&page(0, &[]), &with(Errno::EFAULT)).unwrap();
    assert!(zero.title.contains("KVM_RUN failed with EFAULT") && zero.advice.contains("MF-1"));
}

#[test]
fn a_termination_says_why_in_each_form_of_the_struct() {
    let msr = 0x2_1100u64.to_le_bytes();
    let shipped = page(24, &[(0x20, &[6, 0, 0, 0, 1, 0, 0, 0]), (0x28, &msr)]);
    let title = explain(&shipped, &on(Dialect::Linux7_2)).unwrap().title;
    assert_eq!(
        title,
        "KVM_EXIT_SYSTEM_EVENT (24): SEV_TERM, reason set 0x1, code 0x2: PVALIDATE failed (PVALIDATE)"
    );
    let queued = page(24, &[(0x20, &[4, 0, 0, 0x80, 1, 0, 0, 0]), (0x30, &msr)]);
    assert!(explain(&queued, &on(Dialect::SevTermV4_1)).unwrap().title.contains("SEV_TERM, reason set 0x1"));
    let unknown = explain(&queued, &on(Dialect::Linux7_2)).unwrap();
    assert!(unknown.title.contains("an unknown type (0x80000004)") && unknown.reserved[0].contains("SE-1"));
    let old = explain(&shipped, &on(Dialect::Linux5_17)).unwrap();
    assert!(field(&old, "ndata").meaning.starts_with("garbage"));
}

#[test]
fn too_many_words_and_unknown_flags_are_called_out() {
    let event = page(24, &[(0x20, &[6, 0, 0, 0, 17, 0, 0, 0])]);
    assert!(explain(&event, &on(Dialect::Linux7_2)).unwrap().reserved[0].contains("SE-2"));
    let fault = page(39, &[(0x20, &[0x18, 0, 0, 0, 0, 0, 0, 0])]);
    let reserved = explain(&fault, &on(Dialect::Linux7_2)).unwrap().reserved;
    assert!(reserved[0].contains("bit 4 (0x10)") && reserved[0].contains("MF-2"));
}

#[test]
fn what_the_kernel_must_not_write_is_said_with_the_bytes() {
    let explanation = explain(&page(6, &[(0x30, &[9, 0, 0, 0])]), &on(Dialect::Linux7_2)).unwrap();
    assert!(explanation.title.ends_with("contradicts its own interface: mmio.len is 9"));
    assert_eq!(explanation.fields.iter().filter(|field| field.name == "bytes").count(), 16);
}

#[test]
fn port_data_is_shown_where_the_port_page_is_there() {
    let mut input = page(2, &[(0x20, &[1, 1, 0xf8, 3, 2, 0, 0, 0]), (0x28, &0x1000u64.to_le_bytes())]);
    input.bytes.resize(8192, 0);
    input.bytes[0x1000..0x1002].copy_from_slice(b"hi");
    let explanation = explain(&input, &on(Dialect::Linux7_2)).unwrap();
    assert_eq!(field(&explanation, "data").value, "6869");
    assert!(explanation.title.ends_with("OUT to port 0x3f8, 2 x 1 bytes"));
}

#[test]
fn the_union_alone_needs_its_reason() {
    let mut union = page(0, &[(0x20, &[6, 0, 0, 0, 1, 0, 0, 0])]);
    union.bytes.drain(..UNION);
    let with = Settings { reason: Some(ExitReason::SYSTEM_EVENT), ..on(Dialect::Linux7_2) };
    assert!(explain(&union, &with).unwrap().title.contains("SEV_TERM"));
    assert!(explain(&union, &on(Dialect::Linux7_2)).unwrap_err().contains("--reason"));
    assert!(explain(&page(0, &[]), &with).unwrap_err().contains("of their own at 0x8"));
    union.bytes.pop();
    assert!(explain(&union, &with).unwrap_err().contains("which has 256"));
    assert!(explain(&union, &on(Dialect::Linux7_2)).unwrap_err().contains("ends at offset 0xff"));
}
