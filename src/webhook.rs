//! Webhooks: events as signed POST requests. Header names and signature follow Standard Webhooks: `v1,` and the base64 of
//! HMAC-SHA256 over `<id>.<timestamp>.<body>`. While a secret is changed, requests carry a signature by each of the two.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;
use url::Url;
use zeroize::Zeroizing;

use crate::event::EventKind;
use crate::integration::Method;
use crate::oauth::{Body, HttpRequest};
use crate::secret::Secret;
use crate::subject::Account;

const PREFIX: &str = "whsec_";
/// Length of a secret in bytes, required by Standard Webhooks.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A receiver of events.
pub(crate) struct Receiver {
    /// The account whose events it receives; `None` for those of all accounts.
    pub account: Option<Account>,
    pub events: Vec<EventKind>,
    pub webhook: Webhook,
}

/// The URL of a receiver, and the keys that sign events for it.
pub(crate) struct Webhook {
    url: Url,
    keys: Vec<Zeroizing<Vec<u8>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WebhookError {
    #[error(
        "a webhook's secret must be `whsec_` and 24 to 64 random bytes in base64; `openssl rand -base64 32` makes such bytes"
    )]
    Secret,
}

impl Webhook {
    /// `previous` is the secret before a change, or empty.
    pub(crate) fn new(url: Url, secret: &Secret, previous: &Secret) -> Result<Self, WebhookError> {
        let mut keys = vec![parse_key(secret)?];
        if !previous.is_empty() {
            keys.push(parse_key(previous)?);
        }
        Ok(Self { url, keys })
    }

    /// Builds the POST request for an event. Repeated requests carry the same id, so that receivers can detect them.
    #[must_use]
    pub(crate) fn request(&self, id: &str, now: Timestamp, body: &str) -> HttpRequest {
        // With a dot in the id, the signed text would be ambiguous.
        let (id, timestamp) = (id.replace('.', "_"), now.as_second().to_string());
        let signed = format!("{id}.{timestamp}.{body}");
        let signatures: Vec<String> = self.keys.iter().map(|key| signature(key, &signed)).collect();
        HttpRequest {
            method: Method::Post,
            url: self.url.clone(),
            headers: vec![
                ("webhook-id".into(), Secret::new(id)),
                ("webhook-timestamp".into(), Secret::new(timestamp)),
                ("webhook-signature".into(), Secret::new(signatures.join(" "))),
            ],
            body: Some(Body { content_type: "application/json", text: Secret::new(body) }),
        }
    }
}

fn parse_key(secret: &Secret) -> Result<Zeroizing<Vec<u8>>, WebhookError> {
    let text = secret.expose().strip_prefix(PREFIX).ok_or(WebhookError::Secret)?;
    // The decoder's error is dropped because its text repeats a character of the secret.
    let key = BASE64_STANDARD.decode(text).ok().map(Zeroizing::new);
    key.filter(|key| SECRET_BYTES.contains(&key.len())).ok_or(WebhookError::Secret)
}

fn signature(key: &[u8], signed: &str) -> String {
    // HMAC accepts keys of any length, so this cannot fail.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(signed.as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(secret: &str) -> Result<Webhook, WebhookError> {
        Webhook::new("https://receiver.example/hook".parse().unwrap(), &Secret::new(secret), &Secret::default())
    }

    const RECENT: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const PREVIOUS: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn during_a_change_of_secrets_both_sign() {
        let url = || "https://receiver.example/hook".parse().unwrap();
        let signatures = |webhook: Webhook| {
            let request = webhook.request("a", Timestamp::UNIX_EPOCH, "{}");
            request.headers[2].1.expose().to_owned()
        };
        let [recent, previous] = [RECENT, PREVIOUS].map(|secret| signatures(webhook(secret).unwrap()));
        let both = Webhook::new(url(), &Secret::new(RECENT), &Secret::new(PREVIOUS)).unwrap();
        assert_eq!(signatures(both), format!("{recent} {previous}"));
        assert!(Webhook::new(url(), &Secret::new(RECENT), &Secret::new("whsec_weak")).is_err());
    }

    /// The example is from the tests of Standard Webhooks.
    #[test]
    fn signatures_match_the_standard() {
        let webhook = webhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let now = Timestamp::from_second(1_614_265_330).unwrap();
        let request = webhook.request("msg_p5jXN8AQM9LWM0D4loKWxJek", now, r#"{"test": 2432232314}"#);
        let header = |name| request.headers.iter().find(|(known, _)| *known == name).unwrap().1.expose().to_owned();
        assert_eq!(header("webhook-signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(header("webhook-timestamp"), "1614265330");
    }

    #[test]
    fn an_id_contains_no_dot() {
        let webhook = webhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let request = webhook.request("a.refreshed", Timestamp::UNIX_EPOCH, "{}");
        assert_eq!(request.headers[0].1.expose(), "a_refreshed");
    }

    #[test]
    fn short_or_malformed_secrets_are_rejected() {
        for secret in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_not base64"] {
            assert_eq!(webhook(secret).err(), Some(WebhookError::Secret), "{secret}");
        }
    }
}
