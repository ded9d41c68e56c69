//! Each guest brings exactly the exits that its source says.

use exeunt_abi::kvm::run::{ExitReason, UNION_BYTES};
use exeunt_abi::{Errno, Gpa};
use exeunt_linux::{FlatGuest, Vcpu, guests};
use exeunt_proto::exit::{Exit, Io, Mmio};
use exeunt_proto::host::Vcpu as _;
use exeunt_proto::reply::{self, Reply};

use crate::boot::{boot, device, load, next, start};

/// The port and the bytes of the next exit, which must be a write to a port.
fn next_out(vcpu: &mut Vcpu) -> (u16, Vec<u8>) {
    let exit = next(vcpu);
    let Ok(Exit::Io(io @ Io { is_out: true, .. })) = exit else { panic!("{exit:?}") };
    (io.port, vcpu.port_data()[io.data_range()].to_vec())
}

#[test]
fn port_io_writes_six_bytes_and_copies_the_answer_to_its_read() {
    let Some((_vm, mut vcpu)) = boot("port-io", "port-io") else { return };
    for byte in *b"exeunt" {
        assert_eq!(next_out(&mut vcpu), (0x3f8, vec![byte]));
    }
    let exit = next(&mut vcpu);
    let Ok(Exit::Io(io)) = exit else { panic!("{exit:?}") };
    assert_eq!((io.is_out, io.size, io.port, io.count), (false, 1, 0x60, 1));
    vcpu.port_data()[io.data_range()].copy_from_slice(&[0x5a]);
    assert_eq!(next_out(&mut vcpu), (0x80, vec![0x5a]));
    assert_eq!(vcpu.registers().unwrap().1 & 0xff, 0x5a);
    assert_eq!(next(&mut vcpu), Ok(Exit::Hlt));
    assert_eq!(next(&mut vcpu), Ok(Exit::Hlt));
}

#[test]
fn hlt_halts_each_time_it_is_entered() {
    let Some((_vm, mut vcpu)) = boot("hlt", "hlt") else { return };
    for _ in 0..3 {
        assert_eq!(next(&mut vcpu), Ok(Exit::Hlt));
        assert_eq!(vcpu.registers().unwrap().0, 1);
    }
}

#[test]
fn string_io_writes_its_eight_bytes_in_order_however_they_are_cut() {
    let Some((_vm, mut vcpu)) = boot("string-io", "string-io") else { return };
    let mut written = Vec::new();
    let mut exits = 0;
    while written.len() < 8 {
        let (port, bytes) = next_out(&mut vcpu);
        assert_eq!(port, 0x3f8);
        written.extend(bytes);
        exits += 1;
    }
    println!("8 bytes in {exits} exits");
    assert_eq!(written, b"exeunt!\n");
    assert_eq!(next(&mut vcpu), Ok(Exit::Hlt));
}

#[test]
fn string_in_takes_its_eight_bytes_in_order_however_they_are_cut() {
    let Some((vm, mut vcpu)) = boot("string-in", "string-in") else { return };
    let mut answers = b"enter me".iter().copied();
    let mut exits = 0;
    while answers.len() > 0 {
        let exit = next(&mut vcpu);
        let Ok(Exit::Io(io @ Io { is_out: false, port: 0x60, size: 1, .. })) = exit else {
            panic!("{exit:?}")
        };
        for (byte, answer) in vcpu.port_data()[io.data_range()].iter_mut().zip(&mut answers) {
            *byte = answer;
        }
        exits += 1;
    }
    println!("8 bytes in {exits} exits");
    assert_eq!(next_out(&mut vcpu), (0x80, vec![b'e']));
    let mut bytes = [0; 8];
    vm.read_guest(Gpa(0x1100), &mut bytes).unwrap();
    assert_eq!(&bytes, b"enter me");
    assert_eq!(next(&mut vcpu), Ok(Exit::Hlt));
}

#[test]
fn mmio_writes_and_reads_where_no_memory_is() {
    let Some((_vm, mut vcpu)) = boot("mmio", "mmio") else { return };
    let exit = next(&mut vcpu);
    let Ok(Exit::Mmio(Mmio { gpa, data, len, is_write })) = exit else { panic!("{exit:?}") };
    assert_eq!((gpa, &data[..4], len, is_write), (Gpa(0xd000_0000), &[0x78, 0x56, 0x34, 0x12][..], 4, true));
    let exit = next(&mut vcpu);
    let Ok(Exit::Mmio(Mmio { gpa, len, is_write, .. })) = exit else { panic!("{exit:?}") };
    assert_eq!((gpa, len, is_write), (Gpa(0xd000_0000), 4, false));
    let kernel = vcpu.kernel();
    reply::encode(Reply::MmioRead([0xef, 0xbe, 0xad, 0xde, 0, 0, 0, 0]), kernel, vcpu.page_mut());
    assert_eq!(next(&mut vcpu), Ok(Exit::Hlt));
    assert_eq!(vcpu.registers().unwrap().1, 0xdead_beef);
}

#[test]
fn a_triple_fault_in_protected_mode_shuts_down_and_leaves_the_union_untouched() {
    let Some((_vm, mut vcpu)) = boot("shutdown", "shutdown") else { return };
    vcpu.page_mut().exit = [0xaa; UNION_BYTES];
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(vcpu.page().reason(), ExitReason::SHUTDOWN);
    assert_eq!(vcpu.page().exit, [0xaa; UNION_BYTES]);
}

#[test]
fn a_shutdown_is_one_whatever_an_emulator_left_in_the_union_before_it() {
    let Some(kvm) = device("undefined instruction") else { return };
    let guest = FlatGuest { image: &[0x0f, 0x0b], source: "ud2", ..guests::by_name("shutdown").unwrap() };
    let vm = load(&kvm, &guest);
    let mut vcpu = start(&vm, &guest);
    vcpu.page_mut().exit = [0xaa; UNION_BYTES];
    assert_eq!(next(&mut vcpu), Ok(Exit::Shutdown));
    let written = vcpu.page().exit.iter().rposition(|byte| *byte != 0xaa).map_or(0, |last| last + 1);
    println!("{written} bytes of the union were written");
    assert!(written <= 72, "no more than the members of an internal error");
}

#[test]
fn an_immediate_entry_hands_the_answer_over_and_leaves_the_reason_stale() {
    let Some((_vm, mut vcpu)) = boot("enter_immediately", "port-io") else { return };
    for _ in *b"exeunt" {
        next_out(&mut vcpu);
    }
    let exit = next(&mut vcpu);
    let Ok(Exit::Io(io)) = exit else { panic!("{exit:?}") };
    let rip = vcpu.registers().unwrap().0;
    vcpu.port_data()[io.data_range()].copy_from_slice(&[0x77]);
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
    assert_eq!(vcpu.page().reason(), ExitReason::IO, "stale");
    assert_eq!(vcpu.page().user[1], 0, "the byte is as it was");
    let after = vcpu.registers().unwrap();
    assert_eq!(after.1 & 0xff, 0x77);
    println!("RIP {rip:#x} before the answer, {:#x} after it", after.0);
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
    assert_eq!(next_out(&mut vcpu), (0x80, vec![0x77]));
}
