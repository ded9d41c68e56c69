// KVM_RUN, and what is done about what it brings: Documentation/virt/kvm/api.rst, section 5.
#include "vmm.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { SERIAL = 0x3f8, MOST_SAME_FAULTS = 8, MOST_DRAINED = 1024, REPORTED = 64 };

int vcpu_enter(struct vcpu *vcpu) { return ioctl(vcpu->fd, KVM_RUN, 0UL) ? errno : 0; }

static enum next hypercall(struct vcpu *vcpu, struct x_hypercall call)
{
    struct x_hypercall *live = (struct x_hypercall *)((char *)vcpu->run + 32);
    uint64_t ret = -(uint64_t)1000; // KVM_ENOSYS
    if (wrong == READS_THE_PAGE_TWICE) {
        usleep(2000);
        memcpy(call.args, live->args, sizeof call.args);
    }
    if (call.nr == X_HC_MAP_GPA_RANGE || wrong == EVERY_HYPERCALL_CONVERTS) {
        ret = memory_map_gpa_range(vcpu->vmm, vcpu, call.args);
        if (wrong == REFUSES_REPEATS) {
            const bool is_done = ret == 0;
            if (vcpu->has_last_call && !memcmp(vcpu->last_call.args, call.args, sizeof call.args) && is_done)
                ret = EINVAL;
            vcpu->has_last_call = is_done;
        } else {
            vcpu->has_last_call = true;
        }
        vcpu->last_call = call;
        const bool is_small_and_failed = ret == EAGAIN && call.args[1] == 1;
        if (ret == EINVAL && wrong == NEGATIVE_ERRNO)
            ret = -(uint64_t)EINVAL;
        if (ret == EINVAL && wrong == ERRNO_OF_THE_IOCTL)
            ret = EIO;
        if (is_small_and_failed && wrong == SAYS_DONE_WHEN_IT_FAILED)
            ret = 0;
        if (is_small_and_failed && wrong == STOPS_AT_A_FAILED_CONVERSION)
            return end_vm(vcpu->vmm, RUN_FAILED, "cannot convert");
    } else if (wrong == UNKNOWN_HYPERCALL_SUCCEEDS) {
        ret = 0;
    }
    if (ret || wrong != DOES_NOT_WRITE_SUCCESS)
        live->ret = ret;
    return AGAIN;
}

static enum next memory_fault(struct vcpu *vcpu, int error, struct x_memory_fault fault)
{
    struct vmm *vmm = vcpu->vmm;
    const uint64_t npages = fault.size / PAGE;
    const bool is_poisoned = error == EHWPOISON && wrong != POISON_IS_A_FAULT;
    if (wrong == UNKNOWN_FLAGS_ARE_MASKED)
        fault.flags &= X_FAULT_PRIVATE;
    const bool to_private = fault.flags & X_FAULT_PRIVATE;
    const char *why = NULL;
    vcpu->same_faults = vcpu->last_fault == fault.gpa ? vcpu->same_faults + 1 : 1;
    vcpu->last_fault = fault.gpa;
    if (is_poisoned && wrong == POISON_IS_CONVERTED) {
        memory_convert(vmm, vcpu->id, fault.gpa, npages, false, true);
        return AGAIN;
    }
    if (is_poisoned)
        return end_vm(vmm, POISONED, "memory fault at %#llx: the page is poisoned", (unsigned long long)fault.gpa);
    if (fault.flags & ~(uint64_t)X_FAULT_PRIVATE)
        why = "unknown flags";
    else if (!npages || fault.gpa % PAGE || fault.size % PAGE || !memory_covers(vmm, fault.gpa, npages, to_private))
        why = "no memory is there";
    else if (!vmm->options->convert_faults && wrong != CONVERTS_UNASKED)
        why = "nobody chose to convert for faults";
    if (why && why[0] == 'n' && why[2] == ' ' && wrong == FAULTS_OUTSIDE_ARE_RETRIED)
        return AGAIN;
    if (why && why[0] == 'n' && why[2] == ' ' && wrong == FAULTS_OUTSIDE_ARE_CONVERTED) {
        memory_set_attributes(vmm, fault.gpa, fault.size, true);
        return AGAIN;
    }
    if (why)
        return end_vm(vmm, FAULTED, "memory fault at %#llx, %#llx bytes, flags %#llx: %s",
                      (unsigned long long)fault.gpa, (unsigned long long)fault.size,
                      (unsigned long long)fault.flags, why);
    if (vcpu->same_faults > MOST_SAME_FAULTS && wrong != RETRIES_FOR_EVER)
        return end_vm(vmm, wrong == NO_PROGRESS_IS_SUCCESS ? OK : NO_PROGRESS, "the memory fault at %#llx comes back",
                      (unsigned long long)fault.gpa);
    // A failure shows as the same fault again.
    memory_convert(vmm, vcpu->id, fault.gpa, npages, to_private, true);
    return AGAIN;
}

static enum next unknown_exit(struct vcpu *vcpu, uint32_t reason, const union x_exit *exit)
{
    char bytes[3 * REPORTED + 1];
    for (int i = 0; i < REPORTED; i++)
        snprintf(bytes + 3 * i, 4, " %02x", exit->bytes[i]);
    switch (wrong) {
    case UNKNOWN_EXIT_CRASHES:
        abort();
    case UNKNOWN_EXIT_IS_IGNORED:
        return AGAIN;
    case UNKNOWN_EXIT_SUCCEEDS:
        return end_vm(vcpu->vmm, OK, "unknown exit %u:%s", reason, bytes);
    case UNKNOWN_EXIT_WITHOUT_BYTES:
        return end_vm(vcpu->vmm, UNKNOWN_EXIT, "unknown exit %u", reason);
    default:
        return end_vm(vcpu->vmm, UNKNOWN_EXIT, "unknown exit %u:%s", reason, bytes);
    }
}

