//! Lifetime of refresh tokens, for providers whose answers do not state it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefreshTokenLifetime {
    pub seconds: u32,
    pub from: LifetimeStart,
}

/// Start of a refresh token's lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LifetimeStart {
    /// The answer that the token came with.
    Issue,
    /// The last refresh.
    Use,
}

impl RefreshTokenLifetime {
    #[must_use]
    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::integration::tests::config;

    #[test]
    fn a_lifetime_has_seconds_and_a_start() {
        #[track_caller]
        fn check(lifetime: &Value, fits: bool) {
            let error = config(&json!({ "refresh_token_lifetime": lifetime })).err().map(|error| error.to_string());
            assert_eq!(error.is_none(), fits, "{lifetime}");
            assert!(!error.unwrap_or_default().contains("canary"));
        }
        check(&json!({"seconds": 60, "from": "issue"}), true);
        check(&json!({"seconds": 60, "from": "use"}), true);
        check(&json!(null), true);
        check(&json!("canary"), false);
        check(&json!({"seconds": 60}), false);
        check(&json!({"seconds": 0, "from": "use"}), false);
        check(&json!({"seconds": 316_224_001, "from": "use"}), false);
        check(&json!({"from": "use"}), false);
        check(&json!({"seconds": 60, "from": "canary"}), false);
        check(&json!({"seconds": 60, "from": "use", "until": "canary"}), false);
    }
}
