//! Keys that ordinary JWTs are signed with: by URL (RFC 7517), kept for a while, fetched again for an unknown key id.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::warn;
use url::Url;

use super::jwt::Rejection;
use crate::provider;
use crate::secret::Secret;

/// How long keys are used before they are asked for again.
const FRESH: Duration = Duration::from_mins(10);
/// How long they are used when nobody answers.
const STALE: Duration = Duration::from_hours(1);
/// How often they are asked for at most, whatever key ids callers make up.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a caller waits while another one's question is under way: whoever waits holds a place for calls, and has
/// proven nothing yet.
const WAIT: Duration = Duration::from_secs(1);
/// VerificationKeys of a set that are looked at.
const MOST_KEYS: usize = 100;
/// Shortest RSA modulus: 2048 bits.
const RSA_BYTES: usize = 256;

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// A key with the algorithms that it may be used with. A token only chooses among these.
#[derive(Debug)]
pub struct VerificationKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    public: DecodingKey,
}

impl VerificationKey {
    /// Whether it signed that text.
    ///
    /// # Errors
    /// [`Rejection`].
    pub fn verify(&self, algorithm: Algorithm, text: &[u8], signature: &str) -> Result<(), Rejection> {
        if !self.algorithms.contains(&algorithm) {
            return Err(Rejection::Algorithm);
        }
        match jsonwebtoken::crypto::verify(signature, text, &self.public, algorithm) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Rejection::Signature),
        }
    }
}

/// A set of keys.
#[derive(Debug)]
pub struct VerificationKeys(Vec<VerificationKey>);

impl VerificationKeys {
    /// The one key of a shared secret: for HS256, whatever key id a token names.
    #[must_use]
    pub fn secret(secret: &Secret) -> Self {
        let public = DecodingKey::from_secret(secret.expose().as_bytes());
        Self(vec![VerificationKey { id: None, algorithms: vec![Algorithm::HS256], public }])
    }

    /// Reads a set. VerificationKeys of unknown kinds, for encryption or of shared secrets are passed over.
    ///
    /// # Errors
    /// [`Rejection::Form`] when it is no set of keys.
    pub fn parse(body: &[u8]) -> Result<Self, Rejection> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(body).map_err(|_| Rejection::Form)?;
        Ok(Self(set.keys.into_iter().take(MOST_KEYS).filter_map(read).collect()))
    }

    /// The key of that id, or without one the only key of that algorithm.
    ///
    /// # Errors
    /// [`Rejection`] saying whether there is no such key, or it is not for that algorithm.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&VerificationKey, Rejection> {
        let named = |key: &&VerificationKey| id.is_none() || key.id.as_deref() == id;
        let mut fitting = self.0.iter().filter(named).filter(|key| key.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) if self.0.iter().any(|key| named(&key)) => Err(Rejection::Algorithm),
            (None, _) | (Some(_), Some(_)) => Err(Rejection::Key),
        }
    }
}

fn read(value: Value) -> Option<VerificationKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let is_for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && jwk.common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let fitting = fitting(&jwk.algorithm);
    let algorithms: Vec<Algorithm> = match jwk.common.key_algorithm {
        None => fitting.to_vec(),
        Some(named) => {
            let named = Algorithm::try_from(named).ok()?;
            fitting.iter().copied().filter(|algorithm| *algorithm == named).collect()
        }
    };
    let public = DecodingKey::from_jwk(&jwk).ok()?;
    let is_strong = match public.kind() {
        jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => {
            n.iter().skip_while(|byte| **byte == 0).count() >= RSA_BYTES
        }
        jsonwebtoken::DecodingKeyKind::SecretOrDer(_) => true,
    };
    let is_usable = is_for_signatures && is_strong && !algorithms.is_empty();
    is_usable.then_some(VerificationKey { id: jwk.common.key_id, algorithms, public })
}

/// The algorithms that a key of that form can be for.
fn fitting(key: &AlgorithmParameters) -> &'static [Algorithm] {
    match key {
        AlgorithmParameters::RSA(_) => RSA,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        AlgorithmParameters::EllipticCurve(_)
        | AlgorithmParameters::OctetKeyPair(_)
        | AlgorithmParameters::OctetKey(_)
        | AlgorithmParameters::Other(_)
        | _ => &[],
    }
}

/// The keys of a URL.
pub(crate) struct Jwks {
    url: Url,
    client: provider::Client,
    newest: ArcSwapOption<Fetched>,
    asked: Mutex<Option<Timestamp>>,
}

struct Fetched {
    keys: VerificationKeys,
    at: Timestamp,
}

/// Nobody gives the keys out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keys of `auth.jwt.jwks_url` cannot be fetched now")]
pub(crate) struct NoKeys;

impl Jwks {
    /// The keys of that URL, which are fetched when the first is needed.
    #[must_use]
    pub(crate) fn new(url: Url, client: provider::Client) -> Self {
        Self { url, client, newest: ArcSwapOption::empty(), asked: Mutex::new(None) }
    }

    /// Does something with the keys: those that are here, and if these do not hold the one that is wanted or are old,
    /// with those that the URL gives now.
    ///
    /// # Errors
    /// [`NoKeys`] when there are none, or as `using` within.
    pub(crate) async fn with<T>(
        &self,
        now: Timestamp,
        using: impl Fn(&VerificationKeys) -> Result<T, Rejection>,
    ) -> Result<Result<T, Rejection>, NoKeys> {
        let known = self.newest.load_full();
        let outcome = known.as_ref().map(|known| using(&known.keys));
        let is_fresh = known.as_ref().is_some_and(|known| age(known.at, now) < FRESH);
        match outcome {
            Some(outcome) if is_fresh && !matches!(outcome, Err(Rejection::Key)) => return Ok(outcome),
            _ => {}
        }
        let fetched = self.fetch(known, now).await?;
        Ok(using(&fetched.keys))
    }

    /// The keys that the URL gives now, unless it was asked a moment ago.
    async fn fetch(&self, known: Option<Arc<Fetched>>, now: Timestamp) -> Result<Arc<Fetched>, NoKeys> {
        let usable = |keys: Option<Arc<Fetched>>| keys.filter(|keys| age(keys.at, now) < STALE).ok_or(NoKeys);
        // While somebody else is asking, old keys will do for those who find theirs among them.
        let mut asked = match (self.asked.try_lock(), &known) {
            (Ok(asked), _) => asked,
            (Err(_), Some(known)) if age(known.at, now) >= FRESH => return usable(Some(Arc::clone(known))),
            (Err(_), _) => timeout(WAIT, self.asked.lock()).await.map_err(|_| NoKeys)?,
        };
        if asked.is_some_and(|at| age(at, now) < PAUSE) {
            return usable(self.newest.load_full());
        }
        *asked = Some(now);
        let answer = self.client.get(self.url.clone()).await;
        let keys = answer.map_err(|error| error.to_string()).and_then(|answer| match answer.status {
            200 => VerificationKeys::parse(&answer.body).map_err(|error| error.to_string()),
            status => Err(format!("status {status}")),
        });
        match keys {
            Ok(keys) => {
                let fetched = Arc::new(Fetched { keys, at: now });
                self.newest.store(Some(Arc::clone(&fetched)));
                Ok(fetched)
            }
            Err(reason) => {
                warn!("auth.jwt.jwks_url: no keys: {reason}");
                usable(self.newest.load_full())
            }
        }
    }
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
