//! Which paths are matched at all.
//!
//! A path is matched as it stands on the wire, so every spelling is refused that an upstream could read as another path
//! than the one that was matched here. Pure; called for each request, and for the templates of a bundle.

/// Why a path is refused before it is matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with `/`.
    #[error("the path does not begin with /")]
    NotAbsolute,
    /// It has a `.` or `..` segment, plain, encoded, or before a `;`.
    #[error("the path has a dot segment")]
    DotSegment,
    /// It has `//`, which many upstreams read as `/`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `%` without two hex digits, or `%` before a character that must stand plain: a letter, a digit,
    /// `-`, `.`, `_`, `/`, `\` or a control character.
    #[error("the path encodes a character that must not be encoded")]
    Encoding,
    /// A `\`, which some upstreams read as `/`.
    #[error("the path has a backslash")]
    Backslash,
    /// Without its `;parameters`, which many upstreams cut off, it is another route's.
    #[error("the path has a parameter that hides another route")]
    Parameter,
    /// Without its last `/`, which many upstreams do not mind, it is another route's.
    #[error("the path has a slash at its end that hides another route")]
    TrailingSlash,
}

/// The path as an upstream reads it that cuts off path parameters; `None` where it has none.
#[must_use]
pub fn without_parameters(path: &str) -> Option<String> {
    path.contains(';').then(|| {
        let plain = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
        plain.collect::<Vec<_>>().join("/")
    })
}

/// Refuses every path that an upstream could read as another one. Takes the path alone, without the query.
pub fn check_path(path: &str) -> Result<(), BadPath> {
    let mut rest = path.as_bytes();
    if rest.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'/' => check_start(after)?,
            b'\\' => return Err(BadPath::Backslash),
            b'%' => {
                let [high, low, after @ ..] = after else { return Err(BadPath::Encoding) };
                rest = after;
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(BadPath::Encoding);
                let encoded = (digit(*high)? << 4 | digit(*low)?) as u8;
                let plain = encoded.is_ascii_alphanumeric() || encoded.is_ascii_control();
                if plain || matches!(encoded, b'-' | b'.' | b'_' | b'/' | b'\\') {
                    return Err(BadPath::Encoding);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a segment may begin so: `rest` is what comes after its slash.
fn check_start(rest: &[u8]) -> Result<(), BadPath> {
    match rest {
        [b'/', ..] => Err(BadPath::EmptySegment),
        [b'.'] | [b'.', b'/' | b';', ..] | [b'.', b'.'] | [b'.', b'.', b'/' | b';', ..] => Err(BadPath::DotSegment),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_an_upstream_could_read_otherwise_is_refused() {
        for (path, why) in [
            ("*", BadPath::NotAbsolute),
            ("", BadPath::NotAbsolute),
            ("/a/../b", BadPath::DotSegment),
            ("/a/..", BadPath::DotSegment),
            ("/.", BadPath::DotSegment),
            ("/a/..;x=1/b", BadPath::DotSegment),
            ("/a/%2e%2E/b", BadPath::Encoding),
            ("/a/.%2e/b", BadPath::Encoding),
            ("//a", BadPath::EmptySegment),
            ("/a//b", BadPath::EmptySegment),
            ("/a%2fb", BadPath::Encoding),
            ("/a%5Cb", BadPath::Encoding),
            ("/%61dmin", BadPath::Encoding),
            ("/a%00", BadPath::Encoding),
            ("/a%", BadPath::Encoding),
            ("/a%2", BadPath::Encoding),
            ("/a%g0", BadPath::Encoding),
            ("/a\\b", BadPath::Backslash),
        ] {
            assert_eq!(check_path(path), Err(why), "{path}");
        }
        for path in ["/", "/a", "/a/", "/a/...", "/.well-known/x", "/a%20b", "/%7Euser", "/caf%C3%A9", "/a;v=1"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
    }
}
