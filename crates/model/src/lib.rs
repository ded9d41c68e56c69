//! The kernel half in software: a deterministic KVM for confidential exits.
