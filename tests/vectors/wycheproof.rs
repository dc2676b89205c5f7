//! Wycheproof's JWS, JWK and raw signature files, ed25519-speccheck and RFC 7515's appendix A, through the code that
//! judges a request's token: nothing invalid is accepted, and every valid case that is refused stands in a list.

use std::collections::BTreeMap;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tidegate::policy::issuer::{Alg, Issuer, IssuerTerms, Issuers, PinnedKey, TypSet};
use tidegate::token::keys::{KeyTerms, import};
use tidegate::token::{Compact, Signed, TokenError, verify};

use crate::shared;

fn read(path: &str) -> Option<Value> {
    let text = fs::read(shared(&format!("vectors/{path}"))?).expect("the vectors are readable");
    Some(serde_json::from_slice(&text).expect("the vectors are JSON"))
}

fn list<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    value[member].as_array().expect("a list").iter()
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hex").as_bytes();
    text.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex")).collect()
}

/// What became of a file's cases.
#[derive(Default, Debug, PartialEq, Eq)]
struct Tally {
    accepted: usize,
    refused: usize,
    /// Case number and reason of each valid case that is refused.
    lost: BTreeMap<u64, String>,
}

impl Tally {
    fn count(&mut self, case: &Value, outcome: Result<(), String>) {
        let id = case["tcId"].as_u64().expect("a number");
        match (case["result"].as_str().expect("a result"), outcome) {
            ("invalid", Ok(())) => panic!("invalid case {id} is accepted: {}", case["comment"]),
            ("valid", Err(reason)) => {
                self.lost.insert(id, reason);
            }
            (_, Ok(())) => self.accepted += 1,
            (_, Err(_)) => self.refused += 1,
        }
    }
}

/// Steps 1 to 7 on a bare JWS, whose payload need not be claims.
fn check(token: &str, keys: &[PinnedKey]) -> Result<(), TokenError> {
    let jws = Compact::read(token.as_bytes())?;
    if jws.padded() {
        return Err(TokenError::TokenBase64);
    }
    let header = jws.header()?;
    let key = match (&header.kid, keys) {
        (None, [only]) => Some(only),
        (kid, _) => keys.iter().find(|key| key.kid() == kid.as_deref()),
    };
    jws.check(&header, key.ok_or(TokenError::KidUnknown)?)
}

fn judge_file(path: &str) -> Option<Tally> {
    let file = read(path)?;
    let mut tally = Tally::default();
    for group in list(&file, "testGroups") {
        let jwk = group.get("public").unwrap_or(&group["private"]);
        let keys = import(jwk.to_string().as_bytes(), KeyTerms::default());
        for case in list(group, "tests") {
            let token = case["jws"].as_str().map_or_else(|| case["jws"].to_string(), Into::into);
            let outcome = match &keys {
                Err(error) => Err(error.name().into()),
                Ok(keys) => check(&token, keys).map_err(|error| error.name().into()),
            };
            tally.count(case, outcome);
        }
    }
    println!("{path}: {} accepted, {} refused, valid but refused: {:?}", tally.accepted, tally.refused, tally.lost);
    Some(tally)
}

fn lost(groups: &[(&str, &[u64])]) -> BTreeMap<u64, String> {
    groups.iter().flat_map(|(reason, ids)| ids.iter().map(|id| (*id, (*reason).into()))).collect()
}

#[test]
fn of_wycheproofs_jws_no_invalid_one_is_accepted() {
    let Some(tally) = judge_file("wycheproof/json_web_signature_test.json") else { return };
    // HS256 keys are never pinned; ES512 is not supported; a PS256 key signs no PS384 token.
    let symmetric = [1, 348, 352, 357, 358, 359, 372, 373, 376, 377];
    let expected =
        lost(&[("PrivateKeyInBundle", &symmetric), ("AlgorithmNotAllowed", &[346, 350]), ("AlgMismatch", &[347, 351])]);
    assert_eq!(tally.lost, expected);
    assert_eq!((tally.accepted, tally.refused), (32, 355));
}

#[test]
fn of_wycheproofs_key_sets_no_invalid_one_is_accepted() {
    let Some(tally) = judge_file("wycheproof/json_web_key_test.json") else { return };
    assert_eq!(tally.lost, lost(&[("PrivateKeyInBundle", &[2, 13, 14, 15])]));
    assert_eq!((tally.accepted, tally.refused), (1, 21));
}

#[test]
fn bad_jwks_are_refused_by_name() {
    let Some(file) = read("wycheproof/json_web_key_test.json") else { return };
    let mut names = BTreeMap::new();
    for group in list(&file, "testGroups") {
        let jwk = group.get("public").unwrap_or(&group["private"]);
        let name =
            import(jwk.to_string().as_bytes(), KeyTerms::default()).map_or_else(|error| error.name(), |_| "taken");
        names.insert(group["comment"].as_str().expect("a comment"), name);
    }
    for (comment, name) in [
        ("jws_rsa_roca_key", "WeakKey"),
        ("keysize_too_small", "WeakKey"),
        ("exponentOne", "WeakKey"),
        ("invalid_point", "WeakKey"),
        ("wrong_curve", "WeakKey"),
        ("wrong_algorithm", "AlgMismatch"),
        ("invalid_use", "KeyNotForSignatures"),
        ("jws_mixedSymmetryKeyset", "PrivateKeyInBundle"),
    ] {
        assert_eq!(names.get(comment), Some(&name), "{comment}");
    }
}

