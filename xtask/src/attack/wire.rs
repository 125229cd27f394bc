//! What is said to the server, and what it answers: single questions of DHCP, HTTP and BitTorrent from
//! an address of one's choice. Each has an end in time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dhcp::Message;
use socket2::{Domain, Protocol, Socket, Type};

/// After this a question counts as unanswered. Firmware waits four seconds for its first DHCP answer
/// and about as long for a TFTP packet; iPXE gives a connection up much later.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// Most bytes of an answer: more than any phase 1 has.
const ANSWER_LEN_MAX: u64 = 512 << 20;

/// A machine's Ethernet address.
pub(super) type Mac = [u8; 6];

pub(super) fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Options of DHCP: their codes and bytes.
pub(super) type Options<'a> = &'a [(u8, &'a [u8])];

/// What the PXE ROM of a BIOS says of itself.
pub(super) const BIOS: Options<'static> =
    &[(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0]), (94, &[1, 2, 1])];

/// Kinds of DHCP messages.
pub(super) const DISCOVER: u8 = 1;
pub(super) const OFFER: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const DECLINE: u8 = 4;
pub(super) const ACK: u8 = 5;

/// The options that say which address is asked for, and of whom.
const WANTED: u8 = 50;
const SERVER_ID: u8 = 54;

/// A message of a machine without an address, whose answer is broadcast.
pub(super) fn dhcp_message(kind: u8, mac: Mac, xid: u32, options: Options<'_>) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0];
    bytes.extend(xid.to_be_bytes());
    bytes.extend([0, 0, 0x80, 0]);
    bytes.resize(28, 0);
    bytes.extend(mac);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, kind]);
    for (code, value) in options {
        bytes.extend([*code, value.len() as u8]);
        bytes.extend(*value);
    }
    bytes.push(255);
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// Ports 67 or 68 of the card, as machines without an address have them.
pub(super) struct DhcpSocket(UdpSocket);

impl DhcpSocket {
    pub(super) fn open(port: u16) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.bind_device(Some(b"eth0"))?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        Ok(Self(socket.into()))
    }

    pub(super) fn send(&self, to_port: u16, bytes: &[u8]) -> Result<()> {
        self.0.send_to(bytes, (Ipv4Addr::BROADCAST, to_port)).context("sending DHCP").map(drop)
    }

    /// The next message that is as wanted.
    pub(super) fn receive(
        &self,
        patience: Duration,
        is_it: impl Fn(&Message) -> bool,
    ) -> Result<Message> {
        let until = Instant::now() + patience;
        let mut room = [0; 2_048];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no answer of DHCP");
            self.0.set_read_timeout(Some(left))?;
            let Ok((len, _)) = self.0.recv_from(&mut room) else { continue };
            if let Ok(message) = Message::decode(&room[..len])
                && is_it(&message)
            {
                return Ok(message);
            }
        }
    }

    /// From DISCOVER to ACK; the address.
    pub(super) fn lease(&self, mac: Mac, options: Options<'_>) -> Result<Ipv4Addr> {
        self.lease_within(mac, options, PATIENCE)
    }

    pub(super) fn lease_within(
        &self,
        mac: Mac,
        options: Options<'_>,
        patience: Duration,
    ) -> Result<Ipv4Addr> {
        let xid = xid();
        let answer = |kind: u8| {
            move |message: &Message| {
                message.is_reply && message.xid == xid && u8::from(message.kind) == kind
            }
        };
        self.send(67, &dhcp_message(DISCOVER, mac, xid, options))?;
        let offer = self.receive(patience, answer(OFFER)).context("no offer")?;
        let server = offer.option(SERVER_ID).context("an offer of nobody")?;
        let wanted = offer.yiaddr.octets();
        let more = [options, &[(WANTED, &wanted[..]), (SERVER_ID, server)]].concat();
        self.send(67, &dhcp_message(REQUEST, mac, xid, &more))?;
        let ack = self.receive(patience, answer(ACK)).context("no acknowledgement")?;
        Ok(ack.yiaddr)
    }

    /// Says in a machine's name that somebody else has its address.
    pub(super) fn decline(&self, mac: Mac, address: Ipv4Addr, server: Ipv4Addr) -> Result<()> {
        let (wanted, server) = (address.octets(), server.octets());
        let options: Options<'_> = &[(WANTED, &wanted), (SERVER_ID, &server)];
        self.send(67, &dhcp_message(DECLINE, mac, xid(), options))
    }
}

