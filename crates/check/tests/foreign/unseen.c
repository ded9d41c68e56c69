/* Opens /dev/kvm and makes a VM without the C library's calls, which a library of the dynamic linker does not see. */
static long call(long number, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

int main(void)
{
    long kvm = call(257, -100, (long)"/dev/kvm", 2, 0);
    return kvm < 0 || call(16, kvm, 0xae01, 0, 0) < 0 ? 1 : 2;
}
