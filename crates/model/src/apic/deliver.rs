//! Interrupts on their way from one processor, or from a device, to others.

use crate::vcpu::peer::Peer;
use crate::vm::Vm;
use exeunt_abi::Errno;
use std::sync::Arc;

/// `APIC_DM_*` without the shift.
mod mode {
    pub(super) const FIXED: u8 = 0;
    pub(super) const LOWEST_PRIORITY: u8 = 1;
    pub(super) const SMI: u8 = 2;
    /// "Remote read", which KVM uses for `KVM_HC_KICK_CPU`.
    pub(super) const REMOTE_READ: u8 = 3;
    pub(super) const NMI: u8 = 4;
    pub(super) const INIT: u8 = 5;
    pub(super) const STARTUP: u8 = 6;
}

/// Who is meant, in place of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shorthand {
    None,
    Me,
    All,
    Others,
}

/// `struct kvm_lapic_irq`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipi {
    vector: u8,
    mode: u8,
    logical: bool,
    /// `APIC_INT_ASSERT`.
    assert: bool,
    level_triggered: bool,
    shorthand: Shorthand,
    destination: u32,
}

/// All processors, in x2APIC mode.
const BROADCAST: u32 = u32::MAX;
/// The same in 8 bits.
const BROADCAST_XAPIC: u32 = 0xff;

impl Ipi {
    /// The interrupt command register.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/lapic.c`, `kvm_apic_send_ipi`.
    pub(crate) fn from_icr(icr: u64) -> Self {
        let has = |bit: u32| icr >> bit & 1 == 1;
        Self {
            vector: byte(icr),
            mode: byte(icr >> 8 & 7),
            logical: has(11),
            assert: has(14),
            level_triggered: has(15),
            shorthand: match icr >> 18 & 3 {
                0 => Shorthand::None,
                1 => Shorthand::Me,
                2 => Shorthand::All,
                _ => Shorthand::Others,
            },
            destination: crate::vcpu::low(icr >> 32),
        }
    }

    /// A message-signalled interrupt.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/irq_comm.c`, `kvm_msi_to_lapic_irq`.
    fn from_msi(address: u64, data: u32) -> Self {
        let data = u64::from(data);
        Self {
            vector: byte(data),
            mode: byte(data >> 8 & 7),
            logical: address >> 2 & 1 == 1,
            assert: true,
            level_triggered: data >> 15 & 1 == 1,
            shorthand: Shorthand::None,
            destination: crate::vcpu::low(address >> 12 & 0xff | address >> 32 & 0xffff_ff00),
        }
    }

    /// An interrupt for the processor that sends it.
    pub(crate) const fn to_self(vector: u8) -> Self {
        Self {
            vector,
            mode: mode::FIXED,
            logical: false,
            assert: true,
            level_triggered: false,
            shorthand: Shorthand::Me,
            destination: 0,
        }
    }

    /// Whether the processor with this APIC id is meant.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/lapic.c`, `kvm_apic_match_dest`; logical ids are those of x2APIC mode.
    fn means(&self, id: u64, source: Option<u64>) -> bool {
        let is_source = source == Some(id);
        match self.shorthand {
            Shorthand::Me => is_source,
            Shorthand::All => true,
            Shorthand::Others => !is_source,
            Shorthand::None => {
                let is_broadcast = self.destination == BROADCAST || self.destination == BROADCAST_XAPIC;
                if is_broadcast {
                    true
                } else if self.logical {
                    u64::from(self.destination >> 16) == id >> 4 && self.destination >> (id & 15) & 1 == 1
                } else {
                    u64::from(self.destination) == id
                }
            }
        }
    }

