//! The launch digest, against the `sev` crate's on the same firmware image.

use crate::snp_world::{CPUID, POLICY, SECRETS, cpuid_page, finish, psp, start, update};
use crate::world::kernel;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::sev::snp::page_type;
use exeunt_abi::kvm::sev::{Init2, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::vmsa::{self, sev_features};
use exeunt_abi::{Dialect, Gpa};
use exeunt_model::launch::{SaveArea, Segment, SevHost};
use exeunt_model::psp::{LaunchDigest, PageType, VMSA_GPA};
use exeunt_model::{Kvm, Slot, Vm};
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};
use std::path::PathBuf;
use zerocopy::FromZeros;

const IMAGE_BYTES: usize = 0x4000;
const IMAGE: Gpa = Gpa(0x1_0000_0000 - IMAGE_BYTES as u64);
const AP_EIP: u32 = 0x0080_b004;
const SEC_MEMORY: (u32, u32) = (0x80_0000, 0x9000);

fn guid(text: &str) -> Vec<u8> {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let bytes: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    order.map(|at: usize| bytes[at]).to_vec()
}

fn entry(data: &[u8], id: &str) -> Vec<u8> {
    let size = u16::try_from(data.len() + 18).unwrap();
    [data, &size.to_le_bytes(), &guid(id)].concat()
}

/// An image of the shape of OVMF: content that is not zero, SEV metadata, and the table of GUIDs before the last 32 bytes.
fn image() -> Vec<u8> {
    let sections = [
        (SEC_MEMORY.0, SEC_MEMORY.1, 1u32),
        (u32::try_from(SECRETS.0).unwrap(), 0x1000, 2),
        (u32::try_from(CPUID.0).unwrap(), 0x1000, 3),
        (0x80_f000, 0x1000, 4),
        (0x81_0000, 0x1000, 0x10),
    ];
    let mut metadata = b"ASEV".to_vec();
    metadata.extend(u32::try_from(16 + 12 * sections.len()).unwrap().to_le_bytes());
    metadata.extend([1u32, u32::try_from(sections.len()).unwrap()].map(u32::to_le_bytes).concat());
    for (gpa, size, kind) in sections {
        metadata.extend([gpa, size, kind].map(u32::to_le_bytes).concat());
    }
    let metadata_at = 0x200usize;
    let from_end = u32::try_from(IMAGE_BYTES - metadata_at).unwrap();
    let mut table = entry(&AP_EIP.to_le_bytes(), "00f771de-1a7e-4fcb-890e-68c77e2fb44e");
    table.extend(entry(&from_end.to_le_bytes(), "dc886566-984a-4798-a75e-5585a7bf67cc"));
    let footer = u16::try_from(table.len() + 18).unwrap();
    table.extend(footer.to_le_bytes());
    table.extend(guid("96b582de-1fb2-45f7-baea-a366c55a082d"));
    let mut image: Vec<u8> = (0..IMAGE_BYTES).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    image[metadata_at..metadata_at + metadata.len()].copy_from_slice(&metadata);
    let end = IMAGE_BYTES - 32;
    image[end - table.len()..end].copy_from_slice(&table);
    image
}

fn image_file(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("exeunt-{}-{name}.fd", std::process::id()));
    std::fs::write(&path, image()).unwrap();
    path
}

