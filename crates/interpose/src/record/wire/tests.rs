use super::*;
use proptest::prelude::*;

fn file() -> impl Strategy<Value = File> {
    prop_oneof![
        Just(File::System),
        any::<u32>().prop_map(File::Vm),
        any::<(u32, u32)>().prop_map(|(vm, vcpu)| File::Vcpu(vm, vcpu)),
        any::<(u32, u32)>().prop_map(|(vm, number)| File::Gmem(vm, number)),
        any::<u32>().prop_map(File::Device),
        Just(File::Sev),
    ]
}

fn result() -> impl Strategy<Value = Result<u32, Errno>> {
    prop_oneof![any::<u32>().prop_map(Ok), (1i32..4096).prop_map(|errno| Err(Errno(errno)))]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..80)
}

fn run() -> impl Strategy<Value = Run> {
    let page = || {
        any::<(u32, u8, u64)>().prop_map(|(reason, fill, cr8)| {
            let mut page = RunPage::zeroed();
            page.exit_reason = reason;
            page.cr8 = cr8;
            page.exit.fill(fill);
            page
        })
    };
    (any::<(u32, u32, bool, bool)>(), page(), result(), page()).prop_map(
        |((vm, vcpu, immediate, injected), before, result, after)| {
            let result = result.map(|_| ());
            Run { vm, vcpu, immediate, injected, before, result, after }
        },
    )
}

fn what() -> impl Strategy<Value = What> {
    let memory = prop_oneof![
        (file(), any::<u64>(), any::<u64>()).prop_map(|(file, offset_bytes, bytes)| Memory::Private {
            file,
            offset_bytes,
            bytes
        }),
        any::<(u64, u64)>().prop_map(|(uaddr, bytes)| Memory::Shared { uaddr, bytes }),
    ];
    prop_oneof![
        (file(), result()).prop_map(|(file, result)| What::Opened { file, result }),
        (file(), any::<(u32, u64)>(), bytes(), bytes(), result(), proptest::option::of(file())).prop_map(
            |(on, (request, arg), before, after, result, made)| What::Ioctl {
                on,
                request,
                arg,
                before,
                after,
                result,
                made
            }
        ),
        run().prop_map(|run| What::Run(Box::new(run))),
        run().prop_map(|Run { vm, vcpu, immediate, before, .. }| What::Inside {
            vm,
            vcpu,
            immediate,
            before: Box::new(before)
        }),
        (file(), any::<u64>()).prop_map(|(on, count)| What::PlainRuns { on, count }),
        (memory, result()).prop_map(|(memory, result)| What::Discard { memory, result: result.map(|_| ()) }),
        (any::<(u32, u64)>(), bytes()).prop_map(|((vm, gpa), bytes)| What::Wrote { vm, gpa, bytes }),
        Just(What::SceneOver),
        Just(What::Hung),
        ".{0,40}".prop_map(|why| What::Trouble { why }),
    ]
}

proptest! {
    #[test]
    fn what_was_encoded_comes_back_and_a_piece_of_it_does_not(pid: u32, what in what(), cut in 1usize..40) {
        let record = Record { pid, what };
        let bytes = encode(&record);
        prop_assert_eq!(decode(&bytes), Some(record));
        let shorter = bytes.len().saturating_sub(cut);
        prop_assert_eq!(decode(&bytes[..shorter]), None);
        prop_assert_eq!(decode(&[bytes, vec![0]].concat()), None);
    }

    #[test]
    fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        if let Some(record) = decode(&bytes) {
            prop_assert_eq!(encode(&record), bytes);
        }
    }
}
