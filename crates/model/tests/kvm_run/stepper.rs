//! Several vCPUs on one thread: the seed decides everything.

use crate::world::{DATA, GHCB, launched};
use exeunt_abi::ghcb::msr;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::psci::function as f;
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Kvm, Stepper, Turn, Vcpu};
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::host::Vcpu as _;
use zerocopy::IntoBytes;

/// Adds to a word that all vCPUs share, without a lock, and says what it read.
async fn races(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.vmgexit(GHCB.0 | msr::REGISTER_GPA_REQUEST).await?;
    for _ in 0..20 {
        let word = cpu.read_u64(DATA, Access::Shared).await?;
        cpu.write(DATA, &(word + 1).to_le_bytes(), Access::Shared).await?;
        if cpu.random() % 4 == 0 {
            cpu.vmgexit(MsrRequest::terminate(1, u8::try_from(word).unwrap())).await?;
        }
    }
    Ok(())
}

/// Turns with the page after each, and the shared word at the end.
fn trace(seed: u64, longest: u32) -> (Vec<(Turn, Vec<u8>)>, u64) {
    let vm = launched(Dialect::Linux7_2, VmType::SevEs);
    let vcpus = (0..3).map(|guest| vm.create_vcpu(guest, races).unwrap()).collect();
    let mut stepper = Stepper::new(seed, vcpus).with_longest_turn(longest);
    let trace = (0..200)
        .map(|_| {
            let turn = stepper.turn().unwrap();
            (turn, stepper.vcpus()[turn.vcpu].page().as_bytes().to_vec())
        })
        .collect();
    let mut word = [0; 8];
    vm.read_shared(DATA, &mut word).unwrap();
    (trace, u64::from_le_bytes(word))
}

#[test]
fn the_same_seed_leads_to_the_same_bytes_and_another_elsewhere() {
    for seed in 0..8 {
        assert_eq!(trace(seed, 16), trace(seed, 16), "seed {seed}");
    }
    assert_ne!(trace(1, 16).0, trace(2, 16).0);
    assert_ne!(trace(1, 16).0, trace(1, 4).0);
}

#[test]
fn every_vcpu_gets_turns_and_the_schedule_decides_the_race() {
    let mut sums = Vec::new();
    for seed in 0..16 {
        let (turns, sum) = trace(seed, 4);
        for vcpu in 0..3 {
            assert!(turns.iter().any(|(turn, _)| turn.vcpu == vcpu), "seed {seed}: vCPU {vcpu} never ran");
        }
        assert!(turns.iter().all(|(turn, _)| (1..=4).contains(&turn.acts)));
        assert!((1..=60).contains(&sum), "seed {seed}: {sum}");
        sums.push(sum);
    }
    sums.sort_unstable();
    sums.dedup();
    assert!(sums.len() > 2, "no update was ever lost: {sums:?}");
}

#[test]
fn a_turn_ends_after_its_acts_as_by_a_signal() {
    for acts in 1..20u32 {
        let vm = launched(Dialect::Linux7_2, VmType::Default);
        let program = |cpu: Cpu| async move {
            for number in 1..100u64 {
                cpu.write(DATA, &number.to_le_bytes(), Access::Shared).await?;
            }
            Ok(())
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        assert_eq!(vcpu.enter_for(acts), Err(Errno::EINTR));
        assert_eq!(vcpu.page().reason(), ExitReason::INTR);
        let mut word = [0; 8];
        vm.read_shared(DATA, &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), u64::from(acts));
    }
}

#[test]
fn blocked_vcpus_get_no_turn_until_something_wakes_them() {
    let kernel = Kernel { dialect: Dialect::Linux7_2, arch: Arch::Arm64 };
    let vm = Kvm::new(kernel).create_vm(VmType::Default).unwrap();
    let first = vm
        .create_vcpu(0, |cpu| async move {
            for _ in 0..3 {
                cpu.psci(f::VERSION, [0; 3]).await?;
            }
            cpu.psci(f::CPU_ON_64, [1, 0, 0]).await?;
            cpu.psci(f::CPU_OFF, [0; 3]).await.map(|_| ())
        })
        .unwrap();
    let mut second: Vcpu =
        vm.create_vcpu(0, |cpu| async move { cpu.psci(f::SYSTEM_OFF, [0; 3]).await.map(|_| ()) }).unwrap();
    second.arm_init(0b101).unwrap();
    assert_eq!(Stepper::new(7, Vec::new()).turn(), None, "nobody is there");
    let mut stepper = Stepper::new(7, vec![first, second]).with_longest_turn(0);
    let mut turns = Vec::new();
    while let Some(turn) = stepper.turn() {
        turns.push(turn.vcpu);
    }
    let started = turns.iter().position(|vcpu| *vcpu == 1).unwrap();
    assert!(started >= 4, "the second core ran before it was switched on: {turns:?}");
    assert_eq!(stepper.vcpus()[1].page().reason(), ExitReason::SYSTEM_EVENT);
    assert!(stepper.vcpu_mut(2).is_none());
    assert_eq!(stepper.into_vcpus().len(), 2);
}
