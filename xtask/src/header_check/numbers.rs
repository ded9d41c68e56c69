//! The numbers of `exeunt-abi`, under the names that the kernel's headers have for them.

use exeunt_abi::Errno;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::ioctl::{Form, KNOWN};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_headers::Target;

use super::is_x86;

/// A number of `exeunt-abi` that a header defines, too.
#[derive(Clone)]
pub(crate) struct Number {
    /// As the header calls it.
    pub(crate) name: String,
    /// As this workspace calls it, from the root of the crate on.
    pub(crate) path: String,
    /// As wide as C's `unsigned long long`: a negative one is extended.
    pub(crate) value: u64,
    /// The bits that are the same for each architecture.
    pub(crate) mask: u64,
    /// Whose headers must have it, if they are of the newest release.
    home: Home,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    X86,
    Arm64,
}

impl Number {
    fn new(name: impl Into<String>, path: impl Into<String>, value: u64) -> Self {
        Self { name: name.into(), path: path.into(), value, mask: u64::MAX, home: Home::X86 }
    }

    /// True if the newest headers of this target have to define it.
    pub(crate) fn belongs_to(&self, target: Target) -> bool {
        match self.home {
            Home::X86 => is_x86(target),
            Home::Arm64 => target == Target::Aarch64,
        }
    }

    /// True if the header's value is ours.
    pub(crate) const fn agrees_with(&self, real: u64) -> bool {
        self.value & self.mask == real & self.mask
    }
}

/// Every number that `linux/kvm.h` and the headers beside it define: those that a tree of headers has.
pub(crate) fn of_abi(target: Target) -> Vec<Number> {
    let groups = [exits_and_capabilities(), singles(), families(), sev(), vm_types(), ioctls(target)];
    groups.into_iter().flatten().collect()
}

/// Widens as C does.
trait Wide: Copy {
    fn wide(self) -> u64;
}

macro_rules! wide {
    ($($type:ty)*) => {
        $(impl Wide for $type {
            fn wide(self) -> u64 {
                u64::from(self)
            }
        })*
    };
}
wide! { u8 u32 u64 }

impl Wide for usize {
    fn wide(self) -> u64 {
        self as u64
    }
}

impl Wide for i64 {
    fn wide(self) -> u64 {
        u64::from_ne_bytes(self.to_ne_bytes())
    }
}

/// `"C_NAME" = path::from::the::root;`
macro_rules! constants {
    ($($name:literal = $first:ident $(:: $rest:ident)+;)*) => {
        vec![$($crate::header_check::numbers::Number::new(
            $name,
            concat!(stringify!($first) $(, "::", stringify!($rest))+),
            $crate::header_check::numbers::Wide::wide(exeunt_abi::$first $(:: $rest)+),
        )),*]
    };
}

/// `"C_PREFIX_" path::of::a::module::of::named::numbers;`
macro_rules! named {
    ($($prefix:literal $first:ident $(:: $rest:ident)*;)*) => {{
        let mut numbers = Vec::new();
        $(numbers.extend($crate::header_check::numbers::family(
            $prefix,
            concat!(stringify!($first) $(, "::", stringify!($rest))*),
            exeunt_abi::$first $(:: $rest)*::ALL,
        ));)*
        numbers
    }};
}

fn family<T: Wide>(prefix: &str, module: &str, all: &[(T, &str)]) -> Vec<Number> {
    let number = |(value, name): &(T, &str)| {
        Number::new(format!("{prefix}{name}"), format!("{module}::{name}"), value.wide())
    };
    all.iter().map(number).collect()
}

fn exits_and_capabilities() -> Vec<Number> {
    let exits = ExitReason::ALL.iter().filter_map(|reason| {
        let name = reason.name()?;
        Some(Number::new(
            format!("KVM_EXIT_{name}"),
            format!("kvm::run::ExitReason::{name}"),
            reason.0.wide(),
        ))
    });
    let caps = Cap::ALL.iter().filter_map(|cap| {
        // The crate has the names of scenario files: `memory-fault-info`.
        let name = cap.name()?.to_uppercase().replace('-', "_");
        Some(Number::new(format!("KVM_CAP_{name}"), format!("kvm::caps::Cap::{name}"), cap.0.wide()))
    });
    exits.chain(caps).collect()
}

