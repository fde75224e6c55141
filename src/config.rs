//! Settings: `config/default.toml`, then the file given, then the environment. The only reader of the environment.

mod form;
mod section;

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format as _, Toml};

pub use self::section::{Auth, Config, Http, Jwt, Log, LogFormat, Nats, NatsJwt, Oauth, Refresh, Secrets, Worker};

/// Every key with its default and what it means.
pub const DEFAULT: &str = include_str!("../config/default.toml");

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
