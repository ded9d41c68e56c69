//! A vCPU whose guest waits in `HLT` until the test has set the stage, and then executes one `VMGEXIT`.

use crate::guest::GuestFault;
use crate::{Kvm, Slot, Vcpu, Vm};
use exeunt_abi::ghcb::msr;
use exeunt_abi::ghcb::page::{self, Field};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::cpuid::{CpuidEntry2, FLAG_SIGNIFICANT_INDEX};
use exeunt_abi::kvm::run::{ExitReason, MAP_GPA_RANGE, UNION_BYTES};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Gpa, Kernel, PAGE_SIZE};
use exeunt_proto::host::Vcpu as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What the vectors fill memory with that the kernel is not expected to write.
pub(super) const POISON: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// How the VM is made.
#[derive(Default)]
pub(super) struct Setup {
    pub(super) dialect: Dialect,
    pub(super) snp: bool,
    pub(super) ghcb_version: u64,
    pub(super) certs: bool,
    /// Another vCPU is made first, so that the stage's has number 1.
    pub(super) is_second: bool,
    /// Runs of pages with memory: first byte, bytes.
    pub(super) memory: Vec<(u64, u64)>,
}

pub(super) struct Stage {
    pub(super) vm: Vm,
    pub(super) vcpu: Vcpu,
    msr: Arc<AtomicU64>,
    fault: Arc<Mutex<Option<GuestFault>>>,
}

impl Stage {
    pub(super) fn new(setup: &Setup) -> Self {
        let kernel = Kernel { dialect: setup.dialect, arch: Arch::X86 };
        let vm_type = if setup.snp { VmType::Snp } else { VmType::SevEs };
        let vm = Kvm::new(kernel).create_vm(vm_type).unwrap();
        for (number, (gpa, bytes)) in (0..).zip(&setup.memory) {
            vm.lock().memory.insert_unchecked(Slot::shared(number, Gpa(*gpa), *bytes).unwrap());
        }
        vm.sev_init2(0).unwrap();
        if setup.certs && setup.dialect.certs_form() != exeunt_abi::CertsForm::None && setup.snp {
            vm.snp_enable_req_certs().unwrap();
        }
        vm.launch().unwrap();
        // The vectors also hold version 1 for SNP, which `KVM_SEV_INIT2` refuses.
        vm.lock().ghcb_version = setup.ghcb_version;
        if setup.is_second {
            vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        }
        let msr = Arc::new(AtomicU64::new(0));
        let next = Arc::clone(&msr);
        let fault = Arc::new(Mutex::new(None));
        let raised = Arc::clone(&fault);
        let vcpu = vm.create_vcpu(0, |cpu| async move {
            loop {
                cpu.hlt().await;
                *raised.lock().unwrap() = cpu.vmgexit(next.load(Ordering::Relaxed)).await.err();
            }
        });
        let mut stage = Self { vm, vcpu: vcpu.unwrap(), msr, fault };
        assert_eq!(stage.run(), 1);
        stage.vcpu.page.exit = [0x5a; UNION_BYTES];
        // The recordings begin with registers of zeros.
        stage.vcpu.regs = crate::vcpu::Regs::default();
        stage
    }

    /// The guest executes `VMGEXIT`. Returns what the vectors call a result.
    pub(super) fn vmgexit(&mut self, msr: u64) -> i64 {
        assert_eq!(self.vcpu.page.reason(), ExitReason::HLT, "the guest does not wait");
        self.msr.store(msr, Ordering::Relaxed);
        self.run()
    }

    /// `KVM_RUN`: 1 if the guest was entered and went on, 0 if there is an exit, a negative error number.
    pub(super) fn run(&mut self) -> i64 {
        match self.vcpu.enter() {
            Ok(()) if self.vcpu.page.reason() == ExitReason::HLT => 1,
            Ok(()) => 0,
            Err(errno) => -i64::from(errno.0),
        }
    }

    /// The exception that the guest's last `VMGEXIT` ended with.
    pub(super) fn fault(&self) -> Option<GuestFault> {
        *self.fault.lock().unwrap()
    }

    pub(super) fn register(&mut self, ghcb: u64) {
        assert_eq!(self.vmgexit(ghcb | msr::REGISTER_GPA_REQUEST), 1);
        assert_eq!(self.vcpu.ghcb.msr, ghcb | 0x013);
    }

