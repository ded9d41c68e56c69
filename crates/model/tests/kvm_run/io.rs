//! Port I/O and memory-mapped I/O: by instruction, and by request with the scratch area.

use crate::asked::{Answers, Ask, asking, infos, served};
use crate::world::{DATA, GHCB, Seen, kernel, launched, new_vm, reason, run_to_halt, snp};
use exeunt_abi::ghcb::exit_code::{self, ioio};
use exeunt_abi::ghcb::page::{self, malformed};
use exeunt_abi::kvm::run::{ExitReason, Io, Mmio};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::guest::{Access, Cpu};
use exeunt_model::{Fault, FaultPlan, Point, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;

const BUFFER: Gpa = Gpa(GHCB.0 + page::SHARED_BUFFER);

/// `SW_EXITINFO1` of an access to port 0x3f8.
const fn port(size: u64, flags: u64) -> u64 {
    0x3f8 << ioio::PORT_SHIFT | size << ioio::SIZE_SHIFT | flags
}

/// A VM with version 1 of the protocol.
fn v1() -> Vm {
    let vm = new_vm(kernel(Dialect::Linux7_2), VmType::SevEs);
    vm.sev_init2(1).unwrap();
    vm.launch().unwrap();
    vm
}

fn port_exit(vcpu: &Vcpu) -> Io {
    assert_eq!(reason(vcpu), ExitReason::IO);
    vcpu.page().payload()
}

/// What port exits the guest makes; `IN` is answered with this byte.
fn port_exits(vcpu: &mut Vcpu, answer: u8) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut exits = Vec::new();
    served(vcpu, |vcpu, entered| {
        assert_eq!(entered, Ok(()));
        let io = port_exit(vcpu);
        assert_eq!((io.port, io.data_offset), (0x3f8, 0x1000));
        let bytes = usize::from(io.size) * io.count as usize;
        let data = vcpu.port_data()[..bytes].to_vec();
        if io.direction == 0 {
            assert!(data.iter().all(|byte| *byte == 0), "what is to be filled in begins as zeros");
            vcpu.port_data()[..bytes].fill(answer);
        }
        exits.push((io.direction, io.size, io.count, data));
    });
    exits
}

#[test]
fn an_out_by_page_takes_as_many_bytes_of_rax_as_its_size_says() {
    let ask = |size| Ask::new(exit_code::IOIO, [port(size, 0), 0], &[(page::RAX, 0x1122_3344_5566_7788)]);
    let (mut vcpu, _) = asking(&snp(), [1, 2, 4, 3, 7].map(ask).to_vec());
    let all = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22];
    let expected = [1u8, 2, 4, 3, 7].map(|size| (1, size, 1, all[..usize::from(size)].to_vec()));
    assert_eq!(port_exits(&mut vcpu, 0), expected, "the bits of the size are a number");
}

#[test]
fn an_in_by_page_keeps_the_rest_of_rax_below_four_bytes_and_clears_it_from_there_on() {
    let ask = |size| Ask::new(exit_code::IOIO, [port(size, ioio::TYPE_IN), 0], &[(page::RAX, u64::MAX)]);
    let (mut vcpu, seen) = asking(&snp(), [1, 2, 3, 4, 7].map(ask).to_vec());
    port_exits(&mut vcpu, 0xab);
    let rax: Vec<u64> = seen.take().into_iter().map(|got| got.unwrap().rax).collect();
    let kept = [0xffff_ffff_ffff_ffab, 0xffff_ffff_ffff_abab, 0xffff_ffff_ffab_abab];
    assert_eq!(rax, [kept[0], kept[1], kept[2], 0xabab_abab, 0x00ab_abab_abab_abab]);
}

#[test]
fn an_access_of_no_size_or_no_length_is_nothing_to_do() {
    let scratch = [(page::SW_SCRATCH, BUFFER.0), (page::RAX, 1)];
    let asks = vec![
        Ask::new(exit_code::IOIO, [port(0, 0), 0], &scratch),
        Ask::new(exit_code::IOIO, [port(0, ioio::STRING), 7], &scratch),
        Ask::new(exit_code::IOIO, [port(4, ioio::STRING), 0], &scratch),
        Ask::new(exit_code::MMIO_READ, [0xfee0_0000, 0], &scratch),
        Ask::new(exit_code::MMIO_WRITE, [0xfee0_0000, 0], &scratch),
    ];
    assert_eq!(infos(&snp(), asks), [[0, 0]; 5]);
}

