//! CPUID: what a guest can be shown, and what a VMM chose to show.
//!
//! The table of the host is a fixed one: an x86-64 processor with SSE4.2 and AVX, of the host's vendor. Where KVM copies
//! what the silicon says, the model has one plausible processor.

use super::call::Call;
use crate::host::Host;
use crate::vcpu::Vcpu;
use exeunt_abi::kvm::cpuid::{Cpuid2, CpuidEntry2, FLAG_SIGNIFICANT_INDEX, MAX_ENTRIES};
use exeunt_abi::{Errno, Kernel};
use std::mem::size_of;

/// The C-bit, and how many address bits encryption takes.
const C_BIT: u32 = 51;
const ADDRESS_BITS_TAKEN: u32 = 5;
/// ASIDs of the host.
const ASIDS: u32 = 509;
/// ASIDs that SEV-ES and SNP guests have to themselves: those below this one.
const FIRST_PLAIN_SEV_ASID: u32 = 100;
/// Family 19h, model 1, stepping 1.
const SIGNATURE: u32 = 0x00a0_0f11;
/// Features of leaf 1: FPU to SSE2, then SSE3 to AVX with CMPXCHG16B, x2APIC, POPCNT, XSAVE and the hypervisor bit.
const LEAF_1: [u32; 4] = [SIGNATURE, 0x0001_0800, 0xb6d8_3203, 0x178b_fbff];

/// `KVM_CPUID_SIGNATURE` and its features: clock, delay, asynchronous faults, steal time, end of interrupt.
const KVM_LEAF: u32 = 0x4000_0000;
const KVM_FEATURES: u32 = 0x0100_7efb;

/// `HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS`, and the last leaf.
const HYPERV_LEAF: u32 = 0x4000_0000;
const HYPERV_LAST: u32 = 0x4000_000a;

/// `KVM_GET_SUPPORTED_CPUID`, whatever the buffer's size.
///
/// Source: Linux v7.2 `arch/x86/kvm/cpuid.c`, `kvm_dev_ioctl_get_cpuid` and `__do_cpuid_func`.
pub(crate) fn supported(kernel: Kernel, host: Host) -> Vec<CpuidEntry2> {
    let vendor = if host.is_intel() { *b"GenuineIntel" } else { *b"AuthenticAMD" };
    let [ebx, edx, ecx] = name(vendor);
    let mut table = vec![
        plain(0, [0xd, ebx, ecx, edx]),
        plain(1, LEAF_1),
        plain(2, [0; 4]),
        indexed(4, 0, [0; 4]),
        plain(5, [0; 4]),
        plain(6, [4, 0, 0, 0]),
        // FSGSBASE, BMI1, SMEP, BMI2, SMAP, and UMIP.
        indexed(7, 0, [0, 0x0010_0189, 0x4, 0]),
        plain(8, [0; 4]),
        plain(9, [0; 4]),
        plain(0xa, [0; 4]),
        indexed(0xb, 0, [0; 4]),
        plain(0xc, [0; 4]),
        // XCR0 of 7: 832 bytes. XSAVEOPT. AVX has 256 bytes at 576.
        indexed(0xd, 0, [7, 576, 832, 0]),
        indexed(0xd, 1, [1, 0, 0, 0]),
        indexed(0xd, 2, [256, 576, 0, 0]),
    ];
    let last = if host.is_intel() { 0x8000_0008 } else { 0x8000_0021 };
    table.push(plain(0x8000_0000, [last, ebx, ecx, edx]));
    // SYSCALL, NX, 1 GiB pages, RDTSCP, long mode; LAHF, and SVM on AMD.
    let svm = if host.is_intel() { 0 } else { 4 };
    table.push(plain(0x8000_0001, [SIGNATURE, 0, 0x121 | svm, 0x2c10_0800]));
    for (leaf, text) in (0x8000_0002..).zip(brand(host).chunks_exact(16)) {
        table.push(plain(leaf, words(text)));
    }
    for leaf in 0x8000_0005..0x8000_0008 {
        table.push(plain(leaf, [0; 4]));
    }
    table.push(plain(0x8000_0008, [0x3030, 0, 0, 0]));
    if !host.is_intel() {
        // NPT, NRIP save; 16 ASIDs for nested guests.
        table.push(plain(0x8000_000a, [1, 16, 0, 9]));
        table.push(plain(0x8000_001f, encryption(kernel)));
        table.push(plain(0x8000_0021, [0x41, 0, 0, 0]));
    }
    let [ebx, ecx, edx] = name(*b"KVMKVMKVM\0\0\0");
    table.push(plain(KVM_LEAF, [KVM_LEAF.saturating_add(1), ebx, ecx, edx]));
    table.push(plain(KVM_LEAF.saturating_add(1), [KVM_FEATURES, 0, 0, 0]));
    table
}

/// Leaf 8000001F: SME is the host's own, so KVM shows SEV, SEV-ES, and SNP where it has it.
fn encryption(kernel: Kernel) -> [u32; 4] {
    let sev = 1 << 1 | 1 << 3;
    let snp = if kernel.dialect.has_snp() { 1 << 4 | 1 << 5 } else { 0 };
    [sev | snp, C_BIT | ADDRESS_BITS_TAKEN << 6, ASIDS, FIRST_PLAIN_SEV_ASID]
}

