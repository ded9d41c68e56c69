//! Where interrupts come from and what writes lead to: routes, event files, messages, zones of gathered writes.

use super::call::Call;
use super::vm::VmFile;
use crate::caps::MAX_IRQ_ROUTES;
use crate::platform::Irqchip;
use exeunt_abi::Errno;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::irq::{
    CoalescedMmioZone, IOEVENTFD_FLAG_DATAMATCH, IOEVENTFD_FLAG_DEASSIGN, IOEVENTFD_FLAG_PIO,
    IRQ_ROUTING_IRQCHIP, IRQ_ROUTING_MSI, IRQFD_FLAG_DEASSIGN, IRQFD_FLAG_RESAMPLE, Ioeventfd, IrqRouting,
    IrqRoutingEntry, Irqfd, Msi,
};
use std::mem::size_of;

/// `NR_IOBUS_DEVS`: what a bus of a VM can have.
const MAX_BUS_DEVICES: usize = 1000;
/// `KVM_IOEVENTFD_VALID_FLAG_MASK`, with that of s390.
const IOEVENTFD_FLAGS: u32 = 0xf;
/// `KVM_MSI_VALID_DEVID`.
const MSI_VALID_DEVID: u32 = 1;
/// `KVM_IRQ_ROUTING_HV_SINT`.
const IRQ_ROUTING_HV_SINT: u32 = 4;

/// What was registered. Descriptors are kept by number.
#[derive(Debug, Default)]
pub(super) struct Routes {
    entries: Vec<IrqRoutingEntry>,
    irqfds: Vec<(u32, u32)>,
    ioeventfds: Vec<Ioeventfd>,
    zones: Vec<CoalescedMmioZone>,
}

impl Call<'_> {
    /// The ioctls of routes; `None` is another ioctl.
    pub(super) fn on_routes(&self, file: &VmFile) -> Option<Result<u32, Errno>> {
        Some(match self.request {
            nr::KVM_SET_GSI_ROUTING => self.set_gsi_routing(file),
            nr::KVM_IRQFD => self.irqfd(file),
            nr::KVM_IOEVENTFD => self.ioeventfd(file),
            nr::KVM_SIGNAL_MSI => self.signal_msi(file),
            nr::KVM_REGISTER_COALESCED_MMIO => self.coalesced_zone(file, true),
            nr::KVM_UNREGISTER_COALESCED_MMIO => self.coalesced_zone(file, false),
            _ => return None,
        })
    }

    /// Source: Linux v7.2 `virt/kvm/irqchip.c`, `kvm_set_irq_routing`, and `arch/x86/kvm/irq.c`,
    /// `kvm_set_routing_entry`.
    fn set_gsi_routing(&self, file: &VmFile) -> Result<u32, Errno> {
        let head: IrqRouting = self.get()?;
        let (irqchip, x2apic_ids) = {
            let state = file.vm.lock();
            (state.platform.irqchip, state.cap(Cap::X2APIC_API) & 1 != 0)
        };
        if !irqchip.has_lapic() || u64::from(head.nr) > MAX_IRQ_ROUTES || head.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let entries: Vec<IrqRoutingEntry> = self.get_array(size_of::<IrqRouting>(), head.nr)?;
        if !entries.iter().all(|entry| is_valid_route(entry, irqchip, x2apic_ids)) {
            return Err(Errno::EINVAL);
        }
        file.board().routes.entries = entries;
        Ok(0)
    }

    /// Source: Linux v7.2 `virt/kvm/eventfd.c`, `kvm_irqfd`.
    fn irqfd(&self, file: &VmFile) -> Result<u32, Errno> {
        let args: Irqfd = self.get()?;
        if args.flags & !(IRQFD_FLAG_DEASSIGN | IRQFD_FLAG_RESAMPLE) != 0 {
            return Err(Errno::EINVAL);
        }
        let key = (args.fd, args.gsi);
        if args.flags & IRQFD_FLAG_DEASSIGN != 0 {
            self.event_file(args.fd)?;
            file.board().routes.irqfds.retain(|irqfd| *irqfd != key);
            return Ok(0);
        }
        let irqchip = file.vm.lock().platform.irqchip;
        let resamples = args.flags & IRQFD_FLAG_RESAMPLE != 0;
        if !(if resamples { irqchip.has_pic() } else { irqchip.has_lapic() }) {
            return Err(Errno::EINVAL);
        }
        self.event_file(args.fd)?;
        if resamples {
            self.event_file(args.resamplefd)?;
        }
        let mut board = file.board();
        // An event file raises one interrupt.
        if board.routes.irqfds.iter().any(|(fd, _)| *fd == args.fd) {
            return Err(Errno::EBUSY);
        }
        board.routes.irqfds.push(key);
        Ok(0)
    }

    /// Source: Linux v7.2 `virt/kvm/eventfd.c`, `kvm_ioeventfd`.
    fn ioeventfd(&self, file: &VmFile) -> Result<u32, Errno> {
        let args: Ioeventfd = self.get()?;
        let has = |flag: u32| args.flags & flag != 0;
        if has(IOEVENTFD_FLAG_DEASSIGN) {
            self.device.table.event_file(args.fd)?;
            let mut board = file.board();
            let list = &mut board.routes.ioeventfds;
            let found = list.iter().position(|known| is_same(known, &args)).ok_or(Errno::ENOENT)?;
            list.remove(found);
            return Ok(0);
        }
        let is_any_value = args.len == 0 && has(IOEVENTFD_FLAG_DATAMATCH);
        if !matches!(args.len, 0 | 1 | 2 | 4 | 8)
            || args.addr.checked_add(u64::from(args.len)).is_none()
            || args.flags & !IOEVENTFD_FLAGS != 0
            || is_any_value
        {
            return Err(Errno::EINVAL);
        }
        self.device.table.event_file(args.fd)?;
        let mut board = file.board();
        let list = &mut board.routes.ioeventfds;
        if list.iter().any(|known| collides(known, &args)) {
            return Err(Errno::EEXIST);
        }
        if list.len() >= MAX_BUS_DEVICES {
            return Err(Errno::ENOSPC);
        }
        list.push(args);
        Ok(0)
    }

    /// Returns how many processors took the message. For nobody that is -1, which reads as `EPERM`.
    ///
    /// Source: Linux v7.2 `virt/kvm/irqchip.c`, `kvm_send_userspace_msi`, and `arch/x86/kvm/irq.c`, `kvm_set_msi`.
    fn signal_msi(&self, file: &VmFile) -> Result<u32, Errno> {
        let msi: Msi = self.get()?;
        let state = file.vm.lock();
        if !state.platform.irqchip.has_lapic() || msi.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let x2apic_ids = state.cap(Cap::X2APIC_API) & 1 != 0;
        if x2apic_ids && msi.address_hi & 0xff != 0 {
            return Err(Errno::EINVAL);
        }
        drop(state);
        let high = if x2apic_ids { u64::from(msi.address_hi) << 32 } else { 0 };
        match file.vm.signal_msi(high | u64::from(msi.address_lo), msi.data)? {
            0 => Err(Errno::EPERM),
            count => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
        }
    }

    fn coalesced_zone(&self, file: &VmFile, register: bool) -> Result<u32, Errno> {
        let zone: CoalescedMmioZone = self.get()?;
        if zone.pio > 1 {
            return Err(Errno::EINVAL);
        }
        let mut board = file.board();
        let zones = &mut board.routes.zones;
        if register {
            if zones.len() >= MAX_BUS_DEVICES {
                return Err(Errno::ENOSPC);
            }
            zones.push(zone);
        } else {
            // Zones inside of the given one go.
            let end = zone.addr.saturating_add(u64::from(zone.size));
            zones.retain(|known| {
                let known_end = known.addr.saturating_add(u64::from(known.size));
                known.pio != zone.pio || known.addr < zone.addr || known_end > end
            });
        }
        Ok(0)
    }

    fn event_file(&self, fd: u32) -> Result<(), Errno> {
        self.device.table.event_file(i32::from_ne_bytes(fd.to_ne_bytes()))
    }
}

