//! The identity of a grant: the person or workspace at the provider.
//!
//! An id says little alone: two providers, or two realms at one origin, may use the same id for two people.

use url::Url;

use super::StoredConnection;
use crate::integration::IssuedAt;

/// An identity, at the provider that issued the grant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IssuedIdentity<'a> {
    id: &'a str,
    /// Expected `iss` of the ID token, or the config's `issuer`.
    issuer: Option<&'a str>,
    issued_at: &'a IssuedAt,
}

/// Result of comparing two identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Same,
    Other,
    /// The ids are equal, but a config has changed the token URL's path or the issuer since. The provider may have moved its
    /// endpoint, or the path may name another realm.
    Unclear,
}

impl StoredConnection {
    /// Returns the connection's identity, if it is known.
    pub(crate) fn issued_identity(&self) -> Option<IssuedIdentity<'_>> {
        let of_id_token = self.issued_at.requests.identity.as_ref().filter(|rule| rule.request.is_none());
        let issuer = of_id_token.and_then(|rule| rule.issuer.as_deref()).or(self.issued_at.issuer.as_deref());
        let id = &self.connection.identity.as_ref()?.id;
        Some(IssuedIdentity { id, issuer, issued_at: &self.issued_at })
    }

    /// Returns true if both connections have one identity; `None` if that cannot be known.
    pub(crate) fn has_identity_of(&self, other: &Self) -> Option<bool> {
        match self.issued_identity()?.compare(&other.issued_identity()?) {
            Comparison::Same => Some(true),
            Comparison::Other => Some(false),
            Comparison::Unclear => None,
        }
    }
}

impl IssuedIdentity<'_> {
    /// Compares two identities. Their clients may differ: a new client at the same provider is no new identity.
    fn compare(&self, other: &IssuedIdentity<'_>) -> Comparison {
        if self.id != other.id {
            return Comparison::Other;
        }
        let has_same_endpoint = self.endpoint() == other.endpoint();
        if has_same_endpoint && self.issuer == other.issuer {
            return Comparison::Same;
        }
        let has_other_issuer = self.issuer.zip(other.issuer).is_some_and(|(own, other)| own != other);
        let has_other_origin = self.issued_at.token_origin() != other.issued_at.token_origin();
        let is_other_realm = !has_same_endpoint && self.issued_at.variables != other.issued_at.variables;
        if has_other_issuer || has_other_origin || is_other_realm { Comparison::Other } else { Comparison::Unclear }
    }

    /// Returns the texts of which the marks of this identity's grants are made, in the form of this release first. The other form
    /// has the token URL's origin only: an entry has it until its connection is next stored.
    pub(crate) fn texts(&self) -> Option<[String; 2]> {
        let (issuer, client) = (self.issuer.unwrap_or_default(), self.issued_at.client_id.as_str());
        let (endpoint, origin) = (self.endpoint()?, self.issued_at.token_origin()?);
        let of_config = self.issued_at.issuer.as_deref().unwrap_or_default();
        // Only the id may hold a zero byte. An endpoint has a path, so no text of one form equals one of the other.
        Some([
            format!("{endpoint}\0{issuer}\0{client}\0{}", self.id),
            format!("{origin}\0{of_config}\0{client}\0{}", self.id),
        ])
    }

    /// The token URL's scheme, host, port and path.
    fn endpoint(&self) -> Option<String> {
        let mut url = Url::parse(&self.issued_at.token_url).ok()?;
        url.set_query(None);
        url.set_fragment(None);
        Some(url.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn issued_at(changes: &Value) -> IssuedAt {
        let mut at = json!({ "token_url": "https://id.example/a/token", "client_id": "client" });
        for (name, value) in changes.as_object().unwrap() {
            at[name] = value.clone();
        }
        serde_json::from_value(at).unwrap()
    }

    #[test]
    fn h13_the_same_id_at_another_provider_or_realm_is_another_account() {
        #[track_caller]
        fn check(changes: &Value, issuer: Option<&str>, expected: Comparison) {
            let (first, second) = (issued_at(&json!({})), issued_at(changes));
            let first = IssuedIdentity { id: "u-1", issuer: Some("https://id.example/a"), issued_at: &first };
            let second = IssuedIdentity { id: "u-1", issuer, issued_at: &second };
            assert_eq!((first.compare(&second), second.compare(&first)), (expected, expected), "{changes} {issuer:?}");
            let marks = [first.texts().unwrap(), second.texts().unwrap()].map(|[new, _]| new);
            let has_same_client = changes.get("client_id").is_none();
            assert_eq!(marks[0] == marks[1], expected == Comparison::Same && has_same_client, "{changes} {issuer:?}");
        }
        let issuer = Some("https://id.example/a");
        check(&json!({}), issuer, Comparison::Same);
        check(&json!({ "client_id": "new" }), issuer, Comparison::Same);
        check(&json!({ "token_url": "https://id.example/a/token?v=2" }), issuer, Comparison::Same);
        check(&json!({}), Some("https://id.example/b"), Comparison::Other);
        check(&json!({ "token_url": "https://other.example/a/token" }), issuer, Comparison::Other);
        let of_realm = json!({ "token_url": "https://id.example/b/token", "variables": { "realm": "b" } });
        check(&of_realm, issuer, Comparison::Other);
        check(&json!({ "token_url": "https://id.example/a/v2/token" }), issuer, Comparison::Unclear);
        check(&json!({}), None, Comparison::Unclear);
    }

    #[test]
    fn h13_an_entry_of_an_earlier_release_is_found_by_the_origin() {
        let at = issued_at(&json!({ "issuer": "https://id.example" }));
        let [new, earlier] =
            IssuedIdentity { id: "u-1", issuer: Some("https://id.example/a"), issued_at: &at }.texts().unwrap();
        assert_eq!(new, "https://id.example/a/token\0https://id.example/a\0client\0u-1");
        assert_eq!(earlier, "https://id.example\0https://id.example\0client\0u-1");
    }

    #[test]
    fn h13_another_id_is_another_account() {
        let at = issued_at(&json!({}));
        let identity = |id| IssuedIdentity { id, issuer: None, issued_at: &at };
        assert_eq!(identity("u-1").compare(&identity("u-2")), Comparison::Other);
        assert_eq!(identity("u-1").compare(&identity("u-1")), Comparison::Same);
    }
}
