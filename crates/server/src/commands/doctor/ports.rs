//! Whether the ports of the services can be had; if not, who has them or which privilege is missing.

use std::net::{Ipv4Addr, SocketAddr};

use super::Finding;
use crate::lab::settings::{DhcpMode, Settings};
use crate::quantity;
use crate::sockets::{BindError, Transport, bind_tcp, bind_udp};

/// DHCP, and the PXE boot service beside another server (PXE 2.1).
const DHCP_PORTS: [u16; 2] = [67, 4011];

/// A port that start will take.
struct Wanted<'a> {
    what: &'static str,
    transport: Transport,
    addr: SocketAddr,
    device: Option<&'a str>,
}

/// One for each port that cannot be had, or one that says that all can.
pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let wanted = wanted(settings);
    let refused: Vec<Finding> = wanted
        .iter()
        .filter_map(|wanted| {
            let error = take(wanted).err()?;
            let error = anyhow::Error::from(error);
            Some(Finding::bad("ports", format!("{}: {error:#}", wanted.what)))
        })
        .collect();
    if refused.is_empty() {
        let count = quantity::count(wanted.len(), "port");
        vec![Finding::good("ports", format!("{count} free, and allowed to be used"))]
    } else {
        refused
    }
}

fn take(wanted: &Wanted<'_>) -> Result<(), BindError> {
    match wanted.transport {
        Transport::Udp => bind_udp(wanted.addr, wanted.device).map(drop),
        Transport::Tcp => bind_tcp(wanted.addr, wanted.device).map(drop),
    }
}

fn wanted(settings: &Settings) -> Vec<Wanted<'_>> {
    let own = |port| SocketAddr::from((settings.address, port));
    let mut wanted = vec![];
    let mut want = |what, transport, addr, device| {
        wanted.push(Wanted { what, transport, addr, device });
    };
    if settings.dhcp.mode != DhcpMode::Off {
        for port in DHCP_PORTS {
            let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            want("DHCP", Transport::Udp, everywhere, Some(settings.interface.as_str()));
        }
    }
    if settings.tftp.enabled {
        want("TFTP", Transport::Udp, own(settings.tftp.port), None);
    }
    want("HTTP", Transport::Tcp, own(settings.http.port), None);
    if settings.tracker.enabled {
        want("tracker", Transport::Tcp, own(settings.tracker.port), None);
        want("tracker", Transport::Udp, own(settings.tracker.port), None);
    }
    want("seeding", Transport::Tcp, own(settings.seeding.port), None);
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::path::Path;

    /// Settings with ports that were free a moment ago.
    fn settings() -> (Settings, Vec<TcpListener>) {
        let mut settings = Settings::for_tests(Path::new("/lab"));
        let held: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |index: usize| held[index].local_addr().unwrap().port();
        settings.http.port = port(0);
        settings.tracker.port = port(1);
        settings.seeding.port = port(2);
        settings.tftp.enabled = false;
        (settings, held)
    }

    #[test]
    fn ports_that_are_taken_are_named_with_their_service() {
        let (settings, held) = settings();
        let texts: Vec<String> = findings(&settings).into_iter().map(|f| f.text).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].starts_with("HTTP: TCP port"), "{texts:?}");
        assert!(texts[1].starts_with("tracker: TCP port") && texts[2].starts_with("seeding: TCP"));
        drop(held);
    }

    #[test]
    fn everything_that_start_takes_is_looked_at() {
        let mut settings = Settings::for_tests(Path::new("/lab"));
        settings.dhcp.mode = DhcpMode::Auto;
        let ports: Vec<u16> = wanted(&settings).iter().map(|wanted| wanted.addr.port()).collect();
        assert_eq!(ports, [67, 4011, 69, 8080, 10001, 10001, 6881]);
    }
}
