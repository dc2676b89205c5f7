//! Step 15: the keys that issuers sign tokens with, as a policy pins them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Folder, refused, sound};

/// The next policy, its one pinned key changed.
fn case(slug: &str, name: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    let spoilt = |policy: &mut Value| change(&mut policy["issuers"]["issuers"][0]["keys"][0]);
    refused("keys", slug, name, about, sound::compiled(spoilt, |text| text))
}

pub fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn rsa(key: &mut Value, n: &[u8], e: &[u8]) {
    (key["alg"], key["jwk"]) = ("RS256".into(), json!({"e": base64(e), "kty": "RSA", "n": base64(n)}));
}

fn weak_rsa(slug: &str, about: &str, n: &[u8], e: &[u8]) -> Folder {
    case(slug, "WeakKey", about, |key| rsa(key, n, e))
}

fn weak_ed25519(slug: &str, about: &str, x: [u8; 32]) -> Folder {
    case(slug, "WeakKey", about, |key| key["jwk"]["x"] = base64(&x).into())
}

pub fn ec(key: &mut Value, curve: &str, x: &[u8], y: &[u8]) {
    key["alg"] = if curve == "P-256" { "ES256" } else { "ES384" }.into();
    key["jwk"] = json!({"crv": curve, "kty": "EC", "x": base64(x), "y": base64(y)});
}

fn weak_ec(slug: &str, about: &str, curve: &str, x: &[u8], y: &[u8]) -> Folder {
    case(slug, "WeakKey", about, |key| ec(key, curve, x, y))
}

/// A modulus of the flawed generator of CVE-2017-15361 shows by being a power of 65537 modulo each of the first primes.
/// This one is 1 modulo all of them: their product, shifted, and one.
pub fn roca() -> Vec<u8> {
    let primes = (3_u32..=167).filter(|n| (2..*n).all(|divisor| n % divisor != 0));
    let mut product = vec![1_u8];
    for prime in primes {
        let mut carry = 0;
        for byte in product.iter_mut().rev() {
            let sum = u32::from(*byte) * prime + carry;
            *byte = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
        if carry > 0 {
            product.insert(0, u8::try_from(carry).expect("less than a prime of eight bits"));
        }
    }
    product.resize(260, 0);
    product[259] = 1;
    product
}

fn weak() -> Vec<Folder> {
    let sound_n = [0xd3; 256];
    let mut bits_2047 = sound_n;
    bits_2047[0] = 0x7f;
    let mut even = sound_n;
    even[255] = 0xd2;
    let (mut minus_one, mut one_and_p, mut y_of_p) = ([0xff; 32], [0xff; 32], [0xff; 32]);
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    (one_and_p[0], one_and_p[31]) = (0xee, 0x7f);
    // y = p + 3: the same point as y = 3, in a form that nobody may write.
    (y_of_p[0], y_of_p[31]) = (0xf0, 0x7f);
    let mut two = [0; 32];
    two[0] = 2;
    let p256 = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
    let p256: [u8; 32] = tidegate::ids::unhex(p256).expect("hex");
    vec![
        weak_rsa("rsa-512", "RSA of 512 bits, which a laptop factors.", &sound_n[..64], &[1, 0, 1]),
        weak_rsa("rsa-2047", "RSA of 2047 bits, one under the limit.", &bits_2047, &[1, 0, 1]),
        weak_rsa("rsa-8200", "RSA of more than 8192 bits: every check would be slow.", &[0xd3; 1_025], &[1, 0, 1]),
        weak_rsa(
            "rsa-padded-with-zeros",
            "RSA of 1024 bits behind zeros that make it look long.",
            &[&[0; 128][..], &sound_n[..128]].concat(),
            &[1, 0, 1],
        ),
        weak_rsa("rsa-even", "An even modulus.", &even, &[1, 0, 1]),
        weak_rsa("rsa-roca", "A modulus of the flawed ROCA generator (CVE-2017-15361).", &roca(), &[1, 0, 1]),
        weak_rsa("rsa-exponent-1", "Exponent 1: a signature is what it signs.", &sound_n, &[1]),
        weak_rsa("rsa-exponent-3", "Exponent 3.", &sound_n, &[3]),
        weak_rsa("rsa-exponent-even", "An even exponent.", &sound_n, &[1, 0, 2]),
        weak_rsa("rsa-exponent-of-34-bits", "An exponent of 34 bits.", &sound_n, &[2, 0, 0, 0, 1]),
        weak_ed25519("ed25519-order-4", "A point of order 4.", [0; 32]),
        weak_ed25519("ed25519-order-2", "A point of order 2.", minus_one),
        weak_ed25519("ed25519-order-1-not-canonical", "The point of order 1, written as y + p.", one_and_p),
        weak_ed25519("ed25519-not-canonical", "A point written as y + p: two texts of one key.", y_of_p),
        weak_ed25519("ed25519-no-point", "A y coordinate of no point.", two),
        weak_ec("p256-zero", "The point (0, 0), which is not on P-256.", "P-256", &[0; 32], &[0; 32]),
        weak_ec(
            "p256-off-curve",
            "A point beside the curve, by which private keys of others could be asked for.",
            "P-256",
            &[1; 32],
            &[2; 32],
        ),
        weak_ec("p256-over-p", "A coordinate that is the prime itself.", "P-256", &p256, &[1; 32]),
        weak_ec("p256-short", "A coordinate of 31 bytes.", "P-256", &[1; 31], &[2; 32]),
        weak_ec("p384-of-p256", "A point of P-256 as one of P-384.", "P-384", &[1; 32], &[2; 32]),
    ]
}

fn leaked() -> Vec<Folder> {
    let leaked = |slug: &str, about: &str, change: fn(&mut Value)| case(slug, "PrivateKeyInBundle", about, change);
    let mut cases = vec![
        leaked("symmetric", "A symmetric key: whoever checks tokens by it can make them.", |key| {
            (key["alg"], key["jwk"]) = ("HS256".into(), json!({"k": "c2VjcmV0", "kty": "oct"}));
        }),
        leaked("private-not-text", "A private member that is no text.", |key| key["jwk"]["d"] = 7.into()),
        leaked("private-in-a-set", "A set of keys, one with its private half.", |key| {
            key["jwk"] = json!({"keys": [{"crv": "Ed25519", "d": "AA", "kty": "OKP", "x": "AA"}]});
        }),
        leaked("private-elsewhere", "A private key in a member that the entry does not have.", |key| {
            key["backup"] = json!([{"crv": "Ed25519", "d": "AA", "kty": "OKP", "x": "AA"}]);
        }),
    ];
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        let about = format!("The private member {member} of a JWK.");
        cases.push(case(&format!("private-{member}"), "PrivateKeyInBundle", &about, |key| {
            key["jwk"][member] = "AA".into()
        }));
    }
    cases
}

