# Halts, and halts again when it is entered again.
# Exits: HLT for ever. 1 instruction to the first HLT.
# Real mode. Intel syntax.
.code16
2:  hlt
    jmp 2b
