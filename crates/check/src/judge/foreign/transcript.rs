//! What a foreign VMM let cross the boundary, in the words of the judge.

use super::slots::Slots;
use crate::judge::bench::Trial;
use crate::judge::pages::Pages;
use crate::judge::transcript::{self, Crossing, Effect, End, Transcript};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::device_attr::{DeviceAttr, EnableCap, X86_GRP_SEV};
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::ioctl::Ioctl;
use exeunt_abi::kvm::memory::{MEMORY_ATTRIBUTE_PRIVATE, MemoryAttributes};
use exeunt_abi::kvm::run::{ExitReason, RunPage};
use exeunt_abi::kvm::sev::{SevCmd, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gpa, PAGE_SIZE};
use exeunt_interpose::record::{File, Memory, Record, Run, What};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::host::Backing;
use exeunt_scenes::Situation;
use std::collections::BTreeMap;
use zerocopy::FromBytes;

/// What is known of a run besides its records.
pub(in crate::judge) struct Known<'a> {
    /// What the VMM was put into.
    pub(in crate::judge) situation: &'a Situation,
    /// The kernel was a real one.
    pub(in crate::judge) is_on_kernel: bool,
    /// How it ended.
    pub(in crate::judge) end: End,
    /// Pages of the table that it was given.
    pub(in crate::judge) certificate_pages: Option<u64>,
}

/// What was made of the records of one VM.
#[derive(Default)]
struct Taken<'a> {
    vm_type: VmType,
    slots: Slots,
    /// What was memory when the first vCPU was entered.
    parts: Vec<exeunt_scenes::Part>,
    has_run: bool,
    has_irqchip: bool,
    vcpus: u32,
    /// Which record each was.
    crossings: Vec<(usize, Crossing)>,
    /// vCPUs that were entered and have not come back: which record says so, `immediate_exit`, and the page.
    inside: BTreeMap<u32, (usize, bool, &'a RunPage)>,
    /// Which record this is.
    now: usize,
}

/// The trial that these records are: those of the VM whose vCPUs ran first, or, if none ran, of the one that was made last.
pub(in crate::judge) fn trial(records: &[Record], known: Known<'_>) -> Trial {
    let mut vms: BTreeMap<u32, Taken<'_>> = BTreeMap::new();
    let mut queries: Vec<(usize, Crossing)> = Vec::new();
    let mut runs_first = None;
    for (now, Record { what, .. }) in records.iter().enumerate() {
        for vm in vms.values_mut() {
            vm.now = now;
        }
        match what {
            What::Ioctl { on: File::System, request, arg, after, result, made, .. } => {
                if let (Ok(_), Some(File::Vm(vm)), nr::KVM_CREATE_VM) = (result, made, Ioctl(*request)) {
                    let vm_type = VmType::from_number(*arg).unwrap_or_default();
                    vms.insert(*vm, Taken { vm_type, ..Taken::default() });
                }
                let query = on_system(Ioctl(*request), *arg, after, *result);
                queries.extend(query.map(|query| (now, query)));
            }
            What::Run(run) => {
                runs_first.get_or_insert(run.vm);
                vms.entry(run.vm).or_default().run(run);
            }
            What::Inside { vm, vcpu, immediate, before } => {
                runs_first.get_or_insert(*vm);
                vms.entry(*vm).or_default().inside.insert(*vcpu, (now, *immediate, before));
            }
            What::Ioctl { on, request, arg, before, after, result, made } => {
                if let Some(vm) = vm_of(*on) {
                    let call = Call { request: Ioctl(*request), arg: *arg, before, after, result: *result };
                    vms.entry(vm).or_default().ioctl(*on, &call, *made);
                }
            }
            What::Discard { memory, result } => vms.values_mut().for_each(|vm| vm.discard(*memory, *result)),
            What::Wrote { vm, gpa, bytes } => {
                let effect = Effect::Write { gpa: Gpa(*gpa), bytes: bytes.clone() };
                vms.entry(*vm).or_default().push([Crossing::Effect { effect, result: Ok(()) }]);
            }
            _ => {}
        }
    }
    let chosen = runs_first.or_else(|| vms.keys().next_back().copied());
    let taken = chosen.and_then(|vm| vms.remove(&vm)).unwrap_or_default();
    taken.into_trial(queries, known)
}

