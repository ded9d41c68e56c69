//! What no header says and a judgement needs: who reads a field how, and where a struct is in use.

use crate::target::Target;

/// Programs that compare the whole of a field with numbers, so that a bit or'ed into it makes them see an unknown number.
///
/// Source: "Re: [PATCH v4.1] KVM, SEV: Add `KVM_EXIT_SHUTDOWN` metadata for SEV-ES", M. Zyngier, April 2022: QEMU
/// `accel/kvm/kvm-all.c`, `kvm_cpu_exec`; "`CrosVM` and kvmtool have similar constructs".
pub(crate) const STRICT_MATCHERS: &[&str] =
    &["QEMU kvm_cpu_exec(): switch (run->system_event.type)", "crosvm", "kvmtool"];

/// The field whose values a space of numbers enumerates.
pub(crate) const EVENT_TYPE: &str = "kvm_run.system_event.type";

/// The capability that says that a field is there, for fields that came to bytes which older kernels leave as they are.
pub(crate) fn gate(name: &str, field: &str) -> Option<&'static str> {
    match (name, field) {
        ("kvm_run.system_event", "ndata" | "data") => Some("KVM_CAP_SYSTEM_EVENT_DATA (215)"),
        ("kvm_vcpu_events", "triple_fault.pending") => Some("KVM_CAP_X86_TRIPLE_FAULT_EVENT (218)"),
        _ => None,
    }
}

/// The architectures whose kernels fill or read a struct, where a header declares it for more.
pub(crate) fn in_use_on(name: &str, target: Target) -> bool {
    let kernel = target.compat_kernel().unwrap_or(target);
    match name {
        "kvm_run.riscv_sbi" | "kvm_run.riscv_csr" => kernel == Target::Riscv64,
        "kvm_run.arm_nisv" | "kvm_run.arm_sea" => kernel == Target::Aarch64,
        "kvm_run.hyperv" | "kvm_run.xen" | "kvm_run.tdx" | "kvm_run.snp_req_certs" | "kvm_run.msr" => {
            kernel == Target::X86_64
        }
        _ => true,
    }
}

/// Structs for which another layout in a 32-bit process is no defect: the kernel translates them, or refuses the process.
///
/// `/dev/sev` and `/dev/sev-guest` have no `compat_ioctl`: every call of a 32-bit process fails with `ENOTTY`.
///
/// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vm_compat_ioctl` and `kvm_vcpu_compat_ioctl`; `arch/x86/kvm/x86.c`,
/// `kvm_arch_vm_compat_ioctl`; `drivers/crypto/ccp/sev-dev.c`, `drivers/virt/coco/sev-guest/sev-guest.c`.
pub(crate) fn is_no_matter_for_compat(name: &str) -> bool {
    const TRANSLATED: [&str; 5] =
        ["kvm_dirty_log", "kvm_clear_dirty_log", "kvm_signal_mask", "kvm_msr_filter", "kvm_msr_filter_range"];
    TRANSLATED.contains(&name) || name.starts_with("sev_") || name.starts_with("snp_")
}
