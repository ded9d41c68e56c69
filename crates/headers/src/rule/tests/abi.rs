//! Every struct of `exeunt-abi` that a header of the kernel has, field by field, against the registry.

mod ioctl;
mod run;
mod sev;

use super::{Release, Target, Tree, dialect};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::size_of;
use std::path::Path;

/// What of the C struct a struct of `exeunt-abi` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// All of it: the sizes are the same, and no field is left out.
    Whole,
    /// Its head, or one member of its union.
    Part,
}

/// A struct of `exeunt-abi`, and the struct of the registry that it claims to be.
struct Ours {
    /// As the compiler names it, with the module that it is written in.
    type_name: &'static str,
    dialect: &'static str,
    targets: &'static [Target],
    name: &'static str,
    extent: Extent,
    size: u64,
    fields: Vec<OurField>,
}

struct OurField {
    name: &'static str,
    offset: u64,
    size: u64,
    /// The C fields that its bytes are: none for padding that the C compiler puts in, more than one for bit-fields and for
    /// the names that a union has for the same bytes.
    paths: &'static [&'static str],
}

/// The targets that align a `u64` in a struct to 8 bytes.
const ALIGNED: &[Target] = &[Target::X86_64, Target::X32, Target::Aarch64, Target::Arm, Target::Riscv64];
/// The targets with a `long` of 8 bytes.
const LP64: &[Target] = &[Target::X86_64, Target::Aarch64, Target::Riscv64];
const EVERYWHERE: &[Target] = &Target::ALL;
const X86: &[Target] = Target::X86;
const NEWEST: &str = Release::Linux7_2.name();

/// A field alone has the name that C has for it, `field: [..]` has others.
macro_rules! paths {
    ($field:ident) => {
        &[stringify!($field)]
    };
    ($field:ident [$($path:literal)*]) => {
        &[$($path),*]
    };
}

/// `Extent dialect targets "c_struct" = Type { field, field: ["c_path" ..], .. }`, with every field of the type.
macro_rules! ours {
    ($($extent:ident $dialect:tt $targets:ident $name:literal = $type:path {
        $($field:ident $(: $paths:tt)?),* $(,)?
    })*) => {
        vec![$({
            // Without `..`: a field that is left out does not compile.
            let _ = |whole: &$type| {
                let $type { $($field: _),* } = whole;
            };
            $crate::rule::tests::abi::Ours {
                type_name: std::any::type_name::<$type>(),
                dialect: $dialect,
                targets: $targets,
                name: $name,
                extent: $crate::rule::tests::abi::Extent::$extent,
                size: std::mem::size_of::<$type>() as u64,
                fields: vec![$($crate::rule::tests::abi::OurField {
                    name: stringify!($field),
                    offset: std::mem::offset_of!($type, $field) as u64,
                    size: $crate::rule::tests::abi::bytes_of(|whole: &$type| &whole.$field),
                    paths: $crate::rule::tests::abi::paths!($field $($paths)?),
                }),*],
            }
        }),*]
    };
}
use {ours, paths};

fn bytes_of<T, F>(_: fn(&T) -> &F) -> u64 {
    size_of::<F>() as u64
}

fn all() -> Vec<Ours> {
    let groups = [
        run::exits(),
        run::system_events(),
        run::parts(),
        ioctl::memory(),
        ioctl::others(),
        ioctl::tdx(),
        sev::commands(),
        sev::migration(),
        sev::snp(),
        sev::platform(),
    ];
    groups.into_iter().flatten().collect()
}

/// The trees of the dialects that are compared with.
fn trees() -> BTreeMap<&'static str, Tree> {
    let names: BTreeSet<&str> = all().iter().map(|ours| ours.dialect).collect();
    names.into_iter().map(|name| (name, dialect(name).unwrap())).collect()
}

/// What the registry says against a struct, on each of its targets.
fn differences(ours: &Ours, trees: &BTreeMap<&str, Tree>) -> Vec<String> {
    let tree = &trees[ours.dialect];
    ours.targets.iter().flat_map(|target| differences_on(ours, tree, *target)).collect()
}

