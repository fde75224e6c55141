//! A provider with several modes of answers, and requests whose error answers are kept for the search.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::ask::{Answer, ask};
use crate::jwt_nats::Tenants;
use crate::marks::Marks;
use crate::provider::{Provider, Received, Scripted};
use crate::world::{World, state_of};

pub(crate) const CODE: &str = "canary-code/+1";
pub(crate) const ACCESS: &str = "canary-access-token/+2";
pub(crate) const REFRESH: &str = "canary-refresh-token/+3";
pub(crate) const SECRET: &str = "canary-client-secret/+4";
pub(crate) const BASIC: &str = "canary-basic-secret/+5";
pub(crate) const NEXT: &str = "canary-next-secret/+6";
/// Shared secret of ordinary JWTs.
pub(crate) const JWT_SECRET: &str = "canary-secret-of-ordinary-JWTs/+7";
pub(crate) const ISSUER: &str = "https://sso.example";
/// Signing secret of webhooks, and the secret part of the receiver's URL.
pub(crate) const HOOK_SECRET: &str = "canary webhook secret, 32 bytes.";
pub(crate) const HOOK: &str = "canary-path-of-the-receiver";
/// Values that no flow accepts.
pub(crate) const STRANGE: [(&str, &str); 6] = [
    ("strange key", "tb_0123456789ab_canary-strange-key-of-43-characters-as-they-are"),
    ("malformed key", "tb_canary-malformed-key"),
    ("strange token", "eyJhbGciOiJub25lIn0.canary-strange-claims.canary-strange-signature"),
    ("strange state", "canary-strange-state"),
    ("strange cookie", "canary-strange-cookie"),
    ("strange ticket", "canary-strange-ticket"),
];
/// The provider's answers, each with the resulting status of a login.
pub(crate) const MODES: [(&str, u16); 8] = [
    ("tokens", 200),
    ("garbage", 502),
    ("broken", 502),
    ("huge", 502),
    ("echo", 400),
    ("named", 400),
    ("client", 502),
    ("page", 502),
];

/// The provider repeats every value it received and issued, in each kind of invalid answer.
fn scripted(number: usize, mode: &str, received: &Received) -> Scripted {
    let Received { method: _, path: _, query: _, authorization, headers: _, content_type: _, body } = received;
    let all = format!("{body} {} {ACCESS} {REFRESH}", authorization.as_deref().unwrap_or_default());
    match mode {
        _ if is_hook(received) => Scripted::new(if number.is_multiple_of(3) { 500 } else { 204 }, "text/plain", all),
        "garbage" => Scripted::new(200, "application/json", format!("{{\"access_token\": \"{ACCESS}\", {all}")),
        "broken" => Scripted::json(500, &json!({ "access_token": ACCESS, "refresh_token": REFRESH, "error": all })),
        "huge" => Scripted::json(200, &json!({ "access_token": ACCESS, "more": all.repeat(2_000) })),
        "echo" => Scripted::json(400, &json!({ "error": "invalid_grant", "error_description": all, "error_uri": all })),
        "named" => Scripted::json(400, &json!({ "error": ACCESS, "error_description": all })),
        "client" => Scripted::json(401, &json!({ "error": "invalid_client", "error_description": all })),
        "page" => Scripted::new(200, "text/html", format!("<html><title>{all}</title></html>")),
        _ => Scripted::json(
            200,
            &json!({ "access_token": ACCESS, "refresh_token": REFRESH, "expires_in": 3600, "id_token": all }),
        ),
    }
}

/// Returns true if the event is sent to the webhook.
pub(crate) fn is_hook(received: &Received) -> bool {
    received.path.ends_with(HOOK)
}

/// The world, its provider's mode, and all answers that must not contain a secret.
pub(crate) struct Flows {
    pub(crate) world: World,
    pub(crate) shown: Vec<u8>,
    /// The answers to nodes' calls on the bus.
    pub(crate) nodes: Vec<u8>,
    pub(crate) tenants: Tenants,
    /// States and other secrets collected on the way.
    pub(crate) marks: Marks,
    mode: Arc<Mutex<&'static str>>,
}

