// Port I/O in both directions, up to the halt.
#include "vmm.h"

int main(void) {
    set_up(0);
    for (;;) {
        int result = ioctl(vcpu, KVM_RUN, 0);
        CHECK(result == 0 || errno == EINTR);
        if (result != 0) continue;
        uint8_t *data = (uint8_t *)run + run->io.data_offset;
        switch (run->exit_reason) {
        case KVM_EXIT_IO:
            if (run->io.direction == KVM_EXIT_IO_IN) memset(data, 0x5a, run->io.size * run->io.count);
            else printf("out %#x %#x\n", run->io.port, *data);
            break;
        case KVM_EXIT_MMIO:
            break;
        case KVM_EXIT_HLT:
            printf("halted\n");
            return 0;
        default:
            printf("exit %u\n", run->exit_reason);
            return 1;
        }
    }
}
