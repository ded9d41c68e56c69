# Writes 0, 1, 2 and so on to port 0x1e0, 4 bytes each, and counts in EBX and in memory at 0x3000. When the two differ
# it writes 0xdead0001.
# Exits: OUT 0x1e0, for ever. 6 instructions from one to the next.
# Real mode, data segment at 0. Intel syntax.
.code16
    mov dx, 0x1e0
    xor ebx, ebx
2:  mov eax, dword ptr [0x3000]
    cmp eax, ebx
    je 3f
    mov eax, 0xdead0001
3:  out dx, eax
    inc ebx
    mov dword ptr [0x3000], ebx
    jmp 2b
