//! Another VMM half, which shares nothing with ours: raw pages, no decoder, no tracker, no policy.
//!
//! It is right, and its transcripts are others: it sets attributes again that are set, and says things in other words.
//! So it shows that the checkers judge by the rules and not by what our half happens to do.

use super::bench::Bench;
use super::machine::{CertFile, Machine, table};
use super::port::{JudgedHost, JudgedVcpu};
use super::transcript::{End, Status};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::device_attr::sev_attr;
use exeunt_abi::kvm::events::{VALID_TRIPLE_FAULT, VcpuEvents};
use exeunt_abi::kvm::run::{ExitReason, Hypercall, MemoryFault, SnpReqCerts, SystemEvent, VmgexitV10};
use exeunt_abi::{Dialect, Errno, Gfn, Gpa};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::Entered;
use exeunt_proto::host::{Action, Backing, Events, Host, Vcpu};
use exeunt_scenes::{Orders, Part, Task};
use std::collections::BTreeSet;

struct Vmm {
    vcpus: Vec<JudgedVcpu>,
    host: JudgedHost,
    memory: Vec<Part>,
    orders: Orders,
    file: CertFile,
    has_event_data: bool,
    has_triple_fault: bool,
    shared: BTreeSet<u64>,
    /// The last fault and how often it came.
    last_fault: (u64, u32),
}

enum Next {
    Again,
    Halted,
    End(End),
    /// Enter with `immediate_exit` until `EINTR`, then give the lock back.
    Commit,
}

fn failure(text: String) -> Next {
    Next::End(End { status: Status::Failure, text })
}

pub(super) fn serve(bench: &Bench<'_>) -> Result<End, String> {
    let machine = bench.machine(0)?;
    let mut vmm = Vmm::new(bench, &machine)?;
    let task = bench.situation.orders.task;
    let before = if task == Task::GoBack { Some(vmm.save()) } else { None };
    machine.prepare_vcpu(&mut vmm.vcpus[0]);
    match task {
        Task::Run => Ok(vmm.run(None)),
        Task::SaveAfter(exits) => Ok(vmm.run(Some(exits))),
        Task::SaveTwice => {
            assert_eq!(vmm.save(), vmm.save());
            Ok(vmm.run(None))
        }
        Task::GoBack => Ok(vmm.restore(before.unwrap())),
        Task::Migrate => {
            let saved = vmm.save();
            let target = bench.machine(1)?;
            Ok(Vmm::new(bench, &target)?.restore(saved))
        }
    }
}

impl Vmm {
    fn new(bench: &Bench<'_>, machine: &Machine) -> Result<Self, String> {
        let orders = bench.situation.orders;
        let has_event_data = machine.check_extension(Cap::SYSTEM_EVENT_DATA) != 0;
        let hypercalls = machine.check_extension(Cap::EXIT_HYPERCALL);
        if hypercalls & 1 << 12 != 0 {
            machine.enable_cap(Cap::EXIT_HYPERCALL, hypercalls, 1 << 12).unwrap();
        }
        let triple_fault = machine.check_extension(Cap::X86_TRIPLE_FAULT_EVENT);
        if triple_fault != 0 {
            machine.enable_cap(Cap::X86_TRIPLE_FAULT_EVENT, triple_fault, 1).unwrap();
        }
        if orders.certificates && machine.sev_attribute(sev_attr::SEV_SNP_REQ_CERTS) == Ok(1) {
            machine.enable_req_certs().unwrap();
        }
        Ok(Self {
            vcpus: machine.create_vcpus()?,
            host: machine.host(),
            memory: bench.situation.memory.to_vec(),
            orders,
            file: machine.cert_file(),
            has_event_data,
            has_triple_fault: triple_fault != 0,
            shared: BTreeSet::new(),
            last_fault: (0, 0),
        })
    }

