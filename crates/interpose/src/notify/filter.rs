//! Which system calls stop and wait for an answer.
//!
//! A filter sees numbers only: the system call, and the words of its arguments. What hangs on memory or on what is behind
//! a descriptor is decided by the supervisor, which lets everything through that is not its own.

use super::bpf::{Assembler, Instruction, Label};
use crate::plan::Stage;
use exeunt_abi::kvm::ioctl::{self, Ioctl, KVMIO};
use std::mem::offset_of;

/// A seccomp filter. Every system call that it does not stop runs at full speed.
#[derive(Clone, Debug)]
pub struct Filter {
    program: Vec<Instruction>,
    is_patient: bool,
}

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_I386`. Source: Linux v7.2 `include/uapi/linux/audit.h`.
pub(super) const ARCH_X86_64: u32 = 0xc000_003e;
pub(super) const ARCH_I386: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT`.
pub(super) const X32: u32 = 0x4000_0000;

/// Offsets of words in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;
const _: () = assert!(offset_of!(libc::seccomp_data, nr) == NR as usize);
const _: () = assert!(offset_of!(libc::seccomp_data, arch) == ARCH as usize);
const _: () = assert!(offset_of!(libc::seccomp_data, args) == ARGS as usize);

/// The lower half of an argument.
const fn argument(index: u32) -> u32 {
    ARGS + 8 * index
}

/// i386 numbers of calls that take a path. Source: Linux v7.2 `arch/x86/entry/syscalls/syscall_32.tbl`.
pub(super) const I386_OPENS: [u32; 3] = [5, 295, 437];

/// Calls of a path that lead to a descriptor.
pub(super) const OPENS: [libc::c_long; 3] = [libc::SYS_open, libc::SYS_openat, libc::SYS_openat2];

/// Calls that ask whether a file is there.
pub(super) const LOOKS: [libc::c_long; 7] = [
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
];

/// Calls after which a number can lead elsewhere.
const CLOSES: [libc::c_long; 4] = [libc::SYS_close, libc::SYS_close_range, libc::SYS_dup2, libc::SYS_dup3];

/// Advice that gives memory back.
const ADVICE: [libc::c_int; 4] =
    [libc::MADV_DONTNEED, libc::MADV_FREE, libc::MADV_REMOVE, MADV_DONTNEED_LOCKED];
/// Since Linux 5.18.
const MADV_DONTNEED_LOCKED: libc::c_int = 24;

/// The requests that are seen where the real kernel answers: entries, and what is rare and tells who is who. All others
/// run at full speed. Those that read something out of the kernel are of no use, because what they brought cannot be
/// seen; and nor are those that put it back, because nobody could tell what they are held against.
const SEEN: [Ioctl; 12] = [
    ioctl::KVM_RUN,
    ioctl::KVM_CREATE_VM,
    ioctl::KVM_CREATE_VCPU,
    ioctl::KVM_CREATE_GUEST_MEMFD,
    ioctl::KVM_CHECK_EXTENSION,
    ioctl::KVM_ENABLE_CAP,
    ioctl::KVM_SET_USER_MEMORY_REGION,
    ioctl::KVM_SET_USER_MEMORY_REGION2,
    ioctl::KVM_SET_MEMORY_ATTRIBUTES,
    ioctl::KVM_MEMORY_ENCRYPT_OP,
    ioctl::KVM_CREATE_IRQCHIP,
    ioctl::KVM_SET_CPUID2,
];

impl Filter {
    /// The filter of a stage.
    #[must_use]
    pub fn for_stage(stage: Stage) -> Self {
        let program = match stage {
            Stage::Observe | Stage::Overlay => of_requests(&SEEN),
            Stage::Scripted => of_everything(),
        };
        // The tests build every program, so that none is empty; an empty one is refused by the kernel.
        Self { program: program.unwrap_or_default(), is_patient: true }
    }

    /// The same, but a signal interrupts a call that waits for its answer, as it always does before Linux 5.19.
    ///
    /// An exit that could not be brought is kept for the next `KVM_RUN`. But such a kernel may also take an answer and then
    /// drop it for a signal, without a word to the supervisor: an exit is lost then.
    #[must_use]
    pub fn interruptible(self) -> Self {
        Self { is_patient: false, ..self }
    }

    /// The program, for `SECCOMP_SET_MODE_FILTER`.
    #[must_use]
    pub fn program(&self) -> &[libc::sock_filter] {
        &self.program
    }

