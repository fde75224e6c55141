//! Settings from environment variables. A text is taken as it is: a password may look like a number or a list.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;

use figment::providers::{Format as _, Toml};
use figment::util::nest;
use figment::value::{Dict, Map, Num, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};

use super::DEFAULT;
use super::describe::{SettingsError, check_name};

/// Prefix of the environment variables that are settings.
pub(super) const PREFIX: &str = "TOKENBUS_";

/// Most bytes of a file with a secret. A device such as `/dev/zero` has no end.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Name of the source of these settings in errors.
pub(super) const SOURCE: &str = "environment";

/// A variable's setting.
struct Setting {
    /// `nats.url`.
    path: String,
    value: Value,
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(SOURCE)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let Value::Dict(_, dict) = nest(&self.path, self.value.clone()) else { return Ok(Map::new()) };
        Ok(Profile::Default.collect(dict))
    }
}

/// Returns a variable that may be a setting.
///
/// # Errors
/// If the value of a setting is not UTF-8, and so cannot be taken as it is.
pub(super) fn setting(name: OsString, value: OsString) -> Result<Option<(String, String)>, SettingsError> {
    let Ok(name) = name.into_string() else { return Ok(None) };
    if !has_prefix(&name, PREFIX) {
        return Ok(None);
    }
    match value.into_string() {
        Ok(value) => Ok(Some((name, value))),
        Err(_) if name.contains("__") => {
            Err(SettingsError::new(format!("{}: is not UTF-8", name.to_ascii_uppercase())))
        }
        Err(value) => Ok(Some((name, value.to_string_lossy().into_owned()))),
    }
}

/// Returns true for settings of the section `log`.
pub(super) fn is_of_log(name: &str) -> bool {
    has_prefix(name, "TOKENBUS_LOG__")
}

fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Adds the settings of these variables.
///
/// # Errors
/// If a variable is misspelt, or a `…_FILE` cannot be used.
pub(super) fn merge(
    mut figment: Figment,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Figment, SettingsError> {
    let defaults = defaults();
    let mut given: HashMap<String, String> = HashMap::new();
    for (variable, text) in variables {
        let name = variable.to_ascii_uppercase();
        let Some(name) = name.strip_prefix(PREFIX) else { continue };
        check_name(name)?;
        // Variables without a section, such as `TOKENBUS_CACHE`, are not settings.
        if !name.contains("__") {
            continue;
        }
        let path = name.to_ascii_lowercase().replace("__", ".");
        if path.split('.').any(str::is_empty) {
            return Err(SettingsError::new(format!("{PREFIX}{name}: no setting has this name")));
        }
        let setting = match path.strip_suffix("_file").filter(|path| is_secret(path)) {
            Some(secret) => Setting { path: secret.to_owned(), value: read(name, &text)?.into() },
            None => Setting { value: parse(&text, value_at(&defaults, &path), &path), path },
        };
        if let Some(other) = given.insert(setting.path.clone(), variable.clone()) {
            let [first, second] = if other < variable { [other, variable] } else { [variable, other] };
            return Err(SettingsError::new(format!("set only one of {first} and {second}")));
        }
        figment = figment.merge(setting);
    }
    Ok(figment)
}

fn defaults() -> Dict {
    Toml::string(DEFAULT).data().unwrap_or_default().remove(&Profile::Default).unwrap_or_default()
}

fn value_at<'a>(defaults: &'a Dict, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let value = defaults.get(first)?;
    match (value, rest) {
        (Value::Dict(_, inner), Some(rest)) => value_at(inner, rest),
        (_, None) => Some(value),
        (_, Some(_)) => None,
    }
}

/// Returns true for settings that have a variable `…_FILE`. A proxy's URL can hold a password.
fn is_secret(path: &str) -> bool {
    let key = path.rsplit('.').next().unwrap_or_default();
    matches!(key, "password" | "system_password" | "secret" | "previous_secret" | "api_key" | "authorization")
        || path == "oauth.proxy"
}