    fn run(&mut self, save_after: Option<u32>) -> End {
        let mut exits = 0;
        loop {
            for index in (0..self.vcpus.len()).rev() {
                let entered = self.vcpus[index].enter();
                exits += 1;
                match self.service(index, entered) {
                    Next::Again => {}
                    Next::Halted => drop(self.vcpus.remove(index)),
                    Next::End(end) => return end,
                    Next::Commit => {
                        self.drain(index);
                        self.file.unlock();
                    }
                }
                if save_after == Some(exits) {
                    self.save();
                }
            }
            if self.vcpus.iter().all(JudgedVcpu::is_asleep) {
                return End { status: Status::Success, text: "done".into() };
            }
        }
    }

    fn service(&mut self, index: usize, entered: Entered) -> Next {
        let page = self.vcpus[index].page().clone();
        match (entered, page.reason()) {
            (Err(Errno::EINTR | Errno::EAGAIN), _)
            | (Ok(()), ExitReason::IO | ExitReason::MMIO | ExitReason::TDX) => Next::Again,
            (Err(errno @ (Errno::EFAULT | Errno::EHWPOISON)), ExitReason::MEMORY_FAULT) => {
                self.fault(errno, page.payload())
            }
            (Err(errno), _) => failure(format!("KVM_RUN: {errno}")),
            (Ok(()), ExitReason::HLT) => Next::Halted,
            (Ok(()), ExitReason::SHUTDOWN) => failure("triple fault".into()),
            (Ok(()), ExitReason::HYPERCALL) => {
                let mut call: Hypercall = page.payload();
                call.ret = match call.nr {
                    12 => self.map_gpa_range(call.args),
                    _ => 1000u64.wrapping_neg(),
                };
                self.vcpus[index].page_mut().set_payload(&call);
                Next::Again
            }
            (Ok(()), ExitReason::SYSTEM_EVENT) => self.system_event(page.payload()),
            (Ok(()), ExitReason::SNP_REQ_CERTS) => self.certificates(index, page.payload()),
            (Ok(()), ExitReason(50)) if self.vcpus[index].kernel().dialect == Dialect::VmgexitV10 => {
                let mut wire: VmgexitV10 = page.payload();
                if wire.ghcb_msr & 0xfff == 0x14 {
                    let attributes = if wire.ghcb_msr >> 52 & 0xf == 1 { 0x10 } else { 0 };
                    let gpa = wire.ghcb_msr & 0xf_ffff_ffff_f000;
                    let failed = self.map_gpa_range([gpa, 1, attributes, 0, 0, 0]) != 0;
                    (wire.ghcb_msr, wire.ret) = (0x15 | u64::from(failed) << 32, 0);
                } else {
                    // Requests by page are refused.
                    wire.ret = 1 << 32;
                }
                self.vcpus[index].page_mut().set_payload(&wire);
                Next::Again
            }
            (Ok(()), reason) => failure(format!("exit {}: {:02x?}", reason.0, &page.exit[..64])),
        }
    }

    fn parts(&self, range: PageRange, only_private: bool) -> Vec<PageRange> {
        let parts = self.memory.iter().filter(|part| part.has_private || !only_private);
        let range_of = |part: &Part| PageRange::new(Gpa(part.gpa).gfn(), part.bytes >> 12).unwrap();
        parts.filter_map(|part| range_of(part).intersect(range)).collect()
    }

    fn covers(&self, range: PageRange, only_private: bool) -> bool {
        self.parts(range, only_private).iter().map(|part| part.pages()).sum::<u64>() == range.pages()
    }

    fn map_gpa_range(&mut self, [gpa, pages, attributes, ..]: [u64; 6]) -> u64 {
        let range = PageRange::new(Gfn(gpa >> 12), pages).filter(|_| gpa % 4096 == 0 && attributes < 0x20);
        let to = if attributes & 0x10 == 0 { PageState::Shared } else { PageState::Private };
        match range {
            Some(range) if to == PageState::Shared || self.covers(range, true) => {
                match self.convert(range, to) {
                    Ok(()) => 0,
                    Err(Errno::ENOMEM | Errno::EAGAIN | Errno::EINTR) => 11,
                    Err(_) => 22,
                }
            }
            _ => 22,
        }
    }

