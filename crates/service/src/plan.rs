//! Plans: the answer to an exit before anything of it has happened.

use crate::certs::{self, CertsPlan, Lease, Unavailable};
use crate::layer::trace::Observer;
use crate::memory::GuestMemory;
use crate::tdx::TdxPlan;
use crate::vmgexit;
use exeunt_abi::kvm::run::RunPage;
use exeunt_abi::{Errno, Kernel, PAGE_SIZE};
use exeunt_proto::conversion::{Conversion, ConversionError, PageRange};
use exeunt_proto::exit::{Io, Mmio};
use exeunt_proto::host::{Action, Host};
use exeunt_proto::reply::{self, CertsReply, ConversionReply, MsrReply, Reply};
use std::fmt;

/// What is to be done about one exit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Plan<'a> {
    /// Nothing: enter again.
    Resume,
    /// Convert pages and say so.
    Convert {
        /// Which pages, to what.
        conversion: Conversion,
        /// The memory that it is clipped to.
        memory: &'a GuestMemory,
    },
    /// Convert pages so that an access succeeds when it is tried again.
    ConvertForFault {
        /// Which pages, to what.
        conversion: Conversion,
        /// The memory that it is clipped to.
        memory: &'a GuestMemory,
    },
    /// Refuse a conversion that makes no sense.
    RefuseConversion(ConversionError),
    /// Refuse a conversion to private where a page has no private half.
    NoPrivateMemory(Conversion),
    /// Refuse a hypercall.
    UnknownHypercall,
    /// Refuse an access to a model-specific register that nothing emulates.
    RefuseMsr,
    /// Answer a request for certificates, into this memory.
    Certs(CertsPlan<'a>, &'a GuestMemory),
    /// Answer a call of a TD.
    Tdx(TdxPlan<'a>),
    /// Decode and answer a `VMGEXIT`.
    Vmgexit {
        /// The GHCB MSR.
        ghcb_msr: u64,
        /// The memory that conversions are clipped to.
        memory: &'a GuestMemory,
    },
    /// Port I/O by the VMM's devices.
    PortIo(Io),
    /// Memory-mapped I/O by the VMM's devices.
    Mmio(Mmio),
}

/// The answer to an exit, once everything that it promises has happened.
#[derive(Debug)]
#[must_use]
pub struct Answer {
    /// What the kernel is told.
    pub reply: Reply,
    /// What is not to change until the kernel has acted on the answer. See [`crate::run::commit`].
    pub lease: Option<Lease>,
}

impl Answer {
    /// Writes the answer into the run page. What is returned is to be held until the answer is committed.
    #[must_use = "a lease ends when it is dropped"]
    pub fn encode(self, kernel: Kernel, page: &mut RunPage) -> Option<Lease> {
        reply::encode(self.reply, kernel, page);
        self.lease
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, lease: None }
    }
}

impl Plan<'_> {
    /// Carries the plan out and returns the answer. These are the only side effects of an exit.
    ///
    /// `port_data` is the vCPU's port page, where the data of port I/O is. A conversion that fails half way ends as
    /// [`GuestMemory::convert`] says, and the guest is told that the whole failed, so it may ask again for all of it.
    pub fn carry_out(&self, host: &mut impl Host, port_data: &mut [u8]) -> Answer {
        self.carry_out_observed(host, port_data, &mut ())
    }

    /// As [`Plan::carry_out`], with someone who watches each effect.
    pub fn carry_out_observed(
        &self,
        host: &mut impl Host,
        port_data: &mut [u8],
        observer: &mut impl Observer,
    ) -> Answer {
        let reply = match self {
            Self::Resume => Reply::None,
            Self::Convert { conversion, memory } => {
                Reply::Conversion(conversion_reply(memory.convert(*conversion, host, observer)))
            }
            Self::ConvertForFault { conversion, memory } => {
                // There is nobody to tell of a failure: the access faults again, and `Watch` bounds how often.
                let _ = memory.convert(*conversion, host, observer);
                Reply::None
            }
            Self::RefuseConversion(_) | Self::NoPrivateMemory(_) => {
                Reply::Conversion(ConversionReply::Invalid)
            }
            Self::UnknownHypercall => Reply::UnknownHypercall,
            Self::RefuseMsr => Reply::Msr(MsrReply::Fault),
            Self::Certs(plan, memory) => return carry_out_certs(*plan, memory, host, observer),
            Self::Tdx(plan) => plan.carry_out(host, observer),
            Self::Vmgexit { ghcb_msr, memory } => {
                Reply::Vmgexit(vmgexit::carry_out(*ghcb_msr, memory, host, observer))
            }
            Self::PortIo(io) => {
                let data = port_data.get_mut(io.data_range()).unwrap_or_default();
                if io.is_out {
                    host.port_out(io.port, io.size, data);
                } else {
                    host.port_in(io.port, io.size, data);
                }
                Reply::None
            }
            Self::Mmio(mmio) => carry_out_mmio(mmio, host),
        };
        reply.into()
    }
}

