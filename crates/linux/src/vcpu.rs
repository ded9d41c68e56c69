//! One vCPU: the port's `Vcpu` and `Events` over the ioctls.

use std::ops::Range;
use std::sync::Arc;

use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::run::{DIRECTION_IN, ExitReason, Io, PORT_DATA_BYTES, RunPage};
use exeunt_abi::{Errno, Gpa, Kernel};
use exeunt_proto::exit::Entered;
use exeunt_proto::host;
use kvm_bindings::{
    CpuId, Msrs, kvm_cpuid_entry2, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_x86_mce,
};
use kvm_ioctls::VcpuFd;

use crate::effects::Effects;
use crate::error::KvmError;
use crate::guest::{FlatGuest, Mode};
use crate::ioctl_unsafe;
use crate::kicker::Kicker;
use crate::run_area::RunArea;
use crate::vm::Machine;

/// `CR0.PE`. Source for the bits of control registers: Intel SDM, volume 3, section 2.5.
const CR0_PE: u64 = 1 << 0;
/// `CR0.PG`.
const CR0_PG: u64 = 1 << 31;
/// `CR4.PAE`.
const CR4_PAE: u64 = 1 << 5;
/// `EFER.LME`: long mode is enabled.
const EFER_LME: u64 = 1 << 8;
/// `EFER.LMA`: long mode is active.
const EFER_LMA: u64 = 1 << 10;
/// `CR4.MCE`.
const CR4_MCE: u64 = 1 << 6;
/// Bit 1 of RFLAGS, which is always set.
const RFLAGS_FIXED: u64 = 1 << 1;

/// `IA32_MC0_CTL`. Source: Intel SDM, volume 3, section 16.3.2, also for the status bits.
const MSR_MC0_CTL: u32 = 0x400;
/// `IA32_MCi_STATUS`: valid, uncorrected, enabled, and the context of the CPU is corrupt.
const UNCORRECTED: u64 = 1 << 63 | 1 << 61 | 1 << 60 | 1 << 57;

/// A vCPU of the host's KVM.
///
/// The run page that it shows is its own copy. Only the thread that owns this enters the vCPU; others reach it
/// through [`Vcpu::kicker`].
#[derive(Debug)]
pub struct Vcpu {
    // The descriptor goes first, see `Machine`.
    pub(crate) fd: VcpuFd,
    pub(crate) id: u64,
    area: Arc<RunArea>,
    page: RunPage,
    port_data: Box<[u8; PORT_DATA_BYTES]>,
    /// Where the answer to a port read lies that the kernel does not have yet.
    unanswered: Option<Range<usize>>,
    pub(crate) machine: Arc<Machine>,
}

impl Vcpu {
    pub(crate) fn new(fd: VcpuFd, id: u64, machine: Arc<Machine>) -> Result<Self, KvmError> {
        let area = Arc::new(RunArea::map(&fd, machine.fd.run_size())?);
        let port_data = Box::new([0; PORT_DATA_BYTES]);
        Ok(Self { fd, id, area, page: RunPage::zeroed(), port_data, unanswered: None, machine })
    }

    /// Sets the registers to the start of a guest. Its image must be in memory at `guest.load`.
    ///
    /// The general registers are zero, interrupts are off and there is no interrupt table in protected mode, so that
    /// any exception there is a triple fault. An answer that KVM still waits for would change the registers
    /// afterwards: hand it over with `enter_immediately` first.
    ///
    /// # Errors
    ///
    /// An ioctl failed. The vCPU of an SEV-ES or SNP guest has no registers to set.
    pub fn start(&mut self, guest: &FlatGuest) -> Result<(), KvmError> {
        let mut sregs = self.fd.get_sregs().map_err(KvmError::ioctl("KVM_GET_SREGS"))?;
        let rip = match guest.mode {
            Mode::Real => {
                set_real(&mut sregs, guest.load);
                guest.entry.0.saturating_sub(guest.load.0)
            }
            Mode::Protected => {
                set_flat(&mut sregs);
                guest.entry.0
            }
        };
        let regs = kvm_regs { rip, rflags: RFLAGS_FIXED, ..Default::default() };
        self.fd.set_sregs(&sregs).map_err(KvmError::ioctl("KVM_SET_SREGS"))?;
        self.fd.set_regs(&regs).map_err(KvmError::ioctl("KVM_SET_REGS"))
    }