fn vm_of(file: File) -> Option<u32> {
    match file {
        File::Vm(vm) | File::Vcpu(vm, _) | File::Gmem(vm, _) | File::Device(vm) => Some(vm),
        File::System | File::Sev => None,
    }
}

/// What a VMM asks of `/dev/kvm` itself holds for all its VMs.
fn on_system(request: Ioctl, arg: u64, after: &[u8], result: Result<u32, Errno>) -> Option<Crossing> {
    match request {
        nr::KVM_CHECK_EXTENSION => check_extension(arg, result),
        nr::KVM_GET_DEVICE_ATTR => {
            let (attr, value) = DeviceAttr::read_from_prefix(after).ok()?;
            let value = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            let result = result.map(|_| value.unwrap_or_default());
            (attr.group == X86_GRP_SEV).then_some(Crossing::SevAttribute { attribute: attr.attr, result })
        }
        _ => None,
    }
}

fn check_extension(arg: u64, result: Result<u32, Errno>) -> Option<Crossing> {
    let cap = Cap(u32::try_from(arg).ok()?);
    Some(Crossing::CheckExtension { cap, value: result.map_or(0, u64::from) })
}

/// One ioctl of a VM or below it.
struct Call<'a> {
    request: Ioctl,
    arg: u64,
    before: &'a [u8],
    after: &'a [u8],
    result: Result<u32, Errno>,
}

