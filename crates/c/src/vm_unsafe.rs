//! A VM and its vCPUs, for C.
#![allow(non_camel_case_types, reason = "the names are those of the header")]

use std::ffi::{c_char, c_int, c_void};
use std::fmt::Write;
use std::ptr;
use std::sync::{Arc, OnceLock};

use exeunt::Policy;
use exeunt::layer::event::Event;
use exeunt::layer::trace::Observer;
use exeunt::memory::{MemorySlot, PageInfo};
use exeunt::terminate::Next;
use exeunt_abi::{Errno, Gpa, Kernel, PAGE_SIZE};
use exeunt_adapters::metrics::{Metrics, VcpuMetrics};
use exeunt_adapters::raw::RawPage;
use exeunt_adapters::{Leaf, Served};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::Entered;

use crate::boundary::{Text, guarded, status};
use crate::host_unsafe::{Callbacks, exeunt_host};
use crate::policy_unsafe::exeunt_policy;
use crate::stop_unsafe::{exeunt_stop, writable};

/// A VM: its memory, its policy and its host. Any thread may use it at any time.
#[derive(Clone, Debug)]
pub struct exeunt_vm(Arc<Vm>);

#[derive(Debug)]
struct Vm {
    policy: Policy,
    kernel: Kernel,
    host: Callbacks,
    end: OnceLock<exeunt_stop>,
    metrics: Option<Metrics>,
}

/// One vCPU of a VM. One thread may use it at a time.
#[derive(Debug)]
pub struct exeunt_vcpu {
    vm: Arc<Vm>,
    leaf: Leaf<Callbacks, Counted>,
    stop: Option<exeunt_stop>,
}

/// `struct kvm_run` of <linux/kvm.h>.
#[derive(Debug)]
pub struct kvm_run {
    _opaque: [u8; 0],
}

/// What became of an exit, by `exeunt_serve`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum exeunt_served {
    /// It is answered: enter again.
    EXEUNT_SERVED = 0,
    /// It is none of the confidential exits, or no exit: go on with the switch that was there before. The page is as
    /// the kernel left it. EINTR is among these.
    EXEUNT_NOT_OURS = 1,
    /// The vCPU is not to be entered again: see `exeunt_vcpu_stop`.
    EXEUNT_STOP = 2,
    /// An argument is null, too short or not aligned, or the library has a bug. Nothing was answered.
    EXEUNT_ERROR = 3,
}

/// Metrics, if the policy wants them.
#[derive(Debug)]
struct Counted(Option<VcpuMetrics>);

impl Observer for Counted {
    fn event(&mut self, event: &Event) {
        if let Some(metrics) = &mut self.0 {
            metrics.event(event);
        }
    }
}

/// Makes a VM. Policy and host are copied. 0 or a negative errno; `vm` is set to null on an error.
///
/// # Safety
///
/// `policy` is null or from `exeunt_policy_new`, and no other thread changes it. `host` is null or points at
/// `host->size` bytes of an `exeunt_host`, whose callbacks can be called with its `ctx` from any thread until the VM and
/// all of its vCPUs are freed. `vm` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_vm_new(
    policy: *const exeunt_policy,
    host: *const exeunt_host,
    vm: *mut *mut exeunt_vm,
) -> c_int {
    // SAFETY: By the contract of this function.
    let (policy, host) = (unsafe { policy.as_ref() }, unsafe { Callbacks::copy(host) });
    let make = || {
        let policy = policy.ok_or(Errno::EINVAL)?;
        let metrics = policy.has_metrics.then(Metrics::new);
        let (kernel, policy) = (policy.kernel, policy.build()?);
        let vm = Vm { policy, kernel, host: host?, end: OnceLock::new(), metrics };
        Ok(exeunt_vm(Arc::new(vm)))
    };
    // SAFETY: By the contract of this function.
    unsafe { hand_out(vm, make) }
}

/// Frees a VM. Its vCPUs go on until they are freed.
///
/// # Safety
///
/// `vm` is null or from `exeunt_vm_new`, and no thread uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_vm_free(vm: *mut exeunt_vm) {
    if !vm.is_null() {
        // SAFETY: By the contract of this function it came from `Box::into_raw`.
        guarded((), || drop(unsafe { Box::from_raw(vm) }));
    }
}

/// Adds a slot to a VM that runs, after `KVM_SET_USER_MEMORY_REGION2`. As for `exeunt_policy_add_slot`.
///
/// # Safety
///
/// `vm` is null or from `exeunt_vm_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_vm_add_slot(
    vm: *const exeunt_vm,
    gpa: u64,
    size: u64,
    has_private: bool,
) -> c_int {
    let add = |vm: &Vm| {
        let slot = MemorySlot { range: range(gpa, size)?, has_private };
        vm.policy.memory().add_slot(slot).map_err(|_| Errno::EEXIST)
    };
    // SAFETY: By the contract of this function.
    unsafe { with_vm(vm, add) }
}

