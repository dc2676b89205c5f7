//! The rules: what a file may import, which crates it may name, what a pure module may not touch, and its form.
//! Who may import what stands in the two tables of docs/architecture.md, and is read from there.

use std::collections::BTreeMap;

use crate::source::{self, Kind, Path, Token};

/// No source file is longer.
pub(crate) const LINES: usize = 800;

const PURE: [&str; 4] = ["policy", "token", "throttle", "admission"];

/// What a pure module must not name, as a prefix of a path.
const IMPURE: [&str; 13] = [
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "std::os",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::net::*",
    "tokio",
    "rustix",
    "socket2",
];

/// Methods that read a clock, whatever their type is called: a renamed import, an alias or a value hides the type.
/// `elapsed` reads as a call on a value too.
const CLOCKS: [&str; 4] = ["now", "now_utc", "now_local", "elapsed"];

/// One broken rule.
#[derive(Debug, PartialEq)]
pub(crate) struct Violation(pub(crate) String);

/// The tables of docs/architecture.md.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Module → what it may import of ours.
    pub(crate) imports: BTreeMap<String, Vec<String>>,
    /// Crate → the modules that may name it.
    pub(crate) crates: BTreeMap<String, Vec<String>>,
}

impl Tables {
    /// Reads the tables headed `| module |` and `| crate |`.
    pub(crate) fn read(page: &str) -> Self {
        Self { imports: table(page, "module"), crates: table(page, "crate") }
    }

    /// The row that is most specific for a module: `cli/demo` before `cli`.
    fn row(&self, module: &[String]) -> Option<(String, &[String])> {
        let names = (1..=module.len()).rev().map(|n| module[..n].join("/"));
        names.into_iter().find_map(|name| self.imports.get(&name).map(|row| (name, &**row)))
    }
}

fn table(page: &str, head: &str) -> BTreeMap<String, Vec<String>> {
    let rows = page.lines().map(|line| line.trim().trim_matches('|').split('|').map(cell).collect::<Vec<_>>());
    let mut rows = rows.skip_while(|cells| cells.first() != Some(&vec![head.to_owned()]));
    rows.next();
    let rows = rows.skip(1).take_while(|cells| cells.len() >= 2);
    rows.flat_map(|cells| cells[0].clone().into_iter().map(move |name| (name, cells[1].clone()))).collect()
}

