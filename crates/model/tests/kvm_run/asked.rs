//! A guest that makes requests by page, one after the other, and tells what came back.

use crate::world::{GHCB, Seen, reason, registered};
use exeunt_abi::Gpa;
use exeunt_abi::ghcb::page::Field;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_model::guest::snp::{Answer, Ghcb};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Vcpu, Vm};
use exeunt_proto::exit::Entered;
use exeunt_proto::host::Vcpu as _;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) code: u64,
    pub(crate) info: [u64; 2],
    pub(crate) fields: Vec<(Field, u64)>,
    /// What lies at an address before the request.
    pub(crate) memory: Option<(Gpa, Vec<u8>)>,
}

impl Ask {
    pub(crate) fn new(code: u64, info: [u64; 2], fields: &[(Field, u64)]) -> Self {
        Self { code, info, fields: fields.to_vec(), memory: None }
    }

    pub(crate) fn with_memory(mut self, at: Gpa, bytes: &[u8]) -> Self {
        self.memory = Some((at, bytes.to_vec()));
        self
    }
}

pub(crate) type Answers = Seen<Result<Answer, GuestFault>>;

/// A vCPU whose guest makes the requests and then halts. An exception does not end it.
pub(crate) fn asking(vm: &Vm, asks: Vec<Ask>) -> (Vcpu, Answers) {
    let answers = Seen::new();
    let log = answers.clone();
    // Of the types that have a GHCB, SNP is the one with private memory.
    let is_snp = vm.check_extension(Cap::MEMORY_ATTRIBUTES) != 0;
    let program = move |cpu: Cpu| async move {
        let ghcb = if is_snp { registered(&cpu).await? } else { Ghcb::at(GHCB) };
        for Ask { code, info, fields, memory } in asks {
            if let Some((at, bytes)) = memory {
                cpu.write(at, &bytes, Access::Shared).await?;
            }
            log.push(ghcb.request(&cpu, code, info, &fields).await);
        }
        Ok(())
    };
    (vm.create_vcpu(0, program).unwrap(), answers)
}

/// Enters until the guest halts and hands everything that comes in between to `serve`.
pub(crate) fn served(vcpu: &mut Vcpu, mut serve: impl FnMut(&mut Vcpu, Entered)) {
    for _ in 0..100_000 {
        let entered = vcpu.enter();
        if entered.is_ok() && reason(vcpu) == ExitReason::HLT {
            return;
        }
        serve(vcpu, entered);
    }
    panic!("the guest does not halt");
}

/// The answers to requests that never reach userspace.
pub(crate) fn answers(vm: &Vm, asks: Vec<Ask>) -> Vec<Result<Answer, GuestFault>> {
    let (mut vcpu, answers) = asking(vm, asks);
    served(&mut vcpu, |vcpu, entered| panic!("{entered:?}, {}", reason(vcpu)));
    answers.take()
}

/// `SW_EXITINFO1` and `SW_EXITINFO2` of each of them.
pub(crate) fn infos(vm: &Vm, asks: Vec<Ask>) -> Vec<[u64; 2]> {
    answers(vm, asks).into_iter().map(|answer| answer.map(|a| [a.info_1, a.info_2]).unwrap()).collect()
}
