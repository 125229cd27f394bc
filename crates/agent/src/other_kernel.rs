//! An image whose root is for another kernel than the one that runs: the node goes on with the phase 1
//! of that kernel, which the server has over HTTP, by kexec. What was chosen goes with it on the
//! command line, so that nobody is asked twice.
//!
//! What is executed is what the signed manifest names by SHA-256; the new phase 1 brings the lab's key
//! in its own initramfs, which is covered by that.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd as _;

use boot::kernel::Content;
use boot::manifest::Shell;
use boot::{Failure, Image, KernelVersion, Manifest, Phase1};

use crate::cmdline;
use crate::failed::Fails;
use crate::loader::{LoadFailure, kexec};
use crate::sources::{SourceError, Sources};

/// The most bytes of a kernel or an initramfs: those of phase 1 have 8 and 16 MiB at most.
const LEN_MAX: u64 = 128 << 20;

/// The word that says for which kernel this phase 1 was loaded: who comes to the same conclusion again
/// would do so for ever.
const WORD: &str = "boottorrent.kernel";

/// Why there is no such kernel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelFailure {
    /// The lab has none of this version.
    #[error("`{image}` is for the kernel {wanted}, this is {running}, and the lab has {offered}")]
    NotOffered {
        /// Which image.
        image: String,
        /// What it needs.
        wanted: KernelVersion,
        /// What runs.
        running: String,
        /// What there is.
        offered: String,
    },
    /// It was loaded and is another one.
    #[error("the phase 1 that the lab has for the kernel {wanted} runs {running}")]
    Another {
        /// What was wanted.
        wanted: KernelVersion,
        /// What runs.
        running: String,
    },
    /// It does not come.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What came is something else.
    #[error("{path} is not what the manifest names: it was altered on the way, or replaced")]
    Altered {
        /// What.
        path: String,
    },
    /// There is no room for it.
    #[error("no memory for the kernel")]
    Memory(#[source] io::Error),
    /// The running kernel does not take it.
    #[error(transparent)]
    Load(#[from] LoadFailure),
}

impl Fails for KernelFailure {
    fn failure(&self) -> Failure {
        match self {
            Self::NotOffered { .. } | Self::Another { .. } | Self::Source(_) => Failure::NoKernel,
            Self::Altered { .. } => Failure::ManifestAltered,
            Self::Memory(_) => Failure::NotEnoughMemory,
            Self::Load(error) => error.failure(),
        }
    }
}

/// The phase 1 that has to run before `image` can; none if what runs will do. `line` is the command
/// line of the running kernel.
///
/// # Errors
/// If the lab has no such phase 1.
pub(crate) fn needed<'a>(
    manifest: &'a Manifest,
    image: &Image,
    running: &str,
    line: &str,
) -> Result<Option<&'a Phase1>, KernelFailure> {
    let Some(wanted) = image.loader.shared_kernel() else { return Ok(None) };
    let offered = manifest.phase1(wanted);
    // A lab that does not say what its own phase 1 is means the one that runs.
    let Some(version) = wanted.or(offered.map(|phase1| &phase1.version)) else { return Ok(None) };
    if version.as_str() == running {
        return Ok(None);
    }
    let Some(phase1) = offered else {
        let versions: Vec<&str> =
            manifest.phase1.iter().map(|phase1| phase1.version.as_str()).collect();
        return Err(KernelFailure::NotOffered {
            image: image.name.to_string(),
            wanted: version.clone(),
            running: running.to_owned(),
            offered: if versions.is_empty() { "none".to_owned() } else { versions.join(", ") },
        });
    };
    let tried = format!("{WORD}={version}");
    if cmdline::split(line).contains(&tried) {
        let (wanted, running) = (version.clone(), running.to_owned());
        return Err(KernelFailure::Another { wanted, running });
    }
    Ok(Some(phase1))
}

/// Fetches it, verifies it and gives it to the running kernel, for [`kexec::start`].
///
/// # Errors
/// If any of that fails; nothing was changed then.
pub(crate) fn load(
    sources: &Sources,
    phase1: &Phase1,
    image: &Image,
    shell: &Shell,
    line: &str,
) -> Result<(), KernelFailure> {
    let kernel = fetch(sources, &phase1.vmlinuz_path(), phase1.vmlinuz)?;
    let initramfs = fetch(sources, &phase1.initramfs_path(), phase1.initramfs)?;
    let line = cmdline_of(line, &phase1.version, image, shell);
    let line = CString::new(line).map_err(|_| LoadFailure::CmdlineNul)?;
    let kernel = kexec::in_memory("vmlinuz", &kernel).map_err(KernelFailure::Memory)?;
    let initramfs = kexec::in_memory("initramfs", &initramfs).map_err(KernelFailure::Memory)?;
    Ok(kexec::load_files(kernel.as_fd(), Some(initramfs.as_fd()), &line)?)
}