/// Takes the slot that starts at `gpa` away, before it is deleted. -ENOENT if there is none. It waits for conversions of
/// its pages, so it is not to be called within a callback of one.
///
/// # Safety
///
/// As for `exeunt_vm_add_slot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_vm_remove_slot(vm: *const exeunt_vm, gpa: u64) -> c_int {
    let remove = |vm: &Vm| vm.policy.memory().remove_slot(Gpa(gpa).gfn()).then_some(()).ok_or(Errno::ENOENT);
    // SAFETY: By the contract of this function.
    unsafe { with_vm(vm, remove) }
}

/// Says that the VMM itself has made pages private or shared: at a launch, or before a restored guest runs. Pages are
/// shared at first.
///
/// # Safety
///
/// As for `exeunt_vm_add_slot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_vm_assume(
    vm: *const exeunt_vm,
    gpa: u64,
    size: u64,
    is_private: bool,
) -> c_int {
    let state = if is_private { PageState::Private } else { PageState::Shared };
    let assume = |vm: &Vm| {
        vm.policy.memory().assume(range(gpa, size)?, PageInfo::fresh(state));
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { with_vm(vm, assume) }
}

/// Whether a vCPU has ended the VM, so that no other is to be entered again: ask before each `KVM_RUN`. False for null.
///
/// # Safety
///
/// As for `exeunt_vm_add_slot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_vm_is_over(vm: *const exeunt_vm) -> bool {
    // SAFETY: By the contract of this function.
    !unsafe { exeunt_vm_stop(vm) }.is_null()
}

/// Why the VM ended: the first stop of a vCPU that ends or restarts a VM. Null if there was none. It lives as long as
/// the VM and its vCPUs.
///
/// # Safety
///
/// As for `exeunt_vm_add_slot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_vm_stop(vm: *const exeunt_vm) -> *const exeunt_stop {
    // SAFETY: By the contract of this function.
    let vm = unsafe { vm.as_ref() };
    guarded(ptr::null(), || vm.and_then(|vm| vm.0.end.get()).map_or(ptr::null(), ptr::from_ref))
}

/// Writes the metrics of the VM as Prometheus text, if the policy asked for them, with a null behind it. As snprintf:
/// what does not fit is cut, and the length of the whole is returned, without the null.
///
/// # Safety
///
/// `vm` is null or from `exeunt_vm_new`; `buffer` is null or has `length` bytes for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_vm_metrics(
    vm: *const exeunt_vm,
    buffer: *mut c_char,
    length: usize,
) -> usize {
    // SAFETY: By the contract of this function.
    let vm = unsafe { vm.as_ref() };
    // SAFETY: By the contract of this function.
    let buffer = unsafe { writable(buffer, length) };
    guarded(0, || {
        Text::print(buffer, |to| match vm.and_then(|vm| vm.0.metrics.as_ref()) {
            Some(metrics) => metrics.write(to),
            None => to.write_str(""),
        })
    })
}

/// Makes a vCPU of a VM. 0 or a negative errno; `vcpu` is set to null on an error.
///
/// # Safety
///
/// `vm` is null or from `exeunt_vm_new`; `vcpu` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_vcpu_new(vm: *const exeunt_vm, vcpu: *mut *mut exeunt_vcpu) -> c_int {
    // SAFETY: By the contract of this function.
    let vm = unsafe { vm.as_ref() };
    let make = || {
        let vm = Arc::clone(&vm.ok_or(Errno::EINVAL)?.0);
        let counted = Counted(vm.metrics.as_ref().map(Metrics::vcpu));
        let leaf = Leaf::new(vm.kernel, vm.host).observed(counted);
        Ok(exeunt_vcpu { vm, leaf, stop: None })
    };
    // SAFETY: By the contract of this function.
    unsafe { hand_out(vcpu, make) }
}

/// Frees a vCPU. It must not be in `KVM_RUN` with an answer that is held, see `exeunt_serve`.
///
/// # Safety
///
/// `vcpu` is null or from `exeunt_vcpu_new`, and not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_vcpu_free(vcpu: *mut exeunt_vcpu) {
    if !vcpu.is_null() {
        // SAFETY: By the contract of this function it came from `Box::into_raw`.
        guarded((), || drop(unsafe { Box::from_raw(vcpu) }));
    }
}

