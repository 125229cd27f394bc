//! `boottorrent node wake`: switches nodes on through their network cards.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use boot::Mac;
use clap::Args;
use serde_json::json;

use super::{macs, perform, tell};
use crate::cli::OutputFormat;
use crate::client::Target;
use crate::lab::Lab;
use crate::lab::settings::Settings;
use crate::progress::print;
use crate::quantity;
use crate::sockets::bind_udp;

/// What a sleeping card looks for, anywhere in a frame: six bytes of ones, then its own address
/// sixteen times (AMD publication 20213, "Magic Packet Technology").
const ONES_LEN: usize = 6;
const REPEAT_COUNT: usize = 16;
const PACKET_LEN: usize = ONES_LEN + REPEAT_COUNT * 6;

/// How often each node is called: a card that has just gone to sleep may negotiate its link anew, and
/// misses what comes meanwhile.
const ROUND_COUNT: usize = 3;

#[derive(Debug, Args)]
pub(crate) struct WakeArgs {
    /// Nodes of nodes.yaml, such as c001 or c[001-100,105],login1; or one Ethernet address.
    nodes: String,
    /// Where the packets are sent: another network's broadcast address, if its router passes it on.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = EVERYBODY)]
    to: SocketAddrV4,
    /// Milliseconds between one node and the next: a fuse may not bear that all start at once.
    #[arg(long, value_name = "MS", default_value = "0")]
    pause_ms: u64,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    _unasked: super::Unasked,
}

/// Sends the packets; no server has to run, unless it is to send them from elsewhere.
pub(super) fn wake(args: &WakeArgs, target: &Target) -> anyhow::Result<()> {
    let lab = match target {
        Target::Lab(dir) => dir.as_path(),
        Target::Server(client) => {
            ensure!(
                args.to == EVERYBODY && args.pause_ms == 0,
                "--to and --pause-ms are for who is at the lab's folder: leave --server away"
            );
            tell(&perform(client, &args.nodes, "wake", None)?, args.output);
            return Ok(());
        }
    };
    let settings = Lab::open(lab)?.settings;
    let macs = macs(&args.nodes, lab)?;
    call(&settings, &macs, args.to, Duration::from_millis(args.pause_ms))?;
    match args.output {
        OutputFormat::Json => print(&json!({"called": macs}).to_string()),
        OutputFormat::Text => print(&format!(
            "called {} on {}; a card that was set up to listen wakes its machine, and says nothing",
            quantity::count(macs.len(), "node"),
            settings.interface
        )),
    }
    Ok(())
}

/// All on the server's own network, at the port that nothing answers on.
pub(crate) const EVERYBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, 9);

/// Calls each of them, `pause` after one another, to wake up.
///
/// # Errors
/// If the packets cannot be sent.
pub(crate) fn call(
    settings: &Settings,
    macs: &[Mac],
    to: SocketAddrV4,
    pause: Duration,
) -> anyhow::Result<()> {
    let from = SocketAddr::from((settings.address, 0));
    // A limited broadcast leaves by the route's interface unless it is told by which.
    let device = (*to.ip() == Ipv4Addr::BROADCAST).then_some(settings.interface.as_str());
    let socket = bind_udp(from, device)?;
    for round in 0..ROUND_COUNT {
        for (index, mac) in macs.iter().enumerate() {
            if round == 0 && index > 0 {
                std::thread::sleep(pause);
            }
            socket
                .send_to(&magic_packet(*mac), to)
                .with_context(|| format!("cannot send to {to} to wake {mac}"))?;
        }
    }
    Ok(())
}

fn magic_packet(mac: Mac) -> [u8; PACKET_LEN] {
    let mut packet = [0xff; PACKET_LEN];
    for address in packet[ONES_LEN..].chunks_exact_mut(mac.0.len()) {
        address.copy_from_slice(&mac.0);
    }
    packet
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::lab::test_lab::TestLab;

    #[test]
    fn a_magic_packet_is_what_cards_look_for() {
        let packet = magic_packet(Mac([0x52, 0x54, 0, 0, 0, 1]));
        assert_eq!(packet.len(), 102);
        assert_eq!(packet[..8], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54]);
        assert_eq!(packet[96..], [0x52, 0x54, 0, 0, 0, 1]);
    }

    #[test]
    fn every_node_is_called_and_those_that_are_unknown_are_named() {
        let lab = TestLab::new();
        let nodes = "nodes:\n  c001: {mac: 52:54:00:00:00:01}\n  c002: {mac: 52:54:00:00:00:02}\n";
        lab.put("nodes.yaml", nodes);
        let card = UdpSocket::bind("127.0.0.1:0").unwrap();
        card.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let SocketAddr::V4(to) = card.local_addr().unwrap() else { panic!("not IPv4") };
        let args = |nodes: &str| WakeArgs {
            nodes: nodes.to_owned(),
            to,
            pause_ms: 0,
            output: OutputFormat::Json,
            _unasked: Default::default(),
        };
        wake(&args("c[001-002]"), &lab.target()).unwrap();
        let mut last_bytes = vec![];
        let mut packet = [0; 200];
        for _ in 0..2 * ROUND_COUNT {
            assert_eq!(card.recv(&mut packet).unwrap(), PACKET_LEN);
            last_bytes.push(packet[PACKET_LEN - 1]);
        }
        assert_eq!(last_bytes, [1, 2, 1, 2, 1, 2]);
        wake(&args("52:54:00:00:00:07"), &lab.target()).unwrap();
        let error = wake(&args("c[002-004]"), &lab.target()).unwrap_err();
        assert!(error.to_string().contains("does not name c[003-004]"), "{error}");
    }
}
