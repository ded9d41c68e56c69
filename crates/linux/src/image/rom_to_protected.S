# Goes from the reset vector's real mode to protected mode with flat segments, and on to 0x100 of the image, which ends
# at 4 GiB. The table of segments is at 0x30, its address and limit at 0x28.
# Exits: none. 10 instructions.
# Real mode, CS base = 0xffff0000, the first byte of the image. Intel syntax.
.code16
    cli
    .byte 0x66                  # all 32 bits of the address
    lgdt cs:[0x28]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    mov ebx, 0xffff0000
    .byte 0x66, 0xea            # jmp 0x08:0xffff0100
    .long 0xffff0100
    .word 0x08
