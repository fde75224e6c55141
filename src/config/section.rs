//! The sections of the settings, key by key.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

use super::form;
use crate::event::EventKind;
use crate::secret::Secret;
use crate::subject::Account;

/// All settings of a process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The bus.
    pub nats: Nats,
    /// The gateway.
    pub http: Http,
    /// Logins and providers.
    pub oauth: Oauth,
    /// Who may do what.
    pub auth: Auth,
    /// Sealing keys.
    pub secrets: Secrets,
    /// Command processing.
    pub worker: Worker,
    /// Refreshing.
    pub refresh: Refresh,
    /// Where events go.
    pub webhooks: Webhooks,
    /// Audit events.
    pub events: Events,
    /// The program's own commands.
    pub cli: Cli,
    /// Logging.
    pub log: Log,
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
    /// File with the certificate that this process shows, or empty.
    pub client_cert: PathBuf,
    /// File with its private key, or empty.
    pub client_key: PathBuf,
    /// Replicas of each stream and bucket.
    pub replicas: usize,
    /// First token of this process's inboxes, or empty for the default.
    pub inbox_prefix: String,
}

impl Nats {
    /// The first token of this process's inboxes.
    #[must_use]
    pub fn inbox_prefix(&self) -> String {
        match (self.inbox_prefix.as_str(), self.user.as_str()) {
            ("", "") => "_INBOX".to_owned(),
            ("", user) => format!("_INBOX_{user}"),
            (prefix, _) => prefix.to_owned(),
        }
    }
}

/// Section `http`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address of the gateway.
    #[serde(deserialize_with = "form::address")]
    pub listen: SocketAddr,
    /// How browsers reach it.
    #[serde(deserialize_with = "form::optional")]
    pub public_url: Option<Url>,
    /// Own address for metrics.
    #[serde(deserialize_with = "form::optional_address")]
    pub metrics_listen: Option<SocketAddr>,
    /// What answers to its commands are addressed to, or empty.
    #[serde(deserialize_with = "form::edge_id")]
    pub edge_id: String,
    /// File with the certificate chain, or empty for plain HTTP.
    pub tls_cert: PathBuf,
    /// File with its private key.
    pub tls_key: PathBuf,
    /// Peers whose word about a client's address counts.
    #[serde(deserialize_with = "form::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Requests of one address a second.
    pub address_rate: u32,
    /// Requests of one address at once.
    pub address_burst: u32,
    /// Requests with one credential a second.
    pub credential_rate: u32,
    /// Requests with one credential at once.
    pub credential_burst: u32,
    /// Connections open at once.
    #[serde(deserialize_with = "form::count")]
    pub max_connections: usize,
    /// Connections of one address open at once.
    pub max_connections_per_address: usize,
    /// How long a caller waits for a command's answer.
    #[serde(deserialize_with = "form::duration")]
    pub deadline: Duration,
    /// How long shutdown waits for requests under way.
    #[serde(deserialize_with = "form::duration")]
    pub drain: Duration,
}

/// Section `oauth`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oauth {
    /// Lets URLs be http on loopback.
    pub allow_insecure_urls: bool,
    /// Hosts whose private addresses may be called.
    pub allowed_hosts: Vec<String>,
    /// Origins that a login may return to.
    pub return_to: Vec<Url>,
    /// How long a login may take.
    #[serde(deserialize_with = "form::duration")]
    pub login_ttl: Duration,
    /// Logins of one account that may be pending at once.
    pub max_pending_logins: u64,
    /// Proxy for calls to providers.
    #[serde(deserialize_with = "form::proxy")]
    pub proxy: Option<Url>,
    /// File with further root certificates, or empty.
    pub ca: PathBuf,
}

/// Section `auth`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Accounts that may change configs and API keys.
    pub admin_accounts: Vec<Account>,
    /// How long a valid JWT and an account's JWT are remembered.
    #[serde(deserialize_with = "form::duration")]
    pub cache_ttl: Duration,
    /// JWTs of NATS users.
    pub nats: NatsJwt,
    /// Ordinary JWTs.
    pub jwt: Jwt,
}

/// Section `auth.nats`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsJwt {
    /// Identity and signing keys of the operators that are trusted.
    pub operators: Vec<String>,
    /// Folder of accounts' JWTs, or empty.
    pub accounts_dir: PathBuf,
    /// User of the system account, or empty.
    pub system_user: String,
    /// Its password.
    pub system_password: Secret,
    /// Its credentials file, or empty.
    pub system_creds: PathBuf,
}

/// Section `auth.jwt`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// Who issues them, or empty.
    pub issuer: String,
    /// Whom they are meant for.
    pub audience: String,
    /// Where the issuer's keys are.
    #[serde(deserialize_with = "form::optional")]
    pub jwks_url: Option<Url>,
    /// Shared secret for HS256, or empty.
    pub secret: Secret,
    /// The claim with the account.
    pub account_claim: String,
    /// The claim with the role.
    pub role_claim: String,
    /// How far clocks may differ.
    #[serde(deserialize_with = "form::duration")]
    pub leeway: Duration,
}

/// Section `secrets`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The keyring's file, or empty.
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
    /// Commands of one verb worked on at once.
    #[serde(deserialize_with = "form::count")]
    pub concurrency: usize,
    /// How long shutdown waits for commands under way.
    #[serde(deserialize_with = "form::duration")]
    pub drain: Duration,
}

/// Section `refresh`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// A record younger than this answers whoever asks for a refresh.
    #[serde(deserialize_with = "form::duration")]
    pub min_interval: Duration,
    /// How long a token has to be good for when its reader does not say.
    #[serde(deserialize_with = "form::optional_duration")]
    pub min_valid: Option<Duration>,
    /// Refreshes at one integration at once.
    #[serde(deserialize_with = "form::count")]
    pub concurrency: usize,
    /// Refreshes at one integration a second.
    #[serde(deserialize_with = "form::count")]
    pub rate: u32,
    /// How often connections that lost their schedule are looked for.
    #[serde(deserialize_with = "form::duration")]
    pub repair_interval: Duration,
}

/// Section `webhooks`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// Where events are sent to.
    #[serde(deserialize_with = "form::optional")]
    pub url: Option<Url>,
    /// What signs them: `whsec_<base64>`.
    pub secret: Secret,
    /// Which events.
    pub events: Vec<EventKind>,
}

/// Section `events`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Which events reads leave.
    pub reads: ReadEvents,
    /// How often sums of reads are written down.
    #[serde(deserialize_with = "form::duration")]
    pub reads_interval: Duration,
}

/// Which events reads leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadEvents {
    /// One for each connection and reader, with their number, now and then.
    Summary,
    /// One each, stored before the token goes out.
    All,
}

/// Section `cli`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cli {
    /// Whose connections `tokenbus connections` is about.
    #[serde(deserialize_with = "form::optional")]
    pub account: Option<Account>,
    /// The API key that `tokenbus config` sends, or empty.
    pub api_key: Secret,
}

/// Section `log`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Which events.
    pub filter: String,
    /// In which form.
    pub format: LogFormat,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
