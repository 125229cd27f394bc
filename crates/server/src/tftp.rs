//! The TFTP server: `tftp::Server` behind sockets. What firmware reads before it can speak anything
//! better; see that crate for the protocol.
//!
//! Threads of its own, without tokio: in lock-step the time between a packet and its answer is
//! the time that a transfer takes, block by block.
//!
//! **What is served** is a [`Root`]: names and where their bytes are. It is not a folder, so there is
//! nothing to break out of.

mod command;
mod driver;
mod log;
mod root;
mod send;

use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

pub(crate) use command::{TftpArgs, run};
pub(crate) use root::{Root, Source};

use crate::fleet::Standings;
use crate::sockets;

/// Ports for transfers. A few, as what waits in this machine to be sent is what their sockets hold
/// ([`send::QUEUE_LEN`]): that must be less than the queue before the network card, or windows are
/// lost before they reach the wire.
const PORT_COUNT: u8 = 4;

/// Threads, which share the ports: late packets of a node's last transfer must not reach its next
/// one, so each needs two.
const THREADS_MAX: usize = 2;

/// Room for packets on an interface whose MTU is not known: Ethernet's.
const MTU_DEFAULT: u32 = 1_500;

/// Headers of a block: IPv4 20, UDP 8, TFTP 4.
const HEADERS_LEN: u32 = 32;

/// Where to serve what.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Port 69 of the address that nodes know; transfers come from the same address, as firmware
    /// insists on it.
    pub(crate) listen: SocketAddr,
    /// The interface of that address, whose MTU limits blocks.
    pub(crate) interface: Option<String>,
    /// What there is, now and later: a new root is for new transfers.
    pub(crate) root: watch::Receiver<Arc<Root>>,
}

/// A server whose ports are taken.
#[derive(Debug)]
pub(crate) struct Tftp {
    requests: UdpSocket,
    ports: Vec<UdpSocket>,
    config: Config,
}

impl Tftp {
    /// Takes the ports.
    ///
    /// # Errors
    /// If one cannot be had; the text says why.
    pub(crate) fn bind(config: Config) -> anyhow::Result<Self> {
        let requests = sockets::bind_udp(config.listen, None)
            .with_context(|| format!("cannot serve TFTP on {}", config.listen))?;
        let any = SocketAddr::new(config.listen.ip(), 0);
        let ports = (0..PORT_COUNT)
            .map(|_| sockets::bind_udp(any, None))
            .collect::<Result<_, _>>()
            .context("cannot take ports for TFTP transfers")?;
        Ok(Self { requests, ports, config })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.requests.local_addr().unwrap_or(self.config.listen)
    }

    /// Serves until `shutdown`, first those whom `standings` prefers. Events go to `events` as long as there is room, so that nobody who
    /// is slow to listen holds up a boot.
    ///
    /// # Errors
    /// If the system fails us; then no more is served.
    pub(crate) async fn run(
        self,
        standings: Standings,
        events: mpsc::Sender<tftp::Event>,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let limits = tftp::Config {
            port_count: PORT_COUNT,
            blksize_max: blksize_max(self.config.interface.as_deref()),
            ..tftp::Config::default()
        };
        let count = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
        let (drivers, stop) = driver::drivers(self, limits, &standings, &events, count)
            .context("cannot start the TFTP server")?;
        let mut ends = JoinSet::new();
        for driver in drivers {
            let (sender, ended) = oneshot::channel();
            let thread = thread::Builder::new().name("tftp".to_owned());
            thread
                .spawn(move || sender.send(driver.run()))
                .context("cannot start the TFTP server's threads")?;
            ends.spawn(ended);
        }
        drop(events);
        tokio::pin!(shutdown);
        let mut is_stopping = false;
        loop {
            tokio::select! {
                () = &mut shutdown, if !is_stopping => {
                    is_stopping = true;
                    stop.stop();
                }
                ended = ends.join_next() => match ended {
                    None => return Ok(()),
                    Some(ended) => {
                        // One alone must not go on without the others, whatever its reason.
                        stop.stop();
                        ended
                            .context("the TFTP server's threads are not waited for")?
                            .context("a thread of the TFTP server panicked")?
                            .context("the TFTP server failed")?;
                    }
                }
            }
        }
    }
}

/// What fits a packet of an interface.
fn blksize_max(interface: Option<&str>) -> u16 {
    let mtu = interface
        .and_then(|name| std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok())
        .and_then(|mtu| mtu.trim().parse().ok())
        .unwrap_or(MTU_DEFAULT);
    let blksize = u16::try_from(mtu.saturating_sub(HEADERS_LEN)).unwrap_or(tftp::BLKSIZE_MAX);
    blksize.clamp(tftp::BLKSIZE_DEFAULT, tftp::BLKSIZE_MAX)
}
