//! Links in Markdown that lead to a file or heading of this repository must arrive.

use std::path::Path;

/// Offences in a Markdown file at `path` (relative to `root`), each as `line: sentence`.
pub(super) fn check(text: &str, path: &Path, root: &Path) -> Vec<String> {
    let mut offences = Vec::new();
    let mut is_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        for link in links(line) {
            if !arrives(link, text, path, root) {
                offences.push(format!("{}: the link {link} leads nowhere", index + 1));
            }
        }
    }
    offences
}

/// What stands in the round brackets of `[text](link)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, mark)| {
        let rest = &line[at + mark.len()..];
        let link = &rest[..rest.find(')')?];
        // A title may follow the link.
        link.split_whitespace().next()
    })
}

fn arrives(link: &str, text: &str, path: &Path, root: &Path) -> bool {
    if link.contains("://") || link.starts_with("mailto:") {
        return true;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let base = path.parent().unwrap_or(Path::new(""));
    let target = match file.strip_prefix('/') {
        Some(from_root) => root.join(from_root),
        None => root.join(base).join(file),
    };
    let is_markdown = file.is_empty() || file.ends_with(".md");
    if anchor.is_empty() || !is_markdown {
        return file.is_empty() || target.exists();
    }
    if file.is_empty() {
        return has_heading(text, anchor);
    }
    std::fs::read_to_string(target).is_ok_and(|text| has_heading(&text, anchor))
}

fn has_heading(text: &str, anchor: &str) -> bool {
    text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor)
}

/// As the usual renderers make it: lower case, spaces to hyphens, no punctuation.
fn slug(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_arrive_or_offend() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (text, expect) in [
            ("[a](Cargo.toml)", 0),
            ("[a](src/main.rs#L1)", 0),
            ("[a](nowhere.md)", 1),
            ("[a](https://example.org/x)", 0),
            ("# What it does!\n[a](#what-it-does)", 0),
            ("# What it does!\n[a](#what-it-did)", 1),
            ("[a](Cargo.toml) [b](none)", 1),
            ("```\n[a](none)\n```", 0),
        ] {
            assert_eq!(check(text, Path::new("README.md"), root).len(), expect, "{text}");
        }
    }
}