/// What a guest is told of its conversion, for who carries it out by [`GuestMemory::try_begin`]. A TD asks again after `Again`; an SNP guest takes both for the end, so that
/// what a repetition can mend has been repeated before.
#[must_use]
pub fn conversion_reply(result: Result<(), Errno>) -> ConversionReply {
    match result {
        Ok(()) => ConversionReply::Done,
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOMEM | Errno::EBUSY) => ConversionReply::Again,
        Err(_) => ConversionReply::Invalid,
    }
}

fn carry_out_certs(
    plan: CertsPlan<'_>,
    memory: &GuestMemory,
    host: &mut impl Host,
    observer: &mut impl Observer,
) -> Answer {
    let reply = match plan {
        CertsPlan::Answer(answer) => answer,
        CertsPlan::Install(action) => write_table(action, memory, host, observer),
        CertsPlan::Ask { provider, request, is_writable } => match provider.lease() {
            Err(Unavailable::Busy) => CertsReply::Busy,
            Err(Unavailable::Broken) => CertsReply::Failed,
            Ok(lease) => {
                let plan = certs::install(lease.table().as_bytes(), request, is_writable);
                let answer = carry_out_certs(plan, memory, host, observer);
                // The firmware is asked only if the table is there, so that nothing else needs the lease.
                let is_installed = answer.reply == Reply::Certs(CertsReply::Installed);
                return Answer { lease: is_installed.then_some(lease), ..answer };
            }
        },
    };
    Reply::Certs(reply).into()
}

/// The guest may have converted its buffer since the plan, or be about to.
fn write_table(
    action: Action<'_>,
    memory: &GuestMemory,
    host: &mut impl Host,
    observer: &mut impl Observer,
) -> CertsReply {
    let Action::WriteGuest { gpa, bytes } = action else { return CertsReply::Failed };
    let Some(range) = PageRange::new(gpa.gfn(), (bytes.len() as u64).div_ceil(PAGE_SIZE)) else {
        return CertsReply::Failed;
    };
    let Some(_held) = memory.try_hold(range) else { return CertsReply::Busy };
    if !memory.is_shared(range) {
        return CertsReply::Failed;
    }
    match apply_all(std::iter::once(action), host, observer) {
        Ok(()) => CertsReply::Installed,
        Err(_) => CertsReply::Failed,
    }
}

fn carry_out_mmio(mmio: &Mmio, host: &mut impl Host) -> Reply {
    let mut bytes = mmio.data;
    let data = bytes.get_mut(..usize::from(mmio.len)).unwrap_or_default();
    if mmio.is_write {
        host.mmio_write(mmio.gpa, data);
        Reply::None
    } else {
        host.mmio_read(mmio.gpa, data);
        Reply::MmioRead(bytes)
    }
}

/// Applies actions in order, up to the first that fails.
pub(crate) fn apply_all<'a>(
    mut actions: impl Iterator<Item = Action<'a>>,
    host: &mut impl Host,
    observer: &mut impl Observer,
) -> Result<(), Errno> {
    actions.try_for_each(|action| {
        let result = host.apply(&action);
        observer.effect(&action, result);
        result
    })
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resume => f.write_str("enter again"),
            Self::Convert { conversion, .. } => write!(f, "make {} {}", conversion.range, conversion.to),
            Self::ConvertForFault { conversion, .. } => {
                write!(f, "make {} {} for the access", conversion.range, conversion.to)
            }
            Self::RefuseConversion(error) => write!(f, "refuse: {error}"),
            Self::NoPrivateMemory(conversion) => {
                write!(f, "refuse: {} has no private memory throughout", conversion.range)
            }
            Self::UnknownHypercall => f.write_str("refuse an unknown hypercall"),
            Self::RefuseMsr => f.write_str("refuse an access to a model-specific register"),
            Self::Certs(CertsPlan::Install(Action::WriteGuest { gpa, bytes }), _) => {
                write!(f, "write a certificate table of {} bytes to {gpa}", bytes.len())
            }
            Self::Certs(CertsPlan::Install(_), _) => f.write_str("install certificates"),
            Self::Certs(CertsPlan::Ask { .. }, _) => f.write_str("ask the provider for certificates"),
            Self::Certs(CertsPlan::Answer(answer), _) => match answer {
                CertsReply::Installed => f.write_str("go on without certificates"),
                CertsReply::TooSmall { pages } => write!(f, "ask for a buffer of {pages} pages"),
                CertsReply::Busy => f.write_str("ask the guest to come back"),
                CertsReply::Failed => f.write_str("refuse the request for certificates"),
            },
            Self::Tdx(plan) => plan.fmt(f),
            Self::Vmgexit { ghcb_msr, .. } => write!(f, "decode the VMGEXIT with the GHCB MSR {ghcb_msr:#x}"),
            Self::PortIo(io) => {
                let verb = if io.is_out { "write" } else { "read" };
                write!(f, "{verb} {} x {} bytes at port {:#x}", io.count, io.size, io.port)
            }
            Self::Mmio(mmio) => {
                let verb = if mmio.is_write { "write" } else { "read" };
                write!(f, "{verb} {} bytes at {}", mmio.len, mmio.gpa)
            }
        }
    }
}
