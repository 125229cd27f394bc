//! One TCP stream over a link, and what arrives of it: the goodput B that a benchmark divides by.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Not counted: slow start, and the bucket of the shaper that is full at the beginning.
const WARM_UP: Duration = Duration::from_secs(1);

const BUFFER_LEN: usize = 256 * 1024;

/// Accepts one stream and prints `bytes_per_s N`, its goodput after the warm-up.
pub(super) fn receive(listen: SocketAddr) -> Result<()> {
    let (mut stream, _) = TcpListener::bind(listen)?.accept()?;
    let mut buffer = vec![0; BUFFER_LEN];
    let start = Instant::now();
    let (mut counted, mut first, mut last) = (0_u64, None, start);
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        let now = Instant::now();
        if first.is_some() {
            counted += len as u64;
            last = now;
        } else if now - start >= WARM_UP {
            first = Some(now);
            last = now;
        }
    }
    let seconds = first.map_or(0.0, |first| (last - first).as_secs_f64());
    ensure!(seconds > 0.5, "the stream was too short to measure");
    println!("bytes_per_s {:.0}", counted as f64 / seconds);
    Ok(())
}

/// Sends zeros for `seconds`.
pub(super) fn send(to: SocketAddr, seconds: f64) -> Result<()> {
    let mut stream = TcpStream::connect(to)?;
    let buffer = vec![0; BUFFER_LEN];
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        stream.write_all(&buffer)?;
    }
    Ok(())
}
