//! The sections of the settings. `config/default.toml` has the defaults and describes each key for operators.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv6Net;
use serde::Deserialize;
use url::Url;

use super::events::Events;
use super::form;
use super::http::Http;
use super::log::Log;
use super::max_bytes::MaxBytes;
use super::quotas::{AccountLimits, Limits};
use super::traces::Traces;
use crate::event::EventKind;
use crate::rights::Scopes;
use crate::secret::Secret;
use crate::subject::Account;

/// All settings of a process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The connection to the bus.
    pub nats: Nats,
    /// The gateway.
    pub http: Http,
    /// Logins and providers.
    pub oauth: Oauth,
    /// Verification of callers.
    pub auth: Auth,
    /// Settings of single accounts.
    #[serde(deserialize_with = "form::accounts")]
    pub accounts: BTreeMap<Account, AccountSettings>,
    /// Quotas of each account.
    pub limits: Limits,
    /// Sealing keys.
    pub secrets: Secrets,
    /// Command processing.
    pub worker: Worker,
    /// Scheduled refreshes.
    pub refresh: Refresh,
    /// Revocations that failed.
    pub revoke: Revoke,
    /// The receiver of events.
    pub webhooks: Webhooks,
    /// Audit events.
    pub events: Events,
    /// Commands such as `tokenbus connections`.
    pub cli: Cli,
    /// Logging.
    pub log: Log,
    /// Traces.
    pub traces: Traces,
}

/// Section `nats`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// Server addresses, comma-separated.
    pub url: String,
    /// User name, or empty.
    pub user: String,
    /// Password, or empty.
    pub password: Secret,
    /// Credentials file, or empty.
    pub creds: PathBuf,
    /// File with an nkey seed, or empty.
    pub nkey: PathBuf,
    /// File with root certificates, or empty.
    pub ca: PathBuf,
    /// File with the client certificate, or empty.
    pub client_cert: PathBuf,
    /// File with its private key, or empty.
    pub client_key: PathBuf,
    /// Allows connections without TLS beyond loopback.
    pub allow_plaintext: bool,
    /// The workers' public curve key, for gateways and the CLI; or empty.
    pub worker_key: String,
    /// Replicas of each stream and bucket.
    pub replicas: usize,
    /// First token of inbox subjects, or empty for the default.
    pub inbox_prefix: String,
    /// Most bytes of each stream and bucket.
    pub max_bytes: MaxBytes,
}

impl Nats {
    /// First token of inbox subjects. The default contains the user name, because each user may subscribe only to its own.
    #[must_use]
    pub fn inbox_prefix(&self) -> String {
        match (self.inbox_prefix.as_str(), self.user.as_str()) {
            ("", "") => "_INBOX".to_owned(),
            ("", user) => format!("_INBOX_{user}"),
            (prefix, _) => prefix.to_owned(),
        }
    }
}

/// Section `oauth`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oauth {
    /// Allows http URLs on loopback.
    pub allow_insecure_urls: bool,
    /// Hosts that may have private addresses.
    #[serde(deserialize_with = "form::hosts")]
    pub allowed_hosts: Vec<String>,
    /// Prefixes of this network's NAT64.
    #[serde(deserialize_with = "form::nat64_prefixes")]
    pub nat64_prefixes: Vec<Ipv6Net>,
    /// Origins to which a login may return.
    #[serde(deserialize_with = "form::urls")]
    pub return_to: Vec<Url>,
    /// Binds all logins to browsers.
    pub bind: BindLogins,
    /// Longest time from the start of a login to its callback.
    #[serde(deserialize_with = "form::duration")]
    pub login_ttl: Duration,
    /// Most pending logins of one account.
    pub max_pending_logins: u64,
    /// Proxy for calls to providers.
    #[serde(deserialize_with = "form::proxy")]
    pub proxy: Option<Url>,
    /// Hosts, suffixes and networks that are reached without the proxy.
    #[serde(deserialize_with = "form::direct_hosts")]
    pub no_proxy: Vec<String>,
    /// File with additional root certificates, or empty.
    pub ca: PathBuf,
    /// Folder with the operator's own profiles of providers, or empty.
    pub providers_dir: PathBuf,
}

/// The logins that only the browser that started them can finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum BindLogins {
    /// Those whose caller asks for it.
    #[serde(rename = "")]
    OnRequest,
    /// All.
    #[serde(rename = "browser")]
    All,
}

