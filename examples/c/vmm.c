// A VMM of one vCPU on /dev/kvm: its own switch for port I/O, exeunt before it for what ends a guest.
// cc vmm.c -o vmm $(pkg-config --cflags --libs exeunt) && ./vmm
#include <errno.h>
#include <exeunt.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

// Prints "hi" through port 0x3f8, then divides by zero without an interrupt table: a triple fault.
static const unsigned char guest[] = {0xba, 0xf8, 3, 0, 0, 0xb0, 'h', 0xee, 0xb0, 'i', 0xee, 0xb0, '\n', 0xee,
                                      0x31, 0xc9, 0xf7, 0xf1};
enum { LOAD = 0x1000, MEMORY = 0x10000 };

static int failed(const char *what) { perror(what); return 2; }

int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        return failed("/dev/kvm");
    int vm_fd = ioctl(kvm, KVM_CREATE_VM, 0UL), fd = ioctl(vm_fd, KVM_CREATE_VCPU, 0UL);
    int run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0UL);
    unsigned char *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_run *run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    struct kvm_userspace_memory_region slot = {.memory_size = MEMORY, .userspace_addr = (unsigned long)memory};
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = LOAD, .rflags = 2};
    if (memory == MAP_FAILED || run == MAP_FAILED || ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) ||
        ioctl(fd, KVM_GET_SREGS, &sregs))
        return failed("KVM");
    memcpy(memory + LOAD, guest, sizeof guest);
    sregs.cs = (struct kvm_segment){.limit = ~0U, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
    sregs.idt.limit = 0, sregs.cr0 |= 1; // 32-bit code without paging
    if (ioctl(fd, KVM_SET_SREGS, &sregs) || ioctl(fd, KVM_SET_REGS, &regs))
        return failed("registers");

    struct exeunt_policy *policy = exeunt_policy_new();
    struct exeunt_host host = {.size = sizeof host}; // no private memory, so no callback is called
    struct exeunt_vm *vm; struct exeunt_vcpu *vcpu;
    if (exeunt_policy_add_slot(policy, 0, MEMORY, false) || exeunt_vm_new(policy, &host, &vm) || exeunt_vcpu_new(vm, &vcpu))
        return 2;
    enum exeunt_served served; int error; // without an exit, `exit_reason` is an old one
    while ((served = exeunt_serve(vcpu, run, (size_t)run_size, error = ioctl(fd, KVM_RUN, 0UL) ? errno : 0)) != EXEUNT_STOP) {
        if (served == EXEUNT_SERVED || (served == EXEUNT_NOT_OURS && error == EINTR))
            continue;
        if (served == EXEUNT_ERROR || error || run->exit_reason != KVM_EXIT_IO)
            return 2;
        putchar(*((char *)run + run->io.data_offset));
    }
    char line[256];
    exeunt_stop_message(exeunt_vcpu_stop(vcpu), line, sizeof line);
    printf("%s\n", line);
    int status = exeunt_stop_exit_status(exeunt_vcpu_stop(vcpu));
    exeunt_vcpu_free(vcpu), exeunt_vm_free(vm), exeunt_policy_free(policy);
    return status;
}
