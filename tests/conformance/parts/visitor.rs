//! A person at the authorization server's pages, without a browser: cookies, redirects and forms by hand.

use regex::Regex;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use std::collections::HashMap;
use std::sync::LazyLock;
use url::Url;

/// The person's answer to the consent page.
#[derive(Clone, Copy)]
pub(crate) enum Consent {
    Allow,
    Deny,
}

/// More pages and redirects than a login has.
const STEPS: usize = 20;

/// Goes from `start`, the authorization URL, to the first redirect to `callback`, which it returns and does not follow.
pub(crate) async fn walk(start: Url, callback: &str, consent: Consent) -> Url {
    let http = Client::builder().cookie_store(true).redirect(Policy::none()).no_proxy().build().expect("a client");
    let mut here = start;
    let mut answer = get(&http, &here).await;
    for _ in 0..STEPS {
        if answer.status().is_redirection() {
            here = target(&here, &answer);
            if here.as_str().starts_with(callback) {
                return here;
            }
            answer = get(&http, &here).await;
        } else {
            let status = answer.status();
            let page = answer.text().await.expect("a page");
            assert!(status.is_success(), "{here} answered {status}: {page}");
            let form = Form::parse(&page);
            here = here.join(&form.action).expect("the form's action is a URL");
            let sent = http.post(here.clone()).form(&form.filled(consent)).send().await;
            answer = sent.expect("the provider takes the form");
        }
    }
    panic!("no end after {STEPS} steps, now at {here}")
}

/// The query of a callback as a map; a doubled parameter is an error of the server's.
pub(crate) fn query(callback: &Url) -> HashMap<String, String> {
    let mut parameters = HashMap::new();
    for (name, value) in callback.query_pairs() {
        let before = parameters.insert(name.clone().into_owned(), value.into_owned());
        assert!(before.is_none(), "{name} is there twice");
    }
    parameters
}

async fn get(http: &Client, url: &Url) -> Response {
    http.get(url.clone()).send().await.expect("the provider answers")
}

fn target(here: &Url, answer: &Response) -> Url {
    let location = answer.headers().get("location").expect("a redirect has a location");
    here.join(location.to_str().expect("a location is text")).expect("a location is a URL")
}

/// A page's one form.
struct Form {
    action: String,
    prompt: String,
}

impl Form {
    fn parse(page: &str) -> Self {
        static ACTION: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r#"<form method="post" action="([^"]+)">"#).expect("a pattern"));
        static PROMPT: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r#"name="prompt" value="([^"]+)""#).expect("a pattern"));
        let find = |pattern: &Regex| {
            let found = pattern.captures(page).unwrap_or_else(|| panic!("no form that is known here in {page}"));
            found[1].to_owned()
        };
        Self { action: find(&ACTION), prompt: find(&PROMPT) }
    }

    fn filled(&self, consent: Consent) -> Vec<(&'static str, String)> {
        let mut fields = vec![("prompt", self.prompt.clone())];
        match (self.prompt.as_str(), consent) {
            ("login", _) => fields.extend([("login", "alice".into()), ("password", "correct horse".into())]),
            (_, Consent::Allow) => fields.push(("decision", "allow".into())),
            (_, Consent::Deny) => fields.push(("decision", "deny".into())),
        }
        fields
    }
}
