//! Forms of lines that say something about the boundary, one function each.
//!
//! Sources of the texts: QEMU `accel/kvm/kvm-all.c` and `target/i386/kvm/kvm.c`; Linux `arch/x86/kvm/svm/sev.c` and
//! `drivers/virt/coco/sev-guest`; strace's decoding of ioctls.

use super::super::explanation::{Explanation, Field};
use super::super::{Settings, caps};
use super::number;
use exeunt_abi::Errno;
use exeunt_abi::ghcb::exit_code;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::ioctl::{Direction, Ioctl, ioctl};
use exeunt_abi::kvm::run::{ExitReason, event_type, suberror};
use exeunt_proto::ghcb::MsrRequest;

/// Everything that a line says. Most lines say nothing.
pub(super) fn readings(line: &str, settings: &Settings) -> Vec<Explanation> {
    let forms: [fn(&str, &Settings) -> Option<Explanation>; 12] = [
        termination_by_msr,
        termination_by_page,
        entry_failed,
        internal_error,
        run_failed,
        os_error,
        exit_reason,
        named_exit,
        named_event,
        vmgexit,
        guest_request,
        hex_ioctl,
    ];
    let lower = line.to_ascii_lowercase();
    if !WORDS.iter().any(|word| lower.contains(word)) {
        return Vec::new();
    }
    if let Some(traced) = traced_ioctl(line, settings) {
        return vec![traced];
    }
    forms.iter().filter_map(|form| form(line, settings)).collect()
}

/// Each form has one of these words, and most lines have none.
const WORDS: [&str; 9] = [
    "ioctl",
    "kvm",
    "exit reason",
    "exit_reason",
    "exitinfo2",
    "os error",
    "termination",
    "hardware error",
    "vmgexit",
];

/// What follows a text, whatever its case.
fn after<'a>(line: &'a str, text: &str) -> Option<&'a str> {
    let at = line.to_ascii_lowercase().find(&text.to_ascii_lowercase())?;
    line.get(at + text.len()..)
}

/// The number that a text begins with: digits, or `0x` and hex digits, behind separators.
fn leading_number(text: &str) -> Option<&str> {
    let text = text.trim_start_matches([' ', ':', '=', '(', '#', '"', '\'']);
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let is_hex = digits.len() != text.len();
    let length = digits
        .bytes()
        .take_while(|byte| if is_hex { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() });
    let end = text.len() - digits.len() + length.count();
    text.get(..end).filter(|number| !number.is_empty() && *number != "0x")
}

fn value(text: &str) -> Option<u64> {
    super::super::number::parse(leading_number(text)?).ok()
}

