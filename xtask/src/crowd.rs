//! A server on loopback and nodes that only report: what the dashboard and the API are tried with.
//!
//! Nothing boots. The nodes are threads that each speak for many, over one connection, as agents
//! would: once a second, until they are told to stop.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::guard::Guard;
use crate::release_binary;

/// Threads that speak for nodes: fewer than the connections that one address may have.
const THREADS: usize = 16;

/// How often a node reports, like an agent that downloads.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a server may take to start on a busy machine: it has one image of a few bytes.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an answer may take before it counts as none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of the image that the nodes pretend to download.
const IMAGE_LEN: u64 = 1_200_000_000;

/// A running server, which ends when this is dropped.
pub(crate) struct Server {
    process: Guard,
    pub(crate) port: u16,
}

impl Server {
    /// Makes a lab in `dir`, which must not be there, that names the first `named` nodes and has more
    /// `settings`, and serves it.
    pub(crate) fn start(dir: &Path, named: usize, settings: &str) -> Result<Self> {
        let program = release_binary()?;
        let init = Command::new(&program).arg("init").arg(dir).output().context("boottorrent")?;
        ensure!(init.status.success(), "init: {}", String::from_utf8_lossy(&init.stderr));
        let port = lab(dir, named, settings)?;
        let process = Command::new(&program)
            .arg("-C")
            .arg(dir)
            .args(["start", "-o", "json", "--phase1"])
            .arg(dir.join("phase1"))
            .stdout(std::fs::File::create(dir.join("server.log"))?)
            .stderr(Stdio::inherit())
            .spawn()
            .context("starting boottorrent")?;
        let mut process = Guard(process);
        let until = Instant::now() + START_TIMEOUT;
        while Connection::new(port).and_then(|mut asking| asking.get("/readyz")).is_err() {
            if let Some(status) = process.0.try_wait()? {
                bail!("boottorrent ended: {status}; see {}", dir.join("server.log").display());
            }
            ensure!(Instant::now() < until, "boottorrent is not ready after {START_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(Self { process, port })
    }

    /// The most memory that it had in RAM, in bytes (`VmHWM` of proc(5)).
    pub(crate) fn memory_peak(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.0.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("{path} has no VmHWM"))? << 10)
    }

    /// Bytes that it has read so far, from files and sockets (`rchar` of proc(5)).
    pub(crate) fn read_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/io", self.process.0.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let count = text.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok());
        count.with_context(|| format!("{path} has no rchar"))
    }
}

/// Writes the lab's files; the port of its web server.
fn lab(dir: &Path, named: usize, more: &str) -> Result<u16> {
    let (http, tracker, swarm) = (free_port()?, free_port()?, free_port()?);
    let settings = format!(
        "version: 1\nserver:\n  interface: lo\n  address: 127.0.0.1\nboot:\n  default: debian\n\
         dhcp:\n  mode: \"off\"\ntftp:\n  enabled: false\nhttp:\n  port: {http}\n\
         swarm:\n  tracker_port: {tracker}\n  port: {swarm}\n{more}"
    );
    let mut nodes = "nodes:\n".to_owned();
    for index in 0..named {
        nodes.push_str(&format!("  c{:04}:\n    mac: {}\n", index + 1, mac(index)));
    }
    let image =
        "dispname: Debian 12 for the lab\nmethod: kexec\nkernel: vmlinuz\ninitrd: initrd.img\n";
    // Built three times, as far as its files say: two versions can be gone back to.
    let live = "dispname: The lab's own\nmethod: livenet\nrootfs: squashfs.img\n";
    let data = |version: u32| {
        format!(
            "image_data:\n  name: lab\n  image_class: LivenetImage\n  dispname: The lab's own\n  \
             version: {version}\n  creation_date: 2026-05-{:02}\n",
            version + 10
        )
    };
    let versions = [1, 2, 3].map(data);
    let files = [
        ("oss/lab/config.yaml", live),
        ("oss/lab/squashfs.img", "the third root"),
        ("oss/lab/image_data.yml", versions[2].as_str()),
        ("state/images/lab/versions/2/config.yaml", live),
        ("state/images/lab/versions/2/squashfs.img", "the second root"),
        ("state/images/lab/versions/2/image_data.yml", versions[1].as_str()),
        ("state/images/lab/versions/1/config.yaml", live),
        ("state/images/lab/versions/1/squashfs.img", "the first root"),
        ("state/images/lab/versions/1/image_data.yml", versions[0].as_str()),
        ("Boottorrent.yaml", settings.as_str()),
        ("nodes.yaml", nodes.as_str()),
        ("oss/debian/config.yaml", image),
        ("oss/debian/vmlinuz", "a kernel"),
        ("oss/debian/initrd.img", "an initrd"),
        ("phase1/vmlinuz", "phase 1's kernel"),
        ("phase1/initramfs.img", "phase 1's initramfs"),
    ];
    for (path, text) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().context("a path without a folder")?)?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(http)
}

/// A port that nobody has right now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A new folder for a lab.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let dir = crate::target_dir().join(name);
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("emptying {}", dir.display()))
        }
        _ => Ok(dir),
    }
}

/// The Ethernet address of a node.
pub(crate) fn mac(index: usize) -> String {
    format!("52:54:00:00:{:02x}:{:02x}", index >> 8 & 0xff, index & 0xff)
}

