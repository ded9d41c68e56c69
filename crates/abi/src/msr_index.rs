//! Numbers of model-specific registers, by the names of Linux without `MSR_`.
//!
//! Source: Linux v7.2 `arch/x86/include/asm/msr-index.h` and `arch/x86/include/uapi/asm/kvm_para.h`.

crate::named::named! {
    u32;
    IA32_TSC = 0x10, "The time-stamp counter.";
    KVM_WALL_CLOCK = 0x11, "The old number of [`KVM_WALL_CLOCK_NEW`].";
    KVM_SYSTEM_TIME = 0x12, "The old number of [`KVM_SYSTEM_TIME_NEW`].";
    IA32_APICBASE = 0x1b, "Where the local APIC is and in which mode.";
    IA32_TSC_ADJUST = 0x3b, "The offset of the time-stamp counter.";
    IA32_UCODE_WRITE = 0x79, "A microcode update.";
    IA32_UCODE_REV = 0x8b, "The microcode's revision.";
    MTRRCAP = 0xfe, "What the memory type ranges can do.";
    IA32_SYSENTER_CS = 0x174, "Where `SYSENTER` goes: CS.";
    IA32_SYSENTER_ESP = 0x175, "Where `SYSENTER` goes: ESP.";
    IA32_SYSENTER_EIP = 0x176, "Where `SYSENTER` goes: EIP.";
    IA32_MCG_CAP = 0x179, "What the machine check can do.";
    IA32_MCG_STATUS = 0x17a, "What the machine check saw.";
    IA32_MCG_CTL = 0x17b, "Which machine checks are on.";
    IA32_MISC_ENABLE = 0x1a0, "Features of Intel processors that can be turned off.";
    IA32_DEBUGCTLMSR = 0x1d9, "Branch records and single steps over branches.";
    MTRR_FIX64K_00000 = 0x250, "Memory types of 64 KiB ranges.";
    MTRR_FIX16K_80000 = 0x258, "Memory types of 16 KiB ranges, the first of two.";
    MTRR_FIX4K_C0000 = 0x268, "Memory types of 4 KiB ranges, the first of eight.";
    IA32_CR_PAT = 0x277, "The page attribute table.";
    MTRR_DEF_TYPE = 0x2ff, "The memory type outside of all ranges.";
    IA32_X2APIC_BASE = 0x800, "The first register of the local APIC in x2APIC mode.";
    IA32_XSS = 0xda0, "The supervisor state that `XSAVES` saves.";
    KVM_WALL_CLOCK_NEW = 0x4b56_4d00, "Where KVM writes the time of the boot.";
    KVM_SYSTEM_TIME_NEW = 0x4b56_4d01, "Where KVM writes the time since the boot.";
    KVM_ASYNC_PF_EN = 0x4b56_4d02, "Where KVM says that a page comes later.";
    KVM_STEAL_TIME = 0x4b56_4d03, "Where KVM writes the time that others took.";
    KVM_PV_EOI_EN = 0x4b56_4d04, "Where the end of an interrupt can be written.";
    KVM_POLL_CONTROL = 0x4b56_4d05, "Whether KVM polls before it blocks.";
    KVM_ASYNC_PF_INT = 0x4b56_4d06, "The interrupt that says that a page has come.";
    KVM_ASYNC_PF_ACK = 0x4b56_4d07, "The guest has seen it.";
    EFER = 0xc000_0080, "Extended features.";
    STAR = 0xc000_0081, "Where `SYSCALL` goes: segments.";
    LSTAR = 0xc000_0082, "Where `SYSCALL` goes from 64-bit code.";
    CSTAR = 0xc000_0083, "Where `SYSCALL` goes from compatibility mode.";
    SYSCALL_MASK = 0xc000_0084, "The flags that `SYSCALL` clears.";
    FS_BASE = 0xc000_0100, "The base of FS.";
    GS_BASE = 0xc000_0101, "The base of GS.";
    KERNEL_GS_BASE = 0xc000_0102, "What `SWAPGS` swaps the base of GS with.";
    TSC_AUX = 0xc000_0103, "What `RDTSCP` and `RDPID` give.";
    K7_EVNTSEL0 = 0xc001_0000, "What the first of four performance counters counts.";
    K7_PERFCTR0 = 0xc001_0004, "The first of four performance counters.";
    AMD64_SYSCFG = 0xc001_0010, "System configuration.";
    K7_HWCR = 0xc001_0015, "Hardware configuration.";
    AMD64_NB_CFG = 0xc001_001f, "Northbridge configuration.";
    AMD64_PATCH_LOADER = 0xc001_0020, "A microcode update.";
    FAM10H_MMIO_CONF_BASE = 0xc001_0058, "Where the PCI configuration space lies.";
    VM_HSAVE_PA = 0xc001_0117, "Where `VMRUN` saves the host.";
    AMD64_SEV_ES_GHCB = 0xc001_0130, "The GHCB MSR.";
    AMD64_DC_CFG = 0xc001_1022, "Data cache configuration.";
    AMD64_TW_CFG = 0xc001_1023, "Table walk configuration.";
    AMD64_BU_CFG2 = 0xc001_102a, "Bus unit configuration.";
    F15H_EX_CFG = 0xc001_102c, "Execution unit configuration.";
}
