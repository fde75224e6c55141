use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use serde_json::json;

use super::super::jwt::MAX_JWT_BYTES;
use super::*;
use crate::secret::Secret;

#[path = "../../../tests/support/issuer.rs"]
mod issuer;
use issuer::{Signer, signer};

const NOW: i64 = 1_800_000_000;
const SECRET_TEXT: &str = "0123456789abcdef0123456789abcdef";
const ACCOUNT: &str = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";

fn set(keys: &[&Value]) -> VerificationKeys {
    VerificationKeys::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn rules() -> Rules {
    Rules {
        issuer: "https://sso.example".to_owned(),
        audience: "tokenbus".to_owned(),
        account_claim: "account".to_owned(),
        role_claim: "/realm/roles".to_owned(),
        leeway: Duration::from_secs(30),
    }
}

fn claims() -> Value {
    json!({ "iss": "https://sso.example", "aud": "tokenbus", "sub": "ada", "exp": NOW + 60, "account": ACCOUNT })
}

fn verify(text: &str, keys: &VerificationKeys) -> Result<Valid, Rejection> {
    rules().verify(&Jwt::parse(text, MAX_JWT_BYTES)?, keys, Timestamp::from_second(NOW).unwrap())
}

#[test]
fn each_algorithm_needs_its_own_key() {
    let algorithms = [Algorithm::RS256, Algorithm::PS384, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
    let signers = algorithms.map(|algorithm| signer("k", algorithm));
    for signer in &signers {
        let jwt = signer.sign(&claims());
        let Valid { identity, until } = verify(&jwt, &set(&[&signer.public])).unwrap();
        assert_eq!(
            (identity.account.as_str(), identity.role, identity.actor.as_str()),
            (ACCOUNT, Role::Member, "jwt:ada")
        );
        assert_eq!(until.as_second(), NOW + 90);
        for other in signers.iter().filter(|other| other.algorithm != signer.algorithm) {
            assert!(verify(&jwt, &set(&[&other.public])).is_err(), "{:?}", other.algorithm);
        }
        assert!(verify(&jwt, &VerificationKeys::secret(&Secret::new(SECRET_TEXT))).is_err());
    }
    let hmac = EncodingKey::from_secret(SECRET_TEXT.as_bytes());
    let jwt = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &hmac).unwrap();
    assert!(verify(&jwt, &VerificationKeys::secret(&Secret::new(SECRET_TEXT))).is_ok());
    assert_eq!(
        verify(&jwt, &VerificationKeys::secret(&Secret::new("x".repeat(32)))).unwrap_err().reason(),
        Reason::Signature
    );
    let longer = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims(), &hmac).unwrap();
    assert_eq!(
        verify(&longer, &VerificationKeys::secret(&Secret::new(SECRET_TEXT))).unwrap_err().reason(),
        Reason::Algorithm
    );
}

#[test]
fn the_key_decides_the_algorithm() {
    let rsa = signer("k", Algorithm::RS256);
    let keys = set(&[&rsa.public]);
    // The public key as a shared secret, in each form that a library could take it in.
    let forms = [rsa.public["n"].to_string(), rsa.public.to_string(), json!({ "keys": [rsa.public] }).to_string()];
    for form in &forms {
        let header = Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::HS256) };
        let jwt = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(form.as_bytes())).unwrap();
        assert_eq!(verify(&jwt, &keys).unwrap_err().reason(), Reason::Algorithm);
    }
    // `none`, in any spelling, with and without a signature.
    let good = rsa.sign(&claims());
    let (_, rest) = good.split_once('.').unwrap();
    for alg in ["none", "None", "NONE", "", "RS256 "] {
        use base64::Engine as _;
        let header = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(json!({ "alg": alg, "kid": "k" }).to_string());
        for rest in [rest.to_owned(), format!("{}.", rest.split_once('.').unwrap().0)] {
            assert_eq!(verify(&format!("{header}.{rest}"), &keys).unwrap_err().reason(), Reason::Algorithm, "{alg}");
        }
    }
    // The key is for RS256 only, as it says itself; without saying so, for its whole family.
    let other = Signer { algorithm: Algorithm::RS384, ..signer("k", Algorithm::RS256) };
    assert_eq!(verify(&other.sign(&claims()), &set(&[&other.public])).unwrap_err().reason(), Reason::Algorithm);
    let mut open = other.public.clone();
    open.as_object_mut().unwrap().remove("alg");
    assert!(verify(&other.sign(&claims()), &set(&[&open])).is_ok());
}

#[test]
fn a_key_must_be_known_and_meant_for_signatures() {
    let (one, two) = (signer("one", Algorithm::ES256), signer("two", Algorithm::ES256));
    let keys = set(&[&one.public, &two.public]);
    assert!(verify(&two.sign(&claims()), &keys).is_ok());
    assert_eq!(verify(&one.sign_as(Some("two"), &claims()), &keys).unwrap_err().reason(), Reason::Signature);
    assert_eq!(verify(&one.sign_as(Some("three"), &claims()), &keys).unwrap_err().reason(), Reason::Key);
    assert_eq!(verify(&one.sign_as(None, &claims()), &keys).unwrap_err().reason(), Reason::Key);
    assert!(verify(&one.sign_as(None, &claims()), &set(&[&one.public])).is_ok());
    for (field, value) in [("use", json!("enc")), ("key_ops", json!(["sign"])), ("alg", json!("RS256"))] {
        let mut public = one.public.clone();
        public[field] = value;
        assert_eq!(verify(&one.sign(&claims()), &set(&[&public])).unwrap_err().reason(), Reason::Key, "{field}");
    }
    let secret =
        json!({ "kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY", "kid": "one", "alg": "HS256" });
    let hmac = EncodingKey::from_secret(SECRET_TEXT.as_bytes());
    let jwt = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &hmac).unwrap();
    assert_eq!(verify(&jwt, &set(&[&secret])).unwrap_err().reason(), Reason::Key);
    let short = json!({ "kty": "RSA", "n": "AQAB".repeat(32), "e": "AQAB", "kid": "one" });
    assert_eq!(
        set(&[&short, &json!(7), &json!({}), &json!({ "kty": "new" })]).find(None, Algorithm::RS256).err(),
        Some(Reason::Key)
    );
}

