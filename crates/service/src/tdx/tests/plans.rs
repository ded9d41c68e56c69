use super::*;

/// A plan where all memory is shared.
fn planned(policy: &TdxPolicy, call: TdxCall) -> TdxPlan<'_> {
    policy.plan(call, &Memory::new().0.tracked)
}

#[test]
fn a_td_may_choose_each_vector_from_32_to_255_and_no_other() {
    let memory = Memory::new();
    let policy = policy(&memory);
    for vector in (0..=0x200).chain([1 << 32 | 64, u64::MAX]) {
        let got = call(&policy, TdxCall::SetupEventNotify { vector }, &memory);
        let expected = if (32..=255).contains(&vector) { Status::SUCCESS } else { Status::INVALID_OPERAND };
        assert_eq!(got, status(expected), "vector {vector}");
    }
}

#[test]
fn a_vector_is_refused_where_nobody_sends_interrupts_or_the_kernel_does_not_leave_it_to_the_vmm() {
    let memory = Memory::new();
    let with = policy(&memory);
    let not_offered = TdxPolicy { calls: CallInfo::default(), ..with.clone() };
    let arc = Arc::new(memory.clone());
    let quotes = Quotes::new(arc.clone(), memory.0.tracked.clone(), arc, None, QuoteLimits::default());
    let no_notifier = TdxPolicy { quotes: Some(quotes), ..with.clone() };
    let no_quotes = TdxPolicy { quotes: None, ..with };
    for policy in [not_offered, no_notifier, no_quotes, TdxPolicy::default()] {
        for vector in [0, 31, 32, 255, 256] {
            let got = call(&policy, TdxCall::SetupEventNotify { vector }, &memory);
            assert_eq!(got, status(Status::SUBFUNC_UNSUPPORTED), "{policy:?}");
        }
        let info = call(&policy, TdxCall::GetTdVmCallInfo { leaf: 1 }, &memory);
        assert_eq!(info, Reply::Tdx(TdxReply::Info { r11: 0, r12: 0, r13: 0, r14: 0 }), "{policy:?}");
    }
}

#[test]
fn a_td_is_told_of_what_the_kernel_has_and_of_what_this_vmm_has() {
    let memory = Memory::new();
    let mut policy = policy(&memory);
    policy.calls = CallInfo { kernel: [1 << 40, 1 << 50], user: [u64::MAX; 2] };
    let info = call(&policy, TdxCall::GetTdVmCallInfo { leaf: 1 }, &memory);
    let r11 = 1 << 40 | TDVMCALLINFO_SETUP_EVENT_NOTIFY_INTERRUPT;
    assert_eq!(info, Reply::Tdx(TdxReply::Info { r11, r12: 1 << 50, r13: 0, r14: 0 }));
}

#[test]
fn a_call_that_is_not_known_and_a_quote_that_nobody_makes_keep_the_answer_of_kvm() {
    let memory = Memory::new();
    let with = policy(&memory);
    for nr in [0, 10, 0x10001, 0x10003, 0x10005, u64::MAX] {
        let unknown = TdxCall::Unknown { nr, data: [u64::MAX; 5] };
        assert_eq!(call(&with, unknown, &memory), Reply::None, "{nr:#x}");
    }
    for leaf in [0, 2, u64::MAX] {
        assert_eq!(call(&with, TdxCall::GetTdVmCallInfo { leaf }, &memory), Reply::None, "{leaf}");
    }
    assert_eq!(call(&TdxPolicy::default(), GET_QUOTE, &memory), Reply::None);
    assert_eq!(memory.take_writes(), []);
}

#[test]
fn a_buffer_is_whole_pages_of_shared_memory_and_no_larger_than_the_limit() {
    let memory = Memory::new();
    let policy = policy(&memory);
    let refused = |status| TdxPlan::Answer(TdxReply::Status(status));
    for (gpa, size_bytes, expected) in [
        (0x3000, 0, Status::INVALID_OPERAND),
        (0x3000, 0x2_1000, Status::INVALID_OPERAND),
        (0x3000, u64::MAX << 12, Status::INVALID_OPERAND),
        (u64::MAX << 12, 0x2000, Status::INVALID_OPERAND),
        (u64::MAX << 12, 0x1000, Status::INVALID_OPERAND),
        (0x3001, 0x1000, Status::ALIGN_ERROR),
        (0x3800, 0x1000, Status::ALIGN_ERROR),
        (0x3000, 1, Status::ALIGN_ERROR),
        (0x3000, 0x1fff, Status::ALIGN_ERROR),
        (u64::MAX, u64::MAX, Status::ALIGN_ERROR),
    ] {
        let plan = planned(&policy, TdxCall::GetQuote { gpa: Gpa(gpa), size_bytes });
        assert_eq!(plan, refused(expected), "{size_bytes:#x} bytes at {gpa:#x}");
    }
    for size_bytes in [0x1000, 0x2_0000] {
        let plan = planned(&policy, TdxCall::GetQuote { gpa: BUFFER, size_bytes });
        let range = PageRange::new(BUFFER.gfn(), size_bytes / PAGE_SIZE).unwrap();
        assert_eq!(plan, TdxPlan::Quote { range, quotes: policy.quotes.as_ref().unwrap() });
    }
    let behind = TdxCall::GetQuote { gpa: Gpa(MEMORY_BYTES as u64 - 0x1000), size_bytes: 0x2000 };
    assert_eq!(planned(&policy, behind), refused(Status::INVALID_OPERAND), "half of it is no memory");
    memory.make(PageState::Private);
    let private = policy.plan(GET_QUOTE, &memory.0.tracked);
    assert_eq!(private, refused(Status::INVALID_OPERAND), "its second page is private");
}

#[test]
fn each_plan_says_what_it_is() {
    let memory = Memory::new();
    let policy = policy(&memory);
    for (call, expected) in [
        (TdxCall::Unknown { nr: 5, data: [0; 5] }, "enter again with the answer that KVM preset"),
        (TdxCall::SetupEventNotify { vector: 3 }, "answer INVALID_OPERAND"),
        (TdxCall::SetupEventNotify { vector: 77 }, "signal quotes with vector 77"),
        (TdxCall::GetTdVmCallInfo { leaf: 1 }, "tell of the calls 0x2 and 0x0"),
    ] {
        assert_eq!(planned(&policy, call).to_string(), expected);
    }
    assert!(planned(&policy, GET_QUOTE).to_string().starts_with("ask for a quote into "));
}

#[test]
fn the_calls_come_out_of_the_capabilities_of_the_kernel() {
    let capabilities = Capabilities {
        supported_attrs: 0,
        supported_xfam: 0,
        kernel_tdvmcallinfo_1_r11: 1,
        user_tdvmcallinfo_1_r11: 2,
        kernel_tdvmcallinfo_1_r12: 3,
        user_tdvmcallinfo_1_r12: 4,
        reserved: [0; 250],
        cpuid_nent: 0,
        cpuid_padding: 0,
    };
    assert_eq!(CallInfo::from(&capabilities), CallInfo { kernel: [1, 3], user: [2, 4] });
}
