//! What is done with whole images: make, copy, rename, give another kernel or size, publish anew. Each
//! makes a version beside the one that nodes boot and exchanges the two, or changes nothing.

use std::path::Path;

use boot::ImageName;

use crate::catalogue::{Build, Catalogue, Purpose};
use crate::command::Work;
use crate::data::ImageData;
use crate::edit;
use crate::error::ImageError;
use crate::host;
use crate::kernels;
use crate::kind::{self, Kind, livenet, nfs};
use crate::size::ImageSize;
use crate::tree::root::Tree;
use crate::tree::{customize, password, squash};

/// The attribute with the megabytes that a live image holds unpacked.
pub const CONTENT_MB: &str = "content_mb";

/// The most bytes of the public half of an SSH key, and of a file of some of them.
const SSH_KEY_LEN_MAX: u64 = 64 << 10;

/// Makes an image; the number of its version.
///
/// # Errors
/// If anything that goes into it is missing or wrong; nothing is left then.
pub fn create(
    catalogue: &Catalogue,
    kind: &dyn Kind,
    mut data: ImageData,
    work: &Work<'_>,
) -> Result<u32, ImageError> {
    let build = catalogue.begin(&data.name, kind.class(), Purpose::Create)?;
    read_key(&mut data)?;
    kind.create(&build, &mut data, work)?;
    note_content(&build, &mut data)?;
    publish_build(build, kind, data, work)
}

/// Reads the SSH key whose file was named.
fn read_key(data: &mut ImageData) -> Result<(), ImageError> {
    let Some(file) = &data.ssh_pub_key else { return Ok(()) };
    let file = Path::new(file);
    let metadata = host::metadata(file).map_err(ImageError::read(file))?;
    if metadata.len() > SSH_KEY_LEN_MAX {
        let message = format!("is longer than {SSH_KEY_LEN_MAX} bytes: is it a public key?");
        return Err(ImageError::Data { file: file.to_owned(), message });
    }
    let key = host::read_to_string(file).map_err(ImageError::read(file))?;
    if key.contains("PRIVATE KEY") {
        let message = "is a private key, which must not be in an image: name the .pub file";
        return Err(ImageError::Data { file: file.to_owned(), message: message.to_owned() });
    }
    data.attributes.insert(crate::tree::SSH_KEY.to_owned(), key.trim().to_owned());
    Ok(())
}

/// Remembers what a tree holds, so that another size can be judged without unpacking it.
fn note_content(build: &Build<'_>, data: &mut ImageData) -> Result<(), ImageError> {
    let tree = Tree::new(build.scratch(livenet::TREE));
    if host::is_dir(tree.whole()) {
        let megabytes = tree.root()?.content()? >> 20;
        data.attributes.insert(CONTENT_MB.to_owned(), megabytes.to_string());
    }
    Ok(())
}

/// Writes how nodes boot it, and lets it take its place.
fn publish_build(
    build: Build<'_>,
    kind: &dyn Kind,
    data: ImageData,
    work: &Work<'_>,
) -> Result<u32, ImageError> {
    work.step("publishing")?;
    let entry = kind.boot_entry(&data);
    let out = build.output();
    let write = |name: &str, text: &str| {
        let file = out.join(name);
        host::write(&file, text).map_err(ImageError::write(&file))
    };
    write("config.yaml", &entry.config)?;
    if let Some(script) = &entry.script {
        write("boot.ipxe", script)?;
    }
    build.publish(data)
}

fn kind_of(data: &ImageData) -> Result<&'static dyn Kind, ImageError> {
    let kind = kind::of_class(&data.image_class);
    kind.ok_or_else(|| ImageError::NoSuchKind(data.image_class.clone()))
}

/// Makes a copy under another name.
///
/// # Errors
/// If there is no such image, or the name is taken.
pub fn clone(
    catalogue: &Catalogue,
    from: &str,
    to: &str,
    work: &Work<'_>,
) -> Result<u32, ImageError> {
    catalogue.clean()?;
    catalogue.refuse_busy(from)?;
    let mut data = catalogue.data(from)?;
    let kind = kind_of(&data)?;
    let build = catalogue.begin(to, kind.class(), Purpose::Create)?;
    if data.dispname.as_deref() == Some(from) || data.dispname.is_none() {
        data.dispname = None;
    } else if let Some(title) = &mut data.dispname {
        // Titles are unique in a lab.
        title.push_str(&format!(" ({to})"));
    }
    to.clone_into(&mut data.name);
    kind.copy(from, &build, &mut data, work)?;
    publish_build(build, kind, data, work)
}

/// Gives an image another name: a copy takes the new one, then the old is removed, so that there is a
/// whole image at each moment.
///
/// # Errors
/// As [`clone`] and [`Catalogue::remove`].
pub fn rename(
    catalogue: &Catalogue,
    from: &str,
    to: &str,
    work: &Work<'_>,
) -> Result<(), ImageError> {
    let title = catalogue.data(from)?.dispname;
    edit::refuse_mounted(catalogue, from)?;
    clone(catalogue, from, to, work)?;
    catalogue.remove(from)?;
    // The old title is free again.
    match title {
        Some(title) if title != from => publish(catalogue, to, Some(title), None, work).map(drop),
        _ => Ok(()),
    }
}

