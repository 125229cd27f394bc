//! `image_data.yml`: all that is known of an image, beside its files. The file and its words are the
//! original's; what it had and we have not is read, kept and written again.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::ImageError;
use crate::size::ImageSize;
use crate::tree::root::{Root, is_absence};

/// The file's name.
pub const DATA_FILE: &str = "image_data.yml";

/// The most bytes of such a file: one with a thousand nodes has 20 kB.
const DATA_LEN_MAX: u64 = 1 << 20;

/// How much a live image holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LivenetType {
    /// What the distribution installs on a server.
    #[default]
    #[serde(rename = "Type.STANDARD", alias = "standard", alias = "STANDARD")]
    Standard,
    /// A package manager, the network and OpenSSH.
    #[serde(rename = "Type.SMALL", alias = "small", alias = "SMALL")]
    Small,
    /// OpenSSH alone.
    #[serde(rename = "Type.CORE", alias = "core", alias = "CORE")]
    Core,
}

/// The attributes of an image, in the order in which they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageData {
    /// Its name; one of digits alone stays a text.
    pub name: String,
    /// Which kind made it: `LivenetImage`, `NfsStagingImage`, `NfsGoldenImage`, `DemoImage`.
    pub image_class: String,
    /// Counts the versions of the image; 0 is one that the original made.
    #[serde(default)]
    pub version: u32,
    /// What the menu of nodes shows.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_text")]
    pub dispname: Option<String>,
    /// The original's folder.
    #[serde(
        default,
        rename = "IMAGE_DIRECTORY",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "some_text"
    )]
    pub image_directory: Option<String>,
    /// The hash of root's password (`$6$…`), never the password.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_text")]
    pub password: Option<String>,
    /// The version of its kernel; the original wrote `vmlinuz-` before it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_text")]
    pub kernel: Option<String>,
    /// The original's initramfs.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_text")]
    pub image: Option<String>,
    /// Words for the kernel's command line.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_text")]
    pub cmdline: Option<String>,
    /// How much it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub livenet_type: Option<LivenetType>,
    /// What its tree may take, in megabytes; absent is what it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub livenet_size: Option<ImageSize>,
    /// Whether SELinux is on.
    #[serde(default)]
    pub selinux: bool,
    /// Whether what a node does not need was left out.
    #[serde(default)]
    pub optimize: bool,
    /// The file of the SSH key that may log in as root, as it was named.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_text")]
    pub ssh_pub_key: Option<String>,
    /// Packages beyond those of its type.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub additional_packages: Vec<String>,
    /// The distribution's release.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_text")]
    pub release_version: Option<String>,
    /// What it was made from, in words.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_text")]
    pub source: Option<String>,
    /// Whether the original had it mounted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_mounted: bool,
    /// The original's folder for work.
    #[serde(
        default,
        rename = "WORKING_DIRECTORY",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "some_text"
    )]
    pub working_directory: Option<String>,
    /// The original's folder for mounting.
    #[serde(
        default,
        rename = "MOUNT_DIRECTORY",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "some_text"
    )]
    pub mount_directory: Option<String>,
    /// The tree that an NFS server exports.
    #[serde(
        default,
        rename = "NFS_DIRECTORY",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "some_text"
    )]
    pub nfs_directory: Option<String>,
    /// The NFS server and options that nodes mount with.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_text")]
    pub nfs_server: Option<String>,
    /// Nodes that have a tree of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub nodes: Vec<String>,
    /// What a kind of your own wants to remember.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The day of its last change: `2026-05-17`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_text")]
    pub creation_date: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    image_data: ImageData,
}

impl ImageData {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// If it is not such a file, with the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text)
            .map(|Document { image_data }| image_data)
            .map_err(|error| error.to_string())
    }

    /// The text of the file.
    ///
    /// # Errors
    /// None that is known: all fields have a form in YAML.
    pub fn to_text(&self) -> Result<String, String> {
        let document = Document { image_data: self.clone() };
        serde_saphyr::to_string(&document).map_err(|error| error.to_string())
    }

    /// That of the image in a folder; nothing if it has none, as a folder made by hand.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn read(folder: &Path) -> Result<Option<Self>, ImageError> {
        let file = folder.join(DATA_FILE);
        let root = match Root::without_links(folder) {
            Ok(root) => root,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(source) => return Err(ImageError::Read { file, source }),
        };
        let Some(opened) = root.plain_file(DATA_FILE)? else { return Ok(None) };
        let mut text = String::new();
        let read = opened.take(DATA_LEN_MAX + 1).read_to_string(&mut text);
        read.map_err(ImageError::read(&file))?;
        if text.len() as u64 > DATA_LEN_MAX {
            let message = format!("it is longer than {DATA_LEN_MAX} bytes");
            return Err(ImageError::Data { file, message });
        }
        Self::parse(&text).map(Some).map_err(|message| ImageError::Data { file, message })
    }

    /// Writes it into a folder, readable to its owner alone since the hash of a password is in it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ImageError> {
        let file = folder.join(DATA_FILE);
        let text =
            self.to_text().map_err(|message| ImageError::Data { file: file.clone(), message })?;
        let root = Root::without_links(folder).map_err(ImageError::write(&file))?;
        root.replace(DATA_FILE, text.as_bytes(), 0o600).map_err(ImageError::write(&file))
    }

    /// The kernel's version, without what the original wrote before it.
    pub fn kernel_version(&self) -> Option<&str> {
        let kernel = self.kernel.as_deref()?;
        Some(kernel.strip_prefix("vmlinuz-").unwrap_or(kernel))
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A text; the original wrote `None` and an empty one for what is not there.
fn some_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty() && text != "None"))
}

