//! `image create`: flags, a file of parameters, or questions on a terminal.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use dialoguer::{Confirm, Input, Password, Select};
use image::build;
use image::catalogue::Catalogue;
use image::data::{ImageData, LivenetType};
use image::kind::{self, Kind, demo, nfs};
use image::size::ImageSize;
use image::tree::source::Source;
use image::tree::{MIRROR, password};
use serde_json::json;

use super::{Task, exports, with_work};
use crate::cli::OutputFormat;
use crate::lab;
use crate::progress;

/// How much a live image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
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
    name: Option<String>,
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
    release: Option<String>,
    /// How much it holds.
    #[arg(long = "type", value_name = "TYPE")]
    livenet_type: Option<Type>,
    /// Packages beyond those, with commas between.
    #[arg(long, value_delimiter = ',')]
    packages: Vec<String>,
    /// Where packages come from, instead of the distribution's own place.
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// The most that it may hold, unpacked: 700M, 5G, 1.5G [default: as much as it does]
    #[arg(long)]
    size: Option<ImageSize>,
    /// The kernel that it runs on, one of `boottorrent kernel list` [default: its own]
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
    /// Words for its command line.
    #[arg(long)]
    cmdline: Option<String>,
    /// The hash of root's password, as `openssl passwd -6` prints it. Without it, on a terminal it is
    /// asked for; else nobody logs in with a password.
    #[arg(long, value_name = "HASH")]
    password_hash: Option<String>,
    /// The public key that may log in as root.
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// Have SELinux on, with its labels.
    #[arg(long)]
    selinux: bool,
    /// Leave out manuals, translations and what else nobody reads in memory.
    #[arg(long)]
    optimize: bool,
    /// For nfs-golden: the staging image that it is made of.
    #[arg(long, value_name = "IMAGE")]
    staging: Option<String>,
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
    let asks = asks && io::stdin().is_terminal() && io::stdout().is_terminal();
    let (kind, mut data) = from_flags(args)?;
    let kind = match asks {
        true => ask(args, kind, &mut data, catalogue)?,
        false => kind.unwrap_or(&kind::livenet::Livenet),
    };
    ensure!(!data.name.is_empty(), "an image needs a name: `boottorrent image create NAME`");
    if kind.class().starts_with("Nfs") && data.nfs_server.is_none() {
        let configuration = lab::check(catalogue.lab())?.0;
        data.nfs_server = Some(configuration.settings.address.to_string());
    }
    if asks {
        progress::print(&recap(kind, &data));
        if !interact(Confirm::new().with_prompt("Make it?").default(true).interact())? {
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
            Err(error) if asks => {
                // What was built is removed already.
                progress::print(&format!("boottorrent: {error:#}"));
                let again = Confirm::new().with_prompt("Try again?").default(false).interact();
                if !interact(again)? {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
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

/// Ctrl+C in a question ends the command; nothing was made yet.
fn interact<T>(answer: dialoguer::Result<T>) -> anyhow::Result<T> {
    answer.map_err(|error| match error {
        dialoguer::Error::IO(error) if error.kind() == io::ErrorKind::Interrupted => {
            anyhow::anyhow!("interrupted: nothing was made")
        }
        other => other.into(),
    })
}

/// Asks for what was not said, in the order of the original.
fn ask(
    args: &CreateArgs,
    kind: Option<&'static dyn Kind>,
    data: &mut ImageData,
    catalogue: &Catalogue,
) -> anyhow::Result<&'static dyn Kind> {
    let kind = match kind {
        Some(kind) => kind,
        None => {
            let items: Vec<String> =
                kind::ALL.iter().map(|kind| format!("{}: {}", kind.name(), kind.about())).collect();
            let chosen = Select::new().with_prompt("Kind").items(&items).default(0).interact();
            kind::ALL[interact(chosen)?]
        }
    };
    if args.name.is_none() {
        let taken: Vec<String> = catalogue.list()?.into_iter().map(|entry| entry.name).collect();
        let judge = |name: &String| match name.parse::<boot::ImageName>() {
            Err(error) => Err(error.to_string()),
            Ok(_) if taken.contains(name) => Err("there is an image of this name".to_owned()),
            Ok(_) => Ok(()),
        };
        data.name =
            interact(Input::new().with_prompt("Name").validate_with(judge).interact_text())?;
    }
    match kind.class() {
        "LivenetImage" | "NfsStagingImage" => ask_about_tree(args, kind, data)?,
        "NfsGoldenImage" if args.staging.is_none() => {
            let staging: String =
                interact(Input::new().with_prompt("Staging image").interact_text())?;
            data.attributes.insert(nfs::STAGING.to_owned(), staging);
        }
        _ => {}
    }
    Ok(kind)
}

fn ask_about_tree(args: &CreateArgs, kind: &dyn Kind, data: &mut ImageData) -> anyhow::Result<()> {
    let text = |prompt: &str| -> anyhow::Result<Option<String>> {
        let answer: String =
            interact(Input::new().with_prompt(prompt).allow_empty(true).interact_text())?;
        Ok(Some(answer.trim().to_owned()).filter(|answer| !answer.is_empty()))
    };
    if args.kernel.is_none() {
        data.kernel = text("Kernel (empty: its own)")?;
    }
    if args.password_hash.is_none() {
        let prompt = Password::new().with_prompt("Root's password (empty: none)");
        let prompt = prompt.allow_empty_password(true).with_confirmation("Again", "not the same");
        let clear = interact(prompt.interact())?;
        if !clear.is_empty() {
            data.password = Some(password::hash(&clear).map_err(anyhow::Error::msg)?);
        }
    }
    if kind.class() == "LivenetImage" && args.livenet_type.is_none() {
        let items = ["standard: as a server", "small: OpenSSH and packages", "core: OpenSSH only"];
        let types = [LivenetType::Standard, LivenetType::Small, LivenetType::Core];
        let chosen = Select::new().with_prompt("Type").items(items).default(1).interact();
        data.livenet_type = Some(types[interact(chosen)?]);
    }
    if kind.class() == "LivenetImage" && args.size.is_none() {
        let judge = |text: &String| match text.as_str() {
            "" => Ok(()),
            text => text.parse::<ImageSize>().map(drop).map_err(|error| error.to_string()),
        };
        let prompt = Input::new().with_prompt("Size, as 5G or 1.5G (empty: automatic)");
        let size: String = interact(prompt.allow_empty(true).validate_with(judge).interact_text())?;
        data.livenet_size = if size.is_empty() { None } else { Some(size.parse()?) };
    }
    if args.ssh_key.is_none() {
        data.ssh_pub_key = text("File of the SSH key for root (empty: none)")?;
    }
    if args.packages.is_empty() {
        let packages = text("More packages (empty: none)")?.unwrap_or_default();
        data.additional_packages =
            packages.split([' ', ',']).filter(|it| !it.is_empty()).map(str::to_owned).collect();
    }
    if args.release.is_none() {
        data.release_version = text("Release (empty: the usual)")?;
    }
    let yes = |prompt: &str, flag: bool| {
        if flag { Ok(true) } else { interact(Confirm::new().with_prompt(prompt).interact()) }
    };
    data.selinux = yes("SELinux?", args.selinux)?;
    data.optimize = yes("Leave out manuals and translations?", args.optimize)?;
    Ok(())
}

/// What will be made, for a person to say yes to.
fn recap(kind: &dyn Kind, data: &ImageData) -> String {
    let mut lines = vec![format!("{} `{}`", kind.name(), data.name)];
    let mut field = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("  {name:<12} {value}")));
    };
    field("from", data.source.clone().or(Some("packages:debian".to_owned())));
    field("release", data.release_version.clone());
    field("kernel", data.kernel.clone());
    field("type", data.livenet_type.map(|it| format!("{it:?}").to_lowercase()));
    field("size", data.livenet_size.map(|size| size.to_string()));
    field("password", data.password.as_ref().map(|_| "set".to_owned()));
    field("SSH key", data.ssh_pub_key.clone());
    field("packages", Some(data.additional_packages.join(" ")).filter(|it| !it.is_empty()));
    field("SELinux", Some(data.selinux.to_string()));
    field("optimised", Some(data.optimize.to_string()));
    field("staging", data.attributes.get(nfs::STAGING).cloned());
    lines.join("\n")
}
