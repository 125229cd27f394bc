//! `image create`: flags, a file of parameters, or questions on a terminal.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use image::build;
use image::catalogue::Catalogue;
use image::command::CommandError;
use image::data::{ImageData, LivenetType};
use image::error::ImageError;
use image::kind::{self, Kind, demo, nfs};
use image::size::ImageSize;
use image::tree::source::Source;
use image::tree::{MIRROR, password};
use serde_json::json;

use super::questions::{Questions, recap};
use super::{Task, exports, with_work};
use crate::cli::OutputFormat;
use crate::lab;
use crate::progress;

/// How much a live image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Type {
    /// What the distribution installs on a server.
    Standard,
    /// A package manager, the network and OpenSSH.
    Small,
    /// OpenSSH alone.
    Core,
}

impl From<Type> for LivenetType {
    fn from(it: Type) -> Self {
        match it {
            Type::Standard => Self::Standard,
            Type::Small => Self::Small,
            Type::Core => Self::Core,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name: letters, digits and - _ . +
    pub(super) name: Option<String>,
    /// What kind of image: livenet, nfs, nfs-golden or demo [default: livenet]
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// What it is made of: packages:debian, packages:ubuntu, packages:rpm, directory:PATH, tar:FILE,
    /// squashfs:FILE or oci:PATH [default: packages:debian]
    #[arg(long, value_name = "SOURCE")]
    from: Option<String>,
    /// A file with all of this, as image_data.yml; other flags go before it.
    #[arg(long, value_name = "FILE")]
    parameters: Option<PathBuf>,
    /// What the menu of nodes shows [default: its name]
    #[arg(long)]
    title: Option<String>,
    /// The release of the distribution, such as bookworm, noble or 9.
    #[arg(long)]
    pub(super) release: Option<String>,
    /// How much it holds.
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) livenet_type: Option<Type>,
    /// Packages beyond those, with commas between.
    #[arg(long, value_delimiter = ',')]
    pub(super) packages: Vec<String>,
    /// Where packages come from, instead of the distribution's own place.
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// The most that it may hold, unpacked: 700M, 5G, 1.5G [default: as much as it does]
    #[arg(long)]
    pub(super) size: Option<ImageSize>,
    /// The kernel that it runs on, one of `boottorrent kernel list` [default: its own]
    #[arg(long, value_name = "VERSION")]
    pub(super) kernel: Option<String>,
    /// Words for its command line.
    #[arg(long)]
    cmdline: Option<String>,
    /// The hash of root's password, as `openssl passwd -6` prints it. Without it, on a terminal it is
    /// asked for; else nobody logs in with a password.
    #[arg(long, value_name = "HASH")]
    pub(super) password_hash: Option<String>,
    /// The public key that may log in as root.
    #[arg(long, value_name = "FILE")]
    pub(super) ssh_key: Option<PathBuf>,
    /// Have SELinux on, with its labels.
    #[arg(long)]
    pub(super) selinux: bool,
    /// Leave out manuals, translations and what else nobody reads in memory.
    #[arg(long)]
    pub(super) optimize: bool,
    /// For nfs-golden: the staging image that it is made of.
    #[arg(long, value_name = "IMAGE")]
    pub(super) staging: Option<String>,
    /// For nfs: the address of the NFS server [default: that of the lab]
    #[arg(long, value_name = "ADDRESS")]
    nfs_server: Option<String>,
    /// For demo: what it says.
    #[arg(long)]
    message: Option<String>,
    /// For demo: die in the middle, to see what is left and how it is cleaned.
    #[arg(long)]
    crash: bool,
    /// Ask nothing.
    #[arg(short, long)]
    yes: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

pub(crate) fn run(args: &CreateArgs, catalogue: &Catalogue) -> anyhow::Result<()> {
    let asks = !args.yes && args.parameters.is_none() && args.output == OutputFormat::Text;
    let questions = if asks { Questions::new()? } else { None };
    let (kind, mut data) = from_flags(args)?;
    let kind = match &questions {
        Some(questions) => questions.complete(args, kind, &mut data, catalogue)?,
        None => kind.unwrap_or(&kind::livenet::Livenet),
    };
    ensure!(!data.name.is_empty(), "an image needs a name: `boottorrent image create NAME`");
    if kind.class().starts_with("Nfs") && data.nfs_server.is_none() {
        let configuration = lab::check(catalogue.lab())?.0;
        data.nfs_server = Some(configuration.settings.address.to_string());
    }
    if let Some(questions) = &questions {
        progress::print(&recap(kind, &data));
        if !questions.confirm("Make it?", true)? {
            bail!("nothing was made");
        }
    }
    loop {
        let task = Task { name: &data.name, output: args.output };
        let made = with_work(task, |work| build::create(catalogue, kind, data.clone(), work));
        match made {
            Ok(version) => {
                exports::settle(catalogue)?;
                let text = format!("image `{}` is ready: version {version}", data.name);
                let event = json!({"event": "created", "image": data.name, "version": version});
                progress::tell(args.output, &text, &event);
                return Ok(());
            }
            Err(error) => {
                let Some(questions) = questions.as_ref().filter(|_| !is_interrupt(&error)) else {
                    return Err(error);
                };
                // What was built is removed already.
                progress::print(&format!("boottorrent: {error:#}"));
                if !questions.confirm("Try again?", false)? {
                    return Err(error);
                }
            }
        }
    }
}

/// Whether somebody wanted the work to end.
fn is_interrupt(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let command = cause.downcast_ref::<CommandError>();
        matches!(cause.downcast_ref::<ImageError>(), Some(ImageError::Interrupted))
            || matches!(command, Some(CommandError::Interrupted))
    })
}

