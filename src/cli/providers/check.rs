//! `providers check`: validates a profile's file, and builds the requests of an example app with it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::cli::input::pairs;
use crate::cli::print::{note, print_line};
use crate::integration::{
    ApiRequest, IntegrationOauthConfig, LoginRequests, Method, Pkce, Placeholders, RequestKind, TokenKind, Variable,
    printable,
};
use crate::oauth::authorization::{AuthorizationRequest, request_url};
use crate::oauth::token::{
    ClientAuthentication, CodeGrant, RefreshGrant, Revocation, exchange_request, refresh_request, revocation_request,
};
use crate::oauth::{HttpRequest, api_request};
use crate::provider::profiles::{Profiles, read_file};
use crate::secret::Secret;
use crate::subject::Integration;
use crate::system;

/// Unique for each request of a real login.
const NONCE: &str = "NONCE";
const ACCESS_TOKEN: &str = "ACCESS-TOKEN";

/// A request with its purpose.
struct Example {
    purpose: &'static str,
    request: HttpRequest,
}

/// What a valid file makes an example app send.
enum Checked {
    /// Some variables have no value, so no request can be built. The flags set them.
    ValuesMissing(Vec<String>),
    Requests(Vec<Example>),
}

pub(super) async fn run(profiles: Profiles<'_>, file: &Path, vars: &[String], json: bool) -> anyhow::Result<()> {
    let path = file.display();
    match (check(profiles, file, vars).await?, json) {
        (Checked::ValuesMissing(flags), _) => {
            let text = format!("{path} is valid. To see its requests, pass {}", flags.join(" and "));
            // Each line of JSON is a request, so standard output stays empty.
            if json {
                note(&text);
                return Ok(());
            }
            print_line(&text)
        }
        (Checked::Requests(examples), true) => {
            examples.iter().try_for_each(|example| print_line(&example.json().to_string()))
        }
        (Checked::Requests(examples), false) => {
            print_line(&format!("{path} is valid. With it an example app sends:"))?;
            examples.iter().try_for_each(|example| print_line(&format!("\n{}", example.text())))
        }
    }
}

async fn check(profiles: Profiles<'_>, file: &Path, vars: &[String]) -> anyhow::Result<Checked> {
    let id = file.file_name().and_then(|name| name.to_str()?.strip_suffix(".toml"));
    let id = id.and_then(|id| Integration::parse(id).ok());
    let id = id.context(
        "the file must be named `<id>.toml`, with an id of 1 to 64 letters, digits, `_` or `-` that begins with a letter or \
         digit, and not with `oauth-`",
    )?;
    let text = read_file(file).await.map_err(anyhow::Error::from).and_then(|text| text.context("no such file"));
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let profile = profiles.parse(&id, &text).await?;
    let config = profile.example(profiles.rules())?;
    let mut variables = pairs(vars).context("--var")?;
    if let Some(name) = variables.keys().find(|name| !config.variables.contains_key(*name)) {
        let known: Vec<&str> = config.variables.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "no variables".to_owned() } else { format!("only {}", known.join(", ")) };
        bail!("--var {}: the profile has {known}", printable(name));
    }
    let flags: Vec<String> =
        config.variables.iter().filter_map(|(name, it)| missing(name, it, &mut variables)).collect();
    if !flags.is_empty() {
        return Ok(Checked::ValuesMissing(flags));
    }
    examples(&config, &variables).map(Checked::Requests)
}

/// Returns the flag that sets a variable, unless there is a value for an example: one that is given, the default, or the
/// first of the values.
fn missing(name: &str, variable: &Variable, given: &mut BTreeMap<String, String>) -> Option<String> {
    if given.contains_key(name) || variable.default.is_some() {
        return None;
    }
    if let Some(value) = variable.values.first() {
        given.insert(name.to_owned(), value.clone());
        return None;
    }
    let pattern = variable.pattern.as_deref().unwrap_or_default();
    Some(format!("`--var {name}=<value>` (the value matches `{pattern}`)"))
}

