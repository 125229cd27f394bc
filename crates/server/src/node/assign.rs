//! `boottorrent node assign` and `unassign`: what nodes boot, written into nodes.yaml and in force at
//! once if the server runs.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use boot::{ImageName, nodeset};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{perform, tell};
use crate::cli::OutputFormat;
use crate::client::{Client, ClientError, Target};
use crate::dhcp;
use crate::lab::Lab;
use crate::lab::config::NODES_FILE;
use crate::lab::edit::{Change, difference, edit};
use crate::lab::nodes_file::NodesFile;
use crate::lab::settings::{NodeSettings, Settings};
use crate::progress::print;
use crate::stop::RELOAD;

/// For a network that takes its time (dracut.cmdline(7)).
const DHCP_WORDS: &str =
    "ip=dhcp rd.net.timeout.carrier=30 rd.net.timeout.ifup=60 rd.net.dhcp.retry=4";

#[derive(Debug, Args)]
pub(crate) struct AssignArgs {
    /// Nodes of nodes.yaml, such as c001 or c[001-100,105],login1.
    nodes: String,
    /// A folder of oss/.
    #[arg(required_unless_present = "disk", conflicts_with = "disk")]
    image: Option<ImageName>,
    /// Leave them to their own disks instead.
    #[arg(long)]
    disk: bool,
    /// Boot it by the `boot.ipxe` in its folder, with the initramfs of its distribution: from the server
    /// alone, and nothing verifies what is loaded.
    #[arg(long, conflicts_with_all = ["disk", "next_boot_only"])]
    classic: bool,
    /// For their next boot alone, and not in nodes.yaml: the running server keeps it.
    #[arg(long)]
    next_boot_only: bool,
    /// Words for the command line, in place of those that nodes.yaml has for these nodes.
    #[arg(long, value_name = "WORDS", conflicts_with = "next_boot_only")]
    cmdline: Option<String>,
    /// Add to the command line how the image's initramfs gets on the network: by DHCP, or with each
    /// node's own `address`.
    #[arg(long, value_enum, conflicts_with = "next_boot_only")]
    network: Option<NetworkWords>,
    /// The gateway for `--network static`; by default `dhcp.router`.
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// The netmask for `--network static`; by default that of this server's own network.
    #[arg(long, value_name = "ADDRESS")]
    netmask: Option<Ipv4Addr>,
    /// The interface for `--network static`, as the image's kernel names it; by default the first.
    #[arg(long, value_name = "NAME", default_value = "")]
    nic: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct UnassignArgs {
    /// Nodes of nodes.yaml, such as c001 or c[001-100,105],login1.
    nodes: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkWords {
    Dhcp,
    Static,
}

/// Assigns.
pub(super) fn assign(args: &AssignArgs, target: &Target) -> anyhow::Result<()> {
    let dir = match target {
        Target::Lab(dir) => dir.as_path(),
        Target::Server(client) => return assign_by(client, args),
    };
    let lab = Lab::open(dir)?;
    let nodes = find(&args.nodes, &lab.settings)?;
    if let Some(image) = &args.image
        && !lab.images.iter().any(|known| known.name == *image)
    {
        let known: Vec<&str> = lab.images.iter().map(|image| image.name.as_str()).collect();
        bail!("there is no image `{image}`: oss/ has {}", known.join(", "));
    }
    if let Some(image) = args.image.as_ref().filter(|_| args.classic) {
        let script = lab.settings.images_dir().join(image.as_str()).join("boot.ipxe");
        ensure!(
            script.is_file(),
            "`{image}` cannot be booted the classic way: there is no {}",
            script.display()
        );
    }
    if args.next_boot_only {
        return next_boot(args, &nodes, dir);
    }
    let file = NodesFile::open(dir)?;
    let mut after = file.text().to_owned();
    for node in &nodes {
        let image = args.image.as_ref().map(ImageName::as_str);
        let cmdline = cmdline(args, node, &lab.settings)?;
        let mut changes: Vec<Change<'_>> = match image {
            Some(image) => {
                vec![("image", Some(image)), ("boot", args.classic.then_some("classic"))]
            }
            None => vec![("boot", Some("disk"))],
        };
        if let Some(cmdline) = &cmdline {
            changes.push(("cmdline", (!cmdline.is_empty()).then_some(cmdline.as_str())));
        }
        after = edit(&after, &node.name, &changes)?;
    }
    let what = match &args.image {
        Some(image) => image.to_string(),
        None => "their disks".to_owned(),
    };
    write(dir, file, &after, &nodes, &format!("boot {what}"), &args.how)
}

/// Has a server elsewhere assign.
fn assign_by(client: &Client, args: &AssignArgs) -> anyhow::Result<()> {
    ensure!(
        !args.classic && args.network.is_none(),
        "--classic and --network are for who is at the lab's folder: leave --server away"
    );
    let boots = args.image.as_ref().map_or("their disks", ImageName::as_str);
    if !args.next_boot_only {
        agree(&args.how, &format!("of the server so that {} boot {boots}", args.nodes))?;
    }
    let body = json!({
        "image": args.image,
        "disk": args.disk,
        "next_boot_only": args.next_boot_only,
        "cmdline": args.cmdline,
    });
    tell(&perform(client, &args.nodes, "assign", Some(&body))?, args.how.output);
    Ok(())
}

/// Takes an assignment back: nodes get their group's image, or the menu.
pub(super) fn unassign(args: &UnassignArgs, target: &Target) -> anyhow::Result<()> {
    let dir = match target {
        Target::Lab(dir) => dir.as_path(),
        Target::Server(client) => {
            agree(
                &args.how,
                &format!("of the server so that {} have nothing assigned", args.nodes),
            )?;
            tell(&perform(client, &args.nodes, "unassign", None)?, args.how.output);
            return Ok(());
        }
    };
    let lab = Lab::open(dir)?;
    let nodes = find(&args.nodes, &lab.settings)?;
    let file = NodesFile::open(dir)?;
    let mut after = file.text().to_owned();
    for node in &nodes {
        after = edit(&after, &node.name, &[("image", None), ("boot", None), ("cmdline", None)])?;
    }
    write(dir, file, &after, &nodes, "have nothing assigned", &args.how)
}

/// The nodes of a set; those that the lab does not know are named, all of them.
pub(super) fn find<'a>(set: &str, settings: &'a Settings) -> anyhow::Result<Vec<&'a NodeSettings>> {
    let names = nodeset::expand(set).with_context(|| format!("`{set}` is no set of nodes"))?;
    let known: std::collections::BTreeMap<&str, &NodeSettings> =
        settings.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
    let unknown: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !known.contains_key(name)).collect();
    ensure!(
        unknown.is_empty(),
        "{NODES_FILE} does not name {}: write each there with its `mac`",
        nodeset::fold(unknown)
    );
    Ok(names.iter().filter_map(|name| known.get(name.as_str()).copied()).collect())
}

