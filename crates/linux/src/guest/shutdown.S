# Divides by zero with no interrupt table: the exception cannot be delivered, nor can the double fault.
# A division, because a KVM that emulates may report an undefined or an INT instruction as its own failure first.
# Exits: SHUTDOWN, and again when it is entered again. 2 instructions.
# Protected mode, flat segments, no paging, IDT limit 0. Intel syntax.
.code32
    xor ecx, ecx
    div ecx
