# Prints the line at 0x50 of the image, reads the clock's status, writes port 0x80 as often as the word at 0x10 says, and
# ends as the word at 0x14 says: 0 every way out one after the other, 1 the keyboard controller's reset, 2 HLT for ever,
# 3 a triple fault.
# Exits: OUT 0x3f8 for each byte, OUT 0x70, IN 0x71, OUT 0x80 n times, then those of the end.
# 6 instructions for each byte, 3 for each OUT 0x80, 20 more.
# Protected mode, flat segments, no paging; EBX is the address of the image. Intel syntax.
.code32
    lea esi, [ebx + 0x50]
    mov edx, 0x3f8
2:  mov al, byte ptr [esi]
    test al, al
    je 3f
    out dx, al
    inc esi
    jmp 2b
3:  mov al, 0x0d
    out 0x70, al
    in al, 0x71
    mov ecx, dword ptr [ebx + 0x10]
    test ecx, ecx
    je 5f
4:  out 0x80, al
    dec ecx
    jne 4b
5:  mov al, byte ptr [ebx + 0x14]
    cmp al, 1
    je 7f
    cmp al, 2
    je 8f
    cmp al, 3
    je 9f
    mov al, 0x10
    out 0xf4, al                # isa-debug-exit: the status is 0x21
    mov edx, 0x600
    mov al, 0x34
    out dx, al                  # an ACPI sleep register: S5
7:  mov al, 0xfe
    out 0x64, al                # the keyboard controller pulses the reset line
8:  cli
    hlt
    jmp 8b
9:  lidt [ebx + 0x18]           # an interrupt table of limit 0
    xor ecx, ecx
    div ecx