fn cell(text: &str) -> Vec<String> {
    text.replace('`', "").split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

/// Every rule for the file at `name` (`src/gateway/tls.rs`) with content `text`.
pub(crate) fn check(name: &str, text: &str, tables: &Tables) -> Vec<Violation> {
    let mut check = Check { name, out: Vec::new() };
    let all = source::tokens(text);
    check.form(text, &all);
    let is_test = name.starts_with("tests/") || name.ends_with("tests.rs") || name.contains("/tests/");
    if is_test {
        return check.out;
    }
    let tokens = source::shipped(&all);
    check.shipped_form(&tokens);
    let module = module_of(name);
    let bin = module[0] == "bin";
    let paths = source::paths(&tokens, &module, bin);
    check.crates(&paths, &module, tables);
    if name != "src/lib.rs" {
        check.imports(&paths, &module, tables);
    }
    if PURE.contains(&&*module[0]) {
        check.purity(&paths);
        check.clocks(&tokens);
    }
    check.out
}

/// `src/gateway/tls.rs` is `gateway::tls`, `src/gateway/mod.rs` is `gateway`, `src/lib.rs` is `lib`.
fn module_of(name: &str) -> Vec<String> {
    let path = name.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

struct Check<'a> {
    name: &'a str,
    out: Vec<Violation>,
}

impl Check<'_> {
    fn breaks(&mut self, line: usize, rule: &str, what: String, instead: &str) {
        self.out.push(Violation(format!("{}:{line}: {rule}: {what}; {instead}", self.name)));
    }

    fn form(&mut self, text: &str, tokens: &[Token]) {
        let lines = text.lines().count();
        if lines > LINES {
            self.breaks(lines, "file length", format!("{lines} lines, {LINES} at most"), "split it by what it does");
        }
        if self.name.ends_with("/mod.rs") && !text.starts_with("//!") {
            self.breaks(1, "module head", "no `//!`".into(), "say what the module does and what it must never do");
        }
        for word in tokens.iter().filter(|token| token.ident() == Some("unsafe")) {
            self.breaks(word.line, "unsafe", "`unsafe`".into(), "use rustix, socket2 or listenfd");
        }
        // Put together, so that this file does not name them.
        for folder in [concat!("/wo", "rk/"), concat!("/t", "mp/")] {
            for (line, number) in text.lines().zip(1..) {
                let Some(column) = line.find(folder) else { continue };
                let before = line[..column].chars().next_back();
                if !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-')) {
                    let what = format!("an absolute path under {folder}");
                    self.breaks(number, "machine path", what, "use CARGO_MANIFEST_DIR or tempfile");
                }
            }
        }
    }

    fn shipped_form(&mut self, tokens: &[Token]) {
        for window in tokens.windows(4) {
            let [dot, method, open, argument] = window else { continue };
            if !dot.is('.') || !open.is('(') {
                continue;
            }
            let blank = matches!(&argument.kind, Kind::Text(text) if text.trim().is_empty());
            match method.ident() {
                Some("unwrap") if argument.is(')') => {
                    self.breaks(
                        method.line,
                        "unwrap",
                        "`.unwrap()`".into(),
                        "return an error, or `expect` why it cannot fail",
                    );
                }
                Some("expect") if blank => {
                    self.breaks(method.line, "unwrap", "`.expect(\"\")`".into(), "say why it cannot fail");
                }
                _ => {}
            }
        }
        for window in tokens.windows(3) {
            let [keyword, name, end] = window else { continue };
            if keyword.ident() == Some("mod") && end.is(';') && name.ident().is_some_and(|name| name.ends_with("tests"))
            {
                self.breaks(name.line, "test module", "a tests file that ships".into(), "put #[cfg(test)] on it");
            }
        }
    }

    fn imports(&mut self, paths: &[Path], module: &[String], tables: &Tables) {
        let Some((row, allowed)) = tables.row(module) else {
            let what = format!("module {} has no row", module[0]);
            return self.breaks(1, "import table", what, "add one to the table of docs/architecture.md");
        };
        for path in paths.iter().filter(|path| path.ours) {
            let target = path.segments.first().map_or("*", |first| first);
            if target == module[0] || may_import(allowed, &path.segments) {
                continue;
            }
            let what = format!("{row} imports {}", path.segments.join("::"));
            let may = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
            let instead = format!("it may import {may}: pass the value in, or move the type down");
            self.breaks(path.line, "import table", what, &instead);
        }
    }

    fn crates(&mut self, paths: &[Path], module: &[String], tables: &Tables) {
        for path in paths.iter().filter(|path| !path.ours) {
            let Some(places) = path.segments.first().and_then(|name| tables.crates.get(name)) else { continue };
            let here = module.join("/");
            let inside = |place: &String| here == *place || here.starts_with(&format!("{place}/"));
            if !places.iter().any(inside) {
                let what = format!("{here} names {}", path.segments.join("::"));
                let instead = format!("that crate is named only in {}", places.join(", "));
                self.breaks(path.line, "crate rule", what, &instead);
            }
        }
    }

    fn purity(&mut self, paths: &[Path]) {
        for path in paths {
            let joined = path.segments.join("::");
            let inside = |banned: &&str| joined == **banned || joined.starts_with(&format!("{banned}::"));
            if !path.ours && IMPURE.iter().any(inside) {
                self.breaks(path.line, "purity", joined, "take `now`, bytes and settings as arguments");
            }
        }
    }

    fn clocks(&mut self, tokens: &[Token]) {
        for window in tokens.windows(3) {
            let [before, method, after] = window else { continue };
            let Some(name) = method.ident().filter(|name| CLOCKS.contains(name)) else { continue };
            let is_called = before.is('.') && name == "elapsed" && after.is('(');
            if before.kind == Kind::Sep || is_called {
                self.breaks(method.line, "purity", format!("`{name}` reads a clock"), "take `now` as an argument");
            }
        }
    }
}

/// `name`, `name::part`, `*::Config`, or `all but a`, which opens a row of exceptions.
fn may_import(allowed: &[String], path: &[String]) -> bool {
    let Some(target) = path.first().filter(|target| *target != "*") else { return false };
    if let Some(first) = allowed.first().and_then(|item| item.strip_prefix("all but ")) {
        return first != target && !allowed[1..].contains(target);
    }
    allowed.iter().any(|item| match item.strip_prefix("*::") {
        Some(end) => path.len() > 1 && path.last().is_some_and(|last| last.ends_with(end)),
        None => item.split("::").map(Some).eq(path.iter().take(item.split("::").count()).map(|s| Some(s.as_str()))),
    })
}
