extern crate std;
use super::*;
use std::string::ToString;

/// What gcc 12 computes from the header of Linux 7.2 on x86-64.
const NATIVE: &[(&str, u32)] = &[
    ("KVM_GET_API_VERSION", 0xae00),
    ("KVM_CREATE_VM", 0xae01),
    ("KVM_CHECK_EXTENSION", 0xae03),
    ("KVM_GET_VCPU_MMAP_SIZE", 0xae04),
    ("KVM_GET_SUPPORTED_CPUID", 0xc008_ae05),
    ("KVM_SET_DEVICE_ATTR", 0x4018_aee1),
    ("KVM_GET_DEVICE_ATTR", 0x4018_aee2),
    ("KVM_HAS_DEVICE_ATTR", 0x4018_aee3),
    ("KVM_CREATE_VCPU", 0xae41),
    ("KVM_GET_DIRTY_LOG", 0x4010_ae42),
    ("KVM_CLEAR_DIRTY_LOG", 0xc018_aec0),
    ("KVM_SET_USER_MEMORY_REGION", 0x4020_ae46),
    ("KVM_SET_USER_MEMORY_REGION2", 0x40a0_ae49),
    ("KVM_SET_TSS_ADDR", 0xae47),
    ("KVM_CREATE_IRQCHIP", 0xae60),
    ("KVM_SET_GSI_ROUTING", 0x4008_ae6a),
    ("KVM_IRQFD", 0x4020_ae76),
    ("KVM_IOEVENTFD", 0x4040_ae79),
    ("KVM_SIGNAL_MSI", 0x4020_aea5),
    ("KVM_ENABLE_CAP", 0x4068_aea3),
    ("KVM_MEMORY_ENCRYPT_OP", 0xc008_aeba),
    ("KVM_MEMORY_ENCRYPT_REG_REGION", 0x8010_aebb),
    ("KVM_MEMORY_ENCRYPT_UNREG_REGION", 0x8010_aebc),
    ("KVM_SET_MEMORY_ATTRIBUTES", 0x4020_aed2),
    ("KVM_CREATE_GUEST_MEMFD", 0xc040_aed4),
    ("KVM_PRE_FAULT_MEMORY", 0xc040_aed5),
    ("KVM_X86_SET_MSR_FILTER", 0x4188_aec6),
    ("KVM_SET_CLOCK", 0x4030_ae7b),
    ("KVM_GET_CLOCK", 0x8030_ae7c),
    ("KVM_SET_TSC_KHZ", 0xaea2),
    ("KVM_CREATE_DEVICE", 0xc00c_aee0),
    ("KVM_GET_STATS_FD", 0xaece),
    ("KVM_RUN", 0xae80),
    ("KVM_GET_REGS", 0x8090_ae81),
    ("KVM_SET_REGS", 0x4090_ae82),
    ("KVM_GET_SREGS", 0x8138_ae83),
    ("KVM_SET_SREGS", 0x4138_ae84),
    ("KVM_GET_SREGS2", 0x8140_aecc),
    ("KVM_SET_SREGS2", 0x4140_aecd),
    ("KVM_GET_FPU", 0x81a0_ae8c),
    ("KVM_SET_FPU", 0x41a0_ae8d),
    ("KVM_GET_MSRS", 0xc008_ae88),
    ("KVM_SET_MSRS", 0x4008_ae89),
    ("KVM_SET_CPUID2", 0x4008_ae90),
    ("KVM_GET_CPUID2", 0xc008_ae91),
    ("KVM_GET_LAPIC", 0x8400_ae8e),
    ("KVM_SET_LAPIC", 0x4400_ae8f),
    ("KVM_GET_MP_STATE", 0x8004_ae98),
    ("KVM_SET_MP_STATE", 0x4004_ae99),
    ("KVM_NMI", 0xae9a),
    ("KVM_SMI", 0xaeb7),
    ("KVM_INTERRUPT", 0x4004_ae86),
    ("KVM_SET_SIGNAL_MASK", 0x4004_ae8b),
    ("KVM_GET_VCPU_EVENTS", 0x8040_ae9f),
    ("KVM_SET_VCPU_EVENTS", 0x4040_aea0),
    ("KVM_GET_DEBUGREGS", 0x8080_aea1),
    ("KVM_SET_DEBUGREGS", 0x4080_aea2),
    ("KVM_SET_GUEST_DEBUG", 0x4048_ae9b),
    ("KVM_GET_XSAVE", 0x9000_aea4),
    ("KVM_SET_XSAVE", 0x5000_aea5),
    ("KVM_GET_XSAVE2", 0x9000_aecf),
    ("KVM_GET_XCRS", 0x8188_aea6),
    ("KVM_SET_XCRS", 0x4188_aea7),
    ("KVM_GET_NESTED_STATE", 0xc080_aebe),
    ("KVM_SET_NESTED_STATE", 0x4080_aebf),
    ("KVM_GET_ONE_REG", 0x4010_aeab),
    ("KVM_SET_ONE_REG", 0x4010_aeac),
    ("KVM_GET_REG_LIST", 0xc008_aeb0),
    ("KVM_GET_MSR_INDEX_LIST", 0xc004_ae02),
    ("KVM_GET_EMULATED_CPUID", 0xc008_ae09),
    ("KVM_GET_MSR_FEATURE_INDEX_LIST", 0xc004_ae0a),
    ("KVM_SET_NR_MMU_PAGES", 0xae44),
    ("KVM_SET_IDENTITY_MAP_ADDR", 0x4008_ae48),
    ("KVM_IRQ_LINE", 0x4008_ae61),
    ("KVM_GET_IRQCHIP", 0xc208_ae62),
    ("KVM_SET_IRQCHIP", 0x8208_ae63),
    ("KVM_CREATE_PIT", 0xae64),
    ("KVM_GET_PIT", 0xc048_ae65),
    ("KVM_SET_PIT", 0x8048_ae66),
    ("KVM_IRQ_LINE_STATUS", 0xc008_ae67),
    ("KVM_REGISTER_COALESCED_MMIO", 0x4010_ae67),
    ("KVM_UNREGISTER_COALESCED_MMIO", 0x4010_ae68),
    ("KVM_REINJECT_CONTROL", 0xae71),
    ("KVM_CREATE_PIT2", 0x4040_ae77),
    ("KVM_SET_BOOT_CPU_ID", 0xae78),
    ("KVM_TRANSLATE", 0xc018_ae85),
    ("KVM_SET_CPUID", 0x4008_ae8a),
    ("KVM_TPR_ACCESS_REPORTING", 0xc028_ae92),
    ("KVM_SET_VAPIC_ADDR", 0x4008_ae93),
    ("KVM_X86_SETUP_MCE", 0x4008_ae9c),
    ("KVM_X86_GET_MCE_CAP_SUPPORTED", 0x8008_ae9d),
    ("KVM_X86_SET_MCE", 0x4040_ae9e),
    ("KVM_GET_PIT2", 0x8070_ae9f),
    ("KVM_SET_PIT2", 0x4070_aea0),
    ("KVM_GET_TSC_KHZ", 0xaea3),
    ("KVM_KVMCLOCK_CTRL", 0xaead),
    ("KVM_SET_PMU_EVENT_FILTER", 0x4020_aeb2),
    ("KVM_HYPERV_EVENTFD", 0x4018_aebd),
    ("KVM_GET_SUPPORTED_HV_CPUID", 0xc008_aec1),
    ("KVM_RESET_DIRTY_RINGS", 0xaec7),
    ("SEV_ISSUE_CMD", 0xc010_5300),
    ("SNP_GET_REPORT", 0xc020_5300),
    ("SNP_GET_DERIVED_KEY", 0xc020_5301),
    ("SNP_GET_EXT_REPORT", 0xc020_5302),
];

