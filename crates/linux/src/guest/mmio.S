# Writes 4 bytes where no memory is, and reads 4 bytes there into EAX.
# Exits: MMIO write of 78 56 34 12 to 0xd0000000, MMIO read of 4 bytes there, HLT for ever.
# 5 instructions to the first HLT.
# Protected mode, flat segments, no paging. Intel syntax.
.code32
    mov ebx, 0xd0000000
    mov eax, 0x12345678
    mov dword ptr [ebx], eax
    mov eax, dword ptr [ebx]
5:  hlt
    jmp 5b
