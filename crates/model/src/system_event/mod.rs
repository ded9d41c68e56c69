//! What asks a VMM to stop, reset or suspend a machine, by architecture.

mod psci;
