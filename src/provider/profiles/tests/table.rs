//! The behaviour table: for each profile the requests that the provider's documentation demands, and the answers that it
//! shows (`tests/data/providers/<id>.json`). Requests are built and answers parsed by the functions that workers call.

mod behaviour;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value};
use url::Url;

use self::behaviour::{Answer, Behaviour, Exchange, Facts, OnlyRequest, ScopeNeed};
use self::request::params_of;
use super::{Profiles, id};
use crate::integration::{IntegrationOauthConfig, IssuedAt, Pkce, Placeholders, RequestKind, TokenKind, UrlRules};
use crate::oauth::authorization::{AuthorizationRequest, request_url};
use crate::oauth::callback::AuthorizationResponse;
use crate::oauth::token::{
    ClientAuthentication, CodeGrant, RefreshGrant, Response, Revocation, TokenError, exchange_request, plain_values,
    refresh_request, revocation_request,
};
use crate::oauth::{Identity, api_request};
use crate::secret::Secret;

const PROFILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/providers");
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/providers");

/// Code of answers of which the status alone says that a later try may succeed.
const TEMPORARY: &str = "temporarily_unavailable";

/// One profile's row of the table.
struct Row {
    config: IntegrationOauthConfig,
    behaviour: Behaviour,
    issued_at: IssuedAt,
    wrong: Vec<String>,
}

