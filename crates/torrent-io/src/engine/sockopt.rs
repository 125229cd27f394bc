//! The few socket options and queries that no library wraps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use socket2::SockRef;

/// TCP gives a connection up when data was not acknowledged for this long. The swarm notices a dead
/// peer in a second or two; this only frees what the kernel keeps for it.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

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
