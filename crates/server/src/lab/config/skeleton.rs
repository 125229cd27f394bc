//! The `Boottorrent.yaml` of a new lab, made from the table of keys: what is required is written, all
//! else is there as a comment with its default.

use std::net::Ipv4Addr;

use super::keys::{self, Key, Presence};

/// The widest line of a comment.
const WIDTH: usize = 88;

const HEAD: &str =
    "# The settings of this lab. What has a # before it is as if it were not there, and then
# the default holds, which is what is written here unless it is said otherwise.
# All keys: docs/configuration.md. What is wrong: `boottorrent check`.
";

/// What is known of the machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    /// A guess of the interface and its address.
    pub(crate) network: Option<(String, Ipv4Addr)>,
    /// Addresses that could be leased.
    pub(crate) range: Option<String>,
}

/// The text of the file.
pub(crate) fn text(values: &Values) -> String {
    let mut out = HEAD.to_owned();
    let mut open = "";
    for key in keys::SERVER {
        let (section, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if section != open {
            out.push_str(&format!("\n{section}:\n"));
            open = section;
        } else {
            out.push('\n');
        }
        let indent = if section.is_empty() { "" } else { "  " };
        comment(&mut out, indent, key.meaning);
        out.push_str(&line(key, indent, name, values));
    }
    out
}

fn line(key: &Key, indent: &str, name: &str, values: &Values) -> String {
    let network = values.network.as_ref();
    match (key.path, key.presence) {
        ("server.interface", _) => {
            let (value, note) = match network {
                Some((interface, _)) => (interface.as_str(), "a guess"),
                None => ("eth0", "change this"),
            };
            format!("{indent}{name}: {value}   # {note}\n")
        }
        ("server.address", _) => {
            let (value, note) = match network {
                Some((_, address)) => (address.to_string(), "a guess"),
                None => ("192.168.1.1".to_owned(), "change this"),
            };
            format!("{indent}{name}: {value}   # {note}\n")
        }
        ("dhcp.ranges", _) => {
            let range = values.range.as_deref().unwrap_or("192.168.1.50-192.168.1.150");
            format!("{indent}# {name}: {range}   # default: none\n")
        }
        (_, Presence::Required(value)) => format!("{indent}{name}: {value}\n"),
        (_, Presence::Default(value)) => {
            let value = if value.is_empty() { "\"\"" } else { value };
            format!("{indent}# {name}: {value}\n")
        }
        (_, Presence::Optional(text)) => format!("{indent}# {name}:   # default: {text}\n"),
        (_, Presence::Obsolete(_)) => String::new(),
    }
}

/// The text as comment lines that are not too wide.
fn comment(out: &mut String, indent: &str, text: &str) {
    let mut line = format!("{indent}#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = format!("{indent}#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::lab::config::{Texts, check};
    use crate::lab::problem::Problems;

    const IMAGE: &str = "dispname: A\nmethod: kexec\nkernel: k\ninitrd: i\n";

    #[track_caller]
    fn problems(server: String) -> Vec<String> {
        let images = vec![("a".to_owned(), Some(IMAGE.to_owned()))];
        let mut problems = Problems::default();
        check(Path::new("/lab"), &Texts { server, nodes: None, images }, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    fn values() -> Values {
        Values {
            network: Some(("enp1s0".to_owned(), Ipv4Addr::new(10, 0, 0, 1))),
            range: Some("10.0.0.128-10.0.0.254".to_owned()),
        }
    }

    #[test]
    fn a_new_file_is_whole() {
        let text = text(&values());
        assert!(text.lines().all(|line| line.len() <= WIDTH + 12), "{text}");
        let found = problems(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("warning: dhcp.ranges is empty"), "{found:?}");
        problems(super::text(&Values::default()));
    }

    #[test]
    fn every_line_that_is_a_comment_can_be_made_one_of_the_file() {
        let is_key = |line: &&str| {
            let bare = line.trim_start().trim_start_matches("# ");
            let word = bare.split(':').next().unwrap_or("");
            bare.contains(": ") && keys::SERVER.iter().any(|key| key.path.ends_with(word))
        };
        let text = text(&values());
        let lines = text.lines().map(|line| match is_key(&line) && line.starts_with("  # ") {
            true => line.replacen("# ", "", 1),
            false => line.to_owned(),
        });
        let bare: String = lines.map(|line| line + "\n").collect();
        assert!(bare.contains("\n  ranges: 10.0.0.128-10.0.0.254"), "{bare}");
        assert_eq!(problems(bare), Vec::<String>::new());
    }
}
