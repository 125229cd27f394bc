//! What `image create` asks on a terminal, in the order of the original.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dialoguer::console::Term;
use dialoguer::{Confirm, Input, Password, Select};
use image::catalogue::Catalogue;
use image::data::{ImageData, LivenetType};
use image::kind::{self, Kind, nfs};
use image::size::ImageSize;
use image::tree::password;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::create::CreateArgs;
use crate::signals;

/// Somebody at a terminal.
pub(super) struct Questions {
    /// Whether a question waits for its answer. Ctrl+C ends the program then; while something is made, the
    /// work ends by itself and cleans up.
    is_asking: Arc<AtomicBool>,
}

impl Questions {
    /// Nobody is asked without a terminal.
    pub(super) fn new() -> anyhow::Result<Option<Self>> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let is_asking = Arc::new(AtomicBool::new(false));
        let asking = Arc::clone(&is_asking);
        let before = tcgetattr(io::stdin())?;
        signals::watch(move |signal| {
            if asking.load(Ordering::Relaxed) {
                // A question hides the cursor, or what is typed. If the terminal is gone there is nobody to
                // tell.
                let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
                let _ = Term::stderr().show_cursor();
                eprintln!("\nboottorrent: interrupted: nothing was made");
                std::process::exit(signal.status().into());
            }
        })?;
        Ok(Some(Self { is_asking }))
    }

    /// Asks one.
    fn ask<T>(&self, question: impl FnOnce() -> dialoguer::Result<T>) -> anyhow::Result<T> {
        self.is_asking.store(true, Ordering::Relaxed);
        let answer = question();
        if let Err(dialoguer::Error::IO(error)) = &answer
            && error.kind() == io::ErrorKind::Interrupted
        {
            // The signal that this stands for is on its way to the thread that ends the program.
            std::thread::park_timeout(Duration::from_secs(1));
        }
        self.is_asking.store(false, Ordering::Relaxed);
        Ok(answer?)
    }

    /// Asks for consent.
    pub(super) fn confirm(&self, prompt: &str, default: bool) -> anyhow::Result<bool> {
        self.ask(|| Confirm::new().with_prompt(prompt).default(default).interact())
    }

    fn text(
        &self,
        prompt: &str,
        judge: fn(&str) -> Result<(), String>,
    ) -> anyhow::Result<Option<String>> {
        let validate = |text: &String| if text.is_empty() { Ok(()) } else { judge(text) };
        let prompt = Input::new().with_prompt(prompt).allow_empty(true).validate_with(validate);
        let answer: String = self.ask(|| prompt.interact_text())?;
        Ok(Some(answer.trim().to_owned()).filter(|answer| !answer.is_empty()))
    }

    /// Asks for what was not said, and gives the kind.
    pub(super) fn complete(
        &self,
        args: &CreateArgs,
        kind: Option<&'static dyn Kind>,
        data: &mut ImageData,
        catalogue: &Catalogue,
    ) -> anyhow::Result<&'static dyn Kind> {
        let kind = match kind {
            Some(kind) => kind,
            None => {
                let items: Vec<String> = kind::ALL
                    .iter()
                    .map(|kind| format!("{}: {}", kind.name(), kind.about()))
                    .collect();
                let prompt = Select::new().with_prompt("Kind").items(&items).default(0);
                kind::ALL[self.ask(|| prompt.interact())?]
            }
        };
        if args.name.is_none() {
            let taken: Vec<String> =
                catalogue.list()?.into_iter().map(|entry| entry.name).collect();
            let judge = |name: &String| match name.parse::<boot::ImageName>() {
                Err(error) => Err(error.to_string()),
                Ok(_) if taken.contains(name) => Err("there is an image of this name".to_owned()),
                Ok(_) => Ok(()),
            };
            let prompt = Input::new().with_prompt("Name").validate_with(judge);
            data.name = self.ask(|| prompt.interact_text())?;
        }
        match kind.class() {
            "LivenetImage" | "NfsStagingImage" => self.complete_tree(args, kind, data)?,
            "NfsGoldenImage" if args.staging.is_none() => {
                let prompt = Input::new().with_prompt("Staging image");
                let staging: String = self.ask(|| prompt.interact_text())?;
                data.attributes.insert(nfs::STAGING.to_owned(), staging);
            }
            _ => {}
        }
        Ok(kind)
    }

    fn complete_tree(
        &self,
        args: &CreateArgs,
        kind: &dyn Kind,
        data: &mut ImageData,
    ) -> anyhow::Result<()> {
        let anything = |_: &str| Ok(());
        if args.kernel.is_none() {
            data.kernel = self.text("Kernel (empty: its own)", anything)?;
        }
        if args.password_hash.is_none() {
            let prompt = Password::new().with_prompt("Root's password (empty: none)");
            let prompt =
                prompt.allow_empty_password(true).with_confirmation("Again", "not the same");
            let clear = self.ask(|| prompt.interact())?;
            if !clear.is_empty() {
                data.password = Some(password::hash(&clear).map_err(anyhow::Error::msg)?);
            }
        }
        if kind.class() == "LivenetImage" && args.livenet_type.is_none() {
            let items =
                ["standard: as a server", "small: OpenSSH and packages", "core: OpenSSH only"];
            let types = [LivenetType::Standard, LivenetType::Small, LivenetType::Core];
            let prompt = Select::new().with_prompt("Type").items(items).default(1);
            data.livenet_type = Some(types[self.ask(|| prompt.interact())?]);
        }
        if kind.class() == "LivenetImage" && args.size.is_none() {
            let size = self.text("Size, as 5G or 1.5G (empty: automatic)", judge_size)?;
            data.livenet_size = size.map(|size| size.parse()).transpose()?;
        }
        if args.ssh_key.is_none() {
            data.ssh_pub_key =
                self.text("File of the SSH key for root (empty: none)", judge_file)?;
        }
        if args.packages.is_empty() {
            let packages = self.text("More packages (empty: none)", anything)?.unwrap_or_default();
            data.additional_packages =
                packages.split([' ', ',']).filter(|it| !it.is_empty()).map(str::to_owned).collect();
        }
        if args.release.is_none() {
            data.release_version = self.text("Release (empty: the usual)", anything)?;
        }
        data.selinux = args.selinux || self.confirm("SELinux?", false)?;
        data.optimize =
            args.optimize || self.confirm("Leave out manuals and translations?", false)?;
        Ok(())
    }
}

fn judge_size(text: &str) -> Result<(), String> {
    text.parse::<ImageSize>().map(drop).map_err(|error| error.to_string())
}

fn judge_file(text: &str) -> Result<(), String> {
    match Path::new(text).is_file() {
        true => Ok(()),
        false => Err(format!("there is no file {text}: it is the .pub of a key")),
    }
}

/// What will be made, for a person to say yes to.
pub(super) fn recap(kind: &dyn Kind, data: &ImageData) -> String {
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
