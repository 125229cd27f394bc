//! The sockets: ports 67 and 4011, and 68 while other servers are looked for.
//!
//! They hear one interface and whatever address a packet was sent to, as questions are broadcast.
//! So an answer must be told which of the interface's addresses it comes from (`IP_PKTINFO`): a boot
//! ROM loads its program from the server that it was told of, and nobody else.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use dhcp::Port;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};

use crate::sockets::bind_udp;

/// All of them.
pub(super) struct Sockets {
    interface: String,
    address: Ipv4Addr,
    server: Arc<UdpSocket>,
    binl: Arc<UdpSocket>,
    client: Mutex<Option<Arc<UdpSocket>>>,
}

impl Sockets {
    /// Takes ports 67 and 4011 of an interface.
    pub(super) fn open(interface: &str, address: Ipv4Addr) -> anyhow::Result<Self> {
        let bind = |port: Port| {
            bind_port(interface, port).with_context(|| format!("cannot serve DHCP on {interface}"))
        };
        Ok(Self {
            interface: interface.to_owned(),
            address,
            server: bind(Port::Server)?,
            binl: bind(Port::Binl)?,
            client: Mutex::new(None),
        })
    }

    /// The interface that they hear.
    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    /// Opens or closes port 68.
    pub(super) fn listen(&self, is_wanted: bool) {
        let mut client = self.client();
        if !is_wanted {
            *client = None;
        } else if client.is_none() {
            match bind_port(&self.interface, Port::Client) {
                Ok(socket) => *client = Some(socket),
                // The machine's own DHCP client, usually. Others are heard at port 67 as well.
                Err(error) => tracing::debug!(error = &*format!("{error:#}"), "port 68"),
            }
        }
    }

    /// Those that are open.
    pub(super) fn all(&self) -> Vec<(Port, Arc<UdpSocket>)> {
        let mut all =
            vec![(Port::Server, Arc::clone(&self.server)), (Port::Binl, Arc::clone(&self.binl))];
        all.extend(self.client().as_ref().map(|socket| (Port::Client, Arc::clone(socket))));
        all
    }

    /// Sends from a port. What cannot be sent is lost; whoever waits for it asks again.
    pub(super) fn send(&self, port: Port, to: SocketAddrV4, bytes: &[u8]) -> io::Result<()> {
        let client = self.client();
        let socket = match (port, client.as_ref()) {
            (Port::Binl, _) => &self.binl,
            (Port::Client, Some(socket)) => socket,
            (Port::Server | Port::Client, _) => &self.server,
        };
        let source = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(self.address).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            &[ControlMessage::Ipv4PacketInfo(&source)],
            MsgFlags::empty(),
            Some(&SockaddrIn::from(to)),
        )?;
        Ok(())
    }

    fn client(&self) -> MutexGuard<'_, Option<Arc<UdpSocket>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bind_port(interface: &str, port: Port) -> anyhow::Result<Arc<UdpSocket>> {
    let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.number()));
    let socket = bind_udp(addr, Some(interface))?;
    socket.set_nonblocking(true).context("cannot make a socket of use")?;
    Ok(Arc::new(socket))
}
