//! `image list` and `image show`.

use anyhow::Context as _;
use clap::Args;
use image::catalogue::{Catalogue, Entry};
use image::data::ImageData;
use image::edit;
use image::installations::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::OutputFormat;
use crate::client::Client;
use crate::progress::print;
use crate::quantity;
use crate::status::Table;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The image.
    name: String,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

pub(crate) fn list(args: &ListArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    let entries = catalogue.list()?;
    if let OutputFormat::Json = args.output {
        let images: Vec<Value> = entries.iter().map(|entry| as_json(entry, catalogue)).collect();
        print(&json!({"images": images}).to_string());
        return Ok(());
    }
    if entries.is_empty() {
        print("no images: `boottorrent image create` makes one");
        return Ok(());
    }
    let mut table = Table::new(["IMAGE", "STATUS", "KIND", "KERNEL", "VERSION", "CHANGED"]);
    for entry in &entries {
        let data = entry.data.as_ref();
        let of = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        table.push([
            entry.name.clone(),
            status(entry.status),
            match (data, entry.status) {
                (Some(data), _) => kind(data).to_owned(),
                (None, Status::Created) => "by hand".to_owned(),
                (None, _) => "-".to_owned(),
            },
            of(data.and_then(|data| data.kernel_version()).map(str::to_owned)),
            of(data.map(|data| data.version.to_string())),
            of(data.and_then(|data| data.creation_date.clone())),
        ]);
    }
    print(table.text().trim_end());
    Ok(())
}

/// What a server elsewhere offers, and which versions it has kept.
pub(super) fn list_by(client: &Client, args: &ListArgs) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Offered {
        images: Vec<Image>,
    }
    #[derive(Deserialize)]
    struct Image {
        name: String,
        title: String,
        len_bytes: u64,
        version: Option<u32>,
        kept_versions: Vec<Kept>,
        node_count: usize,
    }
    #[derive(Deserialize)]
    struct Kept {
        number: u32,
    }
    let answer: Value = client.get("/v1/images")?;
    if let OutputFormat::Json = args.output {
        print(&answer.to_string());
        return Ok(());
    }
    let offered: Offered = serde_json::from_value(answer).context("a server of another version")?;
    let mut table = Table::new(["IMAGE", "VERSION", "KEPT", "SIZE", "NODES", "TITLE"]);
    for image in offered.images {
        let kept: Vec<String> =
            image.kept_versions.iter().map(|kept| kept.number.to_string()).collect();
        table.push([
            image.name,
            image.version.map_or_else(|| "by hand".to_owned(), |version| version.to_string()),
            if kept.is_empty() { "-".to_owned() } else { kept.join(", ") },
            quantity::bytes(image.len_bytes),
            image.node_count.to_string(),
            image.title,
        ]);
    }
    print(table.text().trim_end());
    Ok(())
}

pub(crate) fn show(args: &ShowArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    let entries = catalogue.list()?;
    let entry = entries.iter().find(|entry| entry.name == args.name).with_context(|| {
        format!("no image `{}`: `boottorrent image list` shows those that are there", args.name)
    })?;
    if let OutputFormat::Json = args.output {
        print(&as_json(entry, catalogue).to_string());
        return Ok(());
    }
    print(&format!("{} [{}]", entry.name, status(entry.status)));
    if let Some(data) = &entry.data {
        // As in the file, which people know, without the hash that nobody needs to see.
        let text = shown(data).to_text().map_err(anyhow::Error::msg)?;
        print(text.trim_start_matches("image_data:\n").trim_end());
    }
    if !entry.versions.is_empty() {
        let kept: Vec<String> = entry.versions.iter().map(u32::to_string).collect();
        print(&format!("  kept versions: {}", kept.join(", ")));
    }
    if let Some(mounted) = edit::mounted(catalogue, &entry.name) {
        print(&format!("  mounted at {}", mounted.root.display()));
    }
    Ok(())
}

fn shown(data: &ImageData) -> ImageData {
    let password = data.password.as_ref().map(|_| "(set)".to_owned());
    ImageData { password, ..data.clone() }
}

fn kind(data: &ImageData) -> &str {
    image::kind::of_class(&data.image_class).map_or(&data.image_class, |kind| kind.name())
}

fn status(status: Status) -> String {
    match status {
        Status::Created => "CREATED".to_owned(),
        Status::InCreation { pid } => format!("IN_CREATION (process {pid})"),
        Status::Corrupted => "CORRUPTED".to_owned(),
    }
}

fn as_json(entry: &Entry, catalogue: &Catalogue) -> Value {
    let (status, pid) = match entry.status {
        Status::Created => ("CREATED", None),
        Status::InCreation { pid } => ("IN_CREATION", Some(pid)),
        Status::Corrupted => ("CORRUPTED", None),
    };
    json!({
        "name": entry.name,
        "status": status,
        "pid": pid,
        "attributes": entry.data.as_ref().map(shown),
        "kept_versions": entry.versions,
        "mounted": edit::mounted(catalogue, &entry.name).map(|mounted| mounted.root),
    })
}
