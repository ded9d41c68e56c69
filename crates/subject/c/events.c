// System events, and the events of a vCPU that a snapshot carries.
#include "vmm.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

static void append(char *text, size_t bytes, const uint64_t *words, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const size_t used = strlen(text);
        snprintf(text + used, bytes - used, " %#llx", (unsigned long long)words[i]);
    }
}

enum next event_service(struct vcpu *vcpu, struct x_event event)
{
    struct vmm *vmm = vcpu->vmm;
    const bool is_ignored = vmm->options->ignore_events && wrong != CANNOT_IGNORE;
    // Without the capability these bytes are what was there before.
    unsigned words = !vmm->has_event_data ? 0 : event.ndata < X_EVENT_WORDS ? event.ndata : X_EVENT_WORDS;
    char text[512] = "";
    if (wrong == MASKS_BIT_31)
        event.type &= ~(1U << 31);
    if (wrong == TYPE_IS_A_BYTE)
        event.type &= 0xff;
    if (wrong == BIT_31_REBOOTS && event.type >> 31)
        return end_vm(vmm, OK, "rebooting");
    if (wrong == BELIEVES_NDATA && event.type == X_EVENT_RESET)
        words = event.ndata < X_EVENT_WORDS ? event.ndata : X_EVENT_WORDS;
    if (wrong == INDEXES_BY_NDATA && event.ndata > X_EVENT_WORDS)
        abort();
    if (wrong == REPORTS_16_WORDS && event.type == X_EVENT_SEV_TERM)
        words = X_EVENT_WORDS;
    append(text, sizeof text, event.data, words);
    if (wrong == TERMINATIONS_BY_THE_POSTING && event.type == X_EVENT_SEV_TERM)
        return end_vm(vmm, UNKNOWN_EVENT, "system event of unknown type %u", event.type);
    switch (event.type) {
    case X_EVENT_SHUTDOWN:
        return is_ignored ? AGAIN : end_vm(vmm, OK, "the guest asked for a shutdown,%s", text);
    case X_EVENT_RESET:
        return is_ignored ? AGAIN : end_vm(vmm, RESET, "the guest asked for a reset,%s", text);
    case X_EVENT_CRASH:
        return is_ignored ? AGAIN : end_vm(vmm, CRASHED, "the guest crashed,%s", text);
    case X_EVENT_WAKEUP:
        return end_vm(vmm, WAKEUP, "a suspended vCPU woke up");
    case X_EVENT_SUSPEND:
        return end_vm(vmm, SUSPEND, "the guest asked to be suspended");
    case X_EVENT_SEV_TERM:
        if (wrong == TERMINATION_WITHOUT_A_REASON)
            return end_vm(vmm, TERMINATED, "the guest ended itself");
        return end_vm(vmm, wrong == TERMINATION_REBOOTS ? OK : TERMINATED, "the guest terminated, GHCB MSR%s", text);
    case X_EVENT_TDX_FATAL:
        return end_vm(vmm, TD_FATAL, "the TD gave up, registers%s", text);
    }
    if (!(event.type >> 31)) {
        switch (wrong) {
        case UNKNOWN_EVENT_CRASHES:
            abort();
        case UNKNOWN_EVENT_REBOOTS: // as some do: it counts as a success
            return end_vm(vmm, OK, "system event of unknown type %#x,%s", event.type, text);
        case UNKNOWN_EVENT_SUCCEEDS:
            return end_vm(vmm, OK, "system event of unknown type %#x,%s", event.type, text);
        case UNKNOWN_EVENT_IS_IGNORED:
            return AGAIN;
        case UNKNOWN_EVENT_WITHOUT_A_NUMBER:
            return end_vm(vmm, UNKNOWN_EVENT, "unexpected system event");
        default:
            break;
        }
    }
    return end_vm(vmm, UNKNOWN_EVENT, "system event of unknown type %#x,%s", event.type, text);
}

static bool is_pending(const struct kvm_vcpu_events *events)
{
    return events->flags & X_VALID_TRIPLE_FAULT && events->triple_fault.pending;
}

// What is pending is handed over first: it would be missing in what is read.
bool events_save(struct vcpu *vcpu, struct kvm_vcpu_events *events)
{
    struct vmm *vmm = vcpu->vmm;
    enum next next = AGAIN;
    if (wrong == DRAINS_ONE_EXIT_ONLY || wrong == DRAINS_BY_RUNNING) {
        vcpu->run->immediate_exit = wrong == DRAINS_ONE_EXIT_ONLY;
        next = vcpu_service(vcpu, vcpu_enter(vcpu));
        vcpu->run->immediate_exit = 0;
    } else if (wrong != SAVES_WITHOUT_DRAINING) {
        next = vcpu_drain(vcpu);
    }
    if (next == OVER)
        return false;
    if (ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, events))
        return failed(vmm, "KVM_GET_VCPU_EVENTS");
    if (!is_pending(events))
        return true;
    if (wrong == LOSES_THE_BYTE)
        events->triple_fault.pending = 0;
    if (wrong == LOSES_THE_FLAG)
        events->flags &= ~(unsigned)X_VALID_TRIPLE_FAULT;
    if (wrong == CLEARS_WHAT_IT_READ) {
        struct kvm_vcpu_events cleared = *events;
        cleared.triple_fault.pending = 0;
        ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &cleared);
    }
    return true;
}

bool events_restore(struct vcpu *vcpu, struct kvm_vcpu_events events)
{
    struct vmm *vmm = vcpu->vmm;
    if (is_pending(&events) && !vmm->has_triple_fault && wrong != RUNS_UNRESTORED)
        return end_vm(vmm, NOT_RUN, "this kernel cannot take the pending triple fault"), false;
    if (!vmm->has_triple_fault)
        events.flags &= ~(unsigned)X_VALID_TRIPLE_FAULT;
    if (wrong == ONLY_SETS_AND_NEVER_CLEARS && !events.triple_fault.pending)
        events.flags &= ~(unsigned)X_VALID_TRIPLE_FAULT;
    if (wrong == ALWAYS_SETS_THE_FLAG)
        events.flags |= X_VALID_TRIPLE_FAULT;
    if (wrong == TRIES_AGAIN_WITHOUT_READING) {
        struct kvm_vcpu_events bad = events;
        bad.flags |= 1 << 6;
        if (!ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &bad))
            return true;
    }
    if (!ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events))
        return true;
    // Part of it may have been taken, so the vCPU is not run.
    return failed(vmm, "KVM_SET_VCPU_EVENTS");
}
