//! The VMM half: plans and carries out the answer to every confidential KVM exit.
