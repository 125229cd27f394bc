//! `oss/NAME/config.yaml`: what an image is called and how it is run.

use std::collections::BTreeMap;

use boot::image::QEMU_EXTENSION;
use boot::{ImageName, ImagePath, KernelVersion, Loader, PasswordHash};

use super::keys;
use super::reader::Reader;
use super::value::{
    AfterGuest, Cmdline, Found, GuestDisplay, GuestWrites, NfsOptions, NfsRoot, nearest,
};
use crate::lab::problem::Problems;
use crate::lab::yaml::Node;

/// An image as its folder's `config.yaml` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageConfig {
    /// The folder's name.
    pub(crate) name: ImageName,
    /// `dispname`, unique in the lab.
    pub(crate) title: String,
    /// What it is, for who chooses.
    pub(crate) description: String,
    /// Of who chooses it.
    pub(crate) password: Option<PasswordHash>,
    pub(crate) loader: Loader,
    /// Files that the loader needs, and the lines that name them.
    files: Vec<Found<ImagePath>>,
    title_line: Option<usize>,
}

const METHODS: [&str; 6] = ["kexec", "livenet", "nfs", "bin", "bin-qemu-x86_64", "extension"];

/// Keys that mean something with some methods only, and with which.
const KEYS: &[(&str, &[&str])] = &[
    ("kernel", &["kexec"]),
    ("initrd", &["kexec"]),
    ("cmdline", &["kexec", "livenet", "nfs"]),
    ("rootfs", &["livenet", "extension"]),
    ("kernel_version", &["livenet", "nfs"]),
    ("root", &["nfs"]),
    ("options", &["nfs"]),
    ("bin", &["bin"]),
    ("binargs", &["bin"]),
    ("args", &["bin-qemu-x86_64"]),
    ("display", &["bin-qemu-x86_64"]),
    ("after", &["bin-qemu-x86_64"]),
    ("writes", &["bin-qemu-x86_64"]),
];

/// Reads the file; nothing if it cannot be used.
pub(super) fn read(
    file: &str,
    name: &ImageName,
    root: &Node,
    problems: &mut Problems,
) -> Option<ImageConfig> {
    let mut reader = Reader::new(file, String::new(), root, keys::IMAGE, problems);
    let title = reader.value::<String>("dispname");
    let description = description(&mut reader);
    let password = reader.value::<PasswordHash>("password").map(|hash| hash.value);
    let has_wrong_password = password.is_none() && reader.has("password");
    let mut files = vec![];
    let loader = match reader.value::<String>("method") {
        None => None,
        Some(method) => match method.value.as_str() {
            "kexec" => kexec(&mut reader, &mut files),
            "bin" => exec(&mut reader, &mut files),
            "bin-qemu-x86_64" => qemu(&mut reader),
            "livenet" => livenet(&mut reader, &mut files),
            "nfs" => nfs(&mut reader),
            "extension" => extension(&mut reader, &mut files),
            other => {
                let hint = match other {
                    "qemu-iso" => Some("bin-qemu-x86_64"),
                    _ => nearest(other, METHODS),
                };
                let hint = hint.map(|near| format!("; is {near} meant?")).unwrap_or_default();
                let known = METHODS.join(", ");
                reader.error(method.line, format!("method: `{other}` is none of {known}{hint}"));
                None
            }
        },
    };
    let title = title.filter(|title| {
        if title.value.is_empty() {
            reader.error(title.line, "dispname is empty: write what the menu shall show");
        }
        !title.value.is_empty()
    })?;
    let loader = loader?;
    // Never offered without the password that it was to have.
    if has_wrong_password {
        return None;
    }
    Some(ImageConfig {
        name: name.clone(),
        title: title.value,
        description,
        password,
        loader,
        files,
        title_line: title.line,
    })
}

/// The most characters of a description: a dozen lines beside the menu.
const DESCRIPTION_LEN_MAX: usize = 400;

fn description(reader: &mut Reader<'_, '_>) -> String {
    let Some(text) = reader.value::<String>("description") else { return String::new() };
    let len = text.value.chars().count();
    if len > DESCRIPTION_LEN_MAX {
        let message =
            format!("description has {len} characters: {DESCRIPTION_LEN_MAX} are shown at most");
        reader.error(text.line, message);
    }
    text.value
}

