//! The hidden way to run the agent outside PID 1, for tests: the same steps against a folder in
//! place of the initramfs, without mounts, drivers and DHCP.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::node::{Options, Then};

/// What a person reads who runs it by hand.
pub(crate) const USAGE: &str = "\
boottorrent-agent is the first process (/init) of BootTorrent's phase 1; a node's boot program
starts it. Elsewhere it boots nothing. For tests:

  boottorrent-agent run --root DIR --server URL --no-init --interface none --then print|save=DIR
      [--mac MAC] [--image NAME] [--keyboard] [--debug]
      [--retry-ms N] [--attempts N] [--available-memory BYTES]";

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// To run outside PID 1, and whether keys are read from standard input.
    Run(Box<Options>, bool),
    /// To go on under a system that was booted.
    Booted,
    /// The network part alone, with these arguments.
    Network(Vec<String>),
    /// The version.
    Version,
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// If they are not as in [`USAGE`]: a sentence.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let mut args = args.map(|arg| arg.into_string().map_err(|_| "not UTF-8".to_owned()));
    let mut next = || args.next().transpose();
    match next()?.as_deref() {
        Some("--version") => return Ok(Asked::Version),
        Some(crate::booted::WORD) => return Ok(Asked::Booted),
        Some("network") => {
            let mut rest = vec![];
            while let Some(arg) = next()? {
                rest.push(arg);
            }
            return Ok(Asked::Network(rest));
        }
        Some("run") => {}
        _ => return Err("this is not PID 1".to_owned()),
    }
    let mut options = Options::of_node();
    let mut keyboard = false;
    while let Some(name) = next()? {
        let mut value = || next()?.ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--root" => options.root = PathBuf::from(value()?),
            "--server" => options.server = Some(parsed(&name, &value()?)?),
            "--mac" => options.mac = Some(parsed(&name, &value()?)?),
            "--image" => options.image = Some(parsed(&name, &value()?)?),
            "--no-init" => options.is_init = false,
            "--interface" if value()? == "none" => options.network = false,
            "--then" => options.then = then(&value()?)?,
            "--retry-ms" => options.retry = Duration::from_millis(parsed(&name, &value()?)?),
            "--attempts" => options.attempts = Some(parsed(&name, &value()?)?),
            "--available-memory" => options.memory = Some(parsed(&name, &value()?)?),
            "--keyboard" => keyboard = true,
            "--debug" => options.debug = true,
            _ => return Err(format!("{name} is not known")),
        }
    }
    // Nothing of the machine that this runs on is touched by mistake.
    if options.is_init || options.network || options.then == Then::Load {
        return Err("outside PID 1 --no-init, --interface none and --then are needed".to_owned());
    }
    Ok(Asked::Run(Box::new(options), keyboard))
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    value: &str,
) -> Result<T, String> {
    value.parse().map_err(|error| format!("{name}: {error}"))
}

fn then(value: &str) -> Result<Then, String> {
    match (value, value.strip_prefix("save=")) {
        ("print", _) => Ok(Then::Print),
        (_, Some(folder)) => Ok(Then::Save(PathBuf::from(folder))),
        _ => Err(format!("--then: `{value}` is not print or save=DIR")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Asked, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_run_outside_pid_1_touches_nothing() {
        let good = "run --root /r --no-init --interface none --then print --retry-ms 50";
        let Ok(Asked::Run(options, false)) = read(good) else { panic!("{good}") };
        assert_eq!((options.is_init, options.network), (false, false));
        assert_eq!(options.retry, Duration::from_millis(50));
        for bad in [
            "",
            "boot",
            "run",
            "run --no-init --interface eth0",
            "run --no-init",
            "run --interface none",
            "run --no-init --interface none --then load",
            "run --no-init --interface none --mac me",
            "run --root",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
