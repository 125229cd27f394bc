//! Changes to `nodes.yaml` that leave every other byte of it as it is: comments, order, spaces.
//!
//! It is done line by line, in the two ways in which people write a node there, a key to a line or all
//! in braces on one. (Libraries that edit YAML in place bring a C parser of their own.) Whoever calls
//! reads the result again, as what decides is not this but the parser: what cannot be edited so is
//! refused, never guessed.

use boot::Mac;

use super::yaml::{Entry, Node, Value, parse};

/// Why a node cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    #[error("nodes.yaml cannot be read: `boottorrent check` says why")]
    Malformed,
    #[error("nodes.yaml has no node `{0}`")]
    NoSuchNode(String),
    #[error("nodes.yaml has a node `{0}` already")]
    Known(String),
    #[error("nodes.yaml, line {line}: `ignored` is not written as a list: change it by hand")]
    IgnoredForm { line: usize },
    #[error(
        "nodes.yaml, line {line}: `nodes` is not written with a node to a line: add `{node}` by hand"
    )]
    NodesForm { node: String, line: usize },
    #[error(
        "nodes.yaml, line {line}: `{node}` is written in a way that is not edited here; write it with a \
         key to a line, or in braces on one line"
    )]
    Form { node: String, line: usize },
}

/// A key of a node, and its new value; none takes the key away.
pub(crate) type Change<'a> = (&'a str, Option<&'a str>);

