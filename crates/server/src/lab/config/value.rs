//! Values of the configuration: what may be written for each type, and what to write instead.
//!
//! [`FromYaml`] never says where it is or for which key: the reader adds that.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use boot::image::{After, CMDLINE_LEN_MAX, DiskLabel, Display, NODE_PLACEHOLDER};
use boot::{Arch, ImageName, ImagePath, KernelVersion, Mac, PasswordHash, nodeset};
use dhcp::Subnet;

use crate::lab::group::{MacPrefix, Uuid};
use crate::lab::settings::{
    Access, BootFrom, BootProgram, DhcpMode, LogFormat, LogLevel, Range, Unknown,
};
use crate::lab::yaml::{Node, Value};
use crate::quantity;

/// The longest time that can be said, in seconds: ten years, which fits every protocol's 32 bits.
pub(crate) const DURATION_S_MAX: u64 = 10 * 365 * 24 * 3600;

/// A type that a value of the configuration can have.
pub(crate) trait FromYaml: Sized {
    /// The value, or what is wrong with it and what to write instead.
    fn from_yaml(node: &Node) -> Result<Self, String>;
}

/// A value and its line; a default has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) line: Option<usize>,
}

impl<T: FromYaml> FromYaml for Found<T> {
    fn from_yaml(node: &Node) -> Result<Self, String> {
        Ok(Self { value: T::from_yaml(node)?, line: Some(node.line) })
    }
}

/// The text of a scalar; `what` is the kind of value that is expected.
fn text<'a>(node: &'a Node, what: &str) -> Result<&'a str, String> {
    match &node.value {
        Value::Scalar(text) => Ok(text),
        _ => Err(format!("is {}, not {what}", node.kind())),
    }
}

/// A value that some text stands for.
macro_rules! from_text {
    ($type:ty, $what:literal, $parse:expr) => {
        impl FromYaml for $type {
            fn from_yaml(node: &Node) -> Result<Self, String> {
                let parse: fn(&str) -> Result<Self, String> = $parse;
                parse(text(node, $what)?.trim())
            }
        }
    };
}

from_text!(String, "a text", parse_line);
from_text!(bool, "true or false", parse_bool);
from_text!(u16, "a port", parse_port);
from_text!(Duration, "a length of time", parse_duration);
from_text!(Ipv4Addr, "an IPv4 address", parse_address);
from_text!(Range, "a range of addresses", parse_range);
from_text!(Mac, "an Ethernet address", |text| text.parse().map_err(said));
from_text!(ImageName, "the name of an image", |text| text.parse().map_err(said));
from_text!(ImagePath, "a path", |text| text.parse().map_err(said));
from_text!(PasswordHash, "a hash", |text| text.parse().map_err(said));
from_text!(KernelVersion, "a kernel's version", |text| text.parse().map_err(said));

fn said(error: impl std::error::Error) -> String {
    error.to_string()
}

/// One, or a list of them.
impl<T: FromYaml> FromYaml for Vec<T> {
    fn from_yaml(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::List(nodes) => nodes.iter().map(T::from_yaml).collect(),
            _ => Ok(vec![T::from_yaml(node)?]),
        }
    }
}

/// Text of one line.
fn parse_line(text: &str) -> Result<String, String> {
    match text.contains(|c: char| c.is_control()) {
        true => Err("has a line break or another control character: write it in one line".into()),
        false => Ok(text.to_owned()),
    }
}

/// As people and YAML 1.1 write it.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("`{text}` is no port: write a number from 1 to 65535")),
    }
}

/// `30s`, `10min`, `12h`, `7d`, `1h 30min`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse =
        || format!("`{text}` is no length of time: write it like 30s, 10min, 12h, 7d or 1h 30min");
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" if after.is_empty() => 1,
            "s" | "sec" | "second" | "seconds" => 1,
            "m" | "min" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 24 * 3600,
            "w" | "week" | "weeks" => 7 * 24 * 3600,
            _ => return Err(refuse()),
        };
        let number: u64 = number.parse().map_err(|_| refuse())?;
        total = number.checked_mul(factor).and_then(|s| s.checked_add(total)).ok_or_else(refuse)?;
        rest = after.trim_start();
    }
    match total > DURATION_S_MAX {
        true => Err(format!("`{text}` is longer than ten years")),
        false => Ok(Duration::from_secs(total)),
    }
}