/// A list, nothing, or what the original wrote for nothing.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Option::<Form>::deserialize(deserializer)? {
        Some(Form::List(list)) => list,
        Some(Form::Text(text)) if !text.is_empty() && text != "None" => {
            text.split([',', ' ']).filter(|it| !it.is_empty()).map(str::to_owned).collect()
        }
        _ => vec![],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn full() -> ImageData {
        ImageData {
            name: "2024".to_owned(),
            image_class: "LivenetImage".to_owned(),
            version: 3,
            dispname: Some("yes: a \"quoted\" title # no comment".to_owned()),
            image_directory: Some("/var/www/images/2024".to_owned()),
            password: Some("$6$salt$hash/.".to_owned()),
            kernel: Some("6.1.0-40-amd64".to_owned()),
            image: Some("initramfs-kernel-6.1.0".to_owned()),
            cmdline: Some("quiet".to_owned()),
            livenet_type: Some(LivenetType::Small),
            livenet_size: Some("1.5G".parse().unwrap()),
            selinux: true,
            optimize: true,
            ssh_pub_key: Some("/srv/id.pub".to_owned()),
            additional_packages: vec!["vim".to_owned(), "7".to_owned()],
            release_version: Some("8".to_owned()),
            source: Some("packages".to_owned()),
            is_mounted: true,
            working_directory: Some("/w".to_owned()),
            mount_directory: Some("/m".to_owned()),
            nfs_directory: Some("/n".to_owned()),
            nfs_server: Some("10.0.0.1".to_owned()),
            nodes: vec!["c001".to_owned(), "true".to_owned()],
            attributes: [("message".to_owned(), "1e3".to_owned())].into(),
            creation_date: Some("2026-05-17".to_owned()),
        }
    }

    #[test]
    fn every_attribute_survives_writing_and_reading() {
        let text = full().to_text().unwrap();
        assert_eq!(ImageData::parse(&text).unwrap(), full(), "{text}");
    }

    #[test]
    fn what_is_absent_stays_absent() {
        let data = ImageData { name: "a".to_owned(), ..ImageData::default() };
        assert_eq!(ImageData::parse(&data.to_text().unwrap()).unwrap(), data);
    }

    #[test]
    fn a_name_of_digits_is_a_text() {
        let text = "image_data:\n  name: 0042\n  image_class: LivenetImage\n  release_version: 8\n";
        let data = ImageData::parse(text).unwrap();
        assert_eq!((data.name.as_str(), data.release_version.as_deref()), ("0042", Some("8")));
    }

    #[test]
    fn the_original_s_file_is_read() {
        let text = "image_data:\n  name: livenet1\n  IMAGE_DIRECTORY: /var/www/html/x/livenet1\n  \
                    password: $6$abc$def\n  kernel: vmlinuz-4.18.0-147.el8.x86_64\n  \
                    image: initramfs-kernel-4.18.0-147.el8.x86_64\n  livenet_type: Type.CORE\n  \
                    livenet_size: 5120\n  selinux: False\n  optimize: True\n  ssh_pub_key: None\n  \
                    additional_packages: None\n  release_version: None\n  is_mounted: False\n  \
                    nodes:\n  image_class: LivenetImage\n  creation_date: 2021-03-04\n";
        let data = ImageData::parse(text).unwrap();
        assert_eq!(data.kernel_version(), Some("4.18.0-147.el8.x86_64"));
        assert_eq!(data.livenet_type, Some(LivenetType::Core));
        assert_eq!(data.livenet_size.map(ImageSize::megabytes), Some(5120));
        assert!(data.optimize && !data.selinux && data.ssh_pub_key.is_none());
        assert_eq!(data.creation_date.as_deref(), Some("2021-03-04"));
    }

    #[test]
    fn what_is_no_image_data_names_the_place() {
        let error = ImageData::parse("image_data:\n  image_class: X\n").unwrap_err();
        assert!(error.contains("name"), "{error}");
    }

    #[test]
    fn the_file_is_for_its_owner_s_eyes() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        full().write(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(DATA_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(ImageData::read(dir.path()).unwrap(), Some(full()));
    }
}
