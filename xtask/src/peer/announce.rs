//! Peers of a fleet that announce as fast as a tracker answers, for `bench tracker`: each announce is
//! a new HTTP connection, as peers make them minutes apart, or a UDP exchange.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

/// An answer that takes longer is a failure.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Peers asked for: what our own nodes ask for.
const NUMWANT: u32 = 10;

/// BEP 15.
const UDP_MAGIC: u64 = 0x0417_2710_1980;
const UDP_CONNECT: u32 = 0;
const UDP_ANNOUNCE: u32 = 1;

#[derive(Args)]
pub(crate) struct Announce {
    tracker: SocketAddr,
    /// 40 hexadecimal digits
    infohash: String,
    #[arg(long)]
    udp: bool,
    #[arg(long)]
    seconds: f64,
    /// Peers that announce in turn; they differ in their ports
    #[arg(long)]
    peers: u16,
    /// Announces under way at once
    #[arg(long)]
    at_once: u16,
}

impl Announce {
    /// Prints `announces COUNT failures COUNT` at the end.
    pub(crate) fn run(&self) -> Result<()> {
        let infohash = infohash(&self.infohash)?;
        let (done, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        let until = Instant::now() + Duration::from_secs_f64(self.seconds);
        std::thread::scope(|scope| {
            for thread in 0..self.at_once {
                let (done, failed) = (&done, &failed);
                scope.spawn(move || {
                    let mut udp = None;
                    let mut number = thread;
                    while Instant::now() < until {
                        number = (number + self.at_once) % self.peers.max(1);
                        let port = 10_000 + number;
                        let result = if self.udp {
                            self.by_udp(&mut udp, infohash, port)
                        } else {
                            self.by_http(port)
                        };
                        if let Err(error) = &result
                            && failed.fetch_add(1, Ordering::Relaxed) == 0
                        {
                            eprintln!("{error:#}");
                        }
                        done.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
                    }
                });
            }
        });
        println!("announces {} failures {}", done.into_inner(), failed.into_inner());
        Ok(())
    }

    fn by_http(&self, port: u16) -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.tracker, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let escaped: String = self
            .infohash
            .as_bytes()
            .chunks(2)
            .fold(String::new(), |text, pair| text + "%" + &String::from_utf8_lossy(pair));
        let request = format!(
            "GET /announce?info_hash={escaped}&peer_id=-BN0100-{port:012}&port={port}&uploaded=0\
             &downloaded=0&left=1000&compact=1&numwant={NUMWANT} HTTP/1.1\r\n\
             Host: {}\r\nConnection: close\r\n\r\n",
            self.tracker
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = vec![];
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let is_good = text.lines().next().is_some_and(|line| line.contains(" 200"))
            && !text.contains("failure reason");
        ensure!(is_good, "the tracker answers {text:?}");
        Ok(())
    }

    fn by_udp(
        &self,
        connection: &mut Option<(UdpSocket, u64)>,
        infohash: [u8; 20],
        port: u16,
    ) -> Result<()> {
        if connection.is_none() {
            *connection = Some(self.connect_udp()?);
        }
        let Some((socket, id)) = connection else { bail!("just connected") };
        let mut packet = id.to_be_bytes().to_vec();
        packet.extend(UDP_ANNOUNCE.to_be_bytes());
        packet.extend(u32::from(port).to_be_bytes());
        packet.extend(infohash);
        packet.extend(format!("-BN0100-{port:012}").as_bytes());
        // Downloaded, left, uploaded; event, IP, key; how many peers; port.
        for number in [0, 1_000, 0_u64] {
            packet.extend(number.to_be_bytes());
        }
        for number in [0, 0, 7, NUMWANT] {
            packet.extend(number.to_be_bytes());
        }
        packet.extend(port.to_be_bytes());
        exchange(socket, &packet, UDP_ANNOUNCE, u32::from(port)).map(drop)
    }

    fn connect_udp(&self) -> Result<(UdpSocket, u64)> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(self.tracker)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let mut packet = UDP_MAGIC.to_be_bytes().to_vec();
        packet.extend(UDP_CONNECT.to_be_bytes());
        packet.extend(1_u32.to_be_bytes());
        let answer = exchange(&socket, &packet, UDP_CONNECT, 1)?;
        let id = answer.get(..8).context("no connection id")?.try_into()?;
        Ok((socket, u64::from_be_bytes(id)))
    }
}

/// Sends a packet; what follows action and transaction in the answer.
fn exchange(socket: &UdpSocket, packet: &[u8], action: u32, transaction: u32) -> Result<Vec<u8>> {
    socket.send(packet)?;
    let mut room = [0; 2048];
    let len = socket.recv(&mut room).context("no answer")?;
    let head = [action.to_be_bytes(), transaction.to_be_bytes()].concat();
    let answer = &room[..len];
    ensure!(answer.starts_with(&head), "the tracker answers {answer:x?}");
    Ok(answer[head.len()..].to_vec())
}

fn infohash(text: &str) -> Result<[u8; 20]> {
    ensure!(text.len() == 40 && text.is_ascii(), "an infohash has 40 digits");
    let mut bytes = [0; 20];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16)?;
    }
    Ok(bytes)
}