    fn convert(&mut self, range: PageRange, to: PageState) -> Result<(), Errno> {
        for range in self.parts(range, true) {
            self.host.apply(&Action::SetAttributes { range, to })?;
            let backing = if to == PageState::Private { Backing::Shared } else { Backing::Private };
            self.host.apply(&Action::Discard { range, backing })?;
            for gfn in range.gfn().0..range.end().0 {
                if to == PageState::Shared {
                    self.shared.insert(gfn)
                } else {
                    self.shared.remove(&gfn)
                };
            }
        }
        Ok(())
    }

    fn fault(&mut self, errno: Errno, fault: MemoryFault) -> Next {
        let MemoryFault { flags, gpa, size } = fault;
        let range = PageRange::new(Gfn(gpa >> 12), size >> 12).filter(|range| self.covers(*range, true));
        let (last, times) = self.last_fault;
        self.last_fault = (gpa, if last == gpa { times + 1 } else { 1 });
        let is_hopeless = errno == Errno::EHWPOISON || flags & !8 != 0 || self.last_fault.1 > 5;
        match range {
            Some(range) if self.orders.convert_faults && !is_hopeless => {
                let _ = self.convert(range, if flags == 0 { PageState::Shared } else { PageState::Private });
                Next::Again
            }
            _ => failure(format!("memory fault {errno}, flags {flags:#x}, at {gpa:#x}")),
        }
    }

    fn system_event(&self, event: SystemEvent) -> Next {
        let words = if self.has_event_data { &event.data[..event.ndata.min(16) as usize] } else { &[] };
        let text = format!("event {:#x} {words:#x?}", event.event_type);
        match event.event_type {
            1..=3 if self.orders.ignore_events => Next::Again,
            1 => Next::End(End { status: Status::Success, text }),
            2 => Next::End(End { status: Status::Reset, text }),
            _ => failure(text),
        }
    }

    fn certificates(&mut self, index: usize, mut wire: SnpReqCerts) -> Next {
        let mut next = Next::Again;
        wire.ret = if (0..3).any(|_| self.file.try_lock()) {
            let bytes = table(self.file.read());
            let needed = bytes.len().div_ceil(4096) as u64;
            let buffer = PageRange::new(Gfn(wire.gpa >> 12), wire.npages);
            let is_shared =
                |range: PageRange| (range.gfn().0..range.end().0).all(|gfn| self.shared.contains(&gfn));
            if wire.npages < needed {
                wire.npages = needed;
                28
            } else if !buffer.is_some_and(|buffer| self.covers(buffer, false) && is_shared(buffer)) {
                5
            } else {
                self.host.apply(&Action::WriteGuest { gpa: Gpa(wire.gpa), bytes: &bytes }).unwrap();
                next = Next::Commit;
                0
            }
        } else {
            11
        };
        if wire.ret != 0 && wire.ret != 11 {
            self.file.unlock();
        }
        self.vcpus[index].page_mut().set_payload(&wire);
        next
    }

    fn drain(&mut self, index: usize) {
        loop {
            let entered = self.vcpus[index].enter_immediately();
            if entered == Err(Errno::EINTR) {
                return;
            }
            assert!(matches!(self.service(index, entered), Next::Again));
        }
    }

    fn save(&mut self) -> VcpuEvents {
        self.drain(0);
        self.vcpus[0].events().unwrap()
    }

    fn restore(&mut self, mut events: VcpuEvents) -> End {
        let is_pending = events.flags & VALID_TRIPLE_FAULT != 0 && events.triple_fault_pending != 0;
        if is_pending && !self.has_triple_fault {
            return End { status: Status::Failure, text: "the target cannot take a triple fault".into() };
        }
        events.flags &= self.vcpus[0].event_flags();
        self.vcpus[0].set_events(&events).unwrap();
        self.run(None)
    }
}