    /// Sets the registers to the start of 64-bit code in ring 0 at `entry`, with the page tables at `tables`, no
    /// interrupt table and all general registers zero. Both are the caller's to write.
    ///
    /// # Errors
    ///
    /// An ioctl failed.
    pub fn start_long(&mut self, entry: Gpa, tables: Gpa) -> Result<(), KvmError> {
        let mut sregs = self.fd.get_sregs().map_err(KvmError::ioctl("KVM_GET_SREGS"))?;
        set_flat(&mut sregs);
        sregs.cs = kvm_segment { l: 1, db: 0, ..sregs.cs };
        sregs.cr0 |= CR0_PE | CR0_PG;
        (sregs.cr3, sregs.cr4, sregs.efer) = (tables.0, CR4_PAE, EFER_LME | EFER_LMA);
        let regs = kvm_regs { rip: entry.0, rflags: RFLAGS_FIXED, ..Default::default() };
        self.fd.set_sregs(&sregs).map_err(KvmError::ioctl("KVM_SET_SREGS"))?;
        self.fd.set_regs(&regs).map_err(KvmError::ioctl("KVM_SET_REGS"))
    }

    /// `KVM_GET_MP_STATE`.
    ///
    /// # Errors
    ///
    /// The error of the ioctl.
    pub fn mp_state(&self) -> Result<u32, Errno> {
        self.fd.get_mp_state().map(|state| state.mp_state).map_err(|error| Errno(error.errno()))
    }

    /// `KVM_SET_MP_STATE` with any number.
    ///
    /// # Errors
    ///
    /// The error of the ioctl.
    pub fn set_mp_state(&self, mp_state: u32) -> Result<(), Errno> {
        self.fd.set_mp_state(kvm_mp_state { mp_state }).map_err(|error| Errno(error.errno()))
    }

    /// `KVM_SET_CPUID2`: for each leaf the function, EAX, EBX, ECX and EDX.
    ///
    /// # Errors
    ///
    /// The ioctl failed.
    pub fn set_cpuid(&self, leaves: &[[u32; 5]]) -> Result<(), KvmError> {
        let entries = leaves.iter().map(|[function, eax, ebx, ecx, edx]| kvm_cpuid_entry2 {
            function: *function,
            eax: *eax,
            ebx: *ebx,
            ecx: *ecx,
            edx: *edx,
            ..Default::default()
        });
        let failed = |errno| KvmError::Ioctl { name: "KVM_SET_CPUID2", errno };
        let cpuid = CpuId::from_entries(&entries.collect::<Vec<_>>()).map_err(|_| failed(Errno::ENOMEM))?;
        self.fd.set_cpuid2(&cpuid).map_err(KvmError::ioctl("KVM_SET_CPUID2"))
    }

    /// Requests a triple fault with no help of the guest: `KVM_X86_SET_MCE` with an uncorrected error while the guest
    /// does not handle machine checks. The next entry brings `KVM_EXIT_SHUTDOWN`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_x86_set_mce`. Its bank 0 reports uncorrected errors
    /// only with all bits of `IA32_MC0_CTL` set, which a reset leaves clear, so that they are set here.
    ///
    /// # Errors
    ///
    /// The guest handles machine checks, or an ioctl failed.
    pub fn raise_triple_fault(&mut self) -> Result<(), KvmError> {
        let sregs = self.fd.get_sregs().map_err(KvmError::ioctl("KVM_GET_SREGS"))?;
        if sregs.cr4 & CR4_MCE != 0 {
            return Err(KvmError::MachineChecksOn);
        }
        let failed = |errno| KvmError::Ioctl { name: "KVM_SET_MSRS", errno };
        let control = kvm_msr_entry { index: MSR_MC0_CTL, data: u64::MAX, ..Default::default() };
        let msrs = Msrs::from_entries(&[control]).map_err(|_| failed(Errno::ENOMEM))?;
        match self.fd.set_msrs(&msrs) {
            Ok(1) => {}
            // The kernel counts the registers that it took before the first that it refused.
            Ok(_) => return Err(failed(Errno::EINVAL)),
            Err(error) => return Err(failed(Errno(error.errno()))),
        }
        let mce = kvm_x86_mce { status: UNCORRECTED, bank: 0, ..Default::default() };
        let failed = |errno| KvmError::Ioctl { name: "KVM_X86_SET_MCE", errno };
        ioctl_unsafe::set_mce(&self.fd, &mce).map_err(failed)
    }

    /// RIP and RAX.
    ///
    /// # Errors
    ///
    /// `KVM_GET_REGS` failed, as it does for an SEV-ES or SNP guest.
    pub fn registers(&self) -> Result<(u64, u64), KvmError> {
        let regs = self.fd.get_regs().map_err(KvmError::ioctl("KVM_GET_REGS"))?;
        Ok((regs.rip, regs.rax))
    }

    /// A handle for other threads, and for signal handlers, to take this vCPU out of the guest.
    #[must_use]
    pub fn kicker(&self) -> Kicker {
        Kicker::new(Arc::clone(&self.area))
    }

    /// A handle that applies effects to this vCPU's VM, and maps pages ahead through this vCPU.
    ///
    /// # Errors
    ///
    /// The vCPU's descriptor cannot be duplicated.
    pub fn effects(&self) -> Result<Effects, KvmError> {
        let fd = ioctl_unsafe::borrowed_vcpu(&self.fd).try_clone_to_owned();
        let failed = |error: std::io::Error| KvmError::File {
            call: "fcntl",
            errno: Errno(error.raw_os_error().unwrap_or(0)),
        };
        Ok(Effects::new(Arc::clone(&self.machine), Some(fd.map_err(failed)?)))
    }

