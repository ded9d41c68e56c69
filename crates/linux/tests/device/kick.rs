//! A vCPU is taken out of the guest, by itself and by others.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use exeunt_abi::Errno;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_proto::exit::Exit;
use exeunt_proto::host::Vcpu as _;

use crate::boot::{boot, next};

#[test]
fn an_immediate_entry_of_a_spinning_guest_comes_back_with_the_stale_reason() {
    let Some((_vm, mut vcpu)) = boot("immediate entry", "spin") else { return };
    assert_eq!(vcpu.page().exit_reason, 0);
    for _ in 0..3 {
        assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
        assert_eq!(vcpu.page().exit_reason, 0, "stale");
    }
    assert_eq!(vcpu.registers().unwrap().0, 0);
}

#[test]
fn a_kick_takes_a_spinning_vcpu_out_of_the_guest() {
    let Some((_vm, mut vcpu)) = boot("kick", "spin") else { return };
    let kicker = vcpu.kicker();
    let (done, waiting) = mpsc::channel();
    let spinning = thread::spawn(move || {
        let entered = vcpu.enter();
        done.send(()).unwrap();
        (vcpu, entered)
    });
    assert!(waiting.recv_timeout(Duration::from_millis(50)).is_err(), "the guest spins");
    kicker.kick();
    waiting.recv_timeout(Duration::from_secs(10)).unwrap();
    let (vcpu, entered) = spinning.join().unwrap();
    assert_eq!(entered, Err(Errno::EINTR));
    assert_eq!(vcpu.page().reason(), ExitReason::INTR);
    assert_eq!(vcpu.page().user[1], 1);
}

#[test]
fn a_kick_lasts_until_it_is_cleared_and_outlives_an_immediate_entry() {
    let Some((_vm, mut vcpu)) = boot("lasting kick", "hlt") else { return };
    let kicker = vcpu.kicker();
    kicker.kick();
    assert_eq!(vcpu.enter(), Err(Errno::EINTR));
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
    assert_eq!(vcpu.enter(), Err(Errno::EINTR));
    kicker.clear();
    assert_eq!(next(&mut vcpu), Ok(Exit::Hlt));
}

#[test]
fn no_kick_is_lost_however_it_falls_between_entries() {
    let Some((_vm, mut vcpu)) = boot("racing kicks", "spin") else { return };
    let kicker = vcpu.kicker();
    let (done, waiting) = mpsc::channel();
    let other = vcpu.kicker();
    let entering = thread::spawn(move || {
        for round in 0..200 {
            if round % 2 == 0 {
                assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
            }
            assert_eq!(vcpu.enter(), Err(Errno::EINTR));
            other.clear();
            done.send(()).unwrap();
        }
    });
    for round in 0..200u32 {
        // The waits differ, so that the kicks come at all points of the round.
        thread::sleep(Duration::from_micros(u64::from(round % 20) * 5));
        kicker.kick();
        assert!(waiting.recv_timeout(Duration::from_secs(10)).is_ok(), "kick {round} was lost");
    }
    entering.join().unwrap();
}

#[test]
fn a_kicker_outlives_its_vcpu() {
    let Some((vm, vcpu)) = boot("late kick", "hlt") else { return };
    let kicker = vcpu.kicker();
    drop(vcpu);
    drop(vm);
    kicker.kick();
    kicker.clear();
}
