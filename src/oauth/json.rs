//! JSON as providers write it.

use serde_json::Value;

/// Escape of the character that stands for invalid Unicode. A token with it is refused, any other field keeps it.
const REPLACEMENT: &str = "\\ufffd";
/// Bytes of an escaped UTF-16 unit: `\uXXXX`.
const ESCAPE_BYTES: usize = 6;

/// Parses JSON. Repairs two kinds of values that `serde_json` refuses, because an answer of a rotating provider that cannot be
/// read costs the grant: half of a surrogate pair, as in a text that was cut inside an emoji, and a number that no float can
/// hold, which becomes null.
pub(super) fn parse(text: &str) -> Option<Value> {
    serde_json::from_str(text).or_else(|_refused| serde_json::from_str(&repaired(text))).ok()
}

fn repaired(text: &str) -> String {
    let (mut repaired, mut rest, mut in_string) = (String::with_capacity(text.len()), text, false);
    while let Some(first) = rest.chars().next() {
        let (length, replacement) = match first {
            '\\' if in_string => escape(rest),
            '-' | '0'..='9' if !in_string => number(rest),
            _ => (first.len_utf8(), None),
        };
        in_string ^= first == '"';
        let (part, after) = rest.split_at(length);
        repaired.push_str(replacement.unwrap_or(part));
        rest = after;
    }
    repaired
}

/// Returns the length of an escape, and its replacement if it is half of a surrogate pair.
fn escape(text: &str) -> (usize, Option<&'static str>) {
    let Some(unit) = utf16_unit(text) else {
        // Includes the character after the backslash, which may be a quotation mark.
        return (text.chars().take(2).map(char::len_utf8).sum(), None);
    };
    let is_low = |unit| matches!(unit, 0xdc00..=0xdfff);
    match unit {
        0xd800..=0xdbff if text.get(ESCAPE_BYTES..).and_then(utf16_unit).is_some_and(is_low) => {
            (2 * ESCAPE_BYTES, None)
        }
        0xd800..=0xdfff => (ESCAPE_BYTES, Some(REPLACEMENT)),
        _ => (ESCAPE_BYTES, None),
    }
}

/// Reads `\uXXXX` at the beginning.
fn utf16_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

/// Returns the length of a number, and its replacement if it is too large.
fn number(text: &str) -> (usize, Option<&'static str>) {
    let end = text.find(|char: char| !matches!(char, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(text.len());
    let is_too_large = text[..end].parse::<f64>().is_ok_and(f64::is_infinite);
    (end, is_too_large.then_some("null"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn c5_values_that_no_json_has_cost_only_themselves() {
        #[track_caller]
        fn check(text: &str, expected: &Value) {
            assert_eq!(parse(text).as_ref(), Some(expected), "{text}");
        }
        check(r#"{"a":"\ud83d","b":"c"}"#, &json!({ "a": "\u{fffd}", "b": "c" }));
        check(r#"{"a":"x\ude00y","b":"\ud83d\ude00"}"#, &json!({ "a": "x\u{fffd}y", "b": "😀" }));
        check(r#"{"a":"\ud83d\n\\\"","b":1}"#, &json!({ "a": "\u{fffd}\n\\\"", "b": 1 }));
        check(r#"{"a":1e400,"b":[-1E999,2.5],"c":"1e400"}"#, &json!({ "a": null, "b": [null, 2.5], "c": "1e400" }));
        check(r#"{"é":"\ud83d","1e400":1e400}"#, &json!({ "é": "\u{fffd}", "1e400": null }));
        for text in ["", "{", r#"{"a":"\ud83d}"#, r#"{"a":"\u12"}"#, r#"{"a":"\"#, "{\"a\":1e400", "<html>"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn c5_a_repair_changes_no_json(text in any::<String>(), number in any::<i64>(), float in any::<f64>()) {
            let value = json!({ "text": text, "number": number, &text: [float, null, true] });
            let written = value.to_string();
            prop_assert_eq!(repaired(&written), written);
        }

        #[test]
        fn c5_no_text_panics_in_a_repair(text in r#"[\\"u0-9dDfFe+\-{}:,. é]{0,40}"#) {
            parse(&text);
        }
    }
}
