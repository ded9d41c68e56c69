//! Question: what does our half add to an exit, beside a VMM that matches on what kvm-ioctls decodes?
//!
//! Both enter a descriptor whose `KVM_RUN` a filter lets succeed without being run, and find the same page. The one
//! matches on kvm-ioctls' exit and does nothing about it. The other copies the union out, decodes, plans, carries out on a host
//! that has nothing to do, encodes and copies the union back. "whole" goes through `exeunt_linux::Vcpu` and `step`
//! on a real vCPU that has left its guest once. Aims: under 200 ns more, and 0 allocations.
//!
//! Unit: ns per exit with its ioctl, best of 7 runs; allocations. Command: `cargo bench -p exeunt-check --bench added`.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod counting_unsafe;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "../../linux/benches/fake_vcpu_unsafe.rs"]
mod fake_vcpu_unsafe;

fn main() {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    if let Err(reason) = on_linux::main() {
        println!("skipped: {reason}");
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    println!("skipped: exeunt runs /dev/kvm on x86-64 Linux only");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod on_linux {
    use super::counting_unsafe::allocations;
    use super::fake_vcpu_unsafe;
    use exeunt::memory::{GuestMemory, MemorySlot};
    use exeunt::{Policy, step};
    use exeunt_abi::kvm::run::RunPage;
    use exeunt_abi::kvm::vm_type::VmType;
    use exeunt_abi::{Errno, Gfn, Gpa, Kernel};
    use exeunt_linux::{Vcpu, Vm, guests};
    use exeunt_proto::conversion::PageRange;
    use exeunt_proto::exit::{self, Exit, Hypercall, Io, Mmio};
    use exeunt_proto::host::{Action, Host, Vcpu as _};
    use kvm_ioctls::{VcpuExit, VcpuFd};
    use std::hint::black_box;
    use std::time::Instant;

    const ROUNDS: u32 = 200_000;

    struct NoHost;

    impl Host for NoHost {
        fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
            black_box(action);
            Ok(())
        }

        fn port_out(&mut self, port: u16, _: u8, data: &[u8]) {
            black_box((port, data));
        }

        fn mmio_write(&mut self, gpa: Gpa, data: &[u8]) {
            black_box((gpa, data));
        }
    }

    fn best_ns(mut round: impl FnMut()) -> f64 {
        let run = |round: &mut dyn FnMut()| {
            let start = Instant::now();
            for _ in 0..ROUNDS {
                round();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
        };
        (0..7).map(|_| run(&mut round)).fold(f64::INFINITY, f64::min)
    }

    fn exits() -> [(&'static str, Exit); 4] {
        let call =
            |pages, attributes| Hypercall { nr: 12, args: [0x10_0000, pages, attributes, 0, 0, 0], flags: 1 };
        let mmio = Mmio { gpa: Gpa(0xfee0_0000), data: [1; 8], len: 4, is_write: true };
        [
            ("io", Exit::Io(Io { is_out: true, size: 1, port: 0x3f8, count: 1, start: 0 })),
            ("mmio", Exit::Mmio(mmio)),
            ("hypercall, nothing to do", Exit::Hypercall(call(16, 0))),
            ("hypercall, refused", Exit::Hypercall(call(16, 0x20))),
        ]
    }

    fn policy() -> Policy {
        let slot = MemorySlot { range: PageRange::new(Gfn(0), 4096).expect("a range"), has_private: true };
        Policy::new(GuestMemory::new([slot]).expect("one slot"))
    }

    /// Enters and matches.
    fn bare_match(vcpu: &mut VcpuFd) -> f64 {
        best_ns(|| match vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => _ = black_box((port, data)),
            Ok(VcpuExit::MmioWrite(addr, data)) => _ = black_box((addr, data)),
            Ok(VcpuExit::Hypercall(call)) => *black_box(call.ret) = 0,
            Ok(other) => _ = black_box(other),
            Err(error) => _ = black_box(error),
        })
    }

    /// Enters, and goes the whole way from bytes to bytes. Both copies are of the union.
    fn our_half(vcpu: &VcpuFd, live: &mut RunPage) -> (f64, u64) {
        let (policy, kernel) = (policy(), Kernel::default());
        let mut page = RunPage::zeroed();
        let mut port_data = [0; 4096];
        let before = allocations();
        let ns = best_ns(|| {
            black_box(fake_vcpu_unsafe::enter(vcpu));
            page.clone_from(black_box(live));
            let exit = exit::decode(Ok(()), &page, kernel);
            let plan = policy.plan(exit.as_ref().expect("an exit")).expect("a plan");
            let answer = plan.carry_out(&mut NoHost, &mut port_data);
            assert!(answer.encode(kernel, &mut page).is_none(), "no certificates, no lease");
            live.exit = black_box(page.exit);
        });
        (ns, allocations() - before)
    }

    /// A vCPU that has just left its guest for the first port.
    fn real_vcpu() -> Result<(Vm, Vcpu), String> {
        let failed = |error: exeunt_linux::KvmError| error.to_string();
        let mut vm = exeunt_linux::probe()?.create_vm(VmType::Default).map_err(failed)?;
        let guest = guests::by_name("port-io").ok_or("no guest")?;
        vm.add_memory(Gpa(0), 0x1_0000).map_err(failed)?;
        vm.write_guest(guest.load, guest.image).map_err(|errno| errno.to_string())?;
        let mut vcpu = vm.create_vcpu(0).map_err(failed)?;
        vcpu.start(&guest).map_err(failed)?;
        for _ in 0..100 {
            let entered = vcpu.enter();
            if matches!(exit::decode(entered, vcpu.page(), vcpu.kernel()), Ok(Exit::Io(_))) {
                return Ok((vm, vcpu));
            }
        }
        Err("the guest does not get to its port".into())
    }

    fn line(name: &str, theirs: f64, ours: f64, allocations: u64) {
        let added = ours - theirs;
        println!(
            "{name:<26} kvm-ioctls and match {theirs:7.1} ns, ours {ours:7.1} ns, added {added:7.1} ns, \
             {allocations} allocations"
        );
        assert_eq!(allocations, 0, "{name}");
    }

    pub(super) fn main() -> Result<(), String> {
        let (_vm, mut real) = real_vcpu()?;
        let kvm = kvm_ioctls::Kvm::new().map_err(|error| error.to_string())?;
        let vm = kvm.create_vm().map_err(|error| error.to_string())?;
        let mut fake = fake_vcpu_unsafe::vcpu(&vm, 0x10_0000)?;
        fake_vcpu_unsafe::install_filter()?;
        println!("bare ioctl                 {:7.1} ns", best_ns(|| _ = fake_vcpu_unsafe::enter(&fake)));
        let mut io_match = f64::NAN;
        for (name, exit) in exits() {
            let mut page = RunPage::zeroed();
            exit::encode(&exit, Kernel::default(), &mut page).map_err(|errno| errno.to_string())?;
            let run = fake.get_kvm_run();
            run.exit_reason = page.exit_reason;
            run.__bindgen_anon_1.padding =
                std::array::from_fn(|at| page.exit.get(at).map_or(0, |byte| i8::from_le_bytes([*byte])));
            let theirs = bare_match(&mut fake);
            if name == "io" {
                io_match = theirs;
            }
            let (ours, allocations) = our_half(&fake, &mut page);
            line(name, theirs, ours, allocations);
        }
        let policy = policy();
        let before = allocations();
        let ours = best_ns(|| step(&mut real, &mut NoHost, &policy).expect("an exit"));
        line("whole io", io_match, ours, allocations() - before);
        Ok(())
    }
}
