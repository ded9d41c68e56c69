//! What the one who starts the VMM wants of it.

use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;
use std::path::PathBuf;

/// A small VMM on /dev/kvm, to be looked at from outside.
#[derive(Debug, clap::Parser)]
#[command(
    name = "exeunt-subject",
    version,
    after_help = "Exit status: 0 the guest halted or asked to be shut down, 10 it asked for a reset, 20 and above \
                  something is wrong and standard error says what, 2 the VMM could not start."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Arguments {
    /// default, sw-protected, sev-es or snp
    #[arg(long = "type", value_name = "TYPE", default_value = "default", value_parser = vm_type)]
    pub(crate) vm_type: VmType,

    /// A piece of guest memory, again for each: its address and length, and `shared` if no page of it can be private
    #[arg(long, value_name = "GPA:BYTES[:shared]", default_value = "0:0x1000000", value_parser = piece)]
    pub(crate) memory: Vec<Piece>,

    /// How many vCPUs, each with a thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) vcpus: u32,

    /// Enter the vCPUs in turn, from one thread; not with --irqchip
    #[arg(long)]
    pub(crate) in_turn: bool,

    /// Keep the local APICs in the kernel, so that a guest that halts waits there
    #[arg(long)]
    pub(crate) irqchip: bool,

    /// Answer memory faults by conversions
    #[arg(long)]
    pub(crate) convert_faults: bool,

    /// Enter again when the guest asks for a shutdown or a reset, or reports a crash
    #[arg(long)]
    pub(crate) ignore_events: bool,

    /// Give SNP guests the certificate table in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) certificates: Option<PathBuf>,

    /// run; save-after:N to save the events of vCPU 0 after so many exits; save-twice, go-back or migrate to save before
    /// the first entry, and then save again, restore here, or restore in a second VM
    #[arg(long, value_name = "TASK", default_value = "run", value_parser = task)]
    pub(crate) task: Task,

    /// The guest that is loaded: a name of exeunt-linux, or `ports` for --exits writes to port 0x80
    #[arg(long, value_name = "NAME", default_value = "port-io")]
    pub(crate) guest: String,

    /// How many port writes the guest `ports` makes
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) exits: u32,
}

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) range: PageRange,
    pub(crate) has_private: bool,
}

/// What to do with the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Run,
    SaveAfter(u32),
    SaveTwice,
    GoBack,
    Migrate,
}

fn vm_type(name: &str) -> Result<VmType, String> {
    let known = [VmType::Default, VmType::SwProtected, VmType::SevEs, VmType::Snp];
    known
        .into_iter()
        .find(|vm_type| vm_type.name() == name)
        .ok_or_else(|| format!("there are {}", known.map(VmType::name).join(", ")))
}

fn piece(text: &str) -> Result<Piece, String> {
    let mut parts = text.split(':');
    let (Some(gpa), Some(bytes)) = (parts.next(), parts.next()) else {
        return Err("an address and a length are needed, as 0x100000:0x200000".into());
    };
    let has_private = match (parts.next(), parts.next()) {
        (None, _) => true,
        (Some("shared"), None) => false,
        _ => return Err("only `shared` can follow".into()),
    };
    let (gpa, bytes) = (number(gpa)?, number(bytes)?);
    let range = PageRange::new(Gfn(gpa / PAGE_SIZE), bytes / PAGE_SIZE);
    let range = range.filter(|_| Gpa(gpa).is_page_aligned() && bytes % PAGE_SIZE == 0);
    Ok(Piece { range: range.ok_or("the piece is empty, is not whole pages, or wraps")?, has_private })
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("`{text}`: {error}"))
}

fn task(text: &str) -> Result<Task, String> {
    match text.split_once(':') {
        Some(("save-after", exits)) => {
            let exits = exits.parse().map_err(|error| format!("`{exits}`: {error}"))?;
            Ok(Task::SaveAfter(exits))
        }
        None if text == "run" => Ok(Task::Run),
        None if text == "save-twice" => Ok(Task::SaveTwice),
        None if text == "go-back" => Ok(Task::GoBack),
        None if text == "migrate" => Ok(Task::Migrate),
        _ => Err("there are run, save-after:N, save-twice, go-back, migrate".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn pieces_are_whole_pages_with_or_without_a_private_half() {
        let range = |gfn, pages| PageRange::new(Gfn(gfn), pages).unwrap();
        assert_eq!(piece("0:0x1000000"), Ok(Piece { range: range(0, 0x1000), has_private: true }));
        assert_eq!(piece("8388608:4096:shared"), Ok(Piece { range: range(0x800, 1), has_private: false }));
        for wrong in [
            "",
            "0",
            "0:0",
            "1:4096",
            "0:4097",
            "0:4096:private",
            "0:4096:shared:x",
            "-1:4096",
            "0xfffffffffffff000:0x2000",
        ] {
            assert!(piece(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tasks_and_types_are_known_by_name_only() {
        assert_eq!(task("save-after:2"), Ok(Task::SaveAfter(2)));
        for wrong in ["save-after", "save-after:", "save-after:x", "run:1", "pause"] {
            assert!(task(wrong).is_err(), "{wrong}");
        }
        assert_eq!(vm_type("snp"), Ok(VmType::Snp));
        assert!(vm_type("tdx").is_err());
    }

    #[test]
    fn without_arguments_one_vcpu_has_16_mib_that_can_be_private() {
        let arguments = Arguments::parse_from(["exeunt-subject"]);
        assert_eq!(arguments.memory, [piece("0:0x1000000").unwrap()]);
        assert_eq!((arguments.vcpus, arguments.task), (1, Task::Run));
    }
}
