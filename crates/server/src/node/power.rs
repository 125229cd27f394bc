//! `boottorrent node power`: switches nodes on and off by a command that the lab names (`power.hook`),
//! since every service processor wants to be asked in a way of its own. What it is given, and what it is
//! to answer, is in docs/power.md.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Stdio;

use boot::Mac;
use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use utoipa::ToSchema;

use super::{macs, perform};
use crate::cli::OutputFormat;
use crate::client::{ClientError, Target};
use crate::fleet::printable;
use crate::http::DoneView;
use crate::lab::Lab;
use crate::lab::settings::{NodeSettings, PowerSettings, Settings};
use crate::progress::print;
use crate::services::deeds::Done;
use crate::status::Table;

/// Hooks that run at once: one waits for a service processor most of its time, and a room of 1,000 whose
/// processors do not answer is done after 32 time limits.
const AT_ONCE_MAX: usize = 32;

/// The most bytes that are kept of what a hook says; the rest is read and thrown away.
const OUTPUT_LEN_MAX: usize = 16 << 10;

/// The most lines of it that go into the log.
const LOG_LINES_MAX: usize = 20;

/// Characters kept of a line.
const LINE_LEN_MAX: usize = 240;

/// What the hook finds in its environment of what is in this program's.
const KEPT: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

#[derive(Debug, Args)]
pub(crate) struct PowerArgs {
    /// What to do; `status` asks whether they are on.
    action: Action,
    /// Nodes of nodes.yaml, such as c001 or c[001-100,105],login1.
    nodes: String,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    _unasked: super::Unasked,
}

/// What is done with a node's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    On,
    Off,
    /// Off, and on again.
    Cycle,
    /// Says whether it is on.
    Status,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Cycle => "cycle",
            Self::Status => "status",
        })
    }
}

/// What came of a hook: the first line that it wrote, or why it failed.
pub(crate) type Outcome = Result<String, String>;

/// Why no hook was run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PowerError {
    #[error(
        "this lab does not say how to switch nodes on and off: write `power: {{hook: PROGRAM}}` into \
         Boottorrent.yaml (docs/power.md has programs for IPMI and Redfish)"
    )]
    NoHook,
}

/// Has it done by the running server, or here if none runs.
pub(super) fn power(args: &PowerArgs, target: &Target) -> anyhow::Result<()> {
    let body = json!({ "action": args.action });
    let done = match (perform(&target.client(), &args.nodes, "power", Some(&body)), target) {
        (Err(ClientError::NotRunning { .. }), Target::Lab(dir)) => run_here(args, dir)?,
        (done, _) => done?,
    };
    show(args, &done);
    let (failed, count) = (done.refused.len(), done.refused.len() + done.told.len());
    anyhow::ensure!(failed == 0, "{failed} of {count} nodes failed");
    Ok(())
}

