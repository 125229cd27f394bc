//! Whether another DHCP server is on the network: asks as the service would at start, and ends when
//! it has made up its mind. Nothing is leased meanwhile.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use dhcp::{Event, LabId, Mode};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Finding, State};
use crate::dhcp::{Dhcp, LabProver, Memory, Place, Setup};
use crate::lab::settings::{DhcpMode, Settings};
use crate::leases::Leases;

/// The service listens 4.5 s for servers that take their time, and once more to whoever answers.
const PATIENCE: Duration = Duration::from_secs(12);

const TOPIC: &str = "network";

/// What the network says.
pub(super) fn finding(settings: &Settings) -> Finding {
    let mode = settings.dhcp.mode;
    match look(settings) {
        Ok(Some(Found::Server(server))) => judge_server(mode, settings.dhcp.force, &server),
        Ok(Some(Found::Lab(text))) => Finding::bad(TOPIC, text),
        Ok(Some(Found::Nobody)) => {
            let dhcp = &settings.dhcp;
            judge_nobody(mode, !dhcp.ranges.is_empty() || !dhcp.reservations.is_empty())
        }
        Ok(None) => Finding::new(TOPIC, State::Unknown, "the search for servers came to no end"),
        Err(error) => Finding::new(TOPIC, State::Unknown, format!("{error:#}")),
    }
}

/// There is no other server, and this one `has_addresses` or not.
fn judge_nobody(mode: DhcpMode, has_addresses: bool) -> Finding {
    match (mode, has_addresses) {
        (DhcpMode::Proxy | DhcpMode::Off, _) => Finding::bad(
            TOPIC,
            "no DHCP server answers, and this one does not lease (dhcp.mode): nodes would get no \
             address",
        ),
        (DhcpMode::Auto | DhcpMode::Server, false) => Finding::bad(
            TOPIC,
            "no other DHCP server answers, and this one has no addresses to lease: give it some with \
             dhcp.ranges in Boottorrent.yaml",
        ),
        (DhcpMode::Auto | DhcpMode::Server, true) => {
            Finding::good(TOPIC, "no other DHCP server answers: this one will lease")
        }
    }
}

fn judge_server(mode: DhcpMode, force: bool, server: &str) -> Finding {
    match (mode, force) {
        (DhcpMode::Server, false) => Finding::bad(
            TOPIC,
            format!("a DHCP server answers ({server}): write `mode: proxy`, or turn it off"),
        ),
        (DhcpMode::Server, true) => {
            let text = format!("a DHCP server answers ({server}): nodes may get its addresses");
            Finding::new(TOPIC, State::Warning, text)
        }
        (DhcpMode::Off, _) => {
            let text = format!("a DHCP server answers ({server}): it must send nodes here");
            Finding::good(TOPIC, text)
        }
        (DhcpMode::Auto | DhcpMode::Proxy, _) => {
            Finding::good(TOPIC, format!("a DHCP server answers ({server}): this one helps it"))
        }
    }
}

enum Found {
    Nobody,
    /// Its address.
    Server(String),
    /// What is wrong with another lab.
    Lab(String),
}

fn look(settings: &Settings) -> anyhow::Result<Option<Found>> {
    let mut settings = settings.clone();
    // Asks, and has nothing to give.
    settings.dhcp.mode = DhcpMode::Auto;
    settings.dhcp.force = false;
    settings.dhcp.ranges.clear();
    settings.dhcp.reservations.clear();
    let setup = Setup::of(&settings, LabId([0; 8]))?.context("DHCP is off")?;
    debug_assert_eq!(setup.config.mode, Mode::Auto);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot look for servers")?;
    runtime.block_on(async {
        let place = Place {
            leases: Arc::new(Leases::in_memory),
            memory: Memory::none(),
            prover: LabProver::without_key(),
        };
        let service = Dhcp::open(setup, place)?;
        let (sender, mut events) = mpsc::channel(64);
        let (found, answer) = tokio::sync::oneshot::channel();
        let listen = async move {
            while let Some(event) = events.recv().await {
                let what = match event {
                    Event::Serving { beside: Some(address), .. } => {
                        Found::Server(address.to_string())
                    }
                    Event::Serving { beside: None, .. } => Found::Nobody,
                    Event::Waiting(conflict) => Found::Lab(conflict.to_string()),
                    _ => continue,
                };
                let _ = found.send(what);
                return;
            }
        };
        match timeout(PATIENCE, service.run(sender, listen)).await {
            Ok(result) => {
                result?;
                Ok(answer.await.ok())
            }
            Err(_) => Ok(None),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_without_any_server_needs_one_that_has_addresses() {
        let state = |mode, has_addresses| judge_nobody(mode, has_addresses).state;
        assert_eq!(state(DhcpMode::Auto, true), State::Good);
        assert_eq!(state(DhcpMode::Auto, false), State::Bad);
        assert_eq!(state(DhcpMode::Server, false), State::Bad);
        assert_eq!(state(DhcpMode::Proxy, true), State::Bad);
    }

    #[test]
    fn another_server_is_bad_only_for_one_that_leases() {
        let state = |mode, force| judge_server(mode, force, "10.0.0.9").state;
        assert_eq!(state(DhcpMode::Server, false), State::Bad);
        assert_eq!(state(DhcpMode::Server, true), State::Warning);
        assert_eq!(state(DhcpMode::Auto, false), State::Good);
        assert_eq!(state(DhcpMode::Proxy, false), State::Good);
    }
}
