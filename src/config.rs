//! Settings: `config/default.toml`, then the file given, then the environment. The only reader of the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use serde::{Deserialize, Deserializer, de};
use url::Url;

use crate::secret::Secret;
use crate::subject::Account;

/// Every key with its default and what it means.
pub const DEFAULT: &str = include_str!("../config/default.toml");

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
    #[serde(deserialize_with = "optional")]
    pub public_url: Option<Url>,
    /// Own address for metrics.
    #[serde(deserialize_with = "optional")]
    pub metrics_listen: Option<SocketAddr>,
    /// What answers to its commands are addressed to, or empty.
    #[serde(deserialize_with = "edge_id")]
    pub edge_id: String,
    /// Connections open at once.
    pub max_connections: usize,
    /// How long a caller waits for a command's answer.
    #[serde(deserialize_with = "duration")]
    pub deadline: Duration,
    /// How long shutdown waits for requests under way.
    #[serde(deserialize_with = "duration")]
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
    #[serde(deserialize_with = "duration")]
    pub login_ttl: Duration,
    /// Proxy for calls to providers.
    #[serde(deserialize_with = "optional")]
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
}

/// Section `worker`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Commands of one verb worked on at once.
    pub concurrency: usize,
    /// How long shutdown waits for commands under way.
    #[serde(deserialize_with = "duration")]
    pub drain: Duration,
}

/// Section `refresh`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// A record younger than this answers whoever asks for a refresh.
    #[serde(deserialize_with = "duration")]
    pub min_interval: Duration,
    /// How often connections that lost their schedule are looked for.
    #[serde(deserialize_with = "duration")]
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

/// Reads the settings.
///
/// # Errors
/// When the file cannot be read, a key is unknown or a value does not fit; the text names the key and where it stands.
pub fn load(file: Option<&Path>) -> Result<Config, Box<figment::Error>> {
    let mut figment = Figment::from(Toml::string(DEFAULT));
    if let Some(file) = file {
        figment = figment.merge(Toml::file_exact(file));
    }
    // Other programs' variables may begin alike; a setting's has a section.
    let environment = Env::prefixed("TOKENBUS_").filter(|name| name.as_str().contains("__")).split("__");
    figment.merge(environment).extract().map_err(Box::new)
}

/// The folder for files the project makes by itself when nothing else is said, and the value of any other variable
/// a developer's tool needs.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one home of the environment")]
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Seconds(u64),
        Text(String),
    }
    let duration = match Form::deserialize(deserializer)? {
        Form::Seconds(seconds) => Duration::from_secs(seconds),
        Form::Text(text) => text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a duration; write `90`, `90s` or `10m`")))?,
    };
    if duration.is_zero() { Err(de::Error::custom("must be longer than nothing")) } else { Ok(duration) }
}

fn edge_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    let fits = id.is_empty() || crate::subject::is_id(&id);
    if fits { Ok(id) } else { Err(de::Error::custom("must be 22 letters, digits, `_` or `-`")) }
}

fn optional<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(de::Error::custom) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Box<figment::Error>> {
        Figment::from(Toml::string(DEFAULT)).merge(Toml::string(text)).extract().map_err(Box::new)
    }

    #[test]
    fn the_defaults_are_whole() {
        let config = parse("").unwrap();
        assert_eq!(config.oauth.login_ttl, Duration::from_mins(10));
        assert!(!config.oauth.allow_insecure_urls);
        assert_eq!(config.nats.inbox_prefix(), "_INBOX");
    }

    #[test]
    fn durations_are_seconds_or_text() {
        #[track_caller]
        fn check(value: &str, expected: Option<u64>) {
            let config = parse(&format!("[oauth]\nlogin_ttl = {value}"));
            assert_eq!(config.ok().map(|c| c.oauth.login_ttl.as_secs()), expected, "{value}");
        }
        check("90", Some(90));
        check("\"90s\"", Some(90));
        check("\"1h 30m\"", Some(5400));
        check("0", None);
        check("-1", None);
        check("\"soon\"", None);
    }

    #[test]
    fn unknown_keys_are_named() {
        let error = parse("[nats]\nurll = \"x\"").unwrap_err().to_string();
        assert!(error.contains("urll"), "{error}");
    }
}
