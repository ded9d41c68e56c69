//! Question: what does the model's secure processor add to the arithmetic that it does?
//!
//! Compare with SHA-384 and AES-256-GCM of the same libraries over the same bytes, in the same run; aim for messages: the
//! speed of the library.
//!
//! Unit: as printed, best of 5 runs. Command: `cargo bench -p exeunt-check --bench psp`.

use aes_gcm::aead::AeadInPlace as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use exeunt_abi::Gpa;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::sev::id;
use exeunt_abi::kvm::sev::snp::{LaunchStart, LaunchUpdate, page_type, policy};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_model::psp::{Kind, MessageKey};
use exeunt_model::{Kvm, Slot};
use sha2::{Digest as _, Sha384};
use std::hint::black_box;
use std::time::Instant;
use zerocopy::FromZeros as _;

const RUNS: u32 = 5;
/// Pages of the launch that is measured here: a sixteenth of 1 GiB, which is then multiplied.
const LAUNCH_BYTES: u64 = 64 << 20;
const SOURCE: u64 = 0x7f00_0000_0000;

/// The best of `runs`, in seconds.
fn best(runs: u32, mut run: impl FnMut()) -> f64 {
    let once = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min)
}

/// `SNP_LAUNCH_UPDATE` of pages that are not zero, up to the digest.
fn launch() {
    let vm = Kvm::default().create_vm(VmType::Snp).expect("a VM");
    let file = vm.create_guest_memfd(LAUNCH_BYTES).expect("a file");
    let slot = Slot::shared(0, Gpa(0), LAUNCH_BYTES).expect("a slot").with_guest_memfd(file, 0);
    vm.add_slot(slot).expect("memory");
    vm.set_memory_attributes(Gpa(0), LAUNCH_BYTES, MEMORY_ATTRIBUTE_PRIVATE).expect("attributes");
    vm.sev_init2(2).expect("init");
    let mut start = LaunchStart::new_zeroed();
    start.policy = policy::RSVD | policy::SMT;
    vm.sev_command(id::SNP_LAUNCH_START, &mut start).expect("start");
    let content = vec![0x5a; 1 << 20];
    let memory = vm.user_memory();
    for at in (0..LAUNCH_BYTES).step_by(1 << 20) {
        memory.write(SOURCE + at, &content).expect("memory of the process");
    }
    let seconds = best(1, || {
        let mut update = LaunchUpdate::new_zeroed();
        update.uaddr = SOURCE;
        update.len = LAUNCH_BYTES;
        update.page_type = page_type::NORMAL;
        vm.sev_command(id::SNP_LAUNCH_UPDATE, &mut update).expect("update");
        assert_eq!(update.len, 0, "all pages were taken");
    });
    let hashing = best(RUNS, || {
        for _ in 0..LAUNCH_BYTES / 4096 {
            black_box(Sha384::digest(&content[..4096]));
        }
    });
    let gib = 16.0;
    println!(
        "launch/1 GiB measured  {:8.2} s, {:.2} of SHA-384 alone ({:.2} s)",
        seconds * gib,
        seconds / hashing,
        hashing * gib
    );
}

/// Seals and opens a message, beside the library.
fn messages(payload: usize) {
    const ROUNDS: u32 = 20_000;
    let key = [7; 32];
    let ours = MessageKey::new(&key);
    let kind = Kind { msg_type: 5, version: 1, vmpck: 0 };
    let bytes = vec![3; payload];
    let mut page = vec![0; 4096];
    let message = best(RUNS, || {
        for seqno in 0..ROUNDS {
            ours.seal(&mut page, u64::from(seqno) + 1, kind, &bytes).expect("it fits");
            black_box(ours.open(&mut page).expect("authentic"));
        }
    });
    let library = Aes256Gcm::new(&key.into());
    let mut body = bytes.clone();
    let aead = best(RUNS, || {
        for _ in 0..ROUNDS {
            let tag =
                library.encrypt_in_place_detached(&[0; 12].into(), &[0; 48], &mut body).expect("it fits");
            library.decrypt_in_place_detached(&[0; 12].into(), &[0; 48], &mut body, &tag).expect("authentic");
        }
    });
    let ns = |seconds: f64| seconds * 1e9 / f64::from(ROUNDS);
    let ratio = message / aead;
    println!(
        "message/{payload:<4} bytes     {:8.0} ns, {ratio:.2} of AES-256-GCM alone ({:.0} ns)",
        ns(message),
        ns(aead)
    );
}

fn main() {
    launch();
    for payload in [96, 1184, 4000] {
        messages(payload);
    }
}
