//! Nothing secret in the logs, however much is asked for.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::ask::ask;
use crate::provider::{Provider, Said};
use crate::world::{INTEGRATION, World};

const CANARIES: [&str; 4] = ["canary-client-secret", "canary-access-token", "canary-refresh-token", "canary-code"];

#[tokio::test]
async fn f1_logs_hold_no_secret_at_trace_level() {
    let body = json!({ "access_token": CANARIES[1], "refresh_token": CANARIES[2], "expires_in": 3600 });
    let provider = Provider::start(move |_, _| Said::json(200, &body)).await;
    let world = World::with_settings(provider, &[("LOG__FILTER", "trace"), ("REFRESH__MIN_INTERVAL", "1s")]).await;
    let login = world.login("w").await;
    let callback = world.callback(&[("code", CANARIES[3]), ("state", &login.state)]);
    assert_eq!(world.tokenbus.arrive(&callback).await.0, StatusCode::OK);
    assert_eq!(world.read("w").await.0, StatusCode::OK);
    assert_eq!(world.tokenbus.call(Method::GET, "oauth-connections").await.0, StatusCode::OK);
    let path = format!("{INTEGRATION}/oauth-token/w?min_valid=86400");
    assert_eq!(world.tokenbus.call(Method::GET, &path).await.0, StatusCode::OK);
    let wrong = world.tokenbus.request(Method::GET, "hub/integrations/oauth-connections");
    assert_eq!(ask(wrong.header("x-api-key", "tb_canary-wrong-key")).await.status, 401);

    let log = world.tokenbus.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the filter is in force:\n{log}");
    let mut secrets: Vec<&str> = CANARIES.to_vec();
    secrets.extend([&login.state, &world.tokenbus.key, &world.tokenbus.admin_key, "canary-wrong-key"]);
    for secret in secrets {
        for form in forms(secret) {
            assert!(!log.contains(&form), "{secret} is in the log as {form}");
        }
    }
}

/// A text as it is, and as it looks inside base64 at each of its three offsets.
fn forms(text: &str) -> Vec<String> {
    let mut forms = vec![text.to_owned()];
    for offset in 0..3 {
        let padded = format!("{}{text}", " ".repeat(offset));
        for encoded in [BASE64_STANDARD_NO_PAD.encode(&padded), BASE64_URL_SAFE_NO_PAD.encode(&padded)] {
            // The first and last letters depend on what stands around the text.
            forms.push(encoded[4..encoded.len() - 3].to_owned());
        }
    }
    forms
}
