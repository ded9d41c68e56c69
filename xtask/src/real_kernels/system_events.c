// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The first process of a virtual arm64 or riscv64 machine: makes VMs whose guests make one call each, PSCI or SBI, and
// prints what KVM_RUN came to, a line for each. Calls are listed first and then drawn by chance; the number of lines is
// the second argument of the kernel's command line behind "--", the seed the first.

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

// Where the guest's code is, and an address without memory that it tells its result by.
#define CODE 0x80000000ull
#define NOWHERE 0x10000000ull
#define ARGS 6

// A call: x0 to x3 of arm64, the extension behind them; a0 to a5, function and extension of riscv64.
struct call {
	uint64_t function, extension, args[ARGS];
	int suspend;
};

static uint64_t state;

static uint64_t chance(void)
{
	state += 0x9e3779b97f4a7c15ull;
	uint64_t z = state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t argument(void)
{
	static const uint64_t some[] = { 0, 1, 2, 3, 4, 0x7fffffff, 0x80000000, 0x80000001, 0xffffffff, 0x100000000,
					 0x180000000, 0x100000001 };
	uint64_t n = chance() % (sizeof(some) / sizeof(*some) + 2);
	return n < sizeof(some) / sizeof(*some) ? some[n] : chance();
}

static void die(const char *what)
{
	printf("\nrig: failed %s: %s\n", what, strerror(errno));
	fflush(stdout);
	reboot(RB_AUTOBOOT);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static int must(const char *what, int result)
{
	if (result < 0)
		die(what);
	return result;
}

static void set_reg(int vcpu, uint64_t id, uint64_t value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)&value };
	must("KVM_SET_ONE_REG", ioctl(vcpu, KVM_SET_ONE_REG, &reg));
}

#if defined(__aarch64__)
#define ARCH "arm64"
#define REG(field) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(field))
// hvc #0; str x0, [x9]; b .
static const uint32_t code[] = { 0xd4000002, 0xf9000120, 0x14000000 };

static const uint32_t functions[] = { 0x84000008, 0x84000009, 0x84000012, 0xc4000012, 0x84000015, 0xc4000015,
				      0x8400000e, 0xc400000e, 0x84000000, 0x84000011 };

static struct call draw(void)
{
	struct call call = { .function = functions[chance() % (sizeof(functions) / sizeof(*functions))] };
	for (int i = 0; i < 3; i++)
		call.args[i] = argument();
	// An entry point that a guest can have.
	if ((call.function & 0xff) == 0x0e)
		call.args[0] = chance() % 2 ? CODE : argument();
	call.suspend = chance() % 2;
	return call;
}

static void prepare(int vm, int vcpu, const struct call *call)
{
	struct kvm_vcpu_init init;
	if (call->suspend) {
		struct kvm_enable_cap cap = { .cap = KVM_CAP_ARM_SYSTEM_SUSPEND };
		must("KVM_ENABLE_CAP", ioctl(vm, KVM_ENABLE_CAP, &cap));
	}
	must("KVM_ARM_PREFERRED_TARGET", ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init));
	init.features[0] |= 1u << KVM_ARM_VCPU_PSCI_0_2;
	must("KVM_ARM_VCPU_INIT", ioctl(vcpu, KVM_ARM_VCPU_INIT, &init));
	set_reg(vcpu, REG(regs.pc), CODE);
	set_reg(vcpu, REG(regs.regs[0]), call->function);
	for (int i = 0; i < 3; i++)
		set_reg(vcpu, REG(regs.regs[1]) + 2 * i, call->args[i]);
	set_reg(vcpu, REG(regs.regs[9]), NOWHERE);
}
#else
#define ARCH "riscv64"
#define REG(field) \
	(KVM_REG_RISCV | KVM_REG_SIZE_U64 | KVM_REG_RISCV_CORE | \
	 offsetof(struct kvm_riscv_core, field) / sizeof(unsigned long))
// ecall; sd a0, 0(t0); j .
static const uint32_t code[] = { 0x00000073, 0x00a2b023, 0x0000006f };

static struct call draw(void)
{
	// SRST, and its only function but for one call in eight.
	struct call call = { .extension = 0x53525354, .function = chance() % 8 == 0 };
	call.args[0] = chance() % 4 ? chance() % 6 : argument();
	call.args[1] = argument();
	return call;
}

static void prepare(int vm, int vcpu, const struct call *call)
{
	(void)vm;
	set_reg(vcpu, REG(regs.pc), CODE);
	set_reg(vcpu, REG(mode), 1);
	for (int i = 0; i < ARGS; i++)
		set_reg(vcpu, REG(regs.a0) + i, call->args[i]);
	set_reg(vcpu, REG(regs.a6), call->function);
	set_reg(vcpu, REG(regs.a7), call->extension);
	set_reg(vcpu, REG(regs.t0), NOWHERE);
}
#endif

static void make(int kvm, uint64_t bytes, void *memory, const struct call *call)
{
	int vm = must("KVM_CREATE_VM", ioctl(kvm, KVM_CREATE_VM, 0));
	struct kvm_userspace_memory_region slot = { .guest_phys_addr = CODE, .memory_size = 0x1000,
						    .userspace_addr = (uintptr_t)memory };
	must("KVM_SET_USER_MEMORY_REGION", ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));
	int vcpu = must("KVM_CREATE_VCPU", ioctl(vm, KVM_CREATE_VCPU, 0));
	prepare(vm, vcpu, call);
	struct kvm_run *run = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		die("mmap");
	unsigned char *payload = (unsigned char *)run + 32;
	memset(payload, 0xaa, 256);
	int rc = ioctl(vcpu, KVM_RUN, 0) < 0 ? -errno : 0;
	struct kvm_mp_state mp = { .mp_state = ~0u };
	ioctl(vcpu, KVM_GET_MP_STATE, &mp);
	printf("\nrig: call %llx %llx", (unsigned long long)call->extension, (unsigned long long)call->function);
	for (int i = 0; i < ARGS; i++)
		printf(" %llx", (unsigned long long)call->args[i]);
	printf(" %d %d %d %d ", call->suspend, rc, run->exit_reason, mp.mp_state);
	for (int i = 0; i < 256; i++)
		printf("%02x", payload[i]);
	munmap(run, bytes);
	close(vcpu);
	close(vm);
}

// Loads what is in /modules, in the order of the names.
static void load_modules(void)
{
	struct dirent **names;
	int count = scandir("/modules", &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		char path[300];
		if (names[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/modules/%s", names[i]->d_name);
		int file = must(path, open(path, O_RDONLY | O_CLOEXEC));
		must(path, syscall(SYS_finit_module, file, "", 0));
		close(file);
	}
}

int main(int argc, char **argv)
{
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	load_modules();
	state = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	long calls = argc > 2 ? strtol(argv[2], NULL, 0) : 100;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		die("/dev/kvm");
	int bytes = must("KVM_GET_VCPU_MMAP_SIZE", ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	void *memory = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	memcpy(memory, code, sizeof(code));
	__builtin___clear_cache(memory, (char *)memory + sizeof(code));
	printf("\nrig: kernel " ARCH);
	for (long i = 0; i < calls; i++) {
		struct call call = draw();
		make(kvm, bytes, memory, &call);
	}
	printf("\nrig: end %ld\n", calls);
	fflush(stdout);
	reboot(RB_AUTOBOOT);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
