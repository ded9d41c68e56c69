//! `ioctl`: a number or a name.

use super::explanation::{Explanation, Field};
use super::{input, number};
use crate::Failure;
use exeunt_abi::kvm::ioctl::{
    Direction, Fd, Form, Ioctl, KNOWN, KVM_MEMORY_ENCRYPT_OP, KVMIO, Known, SEV_IOC_TYPE,
};

const SOURCE: &str = "Linux v7.2 include/uapi/linux/kvm.h, psp-sev.h and sev-guest.h; include/uapi/asm-generic/ioctl.h; \
                      virt/kvm/kvm_main.c, kvm_vm_compat_ioctl";

/// `ioctl 0xc008aeba`, `ioctl KVM_MEMORY_ENCRYPT_OP`.
pub(super) fn explain(text: &str) -> Result<Explanation, Failure> {
    let ioctl = match Ioctl::from_name(&text.to_ascii_uppercase()) {
        Some(ioctl) => ioctl,
        None if text.contains('_') => {
            return Err(format!("no ioctl of the boundary is called '{}'", input::shorten(text)));
        }
        None => Ioctl(number::parse_u32(text, "an ioctl number")?),
    };
    Ok(explanation(text, ioctl))
}

fn explanation(text: &str, ioctl: Ioctl) -> Explanation {
    let parts = ioctl.parts();
    let number = u64::from(ioctl.0);
    let direction = match parts.direction {
        Direction::None => "_IO: no argument, or a plain number",
        Direction::Write => "_IOW: the process hands bytes over",
        Direction::Read => "_IOR: the process gets bytes",
        Direction::ReadWrite => "_IOWR: bytes go both ways",
    };
    let kind = match parts.kind {
        KVMIO => "KVM",
        SEV_IOC_TYPE => "'S': /dev/sev and /dev/sev-guest, and drivers that have nothing to do with them",
        _ => "not KVM",
    };
    let size = Field::bits("size", number, 29, 16, "of the argument");
    let size = Field { value: parts.size_bytes.to_string(), ..size }.unit("bytes");
    let known = ioctl.known();
    let title = match known {
        Some(known) => format!("{ioctl}{}, on {}", proposed(known), files(known)),
        None => format!("{ioctl}: no call of the boundary"),
    };
    Explanation::new("ioctl", text, title)
        .with(Field::bits("direction", number, 31, 30, direction))
        .with(size)
        .with(Field::bits("type", number, 15, 8, kind))
        .with(Field::bits("nr", number, 7, 0, known.map_or("no call that is known here", |known| known.name)))
        .with_all(known.map(|known| Field::new("taken by", "", files(known))))
        .with(Field::new("32-bit form", "", form(known)))
        .advice(advice(known))
        .source(SOURCE)
}

fn proposed(known: &Known) -> &'static str {
    if known.form == Form::Native { "" } else { " of 32-bit processes" }
}

fn files(known: &Known) -> String {
    let names = known.fds.iter().map(|fd| match fd {
        Fd::Kvm => "/dev/kvm",
        Fd::Vm => "a VM",
        Fd::Vcpu => "a vCPU",
        Fd::Device => "a device of KVM_CREATE_DEVICE",
        Fd::DevSev => "/dev/sev",
        Fd::SevGuest => "/dev/sev-guest, in the guest",
        _ => "a file that is not named here",
    });
    names.collect::<Vec<_>>().join(", ")
}

/// What a 32-bit process computes for the same call.
fn form(known: Option<&Known>) -> String {
    let Some(known) = known else { return "unknown".into() };
    let other = KNOWN.iter().find(|other| other.name == known.name && other.form != known.form);
    match (known.form, other) {
        (Form::Native, None) => "the same number".into(),
        (Form::Native, Some(other)) => format!("{:#x}: {}", other.ioctl.0, form_text(other.form)),
        (form, Some(native)) => format!("this is it: {} (64-bit: {:#x})", form_text(form), native.ioctl.0),
        (form, None) => form_text(form).into(),
    }
}

