//! Characters that a text from outside must not bring to a terminal, a page or a line of the log.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns true for a character that moves a terminal's cursor, ends a line, or changes the direction of the text around it.
/// The marks between two directions (U+200E, U+200F, U+061C) change no other text, and names in Arabic and Hebrew have them.
pub(crate) fn is_control(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Letters of all scripts are printable. Characters that control the text's direction or are invisible are not.
pub(crate) fn is_printable(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        && !matches!(char, '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff9}'..='\u{ffff}' | '\u{e0000}'..)
}

/// Writes each control character as JSON does (`\u001b`), so that JSON stays the same JSON.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    escape_where(text, is_control)
}

/// The same for a text of several lines: their ends stay.
pub(crate) fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_where(text, |char| char != '\n' && is_control(char))
}

/// Writes each character that `is_escaped` returns true for as JSON does.
pub(crate) fn escape_where(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_escaped(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(char);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn controls_are_escaped_and_other_texts_stay() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(escape(text), expected);
        }
        check("\u{1b}[2Ja\u{9b}31m\u{7f}\r\n", "\\u001b[2Ja\\u009b31m\\u007f\\u000d\\u000a");
        check("a\u{202e}b\u{2066}c\u{2028}", "a\\u202eb\\u2066c\\u2028");
        check("می\u{200c}خواهم שלום\u{200f} 👩\u{200d}💻 \\u001b", "می\u{200c}خواهم שלום\u{200f} 👩\u{200d}💻 \\u001b");
        assert_eq!(escape_lines("a\nb\u{1b}"), "a\nb\\u001b");
        assert_eq!(escape_where("aé😀", |char| !char.is_ascii()), "a\\u00e9\\ud83d\\ude00");
    }

    proptest! {
        #[test]
        fn escaped_json_is_the_same_json(text in any::<String>()) {
            let value = json!({ &text: [&text] });
            let line = value.to_string();
            let escaped = escape(&line);
            prop_assert!(!escaped.contains(is_control));
            prop_assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap(), value);
        }
    }
}
