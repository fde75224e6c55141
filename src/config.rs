//! Settings, from `config/default.toml`, the given file and the environment; later ones override earlier ones. No other
//! module reads the environment.

mod describe;
mod environment;
mod events;
mod form;
mod http;
mod log;
mod max_bytes;
mod plaintext;
mod quotas;
mod section;
mod traces;

use std::path::Path;

use figment::Figment;
use figment::providers::{Format as _, Toml};

pub(crate) use self::describe::SettingsError;
pub(crate) use self::events::ReadEvents;
pub(crate) use self::http::Http;
pub(crate) use self::log::{Log, LogFormat, log_format};
pub(crate) use self::max_bytes::{MaxBytes, StreamLimit};
pub(crate) use self::section::{AccountWebhooks, Auth, BindLogins, Jwt, NatsJwt, Oauth, Webhooks};
pub use self::section::{Config, Nats, Secrets};
pub(crate) use self::traces::{Traces, TracesProtocol};

/// Every setting with its default and its description.
pub(crate) const DEFAULT: &str = include_str!("../config/default.toml");

/// Reads and validates the settings.
///
/// # Errors
/// Fails if the file cannot be read, a setting is unknown or a value is not valid. The error names file and setting, and never
/// a value.
pub fn load(file: Option<&Path>) -> Result<Config, SettingsError> {
    let variables = variables().collect::<Result<Vec<_>, _>>()?;
    parse_settings(file, variables.into_iter())
}

/// Reads `log.filter` again. Errors in other sections don't matter, and the files of secrets, which are read once, may be gone.
pub(crate) fn log_filter(file: Option<&Path>) -> Result<String, SettingsError> {
    let of_log = variables().filter_map(Result::ok).filter(|(name, _)| environment::is_of_log(name));
    let log: Log = merged(file, of_log)?.extract_inner("log")?;
    Ok(log.filter)
}

/// The variables of the environment that may be settings.
fn variables() -> impl Iterator<Item = Result<(String, String), SettingsError>> {
    std::env::vars_os().filter_map(|(name, value)| environment::setting(name, value).transpose())
}