fn form_text(form: Form) -> &'static str {
    match form {
        Form::Native => "the kernel takes it",
        Form::Ilp32Translated => "i386 and x32, and the kernel translates it",
        Form::Ilp32Refused => "i386 and x32, whose header has a long there, and no kernel takes it",
        Form::I386Refused => "i386, which pads the struct otherwise, and no kernel takes it",
    }
}

fn advice(known: Option<&Known>) -> &'static str {
    let Some(known) = known else {
        return "If the type is 0xae it is a call of KVM that has no part in this boundary: see the kernel's api.rst.";
    };
    let is_device = known.fds.iter().any(|fd| matches!(fd, Fd::DevSev | Fd::SevGuest));
    match known.form {
        Form::Ilp32Refused => {
            "The kernel answers ENOTTY on a VM and EINVAL on a vCPU. A 32-bit VMM has to write 0xc008aeba by hand: \
             the structs behind it are the same (AB-2)."
        }
        Form::I386Refused => {
            "The kernel answers ENOTTY: /dev/sev and /dev/sev-guest take no 32-bit process (AB-2)."
        }
        _ if is_device => {
            "Every call of a 32-bit process on this file ends in ENOTTY: a 64-bit helper is needed (AB-2)."
        }
        _ if known.ioctl == KVM_MEMORY_ENCRYPT_OP => {
            "Give it a struct kvm_sev_cmd or kvm_tdx_cmd and look at its error field too: launch commands fail with \
             EIO whatever the cause. A 32-bit process must use this number, not the one of its header (AB-2)."
        }
        _ => advice_by_name(known.name),
    }
}

fn advice_by_name(name: &str) -> &'static str {
    match name {
        "KVM_RUN" => {
            "Look at exit_reason only if it returned 0, or -1 with EFAULT or EHWPOISON and 39 (MF-1); retry EINTR and \
             EAGAIN (RN-2). `exeunt explain errno` has the other results."
        }
        "KVM_SET_MEMORY_ATTRIBUTES" => {
            "Set before discarding the old backing (HC-8). A range may span slots and holes (HC-9, HC-10) and repeats \
             succeed (HC-11); bound it, because the kernel walks every page of it (HC-6)."
        }
        "KVM_SET_VCPU_EVENTS" => {
            "EINVAL may come after a part was taken over: read the events again before a retry (TF-5). No bit of \
             flags without its capability."
        }
        "KVM_GET_VCPU_EVENTS" => {
            "It does not consume what it reports (TF-3). A triple fault is reported only with capability 218 (TF-1)."
        }
        "KVM_ENABLE_CAP" => "Enable a chosen mask of hypercall exits, never all that are offered (HC-1).",
        "KVM_CREATE_GUEST_MEMFD" => {
            "The file is not closed on exec, and keeps the VM alive. Zero the reserved words: the kernel ignores them \
             today."
        }
        _ => "Nothing that is particular to confidential guests.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_32_bit_process_is_told_apart() {
        let native = explain("0xc008aeba").unwrap();
        assert_eq!(native.title, "KVM_MEMORY_ENCRYPT_OP (0xc008aeba), on a VM, a vCPU");
        assert!(native.fields.iter().any(|field| field.meaning.contains("0xc004aeba")));
        let refused = explain("0xc004aeba").unwrap();
        assert!(refused.advice.contains("ENOTTY"));
        assert!(refused.fields.iter().any(|field| field.meaning.contains("64-bit: 0xc008aeba")));
    }

    #[test]
    fn every_number_of_the_table_leads_to_its_name_and_back() {
        for known in KNOWN {
            let by_number = explain(&format!("{:#x}", known.ioctl.0)).unwrap();
            assert!(by_number.title.starts_with(known.name), "{}", by_number.title);
            assert!(explain(known.name).is_ok());
        }
        assert!(explain("0xdeadbeef").unwrap().title.contains("no call of the boundary"));
        assert_eq!(explain("KVM_NO_SUCH"), Err("no ioctl of the boundary is called 'KVM_NO_SUCH'".into()));
    }
}
