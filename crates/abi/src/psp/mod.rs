//! What the SNP firmware and a guest or its owner hand each other: launch identity, special pages, message payloads.
//!
//! None of it is the kernel's: KVM carries these bytes and looks at none of them. The header of a message is
//! [`crate::ghcb::guest_message::Header`], the report [`crate::report::AttestationReport`].

pub mod identity;
pub mod message;
pub mod page;
