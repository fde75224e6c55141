//! The endpoints and the client that issued a grant. Its tokens are sent only to the URLs of these endpoints, even after the
//! config changes: otherwise an admin could collect tokens by changing a URL. The path counts too, because many providers
//! have APIs at the origin of their token endpoint that show a request's content to the owner of an account.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use super::check::all_urls;
use super::{ConfigError, IntegrationOauthConfig, LoginRequests, Placeholders, expand, template};

/// Where a grant was issued; stored with the connection. URLs have their variables filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedAt {
    pub token_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_url: Option<String>,
    pub client_id: String,
    /// Several realms can share an origin; the issuer tells them apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The login's variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "LoginRequests::is_empty")]
    pub requests: LoginRequests,
}

impl<T> IntegrationOauthConfig<T> {
    /// Returns the endpoints and the client of a grant that this config requests with these variables. A variable
    /// without a value takes its default.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] if a variable is unknown or missing, or if its value doesn't match the pattern.
    pub(crate) fn issued_at(&self, values: &BTreeMap<String, String>) -> Result<IssuedAt, ConfigError> {
        self.endpoints_with(self.resolve(values, false)?)
    }

    /// Does the same at the beginning of a login. A URL with a variable that the callback has yet to set stays a template.
    ///
    /// # Errors
    /// As [`Self::issued_at`].
    pub(crate) fn issued_at_login(&self, values: &BTreeMap<String, String>) -> Result<IssuedAt, ConfigError> {
        self.endpoints_with(self.resolve(values, true)?)
    }

    fn endpoints_with(&self, variables: BTreeMap<String, String>) -> Result<IssuedAt, ConfigError> {
        let filled = |url: &String| self.filled(url, &variables);
        Ok(IssuedAt {
            token_url: filled(&self.token_url)?,
            refresh_url: self.refresh_url.as_ref().map(filled).transpose()?,
            revocation_url: self.revocation_url.as_ref().map(filled).transpose()?,
            client_id: self.client_id.clone(),
            issuer: self.issuer_for(&variables),
            requests: self.login_requests(&variables)?,
            variables,
        })
    }

    /// Fills in a URL. With a variable that has no value yet it stays a template.
    pub(super) fn filled(&self, url: &str, variables: &BTreeMap<String, String>) -> Result<String, ConfigError> {
        let is_open = |name: &&str| self.variables.contains_key(*name) && !variables.contains_key(*name);
        let is_open = template::variable_names(url).iter().any(is_open);
        if is_open { Ok(url.to_owned()) } else { expand(url, &self.variables, variables) }
    }

    /// # Errors
    /// [`ConfigError::Variable`] if a variable chooses a name directly under a public suffix.
    pub(super) fn check_hosts(&self, values: &BTreeMap<String, String>) -> Result<(), ConfigError> {
        let problem = "must not choose a name directly under a public suffix";
        let is_known = |name: &&str| values.contains_key(*name) || !self.variables.contains_key(*name);
        for (_, url) in all_urls(self).filter(|(_, url)| template::variable_names(url).iter().all(is_known)) {
            template::check_host(url, &self.variables, Some(values))
                .map_err(|open| ConfigError::Variable { name: open.variable, problem: problem.into() })?;
        }
        Ok(())
    }

    /// Returns true if this config has the endpoints and the client of a login, so that its code may be sent with this
    /// config. The revocation endpoint may differ.
    #[must_use]
    pub(crate) fn is_issuer_of(&self, login: &IssuedAt) -> bool {
        self.issued_at_login(&login.variables).is_ok_and(|ours| {
            let IssuedAt { revocation_url, issuer, .. } = ours.clone();
            ours == IssuedAt { revocation_url, issuer, ..login.clone() } && self.has_issuer_of(login)
        })
    }

    /// Returns the URL of the login for a refresh of the grant, if this config still has the login's client, issuer and origin.
    #[must_use]
    pub(crate) fn refresh_endpoint(&self, grant: &IssuedAt) -> Option<Url> {
        let url = self.refresh_url.as_ref().unwrap_or(&self.token_url);
        self.kept_url(url, grant, &[grant.refresh_url.as_ref(), Some(&grant.token_url)])
    }

    /// Returns the URL of the login for a revocation of the grant, under the same conditions.
    #[must_use]
    pub(crate) fn revocation_endpoint(&self, grant: &IssuedAt) -> Option<Url> {
        self.kept_url(self.revocation_url.as_ref()?, grant, &[grant.revocation_url.as_ref()])
    }

    /// Returns the kept URL that this config's URL stands for: the same one, else the first with its origin.
    fn kept_url(&self, url: &str, grant: &IssuedAt, kept: &[Option<&String>]) -> Option<Url> {
        if self.client_id != grant.client_id || !self.has_issuer_of(grant) {
            return None;
        }
        let url = template::endpoint_url(url, &self.variables, &grant.variables).ok()?;
        let kept = || kept.iter().flatten().filter_map(|kept| Url::parse(kept).ok());
        kept().find(|kept| *kept == url).or_else(|| kept().find(|kept| kept.origin() == url.origin()))
    }

    fn has_issuer_of(&self, grant: &IssuedAt) -> bool {
        grant.issuer.is_none() || self.issuer_for(&grant.variables) == grant.issuer
    }

    /// Returns the config's issuer with its variables filled in.
    pub(crate) fn issuer_for(&self, variables: &BTreeMap<String, String>) -> Option<String> {
        let (scope, redirect_url, nonce, more): (_, _, _, &[_]) = ("", "", "", &[]);
        let placeholders = Placeholders { variables, scope, redirect_url, nonce, more };
        self.issuer.as_ref().map(|issuer| placeholders.fill(issuer).into_owned())
    }
}

impl<T> IntegrationOauthConfig<T> {
    /// Adds what a grant of form 1 may lack: the endpoints and the issuer that the config has now.
    pub(crate) fn complete(&self, grant: IssuedAt) -> IssuedAt {
        let Ok(now) = self.issued_at(&grant.variables) else { return grant };
        IssuedAt {
            refresh_url: grant.refresh_url.or(now.refresh_url),
            revocation_url: grant.revocation_url.or(now.revocation_url),
            issuer: grant.issuer.or(now.issuer),
            ..grant
        }
    }
}

impl IssuedAt {
    /// Returns the token endpoint's origin; `None` in a tombstone, which has no endpoint.
    pub(crate) fn token_origin(&self) -> Option<String> {
        Url::parse(&self.token_url).ok().map(|url| url.origin().ascii_serialization())
    }
}