    /// Flags besides `SECCOMP_FILTER_FLAG_NEW_LISTENER`. A kernel that does not know them can do without.
    #[must_use]
    pub const fn flags(&self) -> u64 {
        if self.is_patient { libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV } else { 0 }
    }
}

/// Where a program ends.
#[derive(Clone, Copy)]
struct Ends {
    notify: Label,
    allow: Label,
}

fn with_ends(body: impl FnOnce(&mut Assembler, Ends)) -> Option<Vec<Instruction>> {
    let mut asm = Assembler::default();
    let ends = Ends { notify: asm.label(), allow: asm.label() };
    body(&mut asm, ends);
    asm.place(ends.allow);
    asm.end_with(libc::SECCOMP_RET_ALLOW);
    asm.place(ends.notify);
    asm.end_with(libc::SECCOMP_RET_USER_NOTIF);
    asm.finish()
}

/// Only these requests of a 64-bit `ioctl`, and memory that is given back. The whole number counts: 0xa3 alone is
/// `KVM_ENABLE_CAP` and `KVM_GET_TSC_KHZ`.
fn of_requests(requests: &[Ioctl]) -> Option<Vec<Instruction>> {
    with_ends(|asm, ends| {
        let [native, on_file, madvise] = std::array::from_fn(|_| asm.label());
        asm.load(ARCH);
        asm.if_equal(ARCH_X86_64, native);
        asm.end_with(libc::SECCOMP_RET_ALLOW);

        asm.place(native);
        asm.load(NR);
        asm.if_equal(number(libc::SYS_ioctl), on_file);
        asm.if_equal(number(libc::SYS_madvise), madvise);
        asm.if_equal(number(libc::SYS_fallocate), ends.notify);
        asm.end_with(libc::SECCOMP_RET_ALLOW);

        asm.place(madvise);
        notify_of_advice(asm, &ends);

        asm.place(on_file);
        asm.load(argument(1));
        for request in requests {
            asm.if_equal(request.0, ends.notify);
        }
    })
}

/// Calls of `madvise` that give memory back are told of, the rest are not.
fn notify_of_advice(asm: &mut Assembler, ends: &Ends) {
    asm.load(argument(2));
    for advice in ADVICE {
        asm.if_equal(advice.unsigned_abs(), ends.notify);
    }
    asm.end_with(libc::SECCOMP_RET_ALLOW);
}

/// Everything that can reach `/dev/kvm` or `/dev/sev`, or what the model hands out for them.
fn of_everything() -> Option<Vec<Instruction>> {
    with_ends(|asm, ends| {
        let [native, i386, on_file, madvise, fstatat] = std::array::from_fn(|_| asm.label());
        asm.load(ARCH);
        asm.if_equal(ARCH_X86_64, native);
        asm.if_equal(ARCH_I386, i386);
        asm.end_with(libc::SECCOMP_RET_ALLOW);

        // The model has no 32-bit entry. Its files are not there for 32-bit code, and nor are the host's.
        asm.place(i386);
        asm.load(NR);
        for number in I386_OPENS {
            asm.if_equal(number, ends.notify);
        }
        asm.end_with(libc::SECCOMP_RET_ALLOW);

        asm.place(native);
        asm.load(NR);
        asm.if_equal(number(libc::SYS_ioctl), on_file);
        asm.if_equal(number(libc::SYS_madvise), madvise);
        asm.if_equal(number(libc::SYS_newfstatat), fstatat);
        let looks = LOOKS.into_iter().filter(|call| *call != libc::SYS_newfstatat);
        for call in OPENS.into_iter().chain(looks).chain(CLOSES).chain([libc::SYS_fallocate]) {
            asm.if_equal(number(call), ends.notify);
        }
        for call in OPENS {
            asm.if_equal(number(call) | X32, ends.notify);
        }
        asm.end_with(libc::SECCOMP_RET_ALLOW);

        asm.place(on_file);
        asm.load(argument(1));
        asm.if_equal(ioctl::SEV_ISSUE_CMD.0, ends.notify);
        asm.and(0xff00);
        asm.if_equal(u32::from(KVMIO) << 8, ends.notify);
        asm.end_with(libc::SECCOMP_RET_ALLOW);

        asm.place(madvise);
        notify_of_advice(asm, &ends);

        // `fstat` of the C library, which has no path.
        asm.place(fstatat);
        asm.load(argument(3));
        asm.and(libc::AT_EMPTY_PATH.unsigned_abs());
        asm.if_equal(0, ends.notify);
    })
}

/// A number of a system call as the filter sees it.
pub(super) const fn number(call: libc::c_long) -> u32 {
    let [a, b, c, d, ..] = call.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests;
