// A filter that ends the program at any call but those that a VMM makes while its guest runs.
#include "vmm.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define ALLOW(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int main(void) {
    set_up(1);
    enable_hypercalls();
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_ioctl),
        ALLOW(SYS_write),
        ALLOW(SYS_exit_group),
        // The end of a handler, which the kernel makes a program call.
        ALLOW(SYS_rt_sigreturn),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    for (int exits = 0; exits < 20; exits++) {
        int result = ioctl(vcpu, KVM_RUN, 0);
        if (result == 0 && run->exit_reason == KVM_EXIT_HLT) break;
        if (result == 0 && run->exit_reason == 3) run->hypercall.ret = 22;
    }
    struct kvm_mp_state state;
    CHECK(ioctl(vcpu, KVM_GET_MP_STATE, &state) == 0);
    CHECK(ioctl(vcpu, KVM_GET_MP_STATE, 8) == -1 && errno == EFAULT);
    static const char done[] = "done\n";
    return write(1, done, sizeof done - 1) == sizeof done - 1 ? 0 : 1;
}
