//! Bytes of the KVM confidential exit boundary: layouts, numbers, dialects.
