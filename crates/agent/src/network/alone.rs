//! `boottorrent-agent network`: the network part alone, outside of a node, for tests against DHCP
//! servers and for a person who wonders why a node gets no address.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{Lease, Network, NetworkConfig};
use crate::log::{Log, Tracer};

/// How often a change of the lease is looked for.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

const USAGE: &str = "usage: boottorrent-agent network --interface NAME... [--prefer MAC] [--once] \
                     [--server ADDRESS] [--wait SECONDS] [--resolv-conf FILE]";

/// Brings an interface up and prints its lease as a line of JSON; without `--once` it goes on, keeps
/// the lease, and prints a line whenever it has become another one. The steps go to standard error.
pub(crate) fn run_alone(args: &[String]) -> anyhow::Result<()> {
    let (config, once) = parse(args)?;
    Tracer::install(Log::default(), Some(Box::new(|line| eprintln!("{line}"))));
    let network =
        Network::bring_up(&config, &mut |event| eprintln!("{event:?}")).map_err(|error| {
            anyhow::anyhow!("{} {:#}", error.failure().code(), anyhow::Error::from(error))
        })?;
    let interface = network.interface().name.clone();
    let mut lease = network.lease();
    println!("{}", describe(&interface, &lease));
    if once {
        return Ok(());
    }
    loop {
        std::thread::sleep(WATCH_INTERVAL);
        let now = network.lease();
        if now != lease {
            lease = now;
            println!("{}", describe(&interface, &lease));
        }
    }
}

fn parse(args: &[String]) -> anyhow::Result<(NetworkConfig, bool)> {
    // Name servers are a node's own business: here /etc/resolv.conf is somebody else's.
    let mut config = NetworkConfig { resolv_conf: None, ..NetworkConfig::default() };
    let mut once = false;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--once" => once = true,
            "--interface" => config.only.push(value()?.clone()),
            "--prefer" => config.preferred = Some(value()?.parse().context("--prefer")?),
            "--server" => config.boot_server = Some(value()?.parse().context("--server")?),
            "--resolv-conf" => config.resolv_conf = Some(value()?.into()),
            "--wait" => {
                let wait = Duration::from_secs(value()?.parse().context("--wait")?);
                config.interface_wait = wait;
                config.carrier_wait = wait;
                config.lease_wait = wait;
            }
            _ => bail!("{arg} is not known\n{USAGE}"),
        }
    }
    if config.only.is_empty() {
        bail!("which interface?\n{USAGE}");
    }
    Ok((config, once))
}

fn describe(interface: &str, lease: &Lease) -> Value {
    json!({
        "interface": interface,
        "address": lease.address.to_string(),
        "prefix_len": lease.prefix_len,
        "routers": lease.routers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "dns": lease.dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "domain": lease.domain,
        "hostname": lease.hostname,
        "mtu": lease.mtu,
        "server": lease.server.to_string(),
        "lease_time_s": lease.lease_time.map(|time| time.as_secs()),
        "next_server": lease.next_server.map(|server| server.to_string()),
        "boot_file": lease.boot_file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> anyhow::Result<(NetworkConfig, bool)> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn an_interface_has_to_be_named() {
        assert!(check("--once").is_err());
        assert!(check("--interface").is_err());
        assert!(check("--interface eth0 --frobnicate").is_err());
        let (config, once) = check("--interface eth0 --once --wait 3").unwrap();
        assert_eq!((&config.only[..], once), (&["eth0".to_owned()][..], true));
        assert_eq!((config.lease_wait.as_secs(), config.resolv_conf), (3, None));
    }
}
