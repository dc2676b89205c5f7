//! The issuers of a policy and their pinned keys.

use super::{check_texts, invalid};
use crate::bundle::entry::{self, JsonEntry as _};
use crate::bundle::error::SemanticProblem;
use crate::keys::sha256;
use crate::policy::issuer::{Alg, ClaimPath, Issuer, IssuerError, IssuerTerms, Issuers, PinnedKey, Profile, TypSet};
use crate::token::keys::{self, KeyError, KeyTerms};
use crate::token::{MAX_KID, is_key_name};

/// Reads the entry. The digest of its bytes names this set of keys, so that no other set shares its verified tokens.
pub(super) fn pinned(bytes: &[u8]) -> Result<Issuers, SemanticProblem> {
    let wire = entry::Issuers::from_bytes(bytes).map_err(|error| {
        if holds_private_key(bytes) {
            return SemanticProblem::PrivateKeyInBundle("entry issuers: a private or symmetric key".into());
        }
        invalid(format!("entry issuers: {error}"))
    })?;
    let issuers = wire.issuers.iter().map(issuer).collect::<Result<Vec<_>, _>>()?;
    let [a, b, c, d, e, f, g, h, ..] = sha256(bytes).0;
    Issuers::new(issuers, u64::from_be_bytes([a, b, c, d, e, f, g, h])).map_err(issuer_problem)
}

fn issuer(wire: &entry::Issuer) -> Result<Issuer, SemanticProblem> {
    let whose = format!("issuer {:?}", wire.name);
    let profile = Profile::from_name(&wire.profile)
        .ok_or_else(|| invalid(format!("{whose} has the profile {:?}; there are strict and wso2", wire.profile)))?;
    let mut typ = TypSet { at_jwt: false, jwt: false, absent: wire.absent_type };
    for name in &wire.types {
        match name.as_str() {
            "at+jwt" => typ.at_jwt = true,
            "jwt" => typ.jwt = true,
            _ => return Err(invalid(format!("{whose} takes the type {name:?}; there are at+jwt and jwt"))),
        }
    }
    check_texts(&whose, "audience", &wire.audiences)?;
    let claim = |path: &String| match path.strip_prefix('/').map(|path| path.split_once('/').unwrap_or_default()) {
        None => Ok(ClaimPath::top(path)),
        Some(("", _) | (_, "")) => Err(invalid(format!(
            "{whose} has the claim {path:?}; a path is of two names (\"/application/uuid\"), and one name has no /"
        ))),
        Some((member, inner)) => Ok(ClaimPath::nested(member, inner)),
    };
    let lifetime = |seconds: u64| match u32::try_from(seconds) {
        Ok(seconds @ 1..) => Ok(seconds),
        _ => Err(invalid(format!("{whose} has a maximum lifetime outside 1 to {} s", u32::MAX))),
    };
    let terms = IssuerTerms {
        name: wire.name.as_str().into(),
        iss: wire.iss.as_str().into(),
        profile,
        audiences: wire.audiences.iter().map(|audience| audience.as_str().into()).collect(),
        typ,
        max_lifetime_s: wire.max_lifetime_s.map(lifetime).transpose()?,
        client: wire.claims.application.iter().map(claim).collect::<Result<_, _>>()?,
        scope: wire.claims.scope.as_str().into(),
        keys: wire.keys.iter().map(|key| pinned_key(key, wire)).collect::<Result<_, _>>()?,
    };
    Issuer::new(terms).map_err(issuer_problem)
}

fn issuer_problem(error: IssuerError) -> SemanticProblem {
    match error {
        IssuerError::DuplicateKid { .. } => SemanticProblem::DuplicateKid(error.to_string()),
        error => invalid(error.to_string()),
    }
}

/// Whether JSON that is not this entry's has, anywhere in it, a JWK that is no public one: the entry has no
/// members for it, so a leaked key would be refused for its form, and nobody would learn that it leaked.
fn holds_private_key(bytes: &[u8]) -> bool {
    fn inside(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Object(members) => {
                let jwk = serde_json::to_vec(members).unwrap_or_default();
                keys::import(&jwk, KeyTerms::default()).is_err_and(|error| error == KeyError::PrivateKeyInBundle)
                    || members.values().any(inside)
            }
            serde_json::Value::Array(items) => items.iter().any(inside),
            _ => false,
        }
    }
    serde_json::from_slice(bytes).is_ok_and(|value| inside(&value))
}

fn pinned_key(wire: &entry::Key, issuer: &entry::Issuer) -> Result<PinnedKey, SemanticProblem> {
    let whose = || format!("issuer {:?}, key {:?}", issuer.name, wire.kid.as_deref().unwrap_or("without kid"));
    let alg = Alg::from_name(&wire.alg)
        .ok_or_else(|| invalid(format!("{} has the algorithm {:?}, which is not one for tokens", whose(), wire.alg)))?;
    let jwk = serde_json::to_vec(&wire.jwk).expect("plain strings serialise");
    let terms = KeyTerms { alg: Some(alg), allow_demo_keys: issuer.allow_demo_keys };
    let key = keys::import(&jwk, terms).map_err(|error| {
        let detail = format!("{}: {error}", whose());
        match error {
            KeyError::WeakKey(_) | KeyError::DemoKey => SemanticProblem::WeakKey(detail),
            KeyError::PrivateKeyInBundle => SemanticProblem::PrivateKeyInBundle(detail),
            _ => invalid(detail),
        }
    })?;
    let key = key.into_iter().next().ok_or_else(|| invalid(format!("{} is empty", whose())))?;
    if let Some(name) = wire.kid.iter().chain(&wire.x5t).find(|name| !is_key_name(name)) {
        let why = format!("is empty, longer than {MAX_KID} bytes or has control characters: no token can name it");
        return Err(invalid(format!("{}: {name:?} {why}", whose())));
    }
    let key = match &wire.kid {
        Some(kid) => key.named(kid.as_str()),
        None => key,
    };
    Ok(key.with_x5t(wire.x5t.iter().map(|x5t| x5t.as_str().into())))
}
