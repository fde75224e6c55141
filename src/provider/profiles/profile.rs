//! One profile: fields of a config, and fields for people, which no config has.

use std::collections::BTreeMap;

use jiff::civil::Date;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use super::InvalidProfile;
use crate::foreign_text;
use crate::integration::{self, ConfigError, IntegrationOauthConfig, RequestKind, UrlRules, secrets};
use crate::subject::Integration;

/// Key of the example app, with which nothing else is signed.
const EXAMPLE_KEY: &str = include_str!("example_key.pem");
/// The URL with which the fields for revocations of a profile without one are checked.
const EXAMPLE_REVOCATION_URL: &str = "https://hub.example/revoke";
/// Fields of a config that belong to one app or one hub.
const PRIVATE: [&str; 9] = [
    "integration_id",
    "provider",
    "client_id",
    "client_secret",
    "client_secrets",
    "client_key",
    "client_key_id",
    "client_assertion_iss",
    "redirect_url",
];

const ASK: &str = "a table of variables of the profile, each with a string";
const LINK: &str = "a URL with https or http, and without user and password";

/// A profile with the fields of those that it extends. It makes a valid config.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Profile {
    pub(crate) id: Integration,
    /// The name shown to people.
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) about: About,
    /// Fields of a config.
    pub(crate) config: Map<String, Value>,
    /// True if some of the fields are from the operator's folder: the profile's own, or those of a profile that it extends.
    #[serde(skip)]
    pub(crate) is_operators_own: bool,
    /// Its own id, and those of the profiles that it extends.
    #[serde(skip)]
    pub(super) chain: Vec<Integration>,
}

impl Profile {
    /// Replaces all that may be secret in a profile with fields of the operator's own: every account may read profiles.
    pub(crate) fn hide_secrets(&mut self) {
        if self.is_operators_own {
            secrets::hide(&mut self.config);
        }
    }
}

/// The fields for people. All may be absent in an operator's own profiles.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct About {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verified: Option<Verified>,
    /// Fields that the provider's documentation leaves open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unconfirmed: Vec<String>,
    /// The provider's own pages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) documentation: Vec<Url>,
    /// Day on which they were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_on: Option<Date>,
    /// Page where one registers an app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_url: Option<Url>,
    /// Where the redirect URL goes on that page, and in which form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redirect_url_field: Option<String>,
    /// What an admin adds to a config besides the client and the redirect URL, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) setup: Option<String>,
    /// Variables that each config sets itself, with what they are. Their values in the profile are examples.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) ask: BTreeMap<String, String>,
    /// Scopes with what each allows.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) common_scopes: BTreeMap<String, String>,
}

/// A profile as a list shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Summary<'a> {
    id: &'a Integration,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Verified>,
}

/// Source of a profile's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verified {
    /// The provider's documentation has all of them.
    Documentation,
    /// The fields in `unconfirmed` are from another public list.
    Unconfirmed,
}

/// One page, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pages {
    One(Url),
    More(Vec<Url>),
}

/// Parses a file to JSON values, as a PUT has them.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, InvalidProfile> {
    let fields: Map<String, Value> = toml::from_str(text).map_err(|error: toml::de::Error| {
        let line =
            error.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.matches('\n').count() + 1);
        InvalidProfile::Toml { line, problem: foreign_text::escape(error.message()).into_owned() }
    })?;
    match fields.iter().find(|(_, value)| has_null(value)) {
        Some((field, _)) => Err(InvalidProfile::NotFinite(integration::printable(field))),
        None => Ok(fields),
    }
}

/// TOML has no null, but numbers that JSON lacks, and those become null.
fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

impl Profile {
    pub(super) fn checked(
        id: &Integration,
        mut fields: Map<String, Value>,
        rules: UrlRules,
    ) -> Result<Self, InvalidProfile> {
        if let Some(field) = PRIVATE.into_iter().find(|field| fields.contains_key(*field)) {
            return Err(InvalidProfile::Private(field));
        }
        let about = About::take(&mut fields)?;
        about.check_links()?;
        about.check_verified(&fields)?;
        about.check_ask(&fields)?;
        let name = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let profile = Self { id: id.clone(), name, about, config: fields, is_operators_own: false, chain: Vec::new() };
        let mut more = Map::new();
        if !profile.config.contains_key("revocation_url") {
            more.insert("revocation_url".to_owned(), EXAMPLE_REVOCATION_URL.into());
        }
        profile.example_with(more, rules)?;
        Ok(profile)
    }

    pub(crate) fn summary(&self) -> Summary<'_> {
        Summary { id: &self.id, name: &self.name, verified: self.about.verified }
    }

    /// Completes a config. Its own fields count first, each as a whole: objects and lists are not merged. A profile may shape
    /// revocations whose URL holds the client id. Its fields for them count only in a config that has the URL.
    pub(crate) fn config(self, given: Map<String, Value>, integration: &Integration) -> Value {
        let mut config = self.config;
        if given.get("revocation_url").or_else(|| config.get("revocation_url")).is_none_or(Value::is_null) {
            config.retain(|field, _| !integration::OF_REVOCATIONS.contains(&field.as_str()));
            if let Some(Value::Object(names)) = config.get_mut("param_names") {
                names.remove(RequestKind::Revoke.as_str());
            }
        }
        config.insert("integration_id".to_owned(), integration.as_str().into());
        config.extend(given);
        // A field that is given as null is absent, also if the profile has it.
        config.retain(|_, value| !value.is_null());
        // Without scopes the provider decides what it grants.
        config.entry("scopes").or_insert_with(|| "".into());
        Value::Object(config)
    }

    /// Returns the config of an example app with this profile.
    pub(crate) fn example(&self, rules: UrlRules) -> Result<IntegrationOauthConfig, ConfigError> {
        self.example_with(Map::new(), rules)
    }

    fn example_with(&self, more: Map<String, Value>, rules: UrlRules) -> Result<IntegrationOauthConfig, ConfigError> {
        let mut given = Map::from_iter(
            [
                ("provider", self.id.as_str()),
                ("client_id", "client-id"),
                ("client_secret", "client-secret"),
                ("redirect_url", "https://hub.example/hub/integrations/oauth-callback"),
            ]
            .map(|(name, value)| (name.to_owned(), Value::from(value))),
        );
        if self.config.get("token_auth_method").and_then(Value::as_str) == Some("signed_client_secret") {
            given.insert("client_key".to_owned(), EXAMPLE_KEY.into());
            given.insert("client_assertion_iss".to_owned(), "issuer".into());
        }
        given.extend(more);
        let config = self.clone().config(given, &self.id);
        integration::parse_value(config, &self.id, rules)
    }
}