fn differences_on(ours: &Ours, tree: &Tree, target: Target) -> Vec<String> {
    let what = format!("{}, {} of {} on {target}", ours.type_name, ours.name, ours.dialect);
    let Some(layout) = tree.layout(target, ours.name) else { return vec![format!("{what}: not there")] };
    let mut found = Vec::new();
    let mut differs = |message: String| found.push(format!("{what}: {message}"));
    let is_whole = ours.extent == Extent::Whole;
    if ours.size > layout.size || (is_whole && ours.size < layout.size) {
        differs(format!("{} bytes, not {}", ours.size, layout.size));
    }
    for field in &ours.fields {
        let end = field.offset + field.size;
        let mut theirs = Vec::new();
        for path in field.paths {
            match layout.field(path) {
                Some(field) => theirs.push(field.bytes()),
                None => differs(format!("{}: there is no {path}", field.name)),
            }
        }
        theirs.sort_by_key(|bytes| (bytes.start, bytes.end));
        // Without a hole, from the first byte to the last.
        let reached = theirs.iter().try_fold(field.offset, |reached, bytes| {
            (bytes.start <= reached && bytes.start >= field.offset).then_some(reached.max(bytes.end))
        });
        if !field.paths.is_empty() && reached != Some(end) {
            differs(format!("{}: at {} to {end}, not {theirs:?}", field.name, field.offset));
        }
        let is_beneath = |bytes: &std::ops::Range<u64>| bytes.start < end && field.offset < bytes.end;
        if field.paths.is_empty() && layout.fields.iter().any(|theirs| is_beneath(&theirs.bytes())) {
            differs(format!("{}: is no padding", field.name));
        }
    }
    let listed = |path: &str| ours.fields.iter().any(|field| field.paths.contains(&path));
    for field in layout.fields.iter().filter(|field| is_whole && field.size > 0 && !listed(&field.path)) {
        differs(format!("{} is left out", field.path));
    }
    found
}

