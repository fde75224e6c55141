//! The endpoints and the client that issued a grant. Its tokens are sent only there, even after the config changes:
//! otherwise an admin could collect tokens by changing a URL.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use super::check::templates;
use super::{ConfigError, IntegrationOauthConfig, expand, template};

/// Where a grant was issued; stored with the connection. URLs have their variables filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedAt {
    pub token_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_url: Option<String>,
    pub client_id: String,
    /// The login's variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

impl<T> IntegrationOauthConfig<T> {
    /// Returns the endpoints and the client of a grant that this config requests with these variables. A variable
    /// without a value takes its default.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] if a variable is unknown or missing, or if its value doesn't match the pattern.
    pub(crate) fn issued_at(&self, values: &BTreeMap<String, String>) -> Result<IssuedAt, ConfigError> {
        let variables = template::resolve_values(&self.variables, values)?;
        let filled = |url: &String| expand(url, &self.variables, &variables);
        Ok(IssuedAt {
            token_url: filled(&self.token_url)?,
            refresh_url: self.refresh_url.as_ref().map(filled).transpose()?,
            revocation_url: self.revocation_url.as_ref().map(filled).transpose()?,
            client_id: self.client_id.clone(),
            variables,
        })
    }

    /// Checks the hosts that a new login's variables choose. A grant that exists keeps its hosts, also when a later release
    /// knows more public suffixes.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] if a variable chooses a name directly under a public suffix.
    pub(crate) fn check_hosts(&self, values: &BTreeMap<String, String>) -> Result<(), ConfigError> {
        let problem = "must not choose a name directly under a public suffix";
        for (_, url) in templates(self) {
            template::check_host(url, &self.variables, Some(values))
                .map_err(|open| ConfigError::Variable { name: open.variable.to_owned(), problem })?;
        }
        Ok(())
    }

    /// Returns true if this config's endpoints and client issued the grant, so that it may be refreshed with this
    /// config. The revocation endpoint may differ: see [`Self::may_revoke`].
    #[must_use]
    pub(crate) fn is_issuer_of(&self, grant: &IssuedAt) -> bool {
        self.issued_at(&grant.variables)
            .is_ok_and(|ours| ours == IssuedAt { revocation_url: ours.revocation_url.clone(), ..grant.clone() })
    }

    /// Returns true if the grant's tokens may be sent to this config's revocation endpoint: it is the endpoint that the
    /// config had when it issued the grant, or it has the origin of the token endpoint that issued it.
    #[must_use]
    pub(crate) fn may_revoke(&self, grant: &IssuedAt) -> bool {
        let origin = |url: &str| Url::parse(url).ok().map(|url| url.origin());
        let Ok(IssuedAt { revocation_url: Some(url), .. }) = self.issued_at(&grant.variables) else { return false };
        let is_unchanged = grant.revocation_url.as_ref() == Some(&url);
        self.is_issuer_of(grant) && (is_unchanged || origin(&url) == origin(&grant.token_url))
    }
}