    /// Gives the interrupt to a processor. Returns whether it took it.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/lapic.c`, `__apic_accept_irq`.
    fn give(&self, to: &Peer) -> bool {
        let fixed = matches!(self.mode, mode::FIXED | mode::LOWEST_PRIORITY);
        if fixed && (self.level_triggered && !self.assert || !to.apic_is_enabled()) {
            return false;
        }
        // INIT with the level de-asserted is a leftover of the oldest processors.
        if self.mode == mode::INIT && self.level_triggered && !self.assert || self.mode > mode::STARTUP {
            return false;
        }
        to.knock(|inbox| match self.mode {
            mode::SMI => inbox.smi = true,
            mode::REMOTE_READ => inbox.unhalted = true,
            mode::NMI => inbox.nmis = inbox.nmis.saturating_add(1),
            mode::INIT => (inbox.init, inbox.sipi) = (true, None),
            mode::STARTUP => inbox.sipi = Some(self.vector),
            _ => {
                if let Some(word) = inbox.interrupts.get_mut(usize::from(self.vector >> 6)) {
                    *word |= 1 << (self.vector & 63);
                }
            }
        });
        true
    }
}

/// The low byte.
const fn byte(word: u64) -> u8 {
    let [low, ..] = word.to_le_bytes();
    low
}

impl Vm {
    /// Delivers an interrupt. Returns how many processors took it.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/irq.c`, `kvm_irq_delivery_to_apic`.
    pub(crate) fn deliver(&self, ipi: &Ipi, source: Option<u64>) -> u64 {
        let peers: Vec<Arc<Peer>> = {
            let state = self.lock();
            if !state.platform.irqchip.has_lapic() {
                return 0;
            }
            let meant = state.peers.iter().filter(|(id, _)| ipi.means(**id, source));
            meant.map(|(_, peer)| Arc::clone(peer)).collect()
        };
        let most = if ipi.mode == mode::LOWEST_PRIORITY { 1 } else { peers.len() };
        peers.iter().take(most).map(|peer| u64::from(ipi.give(peer))).sum()
    }

    /// `KVM_SIGNAL_MSI` without flags. Returns how many processors took the interrupt. It can be an INIT or a startup
    /// interrupt, too.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/irq.c`, `kvm_send_userspace_msi`.
    ///
    /// # Errors
    ///
    /// `EINVAL` without a local APIC in the kernel.
    pub fn signal_msi(&self, address: u64, data: u32) -> Result<u64, Errno> {
        if !self.lock().platform.irqchip.has_lapic() {
            return Err(Errno::EINVAL);
        }
        Ok(self.deliver(&Ipi::from_msi(address, data), None))
    }

    /// `KVM_HC_KICK_CPU`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_pv_kick_cpu_op`.
    pub(crate) fn kick_by_apic_id(&self, id: u64) {
        let kick = Ipi { mode: mode::REMOTE_READ, destination: crate::vcpu::low(id), ..Ipi::to_self(0) };
        self.deliver(&Ipi { shorthand: Shorthand::None, ..kick }, None);
    }

    /// `KVM_HC_SEND_IPI`: 128 processors from `min` on, a bit for each. Returns how many took it.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/lapic.c`, `kvm_pv_send_ipi`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an interrupt with a destination of its own; `EOPNOTSUPP` without a local APIC in the kernel.
    pub(crate) fn send_ipis(&self, bitmap: [u64; 2], min: u32, icr: u64) -> Result<u64, Errno> {
        let ipi = Ipi::from_icr(icr & 0xffff_ffff);
        if ipi.logical || ipi.shorthand != Shorthand::None {
            return Err(Errno::EINVAL);
        }
        let vcpus = {
            let state = self.lock();
            if !state.platform.irqchip.has_lapic() {
                return Err(Errno::EOPNOTSUPP);
            }
            state.vcpus
        };
        let [low, high] = bitmap.map(u128::from);
        let wanted = high << 64 | low;
        let ids = (0..128u32).filter(|bit| wanted >> bit & 1 == 1).filter_map(|bit| min.checked_add(bit));
        let there = ids.filter(|id| u64::from(*id) < vcpus);
        Ok(there.map(|destination| self.deliver(&Ipi { destination, ..ipi }, None)).sum())
    }
}