#[test]
fn every_number_is_the_one_that_the_c_compiler_computes() {
    for (name, number) in NATIVE {
        assert_eq!(Ioctl::from_name(name), Some(Ioctl(*number)), "{name}");
        assert_eq!(Ioctl(*number).name(), Some(*name));
    }
    let native = KNOWN.iter().filter(|known| known.form == Form::Native).count();
    assert_eq!(native, NATIVE.len());
}

#[test]
fn the_32_bit_forms_have_their_names_and_are_marked() {
    let expected = [
        (0xc004_aeba, "KVM_MEMORY_ENCRYPT_OP", Form::Ilp32Refused),
        (0x4104_aec6, "KVM_X86_SET_MSR_FILTER", Form::Ilp32Translated),
        (0xc01c_5300, "SNP_GET_REPORT", Form::I386Refused),
        (0xc01c_5301, "SNP_GET_DERIVED_KEY", Form::I386Refused),
        (0xc01c_5302, "SNP_GET_EXT_REPORT", Form::I386Refused),
    ];
    for (number, name, form) in expected {
        let known = Ioctl(number).known().unwrap();
        assert_eq!((known.name, known.form), (name, form));
        assert!(Ioctl(number).to_string().contains("32-bit form"), "{}", Ioctl(number));
        assert_ne!(Ioctl::from_name(name), Some(Ioctl(number)));
    }
    assert_eq!(KNOWN.iter().filter(|known| known.form != Form::Native).count(), expected.len());
}

#[test]
fn no_number_is_in_the_table_twice_and_each_has_a_file() {
    for (index, known) in KNOWN.iter().enumerate() {
        let first = KNOWN.iter().position(|other| other.ioctl == known.ioctl);
        assert_eq!(first, Some(index), "{:?}", known.ioctl);
        assert!(!known.fds.is_empty());
    }
}

#[test]
fn building_undoes_taking_apart_for_every_number() {
    for step in 0..1 << 20 {
        let number = Ioctl(step * 4093);
        let Parts { direction, size_bytes, kind, nr } = number.parts();
        assert_eq!(ioctl(direction, size_bytes, kind, nr), number, "{:#x}", number.0);
    }
}

#[test]
fn a_number_without_a_name_prints_as_it_is() {
    assert_eq!(Ioctl(0xc008_aeba).to_string(), "KVM_MEMORY_ENCRYPT_OP (0xc008aeba)");
    assert_eq!(Ioctl(0x1234).to_string(), "ioctl 0x1234");
    assert_eq!(Ioctl::from_name("KVM_NO_SUCH"), None);
}
