//! Verifies JWTs, as bearer tokens and in signed requests. The algorithm in the JWT's header tells a NATS user's JWT
//! from an ordinary one.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::account::Accounts;
use super::cache::{VerifiedJwt, VerifiedJwts};
use super::jwt::{Jwt, MAX_JWT_BYTES};
use super::nats_jwt::{self, NatsUser, SelfConsistent};
use super::ordinary_jwt::{Valid, Verifier};
use super::rejection::Reason;
use super::{AuthError, Identity, Purpose, signed};
use crate::call::Call;
use crate::jetstream::{ConnectError, Nats, Patience};
use crate::rights::Role;
use crate::signed::{SignedRequest, WithSignature};
use crate::{config, provider, subject};

/// JWTs cannot be verified with these settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("settings: {0}")]
    Setting(&'static str),
    /// The resolver of accounts' JWTs needs a connection to the system account.
    #[error("auth.nats: {0}")]
    Connect(#[from] ConnectError),
}

pub(crate) struct Bearers {
    accounts: Option<Accounts>,
    ordinary: Option<Verifier>,
    verified: VerifiedJwts,
}

impl Bearers {
    /// Connects to the system account if the settings name one.
    pub(crate) async fn connect(config: &config::Config, client: &provider::Client) -> Result<Self, SetupError> {
        let config::Auth { cache_ttl, nats: settings, .. } = &config.auth;
        let ordinary = Self::check(&config.auth, client).map_err(SetupError::Setting)?;
        let resolver = resolver(config).await?;
        let folder = is_set(&settings.accounts_dir).then(|| settings.accounts_dir.clone());
        let has_operators = !settings.operators.is_empty();
        let accounts = has_operators.then(|| Accounts::new(settings.operators.clone(), folder, resolver, *cache_ttl));
        Ok(Self { accounts, ordinary, verified: VerifiedJwts::new(*cache_ttl) })
    }

    /// Checks the settings. Returns the verifier of ordinary JWTs, if they name an issuer.
    ///
    /// # Errors
    /// Names the setting that is missing or wrong.
    pub(crate) fn check(
        config::Auth { nats, jwt, .. }: &config::Auth,
        client: &provider::Client,
    ) -> Result<Option<Verifier>, &'static str> {
        match (nats.operators.is_empty(), is_set(&nats.accounts_dir) || names_system_account(nats)) {
            (true, false) | (false, true) => {}
            (true, true) => return Err("auth.nats needs `operators`"),
            (false, false) => {
                return Err("auth.nats needs `accounts_dir`, `system_creds`, or `system_user` and `system_password`");
            }
        }
        if nats.operators.iter().any(|key| !is_operator(key)) {
            return Err("auth.nats.operators must be public keys of operators (O…)");
        }
        Verifier::new(jwt, client)
    }

    /// Verifies a bearer token.
    pub(super) async fn bearer(&self, text: &str, purpose: Purpose<'_>, now: Timestamp) -> Result<Identity, AuthError> {
        match self.verify(text, now).await? {
            VerifiedJwt::NatsUser(user) if !user.is_bearer => Err(Reason::NotBearer.into()),
            VerifiedJwt::NatsUser(user) => Ok(identity(&user, purpose)?),
            VerifiedJwt::Ordinary(identity) => Ok(Identity::clone(&identity)),
        }
    }

    /// Verifies a signed request in the text form of [`SignedRequest::parse`]. Uses its nonce up last, so that a
    /// request that fails another check can be sent again.
    pub(super) async fn signed(
        &self,
        nats: &Nats,
        text: &str,
        purpose: Purpose<'_>,
        now: Timestamp,
    ) -> Result<Identity, AuthError> {
        let WithSignature { request, signature } = SignedRequest::parse(text).ok_or(Reason::Form)?;
        let VerifiedJwt::NatsUser(user) = self.verify(request.jwt.expose(), now).await? else {
            return Err(Reason::Form.into());
        };
        signed::check(&request, &signature, &user, purpose, now)?;
        let identity = identity(&user, purpose)?;
        signed::use_nonce_up(nats, &request, &user, purpose).await?;
        Ok(identity)
    }

    async fn verify(&self, text: &str, now: Timestamp) -> Result<VerifiedJwt, AuthError> {
        if let Some(verified) = self.verified.get(text, now) {
            return Ok(verified);
        }
        let jwt = Jwt::parse(text, MAX_JWT_BYTES)?;
        let (verified, until) = if jwt.alg == nats_jwt::ALGORITHM {
            let (user, until) = self.verify_nats_user(&jwt, now).await?;
            (VerifiedJwt::NatsUser(Arc::new(user)), until)
        } else {
            let verifier = self.ordinary.as_ref().ok_or(Reason::NotConfigured)?;
            let Valid { identity, until } = verifier.verify(&jwt, now).await?;
            (VerifiedJwt::Ordinary(Arc::new(identity)), until)
        };
        self.verified.put(text, verified.clone(), until, now);
        Ok(verified)
    }

    /// Returns the user, and when it must be verified again: no later than the cached JWT of its account expires, so
    /// that a revocation in a newer one takes effect.
    async fn verify_nats_user(&self, jwt: &Jwt<'_>, now: Timestamp) -> Result<(NatsUser, Timestamp), AuthError> {
        let accounts = self.accounts.as_ref().ok_or(Reason::NotConfigured)?;
        let jwt = SelfConsistent::verify(jwt, now)?;
        let (account_jwt, until) = accounts.get(&jwt.account, now).await?;
        let user = account_jwt.own_user(jwt, now)?;
        let until = user.expires.map_or(until, |expires| expires.min(until));
        Ok((user, until))
    }
}

/// Checks that the user may make the call on the bus, too. Browsers hold bearer JWTs with narrow permissions, and such
/// a JWT must not open the account's tokens over HTTP. A NATS user is never an admin.
fn identity(user: &NatsUser, purpose: Purpose<'_>) -> Result<Identity, Reason> {
    let call = match purpose {
        // Returns nothing but the caller's own identity.
        Purpose::Call { call: Call::Whoami, .. } => None,
        Purpose::Call { call, .. } => Some(call),
        Purpose::Command { subject, .. } if subject.verb.is_config() => None,
        Purpose::Command { .. } => Some(Call::Login),
    };
    if call.is_some_and(|call| !user.may_publish(&subject::node_call(&user.account, call.as_str()))) {
        return Err(Reason::Permission);
    }
    Ok(Identity { account: user.account.clone(), role: Role::Member, actor: format!("user:{}", user.key) })
}

async fn resolver(config: &config::Config) -> Result<Option<Nats>, SetupError> {
    let auth = &config.auth.nats;
    if !names_system_account(auth) {
        return Ok(None);
    }
    let settings = config::Nats {
        user: auth.system_user.clone(),
        password: auth.system_password.clone(),
        creds: auth.system_creds.clone(),
        nkey: std::path::PathBuf::new(),
        inbox_prefix: String::new(),
        worker_key: String::new(),
        ..config.nats.clone()
    };
    Ok(Some(Nats::connect(&settings, "tokenbus accounts", Patience::Forever).await?))
}

fn names_system_account(settings: &config::NatsJwt) -> bool {
    !settings.system_user.is_empty() || is_set(&settings.system_creds)
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn is_operator(key: &str) -> bool {
    nkeys::KeyPair::from_public_key(key).is_ok_and(|key| key.key_pair_type() == nkeys::KeyPairType::Operator)
}
