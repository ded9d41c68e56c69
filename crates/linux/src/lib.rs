//! The kernel half for real: /dev/kvm, and the effects on the host.
