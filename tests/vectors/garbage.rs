//! Noise, cuts and flipped bits: no panic, and nothing is let in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate::policy::issuer::{Alg, IssuerTerms};
use tidegate::token::keys::{KeyTerms, import};
use tidegate::token::mint::MintKey;
use tidegate::token::{TokenError, verify};

use crate::refusals::{claims, header, issuers, sign, sign_text, terms};
use crate::shared;

#[test]
fn every_cut_and_every_flipped_bit_of_a_good_token_is_refused() {
    let issuers = issuers(terms());
    let good = sign(&header(), &claims()).into_bytes();
    assert!(verify(&good, &issuers).is_ok());
    for cut in 0..good.len() {
        assert!(verify(&good[..cut], &issuers).is_err(), "cut at {cut}");
        assert!(verify(&good[cut + 1..], &issuers).is_err(), "from {cut}");
    }
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&flipped, &issuers).is_err(), "bit {bit}");
    }
}

#[test]
fn whatever_is_minted_verifies_and_under_its_own_key_only() {
    for alg in [Alg::EdDsa, Alg::Es256, Alg::Es384] {
        let [ours, theirs] = [(); 2].map(|()| MintKey::generate(alg).expect("ring makes it").named("k1"));
        let with = |key: &MintKey| issuers(IssuerTerms { keys: Box::new([key.public().clone()]), ..terms() });
        let token = ours.mint(Some("at+jwt"), &claims()).expect("signs");
        assert!(verify(token.as_bytes(), &with(&ours)).is_ok(), "{alg:?}");
        assert_eq!(verify(token.as_bytes(), &with(&theirs)), Err(TokenError::SignatureInvalid), "{alg:?}");
        // The key's own PEM, read back, is the same key.
        let again = MintKey::import(ours.private_pem().expect("PKCS#8").as_bytes(), None).expect("our own PEM");
        assert_eq!(again.public().digest(), ours.public().digest());
        let public = import(ours.public_pem().as_bytes(), KeyTerms::default()).expect("our own PEM").remove(0);
        assert_eq!((public.digest(), public.alg()), (ours.public().digest(), alg));
        let refused = import(ours.private_pem().expect("PKCS#8").as_bytes(), KeyTerms::default());
        assert_eq!(refused.map_err(|error| error.name()).err(), Some("PrivateKeyInBundle"));
    }
}

#[test]
fn a_private_jwk_that_says_its_algorithm_mints_with_no_other() {
    for (says, fits) in [("EdDSA", true), ("PS256", false)] {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": says, "d": URL_SAFE_NO_PAD.encode([9; 32])});
        assert_eq!(MintKey::import(jwk.to_string().as_bytes(), Some(Alg::EdDsa)).is_ok(), fits, "{says}");
    }
}

#[test]
fn a_private_jwk_mints_with_every_algorithm_that_its_key_can_have() {
    let seed = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k1", "d": URL_SAFE_NO_PAD.encode([9; 32])});
    let mut keys = vec![(seed, vec![Alg::EdDsa])];
    if let Some(path) = shared("vectors/wycheproof/json_web_signature_test.json") {
        let file: Value = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON");
        let groups = file["testGroups"].as_array().expect("groups");
        let rsa = [Alg::Rs256, Alg::Rs384, Alg::Rs512, Alg::Ps256, Alg::Ps384, Alg::Ps512];
        for (group, algs) in [("es256", vec![Alg::Es256]), ("rs256", rsa.to_vec())] {
            let group = groups.iter().find(|one| one["comment"] == group).expect("the group");
            let mut jwk = group["private"].clone();
            jwk.as_object_mut().expect("a JWK").remove("alg"); // which leaves the choice
            keys.push((jwk, algs));
        }
    }
    for (jwk, algs) in keys {
        for alg in algs {
            let key = MintKey::import(jwk.to_string().as_bytes(), Some(alg)).expect("a sound key").named("k1");
            assert_eq!(key.public().alg(), alg);
            let ours = issuers(IssuerTerms { keys: Box::new([key.public().clone()]), ..terms() });
            let token = key.mint(Some("at+jwt"), &claims()).expect("signs");
            assert!(verify(token.as_bytes(), &ours).is_ok(), "{alg:?}");
            // The negative control: the same signature under the name of a neighbouring algorithm.
            let (head, rest) = token.split_once('.').expect("dots");
            let head = String::from_utf8(URL_SAFE_NO_PAD.decode(head).expect("base64url")).expect("JSON");
            let other = if alg == Alg::Ps256 { "RS256" } else { "PS256" };
            let renamed = URL_SAFE_NO_PAD.encode(head.replace(alg.name(), other));
            let refused = verify(format!("{renamed}.{rest}").as_bytes(), &ours);
            assert_eq!(refused, Err(TokenError::AlgorithmNotAllowed), "{alg:?}");
        }
        let private = import(jwk.to_string().as_bytes(), KeyTerms::default());
        assert_eq!(private.map_err(|error| error.name()).err(), Some("PrivateKeyInBundle"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_never_a_token(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(verify(&bytes, &issuers(terms())).is_err());
    }

    #[test]
    fn signed_noise_is_never_claims(head in "\\PC{0,60}", body in "[\\[\\]{}\":,0-9a-z\\\\u.eE+ -]{0,200}") {
        let issuers = issuers(terms());
        prop_assert!(verify(sign_text(&head, &body).as_bytes(), &issuers).is_err());
        prop_assert!(verify(sign_text(&header().to_string(), &body).as_bytes(), &issuers).is_err());
    }

    #[test]
    fn noise_is_never_a_key(bytes in prop::collection::vec(any::<u8>(), 0..400), member in "[a-z0-9]{1,5}") {
        prop_assert!(import(&bytes, KeyTerms::default()).is_err());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            base64::engine::general_purpose::STANDARD.encode(&bytes));
        prop_assert!(import(pem.as_bytes(), KeyTerms::default()).is_err());
        let certificate = pem.replace("PUBLIC KEY", "CERTIFICATE");
        prop_assert!(import(certificate.as_bytes(), KeyTerms::default()).is_err());
        prop_assert!(MintKey::import(pem.replace("PUBLIC KEY", "PRIVATE KEY").as_bytes(), None).is_err());
        let jwk = json!({"kty": "RSA", "n": member.clone(), "e": "AQAB", member: 1}).to_string();
        prop_assert!(import(jwk.as_bytes(), KeyTerms::default()).is_err());
    }

    #[test]
    fn any_claims_that_a_maker_writes_come_out_as_they_went_in(
        sub in "\\PC{0,40}", client in "\\PC{0,40}", jti in "\\PC{0,40}", ends in 0_i64..=253_402_300_799,
        extra in "[a-z]{6,12}", value in any::<f64>().prop_filter("JSON knows no other", |f| f.is_finite()),
    ) {
        let mut said = claims();
        said["sub"] = json!(sub);
        said["azp"] = json!(client);
        said["jti"] = json!(jti);
        said["exp"] = json!(ends);
        said[extra.as_str()] = json!(value);
        let verified = verify(sign(&header(), &said).as_bytes(), &issuers(terms()));
        let verified = verified.map_err(|error| TestCaseError::fail(error.name()))?;
        prop_assert_eq!(verified.sub(), Some(sub.as_str()));
        prop_assert_eq!(verified.client(), Some(client.as_str()));
        prop_assert_eq!(verified.exp(), Some(ends));
    }
}
