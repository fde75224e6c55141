//! Requests to a provider's API that follow a login: `upgrade`, `identity` and `metadata_request`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{ConfigError, IntegrationOauthConfig, Method, Paths, Placeholders};

/// A request that carries the new access token, by default as `Authorization: Bearer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ApiRequest {
    /// May contain `${variable}`s.
    pub url: String,
    #[serde(default = "get")]
    pub method: Method,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Query of a GET, form of a POST.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// JSON body of a POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Map<String, Value>>,
    /// Parameter for the access token, for APIs that read it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_param: Option<String>,
}

fn get() -> Method {
    Method::Get
}

impl ApiRequest {
    /// Returns true if a header, a parameter or the body has the variable.
    pub(super) fn has_placeholder(&self, name: &str) -> bool {
        let placeholder = format!("${{{name}}}");
        let is_in = |texts: &BTreeMap<String, String>| texts.values().any(|text| text.contains(&placeholder));
        let is_in_body = self.body.as_ref().is_some_and(|body| json!(body).to_string().contains(&placeholder));
        is_in(&self.headers) || is_in(&self.params) || is_in_body
    }
}

/// Place of the identity in the provider's answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdentityRule {
    /// Answers with the identity. Without it, the paths lead into the claims of the `id_token` if an issuer is expected,
    /// otherwise into the token answer.
    #[serde(flatten)]
    pub request: Option<ApiRequest>,
    /// Expected `iss` of the `id_token`; the config's `issuer` when absent. `{claim}` stands for a claim of the same token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The provider's unchanging id of the account.
    pub id: Paths,
    /// A name for people, such as an e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Paths>,
}

/// Facts that the token answer lacks, such as the ids of tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MetadataRequest {
    /// Answers with the facts. Without it, the paths lead into the claims of the `id_token` that has the identity.
    #[serde(flatten)]
    pub request: Option<ApiRequest>,
    /// Dot paths of the values that become metadata.
    pub paths: Vec<String>,
}

/// The requests that follow a login, as the config had them at that login. A connection keeps them, so that a later config
/// cannot send its access token elsewhere. Boxed, because few connections have any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginRequests {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upgrade: Option<Box<ApiRequest>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<Box<IdentityRule>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<Box<MetadataRequest>>,
}

impl LoginRequests {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ApiRequest {
    /// Returns true if a parameter or the body holds the client secret.
    pub(crate) fn sends_client_secret(&self) -> bool {
        let body = self.body.iter().map(|body| json!(body).to_string());
        self.params.values().cloned().chain(body).any(|text| text.contains("${client_secret}"))
    }
}

impl<T> IntegrationOauthConfig<T> {
    /// Returns true if a login with these variables makes this request.
    pub(crate) fn has_request(&self, request: &ApiRequest, variables: &BTreeMap<String, String>) -> bool {
        self.login_requests(variables).is_ok_and(|present| {
            let identity = present.identity.as_ref().and_then(|rule| rule.request.as_ref());
            let metadata = present.metadata.as_ref().and_then(|rule| rule.request.as_ref());
            [present.upgrade.as_deref(), identity, metadata].into_iter().flatten().any(|it| it == request)
        })
    }

    /// Returns the config's own requests, each with its field.
    pub(super) fn api_requests(&self) -> impl Iterator<Item = (&'static str, &ApiRequest)> {
        let identity = self.identity.as_ref().and_then(|rule| rule.request.as_ref());
        let metadata = self.metadata_request.as_ref().and_then(|rule| rule.request.as_ref());
        let all =
            [("upgrade.url", self.upgrade.as_deref()), ("identity.url", identity), ("metadata_request.url", metadata)];
        all.into_iter().filter_map(|(field, request)| request.map(|request| (field, request)))
    }

    /// Returns the requests that follow a login with these variables.
    ///
    /// # Errors
    /// As [`Self::issued_at`].
    pub(super) fn login_requests(&self, values: &BTreeMap<String, String>) -> Result<LoginRequests, ConfigError> {
        let filled = |request: &ApiRequest| {
            let url = self.filled(&request.url, values)?;
            Ok(ApiRequest { url, ..request.clone() })
        };
        let identity = self.identity.as_ref().map(|rule| {
            let request = rule.request.as_ref().map(filled).transpose()?;
            let (scope, redirect_url, nonce, more): (_, _, _, &[_]) = ("", "", "", &[]);
            let placeholders = Placeholders { variables: values, scope, redirect_url, nonce, more };
            let issuer = rule.issuer.as_ref().map(|issuer| placeholders.fill(issuer).into_owned());
            Ok(Box::new(IdentityRule { request, issuer, ..(**rule).clone() }))
        });
        // Claims are read at the login only, so a connection need not keep their paths.
        let metadata = self.metadata_request.as_ref().filter(|rule| rule.request.is_some()).map(|rule| {
            let request = rule.request.as_ref().map(filled).transpose()?;
            Ok(Box::new(MetadataRequest { request, ..(**rule).clone() }))
        });
        Ok(LoginRequests {
            upgrade: self.upgrade.as_ref().map(|request| filled(request).map(Box::new)).transpose()?,
            identity: identity.transpose()?,
            metadata: metadata.transpose()?,
        })
    }

    /// Returns the expected issuer of the ID token that says whose account a connection is; `None` if no ID token does.
    pub(crate) fn id_token_issuer(&self) -> Option<&str> {
        let rule = self.identity.as_ref().filter(|rule| rule.request.is_none())?;
        rule.issuer.as_deref().or(self.issuer.as_deref())
    }
}

/// The logins that may replace a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reconnect {
    #[default]
    Any,
    /// Only logins of the same identity.
    SameIdentity,
}