/// Services the exit that `KVM_RUN` brought, if it is one of the confidential ones: hypercalls, memory faults, requests
/// for certificates, calls of a TD, system events and triple faults.
///
/// `run` is the vCPU's page, `run_size` its length in bytes, and `run_errno` is 0 if `KVM_RUN` returned 0, else errno.
/// Call it after each `KVM_RUN`, EINTR too, before anything else changes errno or the page. Bit 6 of `immediate_exit`
/// belongs to the library: it sets it to hand an answer over while certificates are locked, and takes it back at the
/// EINTR that follows. It waits where another vCPU converts the same pages, and for the lock on a file of certificates,
/// half a second at most. None of its callbacks may use this vCPU.
///
/// # Safety
///
/// `vcpu` is null or from `exeunt_vcpu_new`. `run` is null or `run_size` bytes that are mapped for reading and writing,
/// of a vCPU that no thread is in `KVM_RUN` of; other threads write `immediate_exit` at most.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_serve(
    vcpu: *mut exeunt_vcpu,
    run: *mut kvm_run,
    run_size: usize,
    run_errno: c_int,
) -> exeunt_served {
    // SAFETY: By the contract of this function.
    let vcpu = unsafe { vcpu.as_mut() };
    // SAFETY: By the contract of this function; C has no references.
    let page = unsafe { RawPage::new(run.cast(), run_size) };
    guarded(exeunt_served::EXEUNT_ERROR, || {
        let Some((vcpu, mut page)) = vcpu.zip(page.ok()) else { return exeunt_served::EXEUNT_ERROR };
        let entered: Entered = match run_errno {
            0 => Ok(()),
            errno => Err(Errno(errno.saturating_abs())),
        };
        match vcpu.leaf.serve(entered, &mut page, &vcpu.vm.policy) {
            Served::Served => exeunt_served::EXEUNT_SERVED,
            Served::NotOurs => exeunt_served::EXEUNT_NOT_OURS,
            Served::Stop(stop) => {
                let stop = exeunt_stop(stop);
                if matches!(stop.0.kind().next(), Next::End | Next::Restart)
                    && vcpu.vm.end.set(stop.clone()).is_ok()
                {
                    vcpu.vm.host.kick();
                }
                vcpu.stop = Some(stop);
                exeunt_served::EXEUNT_STOP
            }
        }
    })
}

/// Why the vCPU stopped last. Null if it never did. It lives until the next `exeunt_serve` or `exeunt_vcpu_free`.
///
/// # Safety
///
/// `vcpu` is null or from `exeunt_vcpu_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_vcpu_stop(vcpu: *const exeunt_vcpu) -> *const exeunt_stop {
    // SAFETY: By the contract of this function.
    let vcpu = unsafe { vcpu.as_ref() };
    vcpu.and_then(|vcpu| vcpu.stop.as_ref()).map_or(ptr::null(), ptr::from_ref)
}

/// The version of the library that runs, such as "0.1.0". It is static.
#[unsafe(no_mangle)]
pub extern "C" fn exeunt_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Pages by their addresses.
pub(crate) fn range(gpa: u64, size: u64) -> Result<PageRange, Errno> {
    let is_aligned = Gpa(gpa).is_page_aligned() && Gpa(size).is_page_aligned();
    PageRange::new(Gpa(gpa).gfn(), size / PAGE_SIZE).filter(|_| is_aligned).ok_or(Errno::EINVAL)
}

/// Does something to a VM, if it is one.
///
/// # Safety
///
/// `vm` is null or from `exeunt_vm_new`.
unsafe fn with_vm(vm: *const exeunt_vm, with: impl FnOnce(&Vm) -> Result<(), Errno>) -> c_int {
    // SAFETY: By the contract of this function.
    let vm = unsafe { vm.as_ref() };
    status(|| with(&vm.ok_or(Errno::EINVAL)?.0))
}

/// Puts what was made where C wants it, or null.
///
/// # Safety
///
/// `to` is null or can be written.
unsafe fn hand_out<T>(to: *mut *mut T, make: impl FnOnce() -> Result<T, Errno>) -> c_int {
    // SAFETY: By the contract of this function.
    let Some(to) = (unsafe { to.as_mut() }) else { return -Errno::EINVAL.0 };
    *to = ptr::null_mut();
    status(|| {
        *to = Box::into_raw(Box::new(make()?));
        Ok(())
    })
}

/// Handles are shared between threads as the header says.
const _: fn() = || {
    const fn is_shared<T: Send + Sync>() {}
    const fn is_sent<T: Send>() {}
    is_shared::<exeunt_vm>();
    is_sent::<exeunt_vcpu>();
    let _: *mut c_void = ptr::null_mut();
};
