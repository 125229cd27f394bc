//! `boottorrent node log` and `node screen`: what a node that is in phase 1 shows to who has the lab's key.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use boot::LabKey;
use boot::help::{self, ANSWER_LEN_MAX, Challenge, LINE_LEN_MAX, PORT, What};
use clap::Args;
use serde_json::json;

use crate::cli::OutputFormat;
use crate::client::Client;
use crate::lab::key;
use crate::progress;

/// A node on the same network answers in milliseconds, unless it is being booted or has left phase 1.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// Its name, Ethernet address or, if no server runs, IPv4 address.
    #[arg(value_name = "NAME|MAC|ADDRESS")]
    node: String,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    _unasked: super::Unasked,
}

/// Shows it.
pub(super) fn run(args: &HelpArgs, lab: &Path, what: What) -> anyhow::Result<()> {
    let lab = std::path::absolute(lab).context("cannot find the current folder")?;
    let address = address(args, &lab)?;
    let key = key::load(&lab)?;
    let to = SocketAddr::from((address, PORT));
    let text = ask(to, what, &key).with_context(|| {
        format!(
            "{} ({to}) does not show its {}: it does while it is in phase 1",
            args.node,
            what.name()
        )
    })?;
    let lines: Vec<&str> = text.lines().collect();
    let event = json!({"node": args.node, "address": address, what.name(): lines});
    progress::tell(args.output, text.trim_end(), &event);
    Ok(())
}

fn address(args: &HelpArgs, lab: &Path) -> anyhow::Result<Ipv4Addr> {
    if let Ok(address) = args.node.parse() {
        return Ok(address);
    }
    let node = super::ask(&Client::of_lab(lab.to_owned()), &args.node)?;
    let said = node.summary.machine.as_ref().and_then(|machine| machine.address.as_deref());
    // As some agents say it, with the length of the prefix.
    let said = said.and_then(|address| address.split('/').next()?.parse().ok());
    said.or(node.summary.address).with_context(|| format!("no address of {} is known", args.node))
}

fn ask(to: SocketAddr, what: What, key: &LabKey) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.by_ref().take(LINE_LEN_MAX as u64).read_line(&mut line)?;
    let challenge: Challenge = line.parse()?;
    // At once: the end of a line that is written by itself waits until the node's kernel owns up to the rest.
    stream.write_all(format!("{}\n", help::request(what, &challenge, key)).as_bytes())?;
    let mut bytes = vec![];
    reader.take(ANSWER_LEN_MAX as u64).read_to_end(&mut bytes)?;
    ensure!(
        !bytes.is_empty(),
        "it refuses: it belongs to another lab, or the lab's key was replaced"
    );
    Ok(clean(&String::from_utf8_lossy(&bytes)))
}

/// Who answers may be anybody: nothing of it steers the terminal that it is shown on.
fn clean(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_is_asked_for_is_signed_for_the_node_that_asks() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let key = LabKey::from_seed([7; 32]);
        let public = key.public();
        let node = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let challenge = Challenge([3; 32]);
            writeln!(stream, "{challenge}").unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(help::open(&line, &challenge, &public), Ok(What::Screen));
            stream.write_all(b"one\x1b[2J\ntwo\n").unwrap();
        });
        assert_eq!(ask(to, What::Screen, &key).unwrap(), "one[2J\ntwo\n");
        node.join().unwrap();
    }
}
