//! One vCPU's triple fault ends the VM: the others leave the guest, on the real `/dev/kvm`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::sync::Arc;
use std::thread;

use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt::terminate::{StopKind, VmEnd};
use exeunt::{Policy, step};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Gfn, Gpa};
use exeunt_linux::{guests, print_skip, probe};
use exeunt_proto::conversion::PageRange;

#[test]
fn a_triple_fault_on_one_vcpu_takes_all_others_out_of_their_guest() {
    let kvm = match probe() {
        Ok(kvm) => kvm,
        Err(reason) => return print_skip("the end of a VM", &reason),
    };
    let spin = guests::by_name("spin").unwrap();
    let shutdown = guests::by_name("shutdown").unwrap();
    let mut vm = kvm.create_vm(VmType::Default).unwrap();
    vm.add_memory(Gpa(0), 0x10_0000).unwrap();
    vm.write_guest(spin.load, spin.image).unwrap();
    // The guest that ends the VM lies behind the one that never ends.
    let shutdown = exeunt_linux::FlatGuest { load: Gpa(0x2000), entry: Gpa(0x2000), ..shutdown };
    vm.write_guest(shutdown.load, shutdown.image).unwrap();
    let mut vcpus: Vec<_> = (0..4).map(|id| vm.create_vcpu(id).unwrap()).collect();
    let kickers: Vec<_> = vcpus.iter().map(exeunt_linux::Vcpu::kicker).collect();
    let slot = MemorySlot { range: PageRange::new(Gfn(0), 0x100).unwrap(), has_private: false };
    let policy = Policy::new(GuestMemory::new([slot]).unwrap());
    let end = Arc::new(VmEnd::with_kick(move || kickers.iter().for_each(exeunt_linux::Kicker::kick)));
    for (index, vcpu) in vcpus.iter_mut().enumerate() {
        vcpu.start(if index == 3 { &shutdown } else { &spin }).unwrap();
    }
    let firsts: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = vcpus
            .into_iter()
            .map(|mut vcpu| {
                let (end, policy, mut host) = (Arc::clone(&end), &policy, vm.effects());
                scope.spawn(move || {
                    while !end.is_over() {
                        if let Err(stop) = step(&mut vcpu, &mut host, policy) {
                            return end.end(stop);
                        }
                    }
                    false
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(firsts, [false, false, false, true], "one vCPU ended the VM, and the others left");
    assert_eq!(end.stop().map(exeunt::Stop::kind), Some(StopKind::TripleFault));
}
