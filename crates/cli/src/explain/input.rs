//! Where bytes come from: a file, standard input, or hex digits on the command line. Never more than is looked at.

use super::hex;
use crate::Failure;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes that are taken of a page or of its digits. More is refused, so an endless file ends here.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Bytes that are taken of a log.
pub(super) const MAX_LOG_BYTES: usize = 64 << 20;

/// Bytes with the name of their origin.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// A file name, `standard input`, or how many bytes were given.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// The bytes were text, and no hex.
    pub(super) is_text: bool,
}

/// Takes an argument for a file, for `-`, or for hex digits, and makes bytes of it.
///
/// # Errors
///
/// One line: what cannot be read, is too long, or is no hex.
pub(super) fn bytes(argument: &str) -> Result<Input, Failure> {
    if argument != "-" && !Path::new(argument).exists() {
        return digits(argument);
    }
    let input = raw(argument, MAX_BYTES)?;
    if !input.is_text {
        return Ok(input);
    }
    let text = String::from_utf8_lossy(&input.bytes);
    let bytes = hex::parse(&text).map_err(|error| format!("{}: {error}", input.name))?;
    Ok(Input { bytes, is_text: false, name: input.name })
}

/// Hex digits on the command line. What has none of their look was meant as a file.
fn digits(argument: &str) -> Result<Input, Failure> {
    let shown = shorten(argument);
    let bytes = hex::parse(argument).map_err(|error| {
        let looks_like_hex = argument.bytes().filter(u8::is_ascii_hexdigit).count() * 4 >= argument.len() * 3;
        if looks_like_hex && !argument.contains(['/', '.']) {
            format!("'{shown}': {error}")
        } else {
            format!("cannot read {shown}: no such file, and no hex digits ({error})")
        }
    })?;
    Ok(Input { name: format!("{} bytes", bytes.len()), bytes, is_text: false })
}

/// The bytes of a file or of standard input as they are.
///
/// # Errors
///
/// One line: what cannot be read, is empty or is longer than `limit`.
pub(super) fn raw(argument: &str, limit: usize) -> Result<Input, Failure> {
    let name = if argument == "-" { "standard input".to_string() } else { shorten(argument) };
    let mut bytes = Vec::new();
    let bound = limit as u64 + 1;
    let result = if argument == "-" {
        std::io::stdin().lock().take(bound).read_to_end(&mut bytes)
    } else {
        File::open(argument).and_then(|file| file.take(bound).read_to_end(&mut bytes))
    };
    result.map_err(|error| format!("cannot read {name}: {error}"))?;
    if bytes.len() > limit {
        return Err(format!("{name} has more than {limit} bytes, and no more are taken"));
    }
    if bytes.is_empty() {
        return Err(format!("{name} is empty"));
    }
    let is_text = std::str::from_utf8(&bytes).is_ok_and(|text| !text.contains(is_binary));
    Ok(Input { name, bytes, is_text })
}

/// Characters that no text has. A page of KVM's has zero bytes at least.
fn is_binary(letter: char) -> bool {
    letter.is_control() && !matches!(letter, '\n' | '\r' | '\t' | '\u{1b}')
}

/// An argument as it is shown in a message: in one line and not too long.
pub(super) fn shorten(argument: &str) -> String {
    let shown: String = argument.chars().flat_map(char::escape_debug).take(61).collect();
    shorten_to(&shown, 60)
}

/// The beginning of a text, with dots if there is more of it.
pub(super) fn shorten_to(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or(text)),
        None => text.to_string(),
    }
}
