//! `boottorrent doctor`: whether this machine and its network can serve the lab, and what to do about
//! what is in the way. Nothing is changed; to see whether ports are free it takes them for a moment.

mod dhcp;
mod machine;
mod nodes;
mod ports;
mod resources;

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::cli::OutputFormat;
use crate::lab::{Lab, OpenError};
use crate::services::lock::{Holder, Lock};
use crate::{progress, quantity};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    /// To be known; it works.
    Warning,
    /// The lab cannot be served like this.
    Bad,
    /// It could not be seen.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    topic: &'static str,
    state: State,
    /// What was found, and what to do about it.
    text: String,
}

impl Finding {
    fn new(topic: &'static str, state: State, text: impl Into<String>) -> Self {
        Self { topic, state, text: text.into() }
    }

    fn good(topic: &'static str, text: impl Into<String>) -> Self {
        Self::new(topic, State::Good, text)
    }

    fn bad(topic: &'static str, text: impl Into<String>) -> Self {
        Self::new(topic, State::Bad, text)
    }
}

/// Looks at everything; fails if something is bad.
pub(crate) fn run(args: &DoctorArgs, dir: &Path) -> anyhow::Result<ExitCode> {
    let mut findings = vec![];
    let lab = open(dir, &mut findings);
    let settings = lab.as_ref().map(|lab| &lab.settings);
    findings.extend(machine::findings(settings));
    if let Some(settings) = settings {
        findings.extend(machine::firewall(settings));
        findings.extend(resources::findings(settings));
        match Lock::holder(dir) {
            Ok(Holder::Somebody(pid)) => {
                let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                let text = format!("the lab's server runs{pid}: `boottorrent status` asks it");
                findings.push(Finding::new("ports", State::Unknown, text));
                findings.extend(nodes::findings(dir));
            }
            _ => {
                let before = findings.len();
                findings.extend(ports::findings(settings));
                let can_bind =
                    findings[before..].iter().all(|finding| finding.state == State::Good);
                findings.push(match can_bind {
                    true => dhcp::finding(settings),
                    false => {
                        let text = "other servers cannot be looked for until the ports can be had";
                        Finding::new("network", State::Unknown, text)
                    }
                });
            }
        }
    }
    say(args.output, &findings);
    let is_bad = findings.iter().any(|finding| finding.state == State::Bad);
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn open(dir: &Path, findings: &mut Vec<Finding>) -> Option<Lab> {
    match Lab::open(dir) {
        Ok(lab) => {
            let count = quantity::count(lab.images.len(), "image");
            findings
                .push(Finding::good("lab", format!("{count} in {}", lab.settings.dir.display())));
            let warnings = lab.warnings.iter();
            findings.extend(
                warnings.map(|problem| Finding::new("lab", State::Warning, problem.to_string())),
            );
            Some(lab)
        }
        Err(OpenError::Problems(problems)) => {
            let list = problems.iter().map(|problem| Finding::bad("lab", problem.to_string()));
            findings.extend(list);
            None
        }
        Err(error) => {
            findings.push(Finding::bad("lab", format!("{:#}", anyhow::Error::from(error))));
            None
        }
    }
}

fn say(format: OutputFormat, findings: &[Finding]) {
    if format == OutputFormat::Json {
        progress::print(&json!({"findings": findings}).to_string());
        return;
    }
    for Finding { topic, state, text } in findings {
        let mark = match state {
            State::Good => "ok     ",
            State::Warning => "warning",
            State::Bad => "BAD    ",
            State::Unknown => "unknown",
        };
        progress::print(&format!("{mark}  {topic}: {text}"));
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    progress::print(&match (count(State::Bad), count(State::Warning)) {
        (0, 0) => "nothing is in the way".to_owned(),
        (0, warnings) => format!("nothing is in the way, {}", quantity::count(warnings, "warning")),
        (bad, _) => format!("{} in the way", quantity::count(bad, "thing")),
    });
}
