//! What we depend on: licences, sources, versions twice, versions unsaid, as `deny.toml` says.
//!
//! This is the part of cargo-deny that needs no network, from the same file. Building cargo-deny takes
//! longer than all of CI, and what it does besides, advisories, needs a database from the internet.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// What `deny.toml` says, as far as it is held to here.
struct Rules {
    licences: Vec<String>,
    registries: Vec<String>,
    /// Crates that may be there in several versions.
    twice: Vec<String>,
}

impl Rules {
    fn decode(text: &str) -> Result<Self> {
        let file: Value = toml::from_str(text).context("deny.toml is not TOML")?;
        // Whoever changes what the file denies must change what is checked here.
        let denies = |table: &str, key: &str| {
            ensure!(file[table][key] == "deny", "deny.toml: {table}.{key} must be \"deny\"");
            Ok(())
        };
        denies("bans", "multiple-versions")?;
        denies("bans", "wildcards")?;
        denies("sources", "unknown-registry")?;
        denies("sources", "unknown-git")?;
        let list = |table: &str, key: &str| {
            let values = file[table][key].as_array();
            values.with_context(|| format!("deny.toml: {table}.{key} must be a list"))
        };
        let texts = |values: &Vec<Value>| -> Vec<String> {
            values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let skipped = list("bans", "skip")?.iter().map(|entry| entry["crate"].clone());
        Ok(Self {
            licences: texts(list("licenses", "allow")?),
            registries: texts(list("sources", "allow-registry")?),
            twice: texts(&skipped.collect()),
        })
    }
}

/// Offences among the dependencies of the workspace.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root.join("deny.toml")).context("reading deny.toml")?;
    let rules = Rules::decode(&text)?;
    let out = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    ensure!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    Ok(offences(packages, &rules))
}

fn offences(packages: &[Value], rules: &Rules) -> Vec<String> {
    let mut offences: Vec<String> =
        packages.iter().flat_map(|package| offences_of(package, rules)).collect();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let text = |key: &str| package[key].as_str().unwrap_or("?");
        versions.entry(text("name")).or_default().push(text("version"));
    }
    for (name, versions) in versions {
        let is_skipped = rules.twice.iter().any(|skipped| skipped == name);
        if versions.len() > 1 && !is_skipped {
            let versions = versions.join(" and ");
            offences.push(format!("{name}: there are {versions}; deny.toml does not skip it"));
        }
    }
    offences
}

fn offences_of(package: &Value, rules: &Rules) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or("?");
    let mut offences = vec![];
    match package["source"].as_str() {
        Some(source) => {
            let registry = source.strip_prefix("registry+").unwrap_or(source);
            if !rules.registries.iter().any(|allowed| allowed == registry) {
                offences.push(format!("{name}: comes from {source}"));
            }
        }
        // Ours: it must say which versions it takes.
        None => {
            for dependency in package["dependencies"].as_array().into_iter().flatten() {
                if dependency["req"] == "*" && dependency["path"].is_null() {
                    let on = dependency["name"].as_str().unwrap_or("?");
                    offences.push(format!("{name}: takes any version of {on}"));
                }
            }
        }
    }
    let licence = package["license"].as_str().unwrap_or("");
    let allowed: Vec<&str> = rules.licences.iter().map(String::as_str).collect();
    if !is_allowed(licence, &allowed) {
        offences.push(format!("{name}: the licence {licence:?} is not on the list"));
    }
    offences
}

/// Whether an SPDX expression lets us choose licences of the list. `A/B` is an old way of `OR`.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.trim();
    // OR binds weaker than AND.
    for (separators, all) in [(&[" OR ", "/"][..], false), (&[" AND "][..], true)] {
        let terms = split(expression, separators);
        if terms.len() > 1 {
            return if all {
                terms.iter().all(|term| is_allowed(term, allowed))
            } else {
                terms.iter().any(|term| is_allowed(term, allowed))
            };
        }
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_allowed(inner, allowed),
        None => allowed.contains(&expression),
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
    use serde_json::json;

    #[test]
    fn expressions_offer_an_allowed_choice_or_not() {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"];
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
            assert_eq!(is_allowed(expression, &allowed), expect, "{expression}");
        }
    }

    const RULES: &str = r#"
        [licenses]
        allow = ["MIT"]
        [bans]
        multiple-versions = "deny"
        wildcards = "deny"
        skip = [{ crate = "syn", reason = "derives" }]
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
        allow-registry = ["https://index"]
    "#;

    fn package(name: &str, version: &str, source: Option<&str>, licence: &str) -> Value {
        json!({"name": name, "version": version, "source": source, "license": licence,
               "dependencies": []})
    }

    #[track_caller]
    fn check(packages: &[Value], expect: &[&str]) {
        assert_eq!(offences(packages, &Rules::decode(RULES).unwrap()), expect);
    }

    #[test]
    fn each_kind_of_offence_is_found() {
        let index = Some("registry+https://index");
        let good = package("good", "1.0.0", index, "MIT");
        check(std::slice::from_ref(&good), &[]);
        check(
            &[package("git", "1.0.0", Some("git+https://index"), "MIT")],
            &["git: comes from git+https://index"],
        );
        check(
            &[package("copyleft", "1.0.0", index, "GPL-3.0-only")],
            &["copyleft: the licence \"GPL-3.0-only\" is not on the list"],
        );
        check(
            &[good, package("good", "2.0.0", index, "MIT")],
            &["good: there are 1.0.0 and 2.0.0; deny.toml does not skip it"],
        );
        check(&[package("syn", "2.0.0", index, "MIT"), package("syn", "3.0.0", index, "MIT")], &[]);
        let mut ours = package("ours", "0.1.0", None, "MIT");
        ours["dependencies"] = json!([
            {"name": "any", "req": "*", "path": null},
            {"name": "sister", "req": "*", "path": "/sister"},
            {"name": "some", "req": "^1", "path": null},
        ]);
        check(&[ours], &["ours: takes any version of any"]);
    }

    #[test]
    fn a_file_that_denies_less_is_refused() {
        assert!(Rules::decode(RULES).is_ok());
        assert!(Rules::decode(&RULES.replace("unknown-git = \"deny\"", "")).is_err());
        assert!(Rules::decode(&RULES.replace("skip = ", "# ")).is_err());
    }
}
