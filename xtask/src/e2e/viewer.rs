//! Somebody who looks at a guest by VNC from elsewhere (RFC 6143): says the password, gets the screen, presses
//! a key. As much of a viewer as a test needs, without any encoding but the plain one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use des::Des;
use des::cipher::{BlockCipherEncrypt as _, KeyInit as _};

/// How long QEMU may think about anything: it is emulated, and emulates.
const TIMEOUT: Duration = Duration::from_secs(60);

const VERSION: &[u8; 12] = b"RFB 003.008\n";

/// Kinds of security (section 7.1.2).
const SECURITY_NONE: u8 = 1;
const SECURITY_PASSWORD: u8 = 2;

/// Red, green and blue in a byte each, blue first (section 7.4).
const PIXEL_FORMAT: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

const PIXEL_LEN: usize = 4;

/// Much more than a guest in a text mode has, so that nothing else is believed.
const SIDE_MAX: usize = 4_096;

/// A connection to a guest's screen.
pub(super) struct Viewer {
    stream: TcpStream,
    width: usize,
    height: usize,
}

impl Viewer {
    /// Gets in. `None` if the password is refused.
    pub(super) fn open(mut stream: TcpStream, password: &str) -> Result<Option<Self>> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        let banner: [u8; 12] = read(&mut stream).context("no banner")?;
        ensure!(&banner == VERSION, "{banner:?} is not the banner of RFC 6143");
        stream.write_all(VERSION)?;
        let kinds = read_all(&mut stream, 1).context("no kinds of security")?;
        let kinds = read_all(&mut stream, kinds[0].into()).context("no kinds of security")?;
        ensure!(!kinds.contains(&SECURITY_NONE), "it lets in whoever comes");
        ensure!(kinds.contains(&SECURITY_PASSWORD), "{kinds:?} have no password");
        stream.write_all(&[SECURITY_PASSWORD])?;
        let challenge = read(&mut stream).context("no challenge")?;
        stream.write_all(&response(challenge, password))?;
        if u32::from_be_bytes(read(&mut stream).context("no verdict")?) != 0 {
            return Ok(None);
        }
        // Others may look, too.
        stream.write_all(&[1])?;
        let size: [u8; 4] = read(&mut stream).context("no size")?;
        let [width, height] = [[size[0], size[1]], [size[2], size[3]]].map(side);
        ensure!(width.max(height) <= SIDE_MAX, "a screen of {width}x{height}");
        let _format: [u8; 16] = read(&mut stream)?;
        let name_len = u32::from_be_bytes(read(&mut stream)?);
        read_all(&mut stream, name_len.try_into()?).context("no name")?;
        let mut settings = vec![0, 0, 0, 0];
        settings.extend(PIXEL_FORMAT);
        // One encoding: the plain one.
        settings.extend([2, 0, 0, 1, 0, 0, 0, 0]);
        stream.write_all(&settings)?;
        Ok(Some(Self { stream, width, height }))
    }

    /// The screen as it is now: blue, green, red and nothing of each pixel. If it was larger or smaller when
    /// this came, what both sizes have.
    pub(super) fn screen(&mut self) -> Result<Vec<[u8; PIXEL_LEN]>> {
        let mut request = vec![3, 0, 0, 0, 0, 0];
        for side in [self.width, self.height] {
            request.extend(u16::try_from(side)?.to_be_bytes());
        }
        self.stream.write_all(&request)?;
        loop {
            let pixels = self.message()?;
            if !pixels.is_empty() {
                return Ok(pixels);
            }
        }
    }

    /// Takes one message; the pixels that it brought (section 7.6).
    fn message(&mut self) -> Result<Vec<[u8; PIXEL_LEN]>> {
        let [kind] = read(&mut self.stream).context("no message")?;
        let mut pixels = vec![];
        match kind {
            // An update.
            0 => {
                let head: [u8; 3] = read(&mut self.stream)?;
                for _ in 0..side([head[1], head[2]]) {
                    self.rectangle(&mut pixels)?;
                }
            }
            // A bell.
            2 => {}
            // Text for a clipboard.
            3 => {
                let head: [u8; 7] = read(&mut self.stream)?;
                let len = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
                read_all(&mut self.stream, len.try_into()?)?;
            }
            other => bail!("a message of kind {other}"),
        }
        Ok(pixels)
    }

    fn rectangle(&mut self, pixels: &mut Vec<[u8; PIXEL_LEN]>) -> Result<()> {
        let head: [u8; 12] = read(&mut self.stream)?;
        let [width, height] = [[head[4], head[5]], [head[6], head[7]]].map(side);
        ensure!(head[8..] == [0; 4], "an encoding that was not asked for: {:?}", &head[8..]);
        ensure!(width <= self.width && height <= self.height, "a rectangle larger than the screen");
        for _ in 0..height {
            let row = read_all(&mut self.stream, width * PIXEL_LEN)?;
            pixels.extend(row.as_chunks().0);
        }
        Ok(())
    }

    /// Presses a key and lets it go, by its number (section 7.5.4): that of a letter is its ASCII.
    pub(super) fn press(&mut self, key: u8) -> Result<()> {
        for down in [1, 0] {
            self.stream.write_all(&[4, down, 0, 0, 0, 0, 0, key]).context("pressing a key")?;
        }
        Ok(())
    }
}

fn side(bytes: [u8; 2]) -> usize {
    usize::from(u16::from_be_bytes(bytes))
}

/// The challenge, encrypted with the password (section 7.2.2), each of whose bytes counts from its other end.
fn response(challenge: [u8; 16], password: &str) -> [u8; 16] {
    let mut key = [0; 8];
    for (key, byte) in key.iter_mut().zip(password.bytes()) {
        *key = byte.reverse_bits();
    }
    let cipher = Des::new(&key.into());
    let mut response = challenge;
    let (blocks, _) = response.as_chunks_mut::<8>();
    for block in blocks {
        cipher.encrypt_block(block.into());
    }
    response
}

fn read<const LEN: usize>(stream: &mut TcpStream) -> Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_all(stream: &mut TcpStream, len: usize) -> Result<Vec<u8>> {
    ensure!(len <= SIDE_MAX * PIXEL_LEN, "{len} bytes at once");
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
