use super::*;
use exeunt_abi::Errno;
use proptest::prelude::*;

fn page_kinds() -> impl Iterator<Item = &'static Kind> {
    kinds::KINDS.iter().filter(|kind| matches!(kind.takes, Takes::Bytes(_)))
}

/// Explains bytes by every kind that takes bytes, and as a log; what comes out has to be printable.
fn explain_all(bytes: Vec<u8>, settings: &Settings) {
    let input = Input { name: "bytes".into(), bytes, is_text: false };
    for kind in page_kinds() {
        let Takes::Bytes(explain) = kind.takes else { continue };
        match explain(&input, settings) {
            Ok(explanation) => {
                assert!(!explanation.title.is_empty() && !explanation.source.is_empty(), "{}", kind.name);
                let text = print::text(&explanation);
                assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
                assert!(json(&explanation).is_ok());
            }
            Err(line) => assert_eq!(line.lines().count(), 1, "{line}"),
        }
    }
    let _ = guess::of_bytes(&input, settings);
    let _ = log::text(&log::read(&input, settings));
}

fn settings() -> impl Strategy<Value = Settings> {
    let dialect = prop::sample::select(Dialect::all().collect::<Vec<_>>());
    let arch = prop::sample::select(vec![Arch::X86, Arch::Arm64]);
    let entered =
        prop::sample::select(vec![None, Some(Ok(())), Some(Err(Errno::EFAULT)), Some(Err(Errno(4095)))]);
    let reason = prop::option::of((0..60u32).prop_map(ExitReason));
    (dialect, arch, entered, reason).prop_map(|(dialect, arch, entered, reason)| Settings {
        kernel: Kernel { dialect, arch },
        entered,
        reason,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn arbitrary_bytes_panic_no_kind(bytes in prop::collection::vec(any::<u8>(), 0..1300), settings in settings()) {
        explain_all(bytes, &settings);
    }

    #[test]
    fn arbitrary_pages_of_the_right_size_panic_no_kind(
        bytes in prop::collection::vec(any::<u8>(), 4096),
        size in prop::sample::select(vec![16, 24, 64, 96, 256, 288, 1184, 1216, 2032, 4096]),
        reason in 0..60u8,
        settings in settings(),
    ) {
        let mut page = bytes;
        page.truncate(size);
        // A page that got as far as an exit, a message that got as far as its type, a report that has a version.
        for (at, byte) in [(8, reason), (9, 0), (10, 0), (11, 0), (0x31, 1), (0x32, 96), (0x33, 0), (0x37, 0)] {
            if let Some(place) = page.get_mut(at) {
                *place = byte;
            }
        }
        if size >= 1184 {
            page[..4].copy_from_slice(&[reason % 6, 0, 0, 0]);
        }
        explain_all(page, &settings);
    }

    #[test]
    fn every_number_has_a_reading_in_every_kind_or_an_error(value in any::<u64>(), shift in 0..64u32, settings in settings()) {
        let text = format!("{:#x}", value >> shift);
        for kind in kinds::KINDS {
            if let Takes::Number(explain) = kind.takes {
                match explain(&text, &settings) {
                    Ok(explanation) => {
                        let text = print::text(&explanation);
                        prop_assert!(text.lines().all(|line| line.chars().count() <= 100), "{}", text);
                    }
                    Err(line) => prop_assert_eq!(line.lines().count(), 1),
                }
            }
        }
        let _ = guess::of_word(&text, &settings);
    }

    #[test]
    fn arbitrary_lines_panic_no_log(lines in "((ioctl|KVM_RUN|exit reason|_IOC|[(), =:0-9a-fx]|KVM_EXIT_|é|\n){0,40})") {
        let input = Input { name: "log".into(), bytes: lines.into_bytes(), is_text: true };
        let _ = log::text(&log::read(&input, &Settings::default()));
    }
}
