//! The built program as a TFTP server, over real sockets on loopback.

// Clippy knows the tests here, but not what they share.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tftp::{ErrorCode, FetchError, Options, Packet, Receiver};

/// How long a packet may take on loopback before the test says that there is none.
const TIMEOUT: Duration = Duration::from_secs(10);

struct Server {
    child: Child,
    /// Kept open: whoever prints into a closed pipe fails.
    _out: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_boottorrent"))
            .arg("tftp")
            .arg(folder)
            .args(["--listen", "127.0.0.1:0", "-o", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["event"], "listening");
        let addr = ready["tftp"].as_str().unwrap().strip_prefix("tftp://").unwrap();
        Self { child, _out: out, addr: addr.parse().unwrap() }
    }

    fn fetch(&self, name: &str, options: Options) -> Result<Vec<u8>, FetchError> {
        let socket = socket();
        let mut receiver = Receiver::new(name.as_bytes(), options);
        socket.send_to(&receiver.request(), self.addr).unwrap();
        let (mut datagram, mut file) = (vec![0; 65_536], vec![]);
        while receiver.result().is_none() {
            let (len, from) = socket.recv_from(&mut datagram).unwrap();
            let heard = receiver.handle(from, &datagram[..len]);
            if let Some((_, bytes)) = heard.bytes {
                file.extend_from_slice(bytes);
            }
            if let Some(answer) = heard.answer {
                socket.send_to(&answer, from).unwrap();
            }
        }
        receiver.result().unwrap().map(|_| file)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at) as u8).collect()
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("undionly.kpxe"), content(300_000)).unwrap();
    fs::write(folder.path().join("sub/empty"), b"").unwrap();
    folder
}

fn options(blksize: u16, windowsize: u16) -> Options {
    Options { blksize: Some(blksize), windowsize: Some(windowsize), tsize: Some(0), timeout: None }
}

#[test]
fn files_come_whole_with_any_options() {
    let folder = folder();
    let server = Server::start(folder.path());
    for options in
        [Options::default(), options(8_192, 1), options(1_468, 16), options(512, 64), options(8, 3)]
    {
        let file = server.fetch("/undionly.kpxe", options).unwrap();
        assert!(file == content(300_000), "{} bytes with {options:?}", file.len());
        assert_eq!(server.fetch("sub\\empty", options).unwrap(), b"");
    }
}

#[test]
fn fleet_is_served_at_once() {
    let folder = folder();
    let server = Server::start(folder.path());
    std::thread::scope(|scope| {
        for number in 0..100_u16 {
            let server = &server;
            scope.spawn(move || {
                let file = server.fetch("undionly.kpxe", options(1_468, number % 8 + 1)).unwrap();
                assert!(file == content(300_000));
            });
        }
    });
}

#[test]
fn refusals_are_errors_of_the_protocol() {
    let folder = folder();
    let server = Server::start(folder.path());
    let code = |name: &str| match server.fetch(name, Options::default()) {
        Err(FetchError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code("nothing"), ErrorCode::NotFound);
    assert_eq!(code("sub"), ErrorCode::NotFound);
    assert_eq!(code("UNDIONLY.KPXE"), ErrorCode::NotFound);
    assert_eq!(code("../../../etc/passwd"), ErrorCode::AccessViolation);
}

#[test]
fn lost_packet_is_sent_again() {
    let folder = folder();
    let server = Server::start(folder.path());
    let socket = socket();
    let request = Receiver::new(b"undionly.kpxe", options(1_024, 1)).request();
    socket.send_to(&request, server.addr).unwrap();
    let mut datagram = [0; 2_048];
    let (len, from) = socket.recv_from(&mut datagram).unwrap();
    let agreed = datagram[..len].to_vec();
    assert!(matches!(Packet::decode(&agreed), Ok(Packet::Agree(_))));
    // As if it had not come.
    let (len, again) = socket.recv_from(&mut datagram).unwrap();
    assert_eq!((&datagram[..len], again), (&agreed[..], from));
}

#[test]
fn signals_end_it_at_once_even_in_the_middle_of_a_transfer() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = folder();
        let mut server = Server::start(folder.path());
        let socket = socket();
        let request = Receiver::new(b"undionly.kpxe", Options::default()).request();
        socket.send_to(&request, server.addr).unwrap();
        socket.recv_from(&mut [0; 2_048]).unwrap();
        let begin = Instant::now();
        kill_process(Pid::from_child(&server.child), signal).unwrap();
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
}

#[test]
fn taken_port_is_an_error_that_says_by_whom() {
    let folder = folder();
    let taken = socket();
    let addr = taken.local_addr().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_boottorrent"))
        .arg("tftp")
        .arg(folder.path())
        .args(["--listen", &addr.to_string()])
        .output()
        .unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    let error = String::from_utf8(output.stderr).unwrap();
    let expect = format!(
        "boottorrent: cannot serve TFTP on {addr}: UDP port {} of 127.0.0.1 is taken by ",
        addr.port()
    );
    assert!(error.starts_with(&expect), "{error}");
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
}

#[test]
fn missing_folder_is_an_error_that_names_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_boottorrent"))
        .args(["tftp", "/nonexistent/root", "--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("boottorrent: cannot read /nonexistent/root: "), "{error}");
}