impl Taken<'_> {
    fn push(&mut self, crossings: impl IntoIterator<Item = Crossing>) {
        self.crossings.extend(crossings.into_iter().map(|crossing| (self.now, crossing)));
    }

    fn run(&mut self, run: &Run) {
        if !self.has_run {
            self.parts = self.slots.parts();
            self.has_run = true;
        }
        self.inside.remove(&run.vcpu);
        self.push([Crossing::Run(Box::new(transcript::Run {
            vcpu: run.vcpu.into(),
            immediate: run.immediate,
            is_injected: run.injected,
            is_inside: false,
            before: run.before.clone(),
            entered: run.result,
            after: run.after.clone(),
        }))]);
    }

    fn ioctl(&mut self, on: File, call: &Call<'_>, made: Option<File>) {
        let done = call.result.map(|_| ());
        let crossing = match (on, call.request) {
            (_, nr::KVM_CHECK_EXTENSION) => check_extension(call.arg, call.result),
            (_, nr::KVM_ENABLE_CAP) => EnableCap::read_from_prefix(call.before).ok().map(|(enable, _)| {
                let (cap, [argument, ..]) = (Cap(enable.cap), enable.args);
                self.has_irqchip |= cap == Cap::SPLIT_IRQCHIP && done.is_ok();
                Crossing::EnableCap { cap, argument, result: done }
            }),
            (_, nr::KVM_CREATE_IRQCHIP) => {
                self.has_irqchip |= done.is_ok();
                None
            }
            (_, nr::KVM_CREATE_VCPU) => {
                self.vcpus = self.vcpus.saturating_add(1);
                Some(Crossing::CreateVcpu { result: done })
            }
            (_, nr::KVM_MEMORY_ENCRYPT_OP) => {
                let command = SevCmd::read_from_prefix(call.before).ok().map(|(command, _)| command.id);
                match (command, done) {
                    // Kernels without types of VMs make one of these out of an ordinary VM.
                    (Some(id::INIT), Ok(())) if self.vm_type == VmType::Default => self.vm_type = VmType::Sev,
                    (Some(id::ES_INIT), Ok(())) if self.vm_type == VmType::Default => {
                        self.vm_type = VmType::SevEs;
                    }
                    _ => {}
                }
                let is_meant = command == Some(id::SNP_ENABLE_REQ_CERTS) && self.vm_type == VmType::Snp;
                is_meant.then_some(Crossing::EnableReqCerts { result: done })
            }
            (_, nr::KVM_SET_USER_MEMORY_REGION) if done.is_ok() => {
                self.slots.set(call.before);
                None
            }
            (_, nr::KVM_SET_USER_MEMORY_REGION2) if done.is_ok() => {
                self.slots.set2(call.before);
                None
            }
            (_, nr::KVM_CREATE_GUEST_MEMFD) => {
                if let (Ok(descriptor), Some(File::Gmem(_, number))) = (call.result, made) {
                    self.slots.file(descriptor, number);
                }
                None
            }
            (_, nr::KVM_SET_MEMORY_ATTRIBUTES) => attributes(call.before, done),
            (File::Vcpu(_, vcpu), nr::KVM_GET_VCPU_EVENTS) => {
                let events = VcpuEvents::read_from_prefix(call.after).map(|(events, _)| events);
                let result = done.and(events.map_err(|_| Errno::EFAULT));
                Some(Crossing::GetEvents { vcpu: vcpu.into(), result })
            }
            (File::Vcpu(_, vcpu), nr::KVM_SET_VCPU_EVENTS) => {
                let events = VcpuEvents::read_from_prefix(call.before).ok();
                events.map(|(events, _)| Crossing::SetEvents { vcpu: vcpu.into(), events, result: done })
            }
            _ => None,
        };
        self.push(crossing);
    }

    fn discard(&mut self, memory: Memory, result: Result<(), Errno>) {
        let (ranges, backing) = match memory {
            Memory::Private { file: File::Gmem(_, number), offset_bytes, bytes } => {
                (self.slots.of_file(number, offset_bytes, bytes), Backing::Private)
            }
            Memory::Private { .. } => return,
            Memory::Shared { uaddr, bytes } => (self.slots.of_process(uaddr, bytes), Backing::Shared),
        };
        let effect = |range| Crossing::Effect { effect: Effect::Discard { range, backing }, result };
        self.push(ranges.into_iter().map(effect));
    }

    fn into_trial(self, queries: Vec<(usize, Crossing)>, known: Known<'_>) -> Trial {
        let mut situation = known.situation.clone();
        situation.vm_type = self.vm_type;
        situation.memory = if self.has_run { self.parts } else { self.slots.parts() }.into();
        situation.apic_in_kernel = self.has_irqchip;
        situation.vcpus = self.vcpus;
        // To the judge, who looks from outside, a call that never came back is as one that a signal ended.
        let inside = self.inside.iter().map(|(vcpu, (record, immediate, before))| {
            let mut after = (*before).clone();
            after.exit_reason = ExitReason::INTR.0;
            let (before, entered) = ((*before).clone(), Err(Errno::EINTR));
            let (vcpu, immediate) = ((*vcpu).into(), *immediate);
            let run = transcript::Run {
                vcpu,
                immediate,
                is_inside: true,
                is_injected: false,
                before,
                entered,
                after,
            };
            (*record, Crossing::Run(Box::new(run)))
        });
        let inside = inside.collect();
        let mut crossings = [queries, self.crossings, inside].concat();
        crossings.sort_by_key(|(record, _)| *record);
        let record = |(_, crossing)| transcript::Record { machine: 0, crossing };
        let records = crossings.into_iter().map(record).collect();
        Trial {
            situation,
            launched: Pages::default(),
            is_outside: true,
            is_on_kernel: known.is_on_kernel,
            is_concurrent: self.vcpus > 1,
            certificate_pages: known.certificate_pages,
            transcript: Transcript { records, end: known.end },
            other: None,
        }
    }
}

fn attributes(before: &[u8], result: Result<(), Errno>) -> Option<Crossing> {
    let (attributes, _) = MemoryAttributes::read_from_prefix(before).ok()?;
    let to = match attributes.attributes {
        0 => PageState::Shared,
        MEMORY_ATTRIBUTE_PRIVATE => PageState::Private,
        // KVM has refused it.
        _ => return None,
    };
    let range = PageRange::new(Gpa(attributes.address).gfn(), attributes.size / PAGE_SIZE)?;
    Some(Crossing::Effect { effect: Effect::Attributes { range, to }, result })
}

#[cfg(test)]
mod tests;