fn kexec(reader: &mut Reader<'_, '_>, files: &mut Vec<Found<ImagePath>>) -> Option<Loader> {
    idle(reader, "kexec");
    let kernel = required::<Found<ImagePath>>(reader, "kernel", "vmlinuz");
    let initrds = required::<Vec<Found<ImagePath>>>(reader, "initrd", "initrd.img");
    let cmdline = cmdline(reader);
    let (kernel, initrds) = (kernel?, initrds?);
    let loader = Loader::Kexec {
        kernel: kernel.value.clone(),
        initrds: initrds.iter().map(|initrd| initrd.value.clone()).collect(),
        cmdline: cmdline?,
    };
    files.push(kernel);
    files.extend(initrds);
    Some(loader)
}

fn exec(reader: &mut Reader<'_, '_>, files: &mut Vec<Found<ImagePath>>) -> Option<Loader> {
    idle(reader, "bin");
    let bin = required::<Found<ImagePath>>(reader, "bin", "program");
    let args = arguments(reader, "binargs");
    let bin = bin?;
    let loader = Loader::Exec { bin: bin.value.clone(), args: args? };
    files.push(bin);
    Some(loader)
}

/// The file system on which guests' writes stay.
const KEEPING_MODULE: &str = "ext4";

/// What has a guest's disks forget everything.
const SNAPSHOT: [&str; 2] = ["-snapshot", "--snapshot"];

fn qemu(reader: &mut Reader<'_, '_>) -> Option<Loader> {
    idle(reader, "bin-qemu-x86_64");
    if !reader.has("args") {
        reader.missing("args", "-cdrom disc.iso");
        return None;
    }
    let args = arguments(reader, "args");
    let (display, after) = (optional(reader, "display"), optional(reader, "after"));
    let writes = optional(reader, "writes");
    let (GuestDisplay(display), AfterGuest(after)) = (display?, after?);
    let (args, GuestWrites(kept_on)) = (args?, writes?);
    if kept_on.is_some() && args.split_whitespace().any(|arg| SNAPSHOT.contains(&arg)) {
        let message = "writes: they cannot stay, as `args` have -snapshot: remove one of the two";
        reader.error(reader.line("writes"), message);
        return None;
    }
    Some(Loader::Qemu { args, display, after, kept_on })
}

fn extension(reader: &mut Reader<'_, '_>, files: &mut Vec<Found<ImagePath>>) -> Option<Loader> {
    idle(reader, "extension");
    let rootfs = required::<Found<ImagePath>>(reader, "rootfs", "extension.squashfs")?;
    let loader = Loader::Extension { rootfs: rootfs.value.clone() };
    files.push(rootfs);
    Some(loader)
}

fn livenet(reader: &mut Reader<'_, '_>, files: &mut Vec<Found<ImagePath>>) -> Option<Loader> {
    idle(reader, "livenet");
    let rootfs = required::<Found<ImagePath>>(reader, "rootfs", "squashfs.img");
    let (kernel_version, cmdline) = (kernel_version(reader), cmdline(reader));
    let rootfs = rootfs?;
    let loader = Loader::Livenet {
        rootfs: rootfs.value.clone(),
        kernel_version: kernel_version?,
        cmdline: cmdline?,
    };
    files.push(rootfs);
    Some(loader)
}

fn nfs(reader: &mut Reader<'_, '_>) -> Option<Loader> {
    idle(reader, "nfs");
    let root = required::<NfsRoot>(reader, "root", "10.0.0.1:/srv/nfs/root");
    let options = reader.bare::<NfsOptions>("options");
    let (kernel_version, cmdline) = (kernel_version(reader), cmdline(reader));
    Some(Loader::Nfs {
        root: root?.0,
        options: options?.0,
        kernel_version: kernel_version?,
        cmdline: cmdline?,
    })
}

/// None of it if there is none; nothing if it cannot be used.
fn kernel_version(reader: &mut Reader<'_, '_>) -> Option<Option<KernelVersion>> {
    match reader.has("kernel_version") {
        true => reader.bare("kernel_version").map(Some),
        false => Some(None),
    }
}

fn cmdline(reader: &mut Reader<'_, '_>) -> Option<String> {
    match reader.has("cmdline") {
        true => reader.bare("cmdline").map(|Cmdline(text)| text),
        false => Some(String::new()),
    }
}

/// Keys of other methods are left alone, as the original does, but not in silence.
fn idle(reader: &mut Reader<'_, '_>, method: &str) {
    let others = KEYS.iter().filter(|(_, methods)| !methods.contains(&method));
    for key in others.map(|(key, _)| *key).filter(|key| reader.has(key)).collect::<Vec<_>>() {
        let line = reader.line(key);
        reader.warn(line, format!("{key} means nothing with method {method}: remove it"));
    }
}

