//! Which tokens are accepted, told once more: from BUNDLE.md and the RFCs, by serde_json's own values and a scanner of its
//! own. Nothing here calls the verifier, which must accept exactly what is lawful here, and for the same moments.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use tidegate::policy::issuer::{Issuer, Issuers, Profile};
use tidegate::token::{Circumstances, TimeVerdict, VerifiedClaims};

use super::token::{MALLORY, OLD, STOLEN, X5T};

const LAST: f64 = 253_402_300_799.0;
const FORBIDDEN: [&str; 8] = ["crit", "b64", "zip", "enc", "jwk", "jku", "x5u", "x5c"];
/// The `iss` of those whose keys sign here.
const SIGNERS: [&str; 3] = ["https://site.example", "https://yard.example", "https://legacy.example"];

/// Why a token is not accepted.
pub type Why = &'static str;

/// A lawful token.
pub struct Said<'i> {
    issuer: &'i Issuer,
    number: u16,
    claims: Map<String, Value>,
}

/// What is asked of a token, and why it is not accepted if that is not so.
fn ask(so: bool, why: Why) -> Result<(), Why> {
    if so { Ok(()) } else { Err(why) }
}

/// The object that a part of a token is: of that depth, with every name once.
fn object(part: &[u8], depth: usize) -> Result<Map<String, Value>, Why> {
    let value = serde_json::from_slice(part).map_err(|_| "no object")?;
    let text = std::str::from_utf8(part).map_err(|_| "no UTF-8")?;
    Scan { text, at: 0 }.value(depth)?;
    Ok(value)
}

fn text<'a>(of: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Why> {
    of.get(name).map(|value| value.as_str().ok_or("a member that is no text")).transpose()
}

/// A text that can name a key.
fn key_name<'a>(of: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Why> {
    let name = text(of, name)?;
    let sound = |name: &str| (1..=256).contains(&name.len()) && !name.chars().any(char::is_control);
    ask(name.is_none_or(sound), "a name that no key can have")?;
    Ok(name)
}

impl<'i> Said<'i> {
    /// Steps 1 to 12, for a token of these parts that key `key` signed, padded or not.
    pub fn lawful(
        (token, header, claims): (&[u8], &[u8], &[u8]),
        (key, padded): (usize, bool),
        issuers: &'i Issuers,
    ) -> Result<Self, Why> {
        // 1 to 3
        ask(token.len() <= 8_192 && header.len() <= 1_024, "too long")?;
        let (header, claims) = (object(header, 4)?, object(claims, 16)?);
        // 4, 5
        ask(FORBIDDEN.iter().all(|name| !header.contains_key(*name)), "a forbidden member")?;
        ask(text(&header, "alg")? == Some("EdDSA"), "another algorithm than the key's")?;
        let iss = *SIGNERS.get(key).ok_or("signed by a stranger")?;
        // 6, 7, 9: whoever signed is whom the token names
        ask(text(&claims, "iss")? == Some(iss), "another issuer than the key's")?;
        let (number, issuer) = issuers.find(iss).expect("it is pinned");
        let wso2 = issuer.profile() == Profile::Wso2;
        ask(wso2 || !padded, "padding")?;
        let typ = text(&header, "typ")?.map(str::to_ascii_lowercase);
        ask(
            match typ.as_deref() {
                None => issuer.typ().absent,
                Some("at+jwt" | "application/at+jwt") => issuer.typ().at_jwt,
                Some("jwt") => issuer.typ().jwt,
                Some(_) => false,
            },
            "another typ",
        )?;
        let (kid, x5t) = (key_name(&header, "kid")?, key_name(&header, "x5t").unwrap_or(None));
        let chosen = match (wso2, kid) {
            (false, None) => issuer.keys().len() == 1,
            (false, Some(kid)) => kid == "k1",
            (true, _) => kid == Some(X5T) || x5t == Some(X5T) || kid.is_none() && x5t.is_none(),
        };
        ask(chosen, "it names another key")?;
        let said = Self { issuer, number, claims };
        said.claims(wso2)?;
        Ok(said)
    }

    /// 8 to 12.
    fn claims(&self, wso2: bool) -> Result<(), Why> {
        for name in ["sub", "jti"] {
            text(&self.claims, name)?;
        }
        self.texts("scope")?;
        if let Some(bound) = self.claims.get("cnf") {
            let digest = text(bound.as_object().ok_or("cnf is no object")?, "x5t#S256")?;
            let length = digest.map(|digest| URL_SAFE_NO_PAD.decode(digest).map(|digest| digest.len()));
            ask(matches!(length, None | Some(Ok(32))), "cnf is no digest")?;
        }
        let (client, audiences) = (self.client()?, self.texts("aud")?);
        ask((1..=64).contains(&audiences.len()), "no audience, or too many")?;
        let ours = |aud: &&str| ["edge", "pier"].contains(aud) || wso2 && client == Some(*aud);
        ask(audiences.iter().any(ours), "made for somebody else")?;
        for name in ["exp", "nbf", "iat"] {
            let within = self.date(name)?.is_none_or(|date| (0.0..=LAST).contains(&date));
            ask(within || wso2 && name == "iat", "a time out of range")?;
        }
        ask(wso2 || self.whole("exp").is_some(), "no end")?;
        if let Some(longest) = self.issuer.max_lifetime_s() {
            let start = self.whole("iat").max(self.whole("nbf")).ok_or("no beginning")?;
            let end = self.whole("exp").ok_or("no end")?;
            ask(end - start <= i128::from(longest), "it lives too long")?;
        }
        Ok(())
    }

