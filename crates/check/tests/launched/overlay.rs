//! A guest on a real kernel does not notice what is put in between its exits.

use super::machine::{SETUP, both_ways};
use exeunt_interpose::launch::Ended;
use exeunt_interpose::plan::{Plan, Stage};
use exeunt_interpose::record::What;

/// Reads eight bytes of a device, one by one, and writes each of them to a port.
const GUEST: &str = r"
    unsigned char code[] = {
        0xb8, 0x00, 0xc0,       /* mov ax, 0xc000: where no memory is, from 0xc0000 on */
        0x8e, 0xd8,             /* mov ds, ax */
        0x31, 0xdb,             /* xor bx, bx */
        0x8a, 0x07,             /* mov al, [bx] */
        0xe6, 0x10,             /* out 0x10, al */
        0xe4, 0x11,             /* in al, 0x11 */
        0xe6, 0x10,             /* out 0x10, al */
        0x43,                   /* inc bx */
        0x83, 0xfb, 0x08,       /* cmp bx, 8 */
        0x75, 0xf2,             /* jne to the read */
        0xf4,                   /* hlt */
    };
    struct kvm_sregs sregs; struct kvm_regs regs = { .rip = 0x1000, .rflags = 2 };
    slot.memory_size = 0xa0000;
    ioctl(vm, KVM_SET_USER_MEMORY_REGION, &(struct kvm_userspace_memory_region) { 0 });
    ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot);
    memcpy((char *) slot.userspace_addr + 0x1000, code, sizeof code);
    ioctl(vcpu, KVM_GET_SREGS, &sregs);
    sregs.cs.base = sregs.cs.selector = 0;
    ioctl(vcpu, KVM_SET_SREGS, &sregs);
    ioctl(vcpu, KVM_SET_REGS, &regs);
";

/// A VMM that serves the guest, and leaves nonsense in the page at every exit that it does not know.
const SERVE: &str = r#"
    for (int n = 0x50, p = 0xa0;;) {
        int result = ioctl(vcpu, KVM_RUN, 0L);
        unsigned char *port = (unsigned char *) run + run->io.data_offset;
        if (result < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (result < 0) return 1;
        switch (run->exit_reason) {
        case KVM_EXIT_MMIO: if (!run->mmio.is_write) run->mmio.data[0] = n++; break;
        case KVM_EXIT_IO: if (run->io.direction) printf("%02x ", *port); else *port = p++; break;
        case KVM_EXIT_HLT: return 0;
        default: memset((char *) run + 32, 0xee, 256);
        }
    }
"#;

fn exits_put_in(scene: &str, seed: u64, enable: &str) {
    if !std::path::Path::new("/dev/kvm").exists() {
        println!("skipped, there is no /dev/kvm");
        return;
    }
    let plan = Plan { seed, ..Plan::new(Stage::Overlay).with_scene(scene) };
    let body = format!("{SETUP} {enable} {GUEST} {SERVE}");
    both_ways(&format!("{scene}-{seed}"), &plan, &body, |ran| {
        let put_in = |what: &What| matches!(what, What::Run(run) if run.injected && !run.immediate);
        let count = ran.records.iter().filter(|record| put_in(&record.what)).count();
        assert!(
            count > 0 && ran.records.iter().any(|record| record.what == What::SceneOver),
            "{:?}",
            ran.records
        );
        assert_eq!(ran.end, Ended::Exited(0), "{}", ran.output.text);
        let pair = |n: u32| format!("{:02x} {:02x} ", 0x50 + n, 0xa0 + n);
        let expected = (0..8).map(pair).collect::<Vec<_>>().concat();
        assert_eq!(ran.output.text, expected);
    });
}

#[test]
fn interruptions_come_between_an_access_and_its_answer_and_the_guest_reads_on() {
    for seed in 0..4 {
        exits_put_in("overlay-interrupted", seed, "");
    }
}

#[test]
fn what_a_vmm_leaves_in_the_page_at_an_exit_that_was_put_in_is_not_what_the_guest_reads() {
    for seed in 0..4 {
        exits_put_in("overlay-newer-exit", seed, "");
        exits_put_in("overlay-newer-event", seed, "");
    }
}

#[test]
fn conversions_come_to_a_vmm_that_enabled_them() {
    let enable = "struct kvm_enable_cap cap = { .cap = KVM_CAP_EXIT_HYPERCALL, .args = { 1 << 12 } }; \
                  if (!(ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_EXIT_HYPERCALL) & 1 << 12)) return 2; \
                  if (ioctl(vm, KVM_ENABLE_CAP, &cap)) return 3;";
    for seed in 0..4 {
        exits_put_in("overlay-conversion", seed, enable);
    }
}
