//! Sets of nodes as people write them: `c001,login[1-2],d[1-3,7]-r[01-02]`. Numbers keep their leading
//! zeros, as with ClusterShell and Slurm.

use std::collections::BTreeMap;
use std::fmt;

/// The most nodes in one set: what a manifest can hold.
pub const NODES_MAX: usize = 50_000;

/// A text that is no set of nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeSetError {
    /// A bracket without the other.
    #[error("`{0}`: a bracket is open or closed without the other")]
    Bracket(String),
    /// Between brackets there are numbers and ranges of them.
    #[error("`{0}` is no range: write it like 001-100 or 1,3,5-7, the lower number first")]
    Range(String),
    /// Two commas, or one at an end.
    #[error("there is nothing between two commas, or at an end")]
    Empty,
    /// More than [`NODES_MAX`].
    #[error("these are more than {NODES_MAX} nodes")]
    TooMany,
}

/// The names that `text` stands for, in its order, each once.
///
/// # Errors
/// [`NodeSetError`].
pub fn expand(text: &str) -> Result<Vec<String>, NodeSetError> {
    let mut names = vec![];
    let mut known = std::collections::BTreeSet::new();
    for element in elements(text)? {
        for name in expand_one(element)? {
            if known.insert(name.clone()) {
                names.push(name);
            }
            if names.len() > NODES_MAX {
                return Err(NodeSetError::TooMany);
            }
        }
    }
    Ok(names)
}

