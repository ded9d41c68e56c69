// Signals end a KVM_RUN, whether the guest waits or runs, and faults of the program's own are its own.
#include "vmm.h"
#include <setjmp.h>

static volatile int handled;
static sigjmp_buf back;

static void on_signal(int number) {
    (void)number;
    handled++;
}

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    CHECK(info->si_addr == (void *)16);
    siglongjmp(back, 1);
}

static void *kick(void *thread) {
    usleep(50000);
    CHECK(pthread_kill(*(pthread_t *)thread, SIGUSR1) == 0);
    return 0;
}

int main(void) {
    set_up(0);
    struct sigaction action = {.sa_handler = on_signal};
    CHECK(sigaction(SIGUSR1, &action, 0) == 0);
    // immediate_exit
    run->immediate_exit = 1;
    CHECK(ioctl(vcpu, KVM_RUN, 0) == -1 && errno == EINTR);
    run->immediate_exit = 0;
    pthread_t self = pthread_self(), other;
    CHECK(pthread_create(&other, 0, kick, &self) == 0);
    int result, runs = 0;
    do {
        result = ioctl(vcpu, KVM_RUN, 0);
        runs++;
    } while (result == 0);
    CHECK(errno == EINTR && handled == 1 && run->exit_reason == KVM_EXIT_INTR);
    CHECK(pthread_join(other, 0) == 0);
    // A fault of its own, with a handler and without.
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER}, before;
    CHECK(sigaction(SIGSEGV, &fault, &before) == 0 && before.sa_handler == SIG_DFL);
    if (sigsetjmp(back, 1) == 0) *(volatile int *)16 = 1;
    CHECK(ioctl(vm, KVM_SET_USER_MEMORY_REGION, 16) == -1 && errno == EFAULT);
    CHECK(sigaction(SIGSEGV, 0, &before) == 0 && before.sa_sigaction == on_fault);
    CHECK(signal(SIGSEGV, SIG_DFL) == (void *)on_fault);
    pid_t child = fork();
    if (child == 0) {
        *(volatile int *)16 = 1;
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    printf("done\n");
    return 0;
}