/// What was said on the command line, over what the file of parameters says.
fn from_flags(args: &CreateArgs) -> anyhow::Result<(Option<&'static dyn Kind>, ImageData)> {
    let mut kind = args.kind.as_deref().map(kind::named).transpose()?;
    let mut data = ImageData::default();
    if let Some(file) = &args.parameters {
        let text = fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        data = build::parameters(&text).with_context(|| file.display().to_string())?;
        kind = kind.or(kind::of_class(&data.image_class));
    }
    if let Some(name) = &args.name {
        data.name.clone_from(name);
    }
    if let Some(from) = &args.from {
        data.source = Some(absolute(from.parse::<Source>()?)?.to_string());
    }
    if let Some(hash) = &args.password_hash {
        ensure!(
            password::is_hash(hash),
            "--password-hash is no hash: `openssl passwd -6` makes one; a password in clear would \
             stay in the shell's history"
        );
        data.password = Some(hash.clone());
    }
    if let Some(file) = &args.ssh_key {
        ensure!(file.is_file(), "there is no file {}: --ssh-key names a .pub file", file.display());
        data.ssh_pub_key = Some(std::path::absolute(file)?.display().to_string());
    }
    let over = |field: &mut Option<String>, flag: &Option<String>| {
        if flag.is_some() {
            field.clone_from(flag);
        }
    };
    over(&mut data.dispname, &args.title);
    over(&mut data.release_version, &args.release);
    over(&mut data.kernel, &args.kernel);
    over(&mut data.cmdline, &args.cmdline);
    over(&mut data.nfs_server, &args.nfs_server);
    data.livenet_size = args.size.or(data.livenet_size);
    data.livenet_type = args.livenet_type.map(Into::into).or(data.livenet_type);
    data.additional_packages.extend(args.packages.iter().cloned());
    data.selinux |= args.selinux;
    data.optimize |= args.optimize;
    let mut attribute = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            data.attributes.insert(name.to_owned(), value);
        }
    };
    attribute(MIRROR, args.mirror.clone());
    attribute(nfs::STAGING, args.staging.clone());
    attribute(demo::MESSAGE, args.message.clone());
    attribute(demo::CRASH, args.crash.then(|| "yes".to_owned()));
    Ok((kind, data))
}

/// Paths are meant from where the person is.
fn absolute(source: Source) -> anyhow::Result<Source> {
    Ok(match source {
        Source::Directory(path) => Source::Directory(std::path::absolute(path)?),
        Source::Tar(path) => Source::Tar(std::path::absolute(path)?),
        Source::Squashfs(path) => Source::Squashfs(std::path::absolute(path)?),
        Source::Oci(path) => Source::Oci(std::path::absolute(path)?),
        packages @ Source::Packages(_) => packages,
    })
}