/// Section `auth`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Accounts that may change configs and API keys.
    pub admin_accounts: Vec<Account>,
    /// Scopes of the role `member`.
    pub member_scopes: Scopes,
    /// Lets admins of all accounts manage the keys of their own account.
    pub self_service_keys: bool,
    /// Time for which verified JWTs and the JWTs of accounts are cached.
    #[serde(deserialize_with = "form::duration")]
    pub cache_ttl: Duration,
    /// JWTs of NATS users.
    pub nats: NatsJwt,
    /// Ordinary JWTs.
    pub jwt: Jwt,
}

/// Section `accounts.<account>`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSettings {
    /// The account's name on pages.
    #[serde(default, deserialize_with = "form::shown_name")]
    pub name: Option<String>,
    /// The receiver of the account's own events.
    #[serde(default)]
    pub webhooks: Option<AccountWebhooks>,
    /// Quotas that differ from those of the section `limits`.
    #[serde(default)]
    pub limits: AccountLimits,
}

/// Section `accounts.<key>.webhooks`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountWebhooks {
    #[serde(deserialize_with = "form::url")]
    pub url: Url,
    /// The signing key: `whsec_<base64>`.
    pub secret: Secret,
    /// The signing key before a change, or empty.
    #[serde(default)]
    pub previous_secret: Secret,
    /// Kinds of events that are sent; those of the section `webhooks` by default.
    #[serde(default)]
    pub events: Option<Vec<EventKind>>,
}

/// Section `auth.nats`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsJwt {
    /// Identity and signing keys of the trusted operators.
    pub operators: Vec<String>,
    /// Folder with the JWTs of accounts, or empty.
    pub accounts_dir: PathBuf,
    /// User of the system account, or empty.
    pub system_user: String,
    pub system_password: Secret,
    /// Credentials file of that user, or empty.
    pub system_creds: PathBuf,
}

/// Section `auth.jwt`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The accepted issuer, or empty.
    pub issuer: String,
    /// The accepted audience.
    pub audience: String,
    /// URL of the issuer's keys.
    #[serde(deserialize_with = "form::optional_url")]
    pub jwks_url: Option<Url>,
    /// Shared secret for HS256, or empty.
    pub secret: Secret,
    /// Name of the claim with the account.
    pub account_claim: String,
    /// Name of the claim with the role.
    pub role_claim: String,
    /// Largest accepted difference between clocks.
    #[serde(deserialize_with = "form::duration")]
    pub leeway: Duration,
}

/// Section `secrets`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// File with the keyring, or empty.
    pub keys_file: PathBuf,
    /// The keyring itself, or empty.
    pub keys: Secret,
    /// A program that prints the keyring, and its arguments; or empty.
    pub key_command: Vec<String>,
}

/// Section `worker`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Most commands of one verb in progress at once.
    #[serde(deserialize_with = "form::count")]
    pub concurrency: usize,
    /// Longest time that shutdown waits for commands in progress.
    #[serde(deserialize_with = "form::duration")]
    pub drain: Duration,
}

/// Section `refresh`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// A caller who asks for a refresh gets the current token if its record is younger than this.
    #[serde(deserialize_with = "form::duration")]
    pub min_interval: Duration,
    /// Remaining validity of a token that readers get if they do not ask for any.
    #[serde(deserialize_with = "form::optional_duration")]
    pub min_valid: Option<Duration>,
    /// Most refreshes at one integration at once.
    #[serde(deserialize_with = "form::count")]
    pub concurrency: usize,
    /// Most refreshes at one integration per second.
    #[serde(deserialize_with = "form::count")]
    pub rate: u32,
    /// Shortest time of failures that say nothing about the grant after which a connection with an expired token is given up.
    #[serde(deserialize_with = "form::duration")]
    pub give_up_after: Duration,
    /// Interval between repair passes, which find connections without a schedule.
    #[serde(deserialize_with = "form::duration")]
    pub repair_interval: Duration,
}

/// Section `revoke`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// Time after a deletion for which its revocation is tried again.
    #[serde(deserialize_with = "form::duration")]
    pub give_up_after: Duration,
}

/// Section `webhooks`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// The receiver's URL.
    #[serde(deserialize_with = "form::optional_url")]
    pub url: Option<Url>,
    /// The signing key: `whsec_<base64>`.
    pub secret: Secret,
    /// The signing key before a change, or empty.
    pub previous_secret: Secret,
    /// Kinds of events that are sent.
    pub events: Vec<EventKind>,
}

/// Section `cli`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cli {
    /// The account whose connections `tokenbus connections` shows.
    #[serde(deserialize_with = "form::optional")]
    pub account: Option<Account>,
    /// The API key that `tokenbus config` sends, or empty.
    pub api_key: Secret,
}
