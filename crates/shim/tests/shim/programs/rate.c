// How many exits per second: the guest writes to a port for ever.
#include "vmm.h"

int main(int count, char **words) {
    long exits = count > 1 ? atol(words[1]) : 100000;
    set_up(0);
    // For a kernel that runs machine code: out 0x80, al; jmp to it.
    memcpy(memory, "\xe6\x80\xeb\xfc", 4);
    struct kvm_sregs special;
    CHECK(ioctl(vcpu, KVM_GET_SREGS, &special) == 0);
    special.cs.base = special.cs.selector = 0;
    CHECK(ioctl(vcpu, KVM_SET_SREGS, &special) == 0);
    struct kvm_regs general = {.rflags = 2};
    CHECK(ioctl(vcpu, KVM_SET_REGS, &general) == 0);
    struct timespec start, end, cpu_start, cpu_end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu_start);
    clock_gettime(CLOCK_MONOTONIC, &start);
    long seen = 0;
    for (long i = 0; i < exits; i++) {
        CHECK(ioctl(vcpu, KVM_RUN, 0) == 0 || errno == EINTR);
        seen += run->exit_reason == KVM_EXIT_IO;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu_end);
    double seconds = end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) / 1e9;
    double cpu = cpu_end.tv_sec - cpu_start.tv_sec + (cpu_end.tv_nsec - cpu_start.tv_nsec) / 1e9;
    printf("%ld of %ld exits were port I/O, %.2f million a second, %.1f ns each, %.1f ns of the processor's\n",
           seen, exits, exits / seconds / 1e6, seconds / exits * 1e9, cpu / exits * 1e9);
    return 0;
}