fn parse_settings(
    file: Option<&Path>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Config, SettingsError> {
    Ok(merged(file, variables)?.extract()?)
}

fn merged(file: Option<&Path>, variables: impl Iterator<Item = (String, String)>) -> Result<Figment, SettingsError> {
    let mut figment = Figment::from(Toml::string(DEFAULT));
    if let Some(file) = file {
        describe::check_syntax(file)?;
        figment = figment.merge(Toml::file_exact(file));
    }
    environment::merge(figment, variables)
}

/// Reads an environment variable that is not a setting, such as `NO_COLOR`.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the only reader of the environment")]
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    pub(super) fn parse(text: &str) -> Result<Config, Box<figment::Error>> {
        Figment::from(Toml::string(DEFAULT)).merge(Toml::string(text)).extract().map_err(Box::new)
    }

    #[test]
    fn the_defaults_are_complete() {
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
    fn no_duration_is_longer_than_a_clock_can_count() {
        let defaults = DEFAULT.parse::<toml::Table>().unwrap();
        let is_duration = |value: &toml::Value| {
            value.as_str().is_some_and(|text| {
                text.starts_with(|char: char| char.is_ascii_digit()) && text.parse::<jiff::Span>().is_ok()
            })
        };
        let mut found = 0;
        for (section, keys) in &defaults {
            for (key, _) in keys.as_table().unwrap().iter().filter(|(_, value)| is_duration(value)) {
                let error = parse(&format!("[{section}]\n{key} = 9223372036854775807")).unwrap_err().to_string();
                assert!(error.contains("must be at most 100 years"), "{section}.{key}: {error}");
                found += 1;
            }
        }
        assert!(found > 12, "{found}");
    }

    #[test]
    fn sizes_are_bytes_or_text_and_the_defaults_fit_into_ten_gib() {
        #[track_caller]
        fn check(value: &str, expected: Option<i64>) {
            let config = parse(&format!("[nats.max_bytes]\noauth = {value}"));
            assert_eq!(config.ok().map(|config| config.nats.max_bytes.oauth), expected, "{value}");
        }
        check("4096", Some(4096));
        check("\"4096\"", Some(4096));
        check("\"2KiB\"", Some(2048));
        check("\"3 GiB\"", Some(3 << 30));
        for wrong in ["0", "-1", "\"\"", "\"MiB\"", "\"1MB\"", "\"9999999999GiB\""] {
            check(wrong, None);
        }
        let MaxBytes { oauth, commands, events, dead, connections, states, configs, api_keys, meta, nonces } =
            parse("").unwrap().nats.max_bytes;
        let all = [oauth, commands, events, dead, connections, states, configs, api_keys, meta, nonces];
        assert!(all.iter().sum::<i64>() <= 10 << 30);
    }

    #[test]
    fn errors_describe_invalid_values() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("canary"), "{error}");
        }
        check("http.listen = \"canary\"", "must be an address with a port, such as `127.0.0.1:8080`");
        check("http.metrics_listen = \"9090\"", "must be an address with a port");
        for setting in ["http.max_connections", "worker.concurrency", "refresh.concurrency", "refresh.rate"] {
            check(&format!("{setting} = 0"), "must be at least 1");
        }
        check("refresh.min_valid = 0", "must not be zero");
        check("refresh.min_valid = \"soon\"", "must be a duration");
        check("http.trusted_proxies = [\"10.0.0.0/33\"]", "must be addresses or networks");
        check("http.trusted_proxies = [\"proxy.example\"]", "must be addresses or networks");
        check("http.address_rate = -1", "http.address_rate");
        for setting in ["http.max_connections", "worker.concurrency", "refresh.concurrency", "refresh.rate"] {
            check(&format!("{setting} = 4294967296"), "must be at most 4294967295");
        }
        for setting in ["http.public_url", "traces.endpoint", "auth.jwt.jwks_url", "webhooks.url"] {
            for wrong in ["canary.example", "canary.example:443", "ftp://canary.example", "https://"] {
                check(&format!("{setting} = \"{wrong}\""), "must be a URL with http:// or https://");
            }
        }
        check("http.idle_timeout = -77777", "must be a duration");
        check("nats.max_bytes.oauth = 1.5", "must be a number of bytes");
        for wrong in ["https://canary", "canary:443", "10.0.0.0/33", "", "a..canary", "canary ü"] {
            check(&format!("oauth.allowed_hosts = [\"{wrong}\"]"), "must be hosts");
            check(&format!("oauth.no_proxy = [\"{wrong}\"]"), "must be hosts");
        }
        check("oauth.allowed_hosts = [\".canary\"]", "must be hosts");
        parse("oauth.allowed_hosts = [\"IDP.corp\", \"::1\", \"[::1]\", \"192.0.2.1\", \"idp.\", \"a_b\"]").unwrap();
        // These would match nothing.
        check("oauth.no_proxy = [\"[::1]\"]", "must be hosts");
        check("oauth.no_proxy = [\"idp.\"]", "must be hosts");
        parse("oauth.no_proxy = [\"*\", \".internal\", \"IDP.corp\", \"::1\", \"10.0.0.0/8\", \"fd00::/8\"]").unwrap();
        check("oauth.proxy = \"proxy:3128\"", "must be a URL such as `http://proxy.corp.example:3128`");
        check("oauth.proxy = \"socks5://u:canary@proxy:3128\"", "must be a URL such as");
        let config =
            parse("http.trusted_proxies = [\"10.1.2.3/8\", \"::1\", \"192.0.2.1\", \"::ffff:10.1.2.3/112\"]").unwrap();
        let networks = config.http.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(networks, ["10.0.0.0/8", "::1/128", "192.0.2.1/32", "10.1.0.0/16"]);
    }

    #[test]
    fn accounts_are_named_by_their_keys_in_either_case() {
        let account = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";
        for key in [account.to_owned(), account.to_lowercase()] {
            let config = parse(&format!("[accounts.{key}]\nname = \"Acme\"")).unwrap();
            let (parsed, settings) = config.accounts.into_iter().next().unwrap();
            assert_eq!((parsed.as_str(), settings.name.as_deref()), (account, Some("Acme")));
        }
        assert!(parse("[accounts.acme]\nname = \"Acme\"").unwrap_err().to_string().contains("public nkey"));
        assert!(parse(&format!("[accounts.{account}]\nnane = \"Acme\"")).unwrap_err().to_string().contains("nane"));
        for name in ["", " ", "Acme\\u200b", "\\u3164", "\\u202eemcA"] {
            let error = parse(&format!("[accounts.{account}]\nname = \"{name}\"")).unwrap_err().to_string();
            assert!(error.contains("must be a visible text"), "{name}: {error}");
        }
    }

    #[test]
    fn events_of_all_reads_are_synced() {
        #[track_caller]
        fn check(text: &str, expected: bool) {
            let config = parse(&format!("[events]\n{text}")).unwrap();
            assert_eq!(config.events.check().is_ok(), expected, "{text}");
        }
        check("", true);
        check("sync = false", true);
        check("reads = \"all\"", true);
        check("reads = \"all\"\nsync = false", false);
    }

    #[test]
    fn unknown_keys_are_named() {
        let error = parse("[nats]\nurll = \"x\"").unwrap_err().to_string();
        assert!(error.contains("urll"), "{error}");
    }
}