/// The file with these keys of a node changed. Values are written in quotes where they need them.
///
/// # Errors
/// [`EditError`].
pub(crate) fn edit(text: &str, node: &str, changes: &[Change<'_>]) -> Result<String, EditError> {
    let mut text = text.to_owned();
    for (key, value) in changes {
        // Lines move with each change.
        text = edit_one(&text, node, key, *value)?;
    }
    Ok(text)
}

/// The file with another node that was seen, which is not ignored any more.
///
/// # Errors
/// [`EditError`].
pub(crate) fn accept(
    text: &str,
    node: &str,
    mac: &str,
    keys: &[(&str, Option<&str>)],
) -> Result<String, EditError> {
    let text = add(&heed(text, mac)?, node, mac)?;
    let keys: Vec<Change<'_>> = keys.iter().copied().filter(|(_, value)| value.is_some()).collect();
    edit(&text, node, &keys)
}

/// The file with another node, before those that are there.
///
/// # Errors
/// [`EditError`].
fn add(text: &str, node: &str, mac: &str) -> Result<String, EditError> {
    let (root, mistakes) = parse(text);
    if !mistakes.is_empty() {
        return Err(EditError::Malformed);
    }
    let line = |indent: &str| format!("{indent}{node}: {{mac: '{mac}'}}\n");
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    if let Some(last) = lines.last_mut().filter(|last| !last.ends_with('\n')) {
        last.push('\n');
    }
    let Some(nodes) = root.as_ref().and_then(|root| entry_of(root, "nodes")) else {
        lines.push(format!("nodes:\n{}", line("  ")));
        return Ok(lines.concat());
    };
    let form = || EditError::NodesForm { node: node.to_owned(), line: nodes.line };
    match &nodes.node.value {
        Value::Null => lines.insert(nodes.line, line("  ")),
        Value::Map(entries) => {
            if entries.iter().any(|entry| entry.key == node) {
                return Err(EditError::Known(node.to_owned()));
            }
            let first = entries.first().map(|entry| entry.line).filter(|first| *first > nodes.line);
            let first = first.ok_or_else(form)?;
            let like = lines.get(first - 1).ok_or_else(form)?;
            let indent = like[..like.len() - like.trim_start().len()].to_owned();
            lines.insert(first - 1, line(&indent));
        }
        _ => return Err(form()),
    }
    Ok(lines.concat())
}

/// The file with an address under `ignored`.
///
/// # Errors
/// [`EditError`].
pub(crate) fn ignore(text: &str, mac: &str) -> Result<String, EditError> {
    let (root, mistakes) = parse(text);
    if !mistakes.is_empty() {
        return Err(EditError::Malformed);
    }
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    if let Some(last) = lines.last_mut().filter(|last| !last.ends_with('\n')) {
        last.push('\n');
    }
    let Some(ignored) = root.as_ref().and_then(|root| entry_of(root, "ignored")) else {
        lines.push(format!("ignored:\n  - '{mac}'\n"));
        return Ok(lines.concat());
    };
    let form = || EditError::IgnoredForm { line: ignored.line };
    match &ignored.node.value {
        Value::List(items) if items.iter().any(|item| is_mac(item, mac)) => {}
        Value::Null => lines.insert(ignored.line, format!("  - '{mac}'\n")),
        Value::List(items) => match items.first().map(|item| item.line) {
            Some(first) if first > ignored.line => {
                let like = lines.get(first - 1).ok_or_else(form)?;
                let dash = like.find('-').ok_or_else(form)?;
                let line = format!("{}- '{mac}'\n", &like[..dash]);
                lines.insert(first - 1, line);
            }
            first => {
                let line = lines.get_mut(ignored.line - 1).ok_or_else(form)?;
                let open = line.find('[').ok_or_else(form)?;
                let comma = if first.is_some() { ", " } else { "" };
                line.insert_str(open + 1, &format!("'{mac}'{comma}"));
            }
        },
        _ => return Err(form()),
    }
    Ok(lines.concat())
}

/// Whether an item is this address, however it is written.
fn is_mac(item: &Node, mac: &str) -> bool {
    let Value::Scalar(text) = &item.value else { return false };
    text.parse::<Mac>().is_ok_and(|one| Ok(one) == mac.parse())
}

/// The file without an address under `ignored`.
fn heed(text: &str, mac: &str) -> Result<String, EditError> {
    let (root, _) = parse(text);
    let Some(ignored) = root.as_ref().and_then(|root| entry_of(root, "ignored")) else {
        return Ok(text.to_owned());
    };
    let Value::List(items) = &ignored.node.value else { return Ok(text.to_owned()) };
    let found = items.iter().find(|item| is_mac(item, mac));
    let Some(found) = found else { return Ok(text.to_owned()) };
    let form = || EditError::IgnoredForm { line: ignored.line };
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    if items.iter().filter(|item| item.line == found.line).count() == 1
        && found.line > ignored.line
        && lines.get(found.line - 1).is_some_and(|line| line.trim_start().starts_with('-'))
    {
        lines.remove(found.line - 1);
        return Ok(lines.concat());
    }
    let line = lines.get_mut(found.line - 1).ok_or_else(form)?;
    let open = line.find('[').ok_or_else(form)?;
    let close = open + matching_brace(&line[open..]).ok_or_else(form)?;
    let is_other =
        |part: &&str| part.trim().trim_matches(['\'', '"']).parse::<Mac>().ok() != mac.parse().ok();
    let kept: Vec<&str> = top_level(&line[open + 1..close]).into_iter().filter(is_other).collect();
    *line = format!("{}[{}{}", &line[..open], kept.join(",").trim_start(), &line[close..]);
    Ok(lines.concat())
}

fn edit_one(text: &str, node: &str, key: &str, value: Option<&str>) -> Result<String, EditError> {
    let (Some(root), _) = parse(text) else { return Err(EditError::Malformed) };
    let entry = entry_of(&root, "nodes").and_then(|nodes| entry_of(&nodes.node, node));
    let entry = entry.ok_or_else(|| EditError::NoSuchNode(node.to_owned()))?;
    let form = |line| EditError::Form { node: node.to_owned(), line };
    let Value::Map(keys) = &entry.node.value else { return Err(form(entry.line)) };
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let first = keys.first().ok_or_else(|| form(entry.line))?;
    if first.line == entry.line {
        // In braces: all on this line.
        if keys.iter().any(|key| key.line != entry.line) {
            return Err(form(entry.line));
        }
        let line = lines.get_mut(entry.line - 1).ok_or_else(|| form(entry.line))?;
        *line = in_braces(line, key, value).ok_or_else(|| form(entry.line))?;
        return Ok(lines.concat());
    }
    let found = keys.iter().find(|entry| entry.key == key);
    match (found, value) {
        (None, None) => {}
        (Some(found), _) if found.node.line != found.line => return Err(form(found.line)),
        (Some(found), None) => drop(lines.remove(found.line - 1)),
        (Some(found), Some(value)) => {
            let line = &mut lines[found.line - 1];
            *line = with_value(line, value).ok_or_else(|| form(found.line))?;
        }
        (None, Some(value)) => {
            let like = keys.iter().find(|key| key.key == "mac").unwrap_or(first);
            let indent = lines[like.line - 1].clone();
            let indent = &indent[..indent.len() - indent.trim_start().len()];
            if !lines[like.line - 1].ends_with('\n') {
                lines[like.line - 1].push('\n');
            }
            lines.insert(like.line, format!("{indent}{key}: {}\n", quoted(value)));
        }
    }
    Ok(lines.concat())
}

fn entry_of<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key)
}

