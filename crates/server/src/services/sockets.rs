//! The ports of a start: all of them, or every reason why not.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use dhcp::LabId;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;

use super::network;
use crate::dhcp::{Dhcp, LabProver, Memory, Place, Setup};
use crate::http::Tls;
use crate::lab::key;
use crate::lab::settings::Settings;
use crate::leases::Leases;
use crate::sockets::{BindError, bind_tcp, bind_udp};
use crate::tftp::{self, Root, Tftp};

/// The ports of the services that run on tokio; the others take theirs in the same way.
pub(crate) struct Sockets {
    pub(crate) http: TcpListener,
    /// For what is encrypted, and with what.
    pub(crate) tls: Option<(TcpListener, Tls)>,
    pub(crate) tracker: Option<(TcpListener, UdpSocket)>,
    pub(crate) tftp: Option<Tftp>,
    pub(crate) dhcp: Option<Dhcp>,
}

impl Sockets {
    /// Takes all ports.
    ///
    /// # Errors
    /// With a line for each that cannot be had, and what to do about it.
    pub(crate) fn bind(
        settings: &Settings,
        root: watch::Receiver<Arc<Root>>,
        lab: LabId,
    ) -> anyhow::Result<Self> {
        let mut problems = network::problems(&settings.interface, settings.address);
        if !problems.is_empty() {
            // Nothing can be bound to an address that is not there: once is enough.
            bail!("cannot start:\n  {}", problems.join("\n  "));
        }
        let at = |port| SocketAddr::from((settings.address, port));
        let mut keep = |bound: Result<_, BindError>| -> Option<_> {
            bound.map_err(|error| problems.push(chain(&error))).ok()
        };
        let http = keep(bind_tcp(at(settings.http.port), None));
        let door = settings.dashboard.tls.as_ref();
        let tls_port = door.and_then(|tls| keep(bind_tcp(at(tls.port), None)));
        let port = settings.tracker.port;
        let tracker = match settings.tracker.enabled {
            true => keep(bind_tcp(at(port), None)),
            false => None,
        };
        // The seeder's engine listens by itself.
        keep(bind_tcp(at(settings.seeding.port), None));
        let mut tracker_udp = None;
        if settings.tracker.enabled {
            match bind_udp(at(port), None) {
                Ok(socket) => tracker_udp = Some(socket),
                Err(error) => problems.push(chain(&error)),
            }
        }
        let config = tftp::Config {
            listen: at(settings.tftp.port),
            interface: Some(settings.interface.clone()),
            root,
        };
        let mut tftp = None;
        if settings.tftp.enabled {
            match Tftp::bind(config) {
                Ok(bound) => tftp = Some(bound),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        let mut certificate = None;
        match door.map(Tls::load).transpose() {
            Ok(loaded) => certificate = loaded,
            Err(error) => problems.push(chain(&error)),
        }
        let dhcp = match open_dhcp(settings, lab) {
            Ok(dhcp) => dhcp,
            Err(error) => {
                problems.push(format!("{error:#}"));
                None
            }
        };
        let (Some(http), true) = (http, problems.is_empty()) else {
            bail!("cannot start:\n  {}", problems.join("\n  "));
        };
        let tracker = match tracker.zip(tracker_udp) {
            Some((tcp, udp)) => Some((listener(tcp)?, datagrams(udp)?)),
            None => None,
        };
        let tls = match tls_port.zip(certificate) {
            Some((socket, tls)) => Some((listener(socket)?, tls)),
            None => None,
        };
        Ok(Self { http: listener(http)?, tls, tracker, tftp, dhcp })
    }
}

fn open_dhcp(settings: &Settings, lab: LabId) -> anyhow::Result<Option<Dhcp>> {
    let Some(setup) = Setup::of(settings, lab)? else {
        return Ok(None);
    };
    let dir = settings.dir().to_owned();
    let memory = Memory::of(&dir);
    let prover = LabProver::of(key::load(&dir)?);
    let leases = Arc::new(move || Leases::open(&dir));
    Dhcp::open(setup, Place { leases, memory, prover }).map(Some)
}

fn listener(socket: std::net::TcpListener) -> anyhow::Result<TcpListener> {
    let ready = || -> io::Result<TcpListener> {
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    };
    ready().context("cannot listen")
}

fn datagrams(socket: std::net::UdpSocket) -> anyhow::Result<UdpSocket> {
    let ready = || -> io::Result<UdpSocket> {
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    };
    ready().context("cannot listen")
}

/// An error and its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
