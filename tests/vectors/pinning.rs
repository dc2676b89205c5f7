//! Keys and issuers that a policy cannot pin, each refused by its name.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tidegate::policy::issuer::{Alg, ClaimPath, Issuer, IssuerError, IssuerTerms, Issuers, PinnedKey, Profile, TypSet};
use tidegate::token::keys::{KeyTerms, MAX_KEY_FILE, import};
use tidegate::token::mint::MintKey;
use tidegate::token::verify;

use crate::refusals::{claims, header, sign, terms};

fn ed25519() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
}

fn changed(member: &str, value: Value) -> Value {
    let mut jwk = ed25519();
    jwk[member] = value;
    jwk
}

fn refusal(file: &str, alg: Option<Alg>) -> &'static str {
    import(file.as_bytes(), KeyTerms { alg, allow_demo_keys: false }).map_or_else(|error| error.name(), |_| "taken")
}

#[test]
fn each_bad_key_is_refused_by_its_name() {
    let rsa = |n: &[u8], e: &str| json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": e});
    let small_order = URL_SAFE_NO_PAD.encode([0; 32]);
    let named = changed("kid", json!("a"));
    let cases = [
        (ed25519(), "taken"),
        (changed("alg", json!("EdDSA")), "taken"),
        (changed("use", json!("sig")), "taken"),
        (changed("key_ops", json!(["verify"])), "taken"),
        (json!({"keys": [named.clone(), changed("kid", json!("b"))]}), "taken"),
        (rsa(&[0xd3; 256], "AQAB"), "taken"),
        (rsa(&[&[0][..], &[0xd3; 256]].concat(), "AAEAAQ"), "taken"),
        (changed("d", json!(small_order)), "PrivateKeyInBundle"),
        (changed("k", json!("")), "PrivateKeyInBundle"),
        (json!({"kty": "oct", "k": "AAAA"}), "PrivateKeyInBundle"),
        (changed("use", json!("enc")), "KeyNotForSignatures"),
        (changed("key_ops", json!(["sign"])), "KeyNotForSignatures"),
        (changed("key_ops", json!("verify")), "KeyNotForSignatures"),
        (changed("alg", json!("ES256")), "AlgMismatch"),
        (changed("alg", json!("none")), "AlgMismatch"),
        (changed("x", json!(small_order)), "WeakKey"),
        (changed("x", json!(URL_SAFE_NO_PAD.encode([2; 32]))), "WeakKey"),
        (changed("x", json!("AAAA")), "KeyMalformed"),
        (changed("x", json!("+")), "KeyMalformed"),
        (changed("x", json!(1)), "KeyMalformed"),
        (changed("kid", json!("")), "KeyMalformed"),
        (changed("crv", json!("Ed448")), "KeyUnsupported"),
        (changed("kty", json!("EC")), "KeyUnsupported"),
        (rsa(&[0xd3; 255], "AQAB"), "WeakKey"),
        (rsa(&[0xd3; 256], "Aw"), "WeakKey"),
        (rsa(&[0xd3; 1025], "AQAB"), "WeakKey"),
        (json!({"keys": [named.clone(), named]}), "DuplicateKid"),
        (json!({"keys": vec![ed25519(); 17]}), "TooManyKeys"),
        (json!({"keys": []}), "KeyMissing"),
        (json!({"keys": [1]}), "KeyMalformed"),
        (json!({"keys": 1}), "KeyMalformed"),
    ];
    for (jwk, name) in cases {
        assert_eq!(refusal(&jwk.to_string(), None), name, "{jwk}");
    }
    assert_eq!(refusal(&ed25519().to_string(), Some(Alg::Rs256)), "AlgMismatch");
    assert_eq!(refusal(&rsa(&[0xd3; 256], "AQAB").to_string(), Some(Alg::Es256)), "AlgMismatch");
    assert_eq!(refusal(&"x".repeat(MAX_KEY_FILE + 1), None), "KeyFileTooLarge");
    assert_eq!(refusal(r#"{"kty":"OKP","\u006bty":"OKP"}"#, None), "KeyMalformed", "a member said twice");
    assert_eq!(refusal("", None), "KeyMissing");
    assert_eq!(refusal("ssh-ed25519 AAAA", None), "KeyMissing");
    let pem = |label: &str| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode([0x30, 0]));
    assert_eq!(refusal(&pem("RSA PRIVATE KEY"), None), "PrivateKeyInBundle");
    assert_eq!(refusal(&pem("EC PRIVATE KEY"), None), "PrivateKeyInBundle");
    assert_eq!(refusal(&pem("PUBLIC KEY"), None), "KeyMalformed");
    assert_eq!(refusal(&pem("CERTIFICATE"), None), "KeyMalformed");
}

#[test]
fn an_rsa_key_without_alg_is_rs256_unless_the_policy_says_otherwise() {
    let jwk = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xd3; 256]), "e": "AQAB"}).to_string();
    let alg = |alg| import(jwk.as_bytes(), KeyTerms { alg, allow_demo_keys: false }).expect("sound").remove(0).alg();
    assert_eq!(alg(None), Alg::Rs256);
    assert_eq!(alg(Some(Alg::Ps512)), Alg::Ps512);
}

