//! Shows this node's log and screen to who has the lab's key ([`boot::help`]): one at a time, a thread of
//! its own, nothing of the boot waits for it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use boot::LabPublicKey;
use boot::help::{self, Challenge, LINE_LEN_MAX, PORT, What};

use crate::console::Console;
use crate::failed::chain;
use crate::log::Log;

/// How long somebody may take to say what he wants, or to take it: others wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);

/// Listens from now on. Without a port or a thread there is no help, and the boot goes on.
pub(crate) fn listen(key: LabPublicKey, log: Log, console: Console) {
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "no remote help");
            return;
        }
    };
    let serve = move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Out of descriptors, as it can be for a moment.
                std::thread::sleep(PATIENCE);
                continue;
            };
            if let Err(error) = answer(&stream, &key, &log, &console) {
                tracing::info!(error = %chain(&error), "remote help");
            }
        }
    };
    let _ = std::thread::Builder::new().name("help".to_owned()).spawn(serve);
}

fn answer(stream: &TcpStream, key: &LabPublicKey, log: &Log, console: &Console) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut random = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let challenge = Challenge(random);
    let mut out = stream;
    // At once: the end of a line that is written by itself waits until the other kernel owns up to the rest.
    out.write_all(format!("{challenge}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_LEN_MAX as u64)).read_line(&mut line)?;
    let text = match help::open(&line, &challenge, key) {
        Ok(What::Log) => log.lines().join("\n"),
        Ok(What::Screen) => console.text(),
        Err(error) => return Err(io::Error::other(error)),
    };
    out.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot::LabKey;

    /// What a node whose log is `secret` says to a request made with `key`.
    fn ask(key: &LabKey) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let node = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let log = Log::default();
            log.add("secret");
            let public = LabKey::from_seed([7; 32]).public();
            let _ = answer(&stream, &public, &log, &Console::new(vec![], log.clone()));
        });
        let mut stream = TcpStream::connect(address).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let request = help::request(What::Log, &line.parse().unwrap(), key);
        writeln!(stream, "{request}").unwrap();
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        node.join().unwrap();
        text
    }

    #[test]
    fn a_log_is_shown_to_who_has_the_key() {
        assert_eq!(ask(&LabKey::from_seed([7; 32])), "secret");
        assert_eq!(ask(&LabKey::from_seed([8; 32])), "");
    }
}