/// Nodes that report.
pub(crate) struct Nodes {
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Nodes {
    pub(crate) fn start(port: u16, count: usize) -> Self {
        let (stop, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..THREADS)
            .map(|first| {
                let (stop, taken) = (Arc::clone(&stop), Arc::clone(&taken));
                let own: Vec<usize> = (first..count).step_by(THREADS).collect();
                std::thread::spawn(move || report(port, &own, &stop, &taken))
            })
            .collect();
        Self { stop, taken, threads }
    }

    /// Reports that the server took.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Ends them; fails if a report was not taken.
    pub(crate) fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok().context("a thread of nodes panicked")??;
        }
        Ok(self.taken.load(Ordering::Relaxed))
    }
}

fn report(port: u16, own: &[usize], stop: &AtomicBool, taken: &AtomicU64) -> Result<()> {
    let mut asking = Connection::new(port)?;
    for sequence in 1.. {
        let next = Instant::now() + INTERVAL;
        for &index in own {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            asking.post("/api/v1/reports", &text_of(index, sequence))?;
            taken.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// The report of a node. What a stranger could write into one is in there.
fn text_of(index: usize, sequence: u64) -> String {
    let mut report = json!({
        "node": mac(index), "boot": 7, "sequence": sequence, "uptime_ms": sequence * 1000,
        "log": [format!("line {sequence} <script>alert(1)</script>")],
    });
    let machine = json!({
        "arch": "x86_64", "firmware": "uefi", "memory_bytes": 16_000_000_000_u64, "processors": 8,
        "interface": "eth0", "driver": "e1000e<b>", "agent": "0.1.0", "kernel": "6.1.0-40-amd64",
    });
    let rate = 4_000_000 + (index as u64 * 7_919 + sequence * 104_729) % 4_000_000;
    // A quarter is done after the first reports; the others take five minutes and begin anew.
    let done = (rate * sequence + index as u64 * 1_000_000) % IMAGE_LEN;
    let stage = match index % 20 {
        _ if sequence == 1 => json!({"stage": "agent"}),
        _ if sequence == 2 => json!({"stage": "lease"}),
        0 => json!({
            "stage": "failed", "failure": "BT12", "retry_in_s": 4,
            "reason": "eth0 <img src=x onerror=alert(1)> has no carrier",
        }),
        1..6 => json!({"stage": "booted", "image": "debian"}),
        6 => json!({"stage": "verified", "image": "debian"}),
        7 => json!({"stage": "menu"}),
        _ => json!({
            "stage": "downloading", "image": "debian", "verified_bytes": done,
            "total_bytes": IMAGE_LEN, "rate_bytes_per_s": rate, "peers": 12,
            "uploaded_bytes": done, "http": false,
        }),
    };
    if let (Value::Object(report), Value::Object(stage)) = (&mut report, stage) {
        report.extend(stage);
        if sequence == 1 {
            report.insert("machine".to_owned(), machine);
        }
        if sequence.is_multiple_of(5) {
            report.insert("sources".to_owned(), sources(index, done).into());
        }
    }
    report.to_string()
}

/// From whom a node has what it has, as full as an agent sends it.
fn sources(index: usize, done: u64) -> Vec<Value> {
    let source = |step: u64| {
        let from = index as u64 + step * 7;
        let address = format!("10.0.{}.{}", from >> 8 & 0xff, from & 0xff);
        json!({"address": address, "bytes": done / (step + 2)})
    };
    (0..16).map(source).collect()
}

/// A connection that asks one thing after the other.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn new(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"))
    }

    fn post(&mut self, path: &str, body: &str) -> Result<Vec<u8>> {
        let len = body.len();
        self.ask(&format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             content-length: {len}\r\n\r\n{body}"
        ))
    }

    /// Asks for what never ends, and leaves the answer where it is.
    pub(crate) fn stall(&mut self, path: &str) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).context("asking")
    }

    fn ask(&mut self, request: &str) -> Result<Vec<u8>> {
        self.0.get_mut().write_all(request.as_bytes()).context("asking")?;
        let mut line = String::new();
        self.0.read_line(&mut line).context("waiting for an answer")?;
        let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut len, mut is_chunked) = (0, false);
        loop {
            line.clear();
            self.0.read_line(&mut line).context("reading an answer")?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                len = value.trim().parse().context("the length of an answer")?;
            }
            is_chunked |= name.eq_ignore_ascii_case("transfer-encoding");
        }
        let body = if is_chunked { self.in_parts()? } else { self.exactly(len)? };
        ensure!(
            status == "200",
            "{} is answered by {status}",
            request.lines().next().unwrap_or("")
        );
        Ok(body)
    }

    fn exactly(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).context("reading an answer")?;
        Ok(bytes)
    }

    /// A body whose length is said part by part (RFC 9112 section 7.1).
    fn in_parts(&mut self) -> Result<Vec<u8>> {
        let mut body = vec![];
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).context("reading an answer")?;
            let len = usize::from_str_radix(line.trim(), 16).context("the length of a part")?;
            let part = self.exactly(len + b"\r\n".len())?;
            body.extend_from_slice(&part[..len]);
            if len == 0 {
                return Ok(body);
            }
        }
    }
}