/// Makes a version of the same files with another title or command line.
///
/// # Errors
/// If there is no such image.
pub fn publish(
    catalogue: &Catalogue,
    name: &str,
    title: Option<String>,
    cmdline: Option<String>,
    work: &Work<'_>,
) -> Result<u32, ImageError> {
    change(catalogue, name, work, |data| {
        data.dispname = title.or(data.dispname.take());
        data.cmdline = cmdline.or(data.cmdline.take());
        Ok(())
    })
}

/// Gives a live image another size, if what it holds fits.
///
/// # Errors
/// If it does not fit, is mounted, or has no size.
pub fn resize(
    catalogue: &Catalogue,
    name: &str,
    size: Option<ImageSize>,
    work: &Work<'_>,
) -> Result<u32, ImageError> {
    edit::refuse_mounted(catalogue, name)?;
    change(catalogue, name, work, |data| {
        let content = data.attributes.get(CONTENT_MB).and_then(|it| it.parse::<u64>().ok());
        let Some(content_mb) = content else {
            return Err(ImageError::Wrong(format!("`{name}` is no live image, it has no size")));
        };
        if let Some(size) = size
            && content_mb >= u64::from(size.megabytes())
        {
            let (name, size_mb) = (name.to_owned(), size.megabytes());
            return Err(ImageError::TooLarge { name, content_mb, size_mb });
        }
        data.livenet_size = size;
        Ok(())
    })
}

/// A version with the same files and other attributes.
fn change(
    catalogue: &Catalogue,
    name: &str,
    work: &Work<'_>,
    change: impl FnOnce(&mut ImageData) -> Result<(), ImageError>,
) -> Result<u32, ImageError> {
    catalogue.clean()?;
    let mut data = catalogue.data(name)?;
    let kind = kind_of(&data)?;
    let build = catalogue.begin(name, kind.class(), Purpose::Change)?;
    change(&mut data)?;
    if data.image_class == livenet::Livenet.class() {
        kind.copy(name, &build, &mut data, work)?;
    } else if data.image_class == kind::demo::Demo.class() {
        kind.create(&build, &mut data, work)?;
    }
    publish_build(build, kind, data, work)
}

/// Has an image run on another kernel, whose modules come into its tree.
///
/// # Errors
/// If there is no such kernel or image, or it is mounted.
pub fn set_kernel(
    catalogue: &Catalogue,
    name: &str,
    version: &str,
    work: &Work<'_>,
) -> Result<u32, ImageError> {
    crate::command::need_root("changing a tree of files that belong to root")?;
    edit::refuse_mounted(catalogue, name)?;
    let mut data = catalogue.data(name)?;
    let kind = kind_of(&data)?;
    let build = catalogue.begin(name, kind.class(), Purpose::Change)?;
    let lab = catalogue.lab();
    let tree = match data.image_class.as_str() {
        "LivenetImage" => {
            let tree = Tree::new(build.scratch(livenet::TREE));
            squash::unpack(livenet::packed(catalogue, name)?, &tree, work)?;
            tree
        }
        "NfsStagingImage" => Tree::new(nfs::staging_tree(lab, name)),
        "NfsGoldenImage" => Tree::new(nfs::golden_tree(lab, name)),
        _ => return Err(ImageError::Wrong(format!("`{name}` has no kernel of its own"))),
    };
    let version = kernels::settle(lab, &tree, Some(version), work)?;
    data.kernel = Some(version.to_string());
    finish_tree(&tree, &build, &mut data, work)?;
    publish_build(build, kind, data, work)
}

/// Writes the name of the version into a tree that was changed, and packs it if it is a live image's.
fn finish_tree(
    tree: &Tree,
    build: &Build<'_>,
    data: &mut ImageData,
    work: &Work<'_>,
) -> Result<(), ImageError> {
    customize::name_in(tree, data)?;
    if data.image_class == livenet::Livenet.class() {
        livenet::pack(tree, build, data, work)?;
        let megabytes = tree.root()?.content()? >> 20;
        data.attributes.insert(CONTENT_MB.to_owned(), megabytes.to_string());
    }
    Ok(())
}

/// Makes a version of a tree that was edited.
pub(crate) fn publish_tree(
    catalogue: &Catalogue,
    name: &str,
    tree: &Tree,
    work: &Work<'_>,
) -> Result<u32, ImageError> {
    let mut data = catalogue.data(name)?;
    let kind = kind_of(&data)?;
    let build = catalogue.begin(name, kind.class(), Purpose::Change)?;
    // A kernel that was installed meanwhile is not taken unasked; the one it ran on must be there.
    kernels::settle(catalogue.lab(), tree, data.kernel_version(), work)?;
    finish_tree(tree, &build, &mut data, work)?;
    publish_build(build, kind, data, work)
}