fn singles() -> Vec<Number> {
    let mut numbers = constants! {
        "KVMIO" = kvm::ioctl::KVMIO;
        "SEV_IOC_TYPE" = kvm::ioctl::SEV_IOC_TYPE;
        "SNP_GUEST_REQ_IOC_TYPE" = kvm::ioctl::SEV_IOC_TYPE;
        "KVM_VCPUEVENT_VALID_NMI_PENDING" = kvm::events::VALID_NMI_PENDING;
        "KVM_VCPUEVENT_VALID_SIPI_VECTOR" = kvm::events::VALID_SIPI_VECTOR;
        "KVM_VCPUEVENT_VALID_SHADOW" = kvm::events::VALID_SHADOW;
        "KVM_VCPUEVENT_VALID_SMM" = kvm::events::VALID_SMM;
        "KVM_VCPUEVENT_VALID_PAYLOAD" = kvm::events::VALID_PAYLOAD;
        "KVM_VCPUEVENT_VALID_TRIPLE_FAULT" = kvm::events::VALID_TRIPLE_FAULT;
        "KVM_MEM_LOG_DIRTY_PAGES" = kvm::memory::MEM_LOG_DIRTY_PAGES;
        "KVM_MEM_READONLY" = kvm::memory::MEM_READONLY;
        "KVM_MEM_GUEST_MEMFD" = kvm::memory::MEM_GUEST_MEMFD;
        "KVM_MEMORY_ATTRIBUTE_PRIVATE" = kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
        "GUEST_MEMFD_FLAG_MMAP" = kvm::memory::GUEST_MEMFD_FLAG_MMAP;
        "GUEST_MEMFD_FLAG_INIT_SHARED" = kvm::memory::GUEST_MEMFD_FLAG_INIT_SHARED;
        "KVM_X86_SHADOW_INT_MOV_SS" = kvm::events::SHADOW_INT_MOV_SS;
        "KVM_X86_SHADOW_INT_STI" = kvm::events::SHADOW_INT_STI;
        "KVM_X86_GRP_SYSTEM" = kvm::device_attr::X86_GRP_SYSTEM;
        "KVM_X86_GRP_SEV" = kvm::device_attr::X86_GRP_SEV;
        "KVM_EXIT_IO_IN" = kvm::run::DIRECTION_IN;
        "KVM_EXIT_IO_OUT" = kvm::run::DIRECTION_OUT;
        "KVM_EXIT_HYPERCALL_LONG_MODE" = kvm::run::HYPERCALL_LONG_MODE;
        "KVM_MEMORY_EXIT_FLAG_PRIVATE" = kvm::run::MEMORY_EXIT_FLAG_PRIVATE;
        "KVM_NOTIFY_CONTEXT_INVALID" = kvm::run::NOTIFY_CONTEXT_INVALID;
        "KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES" = kvm::run::EMULATION_FLAG_INSTRUCTION_BYTES;
        "KVM_HC_MAP_GPA_RANGE" = kvm::run::MAP_GPA_RANGE;
        "KVM_MAP_GPA_RANGE_PAGE_SZ_2M" = kvm::run::map_gpa_range::PAGE_SIZE_2M;
        "KVM_MAP_GPA_RANGE_ENCRYPTED" = kvm::run::map_gpa_range::ENCRYPTED;
        "KVM_SEV_SNP_ID_BLOCK_SIZE" = kvm::sev::snp::ID_BLOCK_BYTES;
        "KVM_SEV_SNP_ID_AUTH_SIZE" = kvm::sev::snp::ID_AUTH_BYTES;
        "KVM_TDX_MEASURE_MEMORY_REGION" = kvm::tdx::MEASURE_MEMORY_REGION;
    };
    numbers.extend(of_the_machine());
    let mut arm64 = constants! {
        "KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2" = kvm::run::PSCI_RESET2;
        "KVM_SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2" = kvm::run::PSCI_OFF2;
    };
    arm64.extend(named! { "KVM_PSCI_FN_" psci::function_v0_1; });
    numbers.extend(arm64.into_iter().map(|number| Number { home: Home::Arm64, ..number }));
    numbers
}

