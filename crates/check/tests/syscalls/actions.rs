//! The same counts in the model, as actions.

use exeunt::Policy;
use exeunt::layer::trace::Observer;
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt_abi::kvm::run::RunPage;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gfn, Gpa, Kernel};
use exeunt_model::{Kvm, Slot};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::{self, Exit, Hypercall};
use exeunt_proto::host::Action;

#[derive(Default)]
struct Recorder {
    effects: Vec<(String, Result<(), Errno>)>,
}

impl Observer for Recorder {
    fn effect(&mut self, action: &Action<'_>, result: Result<(), Errno>) {
        let text = match action {
            Action::SetAttributes { range, to } => {
                format!("set {:#x}+{:#x} {to}", range.gfn().0, range.pages())
            }
            Action::Discard { range, backing } => {
                format!("discard {:#x}+{:#x} {backing:?}", range.gfn().0, range.pages())
            }
            other => format!("{other:?}"),
        };
        self.effects.push((text, result));
    }
}

#[test]
fn in_the_model_a_no_op_applies_nothing_and_a_run_two_actions() {
    let vm = Kvm::default().create_vm(VmType::Snp).unwrap();
    let file = vm.create_guest_memfd(0x10_0000).unwrap();
    let slot = Slot::shared(0, Gpa(0), 0x10_0000).unwrap().with_guest_memfd(file, 0);
    vm.add_slot(slot).unwrap();
    let mut host = vm.effects();
    let everything = PageRange::new(Gfn(0), 0x100).unwrap();
    let memory = GuestMemory::new([MemorySlot { range: everything, has_private: true }]).unwrap();
    let (policy, kernel) = (Policy::new(memory), Kernel::default());
    let mut convert = |gfn: u64, pages, to: PageState| {
        let attributes = if to == PageState::Private { 0x10 } else { 0 };
        let call = Hypercall { nr: 12, args: [gfn << 12, pages, attributes, 0, 0, 0], flags: 1 };
        let mut page = RunPage::zeroed();
        let entered = exit::encode(&Exit::Hypercall(call), kernel, &mut page);
        let exit = exit::decode(entered, &page, kernel).unwrap();
        let mut recorder = Recorder::default();
        drop(policy.plan(&exit).unwrap().carry_out_observed(&mut host, &mut [], &mut recorder));
        let failed = recorder.effects.iter().find(|(_, result)| result.is_err());
        assert_eq!(failed, None);
        recorder.effects.into_iter().map(|(effect, _)| effect).collect::<Vec<_>>()
    };
    let (private, shared) = (PageState::Private, PageState::Shared);
    let none: [&str; 0] = [];
    assert_eq!(convert(0x10, 0x10, shared), none);
    assert_eq!(convert(0x10, 0x10, private), ["set 0x10+0x10 private", "discard 0x10+0x10 Shared"]);
    assert_eq!(convert(0x10, 0x10, private), none);
    assert_eq!(convert(0x18, 4, private), none);
    let mut around = convert(0, 0x30, private);
    around.sort();
    assert_eq!(
        around,
        [
            "discard 0x0+0x10 Shared",
            "discard 0x20+0x10 Shared",
            "set 0x0+0x10 private",
            "set 0x20+0x10 private"
        ]
    );
    assert_eq!(convert(0, 0x30, shared), ["set 0x0+0x30 shared", "discard 0x0+0x30 Private"]);
    assert_eq!(convert(0, 0x30, shared), none);
}
