//! The power state coordination interface of arm64: the calls that end in a system event.
//!
//! Sources: Arm DEN0022 "Power State Coordination Interface", version 1.3; Linux v7.2 `include/uapi/linux/psci.h` and
//! `arch/arm64/kvm/psci.c`.

/// Function ids in `x0`. Bit 30 chooses 64-bit arguments.
pub mod function {
    crate::named::named! {
        u32;
        SYSTEM_OFF = 0x8400_0008, "Shut down.";
        SYSTEM_RESET = 0x8400_0009, "Reset.";
        SYSTEM_SUSPEND = 0x8400_000e, "Suspend to memory, with 32-bit arguments.";
        SYSTEM_RESET2 = 0x8400_0012, "Reset of a chosen kind, with 32-bit arguments. PSCI 1.1.";
        SYSTEM_OFF2 = 0x8400_0015, "Shut down of a chosen kind, with 32-bit arguments. PSCI 1.3.";
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
