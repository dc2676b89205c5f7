//! Reads Rust source as text: tokens without comments, test-only items left out, and the paths that remain.
//! It knows as much of the grammar as the rules need, and no macro expansion.

/// A token and its line, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Ident(String),
    /// The content of a string literal of any form, escapes as written.
    Text(String),
    /// `::`
    Sep,
    Punct(char),
}

impl Token {
    pub(crate) fn is(&self, punct: char) -> bool {
        self.kind == Kind::Punct(punct)
    }

    pub(crate) fn ident(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }
}

/// A path with at least two segments, or one that a `use` names. `crate`, `super` and `self` are resolved:
/// `ours` says that it starts at the crate's root.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path {
    pub(crate) segments: Vec<String>,
    pub(crate) ours: bool,
    pub(crate) line: usize,
}

/// Tokens of `text`; comments are gone, literals are one token or none.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut i, mut line, mut out) = (0, 1, Vec::new());
    while i < chars.len() {
        let start = i;
        let first = line;
        let mut kind = None;
        match chars[i] {
            '/' if at(i + 1) == '/' => i += chars[i..].iter().take_while(|c| **c != '\n').count(),
            '/' if at(i + 1) == '*' => i = block_comment_end(&chars, i),
            '"' => {
                i = quoted_end(&chars, i, '"');
                kind = Some(Kind::Text(chars[start + 1..i.saturating_sub(1).max(start + 1)].iter().collect()));
            }
            '\'' => i = char_or_lifetime_end(&chars, i),
            c if c.is_alphanumeric() || c == '_' => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                let word: String = chars[start..i].iter().collect();
                let prefix = matches!(&*word, "r" | "b" | "br" | "c" | "cr");
                let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
                if prefix && word.contains('r') && at(i + hashes) == '"' {
                    let (content, end) = raw(&chars, i + hashes + 1, hashes);
                    kind = Some(Kind::Text(content));
                    i = end;
                } else if prefix && at(i) == '"' {
                    let open = i;
                    i = quoted_end(&chars, i, '"');
                    kind = Some(Kind::Text(chars[open + 1..i.saturating_sub(1).max(open + 1)].iter().collect()));
                } else if word == "b" && at(i) == '\'' {
                    i = quoted_end(&chars, i, '\'');
                } else if word == "r" && at(i) == '#' {
                    i += 1; // r#name: the name follows as its own token
                } else {
                    kind = Some(Kind::Ident(word));
                }
            }
            ':' if at(i + 1) == ':' => {
                i += 2;
                kind = Some(Kind::Sep);
            }
            c => {
                i += 1;
                kind = (!c.is_whitespace()).then_some(Kind::Punct(c));
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
        out.extend(kind.map(|kind| Token { kind, line: first }));
    }
    out
}

