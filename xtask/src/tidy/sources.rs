//! Rules for source files.

/// A file that is longer has two subjects.
const LINES_MAX: usize = 800;

/// Never in a commit: a test that is not run, code that is not there, a print that was forgotten.
const FORBIDDEN: &[&str] = &["#[ignore", "todo!(", "unimplemented!(", "dbg!("];

/// Parts of names that the glossary has another word for.
const NOT_OUR_WORDS: &[(&str, &str)] = &[
    ("chunk", "piece or block"),
    ("seeder", "seed"),
    ("leecher", "leech"),
    ("slave", "node"),
    ("master", "server"),
    ("inventory", "fleet"),
    ("heartbeat", "report"),
    ("telemetry", "report"),
    ("manager", "what it does"),
    ("helper", "what it does"),
    ("util", "what it does"),
    ("utils", "what it does"),
    ("misc", "what it holds"),
];

/// Beginnings of names that say nothing or say it twice.
const NOT_OUR_PREFIXES: &[&str] = &["num_", "get_", "do_", "process_"];

/// Words before a name that is being given.
const DEFINERS: &[&str] =
    &["fn", "struct", "enum", "trait", "type", "mod", "const", "static", "let", "mut"];

/// Folders of somebody's machine.
const MACHINE_PATHS: &[&str] = &["/home/", "/root/", "/work/"];

/// Offences in a Rust file, each as `line: sentence`. `spells_words` exempts this very file.
pub(super) fn check(text: &str, spells_words: bool) -> Vec<String> {
    let mut offences = Vec::new();
    let line_count = text.lines().count();
    if line_count > LINES_MAX {
        offences.push(format!("{line_count}: more than {LINES_MAX} lines"));
    }
    for (index, line) in text.lines().enumerate().filter(|_| !spells_words) {
        let number = index + 1;
        let code = line.split("//").next().unwrap_or_default();
        for word in FORBIDDEN.iter().filter(|word| code.contains(**word)) {
            offences.push(format!("{number}: {word} is not for commits"));
        }
        for name in defined_names(code) {
            offences.extend(name_offence(name).map(|offence| format!("{number}: {offence}")));
        }
    }
    offences
}

/// Lines that name a folder of somebody's machine.
pub(super) fn machine_paths(text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let path = MACHINE_PATHS.iter().find(|path| has_absolute(line, path))?;
            Some(format!("{}: {path} is on one machine only", index + 1))
        })
        .collect()
}

/// Whether the path starts there: `/home/` in `a/home/b` or in a URL is no machine's.
fn has_absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '/' | '.' | '-' | '_' | '}'))
    })
}

fn defined_names(code: &str) -> impl Iterator<Item = &str> {
    let words: Vec<&str> = code
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect();
    let pairs: Vec<_> = words
        .windows(2)
        .filter(|pair| DEFINERS.contains(&pair[0]) && !DEFINERS.contains(&pair[1]))
        .map(|pair| pair[1])
        .collect();
    pairs.into_iter()
}

fn name_offence(name: &str) -> Option<String> {
    if let Some(prefix) = NOT_OUR_PREFIXES.iter().find(|prefix| name.starts_with(**prefix)) {
        return Some(format!("{name}: names do not start with {prefix}"));
    }
    let parts = parts(name);
    let (word, ours) =
        NOT_OUR_WORDS.iter().find(|(word, _)| parts.iter().any(|part| part == word))?;
    Some(format!("{name}: the glossary says {ours}, not {word}"))
}

/// `PieceChunk_len` is piece, chunk, len.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for c in name.chars() {
        if (c == '_' || c.is_uppercase()) && parts.last().is_some_and(|part| !part.is_empty()) {
            parts.push(String::new());
        }
        if c != '_' {
            parts.last_mut().expect("never empty").extend(c.to_lowercase());
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_offend_by_line() {
        for (code, expect) in [
            ("let x = 1;", None),
            ("    dbg!(x);", Some("1: dbg!( is not for commits")),
            ("// todo!() is fine in a comment", None),
            (
                "fn next_chunk() {",
                Some("1: next_chunk: the glossary says piece or block, not chunk"),
            ),
            (
                "struct PeerManager;",
                Some("1: PeerManager: the glossary says what it does, not manager"),
            ),
            ("let mut num_peers = 0;", Some("1: num_peers: names do not start with num_")),
            ("for x in bytes.chunks(4) {", None),
            ("let chunks = 4;", None),
        ] {
            assert_eq!(check(code, false).first().map(String::as_str), expect, "{code}");
        }
    }

    #[test]
    fn long_files_offend() {
        assert!(check(&"\n".repeat(LINES_MAX), false).is_empty());
        assert_eq!(check(&"\n".repeat(LINES_MAX + 1), false).len(), 1);
    }

    #[test]
    fn only_absolute_paths_are_a_machines() {
        for (line, expect) in [
            ("see /home/me/x", 1),
            ("\"/root/.cargo\"", 1),
            ("https://example.org/work/list", 0),
            ("crates/work/src", 0),
            ("{dir}/home/x", 0),
        ] {
            assert_eq!(machine_paths(line).len(), expect, "{line}");
        }
    }
}
