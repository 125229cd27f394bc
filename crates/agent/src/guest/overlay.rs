//! Which disks of an image a guest writes to, and its arguments with other files in their place: what it
//! writes can then stay, and the image's own files stay as they were verified. Pure.

use boot::ImagePath;

/// A file of the image that the guest may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    /// Where it is in the image.
    pub(super) path: ImagePath,
    /// How the arguments say that it is written, if they do.
    pub(super) format: Option<String>,
}

impl Disk {
    /// What the file is called that has what differs from it.
    pub(super) fn overlay(&self) -> String {
        // The names of an image's folders stay readable, and two files never share one.
        format!("{}.qcow2", self.path.as_str().replace('%', "%25").replace('/', "%2f"))
    }
}

/// The image's disks in `args`, and `args` with their overlays in `folder` in their place: of `-hda` to
/// `-hdd`, `-fda`, `-fdb` and `-drive`. What only is read, and what is no file of the image, stays.
pub(super) fn replace(args: &[String], folder: &str) -> (Vec<String>, Vec<Disk>) {
    let (mut all, mut disks) = (vec![], vec![]);
    let mut rest = args;
    while let Some((arg, after)) = rest.split_first() {
        rest = after;
        let Some((disk, options)) = after.first().and_then(|value| disk(arg, value)) else {
            all.push(arg.clone());
            continue;
        };
        rest = &after[1..];
        // A comma within a value is written twice.
        let file = format!("{folder}/{}", disk.overlay()).replace(',', ",,");
        all.extend(["-drive".to_owned(), format!("file={file},format=qcow2{options}")]);
        disks.push(disk);
    }
    (all, disks)
}

/// The disk that an option and its value stand for, and what else they say, each after a comma.
fn disk(option: &str, value: &str) -> Option<(Disk, String)> {
    let name = option.strip_prefix("--").or_else(|| option.strip_prefix('-'))?;
    let bus = match name {
        "drive" => return drive(value),
        "hda" | "hdb" | "hdc" | "hdd" => "ide,media=disk",
        "fda" | "fdb" => "floppy",
        _ => return None,
    };
    let disk = Disk { path: value.parse().ok()?, format: None };
    Some((disk, format!(",if={bus},index={}", index(name))))
}

/// `a` is the first.
fn index(name: &str) -> u8 {
    name.bytes().last().unwrap_or(b'a') - b'a'
}

/// The disk of a `-drive` that the guest may write to, and its other options, each after a comma.
fn drive(value: &str) -> Option<(Disk, String)> {
    let (mut path, mut format, mut rest) = (None, None, String::new());
    for option in split(value) {
        match option.split_once('=') {
            Some(("file", file)) => path = file.parse().ok(),
            Some(("format", name)) => format = Some(name.to_owned()),
            Some(("media", "cdrom") | ("readonly" | "read-only" | "snapshot", "on")) => {
                return None;
            }
            _ if matches!(option.as_str(), "readonly" | "snapshot") => return None,
            _ => {
                rest.push(',');
                rest.push_str(&option.replace(',', ",,"));
            }
        }
    }
    Some((Disk { path: path?, format }, rest))
}

/// Options with commas between them; two commas are one that belongs to a value.
fn split(value: &str) -> Vec<String> {
    let mut options = vec![String::new()];
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match options.last_mut() {
            Some(last) if c != ',' || chars.next_if_eq(&',').is_some() => last.push(c),
            _ => options.push(String::new()),
        }
    }
    options.retain(|option| !option.is_empty());
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(args: &str, expect: &str, disks: &[(&str, Option<&str>)]) {
        let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
        let (all, found) = replace(&args, "/kept");
        assert_eq!(all.join(" "), expect);
        let disk = |&(path, format): &(&str, Option<&str>)| Disk {
            path: str::parse(path).unwrap(),
            format: format.map(str::to_owned),
        };
        assert_eq!(found, disks.iter().map(disk).collect::<Vec<_>>());
    }

    #[test]
    fn a_drive_is_written_to_its_overlay() {
        check(
            "-m 64 -drive file=disk.img,format=raw,if=virtio -nic none",
            "-m 64 -drive file=/kept/disk.img.qcow2,format=qcow2,if=virtio -nic none",
            &[("disk.img", Some("raw"))],
        );
        check(
            "-drive if=none,id=a,file=disks/a,,b.qcow2",
            "-drive file=/kept/disks%2fa,,b.qcow2.qcow2,format=qcow2,if=none,id=a",
            &[("disks/a,b.qcow2", None)],
        );
    }

    #[test]
    fn disks_and_floppies_keep_their_places() {
        check(
            "-hda a.img -hdb b.img --fdb c.img",
            "-drive file=/kept/a.img.qcow2,format=qcow2,if=ide,media=disk,index=0 \
             -drive file=/kept/b.img.qcow2,format=qcow2,if=ide,media=disk,index=1 \
             -drive file=/kept/c.img.qcow2,format=qcow2,if=floppy,index=1",
            &[("a.img", None), ("b.img", None), ("c.img", None)],
        );
    }

    #[test]
    fn what_is_only_read_or_not_of_the_image_stays() {
        for args in [
            "-cdrom disc.iso",
            "-drive file=disc.iso,media=cdrom",
            "-drive file=a.img,readonly=on",
            "-drive file=a.img,snapshot=on",
            "-drive file=/dev/sda,format=raw",
            "-drive if=none,id=empty",
            "-hda",
            "-m 64",
        ] {
            check(args, args, &[]);
        }
    }
}