fn required<T: super::value::FromYaml>(
    reader: &mut Reader<'_, '_>,
    key: &'static str,
    example: &str,
) -> Option<T> {
    if !reader.has(key) {
        reader.missing(key, example);
        return None;
    }
    reader.bare(key)
}

/// The usual value if there is none; nothing if it cannot be used.
fn optional<T: super::value::FromYaml + Default>(
    reader: &mut Reader<'_, '_>,
    key: &'static str,
) -> Option<T> {
    if reader.has(key) { reader.bare(key) } else { Some(T::default()) }
}

/// A virtual machine without what runs it ends with a failure on the node.
pub(super) fn check_extensions(images: &[ImageConfig], problems: &mut Problems) {
    let is_qemu = |image: &&ImageConfig| {
        image.name.as_str() == QEMU_EXTENSION && matches!(image.loader, Loader::Extension { .. })
    };
    if images.iter().any(|image| is_qemu(&image)) {
        return;
    }
    for image in images.iter().filter(|image| matches!(image.loader, Loader::Qemu { .. })) {
        let message = format!(
            "method bin-qemu-x86_64 needs the extension `{QEMU_EXTENSION}`: make it with \
             `boottorrent extension build {QEMU_EXTENSION}`"
        );
        problems.warn(&super::image_file(image.name.as_str()), None, message);
    }
}

/// What keeps the writes of guests takes a driver that phase 1 has only if it is told so.
pub(super) fn check_drivers(images: &[ImageConfig], modules: &[String], problems: &mut Problems) {
    if modules.iter().any(|module| module == KEEPING_MODULE) {
        return;
    }
    let keeps =
        |image: &&ImageConfig| matches!(image.loader, Loader::Qemu { kept_on: Some(_), .. });
    for image in images.iter().filter(keeps) {
        let message = format!(
            "writes: a node needs the driver {KEEPING_MODULE} for that: add it to phase1.modules"
        );
        problems.warn(&super::image_file(image.name.as_str()), None, message);
    }
}

/// Arguments that can be split as a shell splits them: each quote is closed.
fn arguments(reader: &mut Reader<'_, '_>, key: &'static str) -> Option<String> {
    if !reader.has(key) {
        return Some(String::new());
    }
    let text = reader.value::<String>(key)?;
    if let Some(quote) = open_quote(&text.value) {
        reader.error(text.line, format!("{key}: the quote {quote} is not closed"));
        return None;
    }
    Some(text.value)
}

/// The quote that is still open at the end, by the rules of a POSIX shell (section 2.2): a backslash
/// takes the meaning of the next character, except within single quotes.
fn open_quote(text: &str) -> Option<char> {
    let mut open = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, open) {
            ('\\', None | Some('"')) => drop(chars.next()),
            ('\'' | '"', None) => open = Some(c),
            (c, Some(quote)) if c == quote => open = None,
            _ => {}
        }
    }
    open
}

/// Two images with one title could not be told apart in the menu.
pub(super) fn check_titles(images: &[ImageConfig], problems: &mut Problems) {
    let mut titles: BTreeMap<&str, &ImageName> = BTreeMap::new();
    for image in images {
        if let Some(other) = titles.insert(&image.title, &image.name) {
            let message = format!(
                "dispname: `{}` is also what oss/{other} is called: the menu needs two names",
                image.title
            );
            problems.error(&super::image_file(image.name.as_str()), image.title_line, message);
        }
    }
}

impl ImageConfig {
    /// Checks that the files that it names are among those that its folder has.
    pub(crate) fn check_files<'a>(
        &self,
        has: impl Fn(&str) -> bool,
        paths: impl Iterator<Item = &'a str> + Clone,
        problems: &mut Problems,
    ) {
        for file in self.files.iter().filter(|file| !has(file.value.as_str())) {
            let near = nearest(file.value.as_str(), paths.clone());
            let hint = near.map(|near| format!("; is {near} meant?")).unwrap_or_default();
            let message = format!("there is no file `{}` in oss/{}{hint}", file.value, self.name);
            problems.error(&super::image_file(self.name.as_str()), file.line, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_that_is_not_closed_is_found() {
        let check = |text, expect| assert_eq!(open_quote(text), expect, "{text}");
        check("-cdrom disc.iso", None);
        check("-append 'a b' -m \"1 G\"", None);
        check("-append 'a b", Some('\''));
        check(r#"a "b\" c"#, Some('"'));
        check(r"a \' b", None);
        check(r"'a \' b", None);
    }
}
