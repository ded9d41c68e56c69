# Starts as PVH says, in protected mode with flat segments, and goes on to 0x100 of the image.
# Exits: none. 3 instructions.
# Protected mode, no paging. Intel syntax.
.code32
    mov ebx, 0x1000000
    mov eax, 0x1000100
    jmp eax
