//! The supervisor binary interface of RISC-V: the calls that end in a system event or in an exit.
//!
//! Sources: RISC-V "Supervisor Binary Interface Specification", version 2.0; Linux v7.2
//! `arch/riscv/include/asm/sbi.h` and `arch/riscv/kvm/vcpu_sbi.c`.

/// Extensions, in `a7`.
pub mod extension {
    crate::named::named! {
        u64;
        CONSOLE_PUTCHAR_V01 = 0x01, "Version 0.1: write a character. KVM forwards it.";
        CONSOLE_GETCHAR_V01 = 0x02, "Version 0.1: read a character. KVM forwards it.";
        SHUTDOWN_V01 = 0x08, "Version 0.1: shut down.";
        BASE = 0x10, "What there is.";
        HSM = 0x0048_534d, "Hart state management.";
        DBCN = 0x4442_434e, "Debug console. KVM forwards it, once it is enabled.";
        SRST = 0x5352_5354, "System reset. KVM makes a system event of it.";
        SUSP = 0x5355_5350, "System suspend. KVM checks it and forwards it as `KVM_EXIT_RISCV_SBI`.";
    }
}

/// The first experimental extension. KVM forwards all of them, and those of vendors behind them.
pub const EXPERIMENTAL_FIRST: u64 = 0x0800_0000;
/// The last extension of a vendor.
pub const VENDOR_LAST: u64 = 0x09ff_ffff;

/// Functions of [`extension::BASE`], in `a6`.
pub mod base_function {
    crate::named::named! {
        u64;
        GET_SPEC_VERSION = 0, "The version of the specification.";
        GET_IMP_ID = 1, "Who implements it.";
        GET_IMP_VERSION = 2, "The version of that.";
        PROBE_EXT = 3, "Whether an extension is there.";
        GET_MVENDORID = 4, "The vendor of the machine.";
        GET_MARCHID = 5, "Its architecture.";
        GET_MIMPID = 6, "Its implementation.";
    }
}

/// Functions of [`extension::HSM`], in `a6`.
pub mod hsm_function {
    crate::named::named! {
        u64;
        HART_START = 0, "Start a hart.";
        HART_STOP = 1, "Stop this hart.";
        HART_STATUS = 2, "What a hart does.";
        HART_SUSPEND = 3, "Wait for an interrupt.";
    }
}

/// What [`hsm_function::HART_STATUS`] answers.
pub mod hart_state {
    crate::named::named! {
        u64;
        STARTED = 0, "The hart runs.";
        STOPPED = 1, "The hart is stopped.";
        SUSPENDED = 4, "The hart waits.";
    }
}

/// The only function of [`extension::SRST`], in `a6`.
pub const SRST_RESET: u64 = 0;
/// The only function of [`extension::SUSP`], in `a6`.
pub const SUSP_SUSPEND: u64 = 0;
/// The only type of [`SUSP_SUSPEND`], in `a0`: suspend to memory.
pub const SUSP_SUSPEND_TO_RAM: u32 = 0;

/// The type of a [`SRST_RESET`], in `a0`.
pub mod reset_type {
    crate::named::named! {
        u32;
        SHUTDOWN = 0, "Shut down.";
        COLD_REBOOT = 1, "Reset everything.";
        WARM_REBOOT = 2, "Reset the processors.";
    }
}

/// The reason of a [`SRST_RESET`], in `a1`, which KVM hands on in `data[0]`.
pub mod reset_reason {
    crate::named::named! {
        u32;
        NONE = 0, "None.";
        SYSTEM_FAILURE = 1, "The system failed.";
    }
}

/// What `a0` holds after a call, as a signed number.
pub mod error {
    crate::named::named! {
        i64;
        SUCCESS = 0, "Done.";
        FAILED = -1, "It did not work.";
        NOT_SUPPORTED = -2, "There is no such function.";
        INVALID_PARAM = -3, "An argument is wrong.";
        DENIED = -4, "Not allowed.";
        INVALID_ADDRESS = -5, "An address is wrong.";
        ALREADY_AVAILABLE = -6, "It is there already.";
        ALREADY_STARTED = -7, "It has started already.";
        ALREADY_STOPPED = -8, "It has stopped already.";
        NO_SHMEM = -9, "There is no shared memory for it.";
    }
}