/// Registers, interrupts and devices.
fn of_the_machine() -> Vec<Number> {
    constants! {
        // The header's own spelling.
        "KVM_CPUID_FLAG_SIGNIFCANT_INDEX" = kvm::cpuid::FLAG_SIGNIFICANT_INDEX;
        "KVM_SREGS2_FLAGS_PDPTRS_VALID" = kvm::regs::SREGS2_FLAGS_PDPTRS_VALID;
        "KVM_SYNC_X86_REGS" = kvm::regs::SYNC_REGS;
        "KVM_SYNC_X86_SREGS" = kvm::regs::SYNC_SREGS;
        "KVM_SYNC_X86_EVENTS" = kvm::regs::SYNC_EVENTS;
        "KVM_APIC_REG_SIZE" = kvm::regs::LAPIC_BYTES;
        "KVM_CREATE_DEVICE_TEST" = kvm::irq::CREATE_DEVICE_TEST;
        "KVM_DEV_TYPE_VFIO" = kvm::irq::DEV_TYPE_VFIO;
        "KVM_IOEVENTFD_FLAG_DATAMATCH" = kvm::irq::IOEVENTFD_FLAG_DATAMATCH;
        "KVM_IOEVENTFD_FLAG_PIO" = kvm::irq::IOEVENTFD_FLAG_PIO;
        "KVM_IOEVENTFD_FLAG_DEASSIGN" = kvm::irq::IOEVENTFD_FLAG_DEASSIGN;
        "KVM_IRQFD_FLAG_DEASSIGN" = kvm::irq::IRQFD_FLAG_DEASSIGN;
        "KVM_IRQFD_FLAG_RESAMPLE" = kvm::irq::IRQFD_FLAG_RESAMPLE;
        "KVM_IRQ_ROUTING_IRQCHIP" = kvm::irq::IRQ_ROUTING_IRQCHIP;
        "KVM_IRQ_ROUTING_MSI" = kvm::irq::IRQ_ROUTING_MSI;
    }
}

fn families() -> Vec<Number> {
    named! {
        "KVM_SYSTEM_EVENT_" kvm::run::event_type;
        "KVM_INTERNAL_ERROR_" kvm::run::suberror;
        "KVM_MSR_EXIT_REASON_" kvm::run::msr_exit_reason;
        "KVM_MP_STATE_" kvm::mp_state;
        "KVM_X86_" kvm::device_attr::sev_attr;
        "KVM_SEV_" kvm::sev::id;
        "KVM_SEV_SNP_PAGE_TYPE_" kvm::sev::snp::page_type;
        "KVM_TDX_" kvm::tdx::id;
    }
}

fn sev() -> Vec<Number> {
    let mut commands = named! { "SEV_" kvm::sev::platform::command; };
    for command in &mut commands {
        if let Some(name) = command.name.strip_prefix("SEV_SNP_") {
            command.name = format!("SNP_{name}");
        }
    }
    let mut firmware = named! { "SEV_RET_" kvm::sev::firmware; };
    // Older headers have no other spelling.
    firmware.extend(constants! { "SEV_RET_INAVLID_CONFIG" = kvm::sev::firmware::INVALID_CONFIG; });
    for code in &mut firmware {
        // A `u32` of a struct that holds an `int` of C.
        let code_bits = u32::try_from(code.value).unwrap_or(0).to_ne_bytes();
        code.value = i64::from(i32::from_ne_bytes(code_bits)).wide();
    }
    let mut errors = named! { "SNP_GUEST_VMM_ERR_" ghcb::guest_message::vmm_error; };
    for error in &mut errors {
        // The macro `SNP_GUEST_VMM_ERR` shifts it.
        error.value >>= 32;
    }
    let groups = [commands, firmware, errors];
    groups.into_iter().flatten().filter(|number| !is_not_in_headers(&number.path)).collect()
}

fn vm_types() -> Vec<Number> {
    let number = |vm_type: VmType| {
        let name = vm_type.name().to_uppercase().replace('-', "_");
        let path = format!("kvm::vm_type::VmType::{vm_type:?}");
        Number::new(format!("KVM_X86_{name}_VM"), path, vm_type.number())
    };
    VmType::ALL.into_iter().map(number).collect()
}

/// ioctls whose argument has another size on each architecture; ours is that of x86.
///
/// Source: Linux v7.2 `arch/*/include/uapi/asm/kvm.h`.
const ARGUMENT_IS_THE_ARCHITECTURES: &[&str] = &[
    "KVM_SET_PMU_EVENT_FILTER",
    "KVM_GET_REGS",
    "KVM_SET_REGS",
    "KVM_GET_SREGS",
    "KVM_SET_SREGS",
    "KVM_GET_FPU",
    "KVM_SET_FPU",
    "KVM_SET_GUEST_DEBUG",
];

