//! What a release says of itself on x86: capabilities, limits, and ioctls that came with it.

use super::Dialect;

impl Dialect {
    /// The highest number of a capability in the release's header: no kernel answers a number above it. Capabilities
    /// are numbered as they are merged.
    #[must_use]
    pub fn newest_capability(self) -> u32 {
        if self.since(7, 2) {
            249
        } else if self.since(6, 12) {
            238
        } else if self.since(6, 1) {
            224
        } else if self.since(5, 17) {
            209
        } else {
            190
        }
    }

    /// VMs of type 2 and 3, and `KVM_SEV_INIT2`. Linux 6.10; SEV guests were VMs of type 0 before, and can still be.
    #[must_use]
    pub fn has_sev_vm_types(self) -> bool {
        self.since(6, 10)
    }

    /// `KVM_MAX_VCPUS`, and what the id of a vCPU has to be below: 288 and 1023 up to Linux 5.15, 1024 and 4096 since,
    /// in a kernel built without `MAXSMP`.
    #[must_use]
    pub fn max_vcpus(self) -> (u64, u64) {
        if self.since(5, 16) { (1024, 4096) } else { (288, 1023) }
    }

    /// `KVM_USER_MEM_SLOTS`: 509 up to Linux 5.11.
    #[must_use]
    pub fn max_memory_slots(self) -> u32 {
        if self.since(5, 12) { 32764 } else { 509 }
    }

    /// `KVM_CLOCK_VALID_FLAGS`: the guest's clock carries the host's times since Linux 5.16.
    #[must_use]
    pub fn clock_flags(self) -> u32 {
        if self.since(5, 16) { 0xe } else { 0x2 }
    }

    /// The quirks of x86 that can be switched off, `KVM_X86_VALID_QUIRKS`; 0x5ff was read from a Linux 6.18.
    #[must_use]
    pub fn x86_quirks(self) -> u64 {
        if self.since(6, 18) {
            0x5ff
        } else if self.since(6, 14) {
            0x1ff
        } else if self.since(6, 12) {
            0xff
        } else if self.since(6, 0) {
            0x7f
        } else if self.since(5, 18) {
            0x3f
        } else {
            0x1f
        }
    }

    /// `KVM_SET_TSC_KHZ` on a VM is refused once it has vCPUs. Linux 6.17.
    #[must_use]
    pub fn refuses_late_tsc_khz(self) -> bool {
        self.since(6, 17)
    }

    /// `/dev/kvm` of x86 has attributes. Linux 5.17.
    #[must_use]
    pub fn has_system_attributes(self) -> bool {
        self.since(5, 17)
    }

    /// `KVM_GET_SUPPORTED_HV_CPUID` works on `/dev/kvm`. Linux 5.11.
    #[must_use]
    pub fn has_system_hyperv_cpuid(self) -> bool {
        self.since(5, 11)
    }

    /// `KVM_GET_ONE_REG` and its neighbours on x86. Linux 6.18.
    #[must_use]
    pub fn has_x86_one_reg(self) -> bool {
        self.since(6, 18)
    }

    /// `KVM_GET_XSAVE2`. Linux 5.17.
    #[must_use]
    pub fn has_xsave2(self) -> bool {
        self.since(5, 17)
    }

    /// `KVM_MEMORY_ENCRYPT_OP` on a vCPU reaches the vendor's half of KVM, which has commands for TDs only: `ENOTTY`
    /// elsewhere on AMD. Linux 6.16; the number was unknown to vCPUs before.
    #[must_use]
    pub fn has_vcpu_mem_enc(self) -> bool {
        self.since(6, 16)
    }
}
