use super::super::bpf::tests::interpret;
use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;

fn judge(stage: Stage, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let mut data = [0; 64];
    data[..4].copy_from_slice(&nr.to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    for (index, arg) in args.into_iter().enumerate() {
        data[16 + 8 * index..][..8].copy_from_slice(&arg.to_ne_bytes());
    }
    interpret(Filter::for_stage(stage).program(), &data)
}

fn native(stage: Stage, nr: libc::c_long, args: [u64; 6]) -> u32 {
    judge(stage, ARCH_X86_64, number(nr), args)
}

fn ioctl_of(stage: Stage, request: u64) -> u32 {
    native(stage, libc::SYS_ioctl, [7, request, 0x1000, 0, 0, 0])
}

#[test]
fn every_stage_has_a_program_that_the_kernel_takes() {
    for stage in Stage::ALL {
        let length = Filter::for_stage(stage).program().len();
        assert!((1..=4096).contains(&length), "{stage}: {length}");
    }
}

#[test]
fn the_real_kernel_does_all_but_entries_and_rare_calls_at_full_speed() {
    for stage in [Stage::Observe, Stage::Overlay] {
        for number in 0..500 {
            let stops = native(stage, number, [0; 6]) == NOTIFY;
            assert_eq!(stops, number == libc::SYS_fallocate, "{number}");
        }
        for known in ioctl::KNOWN {
            let stops = ioctl_of(stage, known.ioctl.0.into()) == NOTIFY;
            assert_eq!(stops, SEEN.contains(&known.ioctl), "{}", known.name);
        }
        for advice in 0..120 {
            let stops = native(stage, libc::SYS_madvise, [0, 0, advice, 0, 0, 0]) == NOTIFY;
            assert_eq!(stops, [4, 8, 9, 24].contains(&advice), "{advice}");
        }
    }
}

#[test]
fn the_whole_request_decides() {
    // All of these have the number of an observed request and another direction, size or type.
    for request in [0xae80, 0x0000_ae80_u64 | 1 << 32] {
        assert_eq!(
            ioctl_of(Stage::Observe, request),
            NOTIFY,
            "the kernel drops the upper half: {request:#x}"
        );
    }
    for request in [0x4000_ae80, 0x8000_ae80, 0x0001_ae80, 0xaf80, 0xae81, 0x80, 0xae00] {
        assert_eq!(ioctl_of(Stage::Observe, request), ALLOW, "{request:#x}");
    }
    // `KVM_GET_TSC_KHZ` shares its number with `KVM_ENABLE_CAP`.
    assert_eq!(ioctl_of(Stage::Overlay, ioctl::KVM_GET_TSC_KHZ.0.into()), ALLOW);
    assert_eq!(ioctl_of(Stage::Overlay, ioctl::KVM_ENABLE_CAP.0.into()), NOTIFY);
}

#[test]
fn the_script_sees_each_ioctl_of_kvm_and_of_the_secure_processor_and_no_other() {
    for number in 0..=0xff_u64 {
        for form in [0, 0x4000_0000, 0x8000_0000, 0xc010_0000] {
            assert_eq!(ioctl_of(Stage::Scripted, form | 0xae00 | number), NOTIFY);
            let sev = form | 0x5300 | number;
            let expected = if sev == 0xc010_5300 { NOTIFY } else { ALLOW };
            assert_eq!(ioctl_of(Stage::Scripted, sev), expected, "{sev:#x}");
        }
    }
    // `TCGETS`, `FIONREAD`, `VHOST_SET_OWNER`.
    for request in [0x5401, 0x541b, 0xaf01] {
        assert_eq!(ioctl_of(Stage::Scripted, request), ALLOW, "{request:#x}");
    }
}

#[test]
fn the_script_sees_paths_and_memory_that_is_given_back_and_nothing_else() {
    let seen = [
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_access,
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_stat,
        libc::SYS_lstat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_close,
        libc::SYS_close_range,
        libc::SYS_dup2,
        libc::SYS_dup3,
        libc::SYS_fallocate,
    ];
    for number in 0..500 {
        let stops = native(Stage::Scripted, number, [0; 6]) == NOTIFY;
        assert_eq!(stops, seen.contains(&number), "{number}");
    }
    for advice in 0..120 {
        let stops = native(Stage::Scripted, libc::SYS_madvise, [0, 0, advice, 0, 0, 0]) == NOTIFY;
        assert_eq!(stops, [4, 8, 9, 24].contains(&advice), "{advice}");
    }
    let empty_path = [3, 0, 0, 0x1000, 0, 0];
    assert_eq!(native(Stage::Scripted, libc::SYS_newfstatat, empty_path), ALLOW);
}

#[test]
fn code_of_32_bits_is_stopped_only_where_it_could_open_a_device() {
    for number in 0..500 {
        for stage in Stage::ALL {
            let stops = judge(stage, ARCH_I386, number, [0, 0xae80, 4, 0, 0, 0]) == NOTIFY;
            assert_eq!(
                stops,
                stage == Stage::Scripted && [5, 295, 437].contains(&number),
                "{stage} {number}"
            );
            let stops = judge(stage, ARCH_X86_64, number | X32, [0, 0xae80, 4, 0, 0, 0]) == NOTIFY;
            assert_eq!(
                stops,
                stage == Stage::Scripted && [2, 257, 437].contains(&number),
                "{stage} {number}"
            );
        }
    }
    assert_eq!(judge(Stage::Scripted, 0x1234, 2, [0; 6]), ALLOW);
}