/// Reads a secret's file, as containers mount them. Editors add line breaks at the end, and some a byte order mark at the
/// beginning, which are not a part of the secret.
fn read(variable: &str, file: &str) -> Result<String, SettingsError> {
    let mut text = String::new();
    let opened = File::open(file).and_then(|file| file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text));
    let bytes = opened.map_err(|error| {
        SettingsError::new(format!("{PREFIX}{variable}: cannot read the file that it names: {error}"))
    })?;
    if bytes as u64 > MAX_SECRET_BYTES {
        return Err(SettingsError::new(format!("{PREFIX}{variable}: the file that it names is larger than 64 KiB")));
    }
    let secret = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(SettingsError::new(format!("{PREFIX}{variable}: the file that it names is empty")));
    }
    Ok(secret.to_owned())
}

/// Parses a variable as the type of its setting. A text that is not of the type stays a text, and is an error later.
fn parse(text: &str, default: Option<&Value>, path: &str) -> Value {
    let is_account_list = path.starts_with("accounts.") && path.ends_with(".webhooks.events");
    let is_account_limit = path.starts_with("accounts.") && path.contains(".limits.");
    match default {
        Some(Value::Array(..)) => list(text).map_or_else(|| text.into(), Value::from),
        None if is_account_list => list(text).map_or_else(|| text.into(), Value::from),
        Some(Value::Bool(..)) => text.trim().parse::<bool>().map_or_else(|_| text.into(), Value::from),
        Some(Value::Num(_, Num::F64(_))) => text.trim().parse::<f64>().map_or_else(|_| text.into(), Value::from),
        Some(Value::Num(..)) => text.trim().parse::<i64>().map_or_else(|_| text.into(), Value::from),
        None if is_account_limit => text.trim().parse::<i64>().map_or_else(|_| text.into(), Value::from),
        Some(Value::String(..) | Value::Char(..) | Value::Empty(..) | Value::Dict(..)) | None => text.into(),
    }
}