    fn date(&self, name: &str) -> Result<Option<f64>, Why> {
        self.claims.get(name).map(|value| value.as_f64().ok_or("a time that is no number")).transpose()
    }

    /// A time in whole seconds, of a token whose times are numbers.
    fn whole(&self, name: &str) -> Option<i128> {
        self.date(name).ok().flatten().map(|date| date.floor() as i128)
    }

    /// One text, or a list of them.
    fn texts(&self, name: &str) -> Result<Vec<&str>, Why> {
        match self.claims.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(all)) => all.iter().map(|one| one.as_str().ok_or("not all are texts")).collect(),
            Some(one) => one.as_str().map(|one| vec![one]).ok_or("no text"),
        }
    }

    /// The first claim that is there counts.
    fn client(&self) -> Result<Option<&str>, Why> {
        let names = self.issuer.client().iter().map(|path| &*path.member);
        let first = names.into_iter().find(|name| self.claims.contains_key(*name));
        first.map_or(Ok(None), |name| text(&self.claims, name))
    }

    /// What is verified is what the token says.
    pub fn is(&self, verified: &VerifiedClaims) {
        let said = |name| text(&self.claims, name).expect("it is lawful");
        assert_eq!(verified.issuer(), self.number);
        assert_eq!((verified.sub(), verified.client()), (said("sub"), self.client().expect("it is lawful")));
        assert_eq!(verified.audiences().collect::<Vec<_>>(), self.texts("aud").expect("it is lawful"));
        let scopes = self.texts("scope").expect("it is lawful").join(" ");
        assert!(verified.scopes().eq(scopes.split(' ').filter(|scope| !scope.is_empty())));
        let dates = [verified.exp(), verified.nbf(), verified.iat()].map(|date| date.map(i128::from));
        assert_eq!(dates[..2], [self.whole("exp"), self.whole("nbf")]);
        assert!(self.issuer.profile() == Profile::Wso2 || dates[2] == self.whole("iat"));
    }

    /// Step 10 for the API, and 13 to 15; `iat` is the time of issue in seconds, whatever the token says.
    pub fn in_force(&self, iat: Option<i64>, now: &Circumstances<'_>) -> Result<TimeVerdict, Why> {
        let said = |name| text(&self.claims, name).expect("it is lawful");
        let wso2 = self.issuer.profile() == Profile::Wso2;
        ask(now.audiences.is_empty() || self.texts("aud")?.contains(&"pier"), "made for another API")?;
        let (lower, upper) = (i128::from(now.bounds.lower), now.bounds.upper.map(i128::from));
        // An absent end stands for the last moment that the type can say.
        let end = self.whole("exp").map_or(i128::from(i64::MAX), |exp| exp + 60);
        let start = self.whole("nbf").map(|nbf| nbf - 60);
        ask(end > lower, "expired")?;
        if let Some(upper) = upper {
            ask(start.is_none_or(|start| start <= upper), "not yet valid")?;
            ask(wso2 || self.whole("iat").is_none_or(|iat| iat - 60 <= upper), "issued in the future")?;
        }
        ask(said("sub") != Some(MALLORY) && said("jti") != Some(STOLEN), "revoked")?;
        ask(self.client()? != Some(OLD.0) || iat.is_some_and(|iat| iat >= OLD.1), "older than a cut-off")?;
        if let Some(bound) = self.claims.get("cnf") {
            let proven = now.certificate.map(|digest| URL_SAFE_NO_PAD.encode(digest).into());
            ask(proven.is_some() && bound.get("x5t#S256") == proven.as_ref(), "bound to something else")?;
        }
        let sure = upper.is_some_and(|upper| end > upper) && start.is_none_or(|start| start <= lower);
        Ok(if sure { TimeVerdict::Certain } else { TimeVerdict::ByFloor })
    }
}

/// A reader of JSON that is known to be JSON: it asks for depth, members and names that stand there once.
struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scan<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn blank(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// Goes past `letter`, if it is next.
    fn skip(&mut self, letter: char) -> bool {
        self.blank();
        let found = self.rest().starts_with(letter);
        self.at += usize::from(found);
        found
    }

    /// A string with its quotes, as it stands there.
    fn string(&mut self) -> &'t str {
        self.blank();
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.bytes().enumerate().skip(1).find(|(_, byte)| {
            let ends = !escaped && *byte == b'"';
            escaped = !escaped && *byte == b'\\';
            ends
        });
        let end = end.expect("a string ends").0 + 1;
        self.at += end;
        &rest[..end]
    }

    fn value(&mut self, depth: usize) -> Result<(), Why> {
        self.blank();
        match self.rest().bytes().next().expect("a value") {
            b'{' => self.object(depth.checked_sub(1).ok_or("too deep")?)?,
            b'[' => {
                let depth = depth.checked_sub(1).ok_or("too deep")?;
                self.skip('[');
                while !self.skip(']') {
                    self.value(depth)?;
                    self.skip(',');
                }
            }
            b'"' => drop(self.string()),
            _ => self.at += self.rest().find([',', '}', ']', ' ', '\t', '\r', '\n']).unwrap_or(self.rest().len()),
        }
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), Why> {
        let mut names = BTreeSet::new();
        self.skip('{');
        while !self.skip('}') {
            let name: String = serde_json::from_str(self.string()).expect("a string");
            ask(names.insert(name), "a member twice")?;
            self.skip(':');
            self.value(depth)?;
            self.skip(',');
        }
        ask(names.len() <= 64, "too many members")
    }
}
