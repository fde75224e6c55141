//! Authentication of callers. Only workers authenticate: they check every call and every command with the credential
//! that it carries, and trust nothing that a gateway says about the caller.
//!
//! Credentials are API keys, JWTs as bearer tokens, and requests signed by NATS users. A caller learns only that its
//! credential was rejected; the [`rejection`] goes to the worker's log.

pub(crate) mod account;
pub(crate) mod api_key;
pub(crate) mod bearer;
pub(crate) mod cache;
pub(crate) mod jwks;
pub(crate) mod jwt;
pub(crate) mod nats_jwt;
pub(crate) mod ordinary_jwt;
mod rejection;
mod signed;

use std::sync::Arc;

use jiff::Timestamp;
use tracing::info;

use self::api_key::ApiKeys;
use self::bearer::Bearers;
use self::jwks::NoKeys;
use self::rejection::{Reason, Rejection};
use crate::call::Call;
use crate::command::{CREDENTIAL_NEEDED, Credential, Origin};
use crate::event::{EventKind, Refusal, RefusalSum, Refusals};
use crate::jetstream::{Nats, NatsError};
use crate::rights::{Grant, Rights, Role, Scope, Scopes};
use crate::signed::SCHEME;
use crate::subject::{Account, CommandSubject, NodeCall, Verb};
use crate::system;

/// Error text for a caller that needs to be an admin and isn't.
pub(crate) const ADMINS_ONLY: &str =
    "only admins may do this: the credential needs the role `admin`, and its account must be in `auth.admin_accounts`";

/// The holder of a verified JWT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub account: Account,
    pub role: Role,
    /// Name in the audit log (`user:<U…>`, `jwt:<sub>`).
    pub actor: String,
}

/// A caller whose credential was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifiedCaller {
    pub account: Account,
    pub rights: Rights,
    /// Name in the audit log (`key:<id>`, `user:<U…>`, `jwt:<sub>`, `node:<account>`).
    pub actor: String,
    pub origin: Origin,
}

impl VerifiedCaller {
    #[must_use]
    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.rights.scopes.has(scope)
    }

    /// Returns true if the caller may change configs, which all accounts share.
    #[must_use]
    pub(crate) fn may_change_configs(&self, admin_accounts: &[Account]) -> bool {
        self.has(Scope::ConfigsWrite) && admin_accounts.contains(&self.account)
    }
}

/// Failed authentication.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("{CREDENTIAL_NEEDED}")]
    Missing,
    /// The text is the same for every reason, so that a caller who tries credentials learns nothing.
    #[error("the credential is not valid or has expired")]
    Rejected(#[source] Rejection),
    /// The credential is valid, so its caller may know what it lacks.
    #[error("the credential lacks the scope `{0}`")]
    Scope(Scope),
    #[error("too many requests with this credential; try again in {retry_after_seconds} s")]
    Limited { retry_after_seconds: u64 },
    /// Nothing is known about the credential, because the bus is not available.
    #[error(transparent)]
    Bus(#[from] NatsError),
    /// Nothing is known about the credential, because its issuer's keys are not available.
    #[error("the credential cannot be checked now, because its issuer's keys cannot be fetched; try again")]
    NoKeys(#[from] NoKeys),
}

impl From<Rejection> for AuthError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Reason> for AuthError {
    fn from(reason: Reason) -> Self {
        Self::Rejected(reason.into())
    }
}

/// A failure with the refusal that it counts as.
struct Failed {
    error: AuthError,
    /// `None` if nothing is known about the credential.
    refusal: Option<Refusal>,
}

impl From<AuthError> for Failed {
    fn from(error: AuthError) -> Self {
        let code = if let AuthError::Rejected(rejection) = &error { Some(rejection.code()) } else { None };
        Self { refusal: code.map(Refusal::unknown), error }
    }
}

impl Failed {
    /// A stored key with a wrong secret, or one that has expired. It counts for its account, whose admins see attacks on it.
    fn of_key(id: &str, account: Account) -> Self {
        let unknown = Refusal::unknown(Reason::ApiKey.code());
        let refusal = Refusal { account: Some(account), actor: format!("key:{id}"), ..unknown };
        Self { error: Reason::ApiKey.into(), refusal: Some(refusal) }
    }
}

/// The call or command that carries the credential. A signed request must be signed for exactly this.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    Call {
        call: Call,
        body: &'a [u8],
    },
    Command {
        subject: &'a CommandSubject,
        id: &'a str,
        queued: Timestamp,
        /// The config as it came, the callback's query, or nothing.
        content: &'a [u8],
    },
}

impl Purpose<'_> {
    /// The scope that the call or command needs. Calls that return nothing but configs without secrets, profiles or the
    /// caller's own identity need a valid credential alone. Callbacks do, too: the login had its scope when it began.
    fn scope(self) -> Option<Scope> {
        match self {
            Self::Call { call, .. } => match call {
                Call::Ready
                | Call::State
                | Call::Outcome
                | Call::Ticket
                | Call::Start
                | Call::Whoami
                | Call::Config
                | Call::Configs
                | Call::Provider
                | Call::Providers => None,
                Call::Keys | Call::KeysCreate | Call::KeysRevoke => Some(Scope::KeysWrite),
                Call::Token => Some(scope_of(NodeCall::Token)),
                Call::List => Some(scope_of(NodeCall::List)),
                Call::Login => Some(scope_of(NodeCall::Login)),
                Call::Refresh => Some(scope_of(NodeCall::Refresh)),
                Call::Delete => Some(scope_of(NodeCall::Delete)),
            },
            Self::Command { subject, .. } => match subject.verb {
                Verb::Put | Verb::Delete => Some(Scope::ConfigsWrite),
                Verb::Exchange | Verb::Refresh | Verb::Revoke => None,
            },
        }
    }
}