/// Builds the requests in the order of a connection's life.
fn examples(config: &IntegrationOauthConfig, variables: &BTreeMap<String, String>) -> anyhow::Result<Vec<Example>> {
    let issued_at = config.issued_at(variables).context("pass each variable as `--var <name>=<value>`")?;
    config.check_new_values(&issued_at.variables)?;
    let variables = &issued_at.variables;
    let authentication = |kind| {
        let authentication = ClientAuthentication::of(config, kind, 0, variables, system::now(), NONCE)?;
        authentication.context("the profile has no client authentication")
    };
    let scope = &config.scope_text(&config.scopes());
    let [state, code, verifier, token] =
        ["STATE", "CODE", "CODE-VERIFIER", "REFRESH-TOKEN"].map(|text| Secret::new(text.to_owned()));
    let uses_pkce = config.pkce == Pkce::S256;
    let code_challenge = uses_pkce.then(|| "CODE-CHALLENGE".to_owned());
    let authorization =
        request_url(config, &AuthorizationRequest { state: &state, code_challenge, scope, variables, nonce: NONCE })?;
    let grant = CodeGrant { code: &code, verifier: uses_pkce.then_some(&verifier), variables, scope, nonce: NONCE };
    let exchange = exchange_request(config, &grant, &authentication(RequestKind::Token)?)?;
    let grant = RefreshGrant { refresh_token: &token, issued_at: &issued_at, scope, nonce: NONCE };
    let refresh = refresh_request(config, &grant, &authentication(RequestKind::Refresh)?)?;
    let access_token = Secret::new(ACCESS_TOKEN.to_owned());
    let of_refresh = config.revokes(TokenKind::RefreshToken).then_some((&token, TokenKind::RefreshToken));
    let (revoked, hint) = of_refresh.unwrap_or((&access_token, TokenKind::AccessToken));
    let revocation = Revocation { token: revoked, hint, issued_at: &issued_at, scope };
    let of_revoke = authentication(RequestKind::Revoke)?;
    let revoke = |_: &String| revocation_request(config, &revocation, NONCE, &of_revoke);
    let revocation = config.revocation_url.as_ref().map(revoke).transpose()?;
    let browser = HttpRequest { method: Method::Get, url: authorization, headers: Vec::new(), body: None };
    let (secret, redirect_url) = (config.client_secret.expose(), config.redirect_url.as_str());
    let more = [("access_token", ACCESS_TOKEN), ("client_id", config.client_id.as_str()), ("client_secret", secret)];
    let placeholders = Placeholders { variables, scope, redirect_url, nonce: NONCE, more: &more };
    let call = |api: &ApiRequest| api_request(api, &config.token_headers, &access_token, &placeholders);
    let LoginRequests { upgrade, identity, metadata } = &issued_at.requests;
    let sent = [
        ("authorization, in the browser", Some(browser)),
        ("tokens for a code", Some(exchange)),
        ("upgrade", upgrade.as_deref().and_then(call)),
        ("identity", identity.as_ref().and_then(|rule| rule.request.as_ref()).and_then(call)),
        ("metadata", metadata.as_ref().and_then(|rule| rule.request.as_ref()).and_then(call)),
        ("refresh", Some(refresh)),
        ("revocation", revocation),
    ];
    Ok(sent.into_iter().filter_map(|(purpose, request)| Some(Example { purpose, request: request? })).collect())
}

impl Example {
    fn method(&self) -> &'static str {
        self.request.method.as_str()
    }

    /// Header names and values. An example has no real secrets.
    fn headers(&self) -> Vec<(&str, &str)> {
        let HttpRequest { headers, body, .. } = &self.request;
        let content_type = body.as_ref().map(|body| ("content-type", body.content_type));
        headers.iter().map(|(name, value)| (name.as_ref(), value.expose())).chain(content_type).collect()
    }

    fn json(&self) -> Value {
        let headers: BTreeMap<_, _> = self.headers().into_iter().collect();
        let body = self.request.body.as_ref().map(|body| body.text.expose());
        json!({
            "purpose": self.purpose, "method": self.method(), "url": self.request.url.as_str(), "headers": headers,
            "body": body,
        })
    }

    /// Renders the request for people, with a line for each parameter.
    fn text(&self) -> String {
        let mut url = self.request.url.clone();
        url.set_query(None);
        let mut lines = vec![format!("{}: {} {url}", self.purpose, self.method())];
        lines.extend(self.request.url.query_pairs().map(|(name, value)| format!("  ?{name}={value}")));
        lines.extend(self.headers().into_iter().map(|(name, value)| format!("  {name}: {value}")));
        let body = self.request.body.as_ref();
        if let Some(body) = body.filter(|body| body.content_type == "application/json") {
            lines.push(format!("  {}", body.text.expose()));
        } else if let Some(body) = body {
            let params = form_urlencoded::parse(body.text.expose().as_bytes());
            lines.extend(params.map(|(name, value)| format!("  {name}={value}")));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_built_in_file_is_valid_with_or_without_values_of_its_variables() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/providers");
        let (mut open, mut shown) = (Vec::new(), 0);
        for entry in std::fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().path();
            match check(Profiles::default(), &file, &[]).await {
                Ok(Checked::ValuesMissing(flags)) => open.extend(flags),
                Ok(Checked::Requests(requests)) => shown += usize::from(requests.len() > 2),
                Err(error) => panic!("{}: {error:#}", file.display()),
            }
        }
        assert!(shown > 100 && open.iter().all(|flag| flag.starts_with("`--var ")), "{shown}: {open:?}");
    }
}
