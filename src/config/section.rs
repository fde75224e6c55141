//! The sections of the settings, key by key.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::form;
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
    pub listen: SocketAddr,
    /// How browsers reach it.
    #[serde(deserialize_with = "form::optional")]
    pub public_url: Option<Url>,
    /// Own address for metrics.
    #[serde(deserialize_with = "form::optional")]
    pub metrics_listen: Option<SocketAddr>,
    /// What answers to its commands are addressed to, or empty.
    #[serde(deserialize_with = "form::edge_id")]
    pub edge_id: String,
    /// Connections open at once.
    pub max_connections: usize,
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
    /// Proxy for calls to providers.
    #[serde(deserialize_with = "form::optional")]
    pub proxy: Option<Url>,
    /// File with further root certificates, or empty.
    pub ca: PathBuf,
}

/// Section `auth`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Accounts that may change configs.
    pub admin_accounts: Vec<Account>,
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
    pub keys_command: Vec<String>,
}

/// Section `worker`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Commands of one verb worked on at once.
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
    /// How often connections that lost their schedule are looked for.
    #[serde(deserialize_with = "form::duration")]
    pub repair_interval: Duration,
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
