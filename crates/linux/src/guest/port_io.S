# Writes "exeunt" to the serial port, a byte at a time, then copies the keyboard's byte to the POST port.
# Exits: 6 x OUT 0x3f8, IN 0x60, OUT 0x80, HLT for ever. 27 instructions to the first HLT.
# Real mode, CS base = the first byte. Intel syntax.
.code16
    jmp 3f
    .ascii "exeunt"             # at offset 2, behind the short jump
3:  mov ax, cs
    mov ds, ax
    mov si, 2
    mov cx, 6
    mov dx, 0x3f8
    cld
4:  lodsb
    out dx, al
    loop 4b
    in al, 0x60
    out 0x80, al
5:  hlt
    jmp 5b
