//! Reads Rust as far as needed to tell which paths a file mentions: tokens, use trees, modules in braces.
//! Imports count for the whole file, which is never too lenient.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::Chars;

/// A path that a file mentions, made absolute.
#[derive(Debug)]
pub(crate) struct Mention {
    /// `crate::store::queue`, or `sqlx::query` where another crate is meant.
    pub(crate) path: String,
    /// Its line, from 1.
    pub(crate) line: usize,
}

/// Everything that `text`, the file of `module`, mentions by a path of which something is known.
pub(crate) fn mentions(text: &str, module: &[String]) -> Vec<Mention> {
    let tokens = tokenise(text);
    let mut reader = Reader { tokens: &tokens, at: 0, imports: HashMap::new(), paths: Vec::new() };
    reader.read(module);
    let Reader { imports, paths, .. } = reader;
    let resolve = |(mut path, line): (Vec<String>, usize)| {
        // An import may lead to another import.
        for _ in 0..4 {
            match imports.get(&path[0]) {
                Some(whole) if whole[0] != path[0] => {
                    path.splice(0..1, whole.iter().cloned());
                }
                _ => break,
            }
        }
        Mention { path: path.join("::"), line }
    };
    paths.into_iter().map(resolve).collect()
}

#[derive(Debug, PartialEq)]
struct Token {
    /// An identifier, `::`, or a single character.
    text: String,
    line: usize,
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    /// What the names that the file imports stand for.
    imports: HashMap<String, Vec<String>>,
    paths: Vec<(Vec<String>, usize)>,
}

impl Reader<'_> {
    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| &token.text)
    }

    /// Reads to the closing brace of a module, or to the end.
    fn read(&mut self, module: &[String]) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            match self.text(0) {
                "{" => depth += 1,
                "}" if depth == 0 => return,
                "}" => depth -= 1,
                "mod" if self.text(2) == "{" => {
                    let inner = [module, &[self.text(1).to_owned()]].concat();
                    self.at += 3;
                    self.read(&inner);
                }
                "use" => {
                    self.at += 1;
                    self.tree(&[], module);
                    continue;
                }
                _ if self.begins_path() => {
                    self.path(module);
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// An identifier with `::` behind it; what stands behind a dot is a method.
    fn begins_path(&self) -> bool {
        let before = self.at.checked_sub(1).map_or("", |before| &self.tokens[before].text);
        is_identifier(self.text(0)) && self.text(1) == "::" && before != "."
    }

    fn path(&mut self, module: &[String]) {
        let line = self.tokens[self.at].line;
        let mut path = vec![self.text(0).to_owned()];
        self.at += 1;
        while self.text(0) == "::" && is_identifier(self.text(1)) {
            path.push(self.text(1).to_owned());
            self.at += 2;
        }
        self.paths.push((absolute(&path, module), line));
    }

    /// One branch of a use tree, and its comma or semicolon if it has one.
    fn tree(&mut self, prefix: &[String], module: &[String]) {
        let mut path = prefix.to_vec();
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        loop {
            match self.text(0) {
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(self.text(0), "}" | "") {
                        self.tree(&path, module);
                        if self.text(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    self.at += 1;
                    self.paths.push((absolute(&path, module), line));
                    return;
                }
                word if is_identifier(word) && word != "as" => {
                    path.push(word.to_owned());
                    self.at += 1;
                }
                _ => break,
            }
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if self.text(0) == "as" {
            self.text(1).clone_into(&mut name);
            self.at += 2;
        }
        if path.is_empty() {
            self.at += 1;
            return;
        }
        let path = absolute(&path, module);
        self.imports.insert(name, path.clone());
        self.paths.push((path, line));
    }
}

/// Replaces what a path is relative to.
fn absolute(path: &[String], module: &[String]) -> Vec<String> {
    let supers = path.iter().take_while(|word| matches!(word.as_str(), "super" | "self")).count();
    let ups = path[..supers].iter().filter(|word| *word == "super").count();
    let rest = &path[supers..];
    let root = "crate".to_owned();
    match path[0].as_str() {
        "super" | "self" => {
            let base = &module[..module.len().saturating_sub(ups)];
            [&[root], base, rest].concat()
        }
        // The library as its own binary calls it.
        "postroom" => [&[root], &path[1..]].concat(),
        _ => path.to_vec(),
    }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Tokens without comments, strings, characters and lifetimes.
fn tokenise(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            '/' if chars.peek() == Some(&'*') => line += skip_comment(&mut chars),
            '"' => line += skip_string(&mut chars),
            '\'' => skip_character(&mut chars),
            ':' if chars.next_if_eq(&':').is_some() => tokens.push(Token { text: "::".to_owned(), line }),
            c if is_identifier(&c.to_string()) => {
                let mut word = c.to_string();
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.push(c);
                }
                match (word.as_str(), chars.peek()) {
                    ("r" | "br" | "cr", Some('"' | '#')) => line += skip_raw(&mut chars),
                    _ => tokens.push(Token { text: word, line }),
                }
            }
            c if c.is_whitespace() => {}
            c => tokens.push(Token { text: c.to_string(), line }),
        }
    }
    tokens
}

/// Each of these skips to the end of something and tells how many lines it had.
fn skip_comment(chars: &mut Peekable<Chars<'_>>) -> usize {
    let (mut depth, mut lines, mut before) = (0, 0, '/');
    for c in chars.by_ref() {
        lines += usize::from(c == '\n');
        match (before, c) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                before = c;
                continue;
            }
        }
        if depth == 0 {
            break;
        }
        before = ' ';
    }
    lines
}

fn skip_string(chars: &mut Peekable<Chars<'_>>) -> usize {
    let mut lines = 0;
    while let Some(c) = chars.next() {
        lines += usize::from(c == '\n');
        match c {
            '\\' => lines += usize::from(chars.next() == Some('\n')),
            '"' => break,
            _ => {}
        }
    }
    lines
}

fn skip_raw(chars: &mut Peekable<Chars<'_>>) -> usize {
    let mut hashes = 0;
    while chars.next_if_eq(&'#').is_some() {
        hashes += 1;
    }
    if chars.next_if_eq(&'"').is_none() {
        // A raw identifier; its word follows.
        return 0;
    }
    let (mut lines, mut closing) = (0, None);
    for c in chars.by_ref() {
        lines += usize::from(c == '\n');
        closing = match (c, closing) {
            ('"', _) => Some(0),
            ('#', Some(seen)) => Some(seen + 1),
            _ => None,
        };
        if closing == Some(hashes) {
            break;
        }
    }
    lines
}

/// A character, `'x'` or `'\n'`; or a lifetime, of which only the quote is skipped.
fn skip_character(chars: &mut Peekable<Chars<'_>>) {
    let mut ahead = chars.clone();
    match (ahead.next(), ahead.next()) {
        (Some('\\'), _) => {
            chars.next();
            chars.next();
            while chars.next().is_some_and(|c| c != '\'') {}
        }
        (Some(_), Some('\'')) => {
            chars.next();
            chars.next();
        }
        _ => {}
    }
}
