//! Reads a map by the table of its keys: what is unknown, missing, obsolete or of the wrong type
//! becomes a problem, and the rest is still read.

use std::collections::BTreeMap;

use super::keys::{Key, Presence};
use super::value::{Found, FromYaml, nearest};
use crate::lab::problem::Problems;
use crate::lab::yaml::{self, Entry, Node, Value};

/// A map of a file, by the keys that it may have.
pub(super) struct Reader<'a, 'p> {
    file: &'a str,
    /// Said before a key, such as `nodes.c001.`.
    prefix: String,
    keys: &'static [Key],
    /// By path; those whose value is there.
    found: BTreeMap<&'static str, &'a Entry>,
    /// Where something that is missing would be.
    line: Option<usize>,
    /// Lines of the sections that are there.
    sections: BTreeMap<&'static str, usize>,
    problems: &'p mut Problems,
}

impl<'a, 'p> Reader<'a, 'p> {
    /// Sorts the entries of a map by key. `prefix` is what the file has before them.
    pub(super) fn new(
        file: &'a str,
        prefix: String,
        node: &'a Node,
        keys: &'static [Key],
        problems: &'p mut Problems,
    ) -> Self {
        let line = (!prefix.is_empty()).then_some(node.line);
        let (found, sections) = (BTreeMap::new(), BTreeMap::new());
        let mut reader = Self { file, prefix, keys, found, line, sections, problems };
        for entry in reader.entries(node) {
            let section = keys.iter().find_map(|key| {
                key.path.split_once('.').map(|(section, _)| section).filter(|s| *s == entry.key)
            });
            match section {
                Some(section) => {
                    reader.sections.insert(section, entry.line);
                    for below in reader.entries(&entry.node) {
                        reader.sort(&format!("{section}."), below);
                    }
                }
                None => reader.sort("", entry),
            }
        }
        reader
    }

    fn entries(&mut self, node: &'a Node) -> &'a [Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                let message = format!("expected `key: value` lines here, not {}", node.kind());
                self.problems.error(self.file, Some(node.line), message);
                &[]
            }
        }
    }

    fn sort(&mut self, section: &str, entry: &'a Entry) {
        let path = format!("{section}{}", entry.key);
        let Some(key) = self.keys.iter().find(|key| key.path == path) else {
            self.unknown(&path, entry);
            return;
        };
        if let Presence::Obsolete(advice) = key.presence {
            let message = format!("{}{path} no longer means anything: {advice}", self.prefix);
            self.problems.warn(self.file, Some(entry.line), message);
        } else if entry.node.value != Value::Null {
            self.found.insert(key.path, entry);
        }
    }

    /// The nearest is looked for in the same section, then by the last word in all.
    fn unknown(&mut self, path: &str, entry: &Entry) {
        let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
        let paths = || self.keys.iter().map(|key| key.path);
        let elsewhere = || paths().find(|known| last(known) == entry.key);
        let near_last = || {
            let near = nearest(&entry.key, paths().map(last))?;
            paths().find(|known| last(known) == near)
        };
        let near = nearest(path, paths()).or_else(elsewhere).or_else(near_last);
        let hint = match near {
            Some(near) => format!("is `{near}` meant?"),
            None => format!("known here: {}", self.known(path).join(", ")),
        };
        let message = format!("there is no key `{path}`; {hint}");
        self.problems.error(self.file, Some(entry.line), message);
    }

    /// The keys of the section of `path`, or the sections.
    fn known(&self, path: &str) -> Vec<&'static str> {
        let mut known: Vec<&str> = match path.split_once('.') {
            Some((section, _)) => {
                let within = |key: &Key| key.path.strip_prefix(section)?.strip_prefix('.');
                self.keys.iter().filter_map(within).collect()
            }
            None => {
                let first = |key: &Key| key.path.split_once('.').map_or(key.path, |(s, _)| s);
                self.keys.iter().map(first).collect()
            }
        };
        known.dedup();
        known
    }

    /// The value of a key, or its default. Nothing after a problem, or if it may be missing and is.
    pub(super) fn value<T: FromYaml>(&mut self, path: &'static str) -> Option<Found<T>> {
        if let Some(entry) = self.found.get(path) {
            let line = entry.node.line;
            return match T::from_yaml(&entry.node) {
                Ok(value) => Some(Found { value, line: Some(line) }),
                Err(message) => {
                    let message = match message.starts_with('`') || message.starts_with('"') {
                        true => format!("{}{path}: {message}", self.prefix),
                        false => format!("{}{path} {message}", self.prefix),
                    };
                    self.problems.error(self.file, Some(line), message);
                    None
                }
            };
        }
        let key = self.keys.iter().find(|key| key.path == path)?;
        match key.presence {
            Presence::Required(example) => {
                self.missing(path, example);
                None
            }
            Presence::Default(text) => default(text).map(|value| Found { value, line: None }),
            Presence::Optional(_) | Presence::Obsolete(_) => None,
        }
    }

    /// The value alone.
    pub(super) fn bare<T: FromYaml>(&mut self, path: &'static str) -> Option<T> {
        self.value(path).map(|found| found.value)
    }

    /// Whether the key has a value.
    pub(super) fn has(&self, path: &str) -> bool {
        self.found.contains_key(path)
    }

    /// Says that a key is missing, and what it could be.
    pub(super) fn missing(&mut self, path: &str, example: &str) {
        let (section, key) = path.split_once('.').unwrap_or(("", path));
        let line = self.sections.get(section).copied().or(self.line);
        let prefix = &self.prefix;
        let message = match section {
            "" => format!("{prefix}{path} is missing: write `{key}: {example}`"),
            _ => format!("{path} is missing: write `{key}: {example}` in the section {section}"),
        };
        self.problems.error(self.file, line, message);
    }

    /// An error about a value that was read.
    pub(super) fn error(&mut self, line: Option<usize>, message: impl Into<String>) {
        self.problems.error(self.file, line, message);
    }

    /// A warning about a value that was read.
    pub(super) fn warn(&mut self, line: Option<usize>, message: impl Into<String>) {
        self.problems.warn(self.file, line, message);
    }

    /// The line of a key, if it is there.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        self.found.get(path).map(|entry| entry.line)
    }

    /// The node of a key, if it is there.
    pub(super) fn node(&self, path: &str) -> Option<&'a Node> {
        self.found.get(path).map(|entry| &entry.node)
    }
}

/// What a default stands for; a test holds that each is one.
pub(super) fn default<T: FromYaml>(text: &str) -> Option<T> {
    let node = match text {
        "[]" => Node { line: 1, value: Value::List(vec![]) },
        text => Node { line: 1, value: Value::Scalar(text.to_owned()) },
    };
    T::from_yaml(&node).ok()
}

/// The tree of a file; what is not YAML becomes problems.
pub(super) fn parse(file: &str, text: &str, problems: &mut Problems) -> Option<Node> {
    let (node, mistakes) = yaml::parse(text);
    for (line, message) in mistakes {
        problems.error(file, Some(line), message);
    }
    node
}
