//! The few socket options and queries that no library wraps.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// TCP gives a connection up when data was not acknowledged for this long. The swarm notices a dead
/// peer in a second or two; this only frees what the kernel keeps for it.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections that the kernel holds until we take them: a whole fleet may dial in the same moment.
const BACKLOG: i32 = 1024;

/// Listens. At `[::]` for IPv4 too, whatever the system's default is; and where there is no IPv6, for
/// IPv4 alone.
pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    match listen_at(addr) {
        Err(error)
            if addr.ip() == Ipv6Addr::UNSPECIFIED
                && [Some(libc::EAFNOSUPPORT), Some(libc::EADDRNOTAVAIL)]
                    .contains(&error.raw_os_error()) =>
        {
            listen_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
        }
        result => result,
    }
}

fn listen_at(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for the connections of before to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// The address in its plain form: that of an IPv4 peer of a socket for both is IPv6 in name only, and
/// one peer must have one address.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Prepares a connection: no delay for small messages, an end for dead ones.
pub(super) fn prepare(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    // Where the machine's default is BBR each connection paces its packets by a timer of its own,
    // which for a dozen slow connections is most of a node's work. Our windows are small enough to
    // need no pacing. A kernel without CUBIC keeps its default.
    let _ = socket.set_tcp_congestion(b"cubic");
    Ok(())
}

/// Bytes that were written to the socket and not acknowledged by the other end (`SIOCOUTQ`).
pub(super) fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (= SIOCOUTQ) writes one int to the address given.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Wakes us for input only when so many bytes are there (`SO_RCVLOWAT`).
pub(super) fn set_receive_low_water(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let bytes = bytes as libc::c_int;
    // SAFETY: the option takes one int, whose address and length are given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