    fn run(&mut self, drain: bool) -> Entered {
        self.area.put_union(&self.page.exit)?;
        if let Some(range) = self.unanswered.take() {
            let data = self.port_data.get(range.clone()).unwrap_or_default();
            self.area.put_port(range.start, data)?;
        }
        let entered = self.area.enter(&self.fd, drain);
        self.area.take_page(&mut self.page)?;
        if entered.is_ok() && self.page.reason() == ExitReason::IO {
            self.take_port_data()?;
        }
        entered
    }

    /// Copies the data of a port exit out. What lies outside of the port page is left where it is: `exit::decode`
    /// refuses such an exit.
    fn take_port_data(&mut self) -> Result<(), Errno> {
        let io: Io = self.page.payload();
        let Some(range) = data_range(&io) else { return Ok(()) };
        if let Some(data) = self.port_data.get_mut(range.clone()) {
            self.area.take_port(range.start, data)?;
            self.unanswered = (io.direction == DIRECTION_IN).then_some(range);
        }
        Ok(())
    }
}

impl host::Vcpu for Vcpu {
    fn enter(&mut self) -> Entered {
        self.run(false)
    }

    fn enter_immediately(&mut self) -> Entered {
        self.run(true)
    }

    fn kernel(&self) -> Kernel {
        self.machine.kernel
    }

    fn page(&self) -> &RunPage {
        &self.page
    }

    fn page_mut(&mut self) -> &mut RunPage {
        &mut self.page
    }

    fn port_data(&mut self) -> &mut [u8; PORT_DATA_BYTES] {
        &mut self.port_data
    }
}

impl host::Events for Vcpu {
    fn events(&mut self) -> Result<VcpuEvents, Errno> {
        ioctl_unsafe::events(&self.fd)
    }

    fn set_events(&mut self, events: &VcpuEvents) -> Result<(), Errno> {
        ioctl_unsafe::set_events(&self.fd, events)
    }

    fn event_flags(&self) -> u32 {
        self.machine.event_flags()
    }
}

/// The bytes of the port page that hold the data, or `None` if they start or end outside of it.
fn data_range(io: &Io) -> Option<Range<usize>> {
    let start = usize::try_from(io.data_offset).ok()?.checked_sub(PORT_DATA_BYTES)?;
    let bytes = usize::try_from(io.count).ok()?.checked_mul(usize::from(io.size))?;
    let end = start.checked_add(bytes)?;
    (end <= PORT_DATA_BYTES).then_some(start..end)
}

/// Real mode with a code segment that starts at `load`, below 1 MiB, and the other segments at 0.
fn set_real(sregs: &mut kvm_sregs, load: Gpa) {
    set_data_segments(sregs, kvm_segment { limit: 0xffff, type_: 3, present: 1, s: 1, ..Default::default() });
    let selector = u16::try_from(load.0 >> 4).unwrap_or_default();
    sregs.cs = kvm_segment { base: load.0, selector, type_: 11, ..sregs.ds };
    sregs.cr0 &= !(CR0_PE | CR0_PG);
    (sregs.cr4, sregs.efer) = (0, 0);
    (sregs.idt.base, sregs.idt.limit) = (0, 0xffff);
}

/// Protected mode with flat segments of 4 GiB, no paging and no table of interrupts.
fn set_flat(sregs: &mut kvm_sregs) {
    let data =
        kvm_segment { limit: u32::MAX, selector: 0x10, type_: 3, present: 1, s: 1, ..Default::default() };
    set_data_segments(sregs, kvm_segment { db: 1, g: 1, ..data });
    sregs.cs = kvm_segment { selector: 8, type_: 11, ..sregs.ds };
    sregs.cr0 = sregs.cr0 & !CR0_PG | CR0_PE;
    (sregs.cr4, sregs.efer) = (0, 0);
    (sregs.idt.base, sregs.idt.limit) = (0, 0);
    (sregs.gdt.base, sregs.gdt.limit) = (0, 0);
}

fn set_data_segments(sregs: &mut kvm_sregs, segment: kvm_segment) {
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (segment, segment, segment, segment, segment);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_data_outside_of_the_port_page_is_not_copied() {
        let io = |size, count, data_offset| Io { direction: 0, size, port: 0x80, count, data_offset };
        assert_eq!(data_range(&io(4, 1024, 4096)), Some(0..4096));
        assert_eq!(data_range(&io(1, 2, 4100)), Some(4..6));
        for outside in
            [io(1, 1, 0), io(1, 1, 4095), io(1, 1, 8192), io(4, 1025, 4096), io(255, u32::MAX, u64::MAX)]
        {
            assert_eq!(data_range(&outside), None, "{outside:?}");
        }
    }
}
