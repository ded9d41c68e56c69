// Memory of the guest's that is given back.
#include "vmm.h"

int main(void) {
    int file = memfd_create("memory", 0);
    CHECK(ftruncate(file, MEMORY_BYTES) == 0);
    set_up(1);
    uint8_t *shared = mmap(0, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(shared != MAP_FAILED);
    struct kvm_userspace_memory_region region = {
        .slot = 1,
        .guest_phys_addr = 0x10000000,
        .memory_size = MEMORY_BYTES,
        .userspace_addr = (uintptr_t)shared,
    };
    CHECK(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0);
    uint64_t create[8] = {0x200000};
    int private = ioctl(vm, _IOWR(KVMIO, 0xd4, uint64_t[8]), create);
    CHECK(private >= 0);
    memory[0x3000] = shared[0x4000] = 1;
    CHECK(madvise(memory + 0x3000, 0x1000, MADV_DONTNEED) == 0 && memory[0x3000] == 0);
    CHECK(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0x4000, 0x1000) == 0);
    CHECK(shared[0x4000] == 0);
    CHECK(fallocate(private, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0x1000, 0x2000) == 0);
    CHECK(fallocate(private, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1, 0x2000) == -1 && errno == EINVAL);
    // None of the guest's.
    uint8_t *own = mmap(0, 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(madvise(own, 0x1000, MADV_DONTNEED) == 0);
    printf("%p %p\n", (void *)(memory + 0x3000), (void *)(shared + 0x4000));
    return 0;
}
