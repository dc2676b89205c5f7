//! Step 15: issuers, and keys of each kind.

use serde_json::{Value, json};

use super::super::Folder;
use super::super::keys::{base64, ec, roca, rsa};
use super::super::p256;
use super::{meaning, twin};
use crate::world::key;

fn issuer(slug: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    meaning(slug, about, |p| change(&mut p["issuers"]["issuers"][0]))
}

fn pinned(slug: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    issuer(slug, about, |issuer| change(&mut issuer["keys"][0]))
}

fn of_rsa(slug: &str, about: &str, n: &[u8], e: &[u8]) -> Folder {
    pinned(slug, about, |key| rsa(key, n, e))
}

/// The base point of P-384 (SEC 2, 2.5.1).
const P384: [&str; 2] = [
    "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7",
    "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
];

fn keys() -> Vec<Folder> {
    let mut smallest = [0xff; 256];
    smallest[0] = 0x80;
    let neighbour = {
        let mut n = roca();
        *n.last_mut().expect("a last byte") = 3;
        n
    };
    vec![
        pinned("key-p-256", "A key on P-256.", |key| {
            let raw = p256::public(2);
            ec(key, "P-256", &raw.raw()[1..33], &raw.raw()[33..]);
        }),
        pinned("key-p-384", "A key on P-384.", |key| {
            let [x, y] = P384.map(|text| tidegate::ids::unhex::<48>(text).expect("hex"));
            ec(key, "P-384", &x, &y);
        }),
        of_rsa("key-rsa-2048", "RSA of exactly 2048 bits.", &smallest, &[1, 0, 1]),
        of_rsa("key-rsa-8192", "RSA of exactly 8192 bits.", &[0xff; 1_024], &[1, 0, 1]),
        of_rsa("key-exponent-of-33-bits", "The largest exponent: 2^33 - 1.", &[0xd3; 256], &[1, 255, 255, 255, 255]),
        of_rsa("key-not-roca", "A modulus beside one of the flawed ROCA generator.", &neighbour, &[1, 0, 1]),
        issuer("keys-of-each-algorithm", "RSA keys for each of the six algorithms of theirs.", |issuer| {
            let like = issuer["keys"][0].clone();
            let of = |alg: &str| {
                twin(&like, |key| {
                    rsa(key, &[0xd3; 256], &[1, 0, 1]);
                    (key["alg"], key["kid"]) = (alg.into(), alg.into());
                })
            };
            issuer["keys"] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].map(of).to_vec().into();
        }),
        issuer("keys-16", "As many keys as an issuer has, their ids of 256 bytes.", |issuer| {
            let like = issuer["keys"][0].clone();
            let make = |n: u8| {
                twin(&like, |wire| {
                    wire["jwk"]["x"] = base64(key(30 + n).public().raw()).into();
                    wire["kid"] = format!("{n:0>256}").into();
                })
            };
            issuer["keys"] = (0..16).map(make).collect();
        }),
        issuer("key-without-id", "One key, without an id.", |issuer| {
            drop(issuer["keys"][0].as_object_mut().expect("members").remove("kid"))
        }),
    ]
}

pub fn cases() -> Vec<Folder> {
    let others = vec![
        issuer("profile-wso2", "An issuer of the profile wso2, whose keys answer to x5t, or to nothing.", |issuer| {
            let like = issuer["keys"][0].clone();
            let named = |n: u8, change: fn(&mut Value)| {
                twin(&like, |wire| {
                    wire["jwk"]["x"] = base64(key(30 + n).public().raw()).into();
                    drop(wire.as_object_mut().expect("members").remove("kid"));
                    change(wire);
                })
            };
            issuer["keys"] = json!([
                named(0, |key| key["x5t"] =
                    "MDJlNjIxN2E1OGZlOGVmMGQxOTFlMzBmNmFjZjQ0Y2YwOGY0N2I0YzE4YzZjNjRhYmRmMmQ0ODdiNDhjMGEwMA".into()),
                named(1, |_| ()),
                named(2, |_| ()),
                named(3, |_| ()),
                named(4, |_| ()),
            ]);
            (issuer["profile"], issuer["audiences"]) = ("wso2".into(), json!([]));
        }),
        issuer(
            "issuer-terms",
            "Claims by path and by name, types of both kinds and none, and a longest lifetime.",
            |issuer| {
                issuer["claims"] = json!({"application": ["/application/uuid", "azp"], "scope": "scp"});
                (issuer["types"], issuer["absent_type"]) = (json!(["at+jwt", "jwt"]), true.into());
                issuer["max_lifetime_s"] = u32::MAX.into();
            },
        ),
        meaning("two-issuers", "Two issuers in order, one key of one id at each.", |p| {
            let other = twin(&p["issuers"]["issuers"][0], |issuer| {
                (issuer["name"], issuer["iss"]) = ("site2".into(), "https://site2.example".into());
            });
            p["issuers"]["issuers"].as_array_mut().expect("a list").push(other);
            p["routes"]["apis"][0]["issuers"] = json!(["site2", "site"]);
        }),
    ];
    [keys(), others].concat()
}