#[tokio::test]
async fn every_profile_makes_the_documented_requests_and_reads_the_documented_answers() {
    let mut wrong = Vec::new();
    // From the folder instead of the built-in texts, so that a change of a profile needs no other build.
    let profiles = Profiles { folder: Some(Path::new(PROFILES)), ..Profiles::default() };
    let ids = profiles.ids().await.unwrap();
    let files = std::fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let described: BTreeSet<_> = files.map(|path| id(path.file_stem().unwrap().to_str().unwrap())).collect();
    assert_eq!(difference(&ids, &described), None, "a profile and a row each");
    for id in ids {
        let text = std::fs::read_to_string(Path::new(FOLDER).join(format!("{id}.json"))).unwrap();
        let behaviour = match serde_json::from_str::<Behaviour>(&text) {
            Ok(behaviour) => behaviour,
            Err(error) => {
                wrong.push(format!("{id}: {error}"));
                continue;
            }
        };
        let profile = match profiles.find(id.as_str()).await {
            Ok(profile) => profile,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        let scopes = profile.config.get("scopes").and_then(Value::as_str);
        wrong.extend(behaviour.authorize.scope.problem(scopes).map(|problem| format!("{id}: {problem}")));
        let mut config = profile.example(UrlRules::default()).unwrap();
        if config.scopes.is_empty() {
            config.scopes = "one,two".to_owned();
        }
        match config.issued_at(&behaviour.variables) {
            Ok(issued_at) => {
                let mut row = Row { config, behaviour, issued_at, wrong: Vec::new() };
                row.check();
                wrong.extend(row.wrong.into_iter().map(|problem| format!("{id}: {problem}")));
            }
            Err(error) => wrong.push(format!("{id}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Describes what only one of two sets has; `None` if they are equal.
fn difference<T: Ord + std::fmt::Display>(ours: &BTreeSet<T>, theirs: &BTreeSet<T>) -> Option<String> {
    let listed = |one: &BTreeSet<T>, other: &BTreeSet<T>| {
        one.difference(other).map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    (ours != theirs).then(|| format!("has [{}] in addition, lacks [{}]", listed(ours, theirs), listed(theirs, ours)))
}

#[test]
fn only_the_difference_of_two_sets_is_shown() {
    let (ours, theirs) = (BTreeSet::from(["a", "b", "c"]), BTreeSet::from(["b", "c", "d"]));
    assert_eq!(difference(&ours, &theirs).as_deref(), Some("has [a] in addition, lacks [d]"));
    assert_eq!(difference(&ours, &ours), None);
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

/// The time of all answers.
fn now() -> Timestamp {
    "2026-11-29T12:00:00Z".parse().unwrap()
}

impl Row {
    fn check(&mut self) {
        self.check_authorization();
        self.check_callback();
        self.check_exchange();
        self.check_refresh();
        self.check_revocation();
        self.check_upgrade();
        self.check_facts();
    }

    fn expect(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(problem());
        }
    }

    fn scope(&self) -> String {
        self.config.scope_text(&self.config.scopes().into_iter().map(str::to_owned).collect::<Vec<_>>())
    }

    fn check_authorization(&mut self) {
        let scope = self.scope();
        let request = AuthorizationRequest {
            state: &secret("state-1"),
            code_challenge: (self.config.pkce == Pkce::S256).then(|| "challenge-1".to_owned()),
            scope: &scope,
            variables: &self.issued_at.variables,
            nonce: "nonce-1",
        };
        let url = request_url(&self.config, &request).unwrap();
        let documented = Url::parse(&self.behaviour.authorize.url).unwrap();
        let place = |url: &Url| (url.origin(), url.path().to_owned());
        self.expect(place(&url) == place(&documented), || format!("authorization at {url}, not at {documented}"));
        let name = |name| self.config.param_names.of(RequestKind::Authorize, name).map(str::to_owned);
        let ours = [
            (name("client_id"), self.config.client_id.clone()),
            (name("redirect_uri"), self.config.redirect_url.clone()),
            (name("scope"), scope),
            (Some("state".to_owned()), "state-1".to_owned()),
        ];
        let query: Vec<(String, String)> = match url.fragment().and_then(|route| route.split_once('?')) {
            Some((_, query)) => url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            None => url.query_pairs().into_owned().collect(),
        };
        let sends_scope =
            ours[2].0.as_ref().is_some_and(|name| query.iter().any(|(ours, value)| ours == name && !value.is_empty()));
        let is_demanded = self.behaviour.authorize.scope == ScopeNeed::Required;
        self.expect(sends_scope || !is_demanded, || format!("authorization without a scope: {url}"));
        let ours = ours.into_iter().filter_map(|(name, value)| Some((name?, value)));
        let documented = documented.query_pairs().into_owned().collect::<Vec<_>>().into_iter();
        let params = self.behaviour.authorize.params.clone();
        for param in ours.chain(params).chain(documented).collect::<Vec<_>>() {
            self.expect(query.contains(&param), || format!("authorization without {param:?}: {url}"));
        }
    }

    /// Checks that the callback's parameters are accepted and become metadata.
    fn check_callback(&mut self) {
        let code = self.config.code_param.as_str();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs([(code, "code-1"), ("state", "state-1")]).extend_pairs(&self.behaviour.callback);
        if let Some(issuer) = &self.config.issuer {
            query.append_pair("iss", issuer);
        }
        let response = AuthorizationResponse::parse(&query.finish(), &self.config).unwrap();
        self.expect(response.code == Ok(secret("code-1")), || "no code in the callback".to_owned());
        for name in self.config.callback_metadata.clone() {
            let (kept, sent) = (response.metadata.get(&name), self.behaviour.callback.get(&name).cloned());
            let (kept, is_kept) = (kept.cloned(), kept.and_then(Value::as_str) == sent.as_deref());
            self.expect(is_kept, || format!("callback: {name} is {kept:?}, not {sent:?}"));
        }
    }

    fn authentication(&self, kind: RequestKind) -> ClientAuthentication {
        ClientAuthentication::of(&self.config, kind, 0, &self.issued_at.variables, now(), "jti-1").unwrap().unwrap()
    }

    fn check_exchange(&mut self) {
        let (code, verifier, scope) = (secret("code-1"), secret("verifier-1"), self.scope());
        let grant = CodeGrant {
            code: &code,
            verifier: (self.config.pkce == Pkce::S256).then_some(&verifier),
            variables: &self.issued_at.variables,
            scope: &scope,
            nonce: "nonce-1",
        };
        let request = exchange_request(&self.config, &grant, &self.authentication(RequestKind::Token)).unwrap();
        let problems = self.behaviour.exchange.request.problems(&request, &self.config, RequestKind::Token);
        self.wrong.extend(problems.into_iter().map(|problem| format!("exchange: {problem}")));
        let params = params_of(&request);
        let name = |name| self.config.param_names.of(RequestKind::Token, name).map(str::to_owned);
        let ours = [(name("code"), "code-1"), (name("redirect_uri"), self.config.redirect_url.as_str())];
        let missing: Vec<String> = ours
            .into_iter()
            .filter_map(|(name, value)| (params.get(name.as_ref()?) != Some(&value.to_owned())).then_some(name?))
            .collect();
        self.expect(missing.is_empty(), || format!("exchange: without {missing:?}"));
        let answers = std::mem::take(&mut self.behaviour.exchange.answers);
        self.check_answers("exchange", &answers);
    }

    fn check_refresh(&mut self) {
        let Some(refresh) = self.behaviour.refresh.take() else { return };
        let (token, scope) = (secret("rt-0"), self.scope());
        let grant = RefreshGrant { refresh_token: &token, issued_at: &self.issued_at, scope: &scope, nonce: "nonce-1" };
        let request = refresh_request(&self.config, &grant, &self.authentication(RequestKind::Refresh)).unwrap();
        let problems = refresh.request.problems(&request, &self.config, RequestKind::Refresh);
        self.wrong.extend(problems.into_iter().map(|problem| format!("refresh: {problem}")));
        let name = self.config.param_names.of(RequestKind::Refresh, "refresh_token").unwrap_or_default();
        let sent = params_of(&request).get(name).cloned();
        self.expect(sent.as_deref() == Some("rt-0"), || format!("refresh: {sent:?} as the refresh token"));
        self.check_answers("refresh", &refresh.answers);
    }

    fn check_revocation(&mut self) {
        let of_refresh = self.config.revokes(TokenKind::RefreshToken).then_some(("rt-0", TokenKind::RefreshToken));
        let (token, hint) = of_refresh.unwrap_or(("at-0", TokenKind::AccessToken));
        let revocation = Revocation { token: &secret(token), hint, issued_at: &self.issued_at, scope: "" };
        let request = self.config.revocation_url.as_ref().map(|_| {
            let authentication = self.authentication(RequestKind::Revoke);
            revocation_request(&self.config, &revocation, "nonce-1", &authentication).unwrap()
        });
        let problems = match (&self.behaviour.revocation, &request) {
            (Some(OnlyRequest { request: expected }), Some(request)) => {
                expected.problems(request, &self.config, RequestKind::Revoke)
            }
            (None, None) => Vec::new(),
            (documented, request) => vec![format!("documented: {}, sent: {}", documented.is_some(), request.is_some())],
        };
        self.wrong.extend(problems.into_iter().map(|problem| format!("revocation: {problem}")));
    }

    fn check_upgrade(&mut self) {
        let placeholders = Placeholders {
            variables: &self.issued_at.variables,
            scope: "",
            redirect_url: &self.config.redirect_url,
            nonce: "nonce-1",
            more: &[("access_token", "at-1"), ("client_id", "client-id"), ("client_secret", "client-secret")],
        };
        let api = self.issued_at.requests.upgrade.as_ref();
        let sent = api.map(|api| api_request(api, &BTreeMap::new(), &secret("at-1"), &placeholders).unwrap());
        match (self.behaviour.upgrade.take(), sent) {
            (Some(Exchange { request, answers }), Some(sent)) => {
                let problems = request.problems(&sent, &self.config, RequestKind::Token);
                self.wrong.extend(problems.into_iter().map(|problem| format!("upgrade: {problem}")));
                self.check_answers("upgrade", &answers);
            }
            (None, None) => {}
            (documented, _) => self.wrong.push(format!("upgrade: documented: {}", documented.is_some())),
        }
    }

    fn check_facts(&mut self) {
        let read = |Facts { answer, expect }: &Facts<Identity>| {
            let rule = self.config.identity.as_ref();
            let identity = rule.and_then(|rule| Identity::read(answer, &rule.id, rule.label.as_ref()));
            (identity.as_ref() != Some(expect)).then(|| format!("{identity:?}, not {expect:?}"))
        };
        let identity = self.behaviour.identity.as_ref().and_then(read);
        let read = |Facts { answer, expect }: &Facts<Map<String, Value>>| {
            let rule = self.config.metadata_request.as_ref();
            let metadata = rule.map(|rule| plain_values(answer, &rule.paths)).unwrap_or_default();
            let entries =
                |map: &Map<String, Value>| map.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            difference(&entries(&metadata), &entries(expect)).map(|found| format!("metadata {found}"))
        };
        let metadata = self.behaviour.metadata_request.as_ref().and_then(read);
        self.wrong.extend(identity.into_iter().chain(metadata));
        let documented = (self.behaviour.identity.is_some(), self.behaviour.metadata_request.is_some());
        let asked = (self.config.identity.is_some(), self.config.metadata_request.is_some());
        self.expect(documented == asked, || {
            format!("identity and metadata documented: {documented:?}, asked: {asked:?}")
        });
    }

    fn check_answers(&mut self, place: &str, answers: &[Answer]) {
        for answer in answers {
            for problem in self.problems(answer) {
                self.wrong.push(format!("{place}, {}: {problem}", answer.why));
            }
        }
    }

    fn problems(&self, Answer { why: _, status, content_type, body, expect }: &Answer) -> Vec<String> {
        let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        let response = Response::parse(*status, Some(content_type), body.as_bytes(), &self.config);
        let tokens = match (response.tokens(&self.config, now()), &expect.error) {
            (Ok(tokens), None) => tokens,
            (Ok(_), Some(error)) => return vec![format!("tokens, not {error}")],
            (Err(TokenError::Oauth(code)), Some(error)) if code.as_str() == error => return Vec::new(),
            (Err(TokenError::RateLimited | TokenError::ServerError(_)), Some(error)) if error == TEMPORARY => {
                return Vec::new();
            }
            (Err(error), expected) => return vec![format!("{}, not {expected:?}", error.reason())],
        };
        let lifetime = self.config.default_expires_in.map(i64::from);
        let tokens = tokens.or_lifetime(lifetime, now());
        let text = |secret: &Secret| secret.expose().to_owned();
        let words = |scope: &str| scope.split([' ', ',', '+']).map(str::to_owned).collect::<BTreeSet<_>>();
        let (mut wrong, mut differences) = (Vec::new(), Vec::new());
        let mut compare = |field: &str, ours: String, theirs: String| {
            if ours != theirs {
                wrong.push(format!("{field} {ours}, not {theirs}"));
            }
        };
        compare(
            "access_token",
            format!("{:?}", Some(text(&tokens.access_token))),
            format!("{:?}", expect.access_token),
        );
        let refresh_token = tokens.refresh_token.as_ref().map(text);
        compare("refresh_token", format!("{refresh_token:?}"), format!("{:?}", expect.refresh_token));
        compare("expires_in", format!("{:?}", tokens.expires_in), format!("{:?}", expect.expires_in));
        if let Some(scope) = &expect.scope {
            let ours = words(tokens.scope.as_deref().unwrap_or_default());
            differences.extend(difference(&ours, &words(scope)).map(|found| format!("scope {found}")));
        }
        for (path, value) in &expect.metadata {
            let of_callback =
                self.behaviour.callback.get(path).filter(|_| self.config.callback_metadata.contains(path));
            let ours = tokens.metadata.get(path).cloned().or_else(|| of_callback.map(|value| value.as_str().into()));
            compare(path, format!("{ours:?}"), format!("{:?}", Some(value)));
        }
        wrong.extend(differences);
        wrong
    }
}
