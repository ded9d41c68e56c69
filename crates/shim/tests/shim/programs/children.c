// A child has copies of the descriptors, and no VM.
#include "vmm.h"
#include <spawn.h>

extern char **environ;

static int status_of(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(void) {
    set_up(0);
    pid_t child = fork();
    if (child == 0) {
        if (ioctl(vm, KVM_CHECK_EXTENSION, 3) != -1 || errno != EIO) _exit(1);
        if (ioctl(vcpu, KVM_RUN, 0) != -1 || errno != EIO) _exit(2);
        if (close(vm) != 0) _exit(3);
        if (ioctl(vm, KVM_CHECK_EXTENSION, 3) != -1 || errno != EBADF) _exit(4);
        // A device is nobody's.
        if (ioctl(kvm, KVM_GET_API_VERSION, 0) != 12) _exit(6);
        if (ioctl(kvm, KVM_CREATE_VM, 0) < 0) _exit(7);
        // A VM of its own.
        int own = open("/dev/kvm", O_RDWR);
        int own_vm = ioctl(own, KVM_CREATE_VM, 0);
        if (own < 0 || own_vm < 0 || ioctl(own_vm, KVM_CHECK_EXTENSION, 3) != 1) _exit(5);
        _exit(42);
    }
    CHECK(status_of(child) == 42);
    // A child that shares the memory of its parent until it is another program.
    child = vfork();
    if (child == 0) {
        close(vm);
        close(vcpu);
        execl("/bin/sh", "sh", "-c", "exit 7", (char *)0);
        _exit(1);
    }
    CHECK(status_of(child) == 7);
    char *arguments[] = {"sh", "-c", "exit 8", 0};
    CHECK(posix_spawn(&child, "/bin/sh", 0, 0, arguments, environ) == 0);
    CHECK(status_of(child) == 8);
    CHECK(system("exit 9") >> 8 == 9);
    CHECK(ioctl(vm, KVM_CHECK_EXTENSION, 3) == 1);
    CHECK(ioctl(vcpu, KVM_RUN, 0) == 0);
    printf("done\n");
    return 0;
}
