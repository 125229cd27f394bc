//! Fetches a file by TFTP as firmware does, with windows where the server knows them: what the
//! benchmark of TFTP servers measures with. It compares every byte with the file that is expected.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tftp::{Options, Receiver};

/// How long the server may be silent before it is asked again.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How often in a row.
const TRIES: usize = 10;

/// See the module documentation.
#[derive(Args)]
pub(crate) struct Fetch {
    server: SocketAddr,
    /// What to ask for
    name: String,
    /// What must come
    expect: PathBuf,
    #[arg(long)]
    blksize: u16,
    #[arg(long, default_value_t = 1)]
    windowsize: u16,
    /// Transfers at once
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Microseconds between a packet and its acknowledgement: a network that is not this machine
    #[arg(long, default_value_t = 0)]
    delay_us: u64,
}

impl Fetch {
    /// Prints `ready`, waits for a line, fetches, prints `seconds N` until the last was done.
    pub(super) fn run(&self) -> Result<()> {
        let expect = std::fs::read(&self.expect)
            .with_context(|| format!("reading {}", self.expect.display()))?;
        println!("ready");
        std::io::stdin().read_line(&mut String::new())?;
        let start = Instant::now();
        std::thread::scope(|scope| {
            let fetches: Vec<_> =
                (0..self.count).map(|_| scope.spawn(|| self.fetch(&expect))).collect();
            fetches.into_iter().try_for_each(|fetch| fetch.join().expect("it does not panic"))
        })?;
        println!("seconds {}", start.elapsed().as_secs_f64());
        Ok(())
    }

    fn fetch(&self, expect: &[u8]) -> Result<()> {
        if self.delay_us > 0 {
            // SAFETY: PR_SET_TIMERSLACK takes a number; it makes this thread's sleeps end in time.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64) };
        }
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let options = Options {
            blksize: Some(self.blksize),
            windowsize: (self.windowsize > 1).then_some(self.windowsize),
            ..Options::default()
        };
        let mut receiver = Receiver::new(self.name.as_bytes(), options);
        socket.send_to(&receiver.request(), self.server)?;
        let mut datagram = vec![0; 65_536];
        let mut tries = TRIES;
        while receiver.result().is_none() {
            let (len, from) = match socket.recv_from(&mut datagram) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    tries -= 1;
                    ensure!(tries > 0, "{} is silent", self.server);
                    let (to, packet) =
                        receiver.again().unwrap_or((self.server, receiver.request()));
                    socket.send_to(&packet, to)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            tries = TRIES;
            let heard = receiver.handle(from, &datagram[..len]);
            if let Some((offset, bytes)) = heard.bytes {
                let at = usize::try_from(offset)?;
                let expect = expect.get(at..at + bytes.len());
                ensure!(expect == Some(bytes), "what comes at {offset} is not right");
            }
            if let Some(answer) = heard.answer {
                if self.delay_us > 0 {
                    std::thread::sleep(Duration::from_micros(self.delay_us));
                }
                socket.send_to(&answer, from)?;
            }
        }
        let len = receiver.result().context("it has ended")??;
        ensure!(len == expect.len() as u64, "{len} bytes came of {}", expect.len());
        Ok(())
    }
}
