//! Which image this node boots: the operator's word for this boot, else what the lab has decided for
//! the node, else what the person at the node chooses, else the default.

use boot::{Failure, Image, ImageName, Mac, Manifest};

use crate::failed::Fails;

/// An image to be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// What.
    pub(crate) image: Image,
    /// Added to the image's command line for this node.
    pub(crate) cmdline: String,
    /// What the lab calls this node, if it has decided something for it.
    pub(crate) name: Option<String>,
    /// Who decided it, for people.
    pub(crate) by: By,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// `boottorrent.image` on the kernel command line.
    CommandLine,
    /// The lab, for this node.
    Assignment,
    /// The person at the node.
    Menu,
    /// Nobody: it is the default.
    Default,
}

impl By {
    /// The word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CommandLine => "command-line",
            Self::Assignment => "assignment",
            Self::Menu => "menu",
            Self::Default => "default",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// This.
    Boot(Box<Choice>),
    /// To ask, for so many seconds or for ever.
    Ask(Option<u64>),
}

/// The image is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}`, which {by} names, is not offered; there is {offered}")]
pub(crate) struct NoSuchImage {
    name: ImageName,
    by: &'static str,
    offered: String,
}

impl Fails for NoSuchImage {
    fn failure(&self) -> Failure {
        Failure::NoSuchImage
    }
}

/// Decides, or says that somebody is to be asked. `earlier` is what was chosen at an earlier
/// attempt: nobody is asked twice, unless that image is gone.
///
/// # Errors
/// If the command line names an image that the manifest does not offer.
pub(crate) fn decide(
    manifest: &Manifest,
    wanted: Option<&ImageName>,
    mac: Option<Mac>,
    earlier: Option<&(ImageName, By)>,
) -> Result<Decision, NoSuchImage> {
    let boot = |image: &Image, by| Decision::Boot(Box::new(choice(manifest, image, mac, by)));
    if let Some(name) = wanted {
        let image = manifest.image(name).filter(|image| image.is_system());
        let image = image.ok_or_else(|| NoSuchImage {
            name: name.clone(),
            by: "`boottorrent.image` on the command line",
            offered: offered(manifest),
        })?;
        return Ok(boot(image, By::CommandLine));
    }
    // A manifest names only images that it describes.
    let assigned = mac.and_then(|mac| manifest.assignment(mac));
    if let Some(image) = assigned.and_then(|assigned| manifest.image(&assigned.image)) {
        return Ok(boot(image, By::Assignment));
    }
    if let Some((image, by)) =
        earlier.and_then(|(name, by)| manifest.image(name).map(|image| (image, *by)))
    {
        return Ok(boot(image, by));
    }
    match (manifest.menu.timeout_s, manifest.image(&manifest.menu.default)) {
        (Some(0), Some(image)) if image.password.is_none() => Ok(boot(image, By::Default)),
        (timeout_s, _) => Ok(Decision::Ask(timeout_s)),
    }
}

/// The choice of `image` for the node `mac`. What the lab adds to the command line is meant for the
/// image that it assigned.
pub(crate) fn choice(manifest: &Manifest, image: &Image, mac: Option<Mac>, by: By) -> Choice {
    let assigned = mac.and_then(|mac| manifest.assignment(mac));
    let name = assigned.and_then(|assigned| assigned.name.clone());
    let cmdline = assigned
        .filter(|assigned| assigned.image == image.name)
        .map_or_else(String::new, |assigned| assigned.cmdline.clone());
    Choice { image: image.clone(), cmdline, name, by }
}

/// The most names in an error.
const OFFERED_MAX: usize = 10;

