//! Saving and restoring the registers of a vCPU by their bytes.

use exeunt_abi::Errno;
use exeunt_proto::exit::Exit;
use exeunt_proto::host::Vcpu as _;
use exeunt_proto::state::{Area, State};

use crate::boot::{boot, next};

fn read(vcpu: &mut exeunt_linux::Vcpu, area: Area) -> Vec<u8> {
    let mut bytes = vec![0; area.max_bytes()];
    let length = vcpu.area(area, &mut bytes).unwrap().unwrap();
    bytes.truncate(length);
    bytes
}

#[test]
fn every_area_is_read_and_another_vcpu_takes_it_byte_for_byte() {
    let test = "areas of a vCPU";
    let Some((_vm, mut source)) = boot(test, "port-io") else { return };
    let Some((_other, mut target)) = boot(test, "hlt") else { return };
    for _ in 0..3 {
        assert!(matches!(next(&mut source), Ok(Exit::Io(_))));
    }
    assert_eq!(source.enter_immediately(), Err(Errno::EINTR));
    for area in Area::ALL {
        let saved = read(&mut source, area);
        assert!(saved.len() <= area.max_bytes());
        target.set_area(area, &saved).unwrap_or_else(|errno| panic!("{area}: {errno}"));
        assert_eq!(read(&mut target, area), saved, "{area}");
    }
    let mp_state = State::mp_state(&mut source).unwrap();
    assert_eq!(State::set_mp_state(&mut target, mp_state), Ok(()));
    assert_eq!(State::set_mp_state(&mut target, 77), Err(Errno::EINVAL), "the kernel has the say");
    assert_eq!((source.vcpu_id(), target.vcpu_id()), (0, 0));
}

#[test]
fn bytes_of_another_length_are_refused_before_the_kernel_reads_them() {
    let Some((_vm, mut vcpu)) = boot("lengths of areas", "hlt") else { return };
    for area in Area::ALL {
        let saved = read(&mut vcpu, area);
        for length in [1, saved.len() + 1, area.max_bytes() + 40] {
            let bytes = vec![0; length];
            assert_eq!(vcpu.set_area(area, &bytes), Err(Errno::EINVAL), "{area} of {length}");
        }
        assert_eq!(vcpu.area(area, &mut []).err(), (!saved.is_empty()).then_some(Errno::EFAULT), "{area}");
        assert_eq!(read(&mut vcpu, area), saved, "{area}");
    }
}