/// When the menu chooses by itself: none is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeout(pub(crate) Option<Duration>);

from_text!(Timeout, "a length of time", |text| match text {
    "never" => Ok(Self(None)),
    // As the original has it.
    text if text.starts_with('-') && text[1..].parse::<u64>().is_ok() => Ok(Self(None)),
    text => parse_duration(text)
        .map(|time| Self(Some(time)))
        .map_err(|error| format!("{error}, 0 for at once, or never")),
});

/// How long a node seeds: none is as long as somebody downloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeedTime(pub(crate) Option<Duration>);

from_text!(SeedTime, "a length of time", |text| match text {
    "auto" => Ok(Self(None)),
    text => parse_duration(text)
        .map(|time| Self(Some(time)))
        .map_err(|error| format!("{error}, or auto")),
});

/// Whole seconds as the original has them; below zero is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) i64);

from_text!(Seconds, "a number of seconds", |text| {
    let number: Result<i64, _> = text.parse();
    match number {
        Ok(number) if number <= DURATION_S_MAX as i64 => Ok(Self(number)),
        _ => Err(format!("`{text}` is no number of seconds: write one such as 30")),
    }
});

/// A limit in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

from_text!(Rate, "a number of bytes per second", |text| quantity::parse_rate(text).map(Self));

fn parse_address(text: &str) -> Result<Ipv4Addr, String> {
    let refuse = || format!("`{text}` is no IPv4 address: write it like 192.168.1.1");
    let address: Ipv4Addr = text.parse().map_err(|_| refuse())?;
    let special = [address.is_unspecified(), address.is_multicast(), address.is_broadcast()];
    match special.contains(&true) {
        true => Err(format!("`{text}` is an IPv4 address that no one computer can have")),
        false => Ok(address),
    }
}

/// `FIRST-LAST`, with spaces around the dash or not, or `FIRST,LAST`.
fn parse_range(text: &str) -> Result<Range, String> {
    let refuse =
        || format!("`{text}` is no range of addresses: write it like 192.168.1.50-192.168.1.150");
    let (first, last) = text.split_once(['-', ',']).ok_or_else(refuse)?;
    let (first, last) = (parse_address(first.trim())?, parse_address(last.trim())?);
    ordered(first, last)
}

/// The range between two addresses.
pub(crate) fn ordered(first: Ipv4Addr, last: Ipv4Addr) -> Result<Range, String> {
    match first <= last {
        true => Ok(Range { first, last }),
        false => Err(format!("`{first}-{last}` ends before it begins: write {last}-{first}")),
    }
}

/// One of a few words; another is told which is nearest.
fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let hint = nearest(text, names.iter().copied()).map(|near| format!("; is {near} meant?"));
    Err(format!("`{text}` is none of {}{}", names.join(", "), hint.unwrap_or_default()))
}

from_text!(DhcpMode, "a word", |text| word(
    text,
    &[("auto", Self::Auto), ("server", Self::Server), ("proxy", Self::Proxy), ("off", Self::Off)]
));

from_text!(BootProgram, "a word", |text| word(
    text,
    &[("ipxe", Self::Ipxe), ("pxelinux", Self::Pxelinux)]
));

from_text!(BootFrom, "a word", |text| word(
    text,
    &[("image", Self::Image), ("classic", Self::Classic), ("disk", Self::Disk)]
));

/// Who gets a shell at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShellAccess {
    Allowed,
    Forbidden,
    Password,
}

from_text!(ShellAccess, "a word", |text| word(
    text,
    &[("allowed", Self::Allowed), ("forbidden", Self::Forbidden), ("password", Self::Password)]
));

/// A serial line by its name in `/dev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SerialLine(pub(crate) String);

from_text!(SerialLine, "a serial line", |text| {
    let text = text.strip_prefix("/dev/").unwrap_or(text);
    let is_name = text.starts_with("tty") && text.chars().all(|c| c.is_ascii_alphanumeric());
    match is_name && text.ends_with(|c: char| c.is_ascii_digit()) {
        true => Ok(Self(text.to_owned())),
        false => Err(format!("`{text}` is no serial line: the first of a computer is ttyS0")),
    }
});

