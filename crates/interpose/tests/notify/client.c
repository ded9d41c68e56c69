/* A small VMM that makes its system calls itself. The first argument says what it does; it prints what it saw. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The headers of the machine may be older than the requests. */
#define GET_API_VERSION 0xae00
#define CREATE_VM 0xae01
#define CHECK_EXTENSION 0xae03
#define GET_VCPU_MMAP_SIZE 0xae04
#define CREATE_VCPU 0xae41
#define CREATE_IRQCHIP 0xae60
#define RUN 0xae80
#define SET_USER_MEMORY_REGION 0x4020ae46
#define SET_USER_MEMORY_REGION2 0x40a0ae49
#define ENABLE_CAP 0x4068aea3
#define SET_MEMORY_ATTRIBUTES 0x4020aed2
#define CREATE_GUEST_MEMFD 0xc040aed4
#define GET_SREGS 0x8138ae83
#define SET_SREGS 0x4138ae84
#define SET_REGS 0x4090ae82
#define SW_PROTECTED 1
#define EXIT_HYPERCALL 201
#define MEMORY (16UL << 20)
#define ATTRIBUTE_PRIVATE 8

static long raw(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d, r8 asm("r8") = e, r9 asm("r9") = f;
	long result;
	asm volatile("syscall"
		     : "=a"(result)
		     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return result;
}

/* What the kernel returns: a negative errno. */
static long control(int fd, unsigned long request, void *arg)
{
	return raw(SYS_ioctl, fd, request, (long)arg, 0, 0, 0);
}

static long want(const char *what, long result)
{
	if (result < 0) {
		printf("%s: %s\n", what, strerror(-result));
		fflush(stdout);
		_exit(3);
	}
	return result;
}

static int kvm, vm;
static size_t run_bytes;

struct vcpu {
	int fd, id;
	uint8_t *run;
	unsigned exits, conversions;
	char end[64];
};

static void make_vm(unsigned long type)
{
	kvm = want("open", raw(SYS_openat, AT_FDCWD, (long)"/dev/kvm", O_RDWR | O_CLOEXEC, 0, 0, 0));
	run_bytes = want("GET_VCPU_MMAP_SIZE", control(kvm, GET_VCPU_MMAP_SIZE, 0));
	vm = want("CREATE_VM", control(kvm, CREATE_VM, (void *)type));
}

static uint8_t *make_memory(int is_private)
{
	uint8_t *memory = mmap(0, MEMORY, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	if (is_private) {
		uint64_t file[8] = { MEMORY };
		long fd = want("CREATE_GUEST_MEMFD", control(vm, CREATE_GUEST_MEMFD, file));
		uint64_t region[20] = { 4UL << 32, 0, MEMORY, (uintptr_t)memory, 0, fd };
		want("SET_USER_MEMORY_REGION2", control(vm, SET_USER_MEMORY_REGION2, region));
		uint64_t cap[13] = { EXIT_HYPERCALL, 1 << 12 };
		want("ENABLE_CAP", control(vm, ENABLE_CAP, cap));
	} else {
		uint64_t region[4] = { 0, 0, MEMORY, (uintptr_t)memory };
		want("SET_USER_MEMORY_REGION", control(vm, SET_USER_MEMORY_REGION, region));
	}
	return memory;
}

static struct vcpu make_vcpu(long id)
{
	struct vcpu vcpu = { .id = id, .end = "not run" };
	vcpu.fd = want("CREATE_VCPU", control(vm, CREATE_VCPU, (void *)id));
	vcpu.run = mmap(0, run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.fd, 0);
	if (vcpu.run == MAP_FAILED)
		want("mmap", -errno);
	return vcpu;
}

static uint32_t reason(const struct vcpu *vcpu)
{
	return *(volatile uint32_t *)(vcpu->run + 8);
}

/* Runs to the end of the guest. */
static void *run(void *arg)
{
	struct vcpu *vcpu = arg;
	for (;;) {
		long result = control(vcpu->fd, RUN, 0);
		if (result < 0 && result != -EFAULT) {
			if (result == -EINTR || result == -EAGAIN)
				continue;
			snprintf(vcpu->end, sizeof(vcpu->end), "%s", strerror(-result));
			return 0;
		}
		vcpu->exits++;
		uint64_t *args = (uint64_t *)(vcpu->run + 40);
		switch (reason(vcpu)) {
		case 2: /* port I/O */
		case 6: /* MMIO */
			continue;
		case 3: { /* hypercall: page, count, attributes */
			uint64_t attributes[4] = { args[0], args[1] << 12, args[2] & 16 ? ATTRIBUTE_PRIVATE : 0 };
			long changed = control(vm, SET_MEMORY_ATTRIBUTES, attributes);
			*(uint64_t *)(vcpu->run + 88) = changed < 0 ? -22 : 0;
			vcpu->conversions++;
			continue;
		}
		default:
			snprintf(vcpu->end, sizeof(vcpu->end), "exit %u", reason(vcpu));
			return 0;
		}
	}
}

static void tell(const struct vcpu *vcpu)
{
	printf("vcpu %d: %u exits, %u conversions, end: %s\n", vcpu->id, vcpu->exits, vcpu->conversions, vcpu->end);
}

static void conversions(int count)
{
	struct vcpu vcpus[2];
	pthread_t threads[2];
	make_vm(SW_PROTECTED);
	make_memory(1);
	for (int i = 0; i < count; i++)
		vcpus[i] = make_vcpu(i);
	for (int i = 0; i < count; i++)
		pthread_create(&threads[i], 0, run, &vcpus[i]);
	for (int i = 0; i < count; i++) {
		pthread_join(threads[i], 0);
		tell(&vcpus[i]);
	}
}

static void print_access(const char *path)
{
	struct stat st;
	memset(&st, 0, sizeof(st));
	long access = raw(SYS_access, (long)path, R_OK | W_OK, 0, 0, 0, 0);
	long faccessat = raw(SYS_faccessat, AT_FDCWD, (long)path, R_OK, 0, 0, 0);
	long stat = raw(SYS_stat, (long)path, (long)&st, 0, 0, 0, 0);
	printf("%s: access %ld faccessat %ld stat %ld", path, access, faccessat, stat);
	if (stat == 0)
		printf(" mode %o rdev %lx", st.st_mode, st.st_rdev);
	struct statx stx;
	memset(&stx, 0, sizeof(stx));
	long statx = raw(SYS_statx, AT_FDCWD, (long)path, 0, STATX_BASIC_STATS, (long)&stx, 0);
	printf(" statx %ld", statx);
	if (statx == 0)
		printf(" mode %o rdev %x:%x", stx.stx_mode, stx.stx_rdev_major, stx.stx_rdev_minor);
	printf("\n");
}

static void paths(void)
{
	struct { uint64_t flags, mode, resolve; } how = { O_RDWR | O_CLOEXEC, 0, 0 };
	print_access("/dev/kvm");
	print_access("/dev/no-such-device");
	long a = raw(SYS_open, (long)"/dev/kvm", O_RDWR | O_CLOEXEC, 0, 0, 0, 0);
	long b = raw(SYS_openat, AT_FDCWD, (long)"//dev/./kvm", O_RDWR, 0, 0, 0);
	int dev = open("/dev", O_RDONLY | O_DIRECTORY);
	long c = raw(SYS_openat2, dev, (long)"kvm", (long)&how, sizeof(how), 0, 0);
	printf("versions %ld %ld %ld\n", control(a, GET_API_VERSION, 0), control(b, GET_API_VERSION, 0),
	       control(c, GET_API_VERSION, 0));
	printf("close on exec %d %d %d\n", fcntl(a, F_GETFD), fcntl(b, F_GETFD), fcntl(c, F_GETFD));
	printf("missing %ld\n", raw(SYS_open, (long)"/dev/kvm/", O_RDWR, 0, 0, 0, 0));
	printf("bad address %ld\n", raw(SYS_open, 8, O_RDWR, 0, 0, 0, 0));
	int null = open("/dev/null", O_RDWR);
	printf("other file %ld\n", control(null, GET_API_VERSION, 0));
	printf("no file %ld\n", control(999, GET_API_VERSION, 0));
}

static void numbers(void)
{
	make_vm(SW_PROTECTED);
	make_memory(1);
	struct vcpu vcpu = make_vcpu(0);
	int original = vcpu.fd;
	vcpu.fd = dup(original);
	long copy = control(vcpu.fd, RUN, 0);
	printf("through a copy: %ld exit %u\n", copy, reason(&vcpu));
	close(original);
	printf("closed: %ld\n", control(original, RUN, 0));
	dup2(1, original);
	printf("reused: %ld\n", control(original, RUN, 0));
}

/* A file of a vCPU cannot be made shorter, and the supervisor lives on. */
static void shortened(void)
{
	make_vm(SW_PROTECTED);
	make_memory(1);
	struct vcpu vcpu = make_vcpu(0);
	int shorter = ftruncate(vcpu.fd, 0), longer = ftruncate(vcpu.fd, 1 << 20);
	printf("lengths: %d %d\n", shorter, longer);
	run(&vcpu);
	tell(&vcpu);
}

static void forks(void)
{
	make_vm(SW_PROTECTED);
	make_memory(1);
	struct vcpu vcpu = make_vcpu(0);
	fflush(stdout);
	if (fork() == 0) {
		uint64_t attributes[4] = { 0, 4096, 0 };
		printf("child: system %ld vm %ld vcpu %ld\n", control(kvm, GET_API_VERSION, 0),
		       control(vm, SET_MEMORY_ATTRIBUTES, attributes), control(vcpu.fd, RUN, 0));
		close(vm);
		close(vcpu.fd);
		fflush(stdout);
		make_vm(SW_PROTECTED);
		make_memory(1);
		struct vcpu own = make_vcpu(0);
		run(&own);
		tell(&own);
		fflush(stdout);
		_exit(0);
	}
	wait(0);
	run(&vcpu);
	tell(&vcpu);
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
	(void)number;
	signals++;
}

static void *sleeper(void *arg)
{
	struct vcpu *vcpu = arg;
	long result = control(vcpu->fd, RUN, 0);
	snprintf(vcpu->end, sizeof(vcpu->end), "%s, exit %u", result < 0 ? strerror(-result) : "0", reason(vcpu));
	return 0;
}

/* Wakes a vCPU that sleeps because nobody has started it, three times. */
static void interrupts(int flags, int immediate)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };
	sigaction(SIGUSR1, &action, 0);
	make_vm(SW_PROTECTED);
	want("CREATE_IRQCHIP", control(vm, CREATE_IRQCHIP, 0));
	make_memory(1);
	make_vcpu(0);
	struct vcpu vcpu = make_vcpu(1);
	for (int i = 0; i < 3; i++) {
		pthread_t thread;
		vcpu.run[1] = 0;
		pthread_create(&thread, 0, sleeper, &vcpu);
		usleep(30000);
		if (immediate)
			vcpu.run[1] = 1;
		pthread_kill(thread, SIGUSR1);
		pthread_join(thread, 0);
		printf("%s, %d signals\n", vcpu.end, signals);
	}
}