    pub(super) fn set_map_gpa_range_exit(&self, on: bool) {
        self.vm.enable_cap(Cap::EXIT_HYPERCALL, u64::from(on) << MAP_GPA_RANGE).unwrap();
    }

    /// Adds one leaf of CPUID, for any sub-leaf or for one: EAX, EBX, ECX, EDX.
    pub(super) fn set_cpuid(&mut self, function: u32, index: Option<u32>, registers: [u32; 4]) {
        let [eax, ebx, ecx, edx] = registers;
        let flags = if index.is_some() { FLAG_SIGNIFICANT_INDEX } else { 0 };
        let index = index.unwrap_or(0);
        let mut entries = self.vcpu.cpuid2();
        entries.push(CpuidEntry2 { function, index, flags, eax, ebx, ecx, edx, padding: [0; 3] });
        // The vCPU has run up to its `HLT`, and the vectors ask for a table after it.
        self.vcpu.has_run = false;
        self.vcpu.set_cpuid2(&entries).unwrap();
    }

    pub(super) fn write(&self, gpa: u64, bytes: &[u8]) {
        self.vm.write_shared(Gpa(gpa), bytes).unwrap();
    }

    pub(super) fn read_u64(&self, gpa: u64) -> u64 {
        self.vm.lock().memory.read_u64(Gpa(gpa)).unwrap()
    }

    /// Writes fields of the GHCB and the valid bitmap, which says that the ones marked are valid.
    pub(super) fn write_ghcb(&self, ghcb: u64, fields: &[(Field, u64, bool)]) {
        let mut valid = 0u128;
        for (field, value, is_valid) in fields {
            if *field == page::CPL {
                self.write(field.at(Gpa(ghcb)).0, &value.to_le_bytes()[..1]);
            } else {
                self.write(field.at(Gpa(ghcb)).0, &value.to_le_bytes());
            }
            if *is_valid {
                valid |= field.mask();
            }
        }
        self.write(ghcb + page::VALID_BITMAP, &valid.to_le_bytes());
    }

    pub(super) fn ghcb_field(&self, ghcb: u64, field: Field) -> u64 {
        self.read_u64(field.at(Gpa(ghcb)).0)
    }

    /// `SW_EXITINFO1` and `SW_EXITINFO2`.
    pub(super) fn exit_info(&self, ghcb: u64) -> [u64; 2] {
        [page::SW_EXIT_INFO_1, page::SW_EXIT_INFO_2].map(|field| self.ghcb_field(ghcb, field))
    }

    /// A word of the exit union.
    pub(super) fn exit_word(&self, index: usize) -> u64 {
        u64::from_le_bytes(self.vcpu.page.exit[index * 8..index * 8 + 8].try_into().unwrap())
    }

    /// A `MAP_GPA_RANGE` exit with `pre` in `ret` and these first arguments, and nothing else written.
    pub(super) fn assert_map_gpa_range(&self, pre: u64, args: &[u64]) {
        assert_eq!(self.vcpu.page.reason(), ExitReason::HYPERCALL);
        assert_eq!(self.exit_word(0), MAP_GPA_RANGE, "nr");
        assert_eq!([1, 2, 3].map(|word| self.exit_word(word)), *args, "args");
        assert_eq!(self.exit_word(7), pre, "preset ret");
        for word in (4..7).chain(8..UNION_BYTES / 8) {
            assert_eq!(self.exit_word(word), POISON, "word {word} was written");
        }
    }

    /// Userspace's answer to a hypercall.
    pub(super) fn set_hypercall_ret(&mut self, ret: u64) {
        self.vcpu.page_mut().set_bytes(56, &ret.to_le_bytes());
    }
}

/// The last page of the address space, which no slot can hold: its end wraps.
pub(super) const LAST_PAGE: u64 = !(PAGE_SIZE - 1);

/// All of the memory that slots can hold, but for the given pages.
pub(super) fn all_memory_but(holes: &[u64]) -> Vec<(u64, u64)> {
    let mut holes: Vec<u64> = holes.iter().map(|gpa| gpa & LAST_PAGE).collect();
    holes.push(LAST_PAGE);
    holes.sort_unstable();
    let mut memory = Vec::new();
    let mut start = 0;
    for hole in holes {
        if hole > start {
            memory.push((start, hole - start));
        }
        start = hole.wrapping_add(PAGE_SIZE);
    }
    memory
}