impl About {
    /// Takes the fields for people.
    fn take(fields: &mut Map<String, Value>) -> Result<Self, InvalidProfile> {
        let documentation = take(fields, "documentation", "a URL or a list of URLs")?;
        Ok(Self {
            verified: take(fields, "verified", "documentation or unconfirmed")?,
            unconfirmed: take(fields, "unconfirmed", "a list of fields")?.unwrap_or_default(),
            documentation: match documentation {
                Some(Pages::One(page)) => vec![page],
                Some(Pages::More(pages)) => pages,
                None => Vec::new(),
            },
            read_on: take(fields, "read_on", "a date such as \"2026-11-29\"")?,
            app_url: take(fields, "app_url", LINK)?,
            redirect_url_field: take(fields, "redirect_url_field", "a string")?,
            setup: take(fields, "setup", "a string")?,
            ask: take(fields, "ask", ASK)?.unwrap_or_default(),
            common_scopes: take(fields, "common_scopes", "a table of scopes, each with a string")?.unwrap_or_default(),
        })
    }
}

impl About {
    /// The program shows links, and pages may lead to them.
    fn check_links(&self) -> Result<(), InvalidProfile> {
        let is_link = |url: &Url| {
            matches!(url.scheme(), "https" | "http") && url.username().is_empty() && url.password().is_none()
        };
        let expected = LINK;
        if !self.documentation.iter().all(is_link) {
            return Err(InvalidProfile::About { field: "documentation", expected });
        }
        match &self.app_url {
            Some(url) if !is_link(url) => Err(InvalidProfile::About { field: "app_url", expected }),
            Some(_) | None => Ok(()),
        }
    }

    fn check_ask(&self, fields: &Map<String, Value>) -> Result<(), InvalidProfile> {
        let variables = fields.get("variables").and_then(Value::as_object);
        let are_variables = self.ask.keys().all(|name| variables.is_some_and(|variables| variables.contains_key(name)));
        if are_variables { Ok(()) } else { Err(InvalidProfile::About { field: "ask", expected: ASK }) }
    }

    /// `unconfirmed` may name a part of a field, such as `identity.label`. `fields` are those of a config.
    fn check_verified(&self, fields: &Map<String, Value>) -> Result<(), InvalidProfile> {
        let expected = match (self.verified, self.unconfirmed.is_empty()) {
            (Some(Verified::Documentation), false) => "unconfirmed, as the file lists fields in `unconfirmed`",
            (Some(Verified::Unconfirmed), true) => {
                "documentation, or the file must list the open fields in `unconfirmed`"
            }
            (None, false) => "unconfirmed beside `unconfirmed`",
            (Some(Verified::Documentation) | None, true) | (Some(Verified::Unconfirmed), false) => "",
        };
        if !expected.is_empty() {
            return Err(InvalidProfile::About { field: "verified", expected });
        }
        let is_there = |name: &str| self.has(name) || depth(fields, name) == name.split('.').count();
        match self.unconfirmed.iter().find(|name| !is_there(name)) {
            Some(name) => Err(InvalidProfile::Unconfirmed(integration::printable(name))),
            None => Ok(()),
        }
    }

    /// Returns true if the profile has this field for people.
    fn has(&self, name: &str) -> bool {
        match name {
            "app_url" => self.app_url.is_some(),
            "redirect_url_field" => self.redirect_url_field.is_some(),
            "setup" => self.setup.is_some(),
            "common_scopes" => !self.common_scopes.is_empty(),
            _ => false,
        }
    }
}

/// Returns how many names of a path lead to a value.
pub(super) fn depth(fields: &Map<String, Value>, path: &str) -> usize {
    let mut names = path.split('.');
    let mut value = names.next().and_then(|name| fields.get(name));
    std::iter::from_fn(|| {
        let found = value?;
        value = names.next().and_then(|name| integration::value_at(found, name));
        Some(())
    })
    .count()
}

/// Returns true if a text or a name in the value has a hidden character. People read all of them.
fn has_hidden(value: &Value) -> bool {
    match value {
        Value::String(text) => foreign_text::has_hidden(text),
        Value::Array(values) => values.iter().any(has_hidden),
        Value::Object(fields) => fields.iter().any(|(name, value)| foreign_text::has_hidden(name) || has_hidden(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Takes a field, if it is there.
fn take<T: DeserializeOwned>(
    fields: &mut Map<String, Value>,
    field: &'static str,
    expected: &'static str,
) -> Result<Option<T>, InvalidProfile> {
    let Some(value) = fields.remove(field) else { return Ok(None) };
    if has_hidden(&value) {
        let expected =
            "without control characters, invisible characters and characters that change the direction of text";
        return Err(InvalidProfile::About { field, expected });
    }
    serde_json::from_value(value).map(Some).or(Err(InvalidProfile::About { field, expected }))
}
