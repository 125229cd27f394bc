//! The reference chain: every node receives from the one before and passes on to the one after,
//! block by block. On equal links nothing can be faster; nothing breaks more easily either, which
//! is why it is the yardstick and not the product.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use sha2::{Digest as _, Sha256};

/// What is passed on at a time: 10 ms at 50 Mbit/s, so 16 nodes cost 0.16 s of 22.
const BLOCK_LEN: usize = 64 * 1024;

/// How long a neighbour may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The server's end.
#[derive(Args)]
pub(crate) struct Head {
    file: PathBuf,
    next: SocketAddr,
}

impl Head {
    pub(super) fn run(&self) -> Result<()> {
        let mut file =
            File::open(&self.file).with_context(|| format!("opening {}", self.file.display()))?;
        let mut next = connect(self.next)?;
        // On Linux this is sendfile, so the server copies nothing.
        std::io::copy(&mut file, &mut next)?;
        Ok(())
    }
}

/// A node.
#[derive(Args)]
pub(crate) struct Relay {
    file: PathBuf,
    listen: SocketAddr,
    /// Expected length, in bytes
    len: u64,
    /// Expected SHA-256, in hex
    sha256: String,
    /// The next node; the last one has none
    next: Option<SocketAddr>,
}

impl Relay {
    pub(super) fn run(&self) -> Result<()> {
        let listener = TcpListener::bind(self.listen)?;
        let mut next = self.next.map(connect).transpose()?;
        let (mut previous, _) = listener.accept()?;
        let mut file = File::create(&self.file)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; BLOCK_LEN];
        let mut received_len = 0;
        loop {
            let len = previous.read(&mut buffer)?;
            if len == 0 {
                break;
            }
            if let Some(next) = &mut next {
                next.write_all(&buffer[..len])?;
            }
            file.write_all(&buffer[..len])?;
            hash.update(&buffer[..len]);
            received_len += len as u64;
        }
        ensure!(received_len == self.len, "the chain broke after {received_len} bytes");
        ensure!(crate::bench::hex(&hash.finalize()) == self.sha256, "the hash does not match");
        println!("complete");
        Ok(())
    }
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    loop {
        match TcpStream::connect(to) {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error).with_context(|| format!("connecting to {to}")),
        }
    }
}
