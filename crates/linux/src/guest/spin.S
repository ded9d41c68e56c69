# Spins: it leaves the guest only when somebody takes it out.
# Exits: none. EINTR by a signal or by immediate_exit.
# Real mode. Intel syntax.
.code16
2:  jmp 2b
