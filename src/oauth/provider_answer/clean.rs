//! Removes secrets and personal data from a text of a provider.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::foreign_text::marked;
use crate::oauth::HttpRequest;

const REDACTED: &str = "[redacted]";
/// Shortest value that counts as a secret. A shorter one would remove parts of ordinary words.
const MIN_SECRET: usize = 4;
/// Length from which a word with a digit looks like a token. Error codes of large providers have up to 13 characters.
const TOKEN_WITH_DIGIT: usize = 16;
/// Length from which any word looks like a token.
const TOKEN: usize = 32;
/// Parameters of a request that are not secret and help to understand an error.
const PUBLIC: [&str; 8] = [
    "grant_type",
    "client_id",
    "redirect_uri",
    "scope",
    "token_type_hint",
    "client_assertion_type",
    "resource",
    "audience",
];

/// Headers that are not secret.
const PUBLIC_HEADERS: [&str; 2] = ["accept", "user-agent"];

/// Knows the secrets of one request.
pub(super) struct Cleaner(Vec<String>);

impl Cleaner {
    /// Takes every value of the request but the public ones.
    pub(super) fn of(request: &HttpRequest) -> Self {
        let mut cleaner = Self(Vec::new());
        for (name, value) in &request.headers {
            if *name == "authorization" {
                value.expose().split(' ').for_each(|part| cleaner.add(part));
                cleaner.add_basic(value.expose());
            } else if !PUBLIC_HEADERS.iter().any(|public| name.eq_ignore_ascii_case(public)) {
                cleaner.add(value.expose());
            }
        }
        request.url.query_pairs().for_each(|(name, value)| cleaner.add_parameter(&name, &value));
        let body = request.body.as_ref().map_or("", |body| body.text.expose());
        if let Ok(Value::Object(fields)) = serde_json::from_str(body) {
            let texts = fields.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
            texts.for_each(|(name, value)| cleaner.add_parameter(name, value));
        } else {
            let pairs = url::form_urlencoded::parse(body.as_bytes());
            pairs.for_each(|(name, value)| cleaner.add_parameter(&name, &value));
        }
        cleaner
    }

    fn add_parameter(&mut self, name: &str, value: &str) {
        if !PUBLIC.contains(&name) {
            self.add(value);
        }
    }

    fn add_basic(&mut self, header: &str) {
        let Some(encoded) = header.strip_prefix("Basic ") else { return };
        let pair = BASE64_STANDARD_NO_PAD.decode(encoded.trim_end_matches('=')).unwrap_or_default();
        if let Some((_, secret)) = String::from_utf8_lossy(&pair).split_once(':') {
            let form = format!("s={secret}");
            let decoded = url::form_urlencoded::parse(form.as_bytes()).next();
            self.add(&decoded.map_or_else(String::new, |(_, value)| value.into_owned()));
        }
    }

    /// Adds a secret in the forms in which providers repeat it.
    pub(super) fn add(&mut self, secret: &str) {
        if secret.chars().count() < MIN_SECRET {
            return;
        }
        let percent =
            |form: &str| secret.bytes().map(|byte| form.replace("..", &format!("{byte:02x}"))).collect::<String>();
        let hex = percent("..");
        let (json, percent) = (Value::from(secret).to_string(), percent("%.."));
        self.0.extend([
            secret.to_owned(),
            url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            json.trim_matches('"').to_owned(),
            BASE64_STANDARD_NO_PAD.encode(secret),
            BASE64_URL_SAFE_NO_PAD.encode(secret),
            percent.to_uppercase(),
            percent,
            hex.to_uppercase(),
            hex,
        ]);
        // The longest first: a form may begin with another one.
        self.0.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// Returns at most `most` characters, and none that is hidden.
    pub(super) fn clean(&self, text: &str, most: usize) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret.as_str(), REDACTED);
        }
        let shown: String = marked(&text).map(|(char, is_hidden)| if is_hidden { ' ' } else { char }).collect();
        let mut cleaned = String::new();
        for word in shown.split_whitespace() {
            if !cleaned.is_empty() {
                cleaned.push(' ');
            }
            clean_word(word, &mut cleaned);
        }
        cleaned.chars().take(most).collect()
    }
}

/// Copies a word without spaces. Replaces its parts that look like a token or an e-mail address.
fn clean_word(word: &str, cleaned: &mut String) {
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|char| !is_part(char)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        cleaned.push_str(if is_secret(part) { REDACTED } else { part });
        let end = after.find(is_part).unwrap_or(after.len());
        let (between, next) = after.split_at(end);
        cleaned.push_str(between);
        rest = next;
    }
}

/// Characters of tokens, of percent-encoding, and of e-mail addresses.
fn is_part(char: char) -> bool {
    char.is_alphanumeric() || "-._~+/=%@!#$&*".contains(char)
}

fn is_secret(part: &str) -> bool {
    let length = part.chars().count();
    let has = |test: fn(char) -> bool| part.chars().any(test);
    let is_email = has(|char| char == '@') || part.contains("%40");
    is_email || length >= TOKEN || (length >= TOKEN_WITH_DIGIT && has(char::is_numeric))
}