pub fn cases() -> Vec<Folder> {
    let invalid = |slug: &str, about: &str, change: fn(&mut Value)| case(slug, "SemanticInvalid", about, change);
    let issuer = |slug: &str, name: &str, about: &str, change: fn(&mut Value)| {
        let spoilt = |policy: &mut Value| change(&mut policy["issuers"]["issuers"][0]);
        refused("keys", slug, name, about, sound::compiled(spoilt, |text| text))
    };
    let others = vec![
        issuer(
            "kid-twice",
            "DuplicateKid",
            "Two keys of one id: which of them a token means would be chance.",
            |issuer| {
                issuer["keys"] = json!([issuer["keys"][0], issuer["keys"][0]]);
            },
        ),
        issuer("kid-twice-of-two-keys", "DuplicateKid", "Two different keys of one id.", |issuer| {
            let mut other = issuer["keys"][0].clone();
            other["jwk"]["x"] = base64(crate::world::key(30).public().raw()).into();
            issuer["keys"] = json!([issuer["keys"][0], other]);
        }),
        issuer(
            "keys-too-many",
            "SemanticInvalid",
            "More keys than an issuer has: a token without an id would be tried on all.",
            |issuer| {
                let key = |n: usize| {
                    let mut key = issuer["keys"][0].clone();
                    key["kid"] = format!("{n:04}").into();
                    key
                };
                let keys: Vec<_> = (0..=tidegate::policy::issuer::MAX_KEYS).map(key).collect();
                issuer["keys"] = keys.into();
            },
        ),
        issuer("iss-empty", "SemanticInvalid", "An issuer that signs as nobody.", |issuer| issuer["iss"] = "".into()),
        refused(
            "keys",
            "two-issuers-of-one-iss",
            "SemanticInvalid",
            "Two issuers of one name in tokens: whose keys count would be chance.",
            {
                let twice = |policy: &mut Value| {
                    let mut other = policy["issuers"]["issuers"][0].clone();
                    other["name"] = "site2".into();
                    policy["issuers"]["issuers"].as_array_mut().expect("a list").push(other);
                };
                sound::compiled(twice, |text| text)
            },
        ),
        refused("keys", "issuers-unsorted", "SemanticInvalid", "Issuers out of order.", {
            let unsorted = |policy: &mut Value| {
                let mut other = policy["issuers"]["issuers"][0].clone();
                (other["name"], other["iss"]) = ("a".into(), "https://a.example".into());
                policy["issuers"]["issuers"].as_array_mut().expect("a list").push(other);
            };
            sound::compiled(unsorted, |text| text)
        }),
        issuer("no-keys", "SemanticInvalid", "An issuer of no keys.", |issuer| issuer["keys"] = json!([])),
        issuer(
            "keys-without-id",
            "SemanticInvalid",
            "Two keys, one of them without an id: no token can choose it.",
            |issuer| {
                let mut other = issuer["keys"][0].clone();
                other["jwk"]["x"] = base64(crate::world::key(30).public().raw()).into();
                drop(other.as_object_mut().expect("members").remove("kid"));
                issuer["keys"] = json!([issuer["keys"][0], other]);
            },
        ),
        issuer(
            "five-keys-without-name",
            "SemanticInvalid",
            "Five keys of the profile wso2 without any name.",
            |issuer| {
                let like = issuer["keys"][0].clone();
                let key = |n: u8| {
                    let mut key = like.clone();
                    key["jwk"]["x"] = base64(crate::world::key(30 + n).public().raw()).into();
                    drop(key.as_object_mut().expect("members").remove("kid"));
                    key
                };
                issuer["keys"] = (0..5).map(key).collect();
                issuer["profile"] = "wso2".into();
            },
        ),
        issuer(
            "x5t-of-strict",
            "SemanticInvalid",
            "A key that answers to x5t, at an issuer of the profile strict.",
            |issuer| issuer["keys"][0]["x5t"] = "abc".into(),
        ),
        issuer("no-audiences", "SemanticInvalid", "An issuer whose tokens may be for anybody.", |issuer| {
            issuer["audiences"] = json!([])
        }),
        issuer("no-types", "SemanticInvalid", "An issuer no token of which would be let in.", |issuer| {
            issuer["types"] = json!([])
        }),
        issuer("lifetime-of-2-32", "SemanticInvalid", "A longest lifetime one above the largest.", |issuer| {
            issuer["max_lifetime_s"] = (1_u64 << 32).into()
        }),
        issuer("claim-of-one-name", "SemanticInvalid", "A claim's path of one name.", |issuer| {
            issuer["claims"]["application"] = json!(["/uuid"])
        }),
        issuer("profile-unknown", "SemanticInvalid", "A profile that there is not.", |issuer| {
            issuer["profile"] = "lax".into()
        }),
        issuer("type-unknown", "SemanticInvalid", "A token type that there is not.", |issuer| {
            issuer["types"] = json!(["none"])
        }),
        invalid("alg-none", "The algorithm none.", |key| key["alg"] = "none".into()),
        invalid(
            "alg-symmetric",
            "A symmetric algorithm for a public key: the key, which everybody knows, would be the secret.",
            |key| key["alg"] = "HS256".into(),
        ),
        invalid("alg-of-another-kind", "An RSA algorithm for an Ed25519 key.", |key| key["alg"] = "RS256".into()),
        invalid("x5c", "A certificate chain in a key: nothing looks at it, so nothing may say it.", |key| {
            key["jwk"]["x5c"] = "".into()
        }),
        invalid("padding", "A coordinate with padding: two texts of one key.", |key| {
            let padded = format!("{}=", key["jwk"]["x"].as_str().expect("text"));
            key["jwk"]["x"] = padded.into();
        }),
        invalid("unused-bits", "A coordinate whose last letter has bits that stand for nothing.", |key| {
            let text = key["jwk"]["x"].as_str().expect("text");
            let last = text.chars().last().and_then(|c| char::from_u32(c as u32 + 1)).expect("a letter");
            key["jwk"]["x"] = format!("{}{last}", &text[..text.len() - 1]).into();
        }),
        invalid("kid-of-257", "A key id one byte over its limit.", |key| key["kid"] = "k".repeat(257).into()),
        invalid("kid-empty", "A key id that no token can name.", |key| key["kid"] = "".into()),
        invalid("curve-unknown", "A curve that nobody checks.", |key| key["jwk"]["crv"] = "secp256k1".into()),
    ];
    [weak(), leaked(), others].concat()
}
