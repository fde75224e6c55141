//! Dialects of providers from end to end: an authorization request, a callback, token requests and answers that differ from
//! RFC 6749, through gateway, bus and worker, against a server that accepts nothing but its own dialect.

mod answers;
mod dialect;
mod facts;
mod logins;
mod refusals;
mod replay;
mod requests;
mod revocations;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use self::dialect::{Act, Dialect, FORM, Step, changed, form_of};
use self::replay::{Replay, pairs};
use crate::support::tokenbus::{Tokenbus, read};
use crate::support::wait::eventually;

/// Difference between an expected and a found lifetime in seconds: the time that the test takes.
const SLACK: i64 = 120;

#[tokio::test]
async fn tokens_are_had_from_providers_of_all_dialects() {
    let tokenbus = Tokenbus::start(&[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    let dialects: Vec<Dialect> =
        [requests::all(), revocations::all(), logins::all(), answers::all(), refusals::all(), facts::all()]
            .into_iter()
            .flatten()
            .collect();
    let replay = Replay::start(tokenbus.callback()).await;
    for dialect in &dialects {
        let speaker = Speaker { tokenbus: &tokenbus, replay: &replay, dialect };
        speaker.configure().await;
        for step in &dialect.steps {
            replay.expect(dialect.name, &step.requests);
            speaker.take(step).await;
            eventually(dialect.name, async || replay.is_done() || !replay.mistakes().is_empty()).await;
            assert_eq!(replay.mistakes(), Vec::<String>::new());
        }
    }
    assert!(dialects.len() >= 20);
}

/// tokenbus as the client of one provider.
struct Speaker<'a> {
    tokenbus: &'a Tokenbus,
    replay: &'a Replay,
    dialect: &'a Dialect,
}

impl Speaker<'_> {
    async fn configure(&self) {
        let name = self.dialect.name;
        let usual = json!({
            "integration_id": name, "name": name, "scopes": "read,write", "client_id": "client",
            "client_secret": "s", "auth_url": "{url}/authorize", "token_url": "{url}/token", "redirect_url": "{redirect}",
        });
        self.tokenbus.configure(&self.replay.fill(name, &changed(usual, &self.dialect.config))).await;
    }

    async fn take(&self, step: &Step) {
        let name = self.dialect.name;
        let (status, found) = match step.act {
            Act::Login => self.login().await,
            Act::Refresh => {
                self.tokenbus.call(Method::GET, &format!("{name}/oauth-token/one?min_valid=86400")).await;
                self.tokenbus.call(Method::GET, &format!("{name}/oauth-token/one")).await
            }
            Act::Delete => self.tokenbus.call(Method::DELETE, &format!("{name}/oauth-connections/one")).await,
        };
        assert_eq!(status, step.status, "{name}: {:?}: {found} {:?}", step.act, self.replay.mistakes());
        for (field, expected) in step.outcome.as_object().expect("an outcome") {
            let found_field = &found[field];
            let is_near = match (field.as_str(), found_field.as_i64(), expected.as_i64()) {
                ("expires_in", Some(found), Some(expected)) => (expected - SLACK..=expected).contains(&found),
                _ => found_field == expected,
            };
            let mistakes = self.replay.mistakes();
            assert!(is_near, "{name}: {field} of {:?} is not {expected}: {found} {mistakes:?}", step.act);
        }
    }

    /// Checks the authorization request, and returns the answer to the callback.
    async fn login(&self) -> (StatusCode, Value) {
        let Dialect { name, login, place, authorize, callback, .. } = self.dialect;
        let (status, body) = self.tokenbus.call(Method::GET, &format!("{name}/oauth-login/one{login}")).await;
        assert_eq!(status, 200, "{name}: {body}");
        let found = body["oauth_url"].as_str().expect("a login answers with a URL");
        let (found_place, query) = found.split_once('?').expect("an authorization request has parameters");
        assert_eq!(Value::from(found_place), self.replay.fill(name, &json!(place)), "{name}");
        let usual = json!({
            "response_type": "code", "client_id": "client", "redirect_uri": "{redirect}", "scope": "read write",
            "state": "*", "code_challenge": "*", "code_challenge_method": "S256",
        });
        let expected = self.replay.fill(name, &changed(usual, authorize));
        let problem = self.replay.difference(query, &expected);
        assert_eq!(problem, None, "{name}: authorization request {found}");

        let state = pairs(query)["state"].clone();
        let params = changed(json!({ "code": "code-1", "state": state }), callback);
        self.arrive(&params).await
    }

    /// Sends the provider's parameters to the callback, as the browser would.
    async fn arrive(&self, params: &Value) -> (StatusCode, Value) {
        let form = form_of(params);
        let mut callback = Url::parse(&self.tokenbus.callback()).expect("a callback is a URL");
        if !self.dialect.is_posted {
            callback.set_query(Some(&form));
            return self.tokenbus.arrive(&callback).await;
        }
        let request = self.tokenbus.request(Method::POST, callback.path()).header("accept", "application/json");
        let request = request.header("content-type", FORM).header("x-api-key", &self.tokenbus.key);
        // Follows the redirect to the same path.
        read(request.body(form).send().await.expect("tokenbus answers")).await
    }
}