#[test]
fn a_certificate_gives_its_public_key_and_nothing_else() {
    let pair = rcgen::KeyPair::generate().expect("P-256");
    let mut expired = rcgen::CertificateParams::new(["old.example".into()]).expect("a name");
    expired.not_before = rcgen::date_time_ymd(1990, 1, 1);
    expired.not_after = rcgen::date_time_ymd(1990, 1, 2);
    let certificate = expired.self_signed(&pair).expect("signs").pem();
    let [from_certificate] = &import(certificate.as_bytes(), KeyTerms::default()).expect("a sound key")[..] else {
        panic!("one key")
    };
    let from_key = import(pair.public_key_pem().as_bytes(), KeyTerms::default()).expect("a sound key").remove(0);
    assert_eq!((from_certificate.digest(), from_certificate.alg()), (from_key.digest(), Alg::Es256));
    let minted = MintKey::import(pair.serialize_pem().as_bytes(), None).expect("PKCS#8");
    assert_eq!(minted.public().digest(), from_key.digest());
    // Key and certificate in one file, as servers keep them, is still a private key.
    assert_eq!(refusal(&(certificate + &pair.serialize_pem()), None), "PrivateKeyInBundle");
}

fn key() -> PinnedKey {
    terms().keys[0].clone()
}

fn unnamed() -> PinnedKey {
    import(ed25519().to_string().as_bytes(), KeyTerms::default()).expect("sound").remove(0)
}

fn issuer(change: impl FnOnce(&mut IssuerTerms)) -> Result<Issuer, IssuerError> {
    let mut terms = terms();
    change(&mut terms);
    Issuer::new(terms)
}

#[test]
fn an_issuer_whose_terms_do_not_hold_together_is_refused_by_name() {
    let name: Box<str> = "site".into();
    assert!(issuer(|_| {}).is_ok());
    let twice = IssuerError::DuplicateKid { issuer: name.clone(), kid: "k1".into() };
    let no_typ = TypSet { at_jwt: false, jwt: false, absent: false };
    let refused = [
        (issuer(|t| t.name = "".into()), IssuerError::Unnamed),
        (issuer(|t| t.iss = "".into()), IssuerError::Unnamed),
        (issuer(|t| t.keys = Box::default()), IssuerError::NoKey(name.clone())),
        (issuer(|t| t.keys = vec![key(); 17].into()), IssuerError::TooManyKeys(name.clone())),
        (issuer(|t| t.keys = vec![key(); 2].into()), twice.clone()),
        (issuer(|t| t.keys = Box::new([key(), unnamed()])), IssuerError::KidMissing(name.clone())),
        (issuer(|t| t.audiences = Box::default()), IssuerError::NoAudience(name.clone())),
        (issuer(|t| t.typ = no_typ), IssuerError::NoTyp(name.clone())),
        (issuer(|t| t.keys = Box::new([key().with_x5t(["x".into()])])), IssuerError::X5tNotAllowed(name.clone())),
        (
            issuer(|t| {
                t.profile = Profile::Wso2;
                t.keys = vec![unnamed(); 5].into();
            }),
            IssuerError::TooManyKeys(name),
        ),
        (
            issuer(|t| {
                t.profile = Profile::Wso2;
                t.keys = Box::new([key(), unnamed().with_x5t(["k1".into()])]);
            }),
            twice,
        ),
    ];
    for (issuer, error) in refused {
        assert_eq!(issuer.err(), Some(error));
    }
    let two = [issuer(|_| {}), issuer(|t| t.name = "other".into())].map(|issuer| issuer.expect("sound"));
    assert_eq!(Issuers::new(two, 1).err(), Some(IssuerError::DuplicateIssuer(terms().iss)));
}

#[test]
fn the_application_is_where_the_issuer_says_it_is() {
    let paths = Box::new([ClaimPath::nested("application", "uuid"), ClaimPath::top("azp")]);
    let issuers = Issuers::new([issuer(|t| t.client = paths).expect("sound")], 1).expect("one");
    for (application, client) in
        [(json!({"uuid": "u-1", "id": 7}), "u-1"), (json!({"uuid": null, "id": 7}), "app"), (json!({}), "app")]
    {
        let mut said = claims();
        said["application"] = application;
        let verified = verify(sign(&header(), &said).as_bytes(), &issuers).expect("good");
        assert_eq!(verified.client(), Some(client));
    }
}
