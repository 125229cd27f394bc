//! Hashing on a thread of its own, of what is received or of the file that is sent.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::hex;
use crate::report::Footer;

/// A buffer: half a millisecond of hashing, so that waking the thread costs nothing beside it.
pub(super) const BUFFER_LEN: usize = 256 * 1024;

/// Buffers that wait to be hashed: 4 MiB, and then the sender must wait, as it outruns the hash.
const BUFFERS_MAX: usize = 16;

/// The hashes of one transfer.
struct Hashes {
    sha256: Sha256,
    /// Costs more than SHA-256 where the processor has instructions for that, so only old peers
    /// have it computed.
    md5: Option<Md5>,
}

impl Hashes {
    fn new(with_md5: bool) -> Self {
        Self { sha256: Sha256::new(), md5: with_md5.then(Md5::new) }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    fn finish(self) -> Footer {
        Footer {
            md5sum: self.md5.map(|md5| hex(&md5.finalize())),
            sha256: Some(hex(&self.sha256.finalize())),
            signature: None,
        }
    }
}

/// Hashes buffers in the order in which they are given.
pub(super) struct HashThread {
    full: Option<SyncSender<(Vec<u8>, usize)>>,
    empty: Receiver<Vec<u8>>,
    made: usize,
}

impl HashThread {
    /// `then` is called with the hashes after [`Self::finish`].
    pub(super) fn start(
        with_md5: bool,
        then: impl FnOnce(Footer) + Send + 'static,
    ) -> io::Result<Self> {
        let (full, jobs) = sync_channel::<(Vec<u8>, usize)>(BUFFERS_MAX);
        let (back, empty): (Sender<Vec<u8>>, _) = channel();
        std::thread::Builder::new().name("lan-hash".to_owned()).spawn(move || {
            let mut hashes = Hashes::new(with_md5);
            for (buffer, len) in jobs {
                if len == 0 {
                    // Said by `finish`; without it the transfer was given up.
                    then(hashes.finish());
                    return;
                }
                hashes.update(&buffer[..len]);
                let _ = back.send(buffer);
            }
        })?;
        Ok(Self { full: Some(full), empty, made: 0 })
    }

    /// A buffer to fill.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        if let Ok(buffer) = self.empty.try_recv() {
            return buffer;
        }
        if self.made < BUFFERS_MAX {
            self.made += 1;
            return vec![0; BUFFER_LEN];
        }
        self.empty.recv().unwrap_or_else(|_| vec![0; BUFFER_LEN])
    }

    /// Takes the first `len` bytes, which must be some.
    pub(super) fn feed(&self, buffer: Vec<u8>, len: usize) {
        if let Some(full) = self.full.as_ref().filter(|_| len > 0) {
            let _ = full.send((buffer, len));
        }
    }

    /// That was all.
    pub(super) fn finish(&mut self) {
        if let Some(full) = self.full.take() {
            let _ = full.send((Vec::new(), 0));
        }
    }
}

/// Hashes `length` bytes of a file that is being sent. `then` gets an error if it is shorter now.
pub(super) fn hash_file(
    file: Arc<File>,
    length: u64,
    with_md5: bool,
    then: impl FnOnce(io::Result<Footer>) + Send + 'static,
) -> io::Result<()> {
    std::thread::Builder::new().name("lan-hash".to_owned()).spawn(move || {
        let mut hashes = Hashes::new(with_md5);
        let mut buffer = vec![0; BUFFER_LEN];
        let mut at = 0;
        while at < length {
            let len = (length - at).min(BUFFER_LEN as u64) as usize;
            if let Err(error) = file.read_exact_at(&mut buffer[..len], at) {
                return then(Err(error));
            }
            hashes.update(&buffer[..len]);
            at += len as u64;
        }
        then(Ok(hashes.finish()));
    })?;
    Ok(())
}