fn run_here(args: &PowerArgs, dir: &Path) -> anyhow::Result<DoneView> {
    let (settings, nodes) = (Lab::open(dir)?.settings, macs(&args.nodes, dir)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = runtime.block_on(run(&settings, &nodes, args.action))?;
    Ok(DoneView::of(Done::of_power(told, args.action), |mac| {
        settings.nodes.iter().find(|node| node.mac == mac).map(|node| node.name.clone())
    }))
}

fn show(args: &PowerArgs, done: &DoneView) {
    match args.output {
        OutputFormat::Json => print(&json!(done).to_string()),
        OutputFormat::Text => {
            let mut table = Table::new(["NODE", "ANSWER"]);
            for told in &done.told {
                let text = if told.text.is_empty() { "done" } else { &told.text };
                table.push([told.label().to_owned(), text.to_owned()]);
            }
            for refused in &done.refused {
                table.push([refused.label().to_owned(), format!("failed: {}", refused.reason)]);
            }
            print(table.text().trim_end());
        }
    }
}

/// Runs the lab's hook once for each node, several at a time.
///
/// # Errors
/// If the lab has none.
pub(crate) async fn run(
    settings: &Settings,
    nodes: &[Mac],
    action: Action,
) -> Result<Vec<(Mac, Outcome)>, PowerError> {
    let power = settings.power.as_ref().ok_or(PowerError::NoHook)?;
    let known: BTreeMap<Mac, &NodeSettings> =
        settings.nodes.iter().map(|node| (node.mac, node)).collect();
    let one = |mac: Mac| {
        let node = known.get(&mac).copied();
        async move {
            let told = match node {
                Some(node) => hook(power, settings, node, action).await,
                // It would have to do with a machine of which nobody said anything.
                None => Err("nodes.yaml does not name it: accept it first".to_owned()),
            };
            (mac, told)
        }
    };
    Ok(futures_util::stream::iter(nodes.iter().copied().map(one))
        .buffered(AT_ONCE_MAX)
        .collect()
        .await)
}

async fn hook(
    power: &PowerSettings,
    settings: &Settings,
    node: &NodeSettings,
    action: Action,
) -> Outcome {
    let mut child = command(power, settings, node, action)
        .spawn()
        .map_err(|error| format!("cannot run {}: {error}", power.program))?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let finished = tokio::time::timeout(power.timeout, finish(&mut child)).await;
    if let (Err(_), Some(group)) = (&finished, group) {
        // With all that it has started.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let (status, out, err) = match finished {
        Ok(Ok(finished)) => finished,
        Ok(Err(error)) => return Err(format!("cannot wait for {}: {error}", power.program)),
        Err(_) => {
            let _ = child.wait().await;
            let text = format!("no end within {} s: it was killed", power.timeout.as_secs());
            tracing::warn!(target: "POWER", "{} {action}: {text}", node.name);
            return Err(text);
        }
    };
    for line in out.iter().chain(&err).take(LOG_LINES_MAX) {
        tracing::info!(target: "POWER", "{} {action}: {line}", node.name);
    }
    if status.success() {
        tracing::info!(target: "POWER", "{} {action} is done", node.name);
        return Ok(out.into_iter().next().unwrap_or_default());
    }
    tracing::warn!(target: "POWER", "{} {action} failed: {status}", node.name);
    let last = err.last().or(out.last()).map(|line| format!(": {line}")).unwrap_or_default();
    Err(format!("{status}{last}"))
}

/// `PROGRAM ARGUMENT… NAME MAC ACTION`, without a shell, so that nothing in a name means anything.
fn command(
    power: &PowerSettings,
    settings: &Settings,
    node: &NodeSettings,
    action: Action,
) -> Command {
    // As `./x` a program is the lab's; without a slash it is looked for as a shell does.
    let program = match power.program.contains('/') {
        true => settings.dir.join(&power.program).into_os_string(),
        false => power.program.clone().into(),
    };
    let mut command = Command::new(program);
    command.args(&power.arguments).arg(&node.name).arg(node.mac.to_string());
    command.arg(action.to_string()).current_dir(&settings.dir).env_clear();
    command.envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
        .env("BOOTTORRENT_NODE", &node.name)
        .env("BOOTTORRENT_MAC", node.mac.to_string())
        .env("BOOTTORRENT_ACTION", action.to_string())
        .env("BOOTTORRENT_LAB", &settings.dir);
    if let Some(address) = node.address {
        command.env("BOOTTORRENT_ADDRESS", address.to_string());
    }
    for (name, value) in &node.vars {
        command.env(format!("BOOTTORRENT_VAR_{}", name.to_ascii_uppercase()), value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command
}

type Finished = (std::process::ExitStatus, Vec<String>, Vec<String>);

/// Waits for its end, and reads what it writes until then.
async fn finish(child: &mut Child) -> std::io::Result<Finished> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (status, out, err) = tokio::join!(child.wait(), lines(out), lines(err));
    Ok((status?, out, err))
}

async fn lines(from: Option<impl AsyncRead + Unpin>) -> Vec<String> {
    let mut kept = vec![];
    if let Some(mut from) = from {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            let room = OUTPUT_LEN_MAX - kept.len();
            kept.extend_from_slice(&buffer[..len.min(room)]);
        }
    }
    let text = String::from_utf8_lossy(&kept);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| printable(line, LINE_LEN_MAX)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);

    /// What the hook `script` makes of an action.
    async fn told(script: &str, action: Action, timeout: Duration) -> Outcome {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hook");
        fs::write(&path, script).unwrap();
        let mut settings = Settings::for_tests(dir.path());
        let vars = [("bmc".to_owned(), "10.9.0.1".to_owned())].into();
        settings.nodes = vec![NodeSettings { vars, ..NodeSettings::for_tests("c001", NODE) }];
        let arguments = vec![path.display().to_string(), "$(id) ; x".to_owned()];
        settings.power = Some(PowerSettings { program: "sh".to_owned(), arguments, timeout });
        let mut told = run(&settings, &[NODE], action).await.unwrap();
        assert_eq!(told.len(), 1);
        told.remove(0).1
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_hook_is_told_what_to_do_with_whom() {
        let script = r#"echo "$#|$1|$2|$3|$4|$BOOTTORRENT_NODE|$BOOTTORRENT_MAC|$BOOTTORRENT_ACTION|$BOOTTORRENT_VAR_BMC""#;
        let mac = "02:00:00:00:00:01";
        let expect = format!("4|$(id) ; x|c001|{mac}|cycle|c001|{mac}|cycle|10.9.0.1");
        assert_eq!(told(script, Action::Cycle, LONG).await, Ok(expect));
        // Nothing of this process but what it needs.
        let left = told("env | grep -c CARGO", Action::Status, LONG).await.unwrap_err();
        assert!(left.ends_with(": 0"), "{left}");
    }

    #[tokio::test]
    async fn a_hook_that_fails_says_why() {
        let told = async |script| told(script, Action::On, LONG).await;
        let error = told("echo half; echo 'no \u{1b}[2J route' >&2; exit 3").await.unwrap_err();
        assert_eq!(error, "exit status: 3: no  [2J route");
        assert_eq!(told("exit 1").await, Err("exit status: 1".to_owned()));
        assert_eq!(told("exit 0").await, Ok(String::new()));
        // What it writes is read to the end, however much it is.
        assert_eq!(
            told("head -c 1000000 /dev/zero | tr '\\0' x").await.unwrap().len(),
            LINE_LEN_MAX
        );
    }

    #[tokio::test]
    async fn a_hook_that_does_not_end_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        let error = told(&script, Action::Off, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error, "no end within 1 s: it was killed");
        let pid = fs::read_to_string(pid).unwrap();
        let stat = || fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        // Gone, or a zombie that nobody waits for.
        while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_program_for_ipmi_that_is_documented_works() {
        let docs = include_str!("../../../../docs/power.md");
        let script = docs.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
        // Says what it was called with, as the tool does what it did.
        let tool = r#"ipmitool() { case ${11} in status) echo "Chassis Power is off";; *) echo "$*";; esac; }"#;
        // `told` has an argument of its own before the three.
        let script = script.replace("set -eu\n", &format!("set -eu\nshift\n{tool}\n"));
        let expect = "-I lanplus -H c001-bmc -U operator -f keys/ipmi chassis power cycle";
        assert_eq!(told(&script, Action::Cycle, LONG).await.unwrap(), expect);
        assert_eq!(told(&script, Action::Status, LONG).await, Ok("off".to_owned()));
    }

    #[tokio::test]
    async fn without_a_hook_it_is_said_how_to_have_one() {
        let settings = Settings::for_tests(Path::new("/lab"));
        let error = run(&settings, &[NODE], Action::On).await.unwrap_err();
        assert!(error.to_string().contains("docs/power.md"), "{error}");
        let power = PowerSettings { program: "./no".to_owned(), arguments: vec![], timeout: LONG };
        let mut settings = Settings { power: Some(power), ..settings };
        let told = run(&settings, &[NODE], Action::On).await.unwrap();
        assert!(told[0].1.as_ref().unwrap_err().contains("accept it first"), "{told:?}");
        settings.nodes = vec![NodeSettings::for_tests("c001", NODE)];
        let told = run(&settings, &[NODE], Action::On).await.unwrap();
        assert!(told[0].1.as_ref().unwrap_err().contains("cannot run ./no"), "{told:?}");
    }
}