/// Every bit of an ioctl number but 29:16, the bytes of the argument.
const ALL_BUT_THE_SIZE: u64 = 0xc000_ffff;

/// The number that a process of the target computes, for each name.
fn ioctls(target: Target) -> Vec<Number> {
    let is_own = |form| match form {
        Form::Native => false,
        Form::Ilp32Translated | Form::Ilp32Refused => target.word_bytes() == 4,
        Form::I386Refused => target == Target::I386,
    };
    let number = |name: &str| {
        let forms = || KNOWN.iter().filter(|known| known.name == name);
        let native = || forms().find(|known| known.form == Form::Native);
        let known = forms().find(|known| is_own(known.form)).or_else(native)?;
        let path = format!("kvm::ioctl::{name} ({:?})", known.form);
        let mut number = Number::new(name, path, known.ioctl.0.into());
        if !is_x86(target) && ARGUMENT_IS_THE_ARCHITECTURES.contains(&name) {
            number.mask = ALL_BUT_THE_SIZE;
        }
        Some(number)
    };
    let names = KNOWN.iter().filter(|known| known.form == Form::Native).map(|known| known.name);
    names.filter_map(number).collect()
}

/// A header that [`exeunt_headers::compile`] does not read, with the numbers of ours that it defines.
pub(crate) struct Beside {
    pub(crate) include: &'static str,
    pub(crate) numbers: Vec<Number>,
}

impl Beside {
    /// True if the newest headers of this target have to have it.
    pub(crate) fn belongs_to(&self, target: Target) -> bool {
        // The others are in the `asm` of x86.
        is_x86(target) || self.include.starts_with("linux/")
    }
}

/// The numbers of other headers, whose numbers are no part of a tree.
pub(crate) fn beside() -> Vec<Beside> {
    vec![
        Beside { include: "linux/errno.h", numbers: errnos() },
        Beside { include: "linux/psci.h", numbers: psci() },
        Beside { include: "asm/svm.h", numbers: svm() },
        Beside { include: "asm/vmx.h", numbers: vmx() },
    ]
}

fn errnos() -> Vec<Number> {
    let number = |errno: &Errno| {
        let name = errno.name()?;
        Some(Number::new(name, format!("errno::Errno::{name}"), i64::from(errno.0).wide()))
    };
    Errno::ALL.iter().filter_map(number).collect()
}

fn psci() -> Vec<Number> {
    let mut numbers = constants! {
        "PSCI_0_2_FN_PSCI_VERSION" = psci::function::VERSION;
        "PSCI_0_2_FN_CPU_SUSPEND" = psci::function::CPU_SUSPEND;
        "PSCI_0_2_FN_CPU_OFF" = psci::function::CPU_OFF;
        "PSCI_0_2_FN_CPU_ON" = psci::function::CPU_ON;
        "PSCI_0_2_FN_AFFINITY_INFO" = psci::function::AFFINITY_INFO;
        "PSCI_0_2_FN_MIGRATE_INFO_TYPE" = psci::function::MIGRATE_INFO_TYPE;
        "PSCI_0_2_FN64_CPU_SUSPEND" = psci::function::CPU_SUSPEND_64;
        "PSCI_0_2_FN64_CPU_ON" = psci::function::CPU_ON_64;
        "PSCI_0_2_FN64_AFFINITY_INFO" = psci::function::AFFINITY_INFO_64;
        "PSCI_1_0_FN_PSCI_FEATURES" = psci::function::FEATURES;
        "PSCI_0_2_TOS_MP" = psci::TOS_MP;
        "PSCI_0_2_FN_SYSTEM_OFF" = psci::function::SYSTEM_OFF;
        "PSCI_0_2_FN_SYSTEM_RESET" = psci::function::SYSTEM_RESET;
        "PSCI_1_0_FN_SYSTEM_SUSPEND" = psci::function::SYSTEM_SUSPEND;
        "PSCI_1_1_FN_SYSTEM_RESET2" = psci::function::SYSTEM_RESET2;
        "PSCI_1_3_FN_SYSTEM_OFF2" = psci::function::SYSTEM_OFF2;
        "PSCI_1_0_FN64_SYSTEM_SUSPEND" = psci::function::SYSTEM_SUSPEND_64;
        "PSCI_1_1_FN64_SYSTEM_RESET2" = psci::function::SYSTEM_RESET2_64;
        "PSCI_1_3_FN64_SYSTEM_OFF2" = psci::function::SYSTEM_OFF2_64;
        "PSCI_1_1_RESET_TYPE_SYSTEM_WARM_RESET" = psci::RESET2_SYSTEM_WARM_RESET;
        "PSCI_1_1_RESET_TYPE_VENDOR_START" = psci::RESET2_VENDOR;
        "PSCI_1_3_OFF_TYPE_HIBERNATE_OFF" = psci::OFF2_HIBERNATE;
    };
    numbers.extend(named! { "PSCI_RET_" psci::return_code; });
    numbers.extend(named! { "PSCI_0_2_AFFINITY_LEVEL_" psci::affinity_level; });
    for number in &mut numbers {
        number.name = number.name.replace("_INVALID_PARAMETERS", "_INVALID_PARAMS");
    }
    numbers
}

