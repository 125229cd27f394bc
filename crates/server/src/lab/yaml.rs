//! YAML as a tree in which everything knows its line, and scalars are the text that was written:
//! whether `6.10` is a version or a number is for the key to say, not for the parser.
//!
//! The events of `granit-parser` are what the tree is made of. Deserializing into types would end
//! at the first thing that does not fit, and somebody who wrote ten mistakes should see ten.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};

/// The most values in one file: 50,000 nodes of ten values each fit; an alias that stands for a
/// thousand others cannot fill the memory.
pub(crate) const VALUES_MAX: usize = 1_000_000;

/// A value and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Counted from one.
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A text, as it was written, without its quotes.
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the file, each key once.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: usize,
    pub(crate) node: Node,
}

/// A place and what is wrong there.
pub(crate) type Mistake = (usize, String);

impl Node {
    /// What kind of value it is, for sentences such as "expected a list, not a map".
    pub(crate) const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// The tree of a file with at most one document, and what is wrong with it. Without a tree there is
/// at least one mistake.
pub(crate) fn parse(text: &str) -> (Option<Node>, Vec<Mistake>) {
    let options = granit_parser::options! { emit_comments: false, emit_unresolved_aliases: true };
    let mut builder = Builder {
        events: Parser::new_from_str_with_options(text, options),
        anchors: BTreeMap::new(),
        count: 0,
        mistakes: vec![],
    };
    match builder.stream() {
        Ok(node) => (Some(node), builder.mistakes),
        Err(mistake) => {
            builder.mistakes.push(mistake);
            (None, builder.mistakes)
        }
    }
}

struct Builder<I> {
    events: I,
    anchors: BTreeMap<usize, Node>,
    count: usize,
    mistakes: Vec<Mistake>,
}

impl<'a, I> Builder<I>
where
    I: Iterator<Item = Result<(Event<'a>, Span), granit_parser::ScanError>>,
{
    fn stream(&mut self) -> Result<Node, Mistake> {
        let mut root = None;
        while let Some((event, line)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    let message = "a second document begins here: one file is one document";
                    return Err((line, message.to_owned()));
                }
                Event::DocumentStart(..) => {}
                Event::StreamEnd => break,
                event => root = Some(self.node(event, line)?),
            }
        }
        Ok(root.unwrap_or(Node { line: 1, value: Value::Null }))
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, usize)>, Mistake> {
        match self.events.next() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, span.start.line()))),
            Some(Err(error)) => Err((error.marker().line(), format!("not YAML: {}", error.info()))),
        }
    }

    /// The event that has to come, since the parser closes everything that it opens.
    fn expect(&mut self) -> Result<(Event<'a>, usize), Mistake> {
        self.next()?.ok_or_else(|| (1, "not YAML: it ends too early".to_owned()))
    }

    fn node(&mut self, event: Event<'a>, line: usize) -> Result<Node, Mistake> {
        self.count_values(1, line)?;
        let tag = event.tag().filter(|tag| !tag.is_yaml_core_schema());
        if let Some(tag) = tag {
            self.mistakes.push((line, format!("the tag `{}` means nothing here", tag.original())));
        }
        let anchor = event.anchor_id();
        let value = match event {
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::SequenceStart(..) => self.list()?,
            Event::MappingStart(..) => self.map()?,
            Event::Alias(id) => return self.alias(id, line),
            Event::UnresolvedAlias(name) => {
                let message = format!("`*{name}` stands for nothing: there is no `&{name}` before");
                self.mistakes.push((line, message));
                Value::Null
            }
            _ => Value::Null,
        };
        let node = Node { line, value };
        if let Some(id) = anchor {
            self.anchors.insert(id, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self) -> Result<Value, Mistake> {
        let mut nodes = vec![];
        loop {
            match self.expect()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(nodes)),
                (event, line) => nodes.push(self.node(event, line)?),
            }
        }
    }

    fn map(&mut self) -> Result<Value, Mistake> {
        let mut entries: Vec<Entry> = vec![];
        let mut lines = BTreeMap::new();
        loop {
            let (event, line) = self.expect()?;
            if event == Event::MappingEnd {
                return Ok(Value::Map(entries));
            }
            let key = self.node(event, line)?;
            let (event, value_line) = self.expect()?;
            let node = self.node(event, value_line)?;
            let kind = key.kind();
            let Value::Scalar(key) = key.value else {
                self.mistakes.push((line, format!("a key is a word, not {kind}")));
                continue;
            };
            if let Some(first) = lines.insert(key.clone(), line) {
                let message = format!("`{key}` is here twice, before in line {first}: keep one");
                self.mistakes.push((line, message));
                continue;
            }
            entries.push(Entry { key, line, node });
        }
    }

    /// A copy of what the alias stands for; mistakes in it are told where it is used.
    fn alias(&mut self, id: usize, line: usize) -> Result<Node, Mistake> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            return Err((line, "an alias within what it stands for".to_owned()));
        };
        self.count_values(count(&node), line)?;
        Ok(Node { line, ..node })
    }

    fn count_values(&mut self, more: usize, line: usize) -> Result<(), Mistake> {
        self.count += more;
        match self.count > VALUES_MAX {
            true => Err((line, format!("more than {VALUES_MAX} values"))),
            false => Ok(()),
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match text {
        // Core schema of YAML 1.2.2, section 10.3.2.
        "" | "~" | "null" | "Null" | "NULL" if style == ScalarStyle::Plain => Value::Null,
        text => Value::Scalar(text.to_owned()),
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Scalar(_) => 0,
        Value::List(nodes) => nodes.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|entry| 1 + count(&entry.node)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree in one line, `LINE:VALUE`.
    fn show(node: &Node) -> String {
        let line = node.line;
        match &node.value {
            Value::Null => format!("{line}:null"),
            Value::Scalar(text) => format!("{line}:{text:?}"),
            Value::List(nodes) => {
                let nodes: Vec<_> = nodes.iter().map(show).collect();
                format!("{line}:[{}]", nodes.join(", "))
            }
            Value::Map(entries) => {
                let entry =
                    |entry: &Entry| format!("{}@{} = {}", entry.key, entry.line, show(&entry.node));
                let entries: Vec<_> = entries.iter().map(entry).collect();
                format!("{line}:{{{}}}", entries.join(", "))
            }
        }
    }

    #[track_caller]
    fn check(text: &str, expect: &str, mistakes: &[(usize, &str)]) {
        let (node, found) = parse(text);
        assert_eq!(node.as_ref().map(show).unwrap_or_default(), expect);
        assert_eq!(found.len(), mistakes.len(), "{found:?}");
        for ((line, message), (expect_line, part)) in found.iter().zip(mistakes) {
            assert_eq!(line, expect_line, "{message}");
            assert!(message.contains(part), "{message:?} without {part:?}");
        }
    }

    #[test]
    fn scalars_are_the_text_that_was_written() {
        check("kernel: 6.10", r#"1:{kernel@1 = 1:"6.10"}"#, &[]);
        check("name: 007", r#"1:{name@1 = 1:"007"}"#, &[]);
        check("mac: 52:54:00:12:34:56", r#"1:{mac@1 = 1:"52:54:00:12:34:56"}"#, &[]);
        check("a: 'it''s'\nb: \"x\\ty\"", r#"1:{a@1 = 1:"it's", b@2 = 2:"x\ty"}"#, &[]);
    }

    #[test]
    fn nothing_is_told_from_an_empty_text() {
        check("a:\nb: ~\nc: ''", r#"1:{a@1 = 1:null, b@2 = 2:null, c@3 = 3:""}"#, &[]);
        check("", "1:null", &[]);
        check("# only a comment\n", "1:null", &[]);
    }

    #[test]
    fn everything_knows_its_line() {
        let text = "# comment\n\nlist:\n  - a\n  - b\nmap: {x: 1,\n  y: 2}\n";
        let expect = r#"3:{list@3 = 4:[4:"a", 5:"b"], map@6 = 6:{x@6 = 6:"1", y@7 = 7:"2"}}"#;
        check(text, expect, &[]);
    }

    #[test]
    fn a_key_that_is_there_twice_is_told_with_both_lines() {
        check("a: 1\na: 2\na: 3", r#"1:{a@1 = 1:"1"}"#, &[(2, "in line 1"), (3, "in line 2")]);
    }

    #[test]
    fn an_alias_stands_for_its_anchor() {
        check("a: &x [1]\nb: *x", r#"1:{a@1 = 1:[1:"1"], b@2 = 2:[1:"1"]}"#, &[]);
        check("b: *x", "1:{b@1 = 1:null}", &[(1, "`*x` stands for nothing")]);
    }

    #[test]
    fn aliases_cannot_fill_the_memory() {
        let mut text = "x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
        for level in 1..12 {
            let below = format!("*x{}, ", level - 1).repeat(10);
            text.push_str(&format!("x{level}: &x{level} [{below}]\n"));
        }
        let (node, mistakes) = parse(&text);
        assert_eq!(node, None);
        assert!(mistakes[0].1.contains("values"), "{mistakes:?}");
    }

    #[test]
    fn what_is_not_yaml_has_a_line() {
        let (node, mistakes) = parse("a: 1\nb: [1, 2\nc: 3\n");
        assert_eq!(node, None);
        assert!(mistakes[0].0 >= 2 && mistakes[0].1.contains("not YAML"), "{mistakes:?}");
    }

    #[test]
    fn strange_tags_and_keys_are_mistakes_and_the_rest_is_read() {
        check("a: !secret x\nb: !!str 1", r#"1:{a@1 = 1:"x", b@2 = 2:"1"}"#, &[(1, "!secret")]);
        check("[a]: 1\nb: 2", r#"1:{b@2 = 2:"2"}"#, &[(1, "not a list")]);
        check("---\na: 1\n---\nb: 2", "", &[(3, "second document")]);
    }
}