#[test]
fn the_structs_of_exeunt_abi_lie_as_the_registry_says() {
    let trees = trees();
    let found: Vec<String> = all().iter().flat_map(|ours| differences(ours, &trees)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_field_that_is_moved_resized_or_misnamed_is_found_and_so_is_a_wrong_size() {
    let trees = trees();
    for (index, right) in all().iter().enumerate() {
        let wrong = |change: &dyn Fn(&mut Ours)| {
            let mut ours = all().swap_remove(index);
            change(&mut ours);
            !differences(&ours, &trees).is_empty()
        };
        assert!(wrong(&|ours| ours.size += 4096), "{}", right.type_name);
        assert!(right.extent == Extent::Part || wrong(&|ours| ours.size -= 1), "{}", right.type_name);
        for (at, field) in right.fields.iter().enumerate().filter(|(_, field)| !field.paths.is_empty()) {
            let name = format!("{}.{}", right.type_name, field.name);
            assert!(wrong(&|ours| ours.fields[at].offset += 1), "{name}");
            assert!(wrong(&|ours| ours.fields[at].size += 1), "{name}");
            assert!(wrong(&|ours| ours.fields[at].paths = &["no such field"]), "{name}");
            assert!(right.extent == Extent::Part || wrong(&|ours| ours.fields[at].paths = &[]), "{name}");
        }
    }
}

/// The registry has what exits and launches are made of.
const BY_NUMBER: &str = "the argument of an ioctl, whose number holds its size";

/// Structs that no header of the registry has, with what holds their layout instead.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("exeunt_abi::ghcb::guest_message::Header", "a message of the firmware, not of the uapi"),
    ("exeunt_abi::ghcb::guest_message::ReportResponse", "a message of the firmware, not of the uapi"),
    ("exeunt_abi::ghcb::psc::Header", "in guest memory, by the GHCB specification"),
    ("exeunt_abi::ghci::QuoteHeader", "in guest memory, by the GHCI specification"),
    ("exeunt_abi::psp::identity::EcdsaPublicKey", "the firmware's, by its ABI"),
    ("exeunt_abi::psp::identity::EcdsaSignature", "the firmware's, by its ABI"),
    ("exeunt_abi::psp::identity::IdAuth", "the firmware's, by its ABI"),
    ("exeunt_abi::psp::identity::IdBlock", "the firmware's, by its ABI"),
    ("exeunt_abi::psp::message::CpuidHead", "the firmware's, by its ABI"),
    ("exeunt_abi::psp::message::KeyRequest", "the firmware's, by its ABI"),
    ("exeunt_abi::psp::message::KeyResponse", "the firmware's, by its ABI"),
    ("exeunt_abi::psp::message::ReportRequest", "the firmware's, by its ABI"),
    ("exeunt_abi::psp::message::TscInfoResponse", "the firmware's, by its ABI"),
    ("exeunt_abi::psp::page::CpuidFunction", "the firmware's, by its ABI"),
    ("exeunt_abi::psp::page::CpuidPage", "the firmware's, by its ABI"),
    ("exeunt_abi::psp::page::SecretsPage", "the firmware's, by its ABI"),
    ("exeunt_abi::report::AttestationReport", "written by the firmware, by its ABI"),
    ("exeunt_abi::report::tcb::TcbMilan", "written by the firmware, by its ABI"),
    ("exeunt_abi::report::tcb::TcbTurin", "written by the firmware, by its ABI"),
    ("exeunt_abi::rmp::RawEntry", "written by the processor, by its manual"),
    ("exeunt_abi::tdx::report::ReportMac", "written by the processor, by its manual"),
    ("exeunt_abi::tdx::report::TdInfo", "written by the TDX module, by its ABI"),
    ("exeunt_abi::tdx::report::TdReport", "written by the TDX module, by its ABI"),
    ("exeunt_abi::tdx::report::TeeTcbInfo", "written by the TDX module, by its ABI"),
    ("exeunt_abi::kvm::debug::GuestDebug", BY_NUMBER),
    ("exeunt_abi::kvm::debug::Translation", BY_NUMBER),
    ("exeunt_abi::kvm::debug::X86Mce", BY_NUMBER),
    ("exeunt_abi::kvm::irq::CoalescedMmioZone", BY_NUMBER),
    ("exeunt_abi::kvm::irq::Ioeventfd", BY_NUMBER),
    ("exeunt_abi::kvm::irq::IrqLevel", BY_NUMBER),
    ("exeunt_abi::kvm::irq::IrqRouting", BY_NUMBER),
    ("exeunt_abi::kvm::irq::IrqRoutingEntry", BY_NUMBER),
    ("exeunt_abi::kvm::memory::ClearDirtyLog", BY_NUMBER),
    ("exeunt_abi::kvm::memory::DirtyLog", BY_NUMBER),
    ("exeunt_abi::kvm::msr::MsrEntry", BY_NUMBER),
    ("exeunt_abi::kvm::msr::MsrFilter", BY_NUMBER),
    ("exeunt_abi::kvm::msr::MsrFilterRange", BY_NUMBER),
    ("exeunt_abi::kvm::msr::MsrList", BY_NUMBER),
    ("exeunt_abi::kvm::msr::Msrs", BY_NUMBER),
    ("exeunt_abi::kvm::regs::DebugRegs", BY_NUMBER),
    ("exeunt_abi::kvm::regs::Dtable", BY_NUMBER),
    ("exeunt_abi::kvm::regs::Fpu", BY_NUMBER),
    ("exeunt_abi::kvm::regs::Regs", BY_NUMBER),
    ("exeunt_abi::kvm::regs::Segment", BY_NUMBER),
    ("exeunt_abi::kvm::regs::Sregs", BY_NUMBER),
    ("exeunt_abi::kvm::regs::Sregs2", BY_NUMBER),
    ("exeunt_abi::kvm::regs::SregsHead", BY_NUMBER),
    ("exeunt_abi::kvm::regs::SyncRegs", BY_NUMBER),
    ("exeunt_abi::kvm::regs::Xcr", BY_NUMBER),
    ("exeunt_abi::kvm::regs::Xcrs", BY_NUMBER),
];

/// The `repr(C)` structs of a source file, under the names that the compiler has for them.
fn structs_of(module: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_wire = false;
    for line in text.lines() {
        is_wire |= line.trim_start().starts_with("#[repr(C");
        let declared = line.split_once("struct ").filter(|_| is_wire && !line.trim_start().starts_with("//"));
        let Some((_, declared)) = declared else { continue };
        let name: String =
            declared.chars().take_while(|sign| sign.is_alphanumeric() || *sign == '_').collect();
        found.push(format!("{module}::{name}"));
        is_wire = false;
    }
    found
}

fn structs_below(folder: &Path, module: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let inner = if matches!(stem, "mod" | "lib") { module.into() } else { format!("{module}::{stem}") };
        if path.is_dir() {
            structs_below(&path, &inner, found);
        } else {
            found.extend(structs_of(&inner, &std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_wire_struct_of_exeunt_abi_is_compared_or_says_why_it_is_not() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../abi/src");
    let mut declared = BTreeSet::new();
    structs_below(&sources, "exeunt_abi", &mut declared);
    assert!(declared.len() > 60, "{}", declared.len());
    let compared: BTreeSet<String> = all().iter().map(|ours| ours.type_name.to_string()).collect();
    let excused: BTreeSet<String> = NOT_COMPARED.iter().map(|(name, _)| (*name).to_string()).collect();
    assert_eq!(compared.intersection(&excused).next(), None, "compared all the same");
    let listed: BTreeSet<String> = compared.union(&excused).cloned().collect();
    let missing: Vec<_> = declared.difference(&listed).collect();
    assert!(missing.is_empty(), "neither compared nor excused: {missing:#?}");
    let stale: Vec<_> = listed.difference(&declared).collect();
    assert!(stale.is_empty(), "not in the source: {stale:#?}");
}

#[test]
fn a_wire_struct_is_seen_behind_its_other_attributes() {
    let text =
        "#[repr(C, packed)]\n#[derive(Debug)]\n/// A struct of C.\npub struct Wire {\n}\npub struct Plain;\n";
    assert_eq!(structs_of("m", text), ["m::Wire"]);
}

#[test]
fn lengths_that_a_header_gives_by_a_struct_are_those_of_exeunt_abi() {
    use exeunt_abi::kvm::{run, sev::platform};
    let newest = dialect(NEWEST).unwrap();
    for target in Target::ALL {
        let hashstick = newest.layout(target, "sev_user_data_snp_wrapped_vlek_hashstick").unwrap().size;
        assert_eq!(hashstick, platform::VLEK_HASHSTICK_BYTES as u64);
        let get_id = newest.layout(target, "sev_user_data_get_id").unwrap().size;
        assert_eq!(platform::command::data_bytes(platform::command::GET_ID), usize::try_from(get_id).ok());
        let union = newest.layout(target, "kvm_run").unwrap().field("padding").unwrap().size;
        assert_eq!(union, run::UNION_BYTES as u64);
    }
}

#[test]
fn the_numbers_of_proposals_are_the_registrys() {
    use exeunt_abi::kvm::{caps::Cap, events, run::coco_v1, run::sev_term_v4_1, run::vmgexit_v10};
    let cases = [
        ("sev-term-v4.1", "KVM_SYSTEM_EVENT_SEV_TERM", u64::from(sev_term_v4_1::SEV_TERM)),
        ("sev-term-v4.1", "KVM_SYSTEM_EVENT_NDATA_VALID", sev_term_v4_1::NDATA_VALID.into()),
        ("sev-term-alternative", "KVM_SYSTEM_EVENT_SEV_TERM", sev_term_v4_1::SEV_TERM.into()),
        ("vmgexit-v10", "KVM_EXIT_VMGEXIT", vmgexit_v10::VMGEXIT.0.into()),
        ("coco-v1", "KVM_EXIT_COCO", coco_v1::COCO.0.into()),
        ("coco-v1", "KVM_EXIT_COCO_REQ_CERTS", coco_v1::REQ_CERTS.into()),
        ("coco-v1", "KVM_EXIT_COCO_REQ_CERTS_ERR_INVALID_LEN", coco_v1::ERR_INVALID_LEN.into()),
        ("coco-v1", "KVM_EXIT_COCO_REQ_CERTS_ERR_GENERIC", coco_v1::ERR_GENERIC.into()),
        ("coco-v1", "KVM_CAP_EXIT_COCO", Cap::X86_APIC_BUS_CYCLES_NS.0.into()),
        ("shutdown-flag-v4", "KVM_VCPUEVENT_SHUTDOWN", events::VALID_TRIPLE_FAULT.into()),
    ];
    for (name, number, value) in cases {
        for (target, image) in dialect(name).unwrap().images {
            assert_eq!(image.constants.get(number), Some(&value), "{number} of {name} on {target}");
        }
    }
}