/// What the node's command line becomes; none if it stays.
fn cmdline(
    args: &AssignArgs,
    node: &NodeSettings,
    settings: &Settings,
) -> anyhow::Result<Option<String>> {
    let network = match args.network {
        None => return Ok(args.cmdline.clone()),
        Some(NetworkWords::Dhcp) => DHCP_WORDS.to_owned(),
        Some(NetworkWords::Static) => {
            let address = node.address.with_context(|| {
                format!(
                    "{} has no `address` in {NODES_FILE}, which --network static needs",
                    node.name
                )
            })?;
            let gateway = args.gateway.or(settings.dhcp.router);
            let gateway = gateway.map_or_else(String::new, |gateway| gateway.to_string());
            let netmask = match args.netmask {
                Some(netmask) => netmask,
                None => dhcp::netmask(&settings.interface, settings.address)
                    .context("name the nodes' netmask with --netmask")?,
            };
            // ip=CLIENT:PEER:GATEWAY:NETMASK:HOSTNAME:INTERFACE:AUTOCONF (dracut.cmdline(7)).
            format!("ip={address}::{gateway}:{netmask}:{}:{}:none", node.name, args.nic)
        }
    };
    let words = [network.as_str(), args.cmdline.as_deref().unwrap_or_default()];
    Ok(Some(words.join(" ").trim().to_owned()))
}

fn next_boot(args: &AssignArgs, nodes: &[&NodeSettings], dir: &Path) -> anyhow::Result<()> {
    let body = json!({"image": args.image, "disk": args.disk, "next_boot_only": true});
    let client = Client::of_lab(dir.to_owned());
    perform(&client, &args.nodes, "assign", Some(&body))?;
    say(&args.how, nodes, "take it for their next boot alone", None);
    Ok(())
}