fn expected(name: &str, vcpus: u32, features: u64) -> String {
    let ovmf_file = image_file(name);
    let digest = snp_calc_launch_digest(SnpMeasurementArgs {
        vcpus,
        vcpu_type: CpuType::EpycMilan,
        ovmf_file: ovmf_file.clone(),
        guest_features: GuestFeatures(features),
        kernel_file: None,
        initrd_file: None,
        append: None,
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    });
    std::fs::remove_file(ovmf_file).unwrap();
    digest.unwrap().get_hex_ld()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// The registers of a vCPU as QEMU sets them for an EPYC of Milan.
fn save_area(id: u32) -> SaveArea {
    let mut area = SaveArea::default();
    area.set(vmsa::RDX, u64::try_from(CpuType::EpycMilan.sig()).unwrap());
    if id > 0 {
        let base = u64::from(AP_EIP & 0xffff_0000);
        area.set_segment(vmsa::CS, Segment { selector: 0xf000, attributes: 0x9b, limit: 0xffff, base });
        area.set(vmsa::RIP, u64::from(AP_EIP & 0xffff));
    }
    area
}

fn digest_of(vcpus: u32, features: u64) -> LaunchDigest {
    let mut digest = LaunchDigest::new();
    for (page, gpa) in image().chunks(4096).zip((IMAGE.0..).step_by(4096)) {
        digest.add_page(PageType::Normal, gpa, page);
    }
    for gpa in (SEC_MEMORY.0..SEC_MEMORY.0 + SEC_MEMORY.1).step_by(4096) {
        digest.add_page(PageType::Zero, gpa.into(), &[0; 4096]);
    }
    digest.add_page(PageType::Secrets, SECRETS.0, &[1; 4096]);
    digest.add_page(PageType::Cpuid, CPUID.0, &cpuid_page());
    for gpa in [0x80_f000, 0x81_0000] {
        digest.add_page(PageType::Zero, gpa, &[0; 4096]);
    }
    for id in 0..vcpus {
        let mut area = save_area(id);
        area.set(vmsa::SEV_FEATURES, features);
        digest.add_page(PageType::Vmsa, VMSA_GPA, area.bytes());
    }
    digest
}

#[test]
fn the_digest_is_that_of_the_sev_crate_for_any_number_of_vcpus_and_any_features() {
    for vcpus in [1, 2, 3, 8] {
        for features in [1, 1 | sev_features::DEBUG_SWAP, 1 | sev_features::SECURE_TSC | 1 << 5] {
            let name = format!("digest-{vcpus}-{features:x}");
            let got = hex(&digest_of(vcpus, features).bytes());
            assert_eq!(got, expected(&name, vcpus, features), "{vcpus} vCPUs, features {features:#x}");
        }
    }
}

fn launched_vm(vcpus: u32, features: u64) -> Vm {
    let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::Snp).unwrap();
    for (number, gpa, bytes) in [(0, Gpa(0x80_0000), 0x2_0000), (1, IMAGE, IMAGE_BYTES as u64)] {
        let file = vm.create_guest_memfd(bytes).unwrap();
        vm.add_slot(Slot::shared(number, gpa, bytes).unwrap().with_guest_memfd(file, 0)).unwrap();
        vm.set_memory_attributes(gpa, bytes, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    }
    vm.set_sev_host(SevHost::new(psp(1))).unwrap();
    let mut init = Init2::new_zeroed();
    init.vmsa_features = features & !sev_features::SNP_ACTIVE;
    vm.sev_command(id::INIT2, &mut init).unwrap();
    for id in 0..vcpus {
        let _ = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        vm.set_save_area(id.into(), save_area(id)).unwrap();
    }
    start(&vm, POLICY).unwrap();
    update(&vm, page_type::NORMAL, IMAGE, &image()).unwrap();
    update(&vm, page_type::ZERO, Gpa(SEC_MEMORY.0.into()), &vec![7; SEC_MEMORY.1 as usize]).unwrap();
    update(&vm, page_type::SECRETS, SECRETS, &[7; 4096]).unwrap();
    update(&vm, page_type::CPUID, CPUID, &cpuid_page()).unwrap();
    update(&vm, page_type::ZERO, Gpa(0x80_f000), &[7; 0x2000]).unwrap();
    finish(&vm).unwrap();
    vm
}

#[test]
fn a_launch_by_the_commands_measures_what_the_sev_crate_computes_from_the_image() {
    for (vcpus, features) in [(1, 1), (2, 1 | sev_features::DEBUG_SWAP)] {
        let vm = launched_vm(vcpus, features);
        let name = format!("launch-{vcpus}");
        assert_eq!(hex(&vm.launch_digest().unwrap()), expected(&name, vcpus, features));
    }
}