/// The name of a keyboard's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout(pub(crate) String);

from_text!(Layout, "a layout", |text| {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let is_name = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(good);
    match is_name && text.len() <= 40 {
        true => Ok(Self(text.to_owned())),
        false => Err(format!("`{text}` names no keyboard layout: write it like de-latin1")),
    }
});

/// What a serial line transmits in a second, in bits with those around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Speed(pub(crate) u32);

impl Speed {
    /// What servers and their management controllers have when nothing is set.
    pub(crate) const USUAL: Self = Self(115_200);

    /// The speeds of termios(3) that are in use.
    const ALL: [u32; 9] = [1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 57_600, 115_200, 230_400];
}

from_text!(Speed, "a speed", |text| match text.parse() {
    Ok(speed) if Self::ALL.contains(&speed) => Ok(Self(speed)),
    _ => {
        let known: Vec<String> = Self::ALL.iter().map(u32::to_string).collect();
        Err(format!("`{text}` is no speed of a serial line: write one of {}", known.join(", ")))
    }
});

/// Messages of a kernel below this are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogThreshold(pub(crate) u8);

from_text!(LogThreshold, "a number from 0 to 7", |text| match text.parse() {
    Ok(level) if level <= 7 => Ok(Self(level)),
    _ => Err(format!("`{text}` is no level of the kernel's log: write a number from 0 to 7")),
});

from_text!(LogFormat, "a word", |text| word(text, &[("text", Self::Text), ("json", Self::Json)]));

from_text!(Access, "a word", |text| word(
    text,
    &[("network", Self::Network), ("localhost", Self::Localhost), ("off", Self::Off)]
));

from_text!(Unknown, "a word", |text| word(
    text,
    &[("boot", Self::Boot), ("wait", Self::Wait), ("ignore", Self::Ignore)]
));

const LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

from_text!(LogLevel, "a word", |text| match text {
    // Of aria2, whose levels the original's are.
    "notice" => Ok(Self::Info),
    text => word(text, &LEVELS),
});

/// The name of a network interface, as Linux has them: at most 15 bytes (`IFNAMSIZ` less the NUL).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface(pub(crate) String);

from_text!(Interface, "the name of an interface", |text| {
    let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    match text.is_empty() || text.len() > 15 || text.contains(bad) || text == "." || text == ".." {
        true => Err(format!("`{text}` cannot name an interface: `ip link` shows their names")),
        false => Ok(Self(text.to_owned())),
    }
});

/// The URL of a tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrackerUrl(pub(crate) String);

from_text!(TrackerUrl, "a URL", |text| {
    let rest = ["http://", "udp://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let good = |rest: &str| {
        !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace)
    };
    match rest.is_some_and(good) {
        true => Ok(Self(text.to_owned())),
        false => Err(format!(
            "`{text}` is no tracker: write its URL like http://10.0.0.2:6969/announce or \
             udp://10.0.0.2:6969"
        )),
    }
});

/// The URL of a web server that has images (BEP 19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebSeedUrl(pub(crate) String);

from_text!(WebSeedUrl, "a URL", |text| {
    let rest = text.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
    let good = |rest: &str| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && !rest.contains(|c: char| c.is_whitespace() || c == '?' || c == '#')
    };
    match rest.is_some_and(good) {
        true => Ok(Self(text.to_owned())),
        false => Err(format!(
            "`{text}` is no web server of images: write its URL with a slash at the end, like \
             http://10.0.0.9/oss/"
        )),
    }
});

/// A kernel command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cmdline(pub(crate) String);

from_text!(Cmdline, "a command line", |text| {
    if text.len() > CMDLINE_LEN_MAX {
        return Err(format!("has {} bytes, the kernel takes {CMDLINE_LEN_MAX}", text.len()));
    }
    // It stands on a line of a script of iPXE's, which has no quotes (its core/exec.c).
    if text.contains("${") {
        return Err("has `${` in it, for which iPXE would put a setting of its own".to_owned());
    }
    let ends = |word: &&str| ["||", "&&", ";"].contains(word) || word.starts_with('#');
    if let Some(word) = text.split_whitespace().find(ends) {
        return Err(format!("has the word `{word}`, at which iPXE would begin another command"));
    }
    parse_line(text).map(Self)
});

