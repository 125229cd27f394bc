//! `Boottorrent.yaml`, version 0: that of the original BootTorrent, in what it means now.

use std::net::Ipv4Addr;
use std::time::Duration;

use boot::ImageName;

use super::draft::Draft;
use super::keys;
use super::reader::Reader;
use super::value::{Found, Interface, Seconds, ordered, parse_duration};
use crate::lab::problem::Problems;
use crate::lab::settings::{DhcpMode, LogLevel, Range};
use crate::lab::yaml::Node;

/// How long dnsmasq leases if it is not told.
const LEASE_TIME_DEFAULT: Duration = Duration::from_secs(3600);

/// What dnsmasq's `infinite` becomes: leases must end, or addresses run out.
const LEASE_TIME_INFINITE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads the file; what is wrong with it has a stand-in in the draft, and is a problem.
pub(super) fn read(file: &str, root: &Node, problems: &mut Problems) -> Draft {
    let mut reader = Reader::new(file, String::new(), root, keys::ORIGINAL, problems);
    let mut draft = Draft::empty(["dnsmasq.dhcp_range", "boottorrent.default_os"]);
    let settings = &mut draft.settings;
    if let Some(version) = reader.value::<String>("boottorrent.version")
        && version.value != "0"
    {
        let message = format!(
            "boottorrent.version: there is no format {}: write `version: 0` here, or begin anew with \
             `boottorrent init`",
            version.value
        );
        reader.error(version.line, message);
    }
    settings.menu.timeout = match reader.bare("boottorrent.timeout") {
        Some(Seconds(s)) => u64::try_from(s).ok().map(Duration::from_secs),
        None => None,
    };
    draft.default = reader.value::<ImageName>("boottorrent.default_os");
    settings.seed_time = match reader.bare("boottorrent.seed_time") {
        Some(Seconds(s)) => Duration::from_secs(u64::try_from(s).unwrap_or(0)),
        None => Duration::ZERO,
    };
    draft.address = reader.value("boottorrent.host_ip");

    settings.interface =
        reader.bare("dnsmasq.interface").map_or_else(String::new, |Interface(name)| name);
    let enable_dhcp = reader.value("dnsmasq.enable_dhcp");
    settings.dhcp.mode = match enable_dhcp {
        Some(Found { value: false, .. }) => DhcpMode::Off,
        _ => DhcpMode::Server,
    };
    if let Some(Found { value: false, line }) = enable_dhcp {
        reader.warn(line, PROXY_ADVICE);
    }
    if let Some((range, lease_time)) = dhcp_range(&mut reader) {
        draft.ranges = vec![range];
        settings.dhcp.lease_time = lease_time;
    }
    settings.tftp.enabled = reader.bare("dnsmasq.enable_tftp").unwrap_or(true);

    settings.tracker.enabled = reader.bare("opentracker.enable").unwrap_or(true);
    if settings.tracker.enabled && !reader.has("opentracker.port") {
        reader.missing("opentracker.port", "10001");
    }
    settings.tracker.port = reader.bare("opentracker.port").unwrap_or_default();
    settings.seeding.lsd = reader.bare("aria2.bt_enable_lpd").unwrap_or_default();
    settings.seeding.pex = reader.bare("aria2.enable_peer_exchange").unwrap_or(true);
    settings.log_level = reader.bare("aria2.console_log_level").unwrap_or(LogLevel::Info);

    draft.note_line("discovery", reader.line("opentracker.enable"));
    draft.note_line("ports", reader.line("opentracker.port"));
    draft.note_line("tftp", reader.line("dnsmasq.enable_tftp"));
    draft
}

const PROXY_ADVICE: &str = "dnsmasq.enable_dhcp is false: another DHCP server must send nodes here; \
     with `dhcp.mode: proxy` of version 1 of this file it need not know";

/// `first,last[,netmask[,broadcast]][,lease]`, as dnsmasq has it.
fn dhcp_range(reader: &mut Reader<'_, '_>) -> Option<(Found<Range>, Duration)> {
    let Found { value, line } = reader.value::<String>("dnsmasq.dhcp_range")?;
    match parse_range(&value) {
        Ok((range, lease_time)) => Some((Found { value: range, line }, lease_time)),
        Err(message) => {
            reader.error(line, format!("dnsmasq.dhcp_range: {message}"));
            None
        }
    }
}

fn parse_range(text: &str) -> Result<(Range, Duration), String> {
    let refuse =
        || format!("`{text}` is not understood: write it like 192.168.1.50,192.168.1.150,12h");
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    let is_address = |word: &&&str| word.parse::<Ipv4Addr>().is_ok();
    let (addresses, rest) = words.split_at(words.iter().take_while(is_address).count());
    // A netmask and broadcast address are those of the interface.
    let ([first, last] | [first, last, _] | [first, last, _, _]) = addresses else {
        return Err(refuse());
    };
    let lease_time = match rest {
        [] => LEASE_TIME_DEFAULT,
        ["infinite"] => LEASE_TIME_INFINITE,
        // dnsmasq takes less than two minutes as two.
        [time] => parse_duration(time).map_err(|_| refuse())?.max(Duration::from_secs(120)),
        _ => return Err(refuse()),
    };
    let address = |text: &str| text.parse::<Ipv4Addr>().map_err(|_| refuse());
    Ok((ordered(address(first)?, address(last)?)?, lease_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<(&str, u64), &str>) {
        let found = parse_range(text);
        match (&found, expect) {
            (Err(error), Err(part)) => assert!(error.contains(part), "{error:?}"),
            (Ok((range, time)), Ok((expect, s))) => {
                assert_eq!((range.to_string().as_str(), time.as_secs()), (expect, s));
            }
            _ => panic!("{found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn ranges_are_read_as_dnsmasq_reads_them() {
        let range = "10.0.0.5-10.0.0.9";
        check("10.0.0.5,10.0.0.9,12h", Ok((range, 43_200)));
        check("10.0.0.5, 10.0.0.9", Ok((range, 3600)));
        check("10.0.0.5,10.0.0.9,45m", Ok((range, 2700)));
        check("10.0.0.5,10.0.0.9,3600", Ok((range, 3600)));
        check("10.0.0.5,10.0.0.9,30", Ok((range, 120)));
        check("10.0.0.5,10.0.0.9,255.255.255.0,12h", Ok((range, 43_200)));
        check("10.0.0.5,10.0.0.9,255.255.255.0,10.0.0.255,1d", Ok((range, 86_400)));
        check("10.0.0.5,10.0.0.9,infinite", Ok((range, 365 * 86_400)));
        check("10.0.0.5", Err("write it like"));
        check("10.0.0.9,10.0.0.5,12h", Err("ends before it begins"));
        check("10.0.0.5,10.0.0.9,static", Err("write it like"));
        check("", Err("write it like"));
    }
}