fn fetch(sources: &Sources, path: &str, content: Content) -> Result<Vec<u8>, KernelFailure> {
    let len_max = usize::try_from(content.len.min(LEN_MAX)).unwrap_or(0);
    let bytes = sources.remote(path.trim_start_matches('/'), len_max)?;
    match content.is(&bytes) {
        true => Ok(bytes),
        false => Err(KernelFailure::Altered { path: path.to_owned() }),
    }
}

/// The command line for the other phase 1: the words of this one but for what was for this one alone.
fn cmdline_of(line: &str, version: &KernelVersion, image: &Image, shell: &Shell) -> String {
    let own = [
        "initrd=",
        "BOOT_IMAGE=",
        "boottorrent.choice=",
        "boottorrent.kernel=",
        "boottorrent.noshell",
    ];
    let kept = cmdline::split(line)
        .into_iter()
        .filter(|word| !own.iter().any(|own| word.starts_with(own)));
    let quoted = kept.map(|word| match word.contains(char::is_whitespace) {
        true => format!("\"{word}\""),
        false => word,
    });
    let added = [format!("boottorrent.choice={}", image.name), format!("{WORD}={version}")];
    // That phase 1 has no manifest in its initramfs, and must not be a way around this one.
    let guard = (!shell.is_allowed()).then(|| "boottorrent.noshell".to_owned());
    quoted.chain(added).chain(guard).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot::Loader;

    fn phase1(version: &str) -> Phase1 {
        let content = Content { len: 1, sha256: [0; 32] };
        Phase1 { version: version.parse().unwrap(), vmlinuz: content, initramfs: content }
    }

    fn image(kernel_version: Option<&str>) -> Image {
        Image {
            name: "debian".parse().unwrap(),
            title: String::new(),
            description: String::new(),
            password: None,
            len: 1,
            infohash: [0; 32],
            loader: Loader::Livenet {
                rootfs: "squashfs.img".parse().unwrap(),
                kernel_version: kernel_version.map(|version| version.parse().unwrap()),
                cmdline: String::new(),
            },
        }
    }

    /// The phase 1 that is needed where 6.1 runs.
    fn check(
        offered: &[&str],
        wanted: Option<&str>,
        line: &str,
        expect: Result<Option<&str>, &str>,
    ) {
        let mut manifest = crate::choose::tests::manifest(None);
        manifest.phase1 = offered.iter().map(|version| phase1(version)).collect();
        let image = image(wanted);
        let found = needed(&manifest, &image, "6.1", line);
        match (found, expect) {
            (Ok(found), Ok(expect)) => {
                assert_eq!(found.map(|phase1| phase1.version.as_str()), expect);
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expect) => panic!("{found:?} is not {expect:?}"),
        }
    }

    #[test]
    fn another_kernel_is_needed_where_the_image_is_for_it() {
        check(&["6.1", "6.12"], Some("6.1"), "", Ok(None));
        check(&["6.1", "6.12"], Some("6.12"), "", Ok(Some("6.12")));
        check(&["6.12", "6.1"], None, "", Ok(Some("6.12")));
        check(&["6.1", "6.12"], None, "", Ok(None));
        check(&[], None, "", Ok(None));
        check(&["6.1"], Some("6.9"), "", Err("the lab has 6.1"));
        check(&[], Some("6.9"), "", Err("the lab has none"));
    }

    #[test]
    fn a_kernel_that_is_not_what_it_says_is_loaded_once() {
        let line = "quiet boottorrent.kernel=6.12";
        check(&["6.12"], Some("6.12"), line, Err("runs 6.1"));
        check(&["6.12", "6.9"], Some("6.9"), line, Ok(Some("6.9")));
    }

    #[test]
    fn the_choice_goes_along() {
        let line = "initrd=initramfs.img initrd=lab.cpio quiet a=\"b c\" boottorrent.choice=x";
        let expect = "quiet \"a=b c\" boottorrent.choice=debian boottorrent.kernel=6.12";
        let found = |shell| cmdline_of(line, &"6.12".parse().unwrap(), &image(None), shell);
        assert_eq!(found(&Shell::Allowed), expect);
        assert_eq!(found(&Shell::Forbidden), format!("{expect} boottorrent.noshell"));
    }
}