/// A set of names of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeNames(pub(crate) Vec<String>);

from_text!(NodeNames, "a set of nodes", |text| nodeset::expand(text).map(Self).map_err(said));

from_text!(Arch, "a word", |text| word(text, &[("x86_64", Self::X86_64), ("arm64", Self::Arm64)]));

from_text!(MacPrefix, "the beginning of an Ethernet address", |text| {
    let refuse =
        || format!("`{text}` is no beginning of an Ethernet address: write it like 52:54:00");
    let digits: String = text.chars().filter(|c| !":-.".contains(*c)).collect();
    let is_whole = digits.len().is_multiple_of(2) && (2..=12).contains(&digits.len());
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    match is_whole && is_hex {
        true => (0..digits.len()).step_by(2).map(byte).collect::<Option<_>>().map(Self),
        false => None,
    }
    .ok_or_else(refuse)
});

from_text!(Uuid, "an identifier", |text| {
    let is_right = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    match text.len() == 36 && text.bytes().enumerate().all(is_right) {
        true => Ok(Self(text.to_ascii_lowercase())),
        false => Err(format!(
            "`{text}` is no UUID: write it like 4c4c4544-0035-5a10-8057-b9c04f4a3332, as \
             `boottorrent node show` has it"
        )),
    }
});

from_text!(Subnet, "a network", |text| {
    let refuse = || format!("`{text}` is no network: write it like 10.0.7.0/24");
    let (address, len) = text.split_once('/').ok_or_else(refuse)?;
    let (address, len) =
        (address.parse().map_err(|_| refuse())?, len.parse().map_err(|_| refuse())?);
    match len <= 32 {
        true => Ok(Self::of(address, len)),
        false => Err(refuse()),
    }
});

/// Where the root of an image of method `nfs` is: a server and a path there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NfsRoot(pub(crate) String);

from_text!(NfsRoot, "a server and a path", |text| {
    let (server, path) = text.split_once(':').unwrap_or((text, ""));
    let good = |c: char| !c.is_whitespace() && !c.is_control() && c != ',';
    if !path.starts_with('/') || !path.chars().all(good) {
        return Err(format!(
            "`{text}` is no root: write the server's address and the path of the export there, \
             without spaces, like 10.0.0.1:/srv/nfs/root/{NODE_PLACEHOLDER}"
        ));
    }
    // Before its root is mounted a node has nothing that could look a name up.
    parse_address(server)?;
    Ok(Self(text.to_owned()))
});

/// Options of an NFS mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NfsOptions(pub(crate) String);

from_text!(NfsOptions, "options", |text| {
    if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("`{text}` has {bad:?} in it: write options with commas alone"));
    }
    for option in text.split(',') {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let is_old = matches!(key, "vers" | "nfsvers") && !value.starts_with('4');
        if is_old || matches!(key, "v2" | "v3" | "proto" if value != "tcp") {
            return Err(format!("`{option}`: a node mounts its root by NFS 4 over TCP alone"));
        }
        if matches!(key, "addr" | "clientaddr") {
            return Err(format!("`{option}`: the node fills it in itself; remove it"));
        }
    }
    Ok(Self(text.to_owned()))
});

/// Where a guest is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GuestDisplay(pub(crate) Display);

/// The port of the first display (RFC 6143 section 4).
const VNC_PORT: u16 = 5900;

from_text!(GuestDisplay, "a display", |text| match text.split_once([' ', ':']) {
    None if text == "screen" => Ok(Self(Display::Screen)),
    None if text == "serial" => Ok(Self(Display::Serial)),
    Some(("vnc", place)) => {
        let place = place.trim();
        let whole =
            if place.contains(':') { place.to_owned() } else { format!("{place}:{VNC_PORT}") };
        match whole.parse::<SocketAddrV4>() {
            Ok(listen) if listen.port() >= VNC_PORT => Ok(Self(Display::Vnc { listen })),
            Ok(_) => Err(format!("`{place}`: VNC has ports from {VNC_PORT} on")),
            Err(_) => Err(format!("`{place}` is no address of nodes: write `vnc 0.0.0.0` for all")),
        }
    }
    _ => Err(format!("`{text}` is no display: write screen, serial, or vnc and an address")),
});