/// Splits at the commas that are not between brackets.
fn elements(text: &str) -> Result<Vec<&str>, NodeSetError> {
    let mut elements = vec![];
    let (mut begin, mut is_within) = (0, false);
    for (at, c) in text.char_indices() {
        match (c, is_within) {
            ('[', false) => is_within = true,
            (']', true) => is_within = false,
            ('[' | ']', _) => return Err(NodeSetError::Bracket(shown(text))),
            (',', false) => {
                elements.push(text[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    elements.push(text[begin..].trim());
    match (is_within, elements.iter().any(|element| element.is_empty())) {
        (true, _) => Err(NodeSetError::Bracket(shown(text))),
        (false, true) => Err(NodeSetError::Empty),
        (false, false) => Ok(elements),
    }
}

/// The names of an element: every combination of what is between its brackets.
fn expand_one(element: &str) -> Result<Vec<String>, NodeSetError> {
    let mut names = vec![String::new()];
    let mut rest = element;
    while let Some((before, after)) = rest.split_once('[') {
        let (ranges, after) =
            after.split_once(']').ok_or_else(|| NodeSetError::Bracket(shown(element)))?;
        let numbers = numbers(ranges)?;
        if names.len().saturating_mul(numbers.len()) > NODES_MAX {
            return Err(NodeSetError::TooMany);
        }
        names = names
            .iter()
            .flat_map(|name| numbers.iter().map(move |number| format!("{name}{before}{number}")))
            .collect();
        rest = after;
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

/// `001-100,105`.
fn numbers(ranges: &str) -> Result<Vec<String>, NodeSetError> {
    let mut numbers = vec![];
    for range in ranges.split(',').map(str::trim) {
        let refuse = || NodeSetError::Range(shown(range));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let is_number = |text: &str| {
            !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit())
        };
        if !is_number(first) || !is_number(last) {
            return Err(refuse());
        }
        let width = if first.starts_with('0') { first.len() } else { 0 };
        let (first, last): (u32, u32) =
            (first.parse().map_err(|_| refuse())?, last.parse().map_err(|_| refuse())?);
        if first > last {
            return Err(refuse());
        }
        if numbers.len() + (last - first) as usize >= NODES_MAX {
            return Err(NodeSetError::TooMany);
        }
        numbers.extend((first..=last).map(|number| format!("{number:0width$}")));
    }
    Ok(numbers)
}

/// Writes names as shortly as they can be written: those that differ in their last number alone become
/// one element. In order.
pub fn fold<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    /// What is before and after the last number, and its digits if it has leading zeros.
    type Family<'a> = (&'a str, &'a str, usize);
    let mut families: BTreeMap<Family<'a>, Vec<u32>> = BTreeMap::new();
    let mut single = vec![];
    for name in names {
        match last_number(name) {
            Some((before, number, after)) => {
                let width = if number.starts_with('0') { number.len() } else { 0 };
                let Ok(number) = number.parse() else { continue };
                families.entry((before, after, width)).or_default().push(number);
            }
            None => single.push(name),
        }
    }
    merge_widths(&mut families);
    let mut out: Vec<String> = single.into_iter().map(str::to_owned).collect();
    for ((before, after, width), mut numbers) in families {
        numbers.sort_unstable();
        numbers.dedup();
        let ranges = Ranges { numbers: &numbers, width };
        out.push(match numbers.as_slice() {
            [number] => format!("{before}{number:0width$}{after}"),
            _ => format!("{before}[{ranges}]{after}"),
        });
    }
    out.sort();
    out.dedup();
    out.join(",")
}

/// `c100` belongs to `c001`, though it has no leading zero: as many digits, and one that has.
fn merge_widths(families: &mut BTreeMap<(&str, &str, usize), Vec<u32>>) {
    let padded: Vec<_> = families.keys().filter(|(.., width)| *width > 0).copied().collect();
    for (before, after, width) in padded {
        let Some(plain) = families.get_mut(&(before, after, 0)) else { continue };
        let is_as_long = |number: &u32| number.to_string().len() == width;
        let moved: Vec<u32> = plain.iter().filter(|number| is_as_long(number)).copied().collect();
        plain.retain(|number| !is_as_long(number));
        if plain.is_empty() {
            families.remove(&(before, after, 0));
        }
        families.entry((before, after, width)).or_default().extend(moved);
    }
}

fn last_number(name: &str) -> Option<(&str, &str, &str)> {
    let end = name.rfind(|c: char| c.is_ascii_digit())? + 1;
    let begin = name[..end]
        .rfind(|c: char| !c.is_ascii_digit())
        .map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
    let number = &name[begin..end];
    (number.len() <= 9).then_some((&name[..begin], number, &name[end..]))
}

/// Numbers in order as ranges.
struct Ranges<'a> {
    numbers: &'a [u32],
    width: usize,
}

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.width;
        let runs = self.numbers.chunk_by(|a, b| a + 1 == *b);
        for (index, run) in runs.enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match run {
                [first, .., last] => write!(f, "{first:0width$}-{last:0width$}")?,
                [number] => write!(f, "{number:0width$}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets_are_written_as_clusters_write_them() {
        let check =
            |text: &str, expect: &[&str]| assert_eq!(expand(text).unwrap(), expect, "{text}");
        check("c001", &["c001"]);
        check("c[001-003,105]", &["c001", "c002", "c003", "c105"]);
        check("c[9-11]", &["c9", "c10", "c11"]);
        check("c[1-2]-r[01-02]x", &["c1-r01x", "c1-r02x", "c2-r01x", "c2-r02x"]);
        check("a, b[1,3] ,a", &["a", "b1", "b3"]);
        check("c[098-101]", &["c098", "c099", "c100", "c101"]);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let check = |text: &str, part: &str| {
            let error = expand(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("", "nothing between");
        check("a,,b", "nothing between");
        check("c[1-2", "bracket");
        check("c1]", "bracket");
        check("c[[1]]", "bracket");
        check("c[2-1]", "the lower number first");
        check("c[a-b]", "is no range");
        check("c[]", "is no range");
        check("c[1-999999999]", "more than");
        check("c[1-1000]x[1-1000]", "more than");
    }

    #[test]
    fn names_are_folded() {
        let check = |names: &[&str], expect: &str| {
            assert_eq!(fold(names.iter().copied()), expect);
        };
        check(&["c003", "c001", "c002", "c105", "login"], "c[001-003,105],login");
        check(&["c9", "c10", "c11"], "c[9-11]");
        check(&["c099", "c100"], "c[099-100]");
        check(&["a"], "a");
        check(&[], "");
    }

    proptest! {
        #[test]
        fn what_is_folded_expands_to_the_same(
            names in prop::collection::btree_set("[a-c]{1,2}[0-9]{0,4}(-r[0-9]{1,2})?", 1..40)
        ) {
            let folded = fold(names.iter().map(String::as_str));
            let expanded: std::collections::BTreeSet<String> =
                expand(&folded).unwrap().into_iter().collect();
            prop_assert_eq!(expanded, names, "{}", folded);
        }

        #[test]
        fn no_text_is_too_much(text in r"[a-c0-9,\[\]-]{0,40}") {
            if let Ok(names) = expand(&text) {
                prop_assert!(names.len() <= NODES_MAX);
            }
        }
    }
}