fn offered(manifest: &Manifest) -> String {
    let systems = || manifest.images.iter().filter(|image| image.is_system());
    let names: Vec<&str> = systems().take(OFFERED_MAX).map(|image| image.name.as_str()).collect();
    let more = if systems().count() > OFFERED_MAX { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use boot::Loader;
    use boot::manifest::{Assignment, Discovery, Menu, VERSION};

    pub(crate) fn manifest(timeout_s: Option<u64>) -> Manifest {
        let image = |name: &str| Image {
            name: name.parse().unwrap(),
            title: format!("The {name}"),
            description: String::new(),
            password: None,
            len: 5 << 20,
            infohash: [0; 32],
            loader: Loader::Unknown,
        };
        Manifest {
            version: VERSION,
            serial: 1,
            menu: Menu { default: "debian".parse().unwrap(), timeout_s, shell: Default::default() },
            seed_time_s: 0,
            seed_auto: false,
            keymap: None,
            discovery: Discovery { lsd: false, pex: false },
            images: ["arch", "debian", "memtest"].map(image).to_vec(),
            phase1: vec![],
            booted_upload_limit_bytes_per_s: None,
            assignments: vec![Assignment {
                mac: mac(1),
                image: "arch".parse().unwrap(),
                cmdline: "node=1".to_owned(),
                name: None,
            }],
        }
    }

    fn mac(number: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, number])
    }

    /// The image, what is added to its command line, and who decided; or how long to ask.
    fn check(
        (wanted, node, earlier): (Option<&str>, u8, Option<&str>),
        timeout_s: Option<u64>,
        expect: Result<(&str, &str, By), Option<u64>>,
    ) {
        let wanted = wanted.map(|name| name.parse().unwrap());
        let earlier = earlier.map(|name| (name.parse().unwrap(), By::Menu));
        let manifest = manifest(timeout_s);
        let found = decide(&manifest, wanted.as_ref(), Some(mac(node)), earlier.as_ref()).unwrap();
        let found = match &found {
            Decision::Boot(choice) => {
                Ok((choice.image.name.as_str(), choice.cmdline.as_str(), choice.by))
            }
            Decision::Ask(timeout_s) => Err(*timeout_s),
        };
        assert_eq!(found, expect);
    }

    #[test]
    fn the_operator_goes_before_the_lab_and_the_lab_before_the_person() {
        check((Some("memtest"), 1, None), Some(0), Ok(("memtest", "", By::CommandLine)));
        check((Some("arch"), 1, None), Some(0), Ok(("arch", "node=1", By::CommandLine)));
        check((None, 1, Some("memtest")), Some(9), Ok(("arch", "node=1", By::Assignment)));
        check((None, 2, Some("memtest")), Some(9), Ok(("memtest", "", By::Menu)));
    }

    #[test]
    fn nobody_is_asked_when_there_is_no_time_to_answer() {
        check((None, 2, None), Some(0), Ok(("debian", "", By::Default)));
        check((None, 2, None), Some(30), Err(Some(30)));
        check((None, 2, None), None, Err(None));
    }

    #[test]
    fn somebody_is_asked_where_the_default_needs_a_password() {
        let mut manifest = manifest(Some(0));
        manifest.images[1].password = Some(boot::PasswordHash::of("x", [1; 16]).unwrap());
        let asked = decide(&manifest, None, Some(mac(2)), None).unwrap();
        assert_eq!(asked, Decision::Ask(Some(0)));
        let mut menu = crate::menu::Menu::new(&manifest, Some(0));
        assert_eq!(menu.pass(std::time::Duration::from_secs(9)), None);
        // What the lab has assigned is not asked for.
        manifest.images[0].password = manifest.images[1].password.clone();
        assert!(matches!(decide(&manifest, None, Some(mac(1)), None), Ok(Decision::Boot(_))));
    }

    #[test]
    fn an_image_that_is_gone_is_not_booted_again() {
        check((None, 2, Some("gone")), Some(30), Err(Some(30)));
        let wanted = "gone".parse().unwrap();
        let error = decide(&manifest(Some(0)), Some(&wanted), None, None).unwrap_err();
        assert_eq!(error.failure(), Failure::NoSuchImage);
        assert!(error.to_string().ends_with("there is arch, debian, memtest"), "{error}");
    }
}
