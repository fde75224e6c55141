use serde_json::{Value, json};

use super::*;
use crate::integration::Method;
use crate::integration::tests::config;
use crate::oauth::token::Response;
use crate::oauth::{HttpRequest, callback};

/// Reads an answer as a worker does.
fn cause_of(status: u16, body: &Value) -> Option<Cause> {
    let (config, text) = (config(&json!({})).unwrap(), body.to_string());
    let response = Response::parse(status, Some("application/json"), text.as_bytes(), &config);
    let error = response.tokens(&config, jiff::Timestamp::UNIX_EPOCH).unwrap_err();
    let url = url::Url::parse("https://id.example/token").unwrap();
    let request = HttpRequest { method: Method::Post, url, headers: Vec::new(), body: None };
    Cause::of_answer(error, &ProviderAnswer::read(status, text.as_bytes(), &request, []))
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn b6_providers_words_name_the_setting() {
    let described = |error: &str, text: &str| json!({ "error": error, "error_description": text });
    let answers = |cause: Cause, answers: &[(u16, Value)]| {
        for (status, body) in answers {
            assert_eq!(cause_of(*status, body), Some(cause), "{status} {body}");
        }
    };
    answers(
        Cause::RedirectUrl,
        &[
            (200, described("redirect_uri_mismatch", "The redirect_uri MUST match the registered callback URL.")),
            (200, json!({ "ok": false, "error": "bad_redirect_uri" })),
            (400, described("invalid_grant", "Invalid redirect URI")),
            (400, described("invalid_request", "Invalid \"redirect_uri\" in request.")),
            (400, described("invalid_grant", "redirect_uri did not match")),
            (400, described("invalid_grant", "Callback url mismatch")),
            (
                400,
                described("invalid_client", "AADSTS50011: The redirect URI specified in the request does not match."),
            ),
            (400, described("invalid_grant", "AADSTS500112: The reply address 'https://a.example' does not match.")),
            (400, json!({ "status": "BAD_REDIRECT_URI", "message": "missing or unknown redirect URI" })),
            (400, json!({ "error": { "message": "Please make sure your redirect_uri is identical.", "code": 100 } })),
            (401, described("unauthorized_client", "The redirect_uri is not one of the client's.")),
        ],
    );
    answers(
        Cause::ClientSecret,
        &[
            (200, json!({ "ok": false, "error": "bad_client_secret" })),
            (
                401,
                described(
                    "invalid_client",
                    "AADSTS7000215: Invalid client secret provided. Send the value, not the client secret ID.",
                ),
            ),
            (400, described("invalid_client", "Invalid client secret")),
            (
                400,
                json!({ "error": { "message": "Error validating client secret.", "type": "OAuthException", "code": 1 } }),
            ),
        ],
    );
    answers(
        Cause::ClientId,
        &[
            (200, json!({ "ok": false, "error": "invalid_client_id" })),
            (401, described("invalid_client", "The OAuth client was not found.")),
            (400, described("unauthorized_client", "AADSTS700016: Application with identifier 'x' was not found.")),
            (400, described("invalid_client_id", "client identifier invalid")),
        ],
    );
    answers(
        Cause::Client,
        &[
            (401, described("invalid_client", "Unauthorized")),
            (
                401,
                described(
                    "invalid_client",
                    "Client authentication failed due to unknown client, no client authentication included, or \
                     unsupported authentication method.",
                ),
            ),
            (
                200,
                described("incorrect_client_credentials", "The client_id and/or client_secret passed are incorrect."),
            ),
            (400, json!({ "reason": "Invalid client_id or client_secret", "error": "invalid_client" })),
            (
                401,
                json!({ "error": "invalid_client", "error_description": "Invalid client or Invalid client credentials" }),
            ),
            (401, described("access_denied", "Unauthorized")),
            (401, json!("Unauthorized")),
        ],
    );
    answers(
        Cause::Scopes,
        &[
            (400, described("invalid_scope", "")),
            (400, described("invalid_grant", "AADSTS70011: The provided value for 'scope' is not valid.")),
            (400, described("invalid_request", "Missing required parameter: scope")),
        ],
    );
    answers(
        Cause::Pkce,
        &[
            (400, described("invalid_grant", "PKCE verification failed")),
            (400, described("invalid_grant", "AADSTS501481: The Code_Verifier does not match the code_challenge.")),
            (400, described("invalid_request", "code_verifier was incorrect")),
        ],
    );
    answers(
        Cause::Code,
        &[
            (200, described("bad_verification_code", "The code passed is incorrect or expired.")),
            (200, json!({ "ok": false, "error": "code_already_used" })),
            (400, described("invalid_grant", "AADSTS70008: The code is too old.")),
            (400, described("invalid_grant", "Invalid authorization code")),
            (
                400,
                json!({ "error_type": "OAuthException", "code": 400, "error_message": "Matching code was not found or was already used" }),
            ),
        ],
    );
    answers(
        Cause::App,
        &[
            (400, described("unauthorized_client", "")),
            (
                400,
                described("invalid_request", "AADSTS9002327: Tokens may only be redeemed via cross-origin requests."),
            ),
        ],
    );
    let of_rfc = "The provided authorization grant is invalid, expired, revoked, does not match the redirection URI used in \
                  the authorization request, or was issued to another client.";
    answers(
        Cause::CodeOrRedirectUrl,
        &[
            (400, described("invalid_grant", "")),
            (400, described("invalid_grant", "Bad Request")),
            (400, described("invalid_grant", of_rfc)),
            (
                400,
                described(
                    "invalid_request",
                    "appid/redirect uri/code verifier does not match authorization code. Or authorization code expired.",
                ),
            ),
        ],
    );
    // A server that adds the reason to the text of the RFC.
    let reason =
        format!("{of_rfc} The 'redirect_uri' from this request does not match the one from the authorize request.");
    answers(Cause::RedirectUrl, &[(400, described("invalid_grant", &reason))]);
    answers(
        Cause::Request,
        &[(400, described("invalid_request", "Bad Request")), (403, json!("Forbidden")), (400, described("odd", ""))],
    );
    answers(
        Cause::TokenUrl,
        &[
            (404, json!("Not Found")),
            (404, described("not_found", "No route found")),
            (405, json!({ "message": "Method Not Allowed" })),
            (200, json!({})),
            (200, json!("<!DOCTYPE html><title>Log in</title>")),
            (302, json!("")),
        ],
    );
    for (status, body) in [
        (503, described("redirect_uri_mismatch", "")),
        (429, json!({})),
        (400, described("temporarily_unavailable", "")),
    ] {
        assert_eq!(cause_of(status, &body), None, "{status} {body}");
    }
}

#[test]
fn b6_a_callback_names_the_setting() {
    #[track_caller]
    fn check(query: &str, expected: Option<Cause>) {
        let config = config(&json!({})).unwrap();
        let response = callback::AuthorizationResponse::parse(&format!("state=s&{query}"), &config).unwrap();
        assert_eq!(response.code.unwrap_err().cause, expected, "{query}");
    }
    check("error=redirect_uri_mismatch", Some(Cause::RedirectUrl));
    check("error=unauthorized_scope_error&error_description=Scope+x+is+not+authorized", Some(Cause::Scopes));
    check("error=invalid_request&error_description=Unsupported+PKCE+method", Some(Cause::Pkce));
    check("error=invalid_scope", Some(Cause::Scopes));
    check("error=unauthorized_client", Some(Cause::App));
    check("error=odd", Some(Cause::Request));
    check("error=access_denied&error_description=The+user+denied+the+scope", None);
    check("error=user_cancelled_login", None);
    check("error=server_error", None);
}