/// Where what a guest writes goes: a file system of its node, or memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GuestWrites(pub(crate) Option<DiskLabel>);

from_text!(GuestWrites, "a place", |text| match text.split_once(' ') {
    None if text == "memory" => Ok(Self(None)),
    Some(("disk", label)) => match label.trim().parse() {
        Ok(label) => Ok(Self(Some(label))),
        Err(error) => Err(error.to_string()),
    },
    _ => Err(format!("`{text}` is no place for writes: write memory, or disk and a label")),
});

/// What follows when a guest has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AfterGuest(pub(crate) After);

from_text!(AfterGuest, "a word", |text| word(
    text,
    &[("menu", After::Menu), ("reboot", After::Reboot), ("poweroff", After::Poweroff)]
)
.map(Self));

/// A name that a computer can have: a label of RFC 1123 section 2.1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label(pub(crate) String);

from_text!(Label, "a name", |text| {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let edges = ends(text.chars().next()) && ends(text.chars().next_back());
    match edges && text.len() <= 63 && text.chars().all(good) {
        true => Ok(Self(text.to_owned())),
        false => Err(format!(
            "`{text}` cannot name a node: use letters, digits and -, begin and end with a letter \
             or digit, 63 at most"
        )),
    }
});

/// A domain: labels joined by dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain(pub(crate) String);

from_text!(Domain, "a domain", |text| {
    let node = |label: &str| Node { line: 1, value: Value::Scalar(label.to_owned()) };
    let good = text.split('.').all(|label| Label::from_yaml(&node(label)).is_ok());
    match good && text.len() <= 253 {
        true => Ok(Self(text.to_owned())),
        false => Err(format!("`{text}` is no domain: write it like lab.example.org")),
    }
});

