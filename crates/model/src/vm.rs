//! A VM and its ioctls.

use crate::effects::Effects;
use crate::faults::{FaultPlan, Faults, Met};
use crate::guest::{Cpu, GuestFault};
use crate::host::Host;
use crate::kvm::check_extension;
use crate::memory::{Memory, UserMemory};
use crate::psp::Firmware;
use crate::state::VmState;
use crate::vcpu::Vcpu;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Kernel};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `KVM_MSR_EXIT_REASON_VALID_MASK`.
const MSR_EXIT_REASONS: u64 = 0x7;

/// A VM of the model. Clones are handles of the same VM.
#[derive(Clone, Debug)]
pub struct Vm {
    state: Arc<Mutex<VmState>>,
    /// The mask of hypercalls that exit. KVM reads it without a lock, and so may change it under a running vCPU.
    exit_hypercalls: Arc<AtomicU64>,
    /// vCPUs with nothing to do sleep.
    pub(crate) blocking: Arc<AtomicBool>,
    /// `kvm->vm_dead`: every ioctl of the VM and its vCPUs fails from then on.
    dead: Arc<AtomicBool>,
    pub(crate) faults: Faults,
}

/// Flags of `KVM_CAP_X86_NOTIFY_VMEXIT` that no kernel knows.
const NOTIFY_UNKNOWN: u64 = 0xffff_fffc;

impl Vm {
    pub(crate) fn new(kernel: Kernel, host: Host, vm_type: VmType, user: Arc<dyn UserMemory>) -> Self {
        let faults = Faults::default();
        let memory = Memory::new(kernel, vm_type, user, faults.clone());
        let state = Arc::new(Mutex::new(VmState::new(kernel, host, vm_type, memory)));
        let (exit_hypercalls, blocking, dead) = Default::default();
        Self { state, exit_hypercalls, blocking, dead, faults }
    }

    /// Whether two handles are of the same VM.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// `user_exit_on_hypercall(KVM_HC_MAP_GPA_RANGE)`.
    pub(crate) fn map_gpa_range_exits(&self) -> bool {
        self.exit_hypercalls.load(Ordering::Relaxed) & (1 << MAP_GPA_RANGE) != 0
    }

    /// `kvm->vm_dead`.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// `kvm_vm_dead`: KVM, or the TDX module, cannot go on with the VM.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// The state. A poisoned lock is taken all the same: every change of the state is complete when a lock ends.
    pub(crate) fn lock(&self) -> MutexGuard<'_, VmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `KVM_CHECK_EXTENSION` on the VM.
    #[must_use]
    pub fn check_extension(&self, cap: Cap) -> u64 {
        let state = self.lock();
        match cap {
            Cap::MEMORY_ATTRIBUTES | Cap::GUEST_MEMFD if !state.vm_type.has_private_memory() => 0,
            cap => check_extension(state.kernel, state.host, cap),
        }
    }

    /// `KVM_ENABLE_CAP` with one argument and no flags.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vm_ioctl_enable_cap`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a capability that this kernel lacks or does not let a VMM enable, and for a mask of hypercalls
    /// with an unknown bit.
    pub fn enable_cap(&self, cap: Cap, argument: u64) -> Result<(), Errno> {
        let mut state = self.lock();
        if check_extension(state.kernel, state.host, cap) == 0 {
            return Err(Errno::EINVAL);
        }
        match cap {
            Cap::EXIT_HYPERCALL if argument & !(1 << MAP_GPA_RANGE) == 0 => {
                self.exit_hypercalls.store(argument, Ordering::Relaxed);
                return Ok(());
            }
            // The window is in the upper half.
            Cap::X86_NOTIFY_VMEXIT
                if argument & NOTIFY_UNKNOWN != 0 || argument & 1 == 0 || state.vcpus > 0 =>
            {
                return Err(Errno::EINVAL);
            }
            Cap::X86_USER_SPACE_MSR if argument & !MSR_EXIT_REASONS != 0 => return Err(Errno::EINVAL),
            Cap::X86_USER_SPACE_MSR
            | Cap::EXCEPTION_PAYLOAD
            | Cap::X86_TRIPLE_FAULT_EVENT
            | Cap::X86_NOTIFY_VMEXIT
            | Cap::ARM_SYSTEM_SUSPEND => {}
            _ => return Err(Errno::EINVAL),
        }
        state.set_cap(cap, argument);
        Ok(())
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

    /// `KVM_CREATE_VCPU`: a vCPU that runs `program`. `seed` decides what the program draws by chance.
    ///
    /// # Errors
    ///
    /// `EINVAL` above 1024 vCPUs, for a TD above the processors of the host; `EIO` for a TD before `KVM_TDX_INIT_VM`.
    pub fn create_vcpu<P, F>(&self, seed: u64, program: P) -> Result<Vcpu, Errno>
    where
        P: FnOnce(Cpu) -> F,
        F: Future<Output = Result<(), GuestFault>> + Send + 'static,
    {
        let peer = Arc::default();
        let id = {
            let mut state = self.lock();
            if state.vcpus >= u64::from(state.max_vcpus()) {
                return Err(Errno::EINVAL);
            }
            state.check_td_vcpu()?;
            let id = state.vcpus;
            state.vcpus = id.saturating_add(1);
            state.peers.push(Arc::clone(&peer));
            let launched = state.launched;
            state.sev.add_vcpu(id, launched);
            id
        };
        Ok(Vcpu::new(self.clone(), peer, id, seed, program))
    }
}
