//! Binding the ports of the services, and saying clearly why one could not be had: who holds it,
//! which address or interface is missing, which privilege, and what to do about it.

mod holder;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Socket, Type};

pub(crate) use holder::{Holder, holder};

/// Connections that the kernel holds until we take them: a fleet that starts in the same second.
const BACKLOG: i32 = 4_096;

/// What a datagram socket asks for its queue of what was received: a fleet of 1,000 nodes that is
/// switched on together sends us some 4,000 packets within a second, each of which the kernel
/// counts as 768 bytes or more. The kernel gives what its `net.core.rmem_max` allows.
const RECEIVE_LEN: usize = 4 << 20;

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// Why a port could not be had; `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error(
        "{} port {} of {} is taken {}", transport.name(), addr.port(), addr.ip(),
        taken_by(*transport, *addr, holder.as_ref())
    )]
    Taken { transport: Transport, addr: SocketAddr, holder: Option<Holder> },
    #[error(
        "not allowed to use {} port {}: run as root, or once `{}`, or under systemd with \
         AmbientCapabilities=CAP_NET_BIND_SERVICE",
        transport.name(), addr.port(), setcap()
    )]
    NotAllowed { transport: Transport, addr: SocketAddr },
    #[error(
        "{} is the address of no interface of this machine: `ip address` lists those that there \
         are", addr.ip()
    )]
    NoAddress { addr: SocketAddr },
    #[error("there is no interface {device}: `ip link` lists those that there are")]
    NoDevice { device: String },
    #[error("cannot listen on {} port {} of {}", transport.name(), addr.port(), addr.ip())]
    Other { transport: Transport, addr: SocketAddr, source: io::Error },
}

/// A UDP socket at an address; with `device`, it hears and reaches only that interface. It may send
/// to broadcast addresses, and blocks: those that are for tokio still need `set_nonblocking`.
pub(crate) fn bind_udp(addr: SocketAddr, device: Option<&str>) -> Result<UdpSocket, BindError> {
    let open = || {
        let socket = open(addr, Type::DGRAM, device)?;
        socket.set_broadcast(true)?;
        // As much as the system's limit allows is good enough.
        let _ = socket.set_recv_buffer_size(RECEIVE_LEN);
        socket.bind(&addr.into())?;
        Ok(socket.into())
    };
    open().map_err(|error| explain(error, Transport::Udp, addr, device))
}

/// A TCP socket that listens. It blocks: those that are for tokio still need `set_nonblocking`.
pub(crate) fn bind_tcp(addr: SocketAddr, device: Option<&str>) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = open(addr, Type::STREAM, device)?;
        // Connections of the run before, in TIME_WAIT, are no reason to refuse.
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|error| explain(error, Transport::Tcp, addr, device))
}

fn open(addr: SocketAddr, kind: Type, device: Option<&str>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, None)?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    Ok(socket)
}

fn explain(
    error: io::Error,
    transport: Transport,
    addr: SocketAddr,
    device: Option<&str>,
) -> BindError {
    match (error.raw_os_error(), device) {
        (Some(libc::EADDRINUSE), _) => {
            BindError::Taken { transport, addr, holder: holder(transport, addr) }
        }
        (Some(libc::EACCES | libc::EPERM), _) => BindError::NotAllowed { transport, addr },
        (Some(libc::EADDRNOTAVAIL), _) => BindError::NoAddress { addr },
        (Some(libc::ENODEV), Some(device)) => BindError::NoDevice { device: device.to_owned() },
        _ => BindError::Other { transport, addr, source: error },
    }
}

fn taken_by(transport: Transport, addr: SocketAddr, holder: Option<&Holder>) -> String {
    if let Some(Holder { pid, name }) = holder {
        return format!("by {name} (pid {pid}): stop it, or choose another port or address");
    }
    let letter = if transport == Transport::Udp { 'u' } else { 't' };
    format!(
        "by a program of another user: `sudo ss -{letter}lnp sport = :{}` says by which",
        addr.port()
    )
}

/// The command that lets this program use low ports and raw sockets without being root.
fn setcap() -> String {
    let program = std::env::current_exe()
        .map_or_else(|_| "boottorrent".to_owned(), |path| path.display().to_string());
    format!("sudo setcap cap_net_bind_service=+ep {program}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Holder {
        let name = std::fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned();
        Holder { pid: std::process::id(), name }
    }

    #[test]
    fn taken_port_names_who_has_it() {
        let taken = bind_udp("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let addr = taken.local_addr().unwrap();
        let error = bind_udp(addr, None).unwrap_err();
        let Holder { pid, name } = me();
        assert_eq!(
            error.to_string(),
            format!(
                "UDP port {} of 127.0.0.1 is taken by {name} (pid {pid}): stop it, or choose \
                 another port or address",
                addr.port()
            )
        );
        let taken = bind_tcp("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let error = bind_tcp(taken.local_addr().unwrap(), None).unwrap_err();
        assert!(error.to_string().contains(&format!("(pid {pid})")), "{error}");
    }

    #[test]
    fn whoever_listens_everywhere_is_found_for_any_address() {
        let everywhere = bind_udp("0.0.0.0:0".parse().unwrap(), None).unwrap();
        let port = everywhere.local_addr().unwrap().port();
        let error = bind_udp(SocketAddr::from(([127, 0, 0, 1], port)), None).unwrap_err();
        assert!(matches!(&error, BindError::Taken { holder: Some(who), .. } if *who == me()));
    }

    #[test]
    fn address_of_another_machine_is_named() {
        let error = bind_udp("192.0.2.1:0".parse().unwrap(), None).unwrap_err();
        assert!(error.to_string().starts_with("192.0.2.1 is the address of no interface"));
    }

    #[test]
    fn missing_privilege_says_how_to_get_it() {
        let addr = "10.0.0.1:69".parse().unwrap();
        let error = explain(io::Error::from_raw_os_error(libc::EACCES), Transport::Udp, addr, None);
        let text = error.to_string();
        assert!(text.starts_with("not allowed to use UDP port 69: run as root, or"), "{text}");
        assert!(text.contains("sudo setcap cap_net_bind_service="), "{text}");
    }

    #[test]
    fn missing_interface_is_named() {
        let addr = "10.0.0.1:69".parse().unwrap();
        let error =
            explain(io::Error::from_raw_os_error(libc::ENODEV), Transport::Udp, addr, Some("en9"));
        assert_eq!(
            error.to_string(),
            "there is no interface en9: `ip link` lists those that there are"
        );
    }
}