/// The texts of a list: `["a", "b"]`, or `[a, b]` without quotes.
fn list(text: &str) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct List {
        list: Vec<String>,
    }
    let text = text.trim();
    if let Ok(List { list }) = toml::from_str(&format!("list = {text}")) {
        return Some(list);
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let texts = inner.split(',').map(|part| part.trim().trim_matches('"').to_owned());
    Some(texts.filter(|part| !part.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;
    use std::path::Path;

    use super::super::{Config, parse_settings};
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Config, SettingsError> {
        let variables = variables.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()));
        parse_settings(None, variables)
    }

    #[test]
    fn o12_texts_are_taken_as_they_are() {
        for text in ["12345678", "true", "[abc]", " x", "\"x\"", "{a=1}", "1e3", "a,b", "ü", "0x10", ""] {
            let config = with(&[("NATS__PASSWORD", text), ("NATS__USER", text), ("WEBHOOKS__SECRET", text)]).unwrap();
            assert_eq!(config.nats.password.expose(), text);
            assert_eq!(config.nats.user, text);
            assert_eq!(config.webhooks.secret.expose(), text);
        }
        let account = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";
        let name = format!("ACCOUNTS__{account}__NAME");
        let config = with(&[(&name, "42")]).unwrap();
        assert_eq!(config.accounts.values().next().unwrap().name.as_deref(), Some("42"));
    }

    #[test]
    fn o12_other_types_are_parsed() {
        let account = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";
        let limit = format!("ACCOUNTS__{account}__LIMITS__CONNECTIONS");
        let config = with(&[
            ("HTTP__MAX_CONNECTIONS", "17"),
            ("HTTP__ALLOW_PLAINTEXT", "true"),
            ("HTTP__DEADLINE", "7"),
            ("HTTP__DRAIN", "1m"),
            ("NATS__MAX_BYTES__OAUTH", "4096"),
            ("OAUTH__ALLOWED_HOSTS", "[10.0.0.1, 12345, \"b\"]"),
            ("SECRETS__KEY_COMMAND", "[\"vault\", \"a, b\"]"),
            ("TRACES__SAMPLE", "0.5"),
            ("HTTP__TRUSTED_PROXIES", "[]"),
            (&limit, "5"),
        ]);
        let config = config.unwrap();
        assert_eq!((config.http.max_connections, config.http.allow_plaintext), (17, true));
        assert_eq!((config.http.deadline.as_secs(), config.http.drain.as_secs()), (7, 60));
        assert_eq!(config.nats.max_bytes.oauth, 4096);
        assert_eq!(config.oauth.allowed_hosts, ["10.0.0.1", "12345", "b"]);
        assert!((config.traces.sample - 0.5).abs() < f64::EPSILON);
        assert_eq!(config.secrets.key_command, ["vault", "a, b"]);
        assert!(config.http.trusted_proxies.is_empty());
        assert_eq!(config.accounts.len(), 1);
    }

    #[test]
    fn o12_every_setting_can_have_its_default_by_a_variable() {
        fn walk(dict: &Dict, section: &str, found: &mut Vec<(String, String)>) {
            for (key, value) in dict {
                let name = format!("{section}{}", key.to_uppercase());
                let text = match value {
                    Value::Dict(_, inner) => {
                        walk(inner, &format!("{name}__"), found);
                        continue;
                    }
                    Value::Array(_, texts) => {
                        format!("[{}]", texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "))
                    }
                    Value::String(_, text) => text.clone(),
                    Value::Bool(_, flag) => flag.to_string(),
                    Value::Num(_, number) => number
                        .to_f64()
                        .map_or_else(|| number.to_i128().unwrap().to_string(), |number| number.to_string()),
                    Value::Char(..) | Value::Empty(..) => panic!("{name} is {value:?}"),
                };
                found.push((name, text));
            }
        }
        let mut variables = Vec::new();
        walk(&defaults(), "", &mut variables);
        assert!(variables.len() > 80);
        for (name, text) in &variables {
            assert!(with(&[(name, text)]).is_ok(), "{name}={text}");
        }
    }

    #[test]
    fn o12_an_error_never_prints_a_value() {
        let mut wrong = Vec::new();
        for (name, value) in [
            ("HTTP__LISTEN", "canary"),
            ("HTTP__MAX_CONNECTIONS", "canary"),
            ("HTTP__MAX_CONNECTIONS", "-77777"),
            ("HTTP__ALLOW_PLAINTEXT", "canary"),
            ("HTTP__DEADLINE", "canary"),
            ("HTTP__PUBLIC_URL", "canary"),
            ("HTTP__TRUSTED_PROXIES", "canary"),
            ("HTTP__TRUSTED_PROXIES", "[canary]"),
            ("HTTP__EDGE_ID", "canary"),
            ("OAUTH__RETURN_TO", "[canary]"),
            ("OAUTH__PROXY", "socks5://canary"),
            ("OAUTH__BIND", "canary"),
            ("OAUTH__NAT64_PREFIXES", "[canary]"),
            ("AUTH__ADMIN_ACCOUNTS", "[canary]"),
            ("AUTH__MEMBER_SCOPES", "[canary]"),
            ("WEBHOOKS__EVENTS", "[canary]"),
            ("EVENTS__READS", "canary"),
            ("LOG__FORMAT", "canary"),
            ("CLI__ACCOUNT", "canary"),
            ("NATS__PASSWORD_FILE", "/nowhere/canary"),
        ] {
            let text = with(&[(name, value)]).unwrap_err().to_string();
            if text.contains("canary") || text.contains("77777") || !text.contains(name) {
                wrong.push(text);
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn o12_a_value_that_is_not_utf8_is_an_error() {
        let with = |name: &str, value: &[u8]| setting(name.into(), OsString::from_vec(value.to_vec()));
        let error = with("tokenbus_NATS__PASSWORD", b"p\xe4ss").unwrap_err().to_string();
        assert_eq!(error, "TOKENBUS_NATS__PASSWORD: is not UTF-8");
        assert_eq!(with("TOKENBUS_NATS__PASSWORD", b"p").unwrap().unwrap().1, "p");
        // Not settings.
        assert!(with("TOKENBUS_CACHE", b"/\xe4").unwrap().is_some());
        assert!(with("LANG__X", b"\xe4").unwrap().is_none());
    }

    #[test]
    fn o12_a_name_without_a_key_is_an_error() {
        for name in ["HTTP__", "__LISTEN", "HTTP____LISTEN"] {
            let error = with(&[(name, "1")]).unwrap_err().to_string();
            assert_eq!(error, format!("TOKENBUS_{name}: no setting has this name"));
        }
    }

    #[test]
    fn o12_every_secret_has_a_file_variant() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "\u{feff} s3cret\r\n\n").unwrap();
        let file = file.to_str().unwrap();
        let account = "ACCOUNTS__AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D__WEBHOOKS";
        let names = ["NATS__PASSWORD", "AUTH__NATS__SYSTEM_PASSWORD", "AUTH__JWT__SECRET", "WEBHOOKS__SECRET"];
        let more = ["WEBHOOKS__PREVIOUS_SECRET", "CLI__API_KEY", "TRACES__AUTHORIZATION"];
        let mut variables: Vec<(String, &str)> =
            names.iter().chain(&more).map(|name| (format!("{name}_FILE"), file)).collect();
        variables.push((format!("{account}__SECRET_FILE"), file));
        variables.push((format!("{account}__URL"), "https://x.example"));
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let config = with(&variables).unwrap();
        let webhooks = config.accounts.values().next().unwrap().webhooks.as_ref().unwrap();
        let secrets = [
            &config.nats.password,
            &config.auth.nats.system_password,
            &config.auth.jwt.secret,
            &config.webhooks.secret,
            &config.webhooks.previous_secret,
            &config.cli.api_key,
            &config.traces.authorization,
            &webhooks.secret,
        ];
        for secret in secrets {
            assert_eq!(secret.expose(), " s3cret");
        }
        std::fs::write(folder.path().join("proxy"), "http://u:p@proxy.example:3128\n").unwrap();
        let proxy = folder.path().join("proxy");
        let config = with(&[("OAUTH__PROXY_FILE", proxy.to_str().unwrap())]).unwrap();
        assert_eq!(config.oauth.proxy.unwrap().password(), Some("p"));
        for empty in ["", "\n", "\u{feff}\r\n"] {
            std::fs::write(&proxy, empty).unwrap();
            let error = with(&[("NATS__PASSWORD_FILE", proxy.to_str().unwrap())]).unwrap_err().to_string();
            assert_eq!(error, "TOKENBUS_NATS__PASSWORD_FILE: the file that it names is empty");
        }
        let endless = with(&[("NATS__PASSWORD_FILE", "/dev/zero")]).unwrap_err().to_string();
        assert_eq!(endless, "TOKENBUS_NATS__PASSWORD_FILE: the file that it names is larger than 64 KiB");
        let both = with(&[("NATS__PASSWORD", "x"), ("NATS__PASSWORD_FILE", file)]).unwrap_err().to_string();
        assert_eq!(both, "set only one of TOKENBUS_NATS__PASSWORD and TOKENBUS_NATS__PASSWORD_FILE");
        let twice = [("TOKENBUS_NATS__URL", "x"), ("tokenbus_nats__url", "y")];
        let twice = twice.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter();
        let twice = merge(Figment::new(), twice).unwrap_err().to_string();
        assert_eq!(twice, "set only one of TOKENBUS_NATS__URL and tokenbus_nats__url");
        // The keyring has a setting of its own for this.
        assert_eq!(with(&[("SECRETS__KEYS_FILE", file)]).unwrap().secrets.keys_file, Path::new(file));
    }
}
