//! The guest images under QEMU: with its software CPU, and on `/dev/kvm`.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use exeunt_linux::image::{Ending, ImageFile, ImageKind, ImageOptions};
use exeunt_linux::{print_skip, probe};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
const PATIENCE: Duration = Duration::from_secs(60);

/// How a run of QEMU ended, and what its guest printed.
struct Ran {
    /// The exit status, or none if QEMU still ran a while after the guest had printed its line.
    status: Option<i32>,
    output: String,
}

fn qemu(accelerator: &str, kind: ImageKind, options: ImageOptions) -> Ran {
    let image = ImageFile::make(kind, options).unwrap();
    let is_rom = matches!(kind, ImageKind::Rom16 | ImageKind::Rom32);
    let mut command = Command::new(QEMU);
    command.args(["-accel", accelerator, "-machine", "q35", "-cpu", "max", "-m", "64", "-nodefaults"]);
    command.args(["-no-reboot", "-display", "none", "-serial", "stdio"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    command.arg(if is_rom { "-bios" } else { "-kernel" }).arg(image.path());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (tell, hear) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 256];
        while let Ok(count @ 1..) = stdout.read(&mut bytes) {
            let _ = tell.send(bytes[..count].to_vec());
        }
    });
    let mut output = Vec::new();
    let mut deadline = Instant::now() + PATIENCE;
    let status = loop {
        output.extend(hear.try_iter().flatten());
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        let said_all = output.windows(kind.line().len()).any(|part| part == kind.line().as_bytes());
        if said_all && options.ending == Ending::Halt {
            deadline = deadline.min(Instant::now() + Duration::from_millis(500));
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    output.extend(hear.iter().flatten());
    Ran { status, output: String::from_utf8_lossy(&output).into_owned() }
}

fn installed() -> bool {
    Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn every_ending(accelerator: &str, kinds: &[ImageKind]) {
    for &kind in kinds {
        for (ending, status) in [
            (Ending::Exit, Some(0x21)),
            (Ending::Reset, Some(0)),
            (Ending::Halt, None),
            (Ending::TripleFault, Some(0)),
        ] {
            let ran = qemu(accelerator, kind, ImageOptions { exits: 100, ending });
            let output = &ran.output;
            assert!(output.contains(&kind.line()), "{accelerator} {kind} {}: {output:?}", ending.name());
            assert_eq!(ran.status, status, "{accelerator} {kind} {}: {output:?}", ending.name());
        }
    }
}

#[test]
fn each_image_prints_its_line_and_ends_as_it_was_told_on_a_software_cpu() {
    if !installed() {
        print_skip("guest images", format!("{QEMU} is not installed"));
        return;
    }
    every_ending("tcg", &ImageKind::ALL);
}

#[test]
fn each_rom_prints_its_line_and_ends_as_it_was_told_on_kvm() {
    if !installed() {
        print_skip("guest images", format!("{QEMU} is not installed"));
        return;
    }
    if let Err(reason) = probe() {
        print_skip("guest images on KVM", reason);
        return;
    }
    // The kernels among the images need a firmware first, which takes a KVM that emulates a long time.
    every_ending("kvm", &[ImageKind::Rom16, ImageKind::Rom32]);
}
