//! The board of a VM: interrupt controllers, timer and clock in the kernel, and the numbers that are set before the first
//! vCPU. What KVM gives back it was given, so the model keeps the bytes.

use super::call::Call;
use super::vm::VmFile;
use crate::vm::Vm;
use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::irq::{ClockData, IrqLevel};
use std::sync::{MutexGuard, PoisonError};

/// The frequency of the model's hosts.
pub(super) const TSC_KHZ: u32 = 2_000_000;
/// What `KVM_SET_TSC_KHZ` has to be below on a host that scales the counter.
pub(super) const MAX_TSC_KHZ: u32 = 0x7fff_ffff;
/// `-3 * PAGE_SIZE` as a 32-bit number: room for the three pages below 4 GiB.
const MAX_TSS_ADDR: u64 = 0xffff_d000;
/// `KVM_MIN_ALLOC_MMU_PAGES`.
const MIN_MMU_PAGES: u64 = 64;
/// `struct kvm_irqchip`: a number, padding, and the controller's state.
pub(super) const IRQCHIP_BYTES: usize = 520;
/// Bytes of the state of a PIC and of the I/O APIC.
const PIC_BYTES: usize = 16;
const IOAPIC_BYTES: usize = 216;
/// Bytes of `struct kvm_pit_state` and `struct kvm_pit_state2`.
pub(super) const PIT_BYTES: usize = 72;
pub(super) const PIT2_BYTES: usize = 112;
/// `KVM_CLOCK_TSC_STABLE`.
const CLOCK_STABLE: u32 = 2;

/// What the ioctls of the board keep.
#[derive(Debug)]
pub(super) struct Board {
    /// Both PICs, then the I/O APIC.
    chips: [[u8; 512]; 3],
    /// The timer, if it is in the kernel.
    pit: Option<[u8; PIT2_BYTES]>,
    clock: ClockData,
    tsc_khz: u32,
    pub(super) routes: super::routes::Routes,
    /// A VFIO device exists.
    pub(super) has_vfio: bool,
}

impl Default for Board {
    fn default() -> Self {
        let mut chips = [[0; 512]; 3];
        let [master, slave, ioapic] = &mut chips;
        // Which pins can be level-triggered.
        put(master, 15, &[0xf8]);
        put(slave, 15, &[0xde]);
        put(ioapic, 0, &0xfec0_0000u64.to_le_bytes());
        for pin in (24..IOAPIC_BYTES).step_by(8) {
            // Masked.
            put(ioapic, pin, &0x1_0000u64.to_le_bytes());
        }
        Self {
            chips,
            pit: None,
            clock: ClockData { flags: CLOCK_STABLE, ..ClockData::default() },
            tsc_khz: TSC_KHZ,
            routes: super::routes::Routes::default(),
            has_vfio: false,
        }
    }
}

fn put(area: &mut [u8], at: usize, bytes: &[u8]) {
    area.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
}

/// A timer after a reset: no mode, channel 2 without its gate.
fn new_pit() -> [u8; PIT2_BYTES] {
    let mut pit = [0; PIT2_BYTES];
    for (channel, gate) in [1, 1, 0].into_iter().enumerate() {
        let at = channel.saturating_mul(24);
        put(&mut pit, at, &0x1_0000u32.to_le_bytes());
        put(&mut pit, at.saturating_add(13), &[0xff, 0, gate]);
    }
    pit
}

impl VmFile {
    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call<'_> {
    /// The ioctls of the board; `None` is another ioctl.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_arch_vm_ioctl`.
    pub(super) fn on_board(&self, file: &VmFile) -> Option<Result<u32, Errno>> {
        let vm = &file.vm;
        Some(match self.request {
            nr::KVM_SET_TSS_ADDR if self.arg > MAX_TSS_ADDR => Err(Errno::EINVAL),
            nr::KVM_SET_IDENTITY_MAP_ADDR => self.set_identity_map_addr(vm),
            nr::KVM_SET_NR_MMU_PAGES if self.arg < MIN_MMU_PAGES => Err(Errno::EINVAL),
            nr::KVM_SET_TSS_ADDR | nr::KVM_SET_NR_MMU_PAGES => Ok(0),
            nr::KVM_SET_BOOT_CPU_ID => self.set_boot_cpu_id(vm),
            nr::KVM_CREATE_IRQCHIP => vm.create_irqchip().map(|()| 0),
            nr::KVM_GET_IRQCHIP => self.get_irqchip(file),
            nr::KVM_SET_IRQCHIP => self.set_irqchip(file),
            nr::KVM_IRQ_LINE | nr::KVM_IRQ_LINE_STATUS => self.irq_line(vm),
            nr::KVM_CREATE_PIT => Self::create_pit(file),
            nr::KVM_CREATE_PIT2 => self.get::<[u8; 64]>().and_then(|_| Self::create_pit(file)),
            nr::KVM_GET_PIT | nr::KVM_SET_PIT | nr::KVM_GET_PIT2 | nr::KVM_SET_PIT2 => self.pit_state(file),
            nr::KVM_REINJECT_CONTROL => self
                .get::<[u8; 32]>()
                .and_then(|_| if file.board().pit.is_some() { Ok(0) } else { Err(Errno::ENXIO) }),
            nr::KVM_GET_CLOCK => {
                let clock = file.board().clock;
                self.put(&clock).map(|()| 0)
            }
            nr::KVM_SET_CLOCK => self.set_clock(file),
            nr::KVM_SET_TSC_KHZ => self.set_vm_tsc_khz(file),
            nr::KVM_GET_TSC_KHZ => Ok(file.board().tsc_khz),
            _ => return None,
        })
    }

