//! What the firmware answers: `error` of a command, and the firmware's half of `SW_EXITINFO2` after a guest request.
//!
//! Source: Linux v7.2 `include/uapi/linux/psp-sev.h`, `sev_ret_code`; AMD 56860 "SEV Secure Nested Paging Firmware
//! ABI" revision 1.58. The codes from 0x30 on came with SEV-TIO.

crate::named::named! {
    u32;
    SUCCESS = 0x00, "The command is done.";
    INVALID_PLATFORM_STATE = 0x01, "Not in this state of the platform.";
    INVALID_GUEST_STATE = 0x02, "Not in this state of the guest.";
    INVALID_CONFIG = 0x03, "The configuration is wrong; the header spells it `INAVLID`.";
    INVALID_LEN = 0x04, "A length is wrong.";
    ALREADY_OWNED = 0x05, "The platform has an owner.";
    INVALID_CERTIFICATE = 0x06, "A certificate is wrong.";
    POLICY_FAILURE = 0x07, "The guest's policy forbids it.";
    INACTIVE = 0x08, "The guest is not active.";
    INVALID_ADDRESS = 0x09, "An address is wrong.";
    BAD_SIGNATURE = 0x0a, "A signature is wrong.";
    BAD_MEASUREMENT = 0x0b, "A measurement is wrong.";
    ASID_OWNED = 0x0c, "The ASID belongs to another guest.";
    INVALID_ASID = 0x0d, "The ASID is wrong.";
    WBINVD_REQUIRED = 0x0e, "`WBINVD` has to come first.";
    DFFLUSH_REQUIRED = 0x0f, "`DF_FLUSH` has to come first.";
    INVALID_GUEST = 0x10, "There is no such guest.";
    INVALID_COMMAND = 0x11, "There is no such command.";
    ACTIVE = 0x12, "The guest is active.";
    HWSEV_RET_PLATFORM = 0x13, "The hardware failed; the platform has to be reset.";
    HWSEV_RET_UNSAFE = 0x14, "The hardware failed; what was written is not safe.";
    UNSUPPORTED = 0x15, "The feature is not there.";
    INVALID_PARAM = 0x16, "A parameter is wrong; for a CPUID page, its contents are.";
    RESOURCE_LIMIT = 0x17, "A resource has run out.";
    SECURE_DATA_INVALID = 0x18, "What the firmware stored is damaged.";
    INVALID_PAGE_SIZE = 0x19, "The page has another size in the reverse map table.";
    INVALID_PAGE_STATE = 0x1a, "The page is in another state in the reverse map table.";
    INVALID_MDATA_ENTRY = 0x1b, "A metadata entry is wrong.";
    INVALID_PAGE_OWNER = 0x1c, "The page belongs to somebody else.";
    AEAD_OFLOW = 0x1d, "The counter of the authenticated encryption has run out.";
    EXIT_RING_BUFFER = 0x1f, "The firmware left the ring buffer mode.";
    RMP_INIT_REQUIRED = 0x20, "The reverse map table has to be initialised first.";
    BAD_SVN = 0x21, "The security version is below the committed one.";
    BAD_VERSION = 0x22, "The version is below the committed one.";
    SHUTDOWN_REQUIRED = 0x23, "A shutdown has to come first.";
    UPDATE_FAILED = 0x24, "The firmware could not be replaced.";
    RESTORE_REQUIRED = 0x25, "The old firmware has to be restored.";
    RMP_INITIALIZATION_FAILED = 0x26, "The reverse map table could not be initialised.";
    INVALID_KEY = 0x27, "The key is not there or wrong.";
    SHUTDOWN_INCOMPLETE = 0x28, "The shutdown did not come to its end.";
    INCORRECT_BUFFER_LENGTH = 0x30, "The length of a buffer is not the one that the command has.";
    EXPAND_BUFFER_LENGTH_REQUEST = 0x31, "A buffer is too short: call again with a longer one.";
    SPDM_REQUEST = 0x32, "The firmware asks for a message to be carried to a device, and the answer back.";
    SPDM_ERROR = 0x33, "The exchange with a device failed.";
    SEV_STATUS_ERR_IN_DEV_CONN = 0x35, "The connection to a device failed.";
    SEV_STATUS_INVALID_DEV_CTX = 0x36, "The context of a device is wrong.";
    SEV_STATUS_INVALID_TDI_CTX = 0x37, "The context of a device's interface is wrong.";
    SEV_STATUS_INVALID_TDI = 0x38, "There is no such interface.";
    SEV_STATUS_RECLAIM_REQUIRED = 0x39, "Pages have to be reclaimed first.";
    IN_USE = 0x3a, "It is in use.";
    SEV_STATUS_INVALID_DEV_STATE = 0x3b, "Not in this state of the device.";
    SEV_STATUS_INVALID_TDI_STATE = 0x3c, "Not in this state of the interface.";
    SEV_STATUS_DEV_CERT_CHANGED = 0x3d, "The device has another certificate than before.";
    SEV_STATUS_RESYNC_REQ = 0x3e, "The firmware and the device have to be brought to the same state.";
    SEV_STATUS_RESPONSE_TOO_LARGE = 0x3f, "The response does not fit.";
    NO_FW_CALL = 0xffff_ffff, "Not a code of the firmware: the kernel did not get as far as asking it.";
}
