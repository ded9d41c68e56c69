//! One vCPU's turn: an entry and its exit, or one more effect of a conversion that others run in between of.

use super::devices::Devices;
use super::shelf::Shelf;
use exeunt::memory::{Converting, GuestMemory};
use exeunt::plan::conversion_reply;
use exeunt::run::{commit, drain, step_observed};
use exeunt::{Plan, Policy, Stop, Watch};
use exeunt_abi::kvm::run::{PORT_DATA_BYTES, RunPage};
use exeunt_abi::{Errno, Kernel};
use exeunt_model::{Rng, Vcpu};
use exeunt_proto::conversion::{Conversion, PageRange};
use exeunt_proto::exit::{self, Entered};
use exeunt_proto::host::Vcpu as Port;
use exeunt_proto::reply::{self, Reply};

/// A vCPU of a world, between turns.
pub(super) struct Runner<'m> {
    vcpu: Stirred,
    watch: Watch,
    under_way: Option<UnderWay<'m>>,
    /// There is a page that nobody has looked at.
    has_entered: bool,
}

/// A conversion whose effects are carried out one by one.
struct UnderWay<'m> {
    conversion: Conversion,
    /// It has begun, because no other one overlaps.
    converting: Option<Converting<'m>>,
    last: Result<(), Errno>,
    /// The guest waits for an answer; a memory fault has none.
    is_answered: bool,
}

/// A vCPU that lets the host's certificates be updated at each entry.
struct Stirred {
    inner: Vcpu,
    shelf: Shelf,
}

impl Port for Stirred {
    fn enter(&mut self) -> Entered {
        self.shelf.stir();
        self.inner.enter()
    }

    fn enter_immediately(&mut self) -> Entered {
        self.shelf.stir();
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

impl<'m> Runner<'m> {
    pub(super) fn new(vcpu: Vcpu, shelf: Shelf) -> Self {
        Self {
            vcpu: Stirred { inner: vcpu, shelf },
            watch: Watch::default(),
            under_way: None,
            has_entered: false,
        }
    }

    pub(super) const fn vcpu(&self) -> &Vcpu {
        &self.vcpu.inner
    }

    /// The conversion that is under way, or waits for another.
    pub(super) fn converting(&self) -> Option<PageRange> {
        self.under_way.as_ref().map(|under_way| under_way.conversion.range)
    }

    /// Whether the vCPU was entered since this was asked last, so that its page is another.
    pub(super) const fn take_entered(&mut self) -> bool {
        std::mem::replace(&mut self.has_entered, false)
    }

    /// Hands over what is pending, as before a snapshot.
    pub(super) fn drain(&mut self, devices: &mut Devices, policy: &Policy) -> Result<(), Stop> {
        self.has_entered = true;
        drain(&mut self.vcpu, devices, policy)
    }

    /// An entry and all that follows from its exit; or, with a conversion under way, its next effect.
    pub(super) fn turn(
        &mut self,
        devices: &mut Devices,
        policy: &Policy,
        memory: &'m GuestMemory,
        rng: &mut Rng,
    ) -> Result<(), Stop> {
        if self.under_way.is_some() {
            self.go_on(devices, memory);
            return Ok(());
        }
        self.has_entered = true;
        let entered = self.vcpu.enter();
        let kernel = self.vcpu.kernel();
        let decoded = exit::decode(entered, self.vcpu.page(), kernel)?;
        self.watch.note(&decoded)?;
        let plan = policy.plan(&decoded)?;
        self.watch.note_plan(&decoded, &plan)?;
        let is_answered = matches!(plan, Plan::Convert { .. });
        if let Plan::Convert { conversion, .. } | Plan::ConvertForFault { conversion, .. } = plan {
            let under_way = UnderWay { conversion, converting: None, last: Ok(()), is_answered };
            self.under_way = Some(under_way);
            // Now and then all at once, if nobody is in the way.
            while rng.below(2) == 0 && self.under_way.is_some() {
                self.go_on(devices, memory);
            }
            return Ok(());
        }
        let answer = plan.carry_out(devices, self.vcpu.port_data());
        match answer.encode(kernel, self.vcpu.page_mut()) {
            Some(lease) => commit(lease, &mut self.vcpu, devices, policy),
            None => Ok(()),
        }
    }

    /// One more effect of the conversion under way, or its answer.
    fn go_on(&mut self, devices: &mut Devices, memory: &'m GuestMemory) {
        let Some(under_way) = &mut self.under_way else { return };
        let Some(converting) = &mut under_way.converting else {
            under_way.converting = memory.try_begin(under_way.conversion);
            return;
        };
        if let Some(effect) = converting.next_effect(under_way.last) {
            under_way.last = effect.carry_out(devices);
            return;
        }
        let Some(UnderWay { converting: Some(converting), is_answered, .. }) = self.under_way.take() else {
            return;
        };
        let result = converting.finish();
        memory.reclaim(devices, &mut ());
        if is_answered {
            let kernel = self.vcpu.kernel();
            reply::encode(Reply::Conversion(conversion_reply(result)), kernel, self.vcpu.page_mut());
        }
    }

    /// The whole way in one, by the service's own loop. For worlds that nobody stops in the middle.
    pub(super) fn step(&mut self, devices: &mut Devices, policy: &Policy) -> Result<(), Stop> {
        self.has_entered = true;
        step_observed(&mut self.vcpu, devices, policy, &mut self.watch, &mut ())
    }
}
