//! The kernel of this model against the one in software.

use std::sync::{Arc, Mutex};

use exeunt_abi::ghcb::{exit_code, msr, page};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{ExitReason, Hypercall, MAP_GPA_RANGE};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Gpa, Kernel};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Access, Cpu};
use exeunt_model::{Kvm, Slot, Vm};
use exeunt_proto::host::Vcpu as _;
use exeunt_proto::reply::ConversionReply;

use super::kernel::{Descriptor, Flaws, Next, Psc};
use super::requests::{CRAFTED, REQUESTS, rewrites};

const GHCB: Gpa = Gpa(0x30_0000);
const BUFFER: Gpa = Gpa(GHCB.0 + page::SHARED_BUFFER);
const MEMORY_BYTES: u64 = 0x40_0000;

/// Exits, results and the descriptor at the end.
type Ran = (Vec<[u64; 3]>, Vec<u64>, Vec<u8>);

/// The first answers of a run; those after them are 0.
fn answers() -> impl Iterator<Item = [u64; 4]> {
    let all =
        [ConversionReply::Done, ConversionReply::Invalid, ConversionReply::Again].map(ConversionReply::ret);
    (0..81).map(move |case| [1, 3, 9, 27].map(|digit| all[case / digit % 3]))
}

fn bytes(descriptor: &Descriptor) -> Vec<u8> {
    let header = u64::from(descriptor.end) << 16 | u64::from(descriptor.cur);
    let words = std::iter::once(header).chain(descriptor.entries);
    words.flat_map(u64::to_le_bytes).collect()
}

/// How a run goes on: the answers, and what the guest does to the descriptor during its first exit.
#[derive(Clone, Copy, Debug)]
struct Course {
    answers: [u64; 4],
    rewrite: Option<usize>,
}

fn read(vm: &Vm) -> Descriptor {
    let mut bytes = [0; 32];
    vm.read_shared(BUFFER, &mut bytes).unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[8 * at..][..8].try_into().unwrap());
    let half = |at: usize| u16::from_le_bytes(bytes[2 * at..][..2].try_into().unwrap());
    Descriptor { cur: half(0), end: half(1), entries: [1, 2, 3].map(word) }
}

/// The request, made twice, by the kernel of this model.
fn mirrored(mut descriptor: Descriptor, Course { answers, mut rewrite }: Course) -> Ran {
    let (mut psc, mut answers) = (Psc::default(), answers.into_iter());
    let (mut exits, mut results) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let mut next = psc.begin(&mut descriptor, Flaws::default());
        while let Next::Exit(args) = next {
            exits.push(args);
            if let Some(which) = rewrite.take() {
                descriptor = rewrites(descriptor)[which];
            }
            let ret = answers.next().unwrap_or(0);
            next = psc.complete(&mut descriptor, Flaws::default(), ret).unwrap();
        }
        let Next::Over(result) = next else { unreachable!() };
        results.push(result);
    }
    (exits, results, bytes(&descriptor))
}

fn launched() -> Vm {
    let vm = Kvm::new(Kernel::default()).create_vm(VmType::Snp).unwrap();
    let file = vm.create_guest_memfd(MEMORY_BYTES).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), MEMORY_BYTES).unwrap().with_guest_memfd(file, 0)).unwrap();
    vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << MAP_GPA_RANGE).unwrap();
    vm.sev_init2(0).unwrap();
    vm.launch().unwrap();
    vm
}

/// The same by the kernel in software.
fn in_software(descriptor: Descriptor, Course { answers, mut rewrite }: Course) -> Ran {
    let vm = launched();
    let results = Arc::new(Mutex::new(Vec::new()));
    let seen = results.clone();
    let program = |cpu: Cpu| async move {
        cpu.vmgexit(GHCB.0 | msr::REGISTER_GPA_REQUEST).await?;
        let ghcb = Ghcb::at(GHCB);
        cpu.write(BUFFER, &bytes(&descriptor), Access::Shared).await?;
        for _ in 0..2 {
            let fields = [(page::SW_SCRATCH, BUFFER.0)];
            let answer = ghcb.request(&cpu, exit_code::PSC, [0, 0], &fields).await?;
            seen.lock().unwrap().push(answer.info_2);
        }
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    let (mut exits, mut answers) = (Vec::new(), answers.into_iter());
    loop {
        assert_eq!(vcpu.enter(), Ok(()));
        if vcpu.page().reason() == ExitReason::HLT {
            break;
        }
        let mut hypercall: Hypercall = vcpu.page().payload();
        let [gpa, pages, attributes, ..] = hypercall.args;
        exits.push([gpa, pages, attributes]);
        if let Some(which) = rewrite.take() {
            vm.write_shared(BUFFER, &bytes(&rewrites(read(&vm))[which])).unwrap();
        }
        hypercall.ret = answers.next().unwrap_or(0);
        vcpu.page_mut().set_payload(&hypercall);
    }
    let results = results.lock().unwrap().clone();
    (exits, results, bytes(&read(&vm)))
}

#[test]
fn the_kernel_of_this_model_exits_and_reports_as_the_one_in_software_does() {
    for request in REQUESTS.into_iter().chain([CRAFTED]) {
        let answered = answers().map(|answers| Course { answers, rewrite: None });
        let rewritten =
            (0..rewrites(request).len()).map(|which| Course { answers: [0; 4], rewrite: Some(which) });
        for course in answered.chain(rewritten) {
            assert_eq!(mirrored(request, course), in_software(request, course), "{request:x?} {course:?}");
        }
    }
}
