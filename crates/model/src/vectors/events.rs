//! `KVM_GET_VCPU_EVENTS` and `KVM_SET_VCPU_EVENTS`.

use super::{Row, replay};
use crate::events::{EventState, Exception, Interrupt, LocalApic, Nmis, Smm};
use crate::{Host, Kvm, Vcpu, Vendor};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::events::{SHADOW_INT_MOV_SS, SHADOW_INT_STI};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Kernel};
use exeunt_proto::host::Events as _;
use zerocopy::{FromBytes, IntoBytes};

/// `hf`: system management mode, and its entry from an NMI handler.
const HF_SMM: i64 = 2;
const HF_SMM_INSIDE_NMI: i64 = 4;
/// `apic`: an INIT waits; a startup interrupt, which events do not touch.
const APIC_INIT: i64 = 1;
const APIC_SIPI: i64 = 2;
/// `hw` of an AMD host with virtual NMIs: `int_ctl`.
const V_NMI_PENDING: i64 = 1 << 11;
const V_NMI_BLOCKING: i64 = 1 << 12;
/// `hw` of an Intel host: interruptibility.
const INTR_STATE_STI: i64 = 1;
const INTR_STATE_MOV_SS: i64 = 2;
const INTR_STATE_NMI: i64 = 8;

#[test]
fn linux_7_2_vcpu_events_are_reproduced() {
    replay("vcpu-events-7.2", 1550, check);
}

fn byte(value: i64) -> u8 {
    u8::try_from(value).unwrap()
}

fn word(value: i64) -> u32 {
    u32::try_from(value).unwrap()
}

fn exception(row: &Row, field: &str) -> Exception {
    let parts = row.list(field);
    let flag = |index: usize| parts[index].as_int() != 0;
    Exception {
        pending: flag(0),
        injected: flag(1),
        has_error_code: flag(2),
        nr: byte(parts[3].as_int()),
        error_code: u32::try_from(parts[4].as_hex()).unwrap(),
        has_payload: flag(5),
        payload: parts[6].as_hex(),
    }
}

/// The interrupt shadow and the NMI mask, from where the processor has them.
fn shadow_and_mask(host: Host, hw: &[i64]) -> (u8, bool) {
    let is = |at: usize, bits: i64| hw[at] & bits != 0;
    match (host.vendor, host.virtual_nmi) {
        (Vendor::Amd, has_vnmi) => {
            let shadow = if hw[0] != 0 { SHADOW_INT_MOV_SS | SHADOW_INT_STI } else { 0 };
            (shadow, if has_vnmi { is(1, V_NMI_BLOCKING) } else { hw[1] != 0 })
        }
        (Vendor::Intel, has_vnmi) => {
            let sti = if is(0, INTR_STATE_STI) { SHADOW_INT_STI } else { 0 };
            let mov_ss = if is(0, INTR_STATE_MOV_SS) { SHADOW_INT_MOV_SS } else { 0 };
            (sti | mov_ss, if has_vnmi { is(0, INTR_STATE_NMI) } else { hw[1] != 0 })
        }
    }
}

/// The state that a row describes.
fn state(row: &Row, host: Host, has_smm: bool) -> EventState {
    let irq = row.ints("irq");
    let nmi = row.ints("nmi");
    let hw = row.ints("hw");
    let apic = row.ints("apic");
    let (shadow, masked) = shadow_and_mask(host, &hw);
    let holds_one = host.virtual_nmi && host.vendor == Vendor::Amd;
    let flags = row.int("hf");
    let smm = Smm {
        active: flags & HF_SMM != 0,
        inside_nmi: flags & HF_SMM_INSIDE_NMI != 0,
        smi_pending: row.is("smi"),
    };
    EventState {
        host,
        exception: exception(row, "ex"),
        exiting: exception(row, "exv"),
        from_userspace: row.is("efu"),
        interrupt: Interrupt { injected: irq[0] != 0, soft: irq[1] != 0, nr: byte(irq[2]) },
        shadow,
        nmi: Nmis {
            injected: nmi[0] != 0,
            masked,
            pending: word(nmi[1]),
            queued: word(nmi[2]),
            virtual_pending: holds_one.then(|| hw[1] & V_NMI_PENDING != 0),
        },
        smm: has_smm.then_some(smm),
        apic: match apic.as_slice() {
            [pending, sipi] => LocalApic {
                in_kernel: true,
                takes_no_init: false,
                latched_init: pending & APIC_INIT != 0,
                pending_sipi: pending & APIC_SIPI != 0,
                sipi_vector: word(*sipi),
            },
            _ => LocalApic::default(),
        },
        dr6: row.hex("dr6"),
        cr2: row.hex("cr2"),
        requests: byte(row.int("req")),
    }
}

fn bytes(row: &Row, field: &str) -> Vec<u8> {
    let value = row.get(field);
    let digits = value.as_str();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn set(vcpu: &mut Vcpu, row: &Row, events: &[u8]) {
    let caps = vcpu.event_caps();
    let mut left = 0;
    let result = vcpu.events.set(&VcpuEvents::read_from_bytes(events).unwrap(), caps, || left += 1);
    let rc = result.map_or_else(|errno: Errno| -errno.0, |()| 0);
    assert_eq!(i64::from(rc), row.int("rc"), "result of KVM_SET_VCPU_EVENTS");
    assert_eq!(left, row.int("nest"), "how often L1 is taken back");
}

fn assert_get(vcpu: &mut Vcpu, row: &Row, field: &str) {
    assert_eq!(vcpu.events().unwrap().as_bytes(), bytes(row, field), "{field}");
}

fn check(row: &Row) {
    let (vendor, virtual_nmi) = match row.get("vendor").as_str() {
        "svm" => (Vendor::Amd, false),
        "svm-vnmi" => (Vendor::Amd, true),
        "vmx-soft" => (Vendor::Intel, false),
        "vmx-vnmi" => (Vendor::Intel, true),
        other => panic!("vendor {other}"),
    };
    let host = Host { vendor, virtual_nmi };
    let vm = Kvm::on(host, Kernel::default()).create_vm(VmType::Default).unwrap();
    vm.enable_cap(Cap::EXCEPTION_PAYLOAD, u64::from(row.is("payload"))).unwrap();
    vm.enable_cap(Cap::X86_TRIPLE_FAULT_EVENT, u64::from(row.is("tf"))).unwrap();
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let has_smm = row.is("smmcfg");
    let expected = |field: &str| state(&row.get(field), host, has_smm);
    vcpu.events = expected("pre");
    match row.get("kind").as_str() {
        "set" => {
            set(&mut vcpu, row, &bytes(row, "set"));
            assert_eq!(vcpu.events, expected("post"), "state after KVM_SET_VCPU_EVENTS");
            assert_get(&mut vcpu, row, "get");
        }
        "get" => {
            assert_get(&mut vcpu, row, "get0");
            assert_eq!(vcpu.events, expected("post"), "state after KVM_GET_VCPU_EVENTS");
        }
        "rt" => {
            assert_get(&mut vcpu, row, "get0");
            set(&mut vcpu, row, &bytes(row, "get0"));
            assert_eq!(vcpu.events, expected("post"), "state after KVM_SET_VCPU_EVENTS");
            assert_get(&mut vcpu, row, "get");
        }
        other => panic!("kind {other}"),
    }
    if row.has("req2") {
        assert_eq!(i64::from(vcpu.events.requests), row.int("req2"), "requests after KVM_GET_VCPU_EVENTS");
    }
}