/// Reads a file of parameters, of which the original's are read as they are. A password in clear is
/// turned into its hash here and goes no further.
///
/// # Errors
/// With what is missing or wrong.
pub fn parameters(text: &str) -> Result<ImageData, ImageError> {
    let wrong = |message: String| ImageError::Wrong(format!("the parameters: {message}"));
    let mut data = ImageData::parse(text).map_err(wrong)?;
    let name: Result<ImageName, _> = data.name.parse();
    name.map_err(|error| wrong(error.to_string()))?;
    kind_of(&data)?;
    if let Some(password) = &data.password
        && !password::is_hash(password)
    {
        data.password = Some(password::hash(password).map_err(wrong)?);
    }
    // What only an image that is there can have.
    data.version = 0;
    data.is_mounted = false;
    data.nodes.clear();
    Ok(data)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::command::Event;
    use crate::command::tests::with_work;
    use crate::kind::demo::{Demo, MESSAGE};

    fn demo(name: &str) -> ImageData {
        ImageData { name: name.to_owned(), ..ImageData::default() }
    }

    #[test]
    fn a_demo_is_made_changed_copied_and_renamed() {
        let lab = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::new(lab.path());
        with_work(|work| {
            let mut data = demo("7");
            data.attributes.insert(MESSAGE.to_owned(), "it's me".to_owned());
            assert_eq!(create(&catalogue, &Demo, data, work).unwrap(), 1);
            let title = Some("Seven".to_owned());
            assert_eq!(publish(&catalogue, "7", title, None, work).unwrap(), 2);
            clone(&catalogue, "7", "8", work).unwrap();
            rename(&catalogue, "7", "9", work).unwrap();
        });
        let listed = catalogue.list().unwrap();
        let listed: Vec<_> = listed.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(listed, ["8", "9"]);
        let text =
            |name: &str, file: &str| fs::read_to_string(catalogue.folder(name).join(file)).unwrap();
        assert_eq!(text("9", "hello"), "#!/bin/busybox sh\necho 'it'\\''s me'\n");
        assert!(text("8", "config.yaml").starts_with("dispname: \"Seven (8)\"\n"));
        assert!(text("9", "config.yaml").starts_with("dispname: \"Seven\"\n"));
        assert_eq!(catalogue.data("8").unwrap().name, "8");
    }

    #[test]
    fn a_name_that_is_taken_is_refused_before_anything_is_done() {
        let lab = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::new(lab.path());
        fs::create_dir_all(catalogue.folder("by-hand")).unwrap();
        let steps = RefCell::new(0);
        let count = |_: Event<'_>| *steps.borrow_mut() += 1;
        let work = Work { tell: &count, stop: &AtomicBool::new(false) };
        let error = create(&catalogue, &Demo, demo("by-hand"), &work).unwrap_err();
        assert!(matches!(error, ImageError::Exists(_)), "{error}");
        assert_eq!(*steps.borrow(), 0);
    }

    #[test]
    fn work_that_is_to_end_leaves_nothing() {
        let lab = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::new(lab.path());
        let work = Work { tell: &|_| {}, stop: &AtomicBool::new(true) };
        let error = create(&catalogue, &Demo, demo("a"), &work).unwrap_err();
        assert!(error.to_string().contains("interrupted"), "{error}");
        assert_eq!(catalogue.list().unwrap(), []);
    }

    #[test]
    fn a_missing_or_private_key_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let check = |file: &Path, expect: &str| {
            let mut data = demo("a");
            data.ssh_pub_key = Some(file.display().to_string());
            let error = read_key(&mut data).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(&dir.path().join("none.pub"), "none.pub");
        let private = dir.path().join("id");
        fs::write(&private, "-----BEGIN OPENSSH PRIVATE KEY-----").unwrap();
        check(&private, "is a private key");
    }

    #[test]
    fn a_file_of_parameters_never_keeps_the_password() {
        let text = "image_data:\n  name: livenet1\n  password: secret\n  \
                    kernel: vmlinuz-4.18.0\n  livenet_type: Type.SMALL\n  livenet_size: 2048\n  \
                    optimize: True\n  selinux: False\n  image_class: LivenetImage\n  \
                    additional_packages:\n    - vim\n    - htop\n";
        let data = parameters(text).unwrap();
        assert!(data.password.as_deref().is_some_and(password::is_hash));
        assert_eq!(data.additional_packages, ["vim", "htop"]);
        assert_eq!(data.kernel_version(), Some("4.18.0"));
    }

    #[test]
    fn parameters_that_lack_something_or_are_wrong_say_what() {
        let check = |text: &str, expect: &str| {
            let error = parameters(text).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("image_data:\n  image_class: LivenetImage\n", "name");
        check("image_data:\n  name: a\n", "image_class");
        check("image_data:\n  name: a b\n  image_class: LivenetImage\n", "cannot name an image");
        check("image_data:\n  name: a\n  image_class: Other\n", "Other");
        let typed =
            "image_data:\n  name: a\n  image_class: LivenetImage\n  livenet_type: Type.BIG\n";
        check(typed, "Type.BIG");
        let sized = "image_data:\n  name: a\n  image_class: LivenetImage\n  livenet_size: 99\n";
        check(sized, "100 to 50000 MB");
    }
}