/// A name in capitals that a text begins with.
fn leading_name(text: &str) -> &str {
    let end =
        text.find(|letter: char| !letter.is_ascii_uppercase() && !letter.is_ascii_digit() && letter != '_');
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

/// `ioctl(13, KVM_RUN, 0) = -1 EFAULT (Bad address)`, by strace.
fn traced_ioctl(line: &str, settings: &Settings) -> Option<Explanation> {
    let arguments = line.get(line.find("ioctl(")? + "ioctl(".len()..)?;
    let request = arguments.split_once(", ")?.1;
    let request = request.get(..request.find([',', ')'])?)?;
    let ioctl = if request.starts_with("_IOC(") {
        spelled_ioctl(arguments)?
    } else {
        Ioctl::from_name(request).or_else(|| Some(Ioctl(u32::try_from(value(request)?).ok()?)))?
    };
    ioctl.known()?;
    let result = arguments.rsplit_once(" = ").map_or("", |(_, result)| result);
    if ioctl == exeunt_abi::kvm::ioctl::KVM_RUN {
        let errno = result.strip_prefix("-1 ").map(leading_name);
        if let Some(name) = errno.filter(|name| Errno::from_name(name).is_some()) {
            return number("errno", name, settings);
        }
        if let Some(exit) = result.find("KVM_EXIT_").and_then(|at| result.get(at..)).map(leading_name) {
            return number("exit", exit, settings);
        }
    }
    if ioctl == exeunt_abi::kvm::ioctl::KVM_CHECK_EXTENSION {
        let cap = arguments.splitn(3, ", ").nth(2).and_then(asked_cap);
        if let Some(cap) = cap.filter(|cap| caps::is_of_boundary(*cap)) {
            return number("cap", &cap.0.to_string(), settings);
        }
    }
    number("ioctl", &format!("{:#x}", ioctl.0), settings)
}

/// The capability that is asked for, by name or number.
fn asked_cap(text: &str) -> Option<Cap> {
    caps::from_name(leading_name(text)).or_else(|| Some(Cap(u32::try_from(value(text)?).ok()?)))
}

/// `_IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xba, 0x8)`, as strace writes what it does not know.
fn spelled_ioctl(arguments: &str) -> Option<Ioctl> {
    let inside = after(arguments, "_IOC(")?.split_once(')')?.0;
    let [direction, kind, nr, size] = inside.split(',').map(str::trim).collect::<Vec<_>>().try_into().ok()?;
    let direction = match (direction.contains("_IOC_READ"), direction.contains("_IOC_WRITE")) {
        (false, false) => Direction::None,
        (false, true) => Direction::Write,
        (true, false) => Direction::Read,
        (true, true) => Direction::ReadWrite,
    };
    let byte = |text: &str| u8::try_from(value(text)?).ok();
    Some(ioctl(direction, u16::try_from(value(size)?).ok()?, byte(kind)?, byte(nr)?))
}

/// `kvm_amd: SEV-ES guest requested termination: 0x1:0x2`.
fn termination_by_msr(line: &str, settings: &Settings) -> Option<Explanation> {
    let rest = after(line, "guest requested termination: ")?;
    let (set, code) = rest.split_once(':')?;
    terminated(value(set)?, value(code)?, settings)
}

/// `kvm_amd: SEV-ES guest requested termination: reason 0x21 info 0x0`: the words of the page.
fn termination_by_page(line: &str, settings: &Settings) -> Option<Explanation> {
    let info_1 = value(after(line, "guest requested termination: reason ")?)?;
    terminated(info_1 & 0xf, info_1 >> 4 & 0xff, settings)
}

fn terminated(set: u64, code: u64, settings: &Settings) -> Option<Explanation> {
    let msr = MsrRequest::terminate(u8::try_from(set).ok()?, u8::try_from(code).ok()?);
    number("sev-term", &format!("{msr:#x}"), settings)
}

/// `KVM: entry failed, hardware error 0x80000021`.
fn entry_failed(line: &str, settings: &Settings) -> Option<Explanation> {
    let reason = value(after(line, "entry failed, hardware error ")?)?;
    let mut explanation = number("exit", "FAIL_ENTRY", settings)?;
    let meaning = match reason {
        0xffff_ffff | u64::MAX => "AMD: an invalid VMCB, or an SNP vCPU without a valid VMSA",
        0x8000_0021 => "Intel: invalid guest state",
        _ => "the vendor's exit code",
    };
    explanation.title = format!("KVM_EXIT_FAIL_ENTRY (9): the guest cannot be entered, reason {reason:#x}");
    explanation.fields.push(Field::at(
        0x20,
        "hardware_entry_failure_reason",
        format!("{reason:#x}"),
        meaning,
    ));
    Some(explanation)
}

/// `KVM internal error. Suberror: 4`.
fn internal_error(line: &str, settings: &Settings) -> Option<Explanation> {
    let sub = u32::try_from(value(after(line, "kvm internal error. suberror: ")?)?).ok()?;
    let name = suberror::name(sub).unwrap_or("no suberror that is known");
    let mut explanation = number("exit", "INTERNAL_ERROR", settings)?;
    explanation.title = format!("KVM_EXIT_INTERNAL_ERROR (17): suberror {sub} ({name})");
    explanation.fields.push(Field::at(0x20, "suberror", sub.to_string(), name));
    Some(explanation)
}

/// `error: kvm run failed Bad address`.
fn run_failed(line: &str, settings: &Settings) -> Option<Explanation> {
    let text = after(line, "kvm run failed ")?.trim();
    let errno = STRERROR.iter().find(|(known, _)| text.starts_with(known))?.1;
    number("errno", &errno.0.to_string(), settings)
}

const STRERROR: [(&str, Errno); 14] = [
    ("Bad address", Errno::EFAULT),
    ("Invalid argument", Errno::EINVAL),
    ("Input/output error", Errno::EIO),
    ("Cannot allocate memory", Errno::ENOMEM),
    ("Memory page has hardware error", Errno::EHWPOISON),
    ("Operation not permitted", Errno::EPERM),
    ("No such file or directory", Errno::ENOENT),
    ("Bad file descriptor", Errno::EBADF),
    ("Device or resource busy", Errno::EBUSY),
    ("No such device", Errno::ENODEV),
    ("Connection timed out", Errno::ETIMEDOUT),
    ("Interrupted system call", Errno::EINTR),
    ("Resource temporarily unavailable", Errno::EAGAIN),
    ("Function not implemented", Errno(38)),
];

/// `KVM_RUN failed: Bad address (os error 14)`, as programs in Rust write it.
fn os_error(line: &str, settings: &Settings) -> Option<Explanation> {
    let lower = line.to_ascii_lowercase();
    if !["kvm_run", "vcpu run", "vcpu_run", "run vcpu"].iter().any(|text| lower.contains(text)) {
        return None;
    }
    number("errno", leading_number(after(line, "os error ")?)?, settings)
}

/// `KVM: unknown exit reason 24`.
fn exit_reason(line: &str, settings: &Settings) -> Option<Explanation> {
    // Exit reasons of the hardware have other numbers.
    let lower = line.to_ascii_lowercase();
    if ["vmx", "svm:", "hardware", "vmexit", "unexpected exit reason"].iter().any(|text| lower.contains(text))
    {
        return None;
    }
    let rest = ["exit reason", "exit_reason"].iter().find_map(|text| after(line, text))?;
    number("exit", leading_number(rest)?, settings)
}

/// `KVM_EXIT_SHUTDOWN`.
fn named_exit(line: &str, settings: &Settings) -> Option<Explanation> {
    let name = leading_name(line.get(line.find("KVM_EXIT_")? + "KVM_EXIT_".len()..)?);
    ExitReason::from_name(name).and_then(|_| number("exit", name, settings))
}

/// `KVM_SYSTEM_EVENT_SEV_TERM`.
fn named_event(line: &str, settings: &Settings) -> Option<Explanation> {
    let name = leading_name(line.get(line.find("KVM_SYSTEM_EVENT_")? + "KVM_SYSTEM_EVENT_".len()..)?);
    event_type::from_name(name).and_then(|_| number("event", name, settings))
}

/// `vmgexit: exit code 0x80000014 is not valid`, `vmgexit: unsupported event - exit_info_1=...`.
fn vmgexit(line: &str, settings: &Settings) -> Option<Explanation> {
    let rest = after(line, "vmgexit: ")?;
    if rest.starts_with("unsupported event") {
        return number("exit-code", &format!("{:#x}", exit_code::UNSUPPORTED_EVENT), settings);
    }
    if rest.starts_with("ghcb usage") {
        return number("sw-exitinfo2", "2", settings);
    }
    let mut explanation = number("exit-code", leading_number(after(rest, "exit code ")?)?, settings)?;
    let answer = if rest.contains("input is not valid") { "MISSING_INPUT (4)" } else { "INVALID_EVENT (6)" };
    explanation.fields.push(Field::new("answer", "", format!("MALFORMED_INPUT with {answer} or the like")));
    Some(explanation)
}

/// `Detected error from ASP request. rc: -5, exitinfo2: 0x200000000`, by a guest's driver.
fn guest_request(line: &str, settings: &Settings) -> Option<Explanation> {
    number("sw-exitinfo2", leading_number(after(line, "exitinfo2:")?)?, settings)
}

/// `unknown ioctl 0xc008aeba`, wherever a line has the word and a number that is known.
fn hex_ioctl(line: &str, settings: &Settings) -> Option<Explanation> {
    after(line, "ioctl")?;
    let is_known = |text: &&str| {
        let number = value(text).and_then(|number| u32::try_from(number).ok());
        number.is_some_and(|number| Ioctl(number).known().is_some())
    };
    let words =
        line.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| word.starts_with("0x"));
    number("ioctl", words.into_iter().find(is_known)?, settings)
}
