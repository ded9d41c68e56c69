use super::*;

fn log(text: &str) -> Log {
    let input = Input { name: "test.log".into(), bytes: text.as_bytes().to_vec(), is_text: true };
    read(&input, &Settings::default())
}

#[test]
fn each_form_of_line_leads_to_its_meaning() {
    let cases = [
        ("KVM: unknown exit reason 24", "KVM_EXIT_SYSTEM_EVENT (24)"),
        ("kvm: exit_reason=43 unhandled", "KVM_EXIT_SNP_REQ_CERTS (43)"),
        (
            "[ 12.3] kvm_amd: SEV-ES guest requested termination: 0x1:0x2",
            "reason set 0x1, code 0x2: PVALIDATE",
        ),
        ("kvm_amd: SEV-ES guest requested termination: reason 0x20 info 0x0", "SNP features not supported"),
        ("KVM: entry failed, hardware error 0xffffffff", "KVM_EXIT_FAIL_ENTRY (9)"),
        ("KVM internal error. Suberror: 4", "UNEXPECTED_EXIT_REASON"),
        ("error: kvm run failed Bad address", "KVM_RUN failed with EFAULT"),
        ("error: kvm run failed Function not implemented", "KVM_RUN failed with errno 38"),
        ("Error: VCPU run failed: Input/output error (os error 5)", "KVM_RUN failed with EIO"),
        ("[pid 7] ioctl(13, KVM_RUN, 0) = -1 EFAULT (Bad address)", "KVM_RUN failed with EFAULT"),
        ("ioctl(13<anon_inode:kvm-vcpu:0>, KVM_RUN, 0) = 0 (KVM_EXIT_MMIO)", "KVM_EXIT_MMIO (6)"),
        ("ioctl(12, KVM_SET_MEMORY_ATTRIBUTES, 0x7ffd) = 0", "KVM_SET_MEMORY_ATTRIBUTES (0x4020aed2)"),
        ("ioctl(12, _IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xba, 0x8), 0x7f) = 0", "KVM_MEMORY_ENCRYPT_OP"),
        ("ioctl(12, 0xc004aeba, 0x7f) = -1 ENOTTY (Inappropriate)", "a 32-bit form that no kernel takes"),
        ("vmm: unexpected ioctl 0x4040aea0 denied", "KVM_SET_VCPU_EVENTS"),
        ("SVM: kvm: vmgexit: exit code 0x80000014 is not valid", "HV_DOORBELL_PAGE"),
        ("vmgexit: unsupported event - exit_info_1=0x72, exit_info_2=0x0", "UNSUPPORTED_EVENT"),
        ("Detected error from ASP request. rc: -5, exitinfo2: 0x200000000", "BUSY"),
        ("vcpu0: KVM_SYSTEM_EVENT_TDX_FATAL", "TDX_FATAL (0x7)"),
    ];
    for (line, expected) in cases {
        let log = log(line);
        assert!(
            log.findings.iter().any(|finding| finding.reading.title.contains(expected)),
            "{line}: {log:?}"
        );
        assert_eq!((log.known, log.unknown), (1, 0), "{line}");
    }
}

#[test]
fn lines_about_something_else_are_counted_and_left_alone() {
    let log = log(
        "kvm: vmx: unexpected exit reason 0x33\n\nRAX=0 RBX=0\nioctl(3, TCGETS, {}) = 0\nexit reason unknown\n",
    );
    assert_eq!((log.known, log.unknown, log.findings.len()), (0, 4, 0));
    assert_eq!(log.title, "0 of 4 lines explained, 4 not known");
}

#[test]
fn what_is_said_often_is_explained_once() {
    let log = log(&"KVM: unknown exit reason 43\nnoise\n".repeat(12));
    assert_eq!((log.known, log.unknown, log.findings.len()), (12, 12, 1));
    let text = text(&log);
    assert!(
        text.contains("lines 1, 3, 5, 7, 9, 11, 13, 15 and 4 more\n  > KVM: unknown exit reason 43\n"),
        "{text}"
    );
}

#[test]
fn a_run_page_in_the_log_is_recognised() {
    let mut page = [0u8; 288];
    page[8] = 24;
    page[32] = 6;
    page[36] = 1;
    page[40..43].copy_from_slice(&[0, 0x11, 2]);
    let rows = page.chunks(16).enumerate().map(|(row, bytes)| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:08x}: {}  ................\n", row * 16, digits.join(" "))
    });
    let log = log(&format!("dump of kvm_run follows\n{}end\n", rows.collect::<String>()));
    assert_eq!((log.known, log.unknown), (18, 2));
    assert!(log.findings[0].reading.title.contains("PVALIDATE"), "{log:?}");
    assert_eq!(log.findings[0].lines, [2]);
}

#[test]
fn control_characters_of_the_log_do_not_reach_the_terminal() {
    let log = log("\u{1b}[31mKVM: unknown exit reason 43\u{7}");
    assert!(log.findings[0].text.chars().all(|letter| !letter.is_control()), "{:?}", log.findings[0].text);
}
