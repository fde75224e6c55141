//! Secret values in every form that they might leak in, and the search for them.

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

/// Secrets that must not be found.
#[derive(Clone, Default)]
pub(crate) struct Marks {
    forms: Vec<(String, Vec<u8>)>,
}

/// The search for all forms of all marks at once, by their first bytes.
pub(crate) struct Search(HashMap<[u8; BEGIN], Vec<(String, Vec<u8>)>>);

/// Length of the prefix by which forms are found. Every form is longer.
const BEGIN: usize = 8;

impl Marks {
    /// Adds a value. It must be long enough not to occur by chance, in base64 too.
    pub(crate) fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        assert!(value.len() >= 11, "{name} is too short to look for");
        self.forms.extend(forms(value).into_iter().map(|(form, bytes)| (format!("{name}, {form}"), bytes)));
    }

    pub(crate) fn search(&self) -> Search {
        let mut by_begin: HashMap<_, Vec<_>> = HashMap::new();
        for form in &self.forms {
            let begin = *form.1.first_chunk().expect("a form is long enough");
            by_begin.entry(begin).or_default().push(form.clone());
        }
        Search(by_begin)
    }
}

impl Search {
    /// The secrets found, by name and form, never by value.
    pub(crate) fn find(&self, text: &[u8]) -> Option<&str> {
        text.windows(BEGIN).enumerate().find_map(|(at, begin)| {
            let forms = self.0.get(begin)?;
            forms.iter().find(|(_, bytes)| text[at..].starts_with(bytes)).map(|(name, _)| name.as_str())
        })
    }
}

/// A value unchanged, percent-encoded, in hexadecimal, as a list of numbers, and within base64 at each of
/// its three offsets.
fn forms(value: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let each = |form: &dyn Fn(&u8) -> String| value.iter().map(form).collect::<String>().into_bytes();
    let mut forms = vec![
        ("as it is", value.to_vec()),
        ("percent-encoded where needed", url::form_urlencoded::byte_serialize(value).collect::<String>().into_bytes()),
        ("percent-encoded", each(&|byte| format!("%{byte:02X}"))),
        ("percent-encoded in small letters", each(&|byte| format!("%{byte:02x}"))),
        ("in hexadecimal", each(&|byte| format!("{byte:02x}"))),
        ("in hexadecimal of capitals", each(&|byte| format!("{byte:02X}"))),
        ("as numbers", value.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes()),
        ("as numbers without spaces", value.iter().map(u8::to_string).collect::<Vec<_>>().join(",").into_bytes()),
    ];
    for offset in 0..3 {
        let padded = [&vec![b' '; offset], value].concat();
        for encoded in [BASE64_STANDARD_NO_PAD.encode(&padded), BASE64_URL_SAFE_NO_PAD.encode(&padded)] {
            // The first and last letters depend on the surrounding bytes.
            let begin = (offset * 8).div_ceil(6);
            let whole = padded.len() * 8 / 6;
            forms.push(("in base64", encoded.as_bytes()[begin..whole].to_vec()));
        }
    }
    forms
}

#[test]
fn f1_the_search_finds_a_secret_in_each_encoding_and_at_each_offset() {
    let value = b"canary/secret+\xc3\xa9~";
    let mut marks = Marks::default();
    marks.add("other", "another value");
    marks.add("mark", value);
    let search = marks.search();
    assert_eq!(search.find(b"canary/secret+ and nothing of the rest, 99, 97, 110"), None);
    assert_eq!(search.find(b""), None);
    let mut planted: Vec<Vec<u8>> = forms(value).into_iter().map(|(_, bytes)| bytes).collect();
    for before in ["", "x", "xy", "xyz"] {
        let text = [before.as_bytes(), value, b"after"].concat();
        planted.push(BASE64_STANDARD_NO_PAD.encode(&text).into_bytes());
        planted.push(BASE64_URL_SAFE_NO_PAD.encode(&text).into_bytes());
        planted.push(format!("{:?}", text.as_slice()).into_bytes());
    }
    for planted in planted {
        let text = [b"\x00\xff before ", planted.as_slice(), b" after"].concat();
        let found = search.find(&text);
        assert!(found.is_some_and(|name| name.starts_with("mark")), "{}", String::from_utf8_lossy(&planted));
    }
}
