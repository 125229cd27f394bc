//! `cargo xtask tidy`: the rules of the house that no compiler knows: lengths of files, forbidden
//! words, links that lead nowhere, dependencies.

mod dependencies;
mod links;
mod sources;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::root;

/// Checks everything and reports every offence.
pub(crate) fn tidy() -> Result<()> {
    let mut offences = Vec::new();
    for path in files()? {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else {
            continue; // not text, or deleted and not yet committed
        };
        let name = path.display().to_string();
        let found = match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => sources::check(&text, name == THIS_MODULE),
            Some("md") => links::check(&text, &path, root()),
            _ => Vec::new(),
        };
        offences.extend(found.into_iter().map(|offence| format!("{name}:{offence}")));
        if name != THIS_MODULE {
            let found = sources::machine_paths(&text);
            offences.extend(found.into_iter().map(|offence| format!("{name}:{offence}")));
        }
    }
    offences.extend(dependencies::check(root())?);
    ensure!(offences.is_empty(), "{}\n{} offences", offences.join("\n"), offences.len());
    Ok(())
}

/// The one file that must spell the forbidden words.
const THIS_MODULE: &str = "xtask/src/tidy/sources.rs";

/// All files that git tracks or would track.
fn files() -> Result<Vec<PathBuf>> {
    crate::setup::require(&[crate::setup::GIT])?;
    // CI runs as root on a clone that somebody else owns, which git refuses unless told.
    let out = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("running git")?;
    ensure!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).context("a file name is not UTF-8")?;
    Ok(text.lines().map(PathBuf::from).collect())
}
