//! The line that shows a verdict again.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

/// What is the same in each line that shows a verdict of one check again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Options besides the rule and the scene.
    pub options: Vec<OsString>,
    /// The VMM and its arguments; empty without one.
    pub command: Vec<OsString>,
}

impl Replay {
    /// The line for a rule in a scene, as a shell takes it.
    #[must_use]
    pub fn line(&self, rule: &str, scene: &str) -> String {
        let mut line = String::from("exeunt check");
        let chosen = ["--rule", rule, "--scene", scene].map(OsStr::new);
        let options = chosen.into_iter().chain(self.options.iter().map(OsString::as_os_str));
        options.for_each(|word| push(&mut line, word));
        if !self.command.is_empty() {
            line.push_str(" -- ");
            line.push_str(&self.command_line());
        }
        line
    }

    /// The VMM and its arguments, as a shell takes them.
    #[must_use]
    pub fn command_line(&self) -> String {
        self.command.iter().map(|word| quoted(word.as_bytes())).collect::<Vec<_>>().join(" ")
    }
}

fn push(line: &mut String, word: &OsStr) {
    line.push(' ');
    line.push_str(&quoted(word.as_bytes()));
}

/// One word for a shell. What a terminal would act on is written by number, which takes a shell that knows `$'...'`.
fn quoted(word: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(byte);
    let text = std::str::from_utf8(word).unwrap_or_default();
    if !word.is_empty() && word.iter().all(is_plain) {
        return text.into();
    }
    let is_printable = |byte: &u8| *byte == b' ' || byte.is_ascii_graphic();
    if word.iter().all(is_printable) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut quoted = String::from("$'");
    for byte in word {
        match byte {
            b'\'' | b'\\' => quoted.extend(['\\', char::from(*byte)]),
            byte if is_printable(byte) => quoted.push(char::from(*byte)),
            // Writing to a string does not fail. Three octal digits end by themselves, hexadecimal ones need not.
            byte => drop(write!(quoted, "\\{byte:03o}")),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_line_is_short_where_it_can_be() {
        let replay = Replay {
            options: ["--seed", "0"].map(OsString::from).to_vec(),
            command: ["qemu", "-m", "1G", "-append", "console=ttyS0 it's"].map(OsString::from).to_vec(),
        };
        assert_eq!(
            replay.line("HC-2", "conversion-that-fails"),
            r"exeunt check --rule HC-2 --scene conversion-that-fails --seed 0 -- qemu -m 1G -append 'console=ttyS0 it'\''s'"
        );
    }

    #[test]
    fn a_shell_makes_the_same_words_of_a_line() {
        let words: [&[u8]; 9] = [
            b"",
            b"a b",
            b"it's $HOME `x` \"y\" \\ ! * ? ~ #",
            b"\x1b[2J\n\t\r",
            b"\xff\xfe9",
            b"\x019\\'",
            "größe\u{202e}".as_bytes(),
            b"--",
            b"<>&|;()",
        ];
        let mut line = String::from("printf '%s\\0'");
        for word in words {
            push(&mut line, OsStr::from_bytes(word));
        }
        assert!(line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{line}");
        let Ok(output) = Command::new("bash").args(["-c", &line]).output() else {
            println!("skipped: there is no bash");
            return;
        };
        let seen: Vec<_> = output.stdout.split(|byte| *byte == 0).collect();
        assert_eq!(seen[..words.len()], words);
    }
}
