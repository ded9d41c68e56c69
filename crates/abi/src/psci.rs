//! The power state coordination interface of arm64.
//!
//! Sources: Arm DEN0022 "Power State Coordination Interface", version 1.3; Linux v7.2 `include/uapi/linux/psci.h` and
//! `arch/arm64/kvm/psci.c`.

/// Versions, in the answer to [`function::VERSION`] and in KVM's firmware register `KVM_REG_ARM_PSCI_VERSION`.
///
/// Source: Linux v7.2 `include/kvm/arm_psci.h`, `KVM_ARM_PSCI_*`.
pub mod version {
    crate::named::named! {
        u32;
        V0_1 = 0x0000_0001, "The functions of [`super::function_v0_1`].";
        V0_2 = 0x0000_0002, "The standard function ids.";
        V1_0 = 0x0001_0000, "`PSCI_FEATURES`, `SYSTEM_SUSPEND`.";
        V1_1 = 0x0001_0001, "`SYSTEM_RESET2`. Linux 5.18.";
        V1_2 = 0x0001_0002, "Nothing that KVM has. Linux 6.13.";
        V1_3 = 0x0001_0003, "`SYSTEM_OFF2`. Linux 6.13.";
    }
}

/// Function ids in `x0` of version 0.1, which every hypervisor chose for itself; these are KVM's.
///
/// Source: Linux v7.2 `arch/arm64/include/uapi/asm/kvm.h`, `KVM_PSCI_FN_*`.
pub mod function_v0_1 {
    crate::named::named! {
        u32;
        CPU_SUSPEND = 0x95c1_ba5e, "Suspend this core.";
        CPU_OFF = 0x95c1_ba5f, "Switch this core off.";
        CPU_ON = 0x95c1_ba60, "Switch a core on.";
        MIGRATE = 0x95c1_ba61, "Move the trusted OS.";
    }
}

/// `ARM_SMCCC_VERSION_FUNC_ID`, the one function of another interface that [`function::FEATURES`] knows.
pub const SMCCC_VERSION: u32 = 0x8000_0000;

/// What [`function::AFFINITY_INFO`] answers.
pub mod affinity_level {
    crate::named::named! {
        u32;
        ON = 0, "A core with this affinity is on.";
        OFF = 1, "Every core with this affinity is off.";
        ON_PENDING = 2, "A core with this affinity is being switched on.";
    }
}

/// What [`function::MIGRATE_INFO_TYPE`] answers on KVM: there is no trusted OS that had to be moved.
pub const TOS_MP: u32 = 2;

/// Function ids in `x0`. Bit 30 chooses 64-bit arguments.
pub mod function {
    crate::named::named! {
        u32;
        VERSION = 0x8400_0000, "Which version this is.";
        CPU_SUSPEND = 0x8400_0001, "Suspend this core, with 32-bit arguments.";
        CPU_OFF = 0x8400_0002, "Switch this core off.";
        CPU_ON = 0x8400_0003, "Switch a core on, with 32-bit arguments.";
        AFFINITY_INFO = 0x8400_0004, "Whether cores are on, with 32-bit arguments.";
        MIGRATE_INFO_TYPE = 0x8400_0006, "What kind of trusted OS there is.";
        SYSTEM_OFF = 0x8400_0008, "Shut down.";
        SYSTEM_RESET = 0x8400_0009, "Reset.";
        FEATURES = 0x8400_000a, "Whether a function is there. PSCI 1.0.";
        SYSTEM_SUSPEND = 0x8400_000e, "Suspend to memory, with 32-bit arguments.";
        SYSTEM_RESET2 = 0x8400_0012, "Reset of a chosen kind, with 32-bit arguments. PSCI 1.1.";
        SYSTEM_OFF2 = 0x8400_0015, "Shut down of a chosen kind, with 32-bit arguments. PSCI 1.3.";
        CPU_SUSPEND_64 = 0xc400_0001, "[`CPU_SUSPEND`] with 64-bit arguments.";
        CPU_ON_64 = 0xc400_0003, "[`CPU_ON`] with 64-bit arguments.";
        AFFINITY_INFO_64 = 0xc400_0004, "[`AFFINITY_INFO`] with 64-bit arguments.";
        SYSTEM_SUSPEND_64 = 0xc400_000e, "[`SYSTEM_SUSPEND`] with 64-bit arguments.";
        SYSTEM_RESET2_64 = 0xc400_0012, "[`SYSTEM_RESET2`] with 64-bit arguments.";
        SYSTEM_OFF2_64 = 0xc400_0015, "[`SYSTEM_OFF2`] with 64-bit arguments.";
    }
}

/// What `x0` holds after a call, as a signed number.
pub mod return_code {
    crate::named::named! {
        i64;
        SUCCESS = 0, "Done.";
        NOT_SUPPORTED = -1, "There is no such function.";
        INVALID_PARAMETERS = -2, "An argument is wrong.";
        DENIED = -3, "Not allowed now.";
        ALREADY_ON = -4, "The core is on.";
        ON_PENDING = -5, "The core is being switched on.";
        INTERNAL_FAILURE = -6, "It did not work. KVM puts it in `x0` before it reports a shutdown or reset.";
        NOT_PRESENT = -7, "There is no such core.";
        DISABLED = -8, "The core is out of service.";
        INVALID_ADDRESS = -9, "The entry point is wrong.";
    }
}

/// `x1` of [`function::SYSTEM_RESET2`]: a warm reset. From `0x8000_0000` on the kinds are the vendor's.
pub const RESET2_SYSTEM_WARM_RESET: u32 = 0;
/// The first kind of reset that is the vendor's.
pub const RESET2_VENDOR: u32 = 0x8000_0000;
/// `x1` of [`function::SYSTEM_OFF2`]: hibernate. KVM takes 0 for the same.
pub const OFF2_HIBERNATE: u32 = 1;
