# Starts as PVH says, in protected mode with flat segments, maps the 2 MiB that the image is in to their own address, and
# goes on in long mode to 0x100 of the image. The three page tables are at 0x1000, 0x2000 and 0x3000 of the image, zero
# until here; the table of segments is at 0x30, its address and limit at 0x28.
# Exits: none. 17 instructions.
# Protected mode, no paging. Intel syntax.
.code32
    mov ebx, 0x1000000
    lgdt [ebx + 0x28]
    mov dword ptr [ebx + 0x1000], 0x1002003
    mov dword ptr [ebx + 0x2000], 0x1003003
    mov dword ptr [ebx + 0x3040], 0x1000083
    mov eax, 0x1001000
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20                # PAE
    mov cr4, eax
    mov ecx, 0xc0000080         # EFER.LME
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    .byte 0xea                  # jmp 0x18:0x1000100
    .long 0x1000100
    .word 0x18
