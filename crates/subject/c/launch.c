// What makes a VM an SEV-ES or SNP guest: Documentation/virt/kvm/x86/amd-memory-encryption.rst.
#include "vmm.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

static bool command(struct vmm *vmm, uint32_t id, void *data, const char *name)
{
    struct x_sev_cmd cmd = {.id = id, .data = (uint64_t)(uintptr_t)data, .sev_fd = (uint32_t)vmm->sev};
    if (!ioctl(vmm->fd, KVM_MEMORY_ENCRYPT_OP, &cmd))
        return true;
    const int error = errno;
    end_vm(vmm, NOT_RUN, "%s failed: %s, the firmware says %#x", name, strerror(error), cmd.error);
    return false;
}

static bool is_encrypted(const struct vmm *vmm)
{
    return vmm->options->type == X_VM_SEV_ES || vmm->options->type == X_VM_SNP;
}

bool launch_begin(struct vmm *vmm)
{
    struct x_sev_init2 init = {.flags = 0};
    if (!is_encrypted(vmm))
        return true;
    vmm->sev = open("/dev/sev", O_RDWR | O_CLOEXEC);
    if (vmm->sev < 0)
        return failed(vmm, "/dev/sev");
    if (vmm->is_old_sev_es)
        return command(vmm, X_SEV_ES_INIT, NULL, "KVM_SEV_ES_INIT");
    return command(vmm, X_SEV_INIT2, &init, "KVM_SEV_INIT2");
}

// The kernel has to know the command, and takes it before the first vCPU only.
bool launch_req_certs(struct vmm *vmm)
{
    uint64_t value = 0;
    struct kvm_device_attr attribute = {
        .group = X_GROUP_SEV, .attr = X_SEV_SNP_REQ_CERTS, .addr = (uint64_t)(uintptr_t)&value};
    if (!vmm->options->certificates || vmm->options->type != X_VM_SNP)
        return true;
    if (wrong != ENABLES_CERTIFICATES_UNASKED && (ioctl(vmm->kvm, KVM_GET_DEVICE_ATTR, &attribute) || value != 1))
        return true;
    return command(vmm, X_SNP_ENABLE_REQ_CERTS, NULL, "KVM_SEV_SNP_ENABLE_REQ_CERTS");
}

bool launch_load(struct vmm *vmm, size_t image_bytes)
{
    const uint64_t bytes = (image_bytes + PAGE - 1) / PAGE * PAGE;
    char *image = memory_at(vmm, GUEST_AT);
    if (!is_encrypted(vmm))
        return true;
    if (vmm->options->type == X_VM_SNP) {
        struct x_snp_start start = {.policy = X_SNP_POLICY_SMT | X_SNP_POLICY_RESERVED};
        struct x_snp_update update = {.gfn_start = GUEST_AT / PAGE,
                                      .uaddr = (uint64_t)(uintptr_t)image,
                                      .len = bytes,
                                      .type = X_SNP_PAGE_NORMAL};
        if (!command(vmm, X_SNP_LAUNCH_START, &start, "KVM_SEV_SNP_LAUNCH_START") || !memory_make_private(vmm))
            return false;
        while (update.len) {
            const uint64_t before = update.len;
            if (!command(vmm, X_SNP_LAUNCH_UPDATE, &update, "KVM_SEV_SNP_LAUNCH_UPDATE"))
                return false;
            if (update.len >= before)
                return end_vm(vmm, NOT_RUN, "KVM_SEV_SNP_LAUNCH_UPDATE does nothing"), false;
        }
        return true;
    }
    struct x_sev_launch_start start = {.policy = 1 << 2 | 1 << 0}; // an SEV-ES guest that nobody debugs
    struct x_sev_buffer update = {.uaddr = (uint64_t)(uintptr_t)image, .len = (uint32_t)bytes};
    if (!command(vmm, X_SEV_LAUNCH_START, &start, "KVM_SEV_LAUNCH_START"))
        return false;
    for (unsigned i = 0; i < vmm->npieces; i++) {
        struct kvm_enc_region region = {.addr = (uint64_t)(uintptr_t)vmm->pieces[i].host,
                                        .size = vmm->pieces[i].bytes};
        if (ioctl(vmm->fd, KVM_MEMORY_ENCRYPT_REG_REGION, &region))
            return failed(vmm, "KVM_MEMORY_ENCRYPT_REG_REGION");
    }
    return command(vmm, X_SEV_LAUNCH_UPDATE_DATA, &update, "KVM_SEV_LAUNCH_UPDATE_DATA");
}

bool launch_finish(struct vmm *vmm)
{
    struct x_snp_finish finish = {.flags = 0};
    char measurement[48];
    struct x_sev_buffer measure = {.uaddr = (uint64_t)(uintptr_t)measurement, .len = sizeof measurement};
    if (!is_encrypted(vmm))
        return true;
    if (vmm->options->type == X_VM_SNP)
        return command(vmm, X_SNP_LAUNCH_FINISH, &finish, "KVM_SEV_SNP_LAUNCH_FINISH");
    return command(vmm, X_SEV_LAUNCH_UPDATE_VMSA, NULL, "KVM_SEV_LAUNCH_UPDATE_VMSA") &&
           command(vmm, X_SEV_LAUNCH_MEASURE, &measure, "KVM_SEV_LAUNCH_MEASURE") &&
           command(vmm, X_SEV_LAUNCH_FINISH, NULL, "KVM_SEV_LAUNCH_FINISH");
}
