//! JWTs of both kinds, as bearers and behind signed requests: the token's own header says which kind it is.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tracing::info;

use super::account::Accounts;
use super::cache::{VerifiedJwt, VerifiedJwts};
use super::jwt::{Jwt, MAX_JWT_BYTES, Rejection};
use super::nats_jwt::{self, NatsUser};
use super::ordinary_jwt::Verifier;
use super::{AuthError, Purpose, Role, VerifiedCaller, signed};
use crate::jetstream::{ConnectError, Nats, Patience};
use crate::signed::SignedRequest;
use crate::{config, provider, subject};

/// Why JWTs cannot be judged as the settings say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// A setting is missing or does not fit.
    #[error("settings: {0}")]
    Setting(&'static str),
    /// The system account cannot be connected to.
    #[error("auth.nats: {0}")]
    Connect(#[from] ConnectError),
}

/// Judges JWTs.
pub(crate) struct Bearers {
    accounts: Option<Accounts>,
    ordinary: Option<Verifier>,
    verified: VerifiedJwts,
}

impl Bearers {
    /// As the settings say; connects to the system account if they name one.
    ///
    /// # Errors
    /// [`SetupError`].
    pub(crate) async fn connect(config: &config::Config, client: &provider::Client) -> Result<Self, SetupError> {
        let config::Auth { cache_ttl, nats: settings, jwt, .. } = &config.auth;
        let resolver = resolver(config).await?;
        let folder = given(&settings.accounts_dir).then(|| settings.accounts_dir.clone());
        let accounts = match (settings.operators.is_empty(), folder.is_some() || resolver.is_some()) {
            (true, false) => None,
            (false, true) => Some(Accounts::new(settings.operators.clone(), folder, resolver, *cache_ttl)),
            (true, true) => return Err(SetupError::Setting("auth.nats needs `operators`")),
            (false, false) => {
                let need = "auth.nats needs `accounts_dir`, `system_creds`, or `system_user` and `system_password`";
                return Err(SetupError::Setting(need));
            }
        };
        if settings.operators.iter().any(|key| !is_operator(key)) {
            return Err(SetupError::Setting("auth.nats.operators must be public keys of operators (O…)"));
        }
        let ordinary = Verifier::new(jwt, client).map_err(SetupError::Setting)?;
        Ok(Self { accounts, ordinary, verified: VerifiedJwts::new(*cache_ttl) })
    }

    /// Whose JWT this is, if it alone is proof enough.
    pub(super) async fn bearer(
        &self,
        text: &str,
        purpose: Purpose<'_>,
        now: Timestamp,
    ) -> Result<VerifiedCaller, AuthError> {
        match self.proven(text, now).await? {
            VerifiedJwt::NatsUser(user) if !user.is_bearer => Err(refused(Rejection::NotBearer)),
            VerifiedJwt::NatsUser(user) => caller(&user, purpose),
            VerifiedJwt::Ordinary(caller) => Ok(VerifiedCaller::clone(&caller)),
        }
    }

    /// Whose signed request this is: text form behind the scheme.
    pub(super) async fn signed(
        &self,
        nats: &Nats,
        text: &str,
        purpose: Purpose<'_>,
        now: Timestamp,
    ) -> Result<VerifiedCaller, AuthError> {
        let (request, signature) = SignedRequest::parse(text).ok_or_else(|| refused(Rejection::Form))?;
        let VerifiedJwt::NatsUser(user) = self.proven(request.jwt.expose(), now).await? else {
            return Err(refused(Rejection::Form));
        };
        signed::check(&request, &signature, &user, purpose, now).map_err(refused)?;
        let caller = caller(&user, purpose)?;
        signed::use_up(nats, &request, &user, purpose).await?.map_err(refused)?;
        Ok(caller)
    }

    /// Whose JWT this is, remembered for a while.
    async fn proven(&self, text: &str, now: Timestamp) -> Result<VerifiedJwt, AuthError> {
        if let Some(proven) = self.verified.get(text, now) {
            return Ok(proven);
        }
        let jwt = Jwt::parse(text, MAX_JWT_BYTES).map_err(refused)?;
        let (proven, until) = if jwt.alg == nats_jwt::ALGORITHM {
            let (user, until) = self.user(&jwt, now).await?;
            (VerifiedJwt::NatsUser(Arc::new(user)), until)
        } else {
            let verifier = self.ordinary.as_ref().ok_or_else(|| refused(Rejection::NotConfigured))?;
            let valid = verifier.verify(&jwt, now).await.map_err(|_| AuthError::NoKeys)?;
            let (caller, until) = valid.map_err(refused)?;
            (VerifiedJwt::Ordinary(Arc::new(caller)), until)
        };
        self.verified.put(text, proven.clone(), until, now);
        Ok(proven)
    }

    async fn user(&self, jwt: &Jwt<'_>, now: Timestamp) -> Result<(NatsUser, Timestamp), AuthError> {
        let accounts = self.accounts.as_ref().ok_or_else(|| refused(Rejection::NotConfigured))?;
        let account = nats_jwt::account_of(jwt).map_err(refused)?;
        let (account_jwt, until) = accounts.get(&account, now).await?.map_err(refused)?;
        let user = account_jwt.user(jwt, now).map_err(refused)?;
        // No longer than the account's JWT is gone by, so that a revocation in a newer one is heard of.
        let until = user.expires.map_or(until, |expires| expires.min(until));
        Ok((user, until))
    }
}

/// A user as a caller. It may call here what it may call on the bus; it is never an admin.
fn caller(user: &NatsUser, purpose: Purpose<'_>) -> Result<VerifiedCaller, AuthError> {
    let call = match purpose {
        // Says nothing but who it is.
        Purpose::Call { name: "whoami", .. } => None,
        Purpose::Call { name, .. } => Some(name),
        Purpose::Command { subject, .. } if subject.verb.is_config() => None,
        Purpose::Command { .. } => Some("login"),
    };
    if call.is_some_and(|call| !user.may_publish(&subject::node_call(&user.account, call))) {
        return Err(refused(Rejection::Permission));
    }
    Ok(VerifiedCaller { account: user.account.clone(), role: Role::Member, actor: format!("user:{}", user.key) })
}

/// Why is for the log alone: whoever tries credentials learns nothing from the answer.
fn refused(reason: Rejection) -> AuthError {
    info!(%reason, "credential refused");
    AuthError::Invalid
}

async fn resolver(config: &config::Config) -> Result<Option<Nats>, SetupError> {
    let auth = &config.auth.nats;
    if auth.system_user.is_empty() && !given(&auth.system_creds) {
        return Ok(None);
    }
    let settings = config::Nats {
        user: auth.system_user.clone(),
        password: auth.system_password.clone(),
        creds: auth.system_creds.clone(),
        nkey: std::path::PathBuf::new(),
        inbox_prefix: String::new(),
        ..config.nats.clone()
    };
    Ok(Some(Nats::connect(&settings, "tokenbus accounts", Patience::Forever).await?))
}

fn given(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn is_operator(key: &str) -> bool {
    nkeys::KeyPair::from_public_key(key).is_ok_and(|key| key.key_pair_type() == nkeys::KeyPairType::Operator)
}