impl Flows {
    pub(crate) async fn start() -> Self {
        let mode = Arc::new(Mutex::new("tokens"));
        let mood = Arc::clone(&mode);
        let provider = Provider::start(move |number, received| scripted(number, *mood.lock().unwrap(), received)).await;
        let tenants = Tenants::new();
        let of_tenants = tenants.settings();
        let hook = format!("{}/{HOOK}", provider.url);
        let hook_secret = format!("whsec_{}", BASE64_STANDARD.encode(HOOK_SECRET));
        let mut settings = vec![
            ("LOG__FILTER", "trace"),
            ("REFRESH__MIN_INTERVAL", "1ms"),
            ("EVENTS__READS_INTERVAL", "1s"),
            ("OAUTH__RETURN_TO", "[\"https://app.example\"]"),
            ("AUTH__JWT__ISSUER", ISSUER),
            ("AUTH__JWT__AUDIENCE", "tokenbus"),
            ("AUTH__JWT__SECRET", JWT_SECRET),
            ("WEBHOOKS__URL", &hook),
            ("WEBHOOKS__SECRET", &hook_secret),
            ("WEBHOOKS__EVENTS", "[connected, refreshed, refresh_failed, exchange_failed, read, revoked, config_put]"),
        ];
        settings.extend(of_tenants.iter().map(|(name, value)| (*name, value.as_str())));
        let world = World::with_settings(provider, &settings).await;
        Self { world, shown: Vec::new(), nodes: Vec::new(), tenants, marks: Marks::default(), mode }
    }

    pub(crate) fn set_mode(&self, mode: &'static str) {
        *self.mode.lock().unwrap() = mode;
    }

    /// Sends a request and records its answer, unless it is a success in JSON, which may contain a token.
    pub(crate) async fn ask(&mut self, request: RequestBuilder) -> Answer {
        let answer = ask(request).await;
        if answer.status >= 400 || answer.header("content-type").starts_with("text/html") {
            self.shown.extend(format!("{:?}\n{}\n", answer.headers, answer.text).into_bytes());
        }
        answer
    }

    /// Adds an output to the places to search.
    pub(crate) fn show(&mut self, name: &str, text: &str) {
        self.shown.extend(format!("{name}: {text}\n").into_bytes());
    }

    pub(crate) fn with_key(&self, method: Method, path: &str) -> RequestBuilder {
        let tokenbus = &self.world.tokenbus;
        tokenbus.request(method, &format!("hub/integrations/{path}")).header("x-api-key", &tokenbus.key)
    }

    pub(crate) async fn get(&mut self, path: &str, status: u16) -> Answer {
        let request = self.with_key(Method::GET, path);
        let answer = self.ask(request).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        answer
    }

    pub(crate) async fn put(&mut self, integration: &str, config: &Value) -> u16 {
        let path = format!("hub/integrations/{integration}/oauth-config");
        let tokenbus = &self.world.tokenbus;
        let request = tokenbus.request(Method::PUT, &path).header("x-api-key", &tokenbus.admin_key).json(config);
        self.ask(request).await.status
    }

    /// Begins a login; its state is one more secret.
    pub(crate) async fn login(&mut self, path: &str) -> String {
        let body = self.get(path, 200).await.json();
        let state = state_of(&body["oauth_url"]);
        self.marks.add("state", &state);
        state
    }

    pub(crate) fn callback(&self, query: &[(&str, &str)], html: bool) -> RequestBuilder {
        let mut path = "hub/integrations/oauth-callback?".to_owned();
        path.push_str(&url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish());
        let accept = if html { "text/html" } else { "application/json" };
        self.world.tokenbus.request(Method::GET, &path).header("accept", accept)
    }

    pub(crate) async fn connect(&mut self, integration: &str, connection: &str, html: bool) -> u16 {
        let path = format!("{integration}/oauth-login/{connection}?return_to=https://app.example/done");
        let state = self.login(&path).await;
        let request = self.callback(&[("code", CODE), ("state", &state), ("session_state", CODE)], html);
        self.ask(request).await.status
    }
}
