//! A guest and a VMM that do anything at all: the model neither panics nor hangs, and what it hands out has a meaning.

use crate::world::{GHCB, MEMORY_BYTES, kernel, new_vm};
use exeunt_abi::ghcb::guest_message::{MSG_REPORT_REQ, MSG_TYPE};
use exeunt_abi::ghcb::msr::REGISTER_GPA_REQUEST;
use exeunt_abi::ghcb::page::{self, Field};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::run::{ExitReason, MemoryFault, UNION_BYTES};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Gfn, Gpa, Kernel, PAGE_SIZE};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Firmware, Kvm, Vcpu, Vm};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::{DecodeError, decode};
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::host::{Action, Backing, Events as _, Host as _, Vcpu as _};
use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use zerocopy::FromBytes;

/// What a guest does.
#[derive(Clone, Debug)]
enum Act {
    Read(Gpa, usize, Access),
    Write(Gpa, Vec<u8>, Access),
    Pvalidate(Gpa, bool),
    Vmgexit(u64),
    /// Fields of the GHCB, words of its shared buffer, and `VMGEXIT` with it.
    Request {
        ghcb: Gpa,
        fields: Vec<(Field, u64)>,
        valid: u128,
        buffer: Vec<u64>,
    },
    Vmmcall(u64, [u64; 4]),
    PortOut(u16, u8, u32),
    PortIn(u16, u8),
    Hlt,
    TripleFault,
    HypervReset,
    Psci(u32, [u64; 3]),
}

/// What a VMM does before it enters.
#[derive(Clone, Debug)]
enum Move {
    Nothing,
    /// What the exit asks for.
    Comply,
    Scribble(Vec<u8>),
    /// Into the reply of a hypercall, or of a request for certificates.
    Reply(u64),
    Attributes(Gpa, u64, u64),
    Discard(u64, u64, Backing),
    Enable(Cap, u64),
    Events(Vec<u8>),
    TripleFault,
    Firmware(Firmware),
    Kick(bool),
}

fn gpa() -> impl Strategy<Value = Gpa> {
    prop_oneof![
        4 => Just(GHCB.0),
        4 => GHCB.0..GHCB.0 + PAGE_SIZE,
        4 => 0..MEMORY_BYTES + PAGE_SIZE,
        2 => (0..=MEMORY_BYTES / PAGE_SIZE).prop_map(|page| page * PAGE_SIZE),
        1 => any::<u64>(),
        1 => Just(u64::MAX),
    ]
    .prop_map(Gpa)
}

/// Pages that hold the type of a report request.
const REQUESTS: u64 = 8;

fn page_address() -> impl Strategy<Value = u64> {
    (0..REQUESTS).prop_map(|page| page * PAGE_SIZE)
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::Shared), Just(Access::Private)]
}

fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0..16u64,
        4 => page_address(),
        2 => gpa().prop_map(|gpa| gpa.0),
        1 => any::<u64>(),
        1 => Just(u64::MAX),
        // Entries of page-state changes.
        2 => (0..513u64, 0..0x400u64, 0..4u64, 0..2u64)
            .prop_map(|(cur, gfn, operation, huge)| huge << 56 | operation << 52 | gfn << 12 | cur),
    ]
}

fn code() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0x8000_0001..0x8000_0014u64,
        1 => 0x8000_fffd..=0x8000_ffffu64,
        1 => Just(0x81),
        1 => 0..0x100u64,
        1 => any::<u64>(),
    ]
}