    fn set_identity_map_addr(&self, vm: &Vm) -> Result<u32, Errno> {
        if vm.lock().vcpus != 0 {
            return Err(Errno::EINVAL);
        }
        self.get::<u64>().map(|_| 0)
    }

    fn set_boot_cpu_id(&self, vm: &Vm) -> Result<u32, Errno> {
        let mut state = vm.lock();
        if state.vcpus != 0 {
            return Err(Errno::EBUSY);
        }
        let max = state.platform.max_vcpu_ids;
        // One too many is let through, as KVM does.
        if self.arg > state.kernel.dialect.max_vcpus().1 || (max != 0 && self.arg > max) {
            return Err(Errno::EINVAL);
        }
        state.platform.bsp_vcpu_id = self.arg;
        Ok(0)
    }

    fn get_irqchip(&self, file: &VmFile) -> Result<u32, Errno> {
        let mut chip: [u8; IRQCHIP_BYTES] = self.get()?;
        let (index, bytes) = chip_at(&chip, &file.vm)?;
        let board = file.board();
        let state = board.chips.get(index).and_then(|state| state.get(..bytes)).ok_or(Errno::EINVAL)?;
        put(&mut chip, 8, state);
        drop(board);
        self.put(&chip).map(|()| 0)
    }

    fn set_irqchip(&self, file: &VmFile) -> Result<u32, Errno> {
        let chip: [u8; IRQCHIP_BYTES] = self.get()?;
        let (index, bytes) = chip_at(&chip, &file.vm)?;
        let from = chip.get(8..).and_then(|state| state.get(..bytes)).ok_or(Errno::EINVAL)?;
        let mut board = file.board();
        put(board.chips.get_mut(index).ok_or(Errno::EINVAL)?, 0, from);
        Ok(0)
    }

    /// A pin of the model's controllers leads nowhere: it is accepted, and one vCPU is said to have got it.
    fn irq_line(&self, vm: &Vm) -> Result<u32, Errno> {
        let line: IrqLevel = self.get()?;
        if !vm.lock().platform.irqchip.has_lapic() {
            return Err(Errno::ENXIO);
        }
        if self.request == nr::KVM_IRQ_LINE_STATUS {
            self.put(&IrqLevel { irq: 1, ..line })?;
        }
        Ok(0)
    }

    fn create_pit(file: &VmFile) -> Result<u32, Errno> {
        let mut board = file.board();
        if board.pit.is_some() {
            return Err(Errno::EEXIST);
        }
        if !file.vm.lock().platform.irqchip.has_pic() {
            return Err(Errno::ENOENT);
        }
        board.pit = Some(new_pit());
        Ok(0)
    }

    /// The older pair copies in before it looks for the timer, also to read.
    fn pit_state(&self, file: &VmFile) -> Result<u32, Errno> {
        let mut board = file.board();
        match self.request {
            nr::KVM_GET_PIT => {
                self.get::<[u8; PIT_BYTES]>()?;
                let pit = board.pit.as_ref().ok_or(Errno::ENXIO)?;
                self.put_at(self.arg, pit.get(..PIT_BYTES).unwrap_or_default())?;
            }
            nr::KVM_SET_PIT => {
                let state: [u8; PIT_BYTES] = self.get()?;
                put(board.pit.as_mut().ok_or(Errno::ENXIO)?, 0, &state);
            }
            nr::KVM_GET_PIT2 => self.put(board.pit.as_ref().ok_or(Errno::ENXIO)?)?,
            _ => {
                let state: [u8; PIT2_BYTES] = self.get()?;
                *board.pit.as_mut().ok_or(Errno::ENXIO)? = state;
            }
        }
        Ok(0)
    }

    /// Time stands still in the model: the clock is what it was set to.
    fn set_clock(&self, file: &VmFile) -> Result<u32, Errno> {
        let clock: ClockData = self.get()?;
        if clock.flags & !self.device.kernel.dialect.clock_flags() != 0 {
            return Err(Errno::EINVAL);
        }
        file.board().clock = ClockData { clock: clock.clock, flags: CLOCK_STABLE, ..ClockData::default() };
        Ok(0)
    }

    fn set_vm_tsc_khz(&self, file: &VmFile) -> Result<u32, Errno> {
        let khz = self.arg_u32();
        let is_late = self.device.kernel.dialect.refuses_late_tsc_khz() && file.vm.lock().vcpus != 0;
        if khz >= MAX_TSC_KHZ || is_late {
            return Err(Errno::EINVAL);
        }
        file.board().tsc_khz = if khz == 0 { TSC_KHZ } else { khz };
        Ok(0)
    }
}

/// Which controller is meant, and the bytes of its state.
fn chip_at(chip: &[u8; IRQCHIP_BYTES], vm: &Vm) -> Result<(usize, usize), Errno> {
    if !vm.lock().platform.irqchip.has_pic() {
        return Err(Errno::ENXIO);
    }
    let id = chip.first_chunk().map_or(u32::MAX, |id| u32::from_le_bytes(*id));
    match id {
        0 => Ok((0, PIC_BYTES)),
        1 => Ok((1, PIC_BYTES)),
        2 => Ok((2, IOAPIC_BYTES)),
        _ => Err(Errno::EINVAL),
    }
}
