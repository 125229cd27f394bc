//! What the kernel says of new devices (`NETLINK_KOBJECT_UEVENT`): the same that udev hears.
//!
//! ```text
//! add@/devices/pci0000:00/…\0ACTION=add\0DEVPATH=/devices/…\0SUBSYSTEM=virtio\0MODALIAS=virtio:…\0
//! ```

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with, sockopt,
};

/// The kernel's own group; the other one is udev's.
const KERNEL_GROUP: u32 = 1;

/// Room for an event: the kernel's own buffer has 2 KiB (`UEVENT_BUFFER_SIZE`) besides the path.
const EVENT_ROOM: usize = 8 << 10;

/// Room for events while modules are being loaded: a USB hub brings a dozen, a storage shelf a
/// thousand of 300 bytes.
const QUEUE_ROOM: usize = 1 << 20;

/// Where new devices are heard of.
pub(super) struct Uevents(OwnedFd);

/// What was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A device is there that wants this.
    Device { alias: String },
    /// Something else.
    Other,
    /// Events were lost: everything has to be looked at again.
    Lost,
}

impl Uevents {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(KOBJECT_UEVENT),
        )?;
        // More than a plain process may have. Without it events are lost sooner, which is noticed.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_ROOM);
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// Waits for the next event.
    pub(super) fn next(&self) -> io::Result<Heard> {
        let mut buffer = [0; EVENT_ROOM];
        match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
            Ok((len, _)) => Ok(decode(buffer.get(..len).unwrap_or_default())),
            Err(Errno::INTR) => Ok(Heard::Other),
            Err(Errno::NOBUFS) => Ok(Heard::Lost),
            Err(error) => Err(error.into()),
        }
    }
}

fn decode(event: &[u8]) -> Heard {
    let mut fields = event.split(|&byte| byte == 0);
    let is_new =
        fields.next().is_some_and(|head| head.starts_with(b"add@") || head.starts_with(b"bind@"));
    let alias = fields
        .find_map(|field| field.strip_prefix(b"MODALIAS="))
        .and_then(|alias| std::str::from_utf8(alias).ok())
        .filter(|alias| !alias.is_empty());
    match alias {
        Some(alias) if is_new => Heard::Device { alias: alias.to_owned() },
        _ => Heard::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event: &[u8], expect: Option<&str>) {
        let expect = expect.map_or(Heard::Other, |alias| Heard::Device { alias: alias.to_owned() });
        assert_eq!(decode(event), expect);
    }

    #[test]
    fn a_new_device_says_what_it_wants() {
        check(
            b"add@/devices/virtio0\0ACTION=add\0SUBSYSTEM=virtio\0MODALIAS=virtio:d1v1\0SEQNUM=9\0",
            Some("virtio:d1v1"),
        );
    }

    #[test]
    fn other_events_are_passed_over() {
        check(b"remove@/devices/virtio0\0ACTION=remove\0MODALIAS=virtio:d1v1\0", None);
        check(b"add@/devices/cpu\0ACTION=add\0", None);
        check(b"add@/x\0MODALIAS=\0", None);
        check(b"add@/x\0MODALIAS=\xff\0", None);
        check(b"", None);
    }
}
