//! What the model guarantees about `KVM_RUN`, seen from both sides: by small guest programs, and at the port.

mod blocking;
mod certificates;
mod conversion;
mod determinism;
mod dev_sev;
mod entry;
mod events;
mod events_notify;
mod events_triple_fault;
mod faults_by_plan;
mod ghcb;
mod hostile;
mod launch_order;
mod launch_sev;
mod launch_snp;
mod memory;
mod nested;
mod proposals;
mod psp_measurement;
mod psp_messages;
mod psp_report;
mod snp_world;
mod system_event;
mod system_event_sbi;
mod tdx;
mod world;
