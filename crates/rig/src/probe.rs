//! What the kernel under this program offers.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::half::{Half as _, OnKvm};
use crate::script::{ARENA_BYTES, Act, Features, HOLE, HOLE_BYTES, Region, Script, Step};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::{CreateGuestMemfd, MemoryAttributes};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno};
use exeunt_linux::{Kvm, Unchecked};
use exeunt_proto::host::Vcpu as _;

/// `KVM_CAP_MULTI_ADDRESS_SPACE`, whose value is how many there are.
const MULTI_ADDRESS_SPACE: u32 = 118;
/// What a guest that does not come back may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Opens the device and finds out what scripts may do.
///
/// # Errors
///
/// The reason for which there is nothing to compare with.
pub fn probe() -> Result<(Kvm, Features), String> {
    let kvm = exeunt_linux::probe()?;
    let dialect = kvm.dialect();
    let types = kvm.check_extension(Cap::VM_TYPES);
    let sw_protected = u64::from(types) & 1 << VmType::SwProtected.number() != 0;
    let mut features = Features {
        dialect,
        sw_protected,
        hypercalls: false,
        hyperv: false,
        private_ioctls: has_private_ioctls(&kvm, dialect)?,
        two_spaces: kvm.check_extension(Cap(MULTI_ADDRESS_SPACE)) > 1,
        hole_faults: true,
    };
    let call = Act::Hypercall { vmcall: false, nr: 99, args: [0; 4] };
    features.hypercalls = comes_back(&kvm, call, features)?;
    features.hyperv = comes_back(&kvm, Act::HypervReset, Features { hyperv: true, ..features })?;
    features.hole_faults = hole_faults(features)?;
    Ok((kvm, features))
}

/// Whether an ordinary VM takes the ioctls of private memory as its dialect does: none of them up to 6.1, attributes
/// that change nothing and a `guest_memfd` of no use in 6.12.
fn has_private_ioctls(kvm: &Kvm, dialect: Dialect) -> Result<bool, String> {
    let vm = Unchecked::create(kvm, VmType::Default.number(), dialect, ARENA_BYTES, HOLE_BYTES);
    let mut vm = vm.map_err(|errno| format!("a VM for probing: {errno}"))?;
    let attributes = MemoryAttributes { address: 0, size: 0x1000, attributes: 0, flags: 0 };
    let attributes = vm.set_memory_attributes(attributes).is_ok();
    let file = vm.create_guest_memfd(CreateGuestMemfd { size: 0x1000, flags: 0, reserved: [0; 6] }).is_ok();
    Ok(attributes == dialect.has_private_memory() && file == dialect.has_private_memory())
}

/// Whether `KVM_RUN` fails when a guest reads what its process does not map.
fn hole_faults(features: Features) -> Result<bool, String> {
    let region = Region { slot: 1, gpa: 0x10_0000, size: 0x1000, offset: HOLE, ..Region::default() };
    let acts = vec![Act::Read { gpa: 0x10_0000, size: 1 }];
    let steps = vec![Step::SetRegion(region), Step::Enter];
    let script = Script { vm_type: VmType::Default.number(), acts, steps };
    let kernel = OnKvm::new(Kvm::open().map_err(|error| error.to_string())?);
    Ok(kernel.play(&script, features).last().is_some_and(|answer| answer.result == Err(Errno::EFAULT)))
}

/// Whether a guest gets beyond an act: it halts behind it, or the act exits in a way of its own.
fn comes_back(kvm: &Kvm, act: Act, features: Features) -> Result<bool, String> {
    let made = OnKvm::machine(kvm, VmType::Default.number(), &[act], features);
    let (mut vcpu, _vm) = made.map_err(|errno| format!("a VM for probing: {errno}"))?;
    let kicker = vcpu.kicker();
    let (done, waits) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if waits.recv_timeout(PATIENCE).is_err() {
            kicker.kick();
        }
    });
    let entered = vcpu.enter();
    // The watchdog may be gone already.
    let _ = done.send(());
    let _ = watchdog.join();
    let reason = vcpu.page().reason();
    let expected = if act == Act::HypervReset { ExitReason::SYSTEM_EVENT } else { ExitReason::HLT };
    Ok(entered.is_ok() && reason == expected)
}

/// The release of the kernel.
#[must_use]
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
