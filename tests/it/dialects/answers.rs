//! Forms of answers with tokens.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use tokenbus::internals::system::now;

use super::dialect::{Dialect, Expected, FORM, changed, code, connected, form_of, hour, renewal, tokens};
use crate::provider::Scripted;

pub(super) fn all() -> Vec<Dialect> {
    vec![
        other_names(),
        envelope(),
        date(),
        texts(),
        form(),
        user_token(),
        gzip(),
        milliseconds(),
        no_new_refresh_token(),
        facts(),
    ]
}

/// A dialect in which only the answers differ: to a login, and to a refresh.
fn answering(name: &'static str, config: Value, [login, refresh]: [Scripted; 2]) -> Dialect {
    Dialect::new(name, config).login(Expected::form(code(&json!({}))), login, connected(0)).refresh(
        Expected::form(renewal(0, &json!({}))),
        refresh,
        connected(1),
    )
}

fn in_an_hour() -> Timestamp {
    now() + 1.hour()
}

fn other_names() -> Dialect {
    let config = json!({ "token_answer": {
        "access_token": "token", "refresh_token": "refreshToken", "expires_at": "expiresAt",
    } });
    let answer = |number| {
        let end = in_an_hour().as_millisecond();
        let fields =
            json!({ "token": format!("at-{number}"), "refreshToken": format!("rt-{number}"), "expiresAt": end });
        Scripted::json(200, &fields)
    };
    answering("named", config, [0, 1].map(answer))
}

/// The status of success is 0, in the answer.
fn envelope() -> Dialect {
    let answer = |number| Scripted::json(200, &json!({ "status": 0, "body": hour(number, &json!({})) }));
    answering("envelope", json!({ "token_response_path": "body" }), [0, 1].map(answer))
}

fn date() -> Dialect {
    let answer = |number| {
        let end = in_an_hour().to_string();
        Scripted::json(200, &hour(number, &json!({ "expires_in": null, "expires_at": end })))
    };
    answering("date", json!({}), [0, 1].map(answer))
}

fn texts() -> Dialect {
    let login = hour(0, &json!({ "expires_in": "3600", "error": "" }));
    let refresh = hour(
        1,
        &json!({
            "expires_in": null, "expires_at": in_an_hour().as_second().to_string(), "error": null, "error_description": "",
        }),
    );
    answering("texts", json!({}), [login, refresh].map(|answer| Scripted::json(200, &answer)))
}

/// Under a false content type, like the JSON of the refresh.
fn form() -> Dialect {
    let login = form_of(&hour(0, &json!({ "expires_in": "3600" })));
    let refresh = hour(1, &json!({})).to_string();
    answering("form", json!({}), [Scripted::new(200, FORM, login), Scripted::new(200, "text/html", refresh)])
}

/// The user's tokens are beside the app's in the answer to a login, and alone in the answer to a refresh.
fn user_token() -> Dialect {
    let user = hour(0, &json!({ "token_type": "user", "id": "U1" }));
    let login = json!({ "ok": true, "app_id": "A1", "authed_user": user, "team": { "id": "T1" } });
    let refresh = hour(1, &json!({ "ok": true, "token_type": "user" }));
    let config = json!({ "token_response_path": "authed_user", "metadata_paths": ["team.id"] });
    answering("user", config, [login, refresh].map(|answer| Scripted::json(200, &answer)))
}

fn gzip() -> Dialect {
    let answer = |number| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(hour(number, &json!({})).to_string().as_bytes()).expect("a vector takes everything");
        let mut answer = Scripted::new(200, "application/json", encoder.finish().expect("a vector takes everything"));
        answer.headers.push(("content-encoding", "gzip".to_owned()));
        answer
    };
    answering("gzip", json!({}), [0, 1].map(answer))
}

fn milliseconds() -> Dialect {
    let answer = |number| Scripted::json(200, &hour(number, &json!({ "expires_in": 3_600_000 })));
    answering("milliseconds", json!({ "expires_in_unit": "ms" }), [0, 1].map(answer))
}

/// The first refresh token stays the one to send, and the first lifetime counts for all answers.
fn no_new_refresh_token() -> Dialect {
    let answer = |number| {
        let fields = hour(number, &json!({ "refresh_token": null, "expires_in": null }));
        Scripted::json(200, &fields)
    };
    let kept = |number| changed(connected(number), &json!({ "refresh_token": "rt-0" }));
    Dialect::new("kept", json!({}))
        .login(Expected::form(code(&json!({}))), tokens(0), connected(0))
        .refresh(Expected::form(renewal(0, &json!({}))), answer(1), kept(1))
        .refresh(Expected::form(renewal(0, &json!({}))), answer(2), kept(2))
}

fn facts() -> Dialect {
    let answer = hour(0, &json!({ "shop": { "domain": "acme.example", "id": 7 }, "hosts": ["a", "b"], "plan": {} }));
    let config = json!({ "metadata_paths": ["shop.domain", "shop.id", "hosts", "plan"] });
    let metadata = json!({ "shop.domain": "acme.example", "shop.id": 7, "hosts": ["a", "b"] });
    Dialect::new("facts", config).login(
        Expected::form(code(&json!({}))),
        Scripted::json(200, &answer),
        changed(connected(0), &json!({ "metadata": metadata })),
    )
}
