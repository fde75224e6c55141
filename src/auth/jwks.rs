//! Keys that verify ordinary JWTs: a shared secret, or a JWKS URL (RFC 7517).
//!
//! Keys of a URL are cached. They are fetched again when they are old and when a JWT names an unknown key. If the URL
//! does not answer, or answers without a usable key, old keys are used until [`STALE`]. A key is used only with the
//! algorithms that it is for; the JWT cannot choose another.

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

use super::AuthError;
use super::rejection::{Reason, Rejection};
use crate::provider;
use crate::secret::Secret;

/// Age at which keys are fetched again.
const FRESH: Duration = Duration::from_mins(10);
/// Age up to which keys are used if the URL does not answer: long enough for an outage of the issuer, short enough that
/// a withdrawn key does not stay valid for a day.
const STALE: Duration = Duration::from_hours(1);
/// Shortest time between two fetches. Callers choose the key ids in their JWTs, so without it they could make workers
/// flood the issuer.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(10);
/// Longest time to wait for a fetch of another caller. Short, because the waiting call occupies a permit and its caller
/// has proven nothing yet.
const FETCH_WAIT: Duration = Duration::from_secs(1);
/// Keys of a set that are read; the others are ignored.
const MAX_KEYS: usize = 100;
/// Shortest RSA modulus: 2048 bits, as RFC 7518 §3.3 demands.
const MIN_RSA_BYTES: usize = 256;

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// A key and the algorithms that it may be used with.
#[derive(Debug)]
pub(crate) struct VerificationKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    public: DecodingKey,
}

impl VerificationKey {
    pub(crate) fn verify(&self, algorithm: Algorithm, text: &[u8], signature: &str) -> Result<(), Rejection> {
        if !self.algorithms.contains(&algorithm) {
            return Err(Reason::Algorithm.into());
        }
        match jsonwebtoken::crypto::verify(signature, text, &self.public, algorithm) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Reason::Signature.into()),
            Err(error) => Err(Reason::Signature.because(error)),
        }
    }
}

#[derive(Debug)]
pub struct VerificationKeys(Vec<VerificationKey>);

impl VerificationKeys {
    /// A shared secret. It has no id, is for HS256, and ignores the key id of the JWT.
    #[must_use]
    pub fn secret(secret: &Secret) -> Self {
        let public = DecodingKey::from_secret(secret.expose().as_bytes());
        Self(vec![VerificationKey { id: None, algorithms: vec![Algorithm::HS256], public }])
    }

    /// Parses a JWK set. Ignores keys of unknown kinds, keys for encryption, and shared secrets.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(body)?;
        Ok(Self(set.keys.into_iter().take(MAX_KEYS).filter_map(parse_key).collect()))
    }

    /// Returns the key with that id or, without an id, the only key for that algorithm.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&VerificationKey, Reason> {
        let has_id = |key: &&VerificationKey| id.is_none() || key.id.as_deref() == id;
        let mut fitting = self.0.iter().filter(has_id).filter(|key| key.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) if self.0.iter().any(|key| has_id(&key)) => Err(Reason::Algorithm),
            (None, _) | (Some(_), Some(_)) => Err(Reason::Key),
        }
    }
}

fn parse_key(value: Value) -> Option<VerificationKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let is_for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && jwk.common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let possible = possible_algorithms(&jwk.algorithm);
    let algorithms: Vec<Algorithm> = match jwk.common.key_algorithm {
        None => possible.to_vec(),
        Some(named) => {
            let named = Algorithm::try_from(named).ok()?;
            possible.iter().copied().filter(|algorithm| *algorithm == named).collect()
        }
    };
    let public = DecodingKey::from_jwk(&jwk).ok()?;
    let is_strong = match public.kind() {
        jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => {
            n.iter().skip_while(|byte| **byte == 0).count() >= MIN_RSA_BYTES
        }
        jsonwebtoken::DecodingKeyKind::SecretOrDer(_) => true,
    };
    let is_usable = is_for_signatures && is_strong && !algorithms.is_empty();
    is_usable.then_some(VerificationKey { id: jwk.common.key_id, algorithms, public })
}