/// Shows the change, asks, writes it in one step, and has the server read it.
fn write(
    dir: &Path,
    file: NodesFile,
    after: &str,
    nodes: &[&NodeSettings],
    what: &str,
    how: &How,
) -> anyhow::Result<()> {
    let before = file.text();
    if before == after {
        say(how, nodes, "are so already", None);
        return Ok(());
    }
    if how.output == OutputFormat::Text {
        print(difference(before, after).trim_end());
    }
    agree(how, "so")?;
    file.replace(after)?;
    say(how, nodes, what, reload(dir)?);
    Ok(())
}

/// Has the server read what was written, if one runs: after how many seconds it was in force.
pub(super) fn reload(dir: &Path) -> anyhow::Result<Option<f64>> {
    let begin = Instant::now();
    match Client::of_lab(dir.to_owned()).post::<Value>(RELOAD, None) {
        Ok(_) => Ok(Some(begin.elapsed().as_secs_f64())),
        Err(ClientError::NotRunning { .. } | ClientError::Starting { .. }) => Ok(None),
        Err(error) => Err(error).context("it is written, but the server has not read it"),
    }
}

/// Asks whether nodes.yaml is to be changed, unless that was said.
fn agree(how: &How, change: &str) -> anyhow::Result<()> {
    if how.yes {
        return Ok(());
    }
    ensure!(io::stdin().is_terminal(), "this would change {NODES_FILE}: say so with --yes");
    let mut out = io::stdout();
    write!(out, "Change {NODES_FILE} {change}? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let is_yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    ensure!(is_yes, "nothing was changed");
    Ok(())
}

/// `in_force_s` is how long the running server took to publish it.
fn say(how: &How, nodes: &[&NodeSettings], what: &str, in_force_s: Option<f64>) {
    let set = nodeset::fold(nodes.iter().map(|node| node.name.as_str()));
    match how.output {
        OutputFormat::Json => {
            let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            let value = json!({"nodes": names, "set": set, "what": what, "in_force_s": in_force_s});
            print(&value.to_string());
        }
        OutputFormat::Text => {
            let after = in_force_s.map(|s| format!("; in force after {s:.2} s"));
            print(&format!("{set} {what}{}", after.unwrap_or_default()));
        }
    }
}

#[cfg(test)]
mod tests {
    use boot::Mac;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: AssignArgs,
    }

    /// The command line of a node with the address 127.0.3.4, on a machine that is 127.0.0.1.
    fn words(flags: &[&str]) -> anyhow::Result<Option<String>> {
        let mut settings = Settings::for_tests(Path::new("/lab"));
        settings.dhcp.router = Some(Ipv4Addr::new(127, 0, 0, 9));
        if flags.contains(&"elsewhere") {
            settings.interface = "no-such0".to_owned();
        }
        let mut node = NodeSettings::for_tests("n01", Mac([2, 0, 0, 0, 0, 1]));
        node.address = Some(Ipv4Addr::new(127, 0, 3, 4));
        let flags = flags.iter().filter(|flag| **flag != "elsewhere");
        let args = ["assign", "n01", "debian"].iter().chain(flags);
        cmdline(&Cli::try_parse_from(args).unwrap().args, &node, &settings)
    }

    #[track_caller]
    fn check(flags: &[&str], expect: &str) {
        assert_eq!(words(flags).unwrap().as_deref(), Some(expect), "{flags:?}");
    }

    #[test]
    fn the_network_of_a_node_is_that_of_the_lab_unless_another_is_said() {
        let of_lab = "ip=127.0.3.4::127.0.0.9:255.0.0.0:n01::none";
        check(&["--network", "static"], of_lab);
        check(&["--network", "static", "--cmdline", "quiet"], &format!("{of_lab} quiet"));
        let said = ["--netmask", "255.255.0.0", "--gateway", "127.0.3.1", "--nic", "ens2"];
        let expect = "ip=127.0.3.4::127.0.3.1:255.255.0.0:n01:ens2:none";
        check(&[&["--network", "static"], &said[..]].concat(), expect);
        check(
            &["--network", "static", "elsewhere", "--netmask", "255.255.0.0"],
            "ip=127.0.3.4::127.0.0.9:255.255.0.0:n01::none",
        );
        let error = words(&["--network", "static", "elsewhere"]).unwrap_err();
        assert!(
            format!("{error:#}").contains("with --netmask: there is no interface no-such0"),
            "{error:#}"
        );
        assert_eq!(words(&[]).unwrap(), None);
    }
}
