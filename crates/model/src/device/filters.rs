//! What a guest may touch: `KVM_X86_SET_MSR_FILTER` and `KVM_SET_PMU_EVENT_FILTER`.

use super::call::Call;
use crate::vcpu::{MsrFilter, MsrFilterRange};
use crate::vm::Vm;
use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::msr as abi;

/// `KVM_MSR_FILTER_MAX_BITMAP_SIZE` in registers.
const MAX_MSRS: u32 = 0x600 * 8;
/// `KVM_PMU_EVENT_FILTER_MAX_EVENTS`.
const MAX_EVENTS: u32 = 300;
/// Bytes of `struct kvm_pmu_event_filter` before its events.
const PMU_HEAD_WORDS: usize = 8;

impl Call<'_> {
    /// The ioctls of filters; `None` is another ioctl.
    pub(super) fn on_filters(&self, vm: &Vm) -> Option<Result<u32, Errno>> {
        Some(match self.request {
            nr::KVM_X86_SET_MSR_FILTER => self.set_msr_filter(vm),
            nr::KVM_SET_PMU_EVENT_FILTER => self.set_pmu_event_filter(),
            _ => return None,
        })
    }

    /// The ranges are judged one by one, each before its bitmap is read.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vm_ioctl_set_msr_filter` and `kvm_add_msr_filter`.
    fn set_msr_filter(&self, vm: &Vm) -> Result<u32, Errno> {
        let given: abi::MsrFilter = self.get()?;
        let is_empty = given.ranges.iter().all(|range| range.nmsrs == 0);
        // To deny everything would deny what KVM itself needs.
        if given.flags & !1 != 0 || (is_empty && given.flags != 0) {
            return Err(Errno::EINVAL);
        }
        let mut ranges = Vec::new();
        for range in given.ranges.iter().filter(|range| range.nmsrs != 0) {
            if !matches!(range.flags, 1..=3) || range.nmsrs > MAX_MSRS {
                return Err(Errno::EINVAL);
            }
            let bytes = range.nmsrs.div_ceil(64).saturating_mul(8);
            let mut bitmap = vec![0; usize::try_from(bytes).unwrap_or(0)];
            self.user.read(range.bitmap, &mut bitmap)?;
            ranges.push(MsrFilterRange { flags: range.flags, base: range.base, nmsrs: range.nmsrs, bitmap });
        }
        vm.set_msr_filter(MsrFilter { flags: given.flags, ranges }).map(|()| 0)
    }

    /// Source: Linux v7.2 `arch/x86/kvm/pmu.c`, `kvm_vm_ioctl_set_pmu_event_filter`.
    fn set_pmu_event_filter(&self) -> Result<u32, Errno> {
        let [action, nevents, _, flags, ..]: [u32; PMU_HEAD_WORDS] = self.get()?;
        // KVM_PMU_EVENT_ALLOW and KVM_PMU_EVENT_DENY; KVM_PMU_EVENT_FLAG_MASKED_EVENTS.
        if action > 1 || flags & !1 != 0 {
            return Err(Errno::EINVAL);
        }
        if nevents > MAX_EVENTS {
            return Err(Errno::E2BIG);
        }
        // The guests of the model count nothing, so the events are read and not kept.
        self.get_array::<u64>(PMU_HEAD_WORDS.saturating_mul(4), nevents).map(|_| 0)
    }
}