fn is_valid_route(entry: &IrqRoutingEntry, irqchip: Irqchip, x2apic_ids: bool) -> bool {
    let known_flags = if entry.entry_type == IRQ_ROUTING_MSI { MSI_VALID_DEVID } else { 0 };
    if u64::from(entry.gsi) >= MAX_IRQ_ROUTES || entry.flags & !known_flags != 0 {
        return false;
    }
    let [first, second, ..] = entry.to;
    match entry.entry_type {
        IRQ_ROUTING_IRQCHIP => match first {
            0 | 1 => irqchip.has_pic() && second < 8,
            2 => irqchip.has_pic() && second < 24,
            _ => false,
        },
        // Address low, address high, data.
        IRQ_ROUTING_MSI => !x2apic_ids || second.trailing_zeros() >= 8,
        IRQ_ROUTING_HV_SINT => true,
        _ => false,
    }
}

const fn bus(event: &Ioeventfd) -> u32 {
    // Ports, the channels of s390, or memory.
    event.flags & (IOEVENTFD_FLAG_PIO | 8)
}

const fn is_wildcard(event: &Ioeventfd) -> bool {
    event.flags & IOEVENTFD_FLAG_DATAMATCH == 0
}

fn collides(known: &Ioeventfd, new: &Ioeventfd) -> bool {
    bus(known) == bus(new)
        && known.addr == new.addr
        && (known.len == 0
            || new.len == 0
            || (known.len == new.len
                && (is_wildcard(known) || is_wildcard(new) || known.datamatch == new.datamatch)))
}

fn is_same(known: &Ioeventfd, args: &Ioeventfd) -> bool {
    let same_value = is_wildcard(args) || known.datamatch == args.datamatch;
    bus(known) == bus(args)
        && known.fd == args.fd
        && known.addr == args.addr
        && known.len == args.len
        && is_wildcard(known) == is_wildcard(args)
        && same_value
}
