//! An unmodified QEMU launches an SNP guest on the model, with neither KVM nor SEV: the secure processor of the model
//! measures what the `sev` crate computes from the same firmware.
//!
//! The expected measurement goes into an ID block, which is a part of the launch that QEMU makes. The processor refuses
//! `SNP_LAUNCH_FINISH` if it measured anything else.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl;
use exeunt_abi::kvm::sev::{firmware, id};
use exeunt_abi::psp::identity::{ID_BLOCK_VERSION, IdBlock};
use exeunt_check::profile::{Command, Profile, ProfileError};
use exeunt_interpose::launch::{Launch, Ran};
use exeunt_interpose::plan::{Plan, Stage};
use exeunt_interpose::record::What;
use exeunt_linux::print_skip;
use exeunt_model::psp::sign_id_block;
use p384::ecdsa::SigningKey;
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use zerocopy::{FromZeros, IntoBytes};

/// As in the profile.
const POLICY: u64 = 0x3_0000;
/// `SEV_FEATURES.SNPActive`.
const SNP_ACTIVE: u64 = 1;

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for digit in 0..4 {
            let at = usize::try_from(word >> (18 - 6 * digit) & 63).unwrap();
            text.push(if digit <= chunk.len() { char::from(DIGITS[at]) } else { '=' });
        }
    }
    text
}

/// The firmware that a command names after `-bios`.
fn firmware_of(command: &Command) -> PathBuf {
    let at = command.args.iter().position(|arg| arg == "-bios").unwrap();
    PathBuf::from(&command.args[at + 1])
}

/// A QEMU that knows SNP: the installed one, or the one that `cargo xtask foreign-vmm` fetched.
fn qemu() -> Result<(Profile, OsString), String> {
    let profile = Profile::load("qemu-snp").unwrap();
    let fetched = std::env::var_os("HOME").map(|home| {
        Path::new(&home).join(".cache/exeunt/qemu-snp/usr/bin/qemu-system-x86_64").into_os_string()
    });
    for program in fetched.into_iter().chain([OsString::from("qemu-system-x86_64")]) {
        match profile.command(Some(&program), &[]) {
            Err(ProfileError::NoProgram { .. }) => {}
            Err(error) => return Err(error.to_string()),
            Ok(command) => {
                let found = exeunt_check::profile::for_program(&command.program, Some(Stage::Scripted));
                if found.is_some_and(|found| found == profile) {
                    return Ok((profile, program));
                }
            }
        }
    }
    Err("no QEMU here knows SNP guests: fetch one with cargo xtask foreign-vmm".into())
}

fn measurement(firmware: &Path, vcpus: u32) -> [u8; 48] {
    let digest = snp_calc_launch_digest(SnpMeasurementArgs {
        vcpus,
        vcpu_type: CpuType::EpycV4,
        ovmf_file: firmware.to_owned(),
        guest_features: GuestFeatures(SNP_ACTIVE),
        kernel_file: None,
        initrd_file: None,
        append: None,
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    });
    let hex = digest.unwrap().get_hex_ld();
    std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
}

/// Launches with an ID block that demands this measurement.
fn launch(profile: &Profile, program: &OsStr, vcpus: u32, ld: [u8; 48]) -> Ran {
    let mut block = IdBlock::new_zeroed();
    (block.ld, block.version, block.policy) = (ld, ID_BLOCK_VERSION, POLICY);
    let key = SigningKey::from_slice(&[4; 48]).unwrap();
    let auth = sign_id_block(&block, &key, None);
    let id = format!(",id-block={},id-auth={}", base64(block.as_bytes()), base64(auth.as_bytes()));
    let mut profile = profile.clone();
    for arg in &mut profile.args {
        if arg.starts_with("sev-snp-guest,") {
            arg.push_str(&id);
        }
    }
    let command = profile.command(Some(program), &["-smp".into(), vcpus.to_string().into()]).unwrap();
    let line = [&[command.program.clone().into_os_string()], command.args.as_slice()].concat();
    let plan = Plan::new(Stage::Scripted).with_scene("conversion-there-and-back");
    let mut launch = Launch::new(line, plan, &[]);
    launch.env.clone_from(&command.env);
    launch.settle = profile.settle;
    launch.run(&AtomicBool::new(false), &mut |_| {}).unwrap()
}

/// The results of the commands of a launch, in order, by their numbers.
fn commands(ran: &Ran) -> Vec<(u32, Result<u32, Errno>, u32)> {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let command = |what: &What| match what {
        What::Ioctl { request, before, after, result, .. } if *request == ioctl::KVM_MEMORY_ENCRYPT_OP.0 => {
            // `struct kvm_sev_cmd`: the number, the address of the data, the firmware's error.
            Some((word(before, 0), *result, word(after, 16)))
        }
        _ => None,
    };
    ran.records.iter().filter_map(|record| command(&record.what)).collect()
}

#[test]
fn qemu_launches_an_snp_guest_whose_measurement_is_what_the_sev_crate_computes() {
    let (profile, program) = match qemu() {
        Ok(found) => found,
        Err(reason) => {
            print_skip("an SNP launch of QEMU", reason);
            return;
        }
    };
    let command = profile.command(Some(&program), &[]).unwrap();
    let firmware = firmware_of(&command);
    for vcpus in [1, 2] {
        let ld = measurement(&firmware, vcpus);
        let ran = launch(&profile, &program, vcpus, ld);
        let commands = commands(&ran);
        let numbers: Vec<_> = commands.iter().map(|(number, ..)| *number).collect();
        let output = &ran.output.text;
        assert_eq!(numbers[..2], [id::INIT2, id::SNP_LAUNCH_START], "{output}");
        assert_eq!(commands.last(), Some(&(id::SNP_LAUNCH_FINISH, Ok(0), 0)), "{vcpus} vCPUs: {output}");
        assert!(numbers.iter().filter(|number| **number == id::SNP_LAUNCH_UPDATE).count() > 3, "{numbers:?}");
        assert!(commands.iter().all(|(_, result, _)| result.is_ok()), "{commands:?}");
        let runs = ran.records.iter().filter(|record| matches!(record.what, What::Run(_))).count();
        assert!(runs > 1, "the guest ran: {output}");
    }
}

#[test]
fn a_measurement_that_differs_in_one_bit_is_refused() {
    let Ok((profile, program)) = qemu() else {
        print_skip("an SNP launch of QEMU", "no QEMU here knows SNP guests");
        return;
    };
    let firmware = firmware_of(&profile.command(Some(&program), &[]).unwrap());
    let mut ld = measurement(&firmware, 1);
    ld[47] ^= 1;
    let ran = launch(&profile, &program, 1, ld);
    let last = commands(&ran).last().copied();
    let refused = (id::SNP_LAUNCH_FINISH, Err(Errno::EIO), firmware::BAD_MEASUREMENT);
    assert_eq!(last, Some(refused), "{}", ran.output.text);
}
