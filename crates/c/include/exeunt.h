// libexeunt: answers to the confidential exits of KVM, for VMMs in C.
//
// Apache-2.0 OR BSD-3-Clause. Made by cbindgen from crates/c/src; do not change it by hand.
//
// A VMM makes one `exeunt_policy`, from it one `exeunt_vm`, and for each vCPU thread an `exeunt_vcpu`. After each
// KVM_RUN it calls `exeunt_serve`, before its own switch over `exit_reason`, with the page and with errno:
//
//     int error = ioctl(vcpu_fd, KVM_RUN, 0) ? errno : 0;
//     switch (exeunt_serve(vcpu, run, run_size, error)) {
//     case EXEUNT_SERVED: continue;                  // answered: enter again
//     case EXEUNT_STOP:   return stopped(vcpu);      // never to be entered again: exeunt_vcpu_stop
//     case EXEUNT_NOT_OURS: break;                   // the switch as it was
//     case EXEUNT_ERROR:  abort();                   // wrong arguments, or a bug of the library
//     }
//
// Threads: `exeunt_vm` may be used by all threads at once. An `exeunt_policy`, and an `exeunt_vcpu` with its stop, by
// one at a time. Callbacks are called by the thread that is in `exeunt_serve`, so those of two vCPUs run at once; the
// library holds no lock while it calls one.
//
// Errors: functions that return `int` return 0 or a negative errno, -EINVAL for a null pointer. No function
// unwinds into its caller. Freeing a null pointer does nothing.


#ifndef EXEUNT_H
#define EXEUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What became of an exit, by `exeunt_serve`.
enum exeunt_served {
    // It is answered: enter again.
    EXEUNT_SERVED = 0,
    // It is none of the confidential exits, or no exit: go on with the switch that was there before. The page is as
    // the kernel left it. EINTR is among these.
    EXEUNT_NOT_OURS = 1,
    // The vCPU is not to be entered again: see `exeunt_vcpu_stop`.
    EXEUNT_STOP = 2,
    // An argument is null, too short or not aligned, or the library has a bug. Nothing was answered.
    EXEUNT_ERROR = 3,
};

// What a memory fault leads to, for `exeunt_policy_set_memory_faults`.
enum exeunt_fault_policy {
    // The end. The default: guests convert explicitly.
    EXEUNT_FAULT_STOP = 0,
    // The page becomes what the access wants it to be.
    EXEUNT_FAULT_CONVERT = 1,
};

// What such a request leads to.
enum exeunt_event_policy {
    // `EXEUNT_STOP`. The default.
    EXEUNT_EVENT_STOP = 0,
    // The vCPU is entered again.
    EXEUNT_EVENT_IGNORE = 1,
    // `EXEUNT_STOP`, and the callback `dump` before it.
    EXEUNT_EVENT_DUMP = 2,
};

// Which request of the guest, for `exeunt_policy_set_event`: the numbers of `system_event.type`.
enum exeunt_event {
    // `KVM_SYSTEM_EVENT_SHUTDOWN`.
    EXEUNT_EVENT_SHUTDOWN = 1,
    // `KVM_SYSTEM_EVENT_RESET`.
    EXEUNT_EVENT_RESET = 2,
    // `KVM_SYSTEM_EVENT_CRASH`.
    EXEUNT_EVENT_CRASH = 3,
};

// What an SNP guest gets that asks for certificates, for `exeunt_policy_set_no_certificates`.
enum exeunt_certificates {
    // An empty table. The default.
    EXEUNT_CERTIFICATES_NONE = 0,
    // It is to come back.
    EXEUNT_CERTIFICATES_BUSY = 1,
    // An error. A Linux guest then gives up attestation for good.
    EXEUNT_CERTIFICATES_BROKEN = 2,
};

// What to do with the VM, by `exeunt_stop_next`.
enum exeunt_next {
    // End it.
    EXEUNT_NEXT_END = 0,
    // Start it anew, with a new launch.
    EXEUNT_NEXT_RESTART = 1,
    // Keep it, and enter the vCPU again when something wakes it.
    EXEUNT_NEXT_SUSPEND = 2,
    // Make this vCPU runnable and enter it again.
    EXEUNT_NEXT_WAKE = 3,
};

