//! The `${…}`s of parameters, headers and queries: a config's variables, and values of the request.

use std::borrow::Cow;
use std::collections::BTreeMap;

use url::{Url, form_urlencoded};

/// Names with a meaning of their own. No new variable may have one.
pub(crate) const OF_REQUEST: [&str; 3] = ["scope", "redirect_url", "nonce"];

/// The same in requests to the provider's API. A variable of such a name would take the place of the token or secret.
pub(crate) const OF_API_REQUEST: [&str; 3] = ["access_token", "client_id", "client_secret"];

/// Values for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placeholders<'a> {
    pub variables: &'a BTreeMap<String, String>,
    /// As granted; before that, as requested.
    pub scope: &'a str,
    pub redirect_url: &'a str,
    /// Unique for each request.
    pub nonce: &'a str,
    /// Names and values that only this kind of request may have.
    pub more: &'a [(&'a str, &'a str)],
}

impl Placeholders<'_> {
    /// Fills a text in. Values are not filled in again, and a `${…}` without a value stays: configs of earlier releases may
    /// have one.
    #[must_use]
    pub(crate) fn fill<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.fill_with(text, |value| Cow::Borrowed(value))
    }

    /// Fills a URL's query in, with encoded values.
    pub(crate) fn fill_query(&self, url: &mut Url) {
        let Some(query) = url.query() else { return };
        let filled = self.fill_with(query, |value| Cow::Owned(encode(value))).into_owned();
        url.set_query(Some(&filled));
    }

    fn fill_with<'t>(&self, text: &'t str, form: impl for<'v> Fn(&'v str) -> Cow<'v, str>) -> Cow<'t, str> {
        let (mut filled, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            let found = after.split_once('}').and_then(|(name, after)| Some((self.value(name)?, after)));
            filled.push_str(before);
            if let Some((value, after)) = found {
                filled.push_str(&form(value));
                rest = after;
            } else {
                filled.push_str("${");
                rest = after;
            }
        }
        if filled.is_empty() {
            return Cow::Borrowed(rest);
        }
        filled.push_str(rest);
        Cow::Owned(filled)
    }

    /// A config of an earlier release may have a variable with the name of a value of the request.
    fn value(&self, name: &str) -> Option<&str> {
        let of_request = || match name {
            "scope" => Some(self.scope),
            "redirect_url" => Some(self.redirect_url),
            "nonce" => Some(self.nonce),
            name => self.more.iter().find(|(own, _)| *own == name).map(|(_, value)| *value),
        };
        self.variables.get(name).map(String::as_str).or_else(of_request)
    }
}

/// Form-encodes, with `%20` for a space: every server decodes that, but not every server decodes `+`.
pub(crate) fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_in_once_and_the_rest_stays() {
        let variables = BTreeMap::from([("v".to_owned(), "${nonce} ü".to_owned())]);
        let values = Placeholders {
            variables: &variables,
            scope: "a b",
            redirect_url: "https://x/?y",
            nonce: "n-1",
            more: &[("token", "t-1")],
        };
        for (text, expected) in [
            ("", ""),
            ("plain $ {v} $v", "plain $ {v} $v"),
            ("${v}", "${nonce} ü"),
            ("${scope}|${redirect_url}|${nonce}", "a b|https://x/?y|n-1"),
            ("${other} ${", "${other} ${"),
            ("Token ${token}", "Token t-1"),
            ("${${v}", "${${nonce} ü"),
        ] {
            assert_eq!(values.fill(text), expected, "{text}");
        }
        let mut url = Url::parse("https://acme.example/t?a=${v}&b=${scope}&c=${redirect_url}").unwrap();
        values.fill_query(&mut url);
        assert_eq!(url.query(), Some("a=%24%7Bnonce%7D%20%C3%BC&b=a%20b&c=https%3A%2F%2Fx%2F%3Fy"));
    }
}
