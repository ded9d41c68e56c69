use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use exeunt_abi::kvm::ioctl::{self, Ioctl};
use exeunt_headers::Target;
use syn::{Item, Visibility};

use super::{ALL_BUT_THE_SIZE, beside, of_abi};

fn value(target: Target, name: &str) -> u64 {
    let numbers = of_abi(target);
    numbers.iter().find(|number| number.name == name).unwrap_or_else(|| panic!("{name}")).value
}

#[test]
fn a_32_bit_process_computes_its_own_form_of_an_ioctl() {
    let form = |ioctl: Ioctl| u64::from(ioctl.0);
    let cases = [
        ("KVM_RUN", ioctl::KVM_RUN, ioctl::KVM_RUN, ioctl::KVM_RUN),
        (
            "KVM_MEMORY_ENCRYPT_OP",
            ioctl::KVM_MEMORY_ENCRYPT_OP,
            ioctl::KVM_MEMORY_ENCRYPT_OP_ILP32,
            ioctl::KVM_MEMORY_ENCRYPT_OP_ILP32,
        ),
        ("SNP_GET_REPORT", ioctl::SNP_GET_REPORT, ioctl::SNP_GET_REPORT, ioctl::SNP_GET_REPORT_I386),
    ];
    for (name, native, x32, i386) in cases {
        assert_eq!(value(Target::X86_64, name), form(native), "{name}");
        assert_eq!(value(Target::Aarch64, name), form(native), "{name}");
        assert_eq!(value(Target::X32, name), form(x32), "{name}");
        assert_eq!(value(Target::I386, name), form(i386), "{name}");
    }
}

#[test]
fn an_ioctl_with_the_registers_of_x86_is_compared_but_for_their_size_elsewhere() {
    for target in Target::ALL {
        for number in of_abi(target).iter().filter(|number| number.mask != u64::MAX) {
            assert_eq!(number.mask, ALL_BUT_THE_SIZE);
            assert!(!number.belongs_to(Target::Aarch64) && !super::is_x86(target), "{}", number.name);
            let ioctl = Ioctl(u32::try_from(number.value).unwrap());
            let other = ioctl::ioctl(ioctl.parts().direction, 4, ioctl.parts().kind, ioctl.parts().nr);
            assert!(number.agrees_with(other.0.into()) && !number.agrees_with(u64::from(other.0) ^ 1));
        }
    }
}

#[test]
fn signs_shifts_and_spellings_are_those_of_c() {
    assert_eq!(value(Target::X86_64, "SEV_RET_NO_FW_CALL"), u64::MAX);
    assert_eq!(value(Target::X86_64, "SEV_RET_INAVLID_CONFIG"), 3);
    assert_eq!(value(Target::X86_64, "SNP_GUEST_VMM_ERR_BUSY"), 2);
    assert_eq!(value(Target::X86_64, "KVM_X86_SW_PROTECTED_VM"), 1);
    assert_eq!(value(Target::X86_64, "SNP_VLEK_LOAD"), 12);
    let find = |name: &str| {
        let numbers = beside().into_iter().flat_map(|header| header.numbers);
        numbers.into_iter().find(|number| number.name == name).map(|number| number.value)
    };
    assert_eq!(find("PSCI_RET_INVALID_PARAMS"), Some(u64::MAX - 1));
    assert_eq!(find("SVM_EXIT_CPUID"), Some(0x72));
    assert_eq!(find("SVM_VMGEXIT_PSC"), Some(0x8000_0010));
    assert_eq!(find("EHWPOISON"), Some(133));
}

/// Modules, and constants in them, whose numbers no header of the uapi defines, or a test elsewhere compares.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("addr", "of the architecture"),
    ("ghcb::exit_code::ioio", "the architecture's manual"),
    ("ghcb::features", "the GHCB specification's"),
    ("ghcb::guest_message", "the firmware's ABI"),
    ("ghcb::msr", "the GHCB specification's"),
    ("ghcb::page", "the GHCB specification's"),
    ("ghcb::psc", "the GHCB specification's"),
    ("ghci", "the GHCI specification's"),
    ("kvm::cpuid::MAX_ENTRIES", "in the kernel's code alone"),
    ("kvm::events::VALID_ALL", "all the flags together"),
    ("kvm::irq::CLOCK_VALID_FLAGS", "all the flags together"),
    ("kvm::regs::SYNC_ALL", "all the sets together"),
    ("kvm::regs::XSAVE_BYTES", "a size: crates/abi/src/kvm/regs.rs"),
    ("kvm::run::PORT_DATA_BYTES", "a page of the architecture"),
    ("kvm::run::UNION_BYTES", "a size: crates/headers/src/rule/tests/abi.rs"),
    ("kvm::run::coco_v1", "a proposal: crates/headers/src/rule/tests/abi.rs"),
    ("kvm::run::map_gpa_range::PAGE_SIZE_MASK", "bits that the header names one by one"),
    ("kvm::run::sev_term_v4_1", "a proposal: crates/headers/src/rule/tests/abi.rs"),
    ("kvm::run::vmgexit_v10", "a proposal: crates/headers/src/rule/tests/abi.rs"),
    ("kvm::sev::platform::VLEK_HASHSTICK_BYTES", "a size: crates/headers/src/rule/tests/abi.rs"),
    ("kvm::sev::snp::policy", "the firmware's ABI"),
    ("kvm::tdx::TDVMCALLINFO_SETUP_EVENT_NOTIFY_INTERRUPT", "in the kernel's code alone"),
    ("msr_index", "the architecture's manual"),
    ("psci::SMCCC_VERSION", "a header that userspace does not have"),
    ("psci::version", "in the kernel's code alone"),
    ("psp", "the firmware's ABI"),
    ("report", "the firmware's ABI"),
    ("rmp", "the architecture's manual"),
    ("sbi", "the SBI specification's"),
    ("tdx", "the TDX module's ABI"),
    ("vmsa", "the architecture's manual"),
];