const fn plain(function: u32, answer: [u32; 4]) -> CpuidEntry2 {
    let [eax, ebx, ecx, edx] = answer;
    CpuidEntry2 { function, index: 0, flags: 0, eax, ebx, ecx, edx, padding: [0; 3] }
}

const fn indexed(function: u32, index: u32, answer: [u32; 4]) -> CpuidEntry2 {
    let entry = plain(function, answer);
    CpuidEntry2 { index, flags: FLAG_SIGNIFICANT_INDEX, ..entry }
}

/// A name of 12 letters as three registers.
fn name(text: [u8; 12]) -> [u32; 3] {
    let [a, b, c, ..] = words(&text);
    [a, b, c]
}

fn words(text: &[u8]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, letters) in words.iter_mut().zip(text.chunks_exact(4)) {
        *word = letters.first_chunk().map_or(0, |letters| u32::from_le_bytes(*letters));
    }
    words
}

fn brand(host: Host) -> [u8; 48] {
    let text = if host.is_intel() { "exeunt model of an Intel host" } else { "exeunt model of an AMD host" };
    let mut brand = [0; 48];
    brand.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    brand
}

impl Call<'_> {
    /// `KVM_GET_SUPPORTED_CPUID`, `KVM_GET_EMULATED_CPUID`.
    pub(super) fn get_host_cpuid(&self, emulated: bool) -> Result<u32, Errno> {
        let mut head: Cpuid2 = self.get()?;
        if head.nent < 1 {
            return Err(Errno::E2BIG);
        }
        let room = head.nent.min(MAX_ENTRIES);
        let table = if emulated {
            // Padding has to be clean here; it cannot be read behind the buffer either.
            let given: Vec<CpuidEntry2> =
                self.get_array(size_of::<Cpuid2>(), room).map_err(|_| Errno::EINVAL)?;
            if given.iter().any(|entry| entry.padding != [0; 3]) {
                return Err(Errno::EINVAL);
            }
            // MOVBE and RDPID.
            vec![plain(0, [7, 0, 0, 0]), plain(1, [0, 0, 1 << 22, 0]), indexed(7, 0, [0, 0, 1 << 22, 0])]
        } else {
            supported(self.device.kernel, self.device.host)
        };
        let nent = u32::try_from(table.len()).unwrap_or(u32::MAX);
        if room < nent {
            return Err(Errno::E2BIG);
        }
        head.nent = nent;
        self.put_array(size_of::<Cpuid2>(), &table)?;
        self.put(&head).map(|()| 0)
    }

    /// `KVM_GET_SUPPORTED_HV_CPUID`: the leaves of Hyper-V that the model's registers stand for.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/hyperv.c`, `kvm_get_hv_cpuid`.
    pub(super) fn get_hyperv_cpuid(&self) -> Result<u32, Errno> {
        let mut head: Cpuid2 = self.get()?;
        let [ebx, ecx, edx] = name(*b"Linux KVM Hv");
        let [interface, ..] = words(b"Hv#1");
        let mut table = vec![
            plain(HYPERV_LEAF, [HYPERV_LAST, ebx, ecx, edx]),
            plain(HYPERV_LEAF.saturating_add(1), [interface, 0, 0, 0]),
            // Build 14393 of Windows 10.
            plain(HYPERV_LEAF.saturating_add(2), [0x3839, 0xa_0000, 0, 0]),
            // Runtime, reference counter, synthetic interrupts and timers, APIC, hypercall, index, reset; crash registers.
            plain(HYPERV_LEAF.saturating_add(3), [0xff, 0, 0, 1 << 10]),
        ];
        table.extend((4..=10).map(|leaf| plain(HYPERV_LEAF.saturating_add(leaf), [0; 4])));
        let nent = u32::try_from(table.len()).unwrap_or(u32::MAX);
        if head.nent < nent {
            return Err(Errno::E2BIG);
        }
        head.nent = nent;
        self.put_array(size_of::<Cpuid2>(), &table)?;
        self.put(&head).map(|()| 0)
    }

    /// `KVM_SET_CPUID2`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/cpuid.c`, `kvm_vcpu_ioctl_set_cpuid2` and `kvm_set_cpuid`.
    pub(super) fn set_cpuid2(&self, vcpu: &mut Vcpu) -> Result<u32, Errno> {
        let head: Cpuid2 = self.get()?;
        if head.nent > MAX_ENTRIES {
            return Err(Errno::E2BIG);
        }
        let table: Vec<CpuidEntry2> = self.get_array(size_of::<Cpuid2>(), head.nent)?;
        vcpu.set_cpuid2(&table).map(|()| 0)
    }

    /// `KVM_GET_CPUID2`. The buffer's size is written back only if the table fits.
    pub(super) fn get_cpuid2(&self, vcpu: &Vcpu) -> Result<u32, Errno> {
        let mut head: Cpuid2 = self.get()?;
        let table = vcpu.cpuid2();
        let nent = u32::try_from(table.len()).unwrap_or(u32::MAX);
        if head.nent < nent {
            return Err(Errno::E2BIG);
        }
        self.put_array(size_of::<Cpuid2>(), &table)?;
        head.nent = nent;
        self.put(&head).map(|()| 0)
    }
}
