//! Authorization requests compared with those of another client: the npm package `grant`, which knows the endpoints and the
//! odd parameters of 191 OAuth 2 providers.

use crate::parts::install;
use crate::support::tokenbus::Tokenbus;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use tokio::process::Command;
use url::Url;

/// Digits: by them `grant` recognises the apps of one provider that call this parameter `app_id`.
const CLIENT_ID: &str = "12345";
const SUBDOMAIN: &str = "acme";
const HOST: &str = "login.acme.example";
/// Its request has another `response_type`, and its token endpoint takes the client secret as an assertion.
const NOT_OAUTH: &str = "visualstudio";

/// A provider as the package describes it.
#[derive(Deserialize)]
struct Known {
    name: String,
    authorize_url: String,
    access_url: String,
    scope_delimiter: Option<String>,
    /// The authorization URL that the package makes.
    url: Url,
}

#[tokio::test]
async fn authorization_urls_are_those_of_another_client() {
    let tokenbus = Tokenbus::start(&[]).await;
    let known = known(&tokenbus.callback()).await;
    let mut different = Vec::new();
    for provider in &known {
        tokenbus.configure(&provider.config(&tokenbus.callback())).await;
        let made = tokenbus.login(&provider.name, "one").await;
        if parts(&made) != parts(&provider.url) {
            different.push(format!("{}\n  here:  {made}\n  grant: {}", provider.name, provider.url));
        }
    }
    let is_expected = |difference: &String| difference.starts_with(NOT_OAUTH);
    assert!(different.len() == 1 && different.iter().all(is_expected), "{}", different.join("\n"));
    assert_eq!(known.len(), 191, "OAuth 2 providers in grant 5.4.24");
    // Straight to the terminal: the harness hides the output of a passing test.
    let _ = writeln!(
        std::io::stderr(),
        "grant: {} of {} authorization URLs agree; {NOT_OAUTH}'s is no OAuth 2 request",
        known.len() - different.len(),
        known.len()
    );
}

/// All OAuth 2 providers of the package.
async fn known(callback: &str) -> Vec<Known> {
    let script = install::provider().join("authorize.mjs");
    let request = json!({
        "client_id": CLIENT_ID, "redirect_uri": callback, "scopes": ["read", "write"], "subdomain": SUBDOMAIN,
        "host": HOST,
    });
    let output = Command::new("node").arg(script).arg(request.to_string()).output().await.expect("node starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a list of providers")
}

impl Known {
    /// A config made from the package's fields, with the odd parameters that its code has for some providers.
    fn config(&self, callback: &str) -> Value {
        // The package sends this separator unencoded, so the provider reads a space.
        let separator = self.scope_delimiter.as_deref().unwrap_or(",").replace('+', " ");
        let mut config = json!({
            "integration_id": self.name, "name": self.name, "scopes": "read,write", "client_id": CLIENT_ID,
            "client_secret": "s", "auth_url": filled(&self.authorize_url), "token_url": filled(&self.access_url),
            "redirect_url": callback, "scope_separator": separator,
        });
        if format!("{}{}", config["auth_url"], config["token_url"]).contains("${subdomain}") {
            let is_shared = self.authorize_url.contains("].myshopify.com/");
            let variable = json!({ "pattern": "[a-z0-9-]+", "default": SUBDOMAIN, "shared_suffix": is_shared });
            config["variables"] = json!({ "subdomain": variable });
        }
        match self.name.as_str() {
            "basecamp" => config["auth_params"] = json!({ "type": "web_server" }),
            "freelancer" => config["param_names"] = json!({ "scope": "advanced_scopes" }),
            "instagram" => {
                config["param_names"] = json!({ "client_id": "app_id" });
                config["scope_separator"] = json!(",");
            }
            "optimizely" => config["param_names"] = json!({ "scope": "scopes" }),
            "tiktok" => config["param_names"] = json!({ "client_id": "client_key" }),
            "wechat" => config["param_names"] = json!({ "client_id": "appid" }),
            _ => {}
        }
        config
    }
}

/// A URL of the package as a config has it. A whole host per customer is another config per customer.
fn filled(url: &str) -> String {
    url.replace("//[subdomain]/", &format!("//{HOST}/")).replace("[subdomain]", "${subdomain}")
}

/// Origin, path and parameters, without the values that are random.
fn parts(url: &Url) -> (String, String, BTreeMap<String, Vec<String>>) {
    let mut params: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        let value = if ["state", "code_challenge"].contains(&&*name) { "random".into() } else { value };
        params.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    (url.origin().ascii_serialization(), url.path().to_owned(), params)
}
