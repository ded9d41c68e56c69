//! `errno`: error numbers as results of `KVM_RUN`.

use super::explanation::{Explanation, Field};
use super::{input, number};
use crate::Failure;
use exeunt_abi::Errno;

const SOURCE: &str = "Linux v7.2 arch/x86/kvm/x86.c, kvm_arch_vcpu_ioctl_run; arch/x86/kvm/svm/sev.c; \
                      virt/kvm/kvm_main.c, kvm_vcpu_ioctl; Documentation/virt/kvm/api.rst, section 5";

/// `errno 14`, `errno EFAULT`, `errno -14`.
pub(super) fn explain(text: &str) -> Result<Explanation, Failure> {
    Ok(explanation(text, parse(text)?))
}

/// An error by name or number; a sign is dropped, since the kernel's own numbers are negative.
///
/// # Errors
///
/// One line: the name is unknown, or the number is no error.
pub(super) fn parse(text: &str) -> Result<Errno, Failure> {
    if let Some(errno) = Errno::from_name(&text.to_ascii_uppercase()) {
        return Ok(errno);
    }
    if text.starts_with(['E', 'e']) && !text.contains(|letter: char| letter.is_ascii_digit()) {
        return Err(format!(
            "no error of the boundary is called '{}': give its number",
            input::shorten(text)
        ));
    }
    match number::parse(text.strip_prefix('-').unwrap_or(text)).map(i32::try_from)? {
        Ok(errno @ 1..=4095) => Ok(Errno(errno)),
        _ => Err(format!("'{}' is no error number: they are 1 to 4095", input::shorten(text))),
    }
}

fn explanation(text: &str, errno: Errno) -> Explanation {
    let (meaning, page, advice) = about(errno);
    Explanation::new("errno", text, format!("KVM_RUN failed with {errno} ({}): {meaning}", errno.0))
        .with(Field::new("errno", errno.0.to_string(), errno.to_string()))
        .with(Field::at(8, "exit_reason", "", page))
        .advice(advice)
        .source(SOURCE)
}

const STALE: &str = "stale: it and the union are those of an earlier exit";
const BEFORE_ENTRY: &str = "stale, or 0 if the run loop had begun";

/// Meaning, state of the page, advice.
pub(super) fn about(errno: Errno) -> (&'static str, &'static str, &'static str) {
    match errno {
        Errno::EINTR => (
            "a signal, or immediate_exit; nothing is wrong",
            "10 after a signal, stale after immediate_exit",
            "Enter again, or do what the signal was sent for; do not read the exit (RN-2). With immediate_exit set it \
             says that a pending answer has been taken, which is what a snapshot waits for (HC-14).",
        ),
        Errno::EAGAIN => ("a vCPU that had no INIT yet was woken", STALE, "Enter again (RN-2)."),
        Errno::EFAULT => (
            "an access that KVM could not resolve",
            "39 if memory_fault is filled; 0 if there are no details",
            "With exit_reason 39 look at memory_fault: `exeunt explain run-page` with --errno EFAULT. EFAULT alone is \
             not enough (MF-1): with 0, a page of the process is unmapped or unreadable, and the VM stops.",
        ),
        Errno::EHWPOISON => (
            "the page behind the access has a hardware error",
            "39, and memory_fault is filled",
            "Report the address and stop the VM, or tell the guest. Never answer with a conversion (MF-4).",
        ),
        Errno::EIO => (
            "the VM is dead, belongs to another process, or a page of a guest request cannot be read or written",
            STALE,
            "Stop the VM. If every ioctl of the vCPU fails so, the kernel has killed it: a bug in KVM, or a TD that \
             touched private memory before it accepted it.",
        ),
        Errno::EINVAL => (
            "KVM refused to go on",
            BEFORE_ENTRY,
            "After an exit with an answer the answer was illegal: the request is lost, the guest is told something \
             wrong, and the VM ends (HC-15). Otherwise: a SEV VM before KVM_SEV_INIT2, a TD that is not finalised, a \
             request of the guest for UNSUPPORTED_EVENT, bits in kvm_valid_regs or kvm_dirty_regs, an argument that \
             is not 0.",
        ),
        Errno::ENOMEM => (
            "no memory, for the page of a private access or for the scratch area of a guest",
            "39 if memory_fault is filled; the documentation promises it for EFAULT and EHWPOISON only",
            "Free memory or stop the VM; entering again repeats the access.",
        ),
        Errno::ENOENT => (
            "no page could be had from the guest_memfd",
            "39 if memory_fault is filled; the documentation promises it for EFAULT and EHWPOISON only",
            "Stop the VM; entering again repeats the access.",
        ),
        Errno::ETIMEDOUT | Errno::EBUSY | Errno::ENODEV | Errno::EBADF => (
            "a command to the secure processor failed without an answer of the firmware",
            STALE,
            "A guest request did not come through. Stop the VM; EBADF says that the /dev/sev file of the launch was \
             closed, whose number the kernel keeps.",
        ),
        Errno::ENOTTY => (
            "the file does not take this ioctl",
            STALE,
            "Not a result of KVM_RUN on a vCPU. A 32-bit process gets it for KVM_MEMORY_ENCRYPT_OP with the number \
             of its own header, and for everything on /dev/sev (AB-2).",
        ),
        _ => (
            "not an error that the confidential paths of KVM_RUN return",
            STALE,
            "Report it with the number and stop the VM. Do not look at exit_reason.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_signed_numbers_are_the_same_error() {
        for text in ["14", "-14", "EFAULT", "efault", "0xe"] {
            assert_eq!(parse(text), Ok(Errno::EFAULT), "{text}");
        }
        assert_eq!(parse("38"), Ok(Errno(38)));
        assert!(parse("ENOSYS").unwrap_err().contains("give its number"));
        for text in ["0", "-0", "4096", "0xffffffffffffffff"] {
            assert!(parse(text).unwrap_err().contains("no error number"), "{text}");
        }
        assert!(parse("--14").unwrap_err().contains("'-' at offset 0"));
    }
}