#[test]
fn every_required_claim_is_checked() {
    let signer = signer("k", Algorithm::ES256);
    let keys = set(&[&signer.public]);
    let check = |field: &str, value: Value, expected: Option<Reason>| {
        let mut claims = claims();
        let fields = claims.as_object_mut().unwrap();
        if value.is_null() {
            fields.remove(field)
        } else {
            fields.insert(field.to_owned(), value)
        };
        assert_eq!(verify(&signer.sign(&claims), &keys).err().map(|error| error.reason()), expected, "{claims}");
    };
    check("exp", Value::Null, Some(Reason::Expired));
    check("exp", json!(NOW - 30), Some(Reason::Expired));
    check("exp", json!(NOW - 29), None);
    check("exp", json!(1.9e9), None);
    check("exp", json!(1e300), None);
    check("exp", json!(-1e300), Some(Reason::Expired));
    check("exp", json!(u64::MAX), None);
    check("exp", json!("2030"), Some(Reason::Form));
    check("nbf", json!(NOW + 31), Some(Reason::NotYetValid));
    check("nbf", json!(NOW + 30), None);
    check("nbf", json!([]), Some(Reason::Form));
    check("iss", Value::Null, Some(Reason::Issuer));
    check("iss", json!("https://sso.example/"), Some(Reason::Issuer));
    check("iss", json!(["https://sso.example"]), Some(Reason::Issuer));
    check("aud", Value::Null, Some(Reason::Audience));
    check("aud", json!("other"), Some(Reason::Audience));
    check("aud", json!(["other", "tokenbus"]), None);
    check("sub", Value::Null, Some(Reason::Subject));
    check("sub", json!(""), Some(Reason::Subject));
    check("account", Value::Null, Some(Reason::Account));
    check("account", json!("*"), Some(Reason::Account));
    check("account", json!(nkeys::KeyPair::new_user().public_key()), Some(Reason::Account));
    check("account", json!([ACCOUNT]), Some(Reason::Account));
}

#[test]
fn unknown_roles_are_members_and_subjects_are_made_printable() {
    let now = Timestamp::from_second(NOW).unwrap();
    let caller = |field: &str, value: Value| {
        let mut claims = claims();
        claims[field] = value;
        rules().check_claims(&claims, now).unwrap().identity
    };
    assert_eq!(caller("realm", json!({ "roles": ["user", "admin"] })).role, Role::Admin);
    assert_eq!(caller("realm", json!({ "roles": "admin" })).role, Role::Admin);
    assert_eq!(caller("realm", json!({ "roles": "administrator" })).role, Role::Member);
    assert_eq!(caller("role", json!("admin")).role, Role::Member);
    assert_eq!(caller("sub", json!("auth0|ada\n*.> \u{fc}")).actor, "jwt:auth0|ada__.___");
    assert_eq!(caller("sub", json!("x".repeat(500))).actor.len(), 4 + MAX_SUBJECT_CHARS);
}

#[test]
fn incomplete_settings_are_rejected() {
    let client = provider::Client::new(&provider::Settings::default()).unwrap();
    let check = |change: &dyn Fn(&mut config::Jwt), expected: Option<&str>| {
        let mut settings = config::load(None).unwrap().auth.jwt;
        change(&mut settings);
        assert_eq!(Verifier::new(&settings, &client).err(), expected);
    };
    check(&|_| {}, None);
    check(&|jwt| jwt.audience = "a".to_owned(), Some("auth.jwt needs `issuer`"));
    check(&|jwt| jwt.issuer = "i".to_owned(), Some("auth.jwt needs `audience`"));
    let named = |jwt: &mut config::Jwt| (jwt.issuer, jwt.audience) = ("i".to_owned(), "a".to_owned());
    check(&named, Some("auth.jwt needs `jwks_url` or `secret`"));
    let short = |jwt: &mut config::Jwt| {
        named(jwt);
        jwt.secret = Secret::new("short");
    };
    check(&short, Some("auth.jwt.secret must be at least 32 bytes long"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_claims_or_keys_cause_a_panic(name in "[a-z]{1,8}", number in any::<f64>(), text in ".{0,60}", body in ".{0,200}") {
        let now = Timestamp::from_second(NOW).unwrap();
        for field in ["exp", "nbf", "iss", "aud", "sub", "account", "realm", name.as_str()] {
            for value in [json!(number), json!(text), json!([text]), json!({ "roles": number })] {
                let mut claims = claims();
                claims[field] = value;
                let _ = rules().check_claims(&claims, now);
            }
        }
        let _ = VerificationKeys::parse(body.as_bytes());
        let rsa = json!({ "kty": "RSA", "n": text, "e": text });
        let curve = json!({ "kty": "EC", "crv": "P-256", "x": text, "y": text });
        let _ = set(&[&rsa, &curve]);
    }
}
