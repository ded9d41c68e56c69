//! Certificates from end to end, on the model's secure processor: what `exeunt-certs` says of its chains and reports,
//! and the protocol of the file while the firmware changes.

mod fixtures;
mod protocol;
mod world;
