// What <linux/kvm.h> of an older distribution lacks. Sources: Linux v7.2 include/uapi/linux/kvm.h and
// arch/x86/include/uapi/asm/kvm.h. The names begin with an X so that they clash with no header that has them.
#ifndef UAPI_H
#define UAPI_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

enum {
    X_CAP_EXIT_HYPERCALL = 201,
    X_CAP_SYSTEM_EVENT_DATA = 215,
    X_CAP_TRIPLE_FAULT_EVENT = 218,
    X_CAP_USER_MEMORY2 = 231,
    X_CAP_MEMORY_ATTRIBUTES = 233,
    X_CAP_GUEST_MEMFD = 234,
    X_CAP_VM_TYPES = 235,

    X_VM_DEFAULT = 0,
    X_VM_SW_PROTECTED = 1,
    X_VM_SEV_ES = 3,
    X_VM_SNP = 4,

    X_EXIT_MEMORY_FAULT = 39,
    X_EXIT_SNP_REQ_CERTS = 43,

    X_EVENT_SHUTDOWN = 1,
    X_EVENT_RESET = 2,
    X_EVENT_CRASH = 3,
    X_EVENT_WAKEUP = 4,
    X_EVENT_SUSPEND = 5,
    X_EVENT_SEV_TERM = 6,
    X_EVENT_TDX_FATAL = 7,
    X_EVENT_WORDS = 16,

    X_HC_MAP_GPA_RANGE = 12,
    X_MAP_PRIVATE = 1 << 4, // KVM_MAP_GPA_RANGE_ENCRYPTED
    X_MAP_KNOWN = 0x1f,     // bits 3:0 are a hint about page sizes

    X_MEM_GUEST_MEMFD = 1 << 2,
    X_ATTRIBUTE_PRIVATE = 1 << 3,
    X_FAULT_PRIVATE = 1 << 3, // KVM_MEMORY_EXIT_FLAG_PRIVATE
    X_VALID_TRIPLE_FAULT = 1 << 5,

    X_GROUP_SEV = 1,
    X_SEV_SNP_REQ_CERTS = 2,
    X_SEV_ES_INIT = 1,
    X_SEV_LAUNCH_START = 2,
    X_SEV_LAUNCH_UPDATE_DATA = 3,
    X_SEV_LAUNCH_UPDATE_VMSA = 4,
    X_SEV_LAUNCH_MEASURE = 6,
    X_SEV_LAUNCH_FINISH = 7,
    X_SEV_INIT2 = 22,
    X_SNP_LAUNCH_START = 100,
    X_SNP_LAUNCH_UPDATE = 101,
    X_SNP_LAUNCH_FINISH = 102,
    X_SNP_ENABLE_REQ_CERTS = 103,
    X_SNP_PAGE_NORMAL = 1,
    X_SNP_POLICY_SMT = 1 << 16,
    X_SNP_POLICY_RESERVED = 1 << 17, // has to be set
};

struct x_region2 {
    uint32_t slot, flags;
    uint64_t guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset;
    uint32_t guest_memfd, pad1;
    uint64_t pad2[14];
};
struct x_attributes {
    uint64_t address, size, attributes, flags;
};
struct x_create_guest_memfd {
    uint64_t size, flags, reserved[6];
};
struct x_sev_cmd {
    uint32_t id, pad0;
    uint64_t data;
    uint32_t error, sev_fd;
};
struct x_sev_init2 {
    uint64_t vmsa_features;
    uint32_t flags;
    uint16_t ghcb_version, pad1;
    uint32_t pad2[8];
};
struct x_sev_launch_start {
    uint32_t handle, policy;
    uint64_t dh_uaddr;
    uint32_t dh_len, pad0;
    uint64_t session_uaddr;
    uint32_t session_len, pad1;
};
struct x_sev_buffer { // LAUNCH_UPDATE_DATA and LAUNCH_MEASURE
    uint64_t uaddr;
    uint32_t len, pad0;
};
struct x_snp_start {
    uint64_t policy;
    uint8_t gosvw[16];
    uint16_t flags;
    uint8_t pad0[6];
    uint64_t pad1[4];
};
struct x_snp_update {
    uint64_t gfn_start, uaddr, len;
    uint8_t type, pad0;
    uint16_t flags;
    uint32_t pad1;
    uint64_t pad2[4];
};
struct x_snp_finish {
    uint64_t id_block_uaddr, id_auth_uaddr;
    uint8_t id_block_en, auth_key_en, vcek_disabled, host_data[32], pad0[3];
    uint16_t flags;
    uint64_t pad1[4];
};

// The union of struct kvm_run begins at 32.
struct x_hypercall {
    uint64_t nr, args[6], ret, flags;
};
struct x_event {
    uint32_t type, ndata;
    uint64_t data[X_EVENT_WORDS];
};
struct x_memory_fault {
    uint64_t flags, gpa, size;
};
struct x_req_certs {
    uint64_t gpa, npages, ret;
};
union x_exit {
    struct x_hypercall hypercall;
    struct x_event event;
    struct x_memory_fault fault;
    struct x_req_certs certs;
    uint8_t bytes[256];
};

#define X_SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, struct x_region2)
#define X_SET_MEMORY_ATTRIBUTES _IOW(KVMIO, 0xd2, struct x_attributes)
#define X_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct x_create_guest_memfd)

#ifndef EHWPOISON
#define EHWPOISON 133
#endif
#ifndef F_OFD_SETLK
#define F_OFD_SETLK 37
#endif
#ifndef FALLOC_FL_PUNCH_HOLE
#define FALLOC_FL_KEEP_SIZE 1
#define FALLOC_FL_PUNCH_HOLE 2
#endif

#endif
