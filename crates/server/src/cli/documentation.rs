//! What README and docs/ tell people to type is what this program takes: each command line of a code
//! block, and each that stands in a sentence as far as it goes.
//!
//! Placeholders are words in capitals, and each stands for a value of its kind (`EXAMPLES`). What stands
//! in brackets may be left away, and is. A shell's words (`sudo`, `|`, `&&`, `$(…)`) end a command.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use clap::error::ErrorKind;

use super::Cli;

/// What placeholders stand for; one that is not here is a mistake, as nobody has said what it is.
const EXAMPLES: &[(&str, &str)] = &[
    ("NAME", "debian"),
    ("IMAGE", "debian"),
    ("NODE", "c001"),
    ("NODES", "c[001-010]"),
    ("NODESET", "c[001-010]"),
    ("MAC", "52:54:00:12:34:56"),
    ("VERSION", "3"),
    ("SIZE", "5G"),
    ("DIR", "/srv/lab"),
    ("FILE", "a.file"),
    ("PATH", "/usr/bin/program"),
    ("SRC", "disk.img"),
    ("DST", "/srv/disk.img"),
    ("RID", "my-request-1"),
    ("HOST", "node1"),
    ("COMMAND", "true"),
];

/// A command line in a document.
struct Shown {
    /// `docs/lab.md:12`.
    at: String,
    text: String,
    /// It is there to be typed, and so is whole; in a sentence it may only name what is meant.
    is_whole: bool,
}

#[test]
fn every_command_line_that_is_shown_is_one() {
    let mut wrong = vec![];
    let mut whole_count = 0;
    for path in documents() {
        for shown in shown_in(&path) {
            for words in commands(&shown) {
                whole_count += usize::from(shown.is_whole);
                if let Err(error) = parse(&words, shown.is_whole) {
                    wrong.push(format!("{}: `{}`: {error}", shown.at, words.join(" ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Else they were not found.
    assert!(whole_count > 50, "only {whole_count} were looked at");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn documents() -> Vec<PathBuf> {
    let in_docs = fs::read_dir(root().join("docs")).unwrap();
    let mut paths: Vec<PathBuf> = in_docs.map(|entry| entry.unwrap().path()).collect();
    paths.push(root().join("README.md"));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths
}

fn shown_in(path: &Path) -> Vec<Shown> {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let (mut shown, mut is_fenced, mut before) = (vec![], false, String::new());
    for (index, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", index + 1);
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced || line.starts_with("    ") {
            let line = format!("{before}{}", line.trim());
            before.clear();
            match line.strip_suffix('\\') {
                Some(begun) => begun.clone_into(&mut before),
                None => shown.push(Shown { at, text: line, is_whole: true }),
            }
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            let of = |text: &str| Shown { at: at.clone(), text: text.to_owned(), is_whole: false };
            shown.extend(spans.map(of));
        }
    }
    shown
}

/// The commands of ours in a line of a shell, as words.
fn commands(shown: &Shown) -> Vec<Vec<String>> {
    let mut line = shown.text.replace("$(", " ; ").replace("; do ", " ; ");
    if line != shown.text {
        line = line.replace(')', " ; ");
    }
    let by_spaces = |_| line.split_whitespace().map(str::to_owned).collect();
    let words: Vec<String> = shell_words::split(&line).unwrap_or_else(by_spaces);
    let ends = |word: &String| ["|", "||", "&&", "&", ";", "<", ">"].contains(&word.as_str());
    let is_ours = |word: &String| word.rsplit('/').next() == Some("boottorrent");
    let mut found = vec![];
    for part in words.split(ends) {
        let words = match part {
            [sudo, user, _, rest @ ..] if sudo == "sudo" && user == "-u" => rest,
            [sudo, rest @ ..] if sudo == "sudo" => rest,
            _ => part,
        };
        // The word alone is the user, the package, the service or the program.
        if words.len() > 1 && words.first().is_some_and(is_ours) {
            found.push(without_options(words));
        }
    }
    found
}

/// `NAME [--to VERSION]` is `NAME`; `c[001-100]` is what it is.
fn without_options(words: &[String]) -> Vec<String> {
    let (mut left, mut depth) = (vec![], 0_usize);
    for word in words {
        let opens = word.starts_with('[') || depth > 0;
        if opens {
            depth += word.matches('[').count();
            depth = depth.saturating_sub(word.matches(']').count());
        } else if word != "…" {
            left.push(word.clone());
        }
    }
    left
}

fn parse(words: &[String], is_whole: bool) -> Result<(), String> {
    let words: Vec<String> = words.iter().map(|word| stands_for(word)).collect::<Result<_, _>>()?;
    let Err(error) = Cli::try_parse_from(&words) else { return Ok(()) };
    let is_begun = [
        ErrorKind::MissingRequiredArgument,
        ErrorKind::MissingSubcommand,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
        ErrorKind::TooFewValues,
    ];
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(()),
        kind if !is_whole && is_begun.contains(&kind) => Ok(()),
        _ => Err(error.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

fn stands_for(word: &str) -> Result<String, String> {
    let is_placeholder = word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    // `HOST[:PORT]`.
    let bare = word.split_once("[:").map_or(word, |(bare, _)| bare);
    match EXAMPLES.iter().find(|(placeholder, _)| *placeholder == bare) {
        Some((_, value)) => Ok((*value).to_owned()),
        None if is_placeholder => Err(format!("{word} stands for nothing that is known")),
        None => Ok(word.to_owned()),
    }
}