fn possible_algorithms(key: &AlgorithmParameters) -> &'static [Algorithm] {
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

/// The keys of a URL, fetched when the first is needed.
pub(crate) struct Jwks {
    url: Url,
    client: provider::Client,
    newest: ArcSwapOption<Fetched>,
    /// When the last fetch began. Locked during a fetch, so that one caller fetches and the others wait.
    last_fetch: Mutex<Option<Timestamp>>,
}

struct Fetched {
    keys: VerificationKeys,
    at: Timestamp,
}

/// Neither the URL nor the cache has usable keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keys of `auth.jwt.jwks_url` cannot be fetched now; the log says why")]
pub(crate) struct NoKeys;

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Request(#[from] provider::ProviderError),
    #[error("status {0}")]
    Status(u16),
    #[error("no JWK set: {0}")]
    Form(#[from] serde_json::Error),
    /// An issuer that publishes an empty set by mistake would reject all its users.
    #[error("a set without a usable key")]
    NoUsableKey,
}

impl Jwks {
    #[must_use]
    pub(crate) fn new(url: Url, client: provider::Client) -> Self {
        Self { url, client, newest: ArcSwapOption::empty(), last_fetch: Mutex::new(None) }
    }

    /// Verifies with the cached keys. Fetches the keys and verifies again if the cached ones are old or lack the key.
    ///
    /// # Errors
    /// [`AuthError::NoKeys`] if there are no keys; otherwise as `verify`.
    pub(crate) async fn verify_with<T>(
        &self,
        now: Timestamp,
        verify: impl Fn(&VerificationKeys) -> Result<T, Rejection>,
    ) -> Result<T, AuthError> {
        let cached = self.newest.load_full();
        if let Some(cached) = cached.as_ref().filter(|cached| age(cached.at, now) < FRESH) {
            match verify(&cached.keys) {
                Err(rejection) if rejection.is_unknown_key() => {}
                verified => return Ok(verified?),
            }
        }
        let fetched = self.fetch(cached, now).await?;
        Ok(verify(&fetched.keys)?)
    }

    /// Fetches the keys, unless the URL was asked a moment ago.
    async fn fetch(&self, cached: Option<Arc<Fetched>>, now: Timestamp) -> Result<Arc<Fetched>, NoKeys> {
        let usable = |keys: Option<Arc<Fetched>>| keys.filter(|keys| age(keys.at, now) < STALE).ok_or(NoKeys);
        let mut last_fetch = match (self.last_fetch.try_lock(), &cached) {
            (Ok(last_fetch), _) => last_fetch,
            // Another caller is fetching. Old keys are good enough meanwhile.
            (Err(_), Some(cached)) if age(cached.at, now) >= FRESH => return usable(Some(Arc::clone(cached))),
            (Err(_), _) => match timeout(FETCH_WAIT, self.last_fetch.lock()).await {
                Ok(last_fetch) => last_fetch,
                Err(_elapsed) => return Err(NoKeys),
            },
        };
        if last_fetch.is_some_and(|at| age(at, now) < MIN_FETCH_INTERVAL) {
            return usable(self.newest.load_full());
        }
        *last_fetch = Some(now);
        match self.request().await {
            Ok(keys) => {
                let fetched = Arc::new(Fetched { keys, at: now });
                self.newest.store(Some(Arc::clone(&fetched)));
                Ok(fetched)
            }
            Err(error) => {
                warn!("auth.jwt.jwks_url: keys not fetched: {error}; using the cached ones if they are not too old");
                usable(self.newest.load_full())
            }
        }
    }

    async fn request(&self) -> Result<VerificationKeys, FetchError> {
        let answer = self.client.get(self.url.clone()).await?;
        match answer.status {
            200 => {
                let keys = VerificationKeys::parse(&answer.body)?;
                if keys.0.is_empty() { Err(FetchError::NoUsableKey) } else { Ok(keys) }
            }
            status => Err(FetchError::Status(status)),
        }
    }
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
