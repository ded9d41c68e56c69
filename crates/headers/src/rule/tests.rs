mod abi;

use super::*;
use exeunt_abi::kvm::run;
use std::mem::{offset_of, size_of};

/// Offset and size of a field.
fn place(tree: &Tree, target: Target, name: &str, path: &str) -> (u64, u64) {
    let layout = tree.layout(target, name).unwrap_or_else(|| panic!("{name} on {target}"));
    let field = layout.field(path).unwrap_or_else(|| panic!("{name}.{path}"));
    (field.offset, field.size)
}

fn size(tree: &Tree, target: Target, name: &str) -> u64 {
    tree.layout(target, name).unwrap_or_else(|| panic!("{name} on {target}")).size
}

#[test]
fn the_run_page_of_exeunt_abi_lies_as_the_registry_says() {
    let newest = &release(Release::Linux7_2);
    for (path, offset) in [
        ("exit_reason", offset_of!(run::RunPage, exit_reason)),
        ("if_flag", offset_of!(run::RunPage, if_flag)),
        ("flags", offset_of!(run::RunPage, flags)),
        ("cr8", offset_of!(run::RunPage, cr8)),
        ("apic_base", offset_of!(run::RunPage, apic_base)),
        ("padding", offset_of!(run::RunPage, exit)),
        ("kvm_valid_regs", size_of::<run::RunPage>()),
    ] {
        for target in Target::ALL {
            assert_eq!(place(newest, target, "kvm_run", path).0, offset as u64, "{path} on {target}");
        }
    }
    for target in Target::ALL {
        assert_eq!(size(newest, target, "kvm_run"), 2352, "{target}");
    }
}

#[test]
fn a_release_has_the_name_that_exeunt_abi_has_for_it() {
    for release in Release::ALL {
        let known = exeunt_abi::Dialect::from_name(release.name());
        assert_eq!(known.map(exeunt_abi::Dialect::name), Some(release.name()));
    }
    assert!(dialect("linux-1.0").is_none());
}

#[test]
fn sizes_that_differ_between_word_sizes_are_those_that_were_measured() {
    let newest = &release(Release::Linux7_2);
    let old = &release(Release::Linux5_17);
    let coco = &dialect("coco-v1").unwrap();
    let cases = [
        (old, "kvm_run.system_event", 16, 12),
        (newest, "kvm_run.system_event", 136, 136),
        (newest, "kvm_run.hypercall", 72, 72),
        (newest, "kvm_run.fail_entry", 16, 12),
        (newest, "kvm_run.tdx", 64, 64),
        (newest, "kvm_run.hyperv", 56, 56),
        (newest, "kvm_run.xen", 80, 76),
        (newest, "kvm_run.riscv_sbi", 80, 40),
        (newest, "kvm_run.emulation_failure", 32, 32),
        (coco, "kvm_run.coco", 24, 24),
        (newest, "kvm_vcpu_events", 64, 64),
        (newest, "kvm_enable_cap", 104, 104),
        (newest, "kvm_userspace_memory_region2", 160, 160),
        (newest, "kvm_sev_send_start", 72, 72),
        (old, "kvm_sev_send_start", 72, 52),
        (newest, "kvm_sev_snp_launch_finish", 88, 88),
        (newest, "kvm_tdx_capabilities", 2056, 2056),
        (newest, "kvm_tdx_init_vm", 264, 264),
        (newest, "sev_issue_cmd", 16, 16),
        (newest, "snp_guest_request_ioctl", 32, 28),
        (newest, "snp_ext_report_req", 112, 108),
    ];
    for (tree, name, wide, narrow) in cases {
        assert_eq!(size(tree, Target::X86_64, name), wide, "{name}");
        assert_eq!(size(tree, Target::I386, name), narrow, "{name}");
        // x32 aligns like x86-64, and differs only where a `long` is.
        if name != "kvm_run.riscv_sbi" {
            assert_eq!(size(tree, Target::X32, name), wide, "{name}");
        }
    }
}

#[test]
fn no_two_fields_of_a_struct_share_a_path_and_none_lies_outside() {
    for name in dialects() {
        let tree = dialect(name).unwrap();
        for (target, image) in &tree.images {
            for (name, layout) in &image.layouts {
                for (index, field) in layout.fields.iter().enumerate() {
                    assert!(field.bytes().end <= layout.size, "{name}.{} on {target}", field.path);
                    let again = layout.fields.iter().skip(index + 1).find(|other| other.path == field.path);
                    assert!(again.is_none(), "{name}.{}", field.path);
                    assert!(tree.scope.covers(name), "{name}");
                }
                assert!(layout.place.is_none() || layout.size <= 256, "{name}");
            }
        }
    }
}

#[test]
fn each_run_of_bit_fields_fills_its_storage_unit() {
    for def in others() {
        for member in def.forms.iter().flat_map(|form| form.members) {
            if let ctype::Type::Bits(storage, fields) = member.ty {
                let bits: u64 = fields.iter().map(|(_, width)| width).sum();
                let storage = if storage == ctype::Scalar::U8 { 8 } else { 32 };
                assert_eq!(bits, storage, "{}", def.name);
            }
        }
    }
}