impl Scope {
    /// The kind of event for callers who lack the scope.
    fn refusal(self) -> EventKind {
        if matches!(self, Self::ConfigsWrite | Self::KeysWrite) {
            EventKind::AdminRefused
        } else {
            EventKind::AuthenticationFailed
        }
    }
}

fn scope_of(call: NodeCall) -> Scope {
    match call {
        NodeCall::Token => Scope::TokensRead,
        NodeCall::List | NodeCall::Failures => Scope::ConnectionsRead,
        NodeCall::Login | NodeCall::Refresh | NodeCall::Delete => Scope::ConnectionsWrite,
    }
}

#[derive(Clone)]
pub(crate) struct Authenticator {
    nats: Nats,
    keys: ApiKeys,
    bearers: Arc<Bearers>,
    /// Scopes of the role `member`.
    member: Arc<Scopes>,
    /// Refusals that are no events yet.
    refusals: Arc<Refusals>,
}

impl Authenticator {
    #[must_use]
    pub(crate) fn new(nats: Nats, bearers: Bearers, member: Scopes) -> Self {
        let refusals = Arc::new(Refusals::default());
        Self { keys: ApiKeys::new(nats.clone()), nats, bearers: Arc::new(bearers), member: Arc::new(member), refusals }
    }

    /// Verifies a credential, and checks that its networks and scopes allow the purpose.
    pub(crate) async fn authenticate(
        &self,
        credential: &Credential,
        purpose: Purpose<'_>,
        origin: &Origin,
    ) -> Result<VerifiedCaller, AuthError> {
        let caller = match self.verify(credential, purpose, origin).await {
            Ok(caller) => caller,
            Err(Failed { error, refusal }) => {
                if let Some(refusal) = refusal {
                    self.count(refusal, origin);
                }
                return Err(error);
            }
        };
        let failed = |reason| Refusal {
            kind: EventKind::AuthenticationFailed,
            account: Some(caller.account.clone()),
            actor: caller.actor.clone(),
            reason,
        };
        if !caller.rights.networks.allow(origin.client_address) {
            info!(actor = caller.actor, client = ?origin.client_address, "credential rejected: {}", Reason::Network);
            self.count(failed(Reason::Network.code()), origin);
            return Err(Reason::Network.into());
        }
        match purpose.scope().filter(|scope| !caller.has(*scope)) {
            Some(missing) => {
                self.count(Refusal { kind: missing.refusal(), ..failed(missing.as_str()) }, origin);
                Err(AuthError::Scope(missing))
            }
            None => Ok(caller),
        }
    }

    fn count(&self, refusal: Refusal, origin: &Origin) {
        self.refusals.add(refusal, RefusalSum { count: 1, last_address: origin.client_address });
    }

    /// Counts an act of an admin that its caller may not do. `act` is from a fixed list.
    pub(crate) fn count_refused_admin(&self, caller: &VerifiedCaller, act: &'static str) {
        let (account, actor) = (Some(caller.account.clone()), caller.actor.clone());
        self.count(Refusal { kind: EventKind::AdminRefused, account, actor, reason: act }, &caller.origin);
    }

    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    async fn verify(
        &self,
        credential: &Credential,
        purpose: Purpose<'_>,
        origin: &Origin,
    ) -> Result<VerifiedCaller, Failed> {
        let now = system::now();
        let identity = match credential.expose().split_once(' ') {
            Some(("X-Api-Key", key)) => return self.keys.authenticate(key, &self.member, origin, now).await,
            Some(("Bearer", jwt)) => self.bearers.bearer(jwt, purpose, now).await.inspect_err(log_rejection)?,
            Some((SCHEME, text)) => {
                self.bearers.signed(&self.nats, text, purpose, now).await.inspect_err(log_rejection)?
            }
            _ => return Err(AuthError::from(Reason::Scheme).into()),
        };
        let Identity { account, role, actor } = identity;
        let rights = Rights::of(Grant::Role(role).scopes(&self.member));
        Ok(VerifiedCaller { account, rights, actor, origin: origin.clone() })
    }

    /// The caller of a node's call. The bus vouches for its account.
    ///
    /// # Errors
    /// [`AuthError::Scope`] if nodes may not make the call.
    pub(crate) fn node(account: Account, call: NodeCall) -> Result<VerifiedCaller, AuthError> {
        let actor = format!("node:{account}");
        let caller =
            VerifiedCaller { account, rights: Rights::of(Scopes::of_nodes()), actor, origin: Origin::default() };
        let scope = scope_of(call);
        if caller.has(scope) { Ok(caller) } else { Err(AuthError::Scope(scope)) }
    }

    /// The scopes of the role `member`.
    pub(crate) fn member(&self) -> &Scopes {
        &self.member
    }

    /// Counts a request against the caller's rate limit.
    ///
    /// # Errors
    /// [`AuthError::Limited`] if the limit is reached.
    pub(crate) fn admit(&self, caller: &VerifiedCaller) -> Result<(), AuthError> {
        self.keys.admit(&caller.actor).map_err(|wait| AuthError::Limited { retry_after_seconds: wait.as_secs() + 1 })
    }

    /// Follows changes of API keys. While this future is not polled, each key is read from the bus at each use.
    pub(crate) async fn watch(&self) -> std::convert::Infallible {
        self.keys.watch().await
    }
}

/// Logs the reason without its cause: a parser's message quotes the JWT.
fn log_rejection(error: &AuthError) {
    if let AuthError::Rejected(rejection) = error {
        info!(reason = %rejection, "credential rejected");
    }
}
