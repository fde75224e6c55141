//! Characters that a text from outside must not bring to a terminal, a page or a line of the log.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns true if the text has a character that moves a terminal's cursor, ends a line, changes the direction of text, or
/// shows nothing. Two names that differ only by such characters look the same.
pub(crate) fn has_hidden(text: &str) -> bool {
    marked(text).any(|(_, is_hidden)| is_hidden)
}

/// Returns each character, with true if it is hidden. Some hidden characters belong to the spelling of Persian, of Indic
/// scripts, of Japanese names and of emoji: at most two after a visible character that is not ASCII are kept.
pub(crate) fn marked(text: &str) -> impl Iterator<Item = (char, bool)> + Clone {
    let mut kept_here = 0_u8;
    text.chars().map(move |char| {
        let is_kept = is_spelling(char) && kept_here > 0;
        let is_hidden = is_hidden(char) && !is_kept;
        kept_here = match (is_kept, is_hidden || char.is_ascii() || char.is_whitespace()) {
            (true, _) => kept_here - 1,
            (false, true) => 0,
            (false, false) => 2,
        };
        (char, is_hidden)
    })
}

/// Controls, ends of lines, characters that Unicode calls `Default_Ignorable_Code_Point` (direction, joiners, fillers, tags),
/// the blank Braille pattern, and characters without an agreed shape (private use, annotations).
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}')
        || matches!(char, '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(char, '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}')
        || matches!(char, '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffc}')
        || matches!(char, '\u{fffe}' | '\u{ffff}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}')
        || char >= '\u{e0000}'
}

/// Joiners, and selectors of a variant of the character before them.
fn is_spelling(char: char) -> bool {
    matches!(char, '\u{200c}' | '\u{200d}' | '\u{180b}'..='\u{180d}' | '\u{180f}')
        || matches!(char, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Returns the text without its hidden characters.
pub(crate) fn without_hidden(text: &str) -> String {
    marked(text).filter(|(_, is_hidden)| !is_hidden).map(|(char, _)| char).collect()
}

/// Writes each hidden character as JSON does (`\u001b`), so that JSON stays the same JSON.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    escape_marked(text, marked(text))
}

/// The same for a text of several lines: their ends stay.
pub(crate) fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_marked(text, marked(text).map(|(char, is_hidden)| (char, is_hidden && char != '\n')))
}

/// Writes each character that `is_escaped` returns true for as JSON does.
pub(crate) fn escape_where(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    escape_marked(text, text.chars().map(|char| (char, is_escaped(char))))
}

fn escape_marked(text: &str, chars: impl Iterator<Item = (char, bool)> + Clone) -> Cow<'_, str> {
    if !chars.clone().any(|(_, is_escaped)| is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for (char, is_escaped) in chars {
        if is_escaped {
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
        check("می\u{200c}خواهم שלום 👩\u{200d}💻 \\u001b", "می\u{200c}خواهم שלום 👩\u{200d}💻 \\u001b");
        check("a\u{200d}\u{3164}\u{e0041}", "a\\u200d\\u3164\\udb40\\udc41");
        assert_eq!(escape_lines("a\nb\u{1b}"), "a\nb\\u001b");
        assert_eq!(escape_where("aé😀", |char| !char.is_ascii()), "a\\u00e9\\ud83d\\ude00");
    }

    /// The ranges of `Default_Ignorable_Code_Point` in Unicode 17, controls, and characters without an agreed shape.
    #[test]
    fn a4_every_hidden_character_is_found_in_every_place() {
        let ranges = [
            (0x00, 0x1f),
            (0x7f, 0x9f),
            (0xad, 0xad),
            (0x34f, 0x34f),
            (0x61c, 0x61c),
            (0x115f, 0x1160),
            (0x17b4, 0x17b5),
            (0x180b, 0x180f),
            (0x200b, 0x200f),
            (0x2028, 0x202e),
            (0x2060, 0x206f),
            (0x2800, 0x2800),
            (0x3164, 0x3164),
            (0xfe00, 0xfe0f),
            (0xfeff, 0xfeff),
            (0xffa0, 0xffa0),
            (0xfff0, 0xfff8),
            (0x1bca0, 0x1bca3),
            (0x1d173, 0x1d17a),
            (0xe0000, 0xe0fff),
        ];
        for char in ranges.into_iter().flat_map(|(first, last)| first..=last).map(|code| char::from_u32(code).unwrap())
        {
            for text in [format!("{char}"), format!("Acme{char}"), format!("{char}Acme"), format!("A{char}cme")] {
                assert!(has_hidden(&text), "{text:?}");
                assert_eq!(without_hidden(&text), text.replace(char, ""), "{text:?}");
            }
        }
    }

    #[test]
    fn names_keep_the_joiners_and_selectors_of_their_spelling() {
        for name in [
            "Ünïcode Ltd",
            "שלום",
            "می\u{200c}خواهم",
            "葛\u{e0100}城市",
            "👩🏽\u{200d}💻",
            "❤\u{fe0f}\u{200d}🔥",
            "�",
            "𝒜",
        ] {
            assert!(!has_hidden(name), "{name}");
            assert_eq!(without_hidden(name), name);
        }
        assert_eq!(without_hidden("é\u{200d}\u{200d}\u{200d}"), "é\u{200d}\u{200d}");
        assert_eq!(without_hidden("é\u{202e}\u{200d} \u{200c}x"), "é x");
    }

    proptest! {
        #[test]
        fn escaped_json_is_the_same_json(text in any::<String>()) {
            let value = json!({ &text: [&text] });
            let line = value.to_string();
            let escaped = escape(&line);
            prop_assert!(!has_hidden(&escaped));
            prop_assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap(), value);
        }
    }
}