/// Different for each question of this process.
pub(super) fn xid() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).wrapping_mul(0x9e37_79b1)
}

/// A connection from an address, with a window if it shall be small.
pub(super) fn connect(
    from: Ipv4Addr,
    to: SocketAddrV4,
    window: Option<usize>,
    patience: Duration,
) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    if let Some(len) = window {
        socket.set_recv_buffer_size(len)?;
    }
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&SocketAddr::from(to).into(), patience)?;
    Ok(socket.into())
}

/// An answer of HTTP.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> Result<serde_json::Value> {
        ensure!(self.status == 200, "the answer is {}: {}", self.status, self.text());
        serde_json::from_slice(&self.body).context("the answer is not JSON")
    }
}

/// A request with fields beside `Host`, which is the server's address unless a field says otherwise.
pub(super) fn request(
    to: SocketAddrV4,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| *name == "Host") {
        text.push_str(&format!("Host: {to}\r\n"));
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if method == "POST" {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text + "\r\n" + body
}

/// A connection that asks one thing after the other.
pub(super) struct Http {
    stream: BufReader<TcpStream>,
    to: SocketAddrV4,
}

impl Http {
    pub(super) fn connect(from: Ipv4Addr, to: SocketAddrV4) -> Result<Self> {
        let stream = connect(from, to, None, PATIENCE).context("connecting")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), to })
    }

    pub(super) fn get(&mut self, path: &str) -> Result<Answer> {
        self.ask(&request(self.to, "GET", path, &[], ""))
    }

    /// Sends a request; its answer.
    pub(super) fn ask(&mut self, request: &str) -> Result<Answer> {
        self.stream.get_mut().write_all(request.as_bytes()).context("asking")?;
        let mut line = String::new();
        self.stream.read_line(&mut line).context("waiting for an answer")?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no answer: {line:?}"))?;
        let (mut len, mut is_chunked) = (0, false);
        loop {
            line.clear();
            self.stream.read_line(&mut line).context("reading an answer")?;
            let Some((name, value)) = line.split_once(':') else { break };
            match (name.to_ascii_lowercase().as_str(), value.trim()) {
                ("content-length", value) => len = value.parse().context("a length")?,
                ("transfer-encoding", "chunked") => is_chunked = true,
                _ => {}
            }
        }
        let mut body = vec![];
        if is_chunked {
            while self.one_of_many(&mut body)? {}
        } else {
            self.some(len, &mut body)?;
        }
        Ok(Answer { status, body })
    }

    /// One part of an answer whose length nobody knew at its beginning (RFC 9112, section 7.1); `false` at its end.
    fn one_of_many(&mut self, body: &mut Vec<u8>) -> Result<bool> {
        let mut line = String::new();
        self.stream.read_line(&mut line).context("reading a part")?;
        let len = u64::from_str_radix(line.trim(), 16).context("the length of a part")?;
        self.some(len, body)?;
        self.stream.read_line(&mut line).context("the end of a part")?;
        Ok(len > 0)
    }

    fn some(&mut self, len: u64, body: &mut Vec<u8>) -> Result<()> {
        ensure!(body.len() as u64 + len <= ANSWER_LEN_MAX, "an answer of {len} bytes");
        let until = Instant::now() + 2 * PATIENCE;
        let whole = body.len() as u64 + len;
        while (body.len() as u64) < whole {
            ensure!(Instant::now() < until, "{} of {whole} bytes came in time", body.len());
            let room = (whole - body.len() as u64).min(1 << 20);
            let read = self.stream.by_ref().take(room).read_to_end(body).context("reading")?;
            if read == 0 {
                bail!("the answer ends after {} of {whole} bytes", body.len());
            }
        }
        Ok(())
    }
}

/// One request on a connection of its own.
pub(super) fn get(from: Ipv4Addr, to: SocketAddrV4, path: &str) -> Result<Answer> {
    Http::connect(from, to)?.get(path)
}

/// The first message of a peer: BEP 3.
pub(super) fn handshake(infohash: [u8; 20], peer: u64) -> Vec<u8> {
    let mut bytes = vec![19];
    bytes.extend(b"BitTorrent protocol");
    bytes.extend([0; 8]);
    bytes.extend(infohash);
    bytes.extend(format!("-XX0100-{peer:012}").as_bytes());
    bytes
}