fn request() -> impl Strategy<Value = Act> {
    let regs = [page::RAX, page::RBX, page::RCX, page::RDX, page::RSI, page::CPL];
    let valid = prop_oneof![4 => Just(u128::MAX), 1 => any::<u128>()];
    let scratch = prop_oneof![3 => 0x7f0..0x1000u64, 1 => Just(0x800)];
    let ghcb = prop_oneof![6 => Just(GHCB), 1 => gpa()];
    (ghcb, code(), word(), word(), scratch, vec(word(), regs.len()), valid, vec(word(), 0..8)).prop_map(
        move |(ghcb, code, info_1, info_2, scratch, values, valid, buffer)| {
            let mut fields = vec![
                (page::SW_EXIT_CODE, code),
                (page::SW_EXIT_INFO_1, info_1),
                (page::SW_EXIT_INFO_2, info_2),
                (page::SW_SCRATCH, ghcb.0.wrapping_add(scratch)),
            ];
            fields.extend(regs.into_iter().zip(values));
            Act::Request { ghcb, fields, valid, buffer }
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    let msr = prop_oneof![
        Just(GHCB.0 | 0x012),
        (1..3u8, 0..0x400u64).prop_map(|(operation, gfn)| MsrRequest::psc(Gfn(gfn), operation)),
        (0..0x102u64, any::<u64>()).prop_map(|(info, rest)| rest & !0xfff | info),
        any::<u64>(),
    ];
    prop_oneof![
        1 => (gpa(), prop_oneof![0..9000usize, any::<usize>()], access()).prop_map(|(a, b, c)| Act::Read(a, b, c)),
        1 => (gpa(), vec(any::<u8>(), 0..5000), access()).prop_map(|(a, b, c)| Act::Write(a, b, c)),
        1 => (gpa(), any::<bool>()).prop_map(|(a, b)| Act::Pvalidate(a, b)),
        4 => msr.prop_map(Act::Vmgexit),
        16 => request(),
        1 => (prop_oneof![Just(12), any::<u64>()], [word(), word(), word(), word()])
            .prop_map(|(a, b)| Act::Vmmcall(a, b)),
        1 => (any::<u16>(), any::<u8>(), any::<u32>()).prop_map(|(a, b, c)| Act::PortOut(a, b, c)),
        1 => (any::<u16>(), 0..6u8).prop_map(|(a, b)| Act::PortIn(a, b)),
        1 => Just(Act::Hlt),
        1 => Just(Act::TripleFault),
        1 => Just(Act::HypervReset),
        1 => (prop_oneof![0x8400_0000..0x8400_0010u32, 0xc400_0000..0xc400_0018u32], [word(), word(), word()])
            .prop_map(|(a, b)| Act::Psci(a, b)),
    ]
}

fn vmm_move() -> impl Strategy<Value = Move> {
    let ret = prop_oneof![4 => Just(0), 2 => 0..32u64, 1 => any::<u64>()];
    let cap = prop_oneof![
        Just(Cap::EXIT_HYPERCALL),
        Just(Cap::EXCEPTION_PAYLOAD),
        Just(Cap::X86_TRIPLE_FAULT_EVENT),
        Just(Cap::ARM_SYSTEM_SUSPEND),
    ];
    let bytes = prop_oneof![3 => Just(PAGE_SIZE), 1 => Just(MEMORY_BYTES), 1 => any::<u64>()];
    let attributes = prop_oneof![4 => Just(8), 3 => Just(0), 1 => any::<u64>()];
    let backing = prop_oneof![Just(Backing::Shared), Just(Backing::Private)];
    prop_oneof![
        2 => Just(Move::Nothing),
        20 => Just(Move::Comply),
        2 => vec(any::<u8>(), UNION_BYTES).prop_map(Move::Scribble),
        6 => ret.prop_map(Move::Reply),
        4 => (gpa(), bytes, attributes).prop_map(|(a, b, c)| Move::Attributes(Gpa(a.0 & !0xfff), b, c)),
        1 => (0..0x500u64, any::<u64>(), backing).prop_map(|(a, b, c)| Move::Discard(a, b, c)),
        1 => (cap, prop_oneof![Just(1 << 12), Just(1), Just(0), any::<u64>()]).prop_map(|(a, b)| Move::Enable(a, b)),
        1 => vec(any::<u8>(), size_of::<VcpuEvents>()).prop_map(Move::Events),
        1 => Just(Move::TripleFault),
        1 => any::<u32>().prop_map(|status| Move::Firmware(Firmware::Completes { status })),
        1 => Just(Move::Firmware(Firmware::Fails(Errno::ENODEV))),
        1 => weighted(0.2).prop_map(Move::Kick),
    ]
}

async fn request_by_page(
    cpu: &Cpu,
    ghcb: Gpa,
    fields: &[(Field, u64)],
    valid: u128,
    buffer: &[u64],
) -> Result<(), GuestFault> {
    for (field, value) in fields {
        cpu.write(field.at(ghcb), &value.to_le_bytes(), Access::Shared).await?;
    }
    let scratch = fields.iter().find(|(field, _)| *field == page::SW_SCRATCH).map_or(0, |(_, at)| *at);
    for (index, word) in (0..).zip(buffer) {
        cpu.write(Gpa(scratch.wrapping_add(8 * index)), &word.to_le_bytes(), Access::Shared).await?;
    }
    let bitmap = Gpa(ghcb.0.wrapping_add(page::VALID_BITMAP));
    cpu.write(bitmap, &valid.to_le_bytes(), Access::Shared).await?;
    cpu.vmgexit(ghcb.0 & !0xfff).await.map(|_| ())
}

/// Exceptions do not stop this guest.
async fn hostile_guest(cpu: Cpu, acts: Vec<Act>) -> Result<(), GuestFault> {
    // Most requests by page are worth more from a GHCB that is registered.
    let _ = cpu.vmgexit(GHCB.0 | REGISTER_GPA_REQUEST).await;
    for act in acts {
        match act {
            Act::Read(gpa, bytes, access) => _ = cpu.read(gpa, bytes, access).await,
            Act::Write(gpa, bytes, access) => _ = cpu.write(gpa, &bytes, access).await,
            Act::Pvalidate(gpa, validate) => _ = cpu.pvalidate(gpa, validate).await,
            Act::Vmgexit(msr) => _ = cpu.vmgexit(msr).await,
            Act::Request { ghcb, fields, valid, buffer } => {
                let _ = request_by_page(&cpu, ghcb, &fields, valid, &buffer).await;
            }
            Act::Vmmcall(nr, args) => _ = cpu.vmmcall(nr, args).await,
            Act::PortOut(port, size, value) => _ = cpu.port_out(port, size, value).await,
            Act::PortIn(port, size) => _ = cpu.port_in(port, size).await,
            Act::Hlt => cpu.hlt().await,
            Act::TripleFault => cpu.triple_fault().await,
            Act::HypervReset => _ = cpu.hyperv_reset().await,
            Act::Psci(function, args) => _ = cpu.psci(function, args).await,
        }
    }
    Ok(())
}

fn comply(vm: &Vm, vcpu: &mut Vcpu) {
    match vcpu.page().reason() {
        ExitReason::MEMORY_FAULT => {
            let fault: MemoryFault = vcpu.page().payload();
            let _ = vm.set_memory_attributes(Gpa(fault.gpa), fault.size, fault.flags);
        }
        ExitReason::HYPERCALL => vcpu.page_mut().set_bytes(56, &[0; 8]),
        ExitReason::SNP_REQ_CERTS => vcpu.page_mut().set_bytes(16, &[0; 8]),
        _ => {}
    }
}

fn make(vm: &Vm, vcpu: &mut Vcpu, action: &Move) {
    match action {
        Move::Nothing => {}
        Move::Comply => comply(vm, vcpu),
        Move::Scribble(bytes) => vcpu.page_mut().set_bytes(0, bytes),
        Move::Reply(ret) => {
            vcpu.page_mut().set_bytes(56, &ret.to_le_bytes());
            vcpu.page_mut().set_bytes(16, &ret.to_le_bytes());
        }
        Move::Attributes(gpa, bytes, attributes) => {
            let _ = vm.set_memory_attributes(*gpa, *bytes, *attributes);
        }
        Move::Discard(gfn, pages, backing) => {
            if let Some(range) = PageRange::new(Gfn(*gfn), *pages) {
                vm.effects().apply(&Action::Discard { range, backing: *backing }).unwrap();
            }
        }
        Move::Enable(cap, argument) => _ = vm.enable_cap(*cap, *argument),
        Move::Events(bytes) => {
            let _ = vcpu.set_events(&VcpuEvents::read_from_bytes(bytes).unwrap());
            let events = vcpu.events().unwrap();
            assert_eq!(vcpu.events(), Ok(events), "reading events is idempotent");
        }
        Move::TripleFault => vcpu.raise_triple_fault(),
        Move::Firmware(firmware) => vm.set_firmware(*firmware),
        Move::Kick(on) => vcpu.kick().set(*on),
    }
}

fn kernels() -> impl Strategy<Value = (Kernel, VmType)> {
    let dialect = prop_oneof![
        4 => Just(Dialect::Linux7_2),
        3 => Just(Dialect::Linux6_12),
        1 => Just(Dialect::Linux6_1),
        1 => Just(Dialect::Linux5_17),
        1 => Just(Dialect::Linux5_10),
    ];
    let vm_type = prop_oneof![
        5 => Just(VmType::Snp),
        2 => Just(VmType::SevEs),
        1 => Just(VmType::SwProtected),
        1 => Just(VmType::Default),
    ];
    let arch = prop_oneof![9 => Just(Arch::X86), 1 => Just(Arch::Arm64)];
    (dialect, vm_type, arch).prop_map(|(dialect, vm_type, arch)| {
        let kernel = Kernel { arch, ..kernel(dialect) };
        // What this kernel does not offer becomes an ordinary VM.
        let offered = Kvm::new(kernel).create_vm(vm_type).is_ok();
        (kernel, if offered { vm_type } else { VmType::Default })
    })
}

proptest! {
    #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_guest_under_any_vmm_neither_panics_nor_hangs(
        (kernel, vm_type) in kernels(),
        certificates in any::<bool>(),
        acts in vec(act(), 10..60),
        moves in vec((vmm_move(), weighted(0.1)), 10..80),
    ) {
        let vm = new_vm(kernel, vm_type);
        if vm_type.has_protected_state() {
            vm.sev_init2(0).unwrap();
            if certificates {
                let _ = vm.snp_enable_req_certs();
            }
            vm.launch().unwrap();
        }
        let _ = vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << 12);
        for request in 0..REQUESTS {
            vm.write_shared(Gpa(request * PAGE_SIZE + MSG_TYPE), &[MSG_REPORT_REQ]).unwrap();
        }
        let mut vcpu = vm.create_vcpu(0, |cpu| hostile_guest(cpu, acts)).unwrap();
        for (action, immediately) in &moves {
            make(&vm, &mut vcpu, action);
            let entered = if *immediately { vcpu.enter_immediately() } else { vcpu.enter() };
            if entered.is_ok() {
                prop_assert_ne!(vcpu.page().reason(), ExitReason::UNKNOWN);
            }
            match decode(entered, vcpu.page(), kernel) {
                Ok(_) | Err(DecodeError::Failed { .. }) => {}
                Err(error) => prop_assert!(false, "no meaning: {error}"),
            }
        }
    }
}