/* A vCPU that nobody starts: KVM_RUN does not come back. */
static void sleeps(void)
{
	make_vm(SW_PROTECTED);
	want("CREATE_IRQCHIP", control(vm, CREATE_IRQCHIP, 0));
	make_memory(1);
	make_vcpu(0);
	struct vcpu vcpu = make_vcpu(1);
	printf("sleeps\n");
	fflush(stdout);
	sleeper(&vcpu);
	tell(&vcpu);
}

/* Signals without a pause while a guest runs: no exit may be lost. */
static void *pester(void *arg)
{
	pthread_t *thread = arg;
	for (;;) {
		pthread_kill(*thread, SIGUSR1);
		for (volatile int i = 0; i < 2000; i++)
			;
	}
	return 0;
}

static void pestered(int flags)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };
	sigaction(SIGUSR1, &action, 0);
	make_vm(SW_PROTECTED);
	make_memory(1);
	struct vcpu vcpu = make_vcpu(0);
	pthread_t own = pthread_self(), other;
	pthread_create(&other, 0, pester, &own);
	run(&vcpu);
	tell(&vcpu);
	fflush(stdout);
	_exit(0);
}

/* Allows only what is needed from here on, and kills for everything else. */
static void allow_only(void)
{
	static const int allowed[] = { SYS_ioctl, SYS_mmap, SYS_write, SYS_exit_group, SYS_exit, SYS_openat,
				       SYS_futex, SYS_newfstatat, SYS_fstat, SYS_rt_sigprocmask, SYS_munmap,
				       SYS_brk, SYS_madvise };
	struct sock_filter program[64];
	unsigned n = 0;
	program[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
	for (unsigned i = 0; i < sizeof(allowed) / sizeof(*allowed); i++) {
		program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
		program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	struct sock_fprog fprog = { n, program };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	want("seccomp", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &fprog) ? -errno : 0);
}

static void filtered(int is_good)
{
	allow_only();
	make_vm(SW_PROTECTED);
	make_memory(1);
	struct vcpu vcpu = make_vcpu(0);
	if (!is_good)
		raw(SYS_getppid, 0, 0, 0, 0, 0, 0);
	run(&vcpu);
	tell(&vcpu);
}

/* A guest of two instructions on the real /dev/kvm: writes to a port for ever. */
static struct vcpu real_guest(void)
{
	static const uint8_t code[] = { 0xe6, 0x80, 0xeb, 0xfc };
	make_vm(0);
	uint8_t *memory = make_memory(0);
	memcpy(memory + 0x1000, code, sizeof(code));
	struct vcpu vcpu = make_vcpu(0);
	uint8_t sregs[312];
	want("GET_SREGS", control(vcpu.fd, GET_SREGS, sregs));
	memset(sregs, 0, 8);
	memset(sregs + 12, 0, 2);
	want("SET_SREGS", control(vcpu.fd, SET_SREGS, sregs));
	uint64_t regs[18] = { 0x42 };
	regs[16] = 0x1000;
	regs[17] = 2;
	want("SET_REGS", control(vcpu.fd, SET_REGS, regs));
	return vcpu;
}

static void measure(struct vcpu *vcpu, long count)
{
	struct timespec from, to;
	for (long i = 0; i < 100; i++)
		want("RUN", control(vcpu->fd, RUN, 0));
	uint32_t first = reason(vcpu);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (long i = 0; i < count; i++) {
		long result = control(vcpu->fd, RUN, 0);
		if (result < 0 || reason(vcpu) != first) {
			printf("exit %ld: %ld %u\n", i, result, reason(vcpu));
			return;
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	double ns = (to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec);
	printf("%ld exits, %.0f ns each\n", count, ns / count);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	setvbuf(stdout, 0, _IOLBF, 0);
	if (!strcmp(what, "paths"))
		paths();
	else if (!strcmp(what, "one"))
		conversions(1);
	else if (!strcmp(what, "two"))
		conversions(2);
	else if (!strcmp(what, "numbers"))
		numbers();
	else if (!strcmp(what, "forks"))
		forks();
	else if (!strcmp(what, "shortened"))
		shortened();
	else if (!strcmp(what, "interrupt"))
		interrupts(0, 0);
	else if (!strcmp(what, "interrupt-restart"))
		interrupts(SA_RESTART, 0);
	else if (!strcmp(what, "interrupt-immediate"))
		interrupts(SA_RESTART, 1);
	else if (!strcmp(what, "pestered"))
		pestered(0);
	else if (!strcmp(what, "pestered-restart"))
		pestered(SA_RESTART);
	else if (!strcmp(what, "filtered"))
		filtered(1);
	else if (!strcmp(what, "filtered-kill"))
		filtered(0);
	else if (!strcmp(what, "measure")) {
		struct vcpu vcpu = real_guest();
		measure(&vcpu, argc > 2 ? atol(argv[2]) : 20000);
	} else if (!strcmp(what, "nothing"))
		;
	else
		return 2;
	fflush(stdout);
	return 0;
}
