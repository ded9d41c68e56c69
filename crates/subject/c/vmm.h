// A small VMM in C, written from the kernel's documentation alone. It shares nothing with exeunt.
#ifndef VMM_H
#define VMM_H

#include "uapi.h"
#include "wrong.h"
#include <pthread.h>
#include <stdatomic.h>

enum {
    PAGE = 4096,
    PIECES = 16,
    VCPUS = 64,
    GUEST_AT = 0x1000,
    // Exit statuses.
    OK = 0,
    NOT_RUN = 2,
    RESET = 10,
    SUSPEND = 11,
    WAKEUP = 12,
    TRIPLE_FAULT = 20,
    CRASHED = 21,
    TERMINATED = 22,
    TD_FATAL = 23,
    FAULTED = 30,
    NO_PROGRESS = 31,
    POISONED = 32,
    RUN_FAILED = 40,
    FAIL_ENTRY = 41,
    INTERNAL = 42,
    UNKNOWN_EVENT = 50,
    UNKNOWN_EXIT = 51,
};

enum task { TASK_RUN, TASK_SAVE_AFTER, TASK_SAVE_TWICE, TASK_GO_BACK, TASK_MIGRATE };

struct options {
    unsigned long type;
    unsigned vcpus, save_after, exits;
    bool in_turn, irqchip, convert_faults, ignore_events;
    const char *certificates;
    enum task task;
};

// A slot: memory of this process for its shared pages, perhaps a guest_memfd for the private ones.
struct piece {
    uint64_t gpa, bytes;
    bool has_private;
    uint32_t slot;
    char *host;
    int gmem;
    uint8_t *is_private; // for each page
};

struct vmm;

struct vcpu {
    struct vmm *vmm;
    unsigned id;
    int fd;
    struct kvm_run *run;
    pthread_t thread;
    _Atomic bool in_thread, is_done;
    uint64_t last_fault;
    unsigned same_faults;
    struct x_hypercall last_call; // for a VMM that is wrong
    bool has_last_call;
};

struct vmm {
    const struct options *options;
    int kvm, fd, sev;
    size_t run_bytes;
    bool has_event_data, has_triple_fault, is_old_sev_es, gives_certificates;
    struct piece pieces[PIECES];
    unsigned npieces;
    pthread_mutex_t memory; // attributes, backing and tracker change together
    struct vcpu vcpus[VCPUS];
    pthread_mutex_t end;
    _Atomic bool is_over;
    int status;
    char text[1024];
};

// What to do after an exit.
enum next { AGAIN, HALTED, OVER, COMMIT };

// memory.c
bool memory_add(struct vmm *vmm, struct piece *piece);
bool memory_make_private(struct vmm *vmm);
uint64_t memory_map_gpa_range(struct vmm *vmm, const struct vcpu *vcpu, const uint64_t args[6]);
int memory_convert(struct vmm *vmm, unsigned vcpu, uint64_t gpa, uint64_t npages, bool to_private, bool for_fault);
int memory_set_attributes(struct vmm *vmm, uint64_t gpa, uint64_t bytes, bool to_private);
bool memory_covers(const struct vmm *vmm, uint64_t gpa, uint64_t npages, bool only_private);
bool memory_is_shared(struct vmm *vmm, uint64_t gpa, uint64_t npages);
char *memory_at(const struct vmm *vmm, uint64_t gpa);

// launch.c
bool launch_begin(struct vmm *vmm);
bool launch_req_certs(struct vmm *vmm);
bool launch_load(struct vmm *vmm, size_t image_bytes);
bool launch_finish(struct vmm *vmm);

// certs.c
enum next certs_answer(struct vcpu *vcpu, struct x_req_certs request);
void certs_unlock(struct vcpu *vcpu);

// exits.c
int vcpu_enter(struct vcpu *vcpu);
enum next vcpu_service(struct vcpu *vcpu, int error);
enum next vcpu_drain(struct vcpu *vcpu);

// events.c
enum next event_service(struct vcpu *vcpu, struct x_event event);
bool events_save(struct vcpu *vcpu, struct kvm_vcpu_events *events);
bool events_restore(struct vcpu *vcpu, struct kvm_vcpu_events events);

// main.c
enum next end_vm(struct vmm *vmm, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool failed(struct vmm *vmm, const char *what);

#endif
