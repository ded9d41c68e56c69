// Copies of descriptors, numbers that are used again, two VMs, and pointers that lead nowhere.
#include "vmm.h"

static void pointers(void) {
    void *bad[] = {0, (void *)8, (void *)~0ul, (void *)(1ul << 47), (void *)0x7ffffffff000, "read only"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        errno = 0;
        CHECK(ioctl(vm, KVM_SET_USER_MEMORY_REGION, bad[i]) == -1 && (errno == EFAULT || i == 5));
        errno = 0;
        CHECK(ioctl(kvm, KVM_GET_MSR_INDEX_LIST, bad[i]) == -1 && (errno == EFAULT || errno == E2BIG));
    }
    // The end of a mapping, in the middle of a struct.
    uint8_t *pages = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mprotect(pages + 4096, 4096, PROT_NONE) == 0);
    CHECK(ioctl(vm, KVM_SET_USER_MEMORY_REGION, pages + 4096 - 16) == -1 && errno == EFAULT);
    CHECK(open((char *)8, O_RDWR) == -1 && errno == EFAULT);
    CHECK(open("/dev/kvmm", O_RDWR) == -1 && errno == ENOENT);
    CHECK(access("/dev/kvm", R_OK | W_OK) == 0);
    struct stat status;
    CHECK(stat("/dev/sev", &status) == 0 && S_ISCHR(status.st_mode));
}

int main(void) {
    set_up(0);
    pointers();
    int other = dup(vm);
    CHECK(other >= 0 && other != vm);
    CHECK(close(vm) == 0);
    CHECK(ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == -1 && errno == EBADF);
    CHECK(ioctl(other, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == 1);
    // The number is used again for something else.
    int file = open("/dev/null", O_RDWR);
    CHECK(file == vm);
    CHECK(ioctl(file, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == -1 && errno == ENOTTY);
    int copy = fcntl(other, F_DUPFD_CLOEXEC, 100);
    CHECK(copy >= 100 && ioctl(copy, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == 1);
    CHECK(dup2(file, copy) == copy);
    CHECK(ioctl(copy, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == -1 && errno == ENOTTY);
    CHECK(dup3(other, copy, O_CLOEXEC) == copy);
    CHECK(ioctl(copy, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == 1);
    // A second device, and a second VM.
    int second = open("/dev/kvm", O_RDWR);
    int second_vm = ioctl(second, KVM_CREATE_VM, 0);
    CHECK(second >= 0 && second_vm >= 0);
    CHECK(close_range(copy, copy, 0) == 0);
    CHECK(ioctl(copy, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == -1 && errno == EBADF);
    CHECK(ioctl(vcpu, KVM_RUN, 0) == 0);
    // Closed behind the library's back, and used again for a file that takes other calls.
    CHECK(syscall(3, second_vm) == 0);
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    int waiting = -1;
    CHECK(ioctl(pipes[0], FIONREAD, &waiting) == 0 && waiting == 0);
    printf("done\n");
    return 0;
}