/// `key: value  # comment` with another value.
fn with_value(line: &str, value: &str) -> Option<String> {
    let colon = line.find(':')?;
    let (head, rest) = line.split_at(colon + 1);
    let comment = comment_at(rest);
    let (old, tail) = rest.split_at(comment);
    let after = &old[old.trim_end().len()..];
    let gap = if tail.trim_start().starts_with('#') && after.is_empty() { " " } else { after };
    Some(format!("{head} {}{gap}{tail}", quoted(value)))
}

/// Where the comment of the rest of a line begins, or its end.
fn comment_at(rest: &str) -> usize {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in rest.char_indices() {
        match (c, quote) {
            ('#', None) if before.is_whitespace() => return at,
            ('\n' | '\r', _) => return at,
            ('"' | '\'', None) if before.is_whitespace() || before == ',' => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
        before = c;
    }
    rest.len()
}

/// `name: {a: b, c: d}` with a key changed.
fn in_braces(line: &str, key: &str, value: Option<&str>) -> Option<String> {
    let open = line.find('{')?;
    let close = open + matching_brace(&line[open..])?;
    let inner = &line[open + 1..close];
    let mut parts: Vec<String> = top_level(inner).into_iter().map(str::to_owned).collect();
    let is_key = |part: &String| part.split(':').next().is_some_and(|name| name.trim() == key);
    match (parts.iter().position(is_key), value) {
        (Some(at), Some(value)) => {
            let lead = &parts[at][..parts[at].len() - parts[at].trim_start().len()];
            parts[at] = format!("{lead}{key}: {}", quoted(value));
        }
        (Some(at), None) => {
            parts.remove(at);
        }
        (None, Some(value)) => {
            let tail = if inner.ends_with(' ') { " " } else { "" };
            let trimmed = parts.last()?.trim_end().to_owned();
            *parts.last_mut()? = trimmed;
            parts.push(format!(" {key}: {}{tail}", quoted(value)));
        }
        (None, None) => {}
    }
    Some(format!("{}{{{}{}", &line[..open], parts.join(","), &line[close..]))
}

fn matching_brace(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_i32, None);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('{' | '[', None) => depth += 1,
            ('}' | ']', None) => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Splits at commas that are in no quotes, braces or brackets.
fn top_level(text: &str) -> Vec<&str> {
    let (mut depth, mut quote, mut begin) = (0_i32, None, 0);
    let mut parts = vec![];
    for (at, c) in text.char_indices() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('{' | '[', None) => depth += 1,
            ('}' | ']', None) => depth -= 1,
            (',', None) if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// As YAML reads it back: plain where nothing in it means anything else.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+/=".contains(c);
    let is_plain = value.chars().all(plain)
        && value.starts_with(|c: char| c.is_ascii_alphabetic())
        && !["true", "false", "yes", "no", "on", "off", "null"].contains(&value);
    match is_plain {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', "''")),
    }
}

/// What `after` has otherwise than `before`, line by line, as people read it: lines with `-` and `+`
/// and the number of the line.
pub(crate) fn difference(before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let mut out = String::new();
    let (mut a, mut b) = (0, 0);
    while a < old.len() || b < new.len() {
        if a < old.len() && b < new.len() && old[a] == new[b] {
            (a, b) = (a + 1, b + 1);
            continue;
        }
        // Edits are single lines: the nearest line that both have ends the difference.
        let next = (0..64).find_map(|distance| {
            (0..=distance).find_map(|skip| {
                let (x, y) = (a + skip, b + distance - skip);
                let is_end = x == old.len() && y == new.len();
                (is_end || old.get(x).is_some_and(|line| new.get(y) == Some(line)))
                    .then_some((x, y))
            })
        });
        let (x, y) = next.unwrap_or((old.len(), new.len()));
        for (number, line) in old.iter().enumerate().take(x).skip(a) {
            out.push_str(&format!("{:>5} - {line}\n", number + 1));
        }
        for (number, line) in new.iter().enumerate().take(y).skip(b) {
            out.push_str(&format!("{:>5} + {line}\n", number + 1));
        }
        (a, b) = (x, y);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# The room.
groups:
  desks: {image: debian}
nodes:
  c001:            # by the window
    mac: 52:54:00:00:00:01  # new card
    image: debian   # for now
  c002: {mac: 525400000002, group: desks}   # braces
  c003:
    mac: 525400000003
";

    #[track_caller]
    fn check(node: &str, changes: &[Change<'_>], expect: &[(&str, &str)]) {
        let mut text = FILE.to_owned();
        for (from, to) in expect {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        assert_eq!(edit(FILE, node, changes).unwrap(), text);
    }

    #[test]
    fn a_value_is_changed_and_the_comment_stays() {
        check("c001", &[("image", Some("arch"))], &[("image: debian   #", "image: arch   #")]);
    }

    #[test]
    fn a_key_is_added_below_the_address_and_taken_away_again() {
        check(
            "c003",
            &[("image", Some("arch")), ("cmdline", Some("quiet ip=dhcp"))],
            &[(
                "    mac: 525400000003\n",
                "    mac: 525400000003\n    cmdline: 'quiet ip=dhcp'\n    image: arch\n",
            )],
        );
        check("c001", &[("image", None)], &[("    image: debian   # for now\n", "")]);
        check("c003", &[("image", None)], &[]);
    }

    #[test]
    fn braces_stay_braces() {
        let braces = "{mac: 525400000002, group: desks}";
        let to = "{mac: 525400000002, group: desks, image: arch}";
        check("c002", &[("image", Some("arch"))], &[(braces, to)]);
        check("c002", &[("group", Some("x"))], &[("group: desks}", "group: x}")]);
        check("c002", &[("group", None)], &[(braces, "{mac: 525400000002}")]);
    }

    #[test]
    fn an_address_is_added_to_those_that_are_ignored() {
        let check = |text: &str, expect: &str| {
            let after = ignore(text, "52:54:00:00:00:09").unwrap();
            assert_eq!(after, expect);
            assert!(parse(&after).1.is_empty(), "{after}");
        };
        let line = "- '52:54:00:00:00:09'\n";
        check("nodes: {}", &format!("nodes: {{}}\nignored:\n  {line}"));
        check("ignored:\n", &format!("ignored:\n  {line}"));
        check("ignored:\n- a\n", &format!("ignored:\n{line}- a\n"));
        check("ignored:\n    - a # x\n", &format!("ignored:\n    {line}    - a # x\n"));
        check("ignored: [a, b]\n", "ignored: ['52:54:00:00:00:09', a, b]\n");
        check("ignored: []\n", "ignored: ['52:54:00:00:00:09']\n");
        for text in ["ignored:\n- a\n", "ignored: [a, b]\n", "ignored: []\n", "nodes: {}\n"] {
            let before = text.replace("a", "525400000001").replace("b", "525400000002");
            let ignored = ignore(&before, "52:54:00:00:00:09").unwrap();
            let expect = if text == "nodes: {}\n" { "nodes: {}\nignored:\n" } else { &before };
            assert_eq!(ignore(&ignored, "52:54:00:00:00:09").unwrap(), ignored);
            assert_eq!(heed(&ignored, "525400000009").unwrap(), expect);
            assert_eq!(heed(&before, "525400000009").unwrap(), before);
        }
        let error = ignore("ignored: {a: b}\n", "x").unwrap_err();
        assert_eq!(error, EditError::IgnoredForm { line: 1 });
    }

    #[test]
    fn a_node_is_added_before_the_others() {
        let check = |text: &str, expect: &str| {
            assert_eq!(add(text, "c9", "52:54:00:00:00:09").unwrap(), expect);
        };
        let line = "c9: {mac: '52:54:00:00:00:09'}\n";
        check("", &format!("nodes:\n  {line}"));
        check("groups: {a: {}}", &format!("groups: {{a: {{}}}}\nnodes:\n  {line}"));
        check("nodes:  # none yet\n# x\n", &format!("nodes:  # none yet\n  {line}# x\n"));
        let expect = FILE.replacen("  c001:", &format!("  {line}  c001:"), 1);
        check(FILE, &expect);
        assert_eq!(edit(&expect, "c9", &[("image", None)]).unwrap(), expect);
        let error = |text: &str, node: &str| add(text, node, "52:54:00:00:00:09").unwrap_err();
        assert_eq!(error(FILE, "c001"), EditError::Known("c001".to_owned()));
        assert!(matches!(error("nodes: {a: {mac: 1}}", "c9"), EditError::NodesForm { .. }));
        assert!(matches!(error("nodes: [", "c9"), EditError::Malformed));
    }

    #[test]
    fn what_is_written_otherwise_is_refused() {
        let text = "nodes:\n  a: {mac: 1,\n    image: b}\n  b:\n    mac: 1\n    image:\n      c\n";
        for node in ["a", "b"] {
            let error = edit(text, node, &[("image", Some("x"))]).unwrap_err();
            assert!(matches!(error, EditError::Form { .. }), "{error}");
        }
        let error = edit(text, "z", &[("image", None)]).unwrap_err();
        assert_eq!(error, EditError::NoSuchNode("z".to_owned()));
    }

    #[test]
    fn the_difference_shows_what_was_changed() {
        let after = edit(FILE, "c001", &[("image", Some("arch"))]).unwrap();
        let after = edit(&after, "c003", &[("image", Some("arch"))]).unwrap();
        let expect = "    7 -     image: debian   # for now\n    7 +     image: arch   # for now\n   \
                      11 +     image: arch\n";
        assert_eq!(difference(FILE, &after), expect);
        assert_eq!(difference(FILE, FILE), "");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(
            image in "[a-z][a-z0-9.-]{0,8}", cmdline in "[ -~]{1,30}", node in 0..3_usize
        ) {
            let node = ["c001", "c002", "c003"][node];
            let cmdline = cmdline.trim();
            let changes = [("image", Some(image.as_str())), ("cmdline", Some(cmdline))];
            let after = edit(FILE, node, &changes).unwrap();
            let (root, mistakes) = parse(&after);
            proptest::prop_assert!(mistakes.is_empty(), "{after}");
            let root = root.unwrap();
            let found = entry_of(&entry_of(&root, "nodes").unwrap().node, node).unwrap();
            let value = |key| match &entry_of(&found.node, key).unwrap().node.value {
                Value::Scalar(text) => text.clone(),
                _ => String::new(),
            };
            proptest::prop_assert_eq!(value("image"), image);
            proptest::prop_assert_eq!(value("cmdline"), cmdline);
            let back = edit(&after, node, &[("cmdline", None), ("image", None)]).unwrap();
            let plain = edit(FILE, node, &[("cmdline", None), ("image", None)]).unwrap();
            proptest::prop_assert_eq!(back, plain);
        }
    }
}