fn raw(path: &str, alg: Alg) -> Option<Tally> {
    let file = read(path)?;
    let mut tally = Tally::default();
    let terms = KeyTerms { alg: Some(alg), ..KeyTerms::default() };
    for group in list(&file, "testGroups") {
        let pem = group["publicKeyPem"].as_str().expect("PEM");
        let keys = import(pem.as_bytes(), terms);
        for case in list(group, "tests") {
            let (message, signature) = (unhex(&case["msg"]), unhex(&case["sig"]));
            let outcome = match &keys {
                Err(error) => Err(error.name().into()),
                Ok(keys) => {
                    let signed = Signed { message: &message, signature: &signature };
                    signed.check(&keys[0]).map_err(|error| error.name().to_owned())
                }
            };
            tally.count(case, outcome);
        }
    }
    println!("{path}: {} accepted, {} refused, valid but refused: {:?}", tally.accepted, tally.refused, tally.lost);
    Some(tally)
}

#[test]
fn of_wycheproofs_raw_signatures_no_invalid_one_is_accepted() {
    // Exponent 3 is refused on import (FIPS 186-5, 5.4); WeakKey is the whole loss.
    let cases = [
        ("ed25519_test", Alg::EdDsa, &[][..]),
        ("ecdsa_secp256r1_sha256_p1363_test", Alg::Es256, &[]),
        ("ecdsa_secp384r1_sha384_p1363_test", Alg::Es384, &[]),
        ("rsa_signature_2048_sha256_test", Alg::Rs256, &[258, 259]),
        ("rsa_signature_2048_sha384_test", Alg::Rs384, &[]),
        ("rsa_signature_2048_sha512_test", Alg::Rs512, &[259]),
        ("rsa_signature_3072_sha256_test", Alg::Rs256, &[259]),
        ("rsa_pss_2048_sha256_mgf1_32_test", Alg::Ps256, &[]),
    ];
    for (name, alg, weak) in cases {
        let Some(tally) = raw(&format!("wycheproof/{name}.json"), alg) else { return };
        assert_eq!(tally.lost, lost(&[("WeakKey", weak)]), "{name}");
        assert!(tally.accepted > 0, "{name}: the negative control");
    }
}

#[test]
fn a_der_signature_is_never_taken_for_es256() {
    let Some(tally) = raw("wycheproof/ecdsa_secp256r1_sha256_test.json", Alg::Es256) else { return };
    assert_eq!(tally.accepted, 0);
    assert!(tally.lost.len() > 150);
}

#[test]
fn every_disputed_ed25519_case_with_a_weak_key_falls_with_the_key() {
    let Some(cases) = read("ed25519-speccheck/cases.json") else { return };
    let mut verdicts = Vec::new();
    for case in cases.as_array().expect("a list") {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(unhex(&case["pub_key"]))});
        let (message, signature) = (unhex(&case["message"]), unhex(&case["signature"]));
        verdicts.push(match import(jwk.to_string().as_bytes(), KeyTerms::default()) {
            Err(error) => error.name(),
            Ok(keys) => {
                let signed = Signed { message: &message, signature: &signature };
                signed.check(&keys[0]).map_or_else(TokenError::name, |()| "accepted")
            }
        });
    }
    println!("ed25519-speccheck: {verdicts:?}");
    // 0 and 1: small-order keys, refused on import. 2 and 3: a small-order R or a mixed-order key, which every verifier
    // that follows RFC 8032 without cofactor accepts. 4 to 9: what only the cofactored equation, an S that is not
    // reduced or an R that is not canonical would need.
    let (import, judge) = (["WeakKey"; 2], ["SignatureInvalid"; 6]);
    let expected: Vec<&str> = import.into_iter().chain(["accepted"; 2]).chain(judge).collect();
    assert_eq!(verdicts, expected);
}

#[test]
fn rfc_7515s_own_tokens_get_the_verdict_that_a_gateway_owes_them() {
    let Some(file) = read("rfc7515/appendix-a.json") else { return };
    let es256 = list(&file, "tests").find(|test| test["alg"] == "ES256").expect("A.3");
    let keys = import(es256["key"].to_string().as_bytes(), KeyTerms::default()).expect("a sound key");
    let terms = IssuerTerms {
        name: "joe".into(),
        iss: "joe".into(),
        audiences: Box::new(["orders".into()]),
        typ: TypSet { absent: true, ..TypSet::default() },
        keys: keys.clone().into(),
        ..IssuerTerms::default()
    };
    let issuers = Issuers::new([Issuer::new(terms).expect("sound terms")], 1).expect("one issuer");
    for test in list(&file, "tests") {
        let token = test["compact"].as_str().expect("a token");
        let (bare, whole) = match test["alg"].as_str().expect("an algorithm") {
            // Its signature is good; it has no aud.
            "ES256" => (Ok(()), TokenError::ClaimMissing),
            _ => (Err(TokenError::AlgorithmNotAllowed), TokenError::AlgorithmNotAllowed),
        };
        assert_eq!(check(token, &keys), bare, "{}", test["name"]);
        assert_eq!(verify(token.as_bytes(), &issuers), Err(whole), "{}", test["name"]);
    }
}
