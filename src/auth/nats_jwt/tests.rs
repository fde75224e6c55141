use nkeys::KeyPair;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::jwt::MAX_JWT_BYTES;
use super::*;

#[expect(dead_code, reason = "some of it is for tests with a server")]
#[path = "../../../tests/support/mint.rs"]
mod mint;

/// Between the `iat` of what `mint` makes and the ends that the tests choose.
const NOW: i64 = 1_800_000_000;

/// Verifies the JWT of one of the account's users.
fn user_of(account: &AccountJwt, jwt: &Jwt<'_>) -> Result<NatsUser, Rejection> {
    account.own_user(SelfConsistent::verify(jwt, now())?, now())
}

struct Tenant {
    operator: KeyPair,
    account: KeyPair,
    signing: KeyPair,
    scoped: KeyPair,
    user: KeyPair,
}

impl Tenant {
    fn new() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            account: KeyPair::new_account(),
            signing: KeyPair::new_account(),
            scoped: KeyPair::new_account(),
            user: KeyPair::new_user(),
        }
    }

    fn id(&self) -> Account {
        Account::parse(&self.account.public_key()).unwrap()
    }

    /// The account's JWT as the operator signs it.
    fn jwt(&self, more: &Value) -> String {
        let template = json!({ "bearer_token": true, "pub": { "allow": ["node.oauth.*.list"] } });
        let scope = json!({ "kind": "user_scope", "key": self.scoped.public_key(), "template": template });
        let mut all = json!({ "signing_keys": [self.signing.public_key(), scope] });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        mint::account(&self.operator, &self.account, &all)
    }

    fn verified(&self, more: &Value) -> AccountJwt {
        AccountJwt::verify(&self.jwt(more), &self.id(), &[self.operator.public_key()], now()).unwrap()
    }

    /// Verifies a user's JWT with these claims merged into the usual ones.
    fn user(&self, account: &Value, issuer: &KeyPair, claims: &Value) -> Result<NatsUser, Rejection> {
        let jwt = mint::user(issuer, &self.user, claims);
        user_of(&self.verified(account), &Jwt::parse(&jwt, MAX_JWT_BYTES)?)
    }

    fn of_account(&self) -> Value {
        json!({ "nats": { "issuer_account": self.account.public_key() } })
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

#[test]
fn a_user_belongs_to_its_account_whichever_key_signed() {
    let tenant = Tenant::new();
    let user = tenant.user(&json!({}), &tenant.account, &json!({ "nats": { "bearer_token": true } })).unwrap();
    assert_eq!((user.account.as_str(), user.is_bearer), (tenant.account.public_key().as_str(), true));
    assert_eq!(user.key, tenant.user.public_key());
    assert!(!tenant.user(&json!({}), &tenant.account, &json!({})).unwrap().is_bearer);
    assert!(!tenant.user(&json!({}), &tenant.signing, &tenant.of_account()).unwrap().is_bearer);
    let scoped = tenant.user(&json!({}), &tenant.scoped, &tenant.of_account()).unwrap();
    assert!(scoped.is_bearer && scoped.may_publish("node.oauth.A.list") && !scoped.may_publish("node.oauth.A.token"));
}

#[test]
fn an_invalid_jwt_of_a_user_is_rejected() {
    let tenant = Tenant::new();
    let check = |issuer: &KeyPair, claims: Value, expected: Reason| {
        assert_eq!(tenant.user(&json!({}), issuer, &claims).unwrap_err().reason(), expected, "{claims}");
    };
    let (account, stranger) = (&tenant.account, KeyPair::new_account());
    check(account, json!({ "exp": NOW }), Reason::Expired);
    check(account, json!({ "nbf": NOW + 1 }), Reason::NotYetValid);
    check(account, json!({ "sub": stranger.public_key() }), Reason::Subject);
    check(account, json!({ "sub": "U" }), Reason::Subject);
    check(account, json!({ "nats": { "version": 1 } }), Reason::Form);
    check(account, json!({ "nats": { "type": "account" } }), Reason::Form);
    check(account, json!({ "nats": { "issuer_account": stranger.public_key() } }), Reason::Issuer);
    check(account, json!({ "nats": { "src": ["10.0.0.0/8"] } }), Reason::Restricted);
    check(account, json!({ "nats": { "times": [{ "start": "08:00:00", "end": "09:00:00" }] } }), Reason::Restricted);
    check(account, json!({ "nats": { "allowed_connection_types": ["MQTT"] } }), Reason::Restricted);
    check(&stranger, json!({}), Reason::Issuer);
    check(&stranger, tenant.of_account(), Reason::Issuer);
    check(&stranger, json!({ "iss": account.public_key() }), Reason::Signature);
    check(&tenant.signing, json!({}), Reason::Issuer);
    check(&tenant.operator, tenant.of_account(), Reason::Issuer);
    check(&tenant.user, tenant.of_account(), Reason::Issuer);
    let mut own = tenant.of_account();
    own["nats"]["bearer_token"] = json!(true);
    check(&tenant.scoped, own, Reason::Scope);
    let mut own = tenant.of_account();
    own["nats"]["pub"] = json!({ "allow": [">"] });
    check(&tenant.scoped, own, Reason::Scope);
}

#[test]
fn no_other_algorithm_is_taken_from_the_header() {
    let tenant = Tenant::new();
    for alg in ["ed25519", "none", "EdDSA", "HS256", "", "ED25519-NKEY"] {
        let claims = mint::user_claims(&tenant.account, &tenant.user, &json!({}));
        let jwt = mint::sign_as(&tenant.account, &json!({ "typ": "JWT", "alg": alg }), &claims);
        let parsed = Jwt::parse(&jwt, MAX_JWT_BYTES).unwrap();
        assert_eq!(user_of(&tenant.verified(&json!({})), &parsed).unwrap_err().reason(), Reason::Form, "{alg}");
    }
}

#[test]
fn the_accounts_jwt_revokes_users_and_forbids_bearers() {
    let tenant = Tenant::new();
    let key = tenant.user.public_key();
    let check = |account: Value, claims: Value, expected: Option<Reason>| {
        assert_eq!(
            tenant.user(&account, &tenant.account, &claims).err().map(|error| error.reason()),
            expected,
            "{account} {claims}"
        );
    };
    let issued = 1_700_000_000;
    check(json!({ "revocations": { &key: issued } }), json!({}), Some(Reason::Revoked));
    check(json!({ "revocations": { &key: issued - 1 } }), json!({}), None);
    check(json!({ "revocations": { "*": issued } }), json!({}), Some(Reason::Revoked));
    check(json!({ "revocations": { "*": issued } }), json!({ "iat": issued + 1 }), None);
    check(json!({ "revocations": { "*": 1 } }), json!({ "iat": null }), Some(Reason::Revoked));
    let no_bearers = json!({ "limits": { "disallow_bearer": true } });
    check(no_bearers.clone(), json!({ "nats": { "bearer_token": true } }), Some(Reason::BearersDisallowed));
    check(no_bearers, json!({}), None);
}

#[test]
fn an_account_needs_a_trusted_operator() {
    let tenant = Tenant::new();
    let (operators, other) = ([tenant.operator.public_key()], KeyPair::new_operator());
    let check = |text: String, expected: Reason| {
        assert_eq!(
            AccountJwt::verify(&text, &tenant.id(), &operators, now()).unwrap_err().reason(),
            expected,
            "{text}"
        );
    };
    let claims = |more: Value| {
        let mut claims = mint::account_claims(&tenant.operator, &tenant.account, &json!({}));
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    check(mint::account(&other, &tenant.account, &json!({})), Reason::Operator);
    check(mint::account(&tenant.account, &tenant.account, &json!({})), Reason::Operator);
    check(mint::account(&tenant.operator, &KeyPair::new_account(), &json!({})), Reason::UnknownAccount);
    check(mint::sign(&other, &claims(json!({}))), Reason::Signature);
    check(mint::sign(&tenant.operator, &claims(json!({ "exp": NOW }))), Reason::Expired);
    check(mint::sign(&tenant.operator, &claims(json!({ "nbf": NOW + 1 }))), Reason::NotYetValid);
    check(mint::user(&tenant.operator, &tenant.user, &json!({ "sub": tenant.account.public_key() })), Reason::Form);
    check(String::new(), Reason::Form);
    let both = [other.public_key(), tenant.operator.public_key()];
    assert!(AccountJwt::verify(&tenant.jwt(&json!({})), &tenant.id(), &both, now()).is_ok());
    // A user expires with its account's JWT, if that ends first.
    let ending = mint::sign(&tenant.operator, &claims(json!({ "exp": NOW + 60 })));
    let account = AccountJwt::verify(&ending, &tenant.id(), &operators, now()).unwrap();
    let jwt = mint::user(&tenant.account, &tenant.user, &json!({ "exp": NOW + 90 }));
    let user = user_of(&account, &Jwt::parse(&jwt, MAX_JWT_BYTES).unwrap()).unwrap();
    assert_eq!(user.expires.map(Timestamp::as_second), Some(NOW + 60));
}

#[test]
fn a_user_may_do_here_what_it_may_do_on_the_bus() {
    let tenant = Tenant::new();
    let check = |account: Value, user: Value, expected: bool| {
        let user = tenant.user(&account, &tenant.account, &json!({ "nats": user })).unwrap();
        assert_eq!(user.may_publish("node.oauth.A.token"), expected, "{account} {user:?}");
    };
    let defaults = json!({ "default_permissions": { "pub": { "allow": ["public.>"] } } });
    check(json!({}), json!({}), true);
    check(json!({}), json!({ "pub": { "allow": ["public.>"] } }), false);
    check(json!({}), json!({ "pub": { "allow": ["node.oauth.A.*"] } }), true);
    check(json!({}), json!({ "pub": { "allow": [">"], "deny": ["node.oauth.>"] } }), false);
    check(json!({}), json!({ "pub": { "deny": ["node.oauth.A"] } }), true);
    check(json!({}), json!({ "pub": { "deny": ["node.oauth.A.token.*"] } }), true);
    check(json!({}), json!({ "pub": { "allow": ["node.oauth.{{name()}}.token"] } }), false);
    check(json!({}), json!({ "pub": { "deny": ["node.{{name()}}"] } }), false);
    check(defaults.clone(), json!({}), false);
    check(defaults, json!({ "sub": { "allow": ["x"] } }), true);
}

#[test]
fn a_signature_is_for_one_key_and_text() {
    let tenant = Tenant::new();
    let user = tenant.user(&json!({}), &tenant.account, &json!({})).unwrap();
    let signature = tenant.user.sign(b"text").unwrap();
    assert!(user.verify_signature(b"text", &signature).is_ok());
    assert!(user.verify_signature(b"other", &signature).is_err());
    assert!(user.verify_signature(b"text", &signature[1..]).is_err());
    assert!(user.verify_signature(b"text", &tenant.account.sign(b"text").unwrap()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn no_claims_cause_a_panic(name in "[a-z_]{1,12}", number in any::<f64>(), text in ".{0,40}", place in 0_usize..4) {
        let tenant = Tenant::new();
        let value = [json!(number), json!(text), json!([text]), json!({ &name: number })][place].clone();
        for field in ["iss", "sub", "iat", "exp", "nbf", "nats", name.as_str()] {
            let _ = tenant.user(&json!({}), &tenant.account, &json!({ field: value }));
            let mut claims = mint::account_claims(&tenant.operator, &tenant.account, &json!({}));
            claims[field] = value.clone();
            let jwt = mint::sign(&tenant.operator, &claims);
            let _ = AccountJwt::verify(&jwt, &tenant.id(), &[tenant.operator.public_key()], now());
        }
        for field in ["signing_keys", "revocations", "limits", "default_permissions", "version"] {
            let jwt = mint::account(&tenant.operator, &tenant.account, &json!({ field: value }));
            let _ = AccountJwt::verify(&jwt, &tenant.id(), &[tenant.operator.public_key()], now());
        }
    }
}

#[test]
fn h18_only_the_type_of_nats_jwts_is_accepted() {
    #[track_caller]
    fn check(tenant: &Tenant, typ: Option<&str>, expected: Option<Reason>) {
        let mut header = json!({ "alg": ALGORITHM });
        if let Some(typ) = typ {
            header["typ"] = json!(typ);
        }
        let jwt =
            mint::sign_as(&tenant.account, &header, &mint::user_claims(&tenant.account, &tenant.user, &json!({})));
        let found = user_of(&tenant.verified(&json!({})), &Jwt::parse(&jwt, MAX_JWT_BYTES).unwrap());
        assert_eq!(found.err().map(|error| error.reason()), expected, "{typ:?}");
        let claims = mint::account_claims(&tenant.operator, &tenant.account, &json!({}));
        let jwt = mint::sign_as(&tenant.operator, &header, &claims);
        let found = AccountJwt::verify(&jwt, &tenant.id(), &[tenant.operator.public_key()], now());
        assert_eq!(found.err().map(|error| error.reason()), expected, "{typ:?}");
    }
    let tenant = Tenant::new();
    check(&tenant, Some("JWT"), None);
    check(&tenant, Some("jwt"), None);
    for typ in [None, Some("at+jwt"), Some("JOSE"), Some("")] {
        check(&tenant, typ, Some(Reason::Type));
    }
}
