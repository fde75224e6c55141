//! An issuer of ordinary JWTs: its keys and its signatures.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// A signing key and its public key.
pub(crate) struct Signer {
    pub(crate) id: &'static str,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: EncodingKey,
    /// The key as an entry of a JWK set.
    pub(crate) public: Value,
}

/// A new key of that id, for that algorithm.
pub(crate) fn signer(id: &'static str, algorithm: Algorithm) -> Signer {
    if algorithm == Algorithm::EdDSA {
        return edwards(id);
    }
    let curve =
        [(Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256), (Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384)]
            .into_iter()
            .find_map(|(of, curve)| (of == algorithm).then_some(curve));
    let made = match curve {
        Some(curve) => rcgen::KeyPair::generate_for(curve),
        None => rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048),
    };
    let pem = made.expect("a key pair").serialize_pem();
    let key = match curve {
        Some(_) => EncodingKey::from_ec_pem(pem.as_bytes()),
        None => EncodingKey::from_rsa_pem(pem.as_bytes()),
    };
    let key = key.expect("a key to sign with");
    let public = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).expect("a public key"));
    let mut public = public.expect("a public key is JSON");
    public["kid"] = json!(id);
    Signer { id, algorithm, key, public }
}

/// Ed25519 in the form that the library takes: PKCS #8 with the public key in it (RFC 5958).
fn edwards(id: &'static str) -> Signer {
    let pair = nkeys::KeyPair::new_user();
    let (_, seed) = nkeys::decode_seed(&pair.seed().expect("a key pair has a seed")).expect("a seed");
    let (_, public) = nkeys::from_public_key(&pair.public_key()).expect("a public key");
    let head = [0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let der = [&head[..], &seed, &[0x81, 0x21, 0x00], &public].concat();
    let x = BASE64_URL_SAFE_NO_PAD.encode(public);
    let public = json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x, "kid": id });
    Signer { id, algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_der(&der), public }
}

impl Signer {
    /// A JWT with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(Some(self.id), claims)
    }

    /// The same with another key's id, or none.
    pub(crate) fn sign_as(&self, id: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).expect("a key signs")
    }
}
