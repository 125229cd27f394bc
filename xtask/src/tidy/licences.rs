//! Every dependency's licence permits what ours do, and every dependency comes from crates.io.
//!
//! This is the part of cargo-deny that we need. Installing cargo-deny from source takes longer than
//! all of CI, and its third part, advisories, needs a database from the network at every run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Permissive, and compatible with MIT OR Apache-2.0.
const ALLOWED: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Offences among the dependencies of the workspace.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let out = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    ensure!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    Ok(packages.iter().filter_map(offence).collect())
}

fn offence(package: &Value) -> Option<String> {
    let name = package["name"].as_str().unwrap_or("?");
    if let Some(source) = package["source"].as_str()
        && source != CRATES_IO
    {
        return Some(format!("{name}: comes from {source}, not from crates.io"));
    }
    let licence = package["license"].as_str().unwrap_or("");
    (!is_allowed(licence)).then(|| format!("{name}: the licence {licence:?} is not on the list"))
}

/// Whether an SPDX expression lets us choose licences of the list. `A/B` is an old way of `OR`.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.trim();
    // OR binds weaker than AND.
    for (separators, all) in [(&[" OR ", "/"][..], false), (&[" AND "][..], true)] {
        let terms = split(expression, separators);
        if terms.len() > 1 {
            return if all {
                terms.iter().all(|term| is_allowed(term))
            } else {
                terms.iter().any(|term| is_allowed(term))
            };
        }
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_allowed(inner),
        None => ALLOWED.contains(&expression),
    }
}

/// Splits outside brackets.
fn split<'a>(expression: &'a str, separators: &[&str]) -> Vec<&'a str> {
    let (mut terms, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in expression.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        let separator =
            separators.iter().find(|separator| expression[at..].starts_with(**separator));
        if depth == 0
            && let Some(separator) = separator
        {
            terms.push(&expression[start..at]);
            start = at + separator.len();
        }
    }
    terms.push(&expression[start..]);
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_offer_an_allowed_choice_or_not() {
        for (expression, expect) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 / MIT", true),
            ("GPL-3.0-only", false),
            ("MIT OR LGPL-2.1-or-later", true),
            ("MIT AND GPL-2.0-only", false),
            ("(MIT OR GPL-2.0-only) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND OpenSSL", false),
            ("GPL-2.0-only OR MIT AND OpenSSL", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0-only", true),
            ("", false),
        ] {
            assert_eq!(is_allowed(expression), expect, "{expression}");
        }
    }
}
