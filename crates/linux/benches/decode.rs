//! Question: what does it cost to decode each exit, and what does kvm-ioctls pay for the same page?
//!
//! kvm-ioctls decodes inside `VcpuFd::run`, so its figure is that call less the bare ioctl, on a descriptor whose `KVM_RUN`
//! a filter lets succeed without being run. Ours is `exit::decode`; the copy of the union that precedes it has a line of its
//! own. Aim: no slower on the exits that both know. kvm-ioctls needs `/dev/kvm` to make its objects.
//!
//! Unit: ns per exit, best of 7 runs. Command: `cargo bench -p exeunt-linux --bench decode`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod fake_vcpu_unsafe;

use exeunt_abi::kvm::run::{ExitReason, RunPage};
use exeunt_abi::{Errno, Gpa, Kernel};
use exeunt_proto::exit::{
    self, EventType, Exit, FailEntry, Hypercall, InternalError, Io, MemoryFault, Mmio, Other, Rdmsr,
    SnpReqCerts, SystemEvent, Words,
};
use exeunt_proto::ghcb::GhcbPage;
use kvm_ioctls::VcpuFd;
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: u32 = 200_000;

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

/// Every kind of exit, and whether kvm-ioctls decodes it from a successful `KVM_RUN`.
fn exits() -> Vec<(&'static str, Exit, bool)> {
    let words = Words::from_slice(&[0x2_1100]);
    let fault =
        MemoryFault { gpa: Gpa(0x5000), size: 0x1000, private: true, unknown_flags: 0, poisoned: false };
    let mmio = Mmio { gpa: Gpa(0xfee0_0000), data: [1; 8], len: 4, is_write: true };
    vec![
        ("io", Exit::Io(Io { is_out: true, size: 1, port: 0x3f8, count: 1, start: 0 }), true),
        ("mmio", Exit::Mmio(mmio), true),
        ("hlt", Exit::Hlt, true),
        ("shutdown", Exit::Shutdown, true),
        (
            "hypercall",
            Exit::Hypercall(Hypercall { nr: 12, args: [0x5000, 1, 0x10, 0, 0, 0], flags: 1 }),
            true,
        ),
        ("system_event", Exit::SystemEvent(SystemEvent { event: EventType::SevTerm, data: words }), true),
        ("internal_error", Exit::InternalError(InternalError { suberror: 4, data: words }), true),
        ("fail_entry", Exit::FailEntry(FailEntry { reason: u64::MAX, cpu: 0 }), true),
        ("rdmsr", Exit::Rdmsr(Rdmsr { index: 0x10, reason: 1 }), true),
        ("memory_fault", Exit::MemoryFault(fault), false),
        ("snp_req_certs", Exit::SnpReqCerts(SnpReqCerts { gpa: Gpa(0x8000), pages: 4 }), false),
        ("unknown", Exit::Other(Other { reason: ExitReason(77), bytes: [7; 256] }), false),
    ]
}

/// Decoding a page.
fn ours(page: &RunPage, entered: Result<(), Errno>) -> f64 {
    best_ns(|| _ = black_box(exit::decode(entered, black_box(page), Kernel::default()).is_ok()))
}

/// Copying the union out of the live page, which comes before it.
fn copy() -> f64 {
    let (page, mut copy) = (RunPage::zeroed(), RunPage::zeroed());
    best_ns(|| {
        copy.exit = *black_box(&page.exit);
        black_box(&copy);
    })
}

/// kvm-ioctls' call less the bare ioctl.
fn theirs(vcpu: &mut VcpuFd, page: &RunPage, bare: f64) -> f64 {
    let run = vcpu.get_kvm_run();
    run.exit_reason = page.exit_reason;
    // The union lies at byte 32 of both; the member with all of its bytes is `padding`.
    run.__bindgen_anon_1.padding =
        std::array::from_fn(|at| page.exit.get(at).map_or(0, |byte| i8::from_le_bytes([*byte])));
    best_ns(|| {
        black_box(vcpu.run().is_ok());
    }) - bare
}

fn kvm_ioctls_vcpu() -> Result<VcpuFd, String> {
    let kvm = kvm_ioctls::Kvm::new().map_err(|error| error.to_string())?;
    let vm = kvm.create_vm().map_err(|error| error.to_string())?;
    let vcpu = fake_vcpu_unsafe::vcpu(&vm, 0x10_0000)?;
    fake_vcpu_unsafe::install_filter()?;
    match fake_vcpu_unsafe::enter(&vcpu) {
        0 => Ok(vcpu),
        code => Err(format!("KVM_RUN returned {code} under the filter")),
    }
}

fn main() {
    let mut vcpu = kvm_ioctls_vcpu();
    let bare = vcpu.as_ref().map_or(0.0, |vcpu| best_ns(|| _ = black_box(fake_vcpu_unsafe::enter(vcpu))));
    match &vcpu {
        Ok(_) => println!("bare ioctl           {bare:8.1} ns"),
        Err(reason) => println!("kvm-ioctls           skipped: {reason}"),
    }
    println!("copy of the union    {:8.1} ns", copy());
    for (name, exit, both) in exits() {
        let mut page = RunPage::zeroed();
        let entered = exit::encode(&exit, Kernel::default(), &mut page);
        let ours = ours(&page, entered);
        match &mut vcpu {
            Ok(vcpu) if both => {
                let theirs = theirs(vcpu, &page, bare);
                println!("decode/{name:<15} {ours:6.1} ns, kvm-ioctls {theirs:6.1} ns");
            }
            _ => println!("decode/{name:<15} {ours:6.1} ns"),
        }
    }
    let mut ghcb = [0; 4096];
    ghcb[0x3f0..0x400].fill(0xff);
    let ns = best_ns(|| _ = black_box(GhcbPage::decode(black_box(&ghcb)).exit_code));
    println!("decode/ghcb_page       {ns:6.1} ns");
}