/// The word that was probably meant: at most a third of its letters are others.
pub(crate) fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |word: &str| strsim::damerau_levenshtein(text, word);
    let near = words.into_iter().min_by_key(|word| distance(word))?;
    (distance(near) <= near.len().max(3) / 3).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: FromYaml + PartialEq + std::fmt::Debug>(text: &str, expect: Result<T, &str>) {
        let node = crate::lab::yaml::parse(text).0.unwrap();
        match (T::from_yaml(&node), expect) {
            (Err(error), Err(part)) => assert!(error.contains(part), "{error:?} without {part:?}"),
            (found, expect) => assert_eq!(found, expect.map_err(str::to_owned), "{text}"),
        }
    }

    #[test]
    fn a_root_elsewhere_is_an_address_and_a_path() {
        let root = |text: &str| Ok(NfsRoot(text.to_owned()));
        check("10.0.0.1:/srv/nfs/{node}", root("10.0.0.1:/srv/nfs/{node}"));
        check("10.0.0.1:/", root("10.0.0.1:/"));
        for bad in ["10.0.0.1", "10.0.0.1:srv", "\"10.0.0.1:/a b\"", "10.0.0.1:/a,ro", ":/srv"] {
            assert!(check_fails::<NfsRoot>(bad), "{bad}");
        }
        check::<NfsRoot>("server:/srv", Err("`server` is no IPv4 address"));
        check("vers=4.2,rw", Ok(NfsOptions("vers=4.2,rw".to_owned())));
        check::<NfsOptions>("vers=3", Err("by NFS 4 over TCP alone"));
        check::<NfsOptions>("v3,rw", Err("by NFS 4 over TCP alone"));
        check::<NfsOptions>("proto=udp", Err("by NFS 4 over TCP alone"));
        check::<NfsOptions>("rw,addr=10.0.0.2", Err("remove it"));
        check::<NfsOptions>("rw, hard", Err("with commas alone"));
    }

    fn check_fails<T: FromYaml>(text: &str) -> bool {
        T::from_yaml(&crate::lab::yaml::parse(text).0.unwrap()).is_err()
    }

    #[test]
    fn times_are_written_with_their_unit() {
        let s = Duration::from_secs;
        check("30s", Ok(s(30)));
        check("30", Ok(s(30)));
        check("10 min", Ok(s(600)));
        check("12h", Ok(s(43_200)));
        check("1h 30min", Ok(s(5400)));
        check("7d", Ok(s(604_800)));
        check("1w", Ok(s(604_800)));
        check::<Duration>("12x", Err("like 30s"));
        check::<Duration>("h", Err("like 30s"));
        check::<Duration>("-5s", Err("like 30s"));
        check::<Duration>("1h 30", Ok(s(3630)));
        check::<Duration>("99999999999999999999d", Err("like 30s"));
        check::<Duration>("4000d", Err("ten years"));
        check::<Duration>("[30s]", Err("a list, not a length of time"));
    }

    #[test]
    fn a_timeout_is_a_time_or_never() {
        check("30s", Ok(Timeout(Some(Duration::from_secs(30)))));
        check("0", Ok(Timeout(Some(Duration::ZERO))));
        check("never", Ok(Timeout(None)));
        check("-1", Ok(Timeout(None)));
        check::<Timeout>("-x", Err("or never"));
        check::<Timeout>("soon", Err("or never"));
    }

    #[test]
    fn ranges_run_upwards() {
        let range =
            |first: [u8; 4], last: [u8; 4]| Range { first: first.into(), last: last.into() };
        check("10.0.0.5-10.0.0.9", Ok(range([10, 0, 0, 5], [10, 0, 0, 9])));
        check("10.0.0.5 - 10.0.0.9", Ok(range([10, 0, 0, 5], [10, 0, 0, 9])));
        check("10.0.0.5,10.0.0.5", Ok(range([10, 0, 0, 5], [10, 0, 0, 5])));
        check::<Range>("10.0.0.9-10.0.0.5", Err("write 10.0.0.5-10.0.0.9"));
        check::<Range>("10.0.0.9", Err("write it like"));
        check::<Range>("10.0.0.9-300.0.0.1", Err("`300.0.0.1` is no IPv4 address"));
    }

    #[test]
    fn addresses_are_those_of_one_computer() {
        check("192.168.1.1", Ok(Ipv4Addr::new(192, 168, 1, 1)));
        for text in ["192.168.1", "192.168.1.256", "::1", "0.0.0.0", "224.0.0.1", "host"] {
            check::<Ipv4Addr>(text, Err("IPv4 address"));
        }
    }

    #[test]
    fn one_is_a_list_of_one() {
        check("true", Ok(vec![true]));
        check("[true, no]", Ok(vec![true, false]));
        check::<Vec<bool>>("[true, 2]", Err("`2` is neither"));
        check::<Vec<bool>>("{a: b}", Err("a map"));
    }

    #[test]
    fn a_wrong_word_is_told_the_nearest() {
        check("proxy", Ok(DhcpMode::Proxy));
        check::<DhcpMode>("proxi", Err("is proxy meant?"));
        check::<DhcpMode>("hologram", Err("none of auto, server, proxy, off"));
        check("notice", Ok(LogLevel::Info));
    }

    #[test]
    fn ports_are_numbers_above_zero() {
        check("69", Ok(69_u16));
        for text in ["0", "65536", "-1", "http"] {
            check::<u16>(text, Err("1 to 65535"));
        }
    }

    #[test]
    fn names_urls_and_command_lines_are_checked() {
        check("c001", Ok(Label("c001".to_owned())));
        check::<Label>("c_1", Err("cannot name a node"));
        check::<Label>("-c", Err("cannot name a node"));
        check("lab.example.org", Ok(Domain("lab.example.org".to_owned())));
        check::<Domain>("lab..org", Err("no domain"));
        check("udp://10.0.0.2:6969", Ok(TrackerUrl("udp://10.0.0.2:6969".to_owned())));
        check::<TrackerUrl>("10.0.0.2:6969", Err("no tracker"));
        check("http://10.0.0.9/oss/", Ok(WebSeedUrl("http://10.0.0.9/oss/".to_owned())));
        check::<WebSeedUrl>("http://10.0.0.9/oss", Err("slash at the end"));
        check::<WebSeedUrl>("https://10.0.0.9/oss/", Err("no web server of images"));
        check::<Cmdline>(&format!("'{}'", "x".repeat(2048)), Err("takes 2047"));
        check::<Cmdline>("\"a\\nb\"", Err("line break"));
        check("eth0", Ok(Interface("eth0".to_owned())));
        check::<Interface>("a/b", Err("cannot name an interface"));
    }
}
