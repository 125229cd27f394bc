//! The kernel command line: how a boot program tells the agent what it must know.

use boot::{ImageName, Mac};

use crate::http::ServerUrl;

/// What the command line says to the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// `boottorrent.server`: where manifest, torrents and images are, and who is told of progress.
    pub(crate) server: Option<ServerUrl>,
    /// `boottorrent.mac`: the interface that the boot program came through. PXELINUX says it by
    /// `BOOTIF`, with the hardware type before the address.
    pub(crate) mac: Option<Mac>,
    /// `boottorrent.image`: an operator's choice for this boot.
    pub(crate) image: Option<ImageName>,
    /// `boottorrent.choice`: what was chosen at this node before another kernel was loaded for it.
    pub(crate) choice: Option<ImageName>,
    /// `boottorrent.node`: what the lab calls this node.
    pub(crate) name: Option<String>,
    /// `boottorrent.proof`: what shows the server that it is this node which reports.
    pub(crate) proof: Option<String>,
    /// `boottorrent.shell`: a shell before anything is done.
    pub(crate) shell: bool,
    /// `boottorrent.noshell`: no shell before the manifest has said who gets one.
    pub(crate) no_shell: bool,
    /// `boottorrent.debug`: everything that happens is shown.
    pub(crate) debug: bool,
    /// What cannot be understood, in sentences. The boot goes on without it.
    pub(crate) problems: Vec<String>,
}

impl Words {
    /// Reads a command line as `/proc/cmdline` has it. Of a word that comes twice the last counts,
    /// as with the kernel.
    pub(crate) fn parse(line: &str) -> Self {
        let mut words = Self::default();
        let mut bootif = None;
        for word in split(line) {
            let (key, value) = word.split_once('=').unwrap_or((word.as_str(), ""));
            match key {
                "boottorrent.server" => words.take(key, value, |words| &mut words.server),
                "boottorrent.mac" => words.take(key, value, |words| &mut words.mac),
                "boottorrent.image" => words.take(key, value, |words| &mut words.image),
                "boottorrent.choice" => words.take(key, value, |words| &mut words.choice),
                "boottorrent.node" => words.take(key, value, |words| &mut words.name),
                "boottorrent.proof" => words.proof = Some(value.to_owned()),
                // Read where another kernel may be needed.
                "boottorrent.kernel" => {}
                "boottorrent.shell" => words.shell = value != "0",
                "boottorrent.noshell" => words.no_shell = value != "0",
                "boottorrent.debug" => words.debug = value != "0",
                "BOOTIF" => bootif = value.get(3..).and_then(|mac| mac.parse().ok()),
                _ if key.starts_with("boottorrent.") => {
                    words.problems.push(format!("`{key}` on the command line is not known"));
                }
                _ => {}
            }
        }
        words.mac = words.mac.or(bootif);
        words
    }

    fn take<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        key: &str,
        value: &str,
        field: fn(&mut Self) -> &mut Option<T>,
    ) {
        match value.parse() {
            Ok(value) => *field(self) = Some(value),
            // A boot program that has nothing to say for it writes the key all the same.
            Err(_) if value.is_empty() => {}
            Err(error) => self.problems.push(format!("`{key}` on the command line: {error}")),
        }
    }
}

/// The words of a command line: between white space, which double quotes protect. The quotes are
/// no part of a word.
pub(crate) fn split(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_ascii_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parted_by_space_and_quotes_protect_it() {
        let check = |line: &str, expect: &[&str]| assert_eq!(split(line), expect, "{line}");
        check("", &[]);
        check(" quiet  ro\n", &["quiet", "ro"]);
        check(r#"a="b c" "d=e f" g"#, &["a=b c", "d=e f", "g"]);
        check(r#"a="" b="open c"#, &["a=", "b=open c"]);
    }

    #[test]
    fn the_agent_hears_what_is_meant_for_it() {
        let words = Words::parse(
            "initrd=lab.cpio boottorrent.server=http://10.0.0.1:8080 quiet boottorrent.shell \
             boottorrent.mac=52:54:00:12:34:56 boottorrent.image=debian-12 boottorrent.debug=0 \
             boottorrent.choice=arch boottorrent.kernel=6.1 boottorrent.node=c001 \
             boottorrent.noshell boottorrent.proof=1a-2b",
        );
        assert_eq!(words.proof.as_deref(), Some("1a-2b"));
        assert_eq!(words.choice, Some("arch".parse().unwrap()));
        assert_eq!(words.name.as_deref(), Some("c001"));
        assert_eq!(words.server, Some("http://10.0.0.1:8080".parse().unwrap()));
        assert_eq!(words.mac, Some("52:54:00:12:34:56".parse().unwrap()));
        assert_eq!(words.image, Some("debian-12".parse().unwrap()));
        assert!(words.shell && words.no_shell && !words.debug);
        assert_eq!(words.problems, [""; 0]);
    }

    #[test]
    fn pxelinux_tells_the_interface_in_its_own_way() {
        let mac = |line| Words::parse(line).mac.map(|mac| mac.to_string());
        let bootif = "BOOTIF=01-52-54-00-12-34-56";
        assert_eq!(mac(bootif).as_deref(), Some("52:54:00:12:34:56"));
        let both = format!("boottorrent.mac=52:54:00:aa:aa:aa {bootif}");
        assert_eq!(mac(&both).as_deref(), Some("52:54:00:aa:aa:aa"));
        assert_eq!(mac("BOOTIF=é"), None);
    }

    #[test]
    fn what_cannot_be_understood_is_named_and_left_out() {
        let words =
            Words::parse("boottorrent.mac=me boottorrent.colour=red boottorrent.server=ftp://x");
        assert_eq!((words.mac, &words.server), (None, &None));
        assert_eq!(words.problems.len(), 3, "{:?}", words.problems);
        assert!(words.problems[0].contains("boottorrent.mac"));
        assert!(Words::parse("boottorrent.mac= boottorrent.image=").problems.is_empty());
    }
}
