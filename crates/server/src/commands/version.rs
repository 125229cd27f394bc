//! `boottorrent version`.

use clap::Args;
use serde_json::json;

use crate::cli::OutputFormat;
use crate::progress;

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// Prints the version, and those of the formats that are read and written.
pub(crate) fn run(args: &VersionArgs) {
    let version = env!("CARGO_PKG_VERSION");
    let line = match args.output {
        OutputFormat::Text => format!("BootTorrent {version}"),
        OutputFormat::Json => {
            json!({"version": version, "configuration": [0, 1], "manifest": boot::manifest::VERSION})
                .to_string()
        }
    };
    progress::print(&line);
}