fn block_comment_end(chars: &[char], mut i: usize) -> usize {
    let mut depth = 0;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn quoted_end(chars: &[char], open: usize, quote: char) -> usize {
    let mut i = open + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// `'a'`, `'\n'` and `'('` are characters; `'a` is a lifetime.
fn char_or_lifetime_end(chars: &[char], i: usize) -> usize {
    let next = chars.get(i + 1);
    if next == Some(&'\\') || (next.is_some() && chars.get(i + 2) == Some(&'\'')) {
        return quoted_end(chars, i, '\'');
    }
    i + 1 + chars[i + 1..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count()
}

fn raw(chars: &[char], start: usize, hashes: usize) -> (String, usize) {
    let mut i = start;
    while i < chars.len() {
        if chars[i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return (chars[start..i].iter().collect(), i + 1 + hashes);
        }
        i += 1;
    }
    (chars[start..].iter().collect(), chars.len())
}

/// `tokens` without the items under `#[cfg(test)]` or `#[cfg(all(test, …))]`.
pub(crate) fn shipped(tokens: &[Token]) -> Vec<Token> {
    let (mut i, mut out) = (0, Vec::new());
    while i < tokens.len() {
        match attribute(tokens, i) {
            Some(end) if is_test_only(&tokens[i..end]) => i = item_end(tokens, end),
            _ => {
                out.push(tokens[i].clone());
                i += 1;
            }
        }
    }
    out
}

/// The index after the outer attribute that starts at `i`.
fn attribute(tokens: &[Token], i: usize) -> Option<usize> {
    let opens = tokens.get(i)?.is('#') && tokens.get(i + 1)?.is('[');
    opens.then(|| group_end(tokens, i + 1))
}

fn is_test_only(attribute: &[Token]) -> bool {
    let names: Vec<&str> = attribute.iter().filter_map(Token::ident).collect();
    names.first() == Some(&"cfg") && names.contains(&"test") && !names.contains(&"not") && !names.contains(&"any")
}

/// The index after the group that opens at `i`.
fn group_end(tokens: &[Token], mut i: usize) -> usize {
    let mut depth = 0;
    while i < tokens.len() {
        match tokens[i].kind {
            Kind::Punct('(' | '[' | '{') => depth += 1,
            Kind::Punct(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        i += 1;
        if depth == 0 {
            break;
        }
    }
    i
}

/// The index after the item that starts at `i`, its attributes included.
fn item_end(tokens: &[Token], mut i: usize) -> usize {
    while let Some(end) = attribute(tokens, i) {
        i = end;
    }
    while i < tokens.len() {
        match tokens[i].kind {
            Kind::Punct(';') => return i + 1,
            Kind::Punct('{') => return group_end(tokens, i),
            Kind::Punct('(' | '[') => i = group_end(tokens, i),
            _ => i += 1,
        }
    }
    i
}

/// Every path in `tokens`, which are those of the module at `module` (from the crate's root).
/// In `foreign` files (bins, integration tests) the root is called `tidegate`.
pub(crate) fn paths(tokens: &[Token], module: &[String], foreign: bool) -> Vec<Path> {
    let mut here = Walk { module: module.to_vec(), foreign, inline: Vec::new(), out: Vec::new() };
    let (mut i, mut depth) = (0, 0);
    while i < tokens.len() {
        let token = &tokens[i];
        match &token.kind {
            Kind::Punct('{') => depth += 1,
            Kind::Punct('}') => {
                depth -= 1;
                if here.inline.last() == Some(&depth) {
                    here.inline.pop();
                    here.module.pop();
                }
            }
            Kind::Ident(word) if word == "mod" && tokens.get(i + 2).is_some_and(|t| t.is('{')) => {
                here.module.push(tokens[i + 1].ident().unwrap_or_default().to_owned());
                here.inline.push(depth);
                i += 1;
            }
            Kind::Ident(word) if word == "use" && !tokens.get(i + 1).is_some_and(|t| t.is('<')) => {
                i = here.tree(tokens, i + 1, &[]);
                continue;
            }
            Kind::Ident(first) => {
                let mut segments = vec![first.clone()];
                while tokens.get(i + 1).is_some_and(|t| t.kind == Kind::Sep) {
                    let Some(next) = tokens.get(i + 2).and_then(Token::ident) else { break };
                    segments.push(next.to_owned());
                    i += 2;
                }
                if segments.len() > 1 {
                    here.found(segments, token.line);
                }
            }
            _ => {}
        }
        i += 1;
    }
    here.out
}

struct Walk {
    module: Vec<String>,
    foreign: bool,
    inline: Vec<i32>,
    out: Vec<Path>,
}

impl Walk {
    /// One use tree from `i` on, under `prefix`; the index of what ends it.
    fn tree(&mut self, tokens: &[Token], mut i: usize, prefix: &[String]) -> usize {
        let mut path = prefix.to_vec();
        let line = tokens.get(i).map_or(0, |t| t.line);
        while let Some(token) = tokens.get(i) {
            match &token.kind {
                Kind::Ident(word) if word == "as" => i += 1, // the next turn would take the new name
                Kind::Ident(word) => path.push(word.clone()),
                Kind::Punct('*') => path.push("*".into()),
                Kind::Sep => {}
                Kind::Punct('{') => {
                    i += 1;
                    while tokens.get(i).is_some_and(|t| !t.is('}')) {
                        i = self.tree(tokens, i, &path);
                        i += usize::from(tokens.get(i).is_some_and(|t| t.is(',')));
                    }
                    return i + 1;
                }
                _ => break,
            }
            i += 1;
        }
        if path.len() > prefix.len() {
            self.found(path, line);
        }
        i
    }

    fn found(&mut self, mut segments: Vec<String>, line: usize) {
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        let mut base = self.module.clone();
        let root = if self.foreign { "tidegate" } else { "crate" };
        let ups = segments.iter().take_while(|s| *s == "super" || *s == "self").count();
        let ours = ups > 0 || segments[0] == root;
        if ups > 0 {
            let supers = segments[..ups].iter().filter(|s| *s == "super").count();
            base.truncate(base.len().saturating_sub(supers));
            base.extend(segments.drain(..).skip(ups));
            segments = base;
        } else if ours {
            segments.remove(0);
        }
        self.out.push(Path { segments, ours, line });
    }
}