/// Macros that make more than one number each, with the beginning of the paths that their numbers have.
const TABLES: &[(&str, &str)] =
    &[("kvm::ioctl::ioctls!", "kvm::ioctl::KVM_"), ("kvm::run::reasons!", "kvm::run::ExitReason::")];

/// Public constants of a module, and the macros that make more of them, under the paths that users know.
fn constants_of(items: &[Item], module: &str, folder: &Path, found: &mut BTreeSet<String>) {
    let join = |name: &str| if module.is_empty() { name.into() } else { format!("{module}::{name}") };
    let is_public = |visibility: &Visibility| matches!(visibility, Visibility::Public(_));
    for item in items {
        match item {
            Item::Const(item) if is_public(&item.vis) => {
                found.insert(join(&item.ident.to_string()));
            }
            Item::Macro(item) if item.ident.is_none() => {
                let name = item.mac.path.segments.last().unwrap().ident.to_string();
                // The numbers of a type that wraps them have the type in their paths.
                let wrapper = item.mac.tokens.clone().into_iter().next().filter(|_| name == "named_newtype");
                found.insert(join(&match wrapper {
                    Some(wrapper) => format!("{wrapper}::named!"),
                    None => format!("{name}!"),
                }));
            }
            Item::Mod(item) if item.ident != "tests" => {
                let name = item.ident.to_string();
                // What a private module has is known by the path of the module around it.
                let inner = if is_public(&item.vis) { join(&name) } else { module.into() };
                if let Some((_, items)) = &item.content {
                    constants_of(items, &inner, &folder.join(&name), found);
                } else {
                    constants_in(folder, &name, &inner, found);
                }
            }
            _ => {}
        }
    }
}

fn constants_in(folder: &Path, name: &str, module: &str, found: &mut BTreeSet<String>) {
    let beside = folder.join(format!("{name}.rs"));
    let below: PathBuf = folder.join(name);
    let file = if beside.is_file() { beside } else { below.join("mod.rs") };
    let text = std::fs::read_to_string(&file).unwrap();
    constants_of(&syn::parse_file(&text).unwrap().items, module, &below, found);
}

#[test]
fn every_constant_of_exeunt_abi_is_compared_or_says_why_it_is_not() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/abi/src");
    let text = std::fs::read_to_string(sources.join("lib.rs")).unwrap();
    let mut declared = BTreeSet::new();
    constants_of(&syn::parse_file(&text).unwrap().items, "", &sources, &mut declared);
    assert!(declared.len() > 100, "{}", declared.len());

    let numbers =
        of_abi(Target::X86_64).into_iter().chain(beside().into_iter().flat_map(|header| header.numbers));
    let compared: BTreeSet<String> = numbers.map(|number| number.path).collect();
    let is_compared = |name: &str| {
        let table = TABLES.iter().find(|(table, _)| *table == name).map(|(_, start)| (*start).to_string());
        // A family of named numbers has no path in common with the constants of the modules below it.
        let family = name.strip_suffix("named!").map(str::to_string);
        match table.or(family) {
            Some(start) => compared.iter().any(|path| {
                path.strip_prefix(&start).is_some_and(|rest| !rest.is_empty() && !rest.contains("::"))
            }),
            None => compared.contains(name),
        }
    };
    let mut used = BTreeSet::new();
    let mut missing = Vec::new();
    for name in declared.iter().filter(|name| !is_compared(name)) {
        let excuses = |excuse: &str| {
            name.strip_prefix(excuse).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        match NOT_COMPARED.iter().find(|(excuse, _)| excuses(excuse)) {
            Some((excuse, _)) => drop(used.insert(*excuse)),
            None => missing.push(name),
        }
    }
    assert!(missing.is_empty(), "neither compared nor excused: {missing:#?}");
    let stale: Vec<_> = NOT_COMPARED.iter().filter(|(excuse, _)| !used.contains(excuse)).collect();
    assert!(stale.is_empty(), "excuses nothing: {stale:#?}");
}