// How loud to say it, by `exeunt_stop_severity`.
enum exeunt_severity {
    // The guest did what guests do.
    EXEUNT_SEVERITY_INFO = 0,
    // The guest is gone, by its own decision or fault.
    EXEUNT_SEVERITY_WARNING = 1,
    // The guest was ended by something that should not be.
    EXEUNT_SEVERITY_ERROR = 2,
    // The host is at fault.
    EXEUNT_SEVERITY_CRITICAL = 3,
};

// The decisions of a VMM, before its VM is made.
struct exeunt_policy;

// Why a vCPU is not to be entered again.
struct exeunt_stop;

// One vCPU of a VM. One thread may use it at a time.
struct exeunt_vcpu;

// A VM: its memory, its policy and its host. Any thread may use it at any time.
struct exeunt_vm;

// `struct kvm_run` of <linux/kvm.h>.
struct kvm_run;

// `struct kvm_vcpu_events` of <linux/kvm.h>.
struct kvm_vcpu_events;

// What the library asks of the VMM. Addresses are guest physical, sizes are in bytes and multiples of 4096 but for
// `write_guest` and `read_guest`. Each returns 0 or an errno of either sign. A null callback is one that says
// EOPNOTSUPP.
struct exeunt_host {
    // `sizeof(struct exeunt_host)`: members that a later version adds count as null.
    size_t size;
    // Handed to each callback.
    void *ctx;
    // `KVM_SET_MEMORY_ATTRIBUTES`.
    int (*set_attributes)(void *ctx, uint64_t gpa, uint64_t size, bool to_private);
    // Give back the memory that pages no longer use: the `guest_memfd`, or what the VMM maps. A file, a memfd among them,
    // needs fallocate with `FALLOC_FL_PUNCH_HOLE`; anonymous memory needs madvise, with `MADV_DONTNEED` if it is mapped
    // private and `MADV_REMOVE` if it is mapped shared, where the other succeeds and leaves the data.
    int (*discard)(void *ctx, uint64_t gpa, uint64_t size, bool private_memory);
    // Write to shared guest memory.
    int (*write_guest)(void *ctx, uint64_t gpa, const uint8_t *bytes, size_t length);
    // Read shared guest memory, once.
    int (*read_guest)(void *ctx, uint64_t gpa, uint8_t *bytes, size_t length);
    // `KVM_PRE_FAULT_MEMORY` of private pages. It may fail.
    int (*prefault)(void *ctx, uint64_t gpa, uint64_t size);
    // Pages are about to change: what maps them for devices lets go of pages that become private. An error refuses
    // the conversion. Null: nothing to do.
    int (*before_conversion)(void *ctx, uint64_t gpa, uint64_t size, bool to_private);
    // Pages have changed, and nothing has been discarded: what maps memory for devices takes pages in that have
    // become shared. An error undoes the conversion. Null: nothing to do.
    int (*after_conversion)(void *ctx, uint64_t gpa, uint64_t size, bool to_private);
    // Pages that `before_conversion` was told of do not change after all.
    void (*undo_conversion)(void *ctx, uint64_t gpa, uint64_t size, bool to_private);
    // Keep what can be kept of the guest: the vCPU that this thread serves stops.
    void (*dump)(void *ctx);
    // A vCPU has ended the VM, see `exeunt_vm_stop`: take the others out of `KVM_RUN`, and those that are about to enter
    // as well. So set `immediate_exit` of each to 1 before its thread gets a signal. Called once for a VM.
    void (*kick)(void *ctx);
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// A policy with the defaults and without memory; null if there is no memory for it. Free it with
// `exeunt_policy_free`.
struct exeunt_policy *exeunt_policy_new(void);

// Frees a policy. VMs that were made from it keep what they took.
void exeunt_policy_free(struct exeunt_policy *policy);

// Adds a memory slot: where it starts and its length, both multiples of 4096. `has_private` says that a `guest_memfd`
// backs it as well. -EEXIST if it overlaps another.
int exeunt_policy_add_slot(struct exeunt_policy *policy,
                           uint64_t gpa,
                           uint64_t size,
                           bool has_private);

// Says which kernel writes the run page, such as "linux-6.12". The default, the newest, is right from Linux 5.18 on.
// -EINVAL for a name that is none.
int exeunt_policy_set_kernel(struct exeunt_policy *policy,
                             const char *dialect);

// Says what memory faults lead to: an `exeunt_fault_policy`.
int exeunt_policy_set_memory_faults(struct exeunt_policy *policy, uint32_t to);

// Says what a request of the guest, an `exeunt_event`, leads to: an `exeunt_event_policy`.
int exeunt_policy_set_event(struct exeunt_policy *policy, uint32_t event, uint32_t to);

// Gives SNP guests this table of certificates, in the format of the GHCB specification. It is copied. -EINVAL if it
// is malformed, -EFBIG above 1 MiB.
int exeunt_policy_set_certificates(struct exeunt_policy *policy,
                                   const uint8_t *table,
                                   size_t length);

// Gives SNP guests the table that is in this file when they ask, under the lock that keeps whoever replaces the file
// and the firmware's TCB away until KVM has taken the answer. While the file is not there, or holds no table, guests
// get an empty table; while somebody else has it locked, they are told to come back.
int exeunt_policy_set_certificates_file(struct exeunt_policy *policy,
                                        const char *path);

// Gives SNP guests no table but this answer: an `exeunt_certificates`.
int exeunt_policy_set_no_certificates(struct exeunt_policy *policy, uint32_t answer);

// Counts exits, effects and latencies, for `exeunt_vm_metrics`. Off by default.
int exeunt_policy_set_metrics(struct exeunt_policy *policy, bool on);

// Calls the callback `dump` before every stop that is a failure: triple faults, terminations, memory faults. Off by
// default.
int exeunt_policy_set_dump_failures(struct exeunt_policy *policy,
                                    bool on);

// Gives memory that pages no longer use back when more than `budget_pages` of 4 KiB wait for it, and not with each
// conversion.
int exeunt_policy_set_lazy_reclaim(struct exeunt_policy *policy,
                                   uint64_t budget_pages);

// Calls the callback `prefault` for pages that become private. Off by default.
int exeunt_policy_set_prefault(struct exeunt_policy *policy, bool on);

// Makes a VM. Policy and host are copied. 0 or a negative errno; `vm` is set to null on an error.
int exeunt_vm_new(const struct exeunt_policy *policy,
                  const struct exeunt_host *host,
                  struct exeunt_vm **vm);

// Frees a VM. Its vCPUs go on until they are freed.
void exeunt_vm_free(struct exeunt_vm *vm);

// Adds a slot to a VM that runs, after `KVM_SET_USER_MEMORY_REGION2`. As for `exeunt_policy_add_slot`.
int exeunt_vm_add_slot(const struct exeunt_vm *vm, uint64_t gpa, uint64_t size, bool has_private);

// Takes the slot that starts at `gpa` away, before it is deleted. -ENOENT if there is none. It waits for conversions of
// its pages, so it is not to be called within a callback of one.
int exeunt_vm_remove_slot(const struct exeunt_vm *vm,
                          uint64_t gpa);

// Says that the VMM itself has made pages private or shared: at a launch, or before a restored guest runs. Pages are
// shared at first.
int exeunt_vm_assume(const struct exeunt_vm *vm,
                     uint64_t gpa,
                     uint64_t size,
                     bool is_private);

// Whether a vCPU has ended the VM, so that no other is to be entered again: ask before each `KVM_RUN`. False for null.
bool exeunt_vm_is_over(const struct exeunt_vm *vm);

// Why the VM ended: the first stop of a vCPU that ends or restarts a VM. Null if there was none. It lives as long as
// the VM and its vCPUs.
const struct exeunt_stop *exeunt_vm_stop(const struct exeunt_vm *vm);

// Writes the metrics of the VM as Prometheus text, if the policy asked for them, with a null behind it. As snprintf:
// what does not fit is cut, and the length of the whole is returned, without the null.
size_t exeunt_vm_metrics(const struct exeunt_vm *vm,
                         char *buffer,
                         size_t length);

// Makes a vCPU of a VM. 0 or a negative errno; `vcpu` is set to null on an error.
int exeunt_vcpu_new(const struct exeunt_vm *vm, struct exeunt_vcpu **vcpu);

// Frees a vCPU. It must not be in `KVM_RUN` with an answer that is held, see `exeunt_serve`.
void exeunt_vcpu_free(struct exeunt_vcpu *vcpu);

// Services the exit that `KVM_RUN` brought, if it is one of the confidential ones: hypercalls, memory faults, requests
// for certificates, calls of a TD, system events and triple faults.
//
// `run` is the vCPU's page, `run_size` its length in bytes, and `run_errno` is 0 if `KVM_RUN` returned 0, else errno.
// Call it after each `KVM_RUN`, EINTR too, before anything else changes errno or the page. Bit 6 of `immediate_exit`
// belongs to the library: it sets it to hand an answer over while certificates are locked, and takes it back at the
// EINTR that follows. It waits where another vCPU converts the same pages, and for the lock on a file of certificates,
// half a second at most. None of its callbacks may use this vCPU.
enum exeunt_served exeunt_serve(struct exeunt_vcpu *vcpu,
                                struct kvm_run *run,
                                size_t run_size,
                                int run_errno);

// Why the vCPU stopped last. Null if it never did. It lives until the next `exeunt_serve` or `exeunt_vcpu_free`.
const struct exeunt_stop *exeunt_vcpu_stop(const struct exeunt_vcpu *vcpu);

// The version of the library that runs, such as "0.1.0". It is static.
const char *exeunt_version(void);

// The word for what happened: "`triple_fault`", "`sev_term`", "`memory_fault`" and so on. It is static; "" for null.
const char *exeunt_stop_name(const struct exeunt_stop *stop);

// The exit status that a process should end with: 0 only if the guest asked to be shut down. -EINVAL for null.
int exeunt_stop_exit_status(const struct exeunt_stop *stop);

// How loud to say it: an `exeunt_severity`. -EINVAL for null.
int exeunt_stop_severity(const struct exeunt_stop *stop);

// What to do with the VM: an `exeunt_next`. -EINVAL for null.
int exeunt_stop_next(const struct exeunt_stop *stop);

// Writes the line for the log, without a line break and with all that the guest chose escaped, and a null behind it.
// As snprintf: what does not fit is cut, and the length of the whole is returned, without the null.
size_t exeunt_stop_message(const struct exeunt_stop *stop,
                           char *buffer,
                           size_t length);

// Reads one number of the stop: "`reason_set`" and "code" of a termination, "gpa", "size" and "private" of a memory
// fault, "data0" to "data15" of a system event, "errno" of a `KVM_RUN` that failed, and so on. False if it has none of
// this name, and then `value` is as it was.
bool exeunt_stop_field(const struct exeunt_stop *stop,
                       const char *field,
                       uint64_t *value);

// Whether saved events have a pending triple fault: 1 or 0, or -1 if the source had not enabled
// `KVM_CAP_X86_TRIPLE_FAULT_EVENT`, so that one is lost. -EINVAL for null.
int exeunt_events_triple_fault(const struct kvm_vcpu_events *saved);

// Makes saved events fit for the vCPU that they are restored into, whose VM takes the flags `allowed`
// (`KVM_VCPUEVENT_VALID_*`): a flag that it does not take is left out where nothing is lost with it. Write `saved` with
// `KVM_SET_VCPU_EVENTS` then.
//
// -EOPNOTSUPP if something would be lost: a pending triple fault or a pending exception. -EINVAL for flags without a
// meaning and for null. `saved` is as it was then.
int exeunt_events_restore(struct kvm_vcpu_events *saved,
                          uint32_t allowed);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* EXEUNT_H */
