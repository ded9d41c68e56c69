//! The model held against the host's `/dev/kvm`: the same scripts of event ioctls and entries, answer for answer.
//!
//! Where there is no `/dev/kvm` each test prints why it skips.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Gpa, Kernel};
use exeunt_model::Slot;
use exeunt_proto::host::{Events, Vcpu};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use zerocopy::{FromZeros, IntoBytes};

/// Scripts in each test.
const SCRIPTS: u32 = 512;

/// One call of a VMM.
#[derive(Clone, Debug)]
enum Call {
    Get,
    Set(VcpuEvents),
    EnterImmediately,
    Enter,
    RaiseTripleFault,
}

/// What a call came to, as far as both halves promise the same.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Events(Vec<u8>),
    Done(Result<(), Errno>),
    Entered(Result<(), Errno>, ExitReason),
}

/// The capabilities that a script's VM has enabled.
#[derive(Clone, Copy, Debug)]
struct Caps {
    payload: bool,
    triple_fault: bool,
}

impl Caps {
    fn list(self) -> impl Iterator<Item = Cap> {
        let payload = self.payload.then_some(Cap::EXCEPTION_PAYLOAD);
        payload.into_iter().chain(self.triple_fault.then_some(Cap::X86_TRIPLE_FAULT_EVENT))
    }
}

fn perform<V: Vcpu + Events>(vcpu: &mut V, call: &Call, raise: impl FnOnce(&mut V)) -> Answer {
    match call {
        Call::Get => Answer::Events(vcpu.events().unwrap().as_bytes().to_vec()),
        Call::Set(events) => Answer::Done(vcpu.set_events(events)),
        Call::RaiseTripleFault => {
            raise(vcpu);
            Answer::Done(Ok(()))
        }
        Call::EnterImmediately => {
            let entered = vcpu.enter_immediately();
            Answer::Entered(entered, vcpu.page().reason())
        }
        Call::Enter => {
            let entered = vcpu.enter();
            Answer::Entered(entered, vcpu.page().reason())
        }
    }
}

fn on_model(caps: Caps, script: &[Call], dialect: Dialect) -> Vec<Answer> {
    let kernel = Kernel { dialect, arch: Arch::X86 };
    let vm = exeunt_model::Kvm::new(kernel).create_vm(VmType::Default).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), 0x10_0000).unwrap()).unwrap();
    caps.list().for_each(|cap| vm.enable_cap(cap, 1).unwrap());
    let program = |cpu: exeunt_model::guest::Cpu| async move {
        loop {
            cpu.hlt().await;
        }
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    script.iter().map(|call| perform(&mut vcpu, call, exeunt_model::Vcpu::raise_triple_fault)).collect()
}

fn on_kvm(kvm: &exeunt_linux::Kvm, caps: Caps, script: &[Call]) -> Vec<Answer> {
    let guest = exeunt_linux::guests::by_name("hlt").unwrap();
    let mut vm = kvm.create_vm(VmType::Default).unwrap();
    caps.list().for_each(|cap| vm.enable_cap(cap, 1).unwrap());
    vm.add_memory(Gpa(0), 0x10_0000).unwrap();
    vm.write_guest(guest.load, guest.image).unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    vcpu.start(&guest).unwrap();
    let raise = |vcpu: &mut exeunt_linux::Vcpu| vcpu.raise_triple_fault().unwrap();
    script.iter().map(|call| perform(&mut vcpu, call, raise)).collect()
}

fn any_caps() -> impl Strategy<Value = Caps> {
    any::<(bool, bool)>().prop_map(|(payload, triple_fault)| Caps { payload, triple_fault })
}

/// Flags: each known one as likely as not, an unknown one now and then.
fn any_flags() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0u32..0x40, 1 => any::<u32>()]
}

prop_compose! {
    /// Events that leave the guest as it is, apart from a triple fault, whatever becomes of them.
    fn calm_events()(flags in any_flags(), triple_fault in 0u8..3, pad in any::<u8>()) -> VcpuEvents {
        let mut events = VcpuEvents::new_zeroed();
        events.flags = flags;
        events.triple_fault_pending = triple_fault;
        events.nmi_pad = pad;
        events.reserved = [pad; 26];
        events
    }
}

/// Bytes that a kernel takes for true or false.
fn truth() -> impl Strategy<Value = u8> {
    prop_oneof![2 => Just(0u8), 2 => Just(1u8), 1 => any::<u8>()]
}

prop_compose! {
    /// Events with everything in them; the vCPU is not run afterwards.
    fn wild_events()(
        calm in calm_events(),
        exception in (truth(), 0u8..40, truth(), truth(), any::<u32>(), truth(), any::<u64>()),
        interrupt in (truth(), any::<u8>(), truth()),
        nmi in (truth(), 0u8..4, truth()),
    ) -> VcpuEvents {
        VcpuEvents {
            exception_injected: exception.0,
            exception_nr: exception.1,
            exception_has_error_code: exception.2,
            exception_pending: exception.3,
            exception_error_code: exception.4,
            exception_has_payload: exception.5,
            exception_payload: exception.6,
            interrupt_injected: interrupt.0,
            interrupt_nr: interrupt.1,
            interrupt_soft: interrupt.2,
            nmi_injected: nmi.0,
            nmi_pending: nmi.1,
            nmi_masked: nmi.2,
            ..calm
        }
    }
}

fn calm_script() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        3 => Just(Call::Get),
        4 => calm_events().prop_map(Call::Set),
        2 => Just(Call::EnterImmediately),
        3 => Just(Call::Enter),
        1 => Just(Call::RaiseTripleFault),
    ];
    prop::collection::vec(call, 1..12)
}

fn wild_script() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        3 => Just(Call::Get),
        4 => wild_events().prop_map(Call::Set),
        1 => Just(Call::EnterImmediately),
        1 => Just(Call::RaiseTripleFault),
    ];
    prop::collection::vec(call, 1..12)
}

/// Runs every script on both halves.
fn hold(test: &str, script: impl Strategy<Value = Vec<Call>>) {
    let kvm = match exeunt_linux::probe() {
        Ok(kvm) => kvm,
        Err(reason) => {
            exeunt_linux::print_skip(test, reason);
            return;
        }
    };
    let dialect = kvm.dialect();
    if !dialect.has_triple_fault_event() {
        exeunt_linux::print_skip(test, format_args!("this host lacks {}", Cap::X86_TRIPLE_FAULT_EVENT));
        return;
    }
    let config = Config { cases: SCRIPTS, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&(any_caps(), script), |(caps, script)| {
        let model = on_model(caps, &script, dialect);
        let kvm = on_kvm(&kvm, caps, &script);
        for (index, (model, kvm)) in model.iter().zip(&kvm).enumerate() {
            prop_assert_eq!(model, kvm, "call {} of {:?}, model left, /dev/kvm right", index, script);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{test}: {SCRIPTS} scripts agree with {dialect} on /dev/kvm");
}

#[test]
fn triple_faults_and_entries_agree_with_the_kernel_on_every_script() {
    hold("triple faults and entries", calm_script());
}

#[test]
fn events_agree_with_the_kernel_on_every_script() {
    hold("events", wild_script());
}
