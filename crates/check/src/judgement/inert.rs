//! Text from outside that does nothing to whoever prints it.

/// The longest text that is taken over, in characters.
const MAX_CHARS: usize = 2000;

/// Text from outside as a part of a line: control characters and those that turn the direction of a line or cannot be
/// seen are written as Rust writes them, and what is too long is cut.
#[must_use]
pub fn inert(text: &str) -> String {
    let mut inert = String::with_capacity(text.len());
    for (count, letter) in text.trim_end().chars().enumerate() {
        if count == MAX_CHARS {
            inert.push_str(" [cut]");
            break;
        }
        if is_active(letter) {
            inert.extend(letter.escape_debug());
        } else {
            inert.push(letter);
        }
    }
    inert
}

/// As [`inert`], line by line: what a VMM said of its own accord has lines.
#[must_use]
pub fn inert_lines(text: &str) -> String {
    let text: String = text.chars().take(MAX_CHARS).collect();
    text.lines().map(inert).collect::<Vec<_>>().join("\n").trim_end().into()
}

/// Controls of terminals, separators of lines, marks of direction, and letters that no document may hold.
fn is_active(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{61c}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_or_turns_a_line_is_written_out_and_the_rest_stays() {
        assert_eq!(inert("\u{1b}[2Jgone\r\n"), r"\u{1b}[2Jgone");
        assert_eq!(inert("a\nb\tc\u{9b}1m\0"), r"a\nb\tc\u{9b}1m\0");
        assert_eq!(inert("abc\u{202e}cba\u{2028}\u{200b}"), r"abc\u{202e}cba\u{2028}\u{200b}");
        assert_eq!(inert("größer <b> & 'c' ✓"), "größer <b> & 'c' ✓");
    }

    #[test]
    fn lines_stay_lines_and_each_is_inert() {
        assert_eq!(inert_lines("a\r\n\u{1b}[2J \n\nb\rc\n\n"), "a\n\\u{1b}[2J\n\nb\\rc");
        assert_eq!(inert_lines(&"x\n".repeat(1 << 20)).len(), MAX_CHARS - 1);
    }

    #[test]
    fn a_text_has_an_end() {
        assert_eq!(inert(&"x".repeat(1 << 20)).len(), MAX_CHARS + " [cut]".len());
        assert_eq!(inert(&"x".repeat(MAX_CHARS)).len(), MAX_CHARS);
    }
}
