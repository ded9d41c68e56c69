//! A VM and its ioctls.

use crate::caps::Asked;
use crate::effects::Effects;
use crate::faults::{FaultPlan, Faults, Met};
use crate::ghcb::Compiler;
use crate::guest::{Cpu, GuestFault};
use crate::host::Host;
use crate::memory::{Memory, UserMemory};
use crate::psp::Firmware;
use crate::state::VmState;
use crate::vcpu::Vcpu;
use crate::vcpu::peer::Peer;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Kernel};
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A VM of the model. Clones are handles of the same VM.
#[derive(Clone, Debug)]
pub struct Vm {
    state: Arc<Mutex<VmState>>,
    /// The mask of hypercalls that exit. KVM reads it without a lock, and so may change it under a running vCPU.
    exit_hypercalls: Arc<AtomicU64>,
    /// vCPUs with nothing to do sleep.
    pub(crate) blocking: Arc<AtomicBool>,
    /// `KVM_REQ_VM_DEAD` for every vCPU, and for every ioctl.
    dead: Arc<AtomicBool>,
    user: Arc<dyn UserMemory>,
    pub(crate) faults: Faults,
}

impl Vm {
    pub(crate) fn new(kernel: Kernel, host: Host, vm_type: VmType, user: Arc<dyn UserMemory>) -> Self {
        let faults = Faults::default();
        let memory = Memory::new(kernel, vm_type, Arc::clone(&user), faults.clone());
        let state = Arc::new(Mutex::new(VmState::new(kernel, host, vm_type, memory)));
        let (exit_hypercalls, blocking, dead) = Default::default();
        Self { state, exit_hypercalls, blocking, dead, user, faults }
    }

    /// Whether two handles are of the same VM.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// `user_exit_on_hypercall(KVM_HC_MAP_GPA_RANGE)`.
    pub(crate) fn map_gpa_range_exits(&self) -> bool {
        self.exit_hypercalls.load(Ordering::Relaxed) & (1 << MAP_GPA_RANGE) != 0
    }

    /// The state. A poisoned lock is taken all the same: every change of the state is complete when a lock ends.
    pub(crate) fn lock(&self) -> MutexGuard<'_, VmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_exit_hypercalls(&self, mask: u64) {
        self.exit_hypercalls.store(mask, Ordering::Relaxed);
    }

    /// Whether a memory is that of the process that made the VM, which alone may use it.
    pub(crate) fn belongs_to(&self, user: &Arc<dyn UserMemory>) -> bool {
        Arc::ptr_eq(&self.user, user)
    }

    /// `vm_dead`: each ioctl of the VM, its vCPUs and devices fails with `EIO`.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// `kvm_vm_dead`: after a bug of KVM, or an access that leaves nothing to go on with. There is no way back.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// `KVM_CHECK_EXTENSION` on the VM.
    #[must_use]
    pub fn check_extension(&self, cap: Cap) -> u64 {
        let state = self.lock();
        Asked { kernel: state.kernel, host: state.host, vm_type: Some(state.vm_type) }.check(cap)
    }

    /// Chooses how the firmware answers guest requests.
    pub fn set_firmware(&self, firmware: Firmware) {
        self.lock().firmware = firmware;
    }

    /// How many guest requests the firmware was given. Each moves the guest's message sequence number on.
    #[must_use]
    pub fn firmware_requests(&self) -> u64 {
        self.lock().firmware_requests
    }

    /// Says which compiler built the kernel. It shows in page-state changes that reach the last frame of 40 bits.
    pub fn set_compiler(&self, compiler: Compiler) {
        self.lock().compiler = compiler;
    }

    /// Plans what goes wrong from now on. The counts of the points begin at 0 again.
    pub fn set_fault_plan(&self, plan: FaultPlan) {
        self.faults.set(plan);
    }

    /// What went wrong since the plan was set, up to the first 4096 faults.
    #[must_use]
    pub fn faults_met(&self) -> Vec<Met> {
        self.faults.met()
    }

    /// The effects that a VMM half has on this VM.
    #[must_use]
    pub fn effects(&self) -> Effects {
        Effects::new(self.clone())
    }

    /// `KVM_CREATE_VCPU` with the lowest id that is free: a vCPU that runs `program`. `seed` decides what the program
    /// draws by chance.
    ///
    /// # Errors
    ///
    /// As [`Vm::create_vcpu_with_id`].
    pub fn create_vcpu<P, F>(&self, seed: u64, program: P) -> Result<Vcpu, Errno>
    where
        P: FnOnce(Cpu) -> F,
        F: Future<Output = Result<(), GuestFault>> + Send + 'static,
    {
        let id = {
            let state = self.lock();
            (0..u64::MAX).find(|id| !state.peers.contains_key(id)).unwrap_or(u64::MAX)
        };
        self.create_vcpu_with_id(id, seed, program)
    }

    /// `KVM_CREATE_VCPU` with an id. A vCPU that is dropped keeps its id, as one whose descriptor is closed does.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vm_ioctl_create_vcpu`, and `arch/x86/kvm/x86.c`,
    /// `kvm_arch_vcpu_precreate`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an id that is too high, or if there are too many vCPUs, of a TD more than the host has processors; then
    /// `EIO` for a TD before `KVM_TDX_INIT_VM`; then `EEXIST` for an id that is taken.
    pub fn create_vcpu_with_id<P, F>(&self, id: u64, seed: u64, program: P) -> Result<Vcpu, Errno>
    where
        P: FnOnce(Cpu) -> F,
        F: Future<Output = Result<(), GuestFault>> + Send + 'static,
    {
        let peer = self.lock().new_peer(id)?;
        Ok(Vcpu::new(self.clone(), peer, id, seed, program))
    }
}

impl VmState {
    fn new_peer(&mut self, id: u64) -> Result<Arc<Peer>, Errno> {
        let (_, ids) = self.kernel.dialect.max_vcpus();
        if id >= ids || self.vcpus >= self.max_vcpus() {
            return Err(Errno::EINVAL);
        }
        let platform = &mut self.platform;
        // The first vCPU fixes it, also one that is then refused.
        if platform.max_vcpu_ids == 0 {
            platform.max_vcpu_ids = ids;
        }
        if id >= platform.max_vcpu_ids {
            return Err(Errno::EINVAL);
        }
        self.check_td_vcpu()?;
        let Entry::Vacant(vacant) = self.peers.entry(id) else { return Err(Errno::EEXIST) };
        let peer = Arc::clone(vacant.insert(Arc::default()));
        self.vcpus = self.vcpus.saturating_add(1);
        let launched = self.launched;
        self.sev.add_vcpu(id, launched);
        Ok(peer)
    }
}
