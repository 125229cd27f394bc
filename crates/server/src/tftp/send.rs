//! Blocks to a socket, as many as possible in one call: with UDP's segmentation offload (Linux 4.18)
//! a window is one packet down to the network card, or to the last moment before it.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};

use socket2::{MsgHdr, SockAddr, SockRef};
use tftp::Window;

use super::root::Content;

/// What a socket may hold that has not left this machine when more is given to it; the kernel
/// doubles it for its own needs. A large window (94 kB) is taken if there is any room, so a socket
/// holds little more than one of those: 0.8 ms of a gigabit, which keeps the link busy while we wake.
pub(super) const QUEUE_LEN: usize = 16 << 10;

/// The most packets of one call (`UDP_MAX_SEGMENTS` of the kernel).
const SEGMENTS_MAX: usize = 64;

/// The most bytes of one call: those of the longest UDP packet.
const SEGMENTS_LEN_MAX: usize = 65_507;

/// Sends the blocks of windows.
#[derive(Debug)]
pub(super) struct Sender {
    /// The bytes of a window.
    buffer: Vec<u8>,
    /// Whether the system can cut up packets for us, as far as we know.
    can_segment: bool,
}

/// Why blocks were not sent.
#[derive(Debug)]
pub(super) enum SendError {
    /// The file cannot be read.
    Read(io::Error),
    /// The network does not take them. As good as lost: they are sent again in time.
    Send(io::Error),
}

impl Sender {
    pub(super) fn new() -> Self {
        Self { buffer: vec![], can_segment: true }
    }

    /// Reads the blocks and sends them; waits while the socket holds [`QUEUE_LEN`] already.
    pub(super) fn send(
        &mut self,
        socket: &UdpSocket,
        to: SocketAddr,
        content: &Content,
        window: Window,
    ) -> Result<(), SendError> {
        if window.count == 1 {
            return self.send_single(socket, to, content, window);
        }
        let range = window.range();
        // A window is at most 64 blocks of 64 KiB.
        let len = (range.end - range.start) as usize;
        self.make_room(len);
        let bytes = &mut self.buffer[..len];
        content.read(range.start, bytes).map_err(SendError::Read)?;
        let blocks: Vec<([u8; 4], &[u8])> =
            window.blocks().map(|(header, at)| (header, &bytes[at])).collect();
        let to = SockAddr::from(to);
        let packet_len = usize::from(window.blksize) + 4;
        let at_once = (SEGMENTS_LEN_MAX / packet_len).clamp(1, SEGMENTS_MAX);
        for run in blocks.chunks(if self.can_segment { at_once } else { 1 }) {
            if run.len() == 1 {
                send_one(socket, &to, run).map_err(SendError::Send)?;
            } else if let Err(error) = send_run(socket, &to, run, packet_len) {
                // EIO: a device without checksums in hardware, for good. Others: this path has
                // smaller packets than the interface.
                self.can_segment &= error.raw_os_error() != Some(libc::EIO);
                for one in run.chunks(1) {
                    send_one(socket, &to, one).map_err(SendError::Send)?;
                }
            }
        }
        Ok(())
    }

    /// The same for one block, without detours: in lock-step a node waits for it.
    fn send_single(
        &mut self,
        socket: &UdpSocket,
        to: SocketAddr,
        content: &Content,
        window: Window,
    ) -> Result<(), SendError> {
        let range = window.range();
        let len = (range.end - range.start) as usize;
        self.make_room(4 + len);
        for (header, _) in window.blocks() {
            self.buffer[..4].copy_from_slice(&header);
        }
        if len > 0 {
            content.read(range.start, &mut self.buffer[4..4 + len]).map_err(SendError::Read)?;
        }
        socket.send_to(&self.buffer[..4 + len], to).map(drop).map_err(SendError::Send)
    }

    fn make_room(&mut self, len: usize) {
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
    }
}

fn send_one(socket: &UdpSocket, to: &SockAddr, block: &[([u8; 4], &[u8])]) -> io::Result<()> {
    let [(header, bytes)] = block else { return Ok(()) };
    let slices = [IoSlice::new(header), IoSlice::new(bytes)];
    SockRef::from(socket).send_to_vectored(&slices, to).map(drop)
}

fn send_run(
    socket: &UdpSocket,
    to: &SockAddr,
    run: &[([u8; 4], &[u8])],
    packet_len: usize,
) -> io::Result<()> {
    let mut slices = [IoSlice::new(&[]); 2 * SEGMENTS_MAX];
    for ((header, bytes), slices) in run.iter().zip(slices.as_chunks_mut::<2>().0) {
        *slices = [IoSlice::new(header), IoSlice::new(bytes)];
    }
    let control = segment_len(packet_len as u16);
    let message =
        MsgHdr::new().with_addr(to).with_buffers(&slices[..2 * run.len()]).with_control(&control);
    SockRef::from(socket).sendmsg(&message, 0).map(drop)
}

const WORD: usize = size_of::<usize>();

/// A control message (cmsg(3)) that tells the kernel how long packets are to be: its length, level
/// and type, and a u16, padded to a word.
fn segment_len(len: u16) -> [u8; 2 * WORD + 8] {
    let mut message = [0; 2 * WORD + 8];
    let header_len = WORD + 8;
    message[..WORD].copy_from_slice(&(header_len + 2).to_ne_bytes());
    message[WORD..WORD + 4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    message[WORD + 4..WORD + 8].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    message[header_len..header_len + 2].copy_from_slice(&len.to_ne_bytes());
    message
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn window_arrives_block_by_block_however_it_is_sent() {
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (from, to) = (socket(), socket());
        let file: Arc<[u8]> = (0..64 * 1_468 - 100).map(|at| (at / 251) as u8).collect();
        let content = Content::Bytes(Arc::clone(&file));
        let window = Window { first: 1, count: 64, blksize: 1_468, file_len: file.len() as u64 };
        for can_segment in [true, false] {
            let mut sender = Sender { can_segment, ..Sender::new() };
            sender.send(&from, to.local_addr().unwrap(), &content, window).unwrap();
            assert_eq!(sender.can_segment, can_segment, "loopback can");
            let mut buffer = [0; 2_048];
            for expect in window.encode(&file) {
                let len = to.recv(&mut buffer).unwrap();
                assert!(buffer[..len] == expect, "{:?}", &buffer[..4]);
            }
        }
    }

    #[test]
    fn file_that_became_shorter_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let content = Content::Bytes(Arc::from([0; 100]));
        let window = Window { first: 1, count: 1, blksize: 512, file_len: 200 };
        let to = socket.local_addr().unwrap();
        let result = Sender::new().send(&socket, to, &content, window);
        assert!(matches!(result, Err(SendError::Read(_))), "{result:?}");
    }
}