static enum next port(struct vcpu *vcpu)
{
    const uint8_t direction = vcpu->run->io.direction, size = vcpu->run->io.size;
    const uint64_t offset = vcpu->run->io.data_offset, bytes = (uint64_t)size * vcpu->run->io.count;
    const uint16_t number = vcpu->run->io.port;
    if (offset > vcpu->vmm->run_bytes || bytes > vcpu->vmm->run_bytes - offset)
        return end_vm(vcpu->vmm, RUN_FAILED, "port data outside of the run area");
    if (direction == KVM_EXIT_IO_IN)
        memset((char *)vcpu->run + offset, 0xff, bytes);
    else if (number == SERIAL)
        fwrite((char *)vcpu->run + offset, 1, bytes, stdout);
    return AGAIN;
}

static enum next failed_run(struct vcpu *vcpu, int error)
{
    struct vmm *vmm = vcpu->vmm;
    if (error == EINVAL && wrong == RETRIES_EINVAL)
        return AGAIN;
    if (error == EINVAL && wrong == EINVAL_IS_AN_END)
        return end_vm(vmm, OK, "KVM_RUN: %s", strerror(error));
    if (error == EFAULT && wrong == EFAULT_IS_RETRIED)
        return AGAIN;
    return end_vm(vmm, RUN_FAILED, "KVM_RUN failed: %s (%d)", strerror(error), error);
}

enum next vcpu_service(struct vcpu *vcpu, int error)
{
    struct vmm *vmm = vcpu->vmm;
    // Others may write the page, so it is read once.
    const uint32_t reason = *(volatile uint32_t *)&vcpu->run->exit_reason;
    const uint32_t fault_reason = wrong == FAULTS_BY_THE_POSTING ? 38 : X_EXIT_MEMORY_FAULT;
    const uint32_t certs_reason = wrong == CERTIFICATES_BY_THE_POSTING ? 40 : X_EXIT_SNP_REQ_CERTS;
    union x_exit exit;
    // A signal, or a processor that was only started: the page is that of an exit long ago.
    if (error == EINTR || error == EAGAIN) {
        if ((error == EINTR && wrong == EINTR_ENDS) || (error == EAGAIN && wrong == EAGAIN_ENDS))
            return end_vm(vmm, RUN_FAILED, "KVM_RUN failed: %s", strerror(error));
        if (error == EINTR && wrong == SERVES_THE_STALE_EXIT && vcpu->has_last_call)
            memory_map_gpa_range(vmm, vcpu, vcpu->last_call.args);
        return AGAIN;
    }
    memcpy(&exit, (char *)vcpu->run + 32, sizeof exit);
    if (error == EFAULT || error == EHWPOISON) {
        if (reason == fault_reason || (wrong == EFAULT_IS_ENOUGH && error == EFAULT))
            return memory_fault(vcpu, error, exit.fault);
        return failed_run(vcpu, error);
    }
    if (error)
        return failed_run(vcpu, error);
    switch (reason) {
    case KVM_EXIT_IO:
        return port(vcpu);
    case KVM_EXIT_MMIO:
        if (!vcpu->run->mmio.is_write)
            memset(vcpu->run->mmio.data, 0xff, sizeof vcpu->run->mmio.data);
        return AGAIN;
    case KVM_EXIT_HLT:
        return HALTED;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return AGAIN;
    case KVM_EXIT_SHUTDOWN:
        if (wrong == SHUTDOWN_IS_IGNORED)
            return AGAIN;
        if (wrong == SHUTDOWN_STOPS_ONE_VCPU && vmm->options->vcpus > 1)
            return HALTED;
        return end_vm(vmm, TRIPLE_FAULT, "vCPU %u met a triple fault", vcpu->id);
    case KVM_EXIT_FAIL_ENTRY:
        return end_vm(vmm, FAIL_ENTRY, "the entry failed with reason %#llx",
                      (unsigned long long)vcpu->run->fail_entry.hardware_entry_failure_reason);
    case KVM_EXIT_INTERNAL_ERROR:
        return end_vm(vmm, INTERNAL, "KVM internal error %u", vcpu->run->internal.suberror);
    case KVM_EXIT_HYPERCALL:
        return hypercall(vcpu, exit.hypercall);
    case KVM_EXIT_SYSTEM_EVENT:
        return event_service(vcpu, exit.event);
    default:
        if (reason == certs_reason && vmm->options->certificates)
            return certs_answer(vcpu, exit.certs);
        return unknown_exit(vcpu, reason, &exit);
    }
}

// Hands over what is pending without running the guest: EINTR says that there is nothing left.
enum next vcpu_drain(struct vcpu *vcpu)
{
    for (int i = 0; i < MOST_DRAINED; i++) {
        vcpu->run->immediate_exit = 1;
        const int error = vcpu_enter(vcpu);
        vcpu->run->immediate_exit = 0;
        if (error == EINTR)
            return AGAIN;
        const enum next next = vcpu_service(vcpu, error);
        if (next == COMMIT)
            certs_unlock(vcpu);
        if (next == OVER)
            return OVER;
    }
    return end_vm(vcpu->vmm, RUN_FAILED, "answers lead to exit after exit");
}
