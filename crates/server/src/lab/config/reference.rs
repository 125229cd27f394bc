//! `docs/configuration.md`, made from the table of keys, so that it cannot say what is not so.

use std::fmt::Write as _;

use super::keys::{self, Key, Presence};

/// A file of the lab and its keys.
struct Chapter {
    title: &'static str,
    text: &'static str,
    keys: &'static [Key],
}

const CHAPTERS: [Chapter; 6] = [
    Chapter {
        title: "`Boottorrent.yaml`",
        text: "The server's settings. A key `section.key` is written as `key:` below `section:`.",
        keys: keys::SERVER,
    },
    Chapter {
        title: "`oss/NAME/config.yaml`",
        text: "One image: a folder whose name has letters, digits, `-`, `_`, `.` and `+`. Its files \
               lie beside this one. This file itself is not part of what nodes download, nor is \
               anything beside it whose name begins with `.` or ends with `~`.",
        keys: keys::IMAGE,
    },
    Chapter {
        title: "`nodes.yaml`",
        text: "Not needed: a node that is not named here gets the menu and any address.",
        keys: keys::NODES,
    },
    Chapter { title: "`nodes.yaml`: `groups.NAME`", text: "", keys: keys::GROUP },
    Chapter {
        title: "`nodes.yaml`: `nodes.NAME`",
        text: "The name is told to the node as its host name: letters, digits and `-`, 63 at most.",
        keys: keys::NODE,
    },
    Chapter {
        title: "`Boottorrent.yaml`, version 0",
        text: "That of the original BootTorrent, which is read as it is. What each key means now:",
        keys: keys::ORIGINAL,
    },
];

const HEAD: &str = "# Configuration

<!-- Made from the table in crates/server/src/lab/config/keys.rs by `UPDATE_SNAPSHOT=1 cargo test -p server reference`. -->

All keys of all files of a lab. `boottorrent check` tells everything that is wrong with them, with
file and line, and changes nothing. An unknown key is an error.

A *time* is written `30s`, `10min`, `12h`, `7d` or `1h 30min`; a number alone is seconds. A number of
*bytes* is written `500000`, `10MB` (10,000,000) or `10MiB` (10,485,760). A *range* is
`FIRST-LAST`, both included. Where a *list* can be, one value alone can be, too. A *bool* is `true` or
`false`.
";

/// The whole document.
pub(crate) fn document() -> String {
    let mut out = HEAD.to_owned();
    for Chapter { title, text, keys } in CHAPTERS {
        // Writing to a String does not fail.
        let _ = write!(out, "\n## {title}\n\n");
        if !text.is_empty() {
            let _ = writeln!(out, "{text}\n");
        }
        out.push_str("| Key | Value | Default | Meaning |\n|---|---|---|---|\n");
        for key in keys {
            let presence = match key.presence {
                Presence::Required(example) => format!("required, such as `{example}`"),
                Presence::Default("") => "empty".to_owned(),
                Presence::Default("[]") => "none".to_owned(),
                Presence::Default(text) => format!("`{text}`"),
                Presence::Optional(text) => text.to_owned(),
                Presence::Obsolete(advice) => format!("no longer means anything: {advice}"),
            };
            let _ =
                writeln!(out, "| `{}` | {} | {presence} | {} |", key.path, key.kind, key.meaning);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_that_of_this_program() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == document(),
            "docs/configuration.md is not what the keys are: write it anew with \
             UPDATE_SNAPSHOT=1 cargo test -p server reference"
        );
    }
}