#[test]
fn a_count_that_does_not_fit_into_an_int_fails_kvm_run_and_reads_as_success() {
    let ask = |size, count| {
        Ask::new(exit_code::IOIO, [port(size, ioio::STRING), count], &[(page::SW_SCRATCH, BUFFER.0)])
    };
    let asks = vec![ask(1, 0x8000_0000), ask(4, 0x2000_0000), ask(2, u64::MAX), ask(1, 0x7fff_ffff)];
    let (mut vcpu, seen) = asking(&snp(), asks);
    let mut errors = Vec::new();
    served(&mut vcpu, |_, entered| errors.push(entered));
    assert_eq!(errors, [Err(Errno::EINVAL); 3]);
    let got: Vec<_> =
        seen.take().into_iter().map(|got| got.map(|got| [got.info_1, got.info_2]).unwrap()).collect();
    let no_room = [2, malformed::INVALID_SCRATCH_AREA];
    assert_eq!(
        got,
        [[0, 0], [0, 0], [0, 0], no_room],
        "the largest count fits, and the scratch area does not"
    );
}

#[test]
fn a_string_by_page_goes_through_the_scratch_area_in_one_exit() {
    let data: Vec<u8> = (1..=12).collect();
    let fields = [(page::SW_SCRATCH, BUFFER.0)];
    let out = Ask::new(exit_code::IOIO, [port(4, ioio::STRING), 3], &fields).with_memory(BUFFER, &data);
    let input = Ask::new(exit_code::IOIO, [port(2, ioio::STRING | ioio::TYPE_IN), 5], &fields);
    let vm = snp();
    let (mut vcpu, _) = asking(&vm, vec![out, input]);
    assert_eq!(port_exits(&mut vcpu, 0xcd), [(1, 4, 3, data.clone()), (0, 2, 5, vec![0; 10])]);
    let mut got = [0; 12];
    vm.read_shared(BUFFER, &mut got).unwrap();
    assert_eq!((&got[..10], &got[10..]), (&[0xcd; 10][..], &data[10..]));
}

