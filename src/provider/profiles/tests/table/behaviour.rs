//! The shape of `tests/data/providers/<id>.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::request::Expected;
use crate::oauth::Identity;

/// What the documentation says about a login without scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ScopeNeed {
    /// The provider refuses it, or names no identity after it.
    Required,
    Optional,
    Unknown,
}

impl ScopeNeed {
    /// Compares the documentation with the default scopes of a profile; `None` if the profile has no field `scopes`.
    pub(super) fn problem(self, scopes: Option<&str>) -> Option<&'static str> {
        match (self, scopes) {
            (Self::Required, None | Some("")) => {
                Some("the documentation demands a scope, and the profile has no default")
            }
            (Self::Optional, None) => Some("the documentation demands no scope, and the profile lacks `scopes = \"\"`"),
            (Self::Unknown, Some("")) => {
                Some("`scopes` is empty, and the documentation leaves open whether that is enough")
            }
            (Self::Required | Self::Optional | Self::Unknown, Some(_)) | (Self::Unknown, None) => None,
        }
    }
}

#[test]
fn a_profile_without_the_scope_that_its_documentation_demands_fails() {
    let has_problem = |need: ScopeNeed, scopes| need.problem(scopes).is_some();
    for (need, expected) in [
        (ScopeNeed::Required, [true, true, false]),
        (ScopeNeed::Optional, [true, false, false]),
        (ScopeNeed::Unknown, [false, true, false]),
    ] {
        assert_eq!([None, Some(""), Some("read")].map(|scopes| has_problem(need, scopes)), expected, "{need:?}");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Behaviour {
    #[serde(default)]
    pub(super) variables: BTreeMap<String, String>,
    /// Parameters of the callback besides code and state.
    #[serde(default)]
    pub(super) callback: BTreeMap<String, String>,
    pub(super) authorize: Authorize,
    pub(super) exchange: Exchange,
    pub(super) refresh: Option<Exchange>,
    pub(super) revocation: Option<OnlyRequest>,
    pub(super) identity: Option<Facts<Identity>>,
    pub(super) metadata_request: Option<Facts<Map<String, Value>>>,
    pub(super) upgrade: Option<Exchange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Authorize {
    pub(super) url: String,
    pub(super) scope: ScopeNeed,
    pub(super) params: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exchange {
    pub(super) request: Expected,
    pub(super) answers: Vec<Answer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnlyRequest {
    pub(super) request: Expected,
}

/// The answer of an API, and what is read from it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Facts<T> {
    pub(super) answer: Value,
    pub(super) expect: T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    pub(super) why: String,
    pub(super) status: u16,
    #[serde(rename = "type")]
    pub(super) content_type: String,
    pub(super) body: Value,
    pub(super) expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) access_token: Option<String>,
    pub(super) refresh_token: Option<String>,
    pub(super) expires_in: Option<i64>,
    pub(super) scope: Option<String>,
    #[serde(default)]
    pub(super) metadata: Map<String, Value>,
    pub(super) error: Option<String>,
}
