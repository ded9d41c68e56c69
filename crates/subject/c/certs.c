// KVM_EXIT_SNP_REQ_CERTS: the certificate table of a file, under a lock.
#include "vmm.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ENTRY = 24, LARGEST = 1 << 20, TRIES = 20 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of what follows
static int file = -1;
static char *table;
static size_t table_bytes;

static void unlock(void)
{
    if (file >= 0)
        close(file); // the lock belongs to the open file
    file = -1;
}

static bool try_lock(void)
{
    struct flock whole = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    return !fcntl(file, F_OFD_SETLK, &whole);
}

// Waits for a bounded time, since the vCPU stands still as long. 0, EAGAIN or EIO.
static int read_table(const char *path)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    struct stat info;
    if (wrong == READS_CERTIFICATES_ONCE && table)
        return 0;
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return EIO;
    for (unsigned tries = 0; wrong != READS_WITHOUT_A_LOCK && !try_lock(); tries++) {
        if (tries >= TRIES && wrong != WAITS_FOR_EVER) {
            unlock();
            return wrong == BUSY_IS_BROKEN ? EIO : EAGAIN;
        }
        nanosleep(&pause, NULL);
    }
    if (fstat(file, &info) || info.st_size > LARGEST || info.st_size < ENTRY) {
        unlock();
        return EIO;
    }
    free(table);
    table_bytes = (size_t)info.st_size;
    table = malloc(table_bytes);
    size_t have = 0;
    while (table && have < table_bytes) {
        ssize_t got = read(file, table + have, table_bytes - have);
        if (got <= 0)
            break;
        have += (size_t)got;
    }
    if (have != table_bytes) {
        unlock();
        return EIO;
    }
    if (wrong == UNLOCKS_EARLY)
        unlock();
    return 0;
}

static void spoil_table(void)
{
    static const char zeroes[ENTRY];
    for (size_t at = 0; at + ENTRY <= table_bytes; at += ENTRY) {
        char *guid = table + at, old[8];
        if (!memcmp(guid, zeroes, ENTRY)) {
            if (wrong == NO_LAST_ENTRY)
                memset(guid, 0xff, ENTRY);
            return;
        }
        if (wrong != GUIDS_IN_MEMORY_ORDER)
            continue;
        memcpy(old, guid, sizeof old);
        for (int i = 0; i < 4; i++)
            guid[i] = old[3 - i];
        guid[4] = old[5], guid[5] = old[4], guid[6] = old[7], guid[7] = old[6];
    }
}

// Copies as much as there is memory for.
static void write_table(struct vmm *vmm, uint64_t gpa)
{
    spoil_table();
    for (size_t at = 0; at < table_bytes; at += PAGE) {
        char *to = memory_at(vmm, gpa + at);
        if (to)
            memcpy(to, table + at, table_bytes - at < PAGE ? table_bytes - at : PAGE);
    }
}

static bool buffer_is_good(struct vmm *vmm, struct x_req_certs request)
{
    const bool is_private = memory_covers(vmm, request.gpa, request.npages, false);
    if (request.gpa % PAGE == 0 && memory_is_shared(vmm, request.gpa, request.npages))
        return true;
    if (wrong == PRIVATE_BUFFER_SUCCEEDS || wrong == WRITES_BESIDE_A_PRIVATE_BUFFER)
        return is_private;
    if (wrong == LOOKS_AT_THE_FIRST_PAGE_ONLY)
        return memory_at(vmm, request.gpa) && !is_private;
    return wrong == WRITES_WHERE_NO_MEMORY_IS && !memory_at(vmm, request.gpa);
}

enum next certs_answer(struct vcpu *vcpu, struct x_req_certs request)
{
    struct x_req_certs *live = (struct x_req_certs *)((char *)vcpu->run + 32);
    struct vmm *vmm = vcpu->vmm;
    enum next next = AGAIN;
    uint64_t ret;
    pthread_mutex_lock(&lock);
    ret = (uint64_t)read_table(vmm->options->certificates);
    if (ret == 0) {
        const uint64_t needed = (table_bytes + PAGE - 1) / PAGE;
        if (request.npages < needed) {
            ret = ENOSPC;
            if (wrong != DOES_NOT_SAY_HOW_MANY)
                live->npages = wrong == ASKS_FOR_A_PAGE_MORE ? needed + 1 : wrong == ASKS_IN_BYTES ? needed * PAGE : needed;
        } else if (!buffer_is_good(vmm, request)) {
            ret = EIO;
        } else {
            if (wrong != PRIVATE_BUFFER_SUCCEEDS || memory_is_shared(vmm, request.gpa, request.npages))
                write_table(vmm, request.gpa);
            next = COMMIT;
        }
    }
    if (ret == EIO && wrong == NEGATIVE_ERRNO_FOR_CERTIFICATES)
        ret = -(uint64_t)EIO;
    if (ret == EIO && wrong == EINVAL_FOR_CERTIFICATES)
        ret = EINVAL;
    live->ret = ret;
    if (next == COMMIT)
        return COMMIT; // the lock is kept until the kernel has the answer
    unlock();
    pthread_mutex_unlock(&lock);
    return AGAIN;
}

void certs_unlock(struct vcpu *vcpu)
{
    (void)vcpu;
    unlock();
    pthread_mutex_unlock(&lock);
}