#[test]
fn a_string_of_version_1_comes_in_chunks_of_a_page_and_only_what_is_read_is_written_back() {
    let data: Vec<u8> = (0..9000u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let outside = DATA.0 + 0x123;
    let fields = [(page::SW_SCRATCH, outside)];
    let vm = v1();
    let out =
        Ask::new(exit_code::IOIO, [port(1, ioio::STRING), 9000], &fields).with_memory(Gpa(outside), &data);
    let input = Ask::new(exit_code::IOIO, [port(4, ioio::STRING | ioio::TYPE_IN), 1025], &fields);
    let (mut vcpu, _) = asking(&vm, vec![out, input]);
    let mut exits = Vec::new();
    served(&mut vcpu, |vcpu, _| {
        let io = port_exit(vcpu);
        let bytes = usize::from(io.size) * io.count as usize;
        if io.direction == 1 {
            exits.push((io.count, vcpu.port_data()[..bytes].to_vec()));
            // Nobody but the guest sees what userspace leaves in the page after an `OUT`.
            vcpu.port_data().fill(0xee);
        } else {
            exits.push((io.count, Vec::new()));
            vcpu.port_data()[..bytes].fill(0x77);
            let mut before = [0; 1];
            vm.read_shared(Gpa(outside), &mut before).unwrap();
            assert_eq!(before, data[..1], "the copy is written back when the guest is entered, not before");
        }
    });
    assert_eq!(exits.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [4096, 4096, 808, 1024, 1]);
    assert_eq!([&exits[0].1[..], &exits[1].1, &exits[2].1].concat(), data);
    let mut got = vec![0; 9000];
    vm.read_shared(Gpa(outside), &mut got).unwrap();
    assert_eq!(got, [vec![0x77; 4100], data[4100..].to_vec()].concat());
}

/// A write of `bytes` bytes whose scratch area lies here.
fn write_at(scratch: u64, bytes: u64) -> Ask {
    Ask::new(exit_code::MMIO_WRITE, [0xfee0_0000, bytes], &[(page::SW_SCRATCH, scratch)])
}

#[test]
fn a_scratch_area_in_the_page_has_to_lie_in_the_shared_buffer() {
    let unusable = [2, malformed::INVALID_SCRATCH_AREA];
    let end = GHCB.0 + page::SHARED_BUFFER_END;
    let asks = vec![
        write_at(0, 8),
        write_at(u64::MAX - 3, 8),
        write_at(BUFFER.0 - 1, 8),
        write_at(GHCB.0, 8),
        write_at(end - 7, 8),
        write_at(end, 1),
    ];
    for vm in [snp(), v1()] {
        assert_eq!(infos(&vm, asks.clone()), [unusable; 6]);
        let (mut vcpu, seen) =
            asking(&vm, vec![write_at(BUFFER.0, 8), write_at(end - 8, 8), write_at(end - 1, 1)]);
        let mut exits = 0;
        served(&mut vcpu, |_, _| exits += 1);
        assert_eq!(exits, 3);
        assert!(seen.take().iter().all(|got| got.is_ok_and(|got| got.info_1 == 0)));
    }
}

#[test]
fn a_scratch_area_outside_of_the_page_is_for_version_1_and_at_most_64_kib() {
    let unusable = [2, malformed::INVALID_SCRATCH_AREA];
    assert_eq!(infos(&snp(), vec![write_at(DATA.0, 8)]), [unusable]);
    let vm = v1();
    assert_eq!(infos(&vm, vec![write_at(DATA.0, 0x1_0001)]), [unusable]);
    let (mut vcpu, seen) = asking(&vm, vec![write_at(DATA.0, 0x1_0000)]);
    let mut exits = 0;
    served(&mut vcpu, |vcpu, _| {
        let mmio: Mmio = vcpu.page().payload();
        assert_eq!((mmio.phys_addr, mmio.len), (0xfee0_0000 + exits * 8, 8));
        exits += 1;
    });
    assert_eq!((exits, seen.take()[0].unwrap().info_1), (0x2000, 0));
}

#[test]
fn a_scratch_area_without_memory_fails_kvm_run_and_so_does_a_host_without_memory() {
    let vm = v1();
    let fails = |vm: &Vm, ask: Ask| {
        let (mut vcpu, _) = asking(vm, vec![ask]);
        let entered = vcpu.enter();
        assert_eq!(reason(&vcpu), ExitReason::UNKNOWN);
        run_to_halt(&mut vcpu);
        entered
    };
    assert_eq!(fails(&vm, write_at(1 << 40, 8)), Err(Errno::EFAULT));
    vm.set_fault_plan(FaultPlan::new().with(Point::ScratchBuffer, 0, Fault::Fails(Errno::ENOMEM)));
    assert_eq!(fails(&vm, write_at(DATA.0, 8)), Err(Errno::ENOMEM));
}

fn mmio_answers(vm: &Vm, asks: Vec<Ask>) -> (Vec<(u64, u32, u8)>, Answers) {
    let (mut vcpu, seen) = asking(vm, asks);
    let mut exits = Vec::new();
    served(&mut vcpu, |vcpu, entered| {
        assert_eq!((entered, reason(vcpu)), (Ok(()), ExitReason::MMIO));
        let mut mmio: Mmio = vcpu.page().payload();
        exits.push((mmio.phys_addr, mmio.len, mmio.is_write));
        mmio.data = [u8::try_from(exits.len()).unwrap(); 8];
        vcpu.page_mut().set_payload(&mmio);
    });
    (exits, seen)
}

#[test]
fn mmio_of_version_2_takes_8_bytes_and_of_version_1_as_many_as_the_scratch_area_holds() {
    let read =
        |bytes| Ask::new(exit_code::MMIO_READ, [0x1_0000_0001, bytes], &[(page::SW_SCRATCH, BUFFER.0)]);
    let (exits, seen) = mmio_answers(&snp(), vec![read(8), read(9)]);
    assert_eq!(exits, [(0x1_0000_0001, 8, 0)]);
    assert_eq!(seen.take()[1].map(|got| got.info_2), Ok(malformed::INVALID_INPUT));
    let vm = v1();
    let (exits, seen) = mmio_answers(&vm, vec![read(19)]);
    assert_eq!(exits, [(0x1_0000_0001, 8, 0), (0x1_0000_0009, 8, 0), (0x1_0000_0011, 3, 0)]);
    assert_eq!(seen.take()[0].map(|got| got.info_1), Ok(0));
    let mut got = [0; 20];
    vm.read_shared(BUFFER, &mut got).unwrap();
    assert_eq!(got[..], [vec![1; 8], vec![2; 8], vec![3; 3], vec![0]].concat());
}

#[test]
fn what_a_read_brought_goes_to_an_outer_scratch_area_at_the_entry_and_a_write_leaves_it() {
    let vm = v1();
    let fields = [(page::SW_SCRATCH, DATA.0)];
    let read = Ask::new(exit_code::MMIO_READ, [0xfee0_0000, 4], &fields).with_memory(DATA, &[9; 8]);
    mmio_answers(&vm, vec![read]);
    let mut got = [0; 8];
    vm.read_shared(DATA, &mut got).unwrap();
    assert_eq!(got, [1, 1, 1, 1, 9, 9, 9, 9]);
    mmio_answers(&vm, vec![Ask::new(exit_code::MMIO_WRITE, [0xfee0_0000, 4], &fields)]);
    vm.read_shared(DATA, &mut got).unwrap();
    assert_eq!(got, [1, 1, 1, 1, 9, 9, 9, 9]);
}

#[test]
fn rep_outsb_is_an_exit_for_each_byte_and_rep_insb_one_for_all() {
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        cpu.write(DATA, b"hello", Access::Shared).await?;
        cpu.port_out_string(0x3f8, 1, DATA, 5).await?;
        cpu.port_in_string(0x3f8, 1, DATA, 5).await?;
        log.push(cpu.read(DATA, 6, Access::Shared).await?);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    let mut expected: Vec<_> = b"hello".iter().map(|byte| (1, 1, 1, vec![*byte])).collect();
    expected.push((0, 1, 5, vec![0; 5]));
    assert_eq!(port_exits(&mut vcpu, 0x5a), expected);
    assert_eq!(seen.take(), [[0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0]]);
}

#[test]
fn rep_ins_reads_ahead_1024_bytes_at_most_and_not_past_the_page() {
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    let program = |cpu: Cpu| async move {
        cpu.port_in_string(0x3f8, 4, DATA, 600).await?;
        cpu.port_in_string(0x3f8, 1, Gpa(DATA.0 + 0xffd), 5).await?;
        cpu.port_in_string(0x3f8, 4, Gpa(DATA.0 + 0xffe), 2).await
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    let counts: Vec<_> =
        port_exits(&mut vcpu, 1).into_iter().map(|(_, size, count, _)| (size, count)).collect();
    assert_eq!(counts, [(4, 256), (4, 256), (4, 88), (1, 3), (1, 2), (4, 1), (4, 1)]);
}

#[test]
fn a_plain_guest_s_access_to_no_memory_is_mmio_in_pieces_of_8_bytes_around_what_is_memory() {
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    let end = crate::world::MEMORY_BYTES;
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        cpu.write(Gpa(0xfee0_0000), &[1, 2, 3, 4], Access::Shared).await?;
        cpu.write(Gpa(end - 2), &[0xaa; 12], Access::Shared).await?;
        log.push(cpu.read(Gpa(end - 1), 11, Access::Shared).await?);
        log.push(cpu.read(Gpa(0xfee0_0ffe), 4, Access::Shared).await?);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    let mut exits = Vec::new();
    served(&mut vcpu, |vcpu, entered| {
        assert_eq!((entered, reason(vcpu)), (Ok(()), ExitReason::MMIO));
        let mut mmio: Mmio = vcpu.page().payload();
        if mmio.is_write == 1 {
            assert!(mmio.data[..mmio.len as usize].iter().all(|byte| *byte != 0));
        }
        exits.push((mmio.phys_addr, mmio.len, mmio.is_write));
        mmio.data = [u8::try_from(exits.len()).unwrap(); 8];
        vcpu.page_mut().set_payload(&mmio);
    });
    let expected = [
        (0xfee0_0000, 4, 1),
        (end, 8, 1),
        (end + 8, 2, 1),
        (end, 8, 0),
        (end + 8, 2, 0),
        (0xfee0_0ffe, 2, 0),
        (0xfee0_1000, 2, 0),
    ];
    assert_eq!(exits, expected, "a piece never crosses a page");
    let [first, second] = seen.take().try_into().unwrap();
    assert_eq!(first, [0xaa, 4, 4, 4, 4, 4, 4, 4, 4, 5, 5]);
    assert_eq!(second, [6, 6, 7, 7]);
}
