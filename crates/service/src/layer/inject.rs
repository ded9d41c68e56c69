//! Faults on demand, around a host or a vCPU.

use exeunt_abi::kvm::run::{PORT_DATA_BYTES, RunPage};
use exeunt_abi::{Errno, Gpa, Kernel};
use exeunt_proto::conversion::Conversion;
use exeunt_proto::exit::{Entered, Exit};
use exeunt_proto::host::{Action, Host, Vcpu};

/// Which effect is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectKind {
    /// A change of attributes.
    SetAttributes,
    /// A discard.
    Discard,
    /// A write to guest memory.
    WriteGuest,
}

/// One effect that is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectFault {
    /// Which kind.
    pub kind: EffectKind,
    /// Which of its kind, counted from 1.
    pub nth: u32,
    /// How it fails.
    pub errno: Errno,
}

/// A host whose effects fail as planned. An effect that fails does not happen.
#[derive(Clone, Debug)]
pub struct FaultyHost<H> {
    inner: H,
    faults: Vec<EffectFault>,
    seen: [u32; 3],
}

impl<H> FaultyHost<H> {
    /// Puts the faults around a host.
    pub const fn new(inner: H, faults: Vec<EffectFault>) -> Self {
        Self { inner, faults, seen: [0; 3] }
    }

    /// The host inside.
    #[must_use]
    pub fn into_inner(self) -> H {
        self.inner
    }
}

impl<H: Host> Host for FaultyHost<H> {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        let [attributes, discards, writes] = &mut self.seen;
        let (kind, seen) = match action {
            Action::SetAttributes { .. } => (EffectKind::SetAttributes, attributes),
            Action::Discard { .. } => (EffectKind::Discard, discards),
            Action::WriteGuest { .. } => (EffectKind::WriteGuest, writes),
            _ => return self.inner.apply(action),
        };
        *seen = seen.saturating_add(1);
        match self.faults.iter().find(|fault| fault.kind == kind && fault.nth == *seen) {
            Some(fault) => Err(fault.errno),
            None => self.inner.apply(action),
        }
    }

    fn before_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        self.inner.before_conversion(conversion)
    }

    fn after_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        self.inner.after_conversion(conversion)
    }

    fn undo_conversion(&mut self, conversion: Conversion) {
        self.inner.undo_conversion(conversion);
    }

    fn dump(&mut self, exit: &Exit) {
        self.inner.dump(exit);
    }

    fn vcpu_id(&self) -> u64 {
        self.inner.vcpu_id()
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.inner.read_guest(gpa, bytes)
    }

    fn port_out(&mut self, port: u16, size: u8, data: &[u8]) {
        self.inner.port_out(port, size, data);
    }

    fn port_in(&mut self, port: u16, size: u8, data: &mut [u8]) {
        self.inner.port_in(port, size, data);
    }

    fn mmio_write(&mut self, gpa: Gpa, data: &[u8]) {
        self.inner.mmio_write(gpa, data);
    }

    fn mmio_read(&mut self, gpa: Gpa, data: &mut [u8]) {
        self.inner.mmio_read(gpa, data);
    }
}

/// A vCPU whose chosen entries are interrupted: the answer is handed over, the guest does not run. An answer that
/// leads to another exit brings that exit all the same, as on a real kernel.
#[derive(Clone, Debug)]
pub struct InterruptedVcpu<V> {
    inner: V,
    interrupted: Vec<u32>,
    entries: u32,
}

impl<V> InterruptedVcpu<V> {
    /// Interrupts the entries with these numbers, counted from 1.
    pub const fn new(inner: V, interrupted: Vec<u32>) -> Self {
        Self { inner, interrupted, entries: 0 }
    }

    /// The vCPU inside.
    pub const fn inner_mut(&mut self) -> &mut V {
        &mut self.inner
    }
}

impl<V: Vcpu> Vcpu for InterruptedVcpu<V> {
    fn enter(&mut self) -> Entered {
        self.entries = self.entries.saturating_add(1);
        if self.interrupted.contains(&self.entries) {
            self.inner.enter_immediately()
        } else {
            self.inner.enter()
        }
    }

    fn enter_immediately(&mut self) -> Entered {
        self.inner.enter_immediately()
    }

    fn kernel(&self) -> Kernel {
        self.inner.kernel()
    }

    fn page(&self) -> &RunPage {
        self.inner.page()
    }

    fn page_mut(&mut self) -> &mut RunPage {
        self.inner.page_mut()
    }

    fn port_data(&mut self) -> &mut [u8; PORT_DATA_BYTES] {
        self.inner.port_data()
    }
}