fn svm() -> Vec<Number> {
    let mut numbers = named! { "SVM_VMGEXIT_" ghcb::exit_code; };
    numbers.retain(|number| !is_not_in_headers(&number.path));
    for number in &mut numbers {
        // What the processor has, too, is an exit of it.
        if number.value < 0x8000_0000 {
            number.name = number.name.replace("SVM_VMGEXIT_", "SVM_EXIT_");
        }
    }
    numbers.extend(named! { "SVM_VMGEXIT_AP_" ghcb::exit_code::ap_creation; });
    numbers.extend(constants! {
        "SVM_VMGEXIT_SET_AP_JUMP_TABLE" = ghcb::exit_code::ap_jump_table::SET;
        "SVM_VMGEXIT_GET_AP_JUMP_TABLE" = ghcb::exit_code::ap_jump_table::GET;
    });
    numbers
}

fn vmx() -> Vec<Number> {
    constants! {
        "EXIT_REASON_CPUID" = ghci::leaf::CPUID;
        "EXIT_REASON_HLT" = ghci::leaf::HLT;
        "EXIT_REASON_IO_INSTRUCTION" = ghci::leaf::IO;
        "EXIT_REASON_MSR_READ" = ghci::leaf::RDMSR;
        "EXIT_REASON_MSR_WRITE" = ghci::leaf::WRMSR;
        "EXIT_REASON_EPT_VIOLATION" = ghci::leaf::MMIO;
    }
}

/// Members of a family that have their numbers from a specification or from the kernel's code and not from a header.
const NOT_IN_HEADERS: &[&str] = &[
    "ghcb::exit_code::HV_DOORBELL_PAGE",
    "ghcb::exit_code::HV_IPI",
    "ghcb::exit_code::HV_TIMER",
    "ghcb::exit_code::APIC_ID_LIST",
    "ghcb::guest_message::vmm_error::GENERIC",
];

fn is_not_in_headers(path: &str) -> bool {
    NOT_IN_HEADERS.contains(&path)
}

/// Families of which this workspace is to know every member, by the beginning of their names.
const COMPLETE: &[&str] = &[
    "GUEST_MEMFD_FLAG_",
    "KVM_EXIT_HYPERCALL_",
    "KVM_EXIT_IO_",
    "KVM_INTERNAL_ERROR_",
    "KVM_MEMORY_ATTRIBUTE_",
    "KVM_MEMORY_EXIT_FLAG_",
    "KVM_MEM_",
    "KVM_MP_STATE_",
    "KVM_MSR_EXIT_REASON_",
    "KVM_NOTIFY_",
    "KVM_SEV_",
    "KVM_SYSTEM_EVENT_",
    "KVM_TDX_",
    "KVM_VCPUEVENT_",
    "SEV_RET_",
    "SNP_GUEST_VMM_ERR_",
];

/// Names in these families that count, measure or shift the others, or stand for none of them.
const NO_MEMBERS: &[&str] = &[
    "KVM_MSR_EXIT_REASON_VALID_MASK",
    "KVM_SEV_NR_MAX",
    "KVM_SEV_PAGE_TYPE_INVALID",
    "KVM_SEV_SNP_FINISH_DATA_SIZE",
    "KVM_TDX_CMD_NR_MAX",
    "SEV_RET_MAX",
    "SNP_GUEST_VMM_ERR_SHIFT",
];

/// True if this workspace has to have a number of this name, if the newest header does.
pub(crate) fn is_of_a_complete_family(name: &str) -> bool {
    !NO_MEMBERS.contains(&name) && COMPLETE.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests;
