//! `cargo xtask book`: `docs/` as a book, in `target/book`, made by mdBook. Every page must be in its table of
//! contents, and every link of the pages must arrive.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::{e2e, root, setup, target_dir};

const TOOLS: &[setup::Tool] = &[setup::PYTHON, setup::VENV];

/// Pages that mdBook makes beside ours.
const ITS_OWN: &[&str] = &["404.html", "print.html", "toc.html"];

/// Builds the book and follows its links.
pub(crate) fn run() -> Result<()> {
    setup::install(TOOLS)?;
    let program = install()?;
    let docs = root().join("docs");
    all_listed(&docs)?;
    let book = std::path::absolute(target_dir().join("book"))?;
    e2e::fresh(&book)?;
    succeed(Command::new(program).arg("build").arg(&docs).arg("--dest-dir").arg(&book))?;
    let mut offences = vec![];
    let mut page_count = 0;
    for entry in std::fs::read_dir(&book).context("reading the book")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".html") && !ITS_OWN.contains(&name.as_str()) {
            page_count += 1;
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {name}"))?;
            offences.extend(dead_links(&text, &path).map(|link| format!("{name}: {link}")));
        }
    }
    ensure!(offences.is_empty(), "links of the book lead nowhere:\n{}", offences.join("\n"));
    println!("{page_count} pages in {}", book.display());
    Ok(())
}

/// mdBook from a wheel, at the hash in `xtask/book/requirements.txt`; the program.
fn install() -> Result<PathBuf> {
    let venv = std::path::absolute(target_dir().join("book-venv"))?;
    let program = venv.join("bin/mdbook");
    if !program.exists() {
        succeed(Command::new(setup::PYTHON.file).args(["-m", "venv", "--clear"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--quiet", "--no-deps", "--require-hashes", "--requirement"]);
        succeed(pip.arg(root().join("xtask/book/requirements.txt")))?;
    }
    Ok(program)
}

/// What is not in the table of contents is not in the book.
fn all_listed(docs: &Path) -> Result<()> {
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).context("docs/SUMMARY.md")?;
    for entry in std::fs::read_dir(docs).context("reading docs")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_page = name.ends_with(".md") && name != "SUMMARY.md";
        ensure!(!is_page || summary.contains(&format!("({name})")), "SUMMARY.md lacks {name}");
    }
    Ok(())
}

/// Links and pictures of a page at `path` to files and headings that are not there.
fn dead_links<'a>(text: &'a str, path: &'a Path) -> impl Iterator<Item = &'a str> {
    let links: BTreeSet<&str> = [" href=\"", " src=\""]
        .iter()
        .flat_map(|mark| text.match_indices(mark).map(|(at, mark)| &text[at + mark.len()..]))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    links.into_iter().filter(move |link| !arrives(link, text, path))
}

fn arrives(link: &str, text: &str, path: &Path) -> bool {
    if link.contains("://") || link.starts_with("mailto:") || link.starts_with("data:") {
        return true;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let has = |text: &str| anchor.is_empty() || text.contains(&format!("id=\"{anchor}\""));
    if file.is_empty() {
        return has(text);
    }
    let target = path.with_file_name(file);
    if !file.ends_with(".html") {
        return target.exists();
    }
    std::fs::read_to_string(target).is_ok_and(|text| has(&text))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::dead_links;

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let check = |text: &str, expect: &[&str]| {
            let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("page.html");
            let found: Vec<&str> = dead_links(text, &page).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("<a href=\"Cargo.toml\">", &[]);
        check("<a class=\"x\" href=\"https://example.org/\">", &[]);
        check("<h2 id=\"here\"><a href=\"#here\">", &[]);
        check("<a href=\"#there\">", &["#there"]);
        check("<img src=\"gone.png\"><a href=\"gone.html#x\">", &["gone.html#x", "gone.png"]);
    }
}
