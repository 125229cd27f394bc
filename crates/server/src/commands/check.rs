//! `boottorrent check`: everything that is wrong with a lab's files.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::OutputFormat;
use crate::lab;
use crate::lab::problem::Severity;
use crate::{progress, quantity};

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Prints all problems of the lab in `dir`; fails if one is an error.
pub(crate) fn run(args: &CheckArgs, dir: &Path) -> anyhow::Result<ExitCode> {
    let (configuration, problems) = lab::check(dir)?;
    let images: Vec<&str> = configuration.images.iter().map(|image| image.name.as_str()).collect();
    let [errors, warnings] =
        [Severity::Error, Severity::Warning].map(|severity| problems.count(severity));
    match args.output {
        OutputFormat::Json => {
            let list: Vec<_> = problems.iter().collect();
            let event =
                json!({"errors": errors, "warnings": warnings, "problems": list, "images": images});
            progress::print(&event.to_string());
        }
        OutputFormat::Text => {
            for problem in problems.iter() {
                progress::print(&problem.to_string());
            }
            let found = match (errors, warnings) {
                (0, 0) => "no problem".to_owned(),
                (0, _) => quantity::count(warnings, "warning"),
                (_, 0) => quantity::count(errors, "error"),
                _ => format!(
                    "{} and {}",
                    quantity::count(errors, "error"),
                    quantity::count(warnings, "warning")
                ),
            };
            progress::print(&format!("{}, {found}", quantity::count(images.len(), "image")));
        }
    }
    Ok(if errors > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
