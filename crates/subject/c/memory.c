// Slots, and conversions of their pages.
#include "vmm.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

bool memory_add(struct vmm *vmm, struct piece *piece)
{
    const bool type_has_private = vmm->options->type == X_VM_SW_PROTECTED || vmm->options->type == X_VM_SNP;
    struct x_region2 region = {.slot = piece->slot, .guest_phys_addr = piece->gpa, .memory_size = piece->bytes};
    piece->has_private &= type_has_private;
    piece->gmem = -1;
    piece->is_private = calloc(piece->bytes / PAGE, 1);
    piece->host =
        mmap(NULL, piece->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (piece->host == MAP_FAILED || !piece->is_private)
        return failed(vmm, "memory for the guest");
    region.userspace_addr = (uint64_t)(uintptr_t)piece->host;
    if (!piece->has_private)
        // The older struct is the beginning of the newer one.
        return !ioctl(vmm->fd, KVM_SET_USER_MEMORY_REGION, &region) || failed(vmm, "KVM_SET_USER_MEMORY_REGION");
    struct x_create_guest_memfd create = {.size = piece->bytes};
    piece->gmem = ioctl(vmm->fd, X_CREATE_GUEST_MEMFD, &create);
    if (piece->gmem < 0)
        return failed(vmm, "KVM_CREATE_GUEST_MEMFD");
    region.flags = X_MEM_GUEST_MEMFD;
    region.guest_memfd = (uint32_t)piece->gmem;
    return !ioctl(vmm->fd, X_SET_USER_MEMORY_REGION2, &region) || failed(vmm, "KVM_SET_USER_MEMORY_REGION2");
}

int memory_set_attributes(struct vmm *vmm, uint64_t gpa, uint64_t bytes, bool to_private)
{
    struct x_attributes attributes = {
        .address = gpa, .size = bytes, .attributes = to_private ? X_ATTRIBUTE_PRIVATE : 0};
    return ioctl(vmm->fd, X_SET_MEMORY_ATTRIBUTES, &attributes) ? errno : 0;
}

// All that can be private is so after the launch of an SNP guest.
bool memory_make_private(struct vmm *vmm)
{
    for (unsigned i = 0; i < vmm->npieces; i++) {
        struct piece *piece = &vmm->pieces[i];
        if (!piece->has_private)
            continue;
        if ((errno = memory_set_attributes(vmm, piece->gpa, piece->bytes, true)))
            return failed(vmm, "KVM_SET_MEMORY_ATTRIBUTES");
        for (uint64_t page = 0; page < piece->bytes / PAGE; page++)
            piece->is_private[page] = true;
    }
    return true;
}

// What of a range lies in a piece. The range does not wrap.
static bool part(const struct piece *piece, uint64_t gpa, uint64_t bytes, uint64_t *start, uint64_t *length)
{
    const uint64_t end = gpa + bytes, piece_end = piece->gpa + piece->bytes;
    *start = gpa > piece->gpa ? gpa : piece->gpa;
    const uint64_t until = end < piece_end ? end : piece_end;
    *length = until > *start ? until - *start : 0;
    return *length > 0;
}

static bool wraps(uint64_t gpa, uint64_t npages) { return npages > (UINT64_MAX - gpa) / PAGE; }

bool memory_covers(const struct vmm *vmm, uint64_t gpa, uint64_t npages, bool only_private)
{
    uint64_t start, length, covered = 0;
    if (wraps(gpa, npages))
        return false;
    for (unsigned i = 0; i < vmm->npieces; i++)
        if ((vmm->pieces[i].has_private || !only_private) &&
            part(&vmm->pieces[i], gpa, npages * PAGE, &start, &length))
            covered += length;
    return covered == npages * PAGE;
}

bool memory_is_shared(struct vmm *vmm, uint64_t gpa, uint64_t npages)
{
    uint64_t start, length;
    bool is_shared = memory_covers(vmm, gpa, npages, false);
    pthread_mutex_lock(&vmm->memory);
    for (unsigned i = 0; i < vmm->npieces && is_shared; i++) {
        const struct piece *piece = &vmm->pieces[i];
        if (part(piece, gpa, npages * PAGE, &start, &length))
            for (uint64_t page = 0; page < length / PAGE; page++)
                is_shared &= !piece->is_private[(start - piece->gpa) / PAGE + page];
    }
    pthread_mutex_unlock(&vmm->memory);
    return is_shared;
}

char *memory_at(const struct vmm *vmm, uint64_t gpa)
{
    for (unsigned i = 0; i < vmm->npieces; i++)
        if (gpa - vmm->pieces[i].gpa < vmm->pieces[i].bytes)
            return vmm->pieces[i].host + (gpa - vmm->pieces[i].gpa);
    return NULL;
}

static void punch(const struct piece *piece, uint64_t start, uint64_t bytes)
{
    // Memory that stays is a loss, and nothing that the guest could be told of.
    if (fallocate(piece->gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(start - piece->gpa), (off_t)bytes))
        return;
}

static void discard(const struct piece *piece, uint64_t start, uint64_t bytes, bool shared_half)
{
    if (shared_half)
        madvise(piece->host + (start - piece->gpa), bytes, MADV_DONTNEED);
    else
        punch(piece, start, bytes);
}

// What a VMM does later that does not keep other vCPUs out.
static struct {
    const struct piece *piece;
    uint64_t start, bytes;
    bool shared_half;
} late;

static void give_back(const struct piece *piece, unsigned vcpu, uint64_t start, uint64_t bytes, bool to_private,
                      bool for_fault)
{
    bool shared_half = to_private;
    if (for_fault) {
        if (wrong != FAULTS_DISCARD_NOTHING)
            discard(piece, start, bytes, shared_half);
        return;
    }
    if (wrong == DISCARDS_NOTHING || (wrong == DISCARDS_SHARED_ONLY && !to_private))
        return;
    if (wrong == DISCARDS_THE_NEW_SIDE)
        shared_half = !shared_half;
    if (wrong == DISCARDS_IN_FRONT && start + bytes == piece->gpa + piece->bytes && !shared_half)
        start -= 16 * PAGE, bytes += 16 * PAGE;
    if (wrong == DISCARDS_LATE && vcpu == 1) {
        late.piece = piece, late.start = start, late.bytes = bytes, late.shared_half = shared_half;
        return;
    }
    discard(piece, start, bytes, shared_half);
    if (wrong == DISCARDS_LATE && vcpu == 0 && late.piece) {
        discard(late.piece, late.start, late.bytes, late.shared_half);
        late.piece = NULL;
    }
}

// The range does not wrap. An errno, and then what was done before the failure stays done.
int memory_convert(struct vmm *vmm, unsigned vcpu, uint64_t gpa, uint64_t npages, bool to_private, bool for_fault)
{
    uint64_t start, length;
    int error = 0;
    pthread_mutex_lock(&vmm->memory);
    for (unsigned i = 0; i < vmm->npieces && !error; i++) {
        struct piece *piece = &vmm->pieces[i];
        // Where no page can be private, all are shared already.
        if (!piece->has_private || !part(piece, gpa, npages * PAGE, &start, &length))
            continue;
        if (wrong == DISCARDS_FIRST && !for_fault)
            give_back(piece, vcpu, start, length, to_private, false);
        do
            error = wrong == ASKS_FOR_WHAT_IS_NO_MEMORY && !to_private
                        ? memory_set_attributes(vmm, gpa, npages * PAGE, to_private)
                    : wrong == CONVERTS_A_PAGE_MORE && npages > 0x400 && start == gpa
                        ? memory_set_attributes(vmm, start - PAGE, length + PAGE, to_private)
                        : memory_set_attributes(vmm, start, length, to_private);
        while (error == EINTR);
        if (error)
            break;
        for (uint64_t page = 0; page < length / PAGE; page++)
            piece->is_private[(start - piece->gpa) / PAGE + page] = to_private;
        if (wrong != DISCARDS_FIRST || for_fault)
            give_back(piece, vcpu, start, length, to_private, for_fault);
        if (wrong == FIRST_SLOT_ONLY)
            break;
    }
    pthread_mutex_unlock(&vmm->memory);
    return error;
}

// KVM_HC_MAP_GPA_RANGE: what goes into ret.
uint64_t memory_map_gpa_range(struct vmm *vmm, const struct vcpu *vcpu, const uint64_t args[6])
{
    uint64_t gpa = args[0], npages = args[1], attributes = args[2];
    bool to_private = attributes & X_MAP_PRIVATE;
    if (wrong == COUNTS_LARGE_PAGES && (attributes & 0xf) == 1 && !wraps(gpa, npages))
        npages *= 512;
    if (wrong == COUNTS_IN_2M && (attributes & 0xf) == 1)
        npages /= 512;
    if (wrong == ONLY_ZERO_IS_SHARED)
        to_private = attributes != 0;
    if (wrong == MASKS_RESERVED_BITS)
        attributes &= X_MAP_KNOWN;
    if (wrong == CLIPS_WHAT_WRAPS && wraps(gpa, npages))
        npages = 16;
    if (gpa % PAGE || !npages || wraps(gpa, npages) || attributes & ~(uint64_t)X_MAP_KNOWN)
        return EINVAL;
    // Shared is what an address without memory is already, a device's among them.
    if (to_private && !memory_covers(vmm, gpa, npages, true))
        return EINVAL;
    if (wrong == REFUSES_WHERE_NO_MEMORY_IS && !memory_at(vmm, gpa) && gpa >= 0xfe000000)
        return EINVAL;
    switch (memory_convert(vmm, vcpu->id, gpa, npages, to_private, false)) {
    case 0:
        return 0;
    case ENOMEM:
    case EAGAIN:
    case EBUSY:
        return EAGAIN;
    default:
        return EINVAL;
    }
}
