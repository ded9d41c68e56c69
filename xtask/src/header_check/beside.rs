//! Headers that are no part of a tree: the compiler is given our numbers and says which of them are wrong.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use exeunt_headers::Target;
use exeunt_headers::compile::Compiler;

use super::agree::Outcome;
use super::numbers::{Beside, Number};

/// Compares the numbers of these headers, for one target. `is_newest` headers have to have them all.
pub(crate) fn compare(
    headers: &[Beside],
    dir: &Path,
    target: Target,
    compiler: &Compiler,
    is_newest: bool,
) -> Outcome {
    let mut sum = Outcome::default();
    for header in headers {
        let outcome = match refused(&text(header), dir, target, compiler) {
            Ok(errors) => judge(header, &errors, is_newest && header.belongs_to(target)),
            Err(error) => failed(format!("{compiler} cannot be run: {error}")),
        };
        sum.add(outcome);
    }
    sum
}

/// A C file that compiles if the header defines each number as we do.
fn text(header: &Beside) -> String {
    let include = header.include;
    // `linux/psci.h` uses `BIT` and leaves it to the kernel to define it.
    let mut text = format!(
        "#if __has_include(<{include}>)\n#include <{include}>\n#endif\n\
         #ifndef BIT\n#define BIT(nr) (1ULL << (nr))\n#endif\n"
    );
    for Number { name, value, .. } in &header.numbers {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "#ifdef {name}\n_Static_assert((unsigned long long)({name}) == {value}ULL, \"differs {name}\");\n\
             #else\n_Static_assert(0, \"absent {name}\");\n#endif"
        );
    }
    text
}

/// The complaints of the compiler.
fn refused(text: &str, dir: &Path, target: Target, compiler: &Compiler) -> io::Result<String> {
    let command = compiler.to_string();
    let mut words = command.split(' ');
    let program = words.next().unwrap_or_default();
    let mut command = Command::new(program);
    command.args(words).args(["-fsyntax-only", "-w", "-nostdinc"]);
    // Clang gives up after 20 errors.
    if program.ends_with("clang") {
        command.arg("-ferror-limit=0");
    }
    // Each architecture's own `asm` first; folders that are not there are passed over.
    let triplet = match target {
        Target::X86_64 | Target::I386 | Target::X32 => "x86_64-linux-gnu",
        Target::Aarch64 => "aarch64-linux-gnu",
        Target::Arm => "arm-linux-gnueabihf",
        Target::Riscv64 => "riscv64-linux-gnu",
    };
    command.arg("-I").arg(dir.join(triplet)).arg("-I").arg(dir).args(["-x", "c", "-"]);
    command.env("LC_ALL", "C").env_remove("CPATH").env_remove("C_INCLUDE_PATH").env_remove("GCC_COLORS");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    Ok(String::from_utf8_lossy(&child.wait_with_output()?.stderr).into_owned())
}

/// What the complaints say about each number.
fn judge(header: &Beside, errors: &str, is_complete: bool) -> Outcome {
    let mut outcome = Outcome::default();
    // GCC shows the line of the source, too, which holds the same words.
    let errors: Vec<&str> = errors.lines().filter(|line| line.contains("error:")).collect();
    let about = |line: &str, verdict: &str, number: &Number| {
        let (_, name) = line.split_once(verdict).unwrap_or_default();
        name.trim_end_matches('"') == number.name
    };
    let mut explained = 0;
    for number in &header.numbers {
        let Number { name, path, value, .. } = number;
        let is = |verdict| errors.iter().any(|line| about(line, verdict, number));
        let (differs, absent) = (is("differs "), is("absent "));
        explained += usize::from(differs || absent);
        if differs {
            let include = header.include;
            outcome
                .differences
                .push(format!("exeunt-abi has {name} = {value:#x} ({path}), {include} another"));
        } else if absent && is_complete {
            outcome.differences.push(format!("{} has no {name} ({path})", header.include));
        } else if absent {
            outcome.own_elsewhere += 1;
        } else {
            outcome.own_constants += 1;
        }
    }
    if explained != errors.len() {
        return failed(format!("{} does not compile: {}", header.include, errors.join("; ")));
    }
    outcome
}

fn failed(why: String) -> Outcome {
    Outcome { differences: vec![why], ..Outcome::default() }
}

#[cfg(test)]
mod tests {
    use super::super::numbers;
    use super::*;
    use exeunt_headers::compile;

    fn psci() -> Beside {
        let found = numbers::beside().into_iter().find(|header| header.include == "linux/psci.h");
        found.unwrap()
    }

    #[test]
    fn each_verdict_is_read_from_the_words_of_gcc_and_of_clang() {
        let gcc = "<stdin>:9:1: error: static assertion failed: \"differs PSCI_RET_DENIED\"\n\
                   \x20   9 | _Static_assert(0, \"absent PSCI_RET_DENIED\"); // error\n\
                   <stdin>:9:1: error: static assertion failed: \"absent PSCI_RET_DISABLED\"\n";
        let clang = "<stdin>:9:1: error: static assertion failed due to requirement '0': differs PSCI_RET_DENIED\n\
                     <stdin>:9:1: error: static assertion failed: absent PSCI_RET_DISABLED\n";
        let all = psci().numbers.len();
        for errors in [gcc, clang] {
            let outcome = judge(&psci(), errors, false);
            assert_eq!((outcome.own_constants, outcome.own_elsewhere), (all - 2, 1));
            let [difference] = &outcome.differences[..] else { panic!("{:?}", outcome.differences) };
            assert!(difference.contains("PSCI_RET_DENIED = 0xfffffffffffffffd (psci::return_code::DENIED)"));
            assert_eq!(judge(&psci(), errors, true).differences.len(), 2);
        }
        assert_eq!(judge(&psci(), "", true).own_constants, all);
    }

    #[test]
    fn a_header_that_does_not_compile_is_a_difference() {
        let outcome = judge(&psci(), "linux/psci.h:3:1: error: unknown type name 'x'\n", false);
        assert_eq!(outcome.own_constants, 0);
        assert!(outcome.differences[0].contains("does not compile"), "{:?}", outcome.differences);
    }

    #[test]
    fn each_wrong_number_of_another_header_is_found_by_the_compiler() {
        let Ok(compiler) = compile::find(Target::X86_64) else { return };
        let dir = std::env::temp_dir().join(format!("exeunt-beside-{}", std::process::id()));
        for mut header in numbers::beside() {
            let file = dir.join(header.include);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            let define = |Number { name, value, .. }: &Number| format!("#define {name} {value}ULL\n");
            let defines: Vec<String> = header.numbers.iter().map(define).collect();
            std::fs::write(&file, defines.concat()).unwrap();
            let all = header.numbers.len();
            let right = compare(std::slice::from_ref(&header), &dir, Target::X86_64, &compiler, true);
            assert_eq!((right.own_constants, right.differences), (all, vec![]));
            for number in &mut header.numbers {
                number.value ^= 1;
            }
            let wrong = compare(std::slice::from_ref(&header), &dir, Target::X86_64, &compiler, true);
            assert_eq!((wrong.own_constants, wrong.differences.len()), (0, all), "{:?}", wrong.differences);
            std::fs::remove_file(&file).unwrap();
            let none = compare(std::slice::from_ref(&header), &dir, Target::X86_64, &compiler, false);
            assert_eq!((none.own_elsewhere, none.differences), (all, vec![]));
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
