//! The script that iPXE runs on a node. Text that a stranger can influence gets into it only after
//! it was parsed: an Ethernet address, never the text that was sent as one.

use std::borrow::Cow;

use boot::{Arch, Firmware, Mac};
use minijinja::{Environment, UndefinedBehavior, context};
use percent_encoding::percent_decode_str;

use super::boots::{Boot, Boots};
use super::next_boots::NextBoot;
use crate::fleet::ScriptAsked;

/// The most characters of a query that are looked at: four fields of an address, a UUID and two
/// words are 120.
const QUERY_LEN_MAX: usize = 1_024;

/// How iPXE asks for its script: it fills the settings in. `netX` is the interface that it booted
/// from, which need not be the first.
const ASK: &str = "mac=${netX/mac}&uuid=${uuid}&arch=${buildarch}&platform=${platform}";

/// What the query of a node has in it that waits to be accepted: it needs an answer also if it is to be
/// left alone, or would ask for ever.
const WAITS: &str = "waits=1";

/// Whether a node asks that was told to wait.
pub(super) fn waits(query: &str) -> bool {
    query.split('&').any(|pair| pair == WAITS)
}

/// What a script is made of, besides who asks.
#[derive(Clone, Debug)]
pub(crate) struct ScriptSettings {
    /// Where nodes fetch over HTTP, without a slash at the end.
    pub(crate) base: String,
    /// Added to the kernel command line of phase 1.
    pub(crate) cmdline: String,
    /// What phase 1 was built for.
    pub(crate) arch: Arch,
    /// What differs between nodes.
    pub(crate) boots: Boots,
}

/// A query that no script of ours sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ethernet address in `mac`: leave it out, or write it like 52:54:00:12:34:56")]
pub(crate) struct QueryError;

/// Reads who asks; `None` if the query does not say, as when the name of the script came by DHCP.
///
/// # Errors
/// If `mac` is there and is no Ethernet address.
pub(crate) fn parse(query: &str) -> Result<Option<ScriptAsked>, QueryError> {
    if query.len() > QUERY_LEN_MAX {
        return Err(QueryError);
    }
    let field = |name: &str| -> Option<Cow<'_, str>> {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, value)| *key == name && !value.is_empty())?;
        percent_decode_str(value).decode_utf8().ok()
    };
    let Some(mac) = field("mac") else {
        return Ok(None);
    };
    let mac: Mac = mac.parse().map_err(|_| QueryError)?;
    let firmware = match field("platform").as_deref() {
        Some("pcbios") => Some(Firmware::Bios),
        Some("efi") => Some(Firmware::Uefi),
        _ => None,
    };
    let arch = match (field("arch").as_deref(), firmware) {
        (Some("x86_64"), _) => Some(Arch::X86_64),
        (Some("arm64"), _) => Some(Arch::Arm64),
        // iPXE for a BIOS is a 32-bit program on every machine that has one, and those are of one kind.
        (Some("i386"), Some(Firmware::Bios)) => Some(Arch::X86_64),
        _ => None,
    };
    let uuid = field("uuid").filter(|uuid| is_uuid(uuid)).map(|uuid| uuid.to_ascii_lowercase());
    Ok(Some(ScriptAsked { mac, uuid, arch, firmware, address: None }))
}

/// Boards without one say zeros, or ones.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && !["00000000-0000-", "ffffffff-ffff-"].iter().any(|blank| text.starts_with(blank))
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// What a script says to one node alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// What the configuration calls it.
    pub(super) name: Option<String>,
    /// What it boots once.
    pub(super) next: Option<NextBoot>,
    /// Its secret for this boot, if it is sure that it is the node which asks.
    pub(super) proof: Option<String>,
}

/// The script for who asks.
///
/// # Errors
/// If a template is wrong, which the tests would have shown.
pub(crate) fn render(
    settings: &ScriptSettings,
    asked: Option<&ScriptAsked>,
    told: &Told,
) -> Result<String, minijinja::Error> {
    let (name, next) = (told.name.as_deref(), told.next.as_ref());
    let base = settings.base.as_str();
    let chain = format!("chain --replace {base}/boot.ipxe?{ASK}");
    let mut templates = Environment::new();
    // An iPXE script has no quoting that a template engine knows, and nothing that needs any.
    templates.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    let Some(asked) = asked else {
        return whole(templates.render_str(include_str!("who.ipxe.j2"), context! { base, chain }));
    };
    if asked.arch.is_some_and(|arch| arch != settings.arch) {
        let reason = "this server has no phase 1 for the architecture of this node";
        let script =
            templates.render_str(include_str!("other.ipxe.j2"), context! { chain, reason });
        return whole(script);
    }
    let mac = asked.mac.to_string();
    let boot = match settings.boots.of_asker(asked, next) {
        Boot::Disk => {
            let known = context! { mac, name, chain };
            return whole(templates.render_str(include_str!("disk.ipxe.j2"), known));
        }
        Boot::Classic(boot) => {
            let (image, cmdline) = (boot.image.as_str(), one_line(&[&boot.cmdline]));
            let known = context! { base, chain, mac, name, image, cmdline };
            return whole(templates.render_str(include_str!("classic.ipxe.j2"), known));
        }
        Boot::Wait => {
            let known = context! { mac, chain, waits => WAITS };
            return whole(templates.render_str(include_str!("wait.ipxe.j2"), known));
        }
        Boot::Later(image) => {
            let reason = format!("{image}, which this node boots, is being hashed by the server");
            let known = context! { chain, reason };
            return whole(templates.render_str(include_str!("other.ipxe.j2"), known));
        }
        Boot::Leave => {
            let known = context! { mac };
            return whole(templates.render_str(include_str!("leave.ipxe.j2"), known));
        }
        Boot::Phase1(boot) => boot,
    };
    let (cmdline, folder) = (one_line(&[&settings.cmdline, &boot.cmdline]), &boot.folder);
    let proof = told.proof.as_deref();
    let known = context! { base, chain, mac, name, proof, cmdline, folder };
    whole(templates.render_str(include_str!("boot.ipxe.j2"), known))
}

/// One line, whatever the configuration says.
fn one_line(texts: &[&str]) -> String {
    texts.iter().flat_map(|text| text.split_whitespace()).collect::<Vec<_>>().join(" ")
}

/// The engine drops the newline at the end of a template.
fn whole(script: Result<String, minijinja::Error>) -> Result<String, minijinja::Error> {
    script.map(|script| script + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::settings::Unknown;

    fn settings() -> ScriptSettings {
        ScriptSettings {
            base: "http://192.168.1.1:8080".to_owned(),
            cmdline: "console=tty0  console=ttyS0,115200\n".to_owned(),
            arch: Arch::X86_64,
            boots: Boots::default(),
        }
    }

    fn called(name: Option<&str>) -> Told {
        Told { name: name.map(str::to_owned), ..Told::default() }
    }

    fn check(query: &str, name: Option<&str>, expect: &str) {
        let asked = parse(query).unwrap();
        let script = render(&settings(), asked.as_ref(), &called(name)).unwrap();
        assert_eq!(script, expect, "{query}");
    }

    const FULL: &str = "mac=52%3A54%3a00:12:34:AB&uuid=4C4C4544-0035-5A10-8057-B9C04F4A3332&arch=x86_64&platform=efi";

    #[test]
    fn a_node_that_boots_the_classic_way_is_sent_to_the_script_of_its_image() {
        let mut settings = settings();
        settings.boots = Boots::classic_for_tests("525400123456".parse().unwrap(), "live", "a\nb");
        let asked = parse("mac=525400123456").unwrap();
        let script = render(&settings, asked.as_ref(), &called(Some("c001"))).unwrap();
        assert_eq!(
            script,
            "\
#!ipxe
# BootTorrent: 52:54:00:12:34:56 (c001) boots live with the initramfs of its distribution.
echo BootTorrent: c001 boots live the classic way
set boottorrent http://192.168.1.1:8080
set hostname c001
set dedicated-kernel-parameters a b
chain --autofree http://192.168.1.1:8080/classic/live.ipxe || goto failed
:failed
echo BootTorrent: live could not be loaded; trying again in 5 s
:again
sleep 5
chain --replace http://192.168.1.1:8080/boot.ipxe?mac=${netX/mac}&uuid=${uuid}&arch=${buildarch}&platform=${platform} || goto again
"
        );
        let unnamed = render(&settings, asked.as_ref(), &Told::default()).unwrap();
        assert!(!unnamed.contains("set hostname"), "{unnamed}");
    }

    #[test]
    fn a_node_gets_phase_1() {
        check(
            FULL,
            None,
            "\
#!ipxe
# BootTorrent: phase 1 for 52:54:00:12:34:ab.
# Nobody may be at the keyboard, and the server may be starting: what fails is tried again for ever.
echo BootTorrent: 52:54:00:12:34:ab loads phase 1 from http://192.168.1.1:8080
imgfree
kernel http://192.168.1.1:8080/phase1/vmlinuz initrd=initramfs.img initrd=lab.cpio boottorrent.server=http://192.168.1.1:8080 boottorrent.mac=52:54:00:12:34:ab console=tty0 console=ttyS0,115200 || goto failed
initrd http://192.168.1.1:8080/phase1/initramfs.img || goto failed
initrd http://192.168.1.1:8080/lab.cpio || goto failed
boot || goto failed
:failed
echo BootTorrent: phase 1 could not be loaded from http://192.168.1.1:8080; trying again in 5 s
:again
sleep 5
chain --replace http://192.168.1.1:8080/boot.ipxe?mac=${netX/mac}&uuid=${uuid}&arch=${buildarch}&platform=${platform} || goto again
",
        );
    }

    #[test]
    fn a_node_that_is_sure_to_be_itself_gets_its_secret_for_phase_1_alone() {
        let asked = parse("mac=525400123456").unwrap();
        let told = Told { proof: Some("1a-2b".to_owned()), ..Told::default() };
        let script = render(&settings(), asked.as_ref(), &told).unwrap();
        assert_eq!(script.matches("boottorrent.proof=1a-2b ").count(), 1, "{script}");
        let mut settings = settings();
        settings.boots = Boots::classic_for_tests("525400123456".parse().unwrap(), "live", "");
        let script = render(&settings, asked.as_ref(), &told).unwrap();
        assert!(!script.contains("1a-2b"), "{script}");
    }

    #[test]
    fn a_node_that_has_a_name_reads_it_on_its_screen() {
        let asked = parse("mac=525400123456").unwrap();
        let script = render(&settings(), asked.as_ref(), &called(Some("c001"))).unwrap();
        assert!(script.contains("# BootTorrent: phase 1 for 52:54:00:12:34:56 (c001).\n"));
        assert!(script.contains(" boottorrent.node=c001 "));
        assert!(script.contains("\necho BootTorrent: c001 loads phase 1 from"));
    }

    #[test]
    fn a_node_that_is_to_boot_from_its_disk_loads_nothing() {
        let asked = parse("mac=525400123456").unwrap();
        let told = Told { next: Some(NextBoot::Disk), ..Told::default() };
        let script = render(&settings(), asked.as_ref(), &told).unwrap();
        assert!(
            script.contains("\nsanboot --no-describe --drive 0x80 || goto failed\n"),
            "{script}"
        );
        assert!(!script.contains("vmlinuz"), "{script}");
    }

    #[test]
    fn a_node_that_is_not_accepted_waits_and_asks_again() {
        let asked = parse(FULL).unwrap();
        let boots = Boots::for_strangers(Unknown::Wait, &[]);
        let settings = ScriptSettings { boots, ..settings() };
        let script = render(&settings, asked.as_ref(), &Told::default()).unwrap();
        assert!(script.contains("boottorrent node accept 52:54:00:12:34:ab\n"), "{script}");
        assert!(script.contains("\nsleep 3\nchain --replace http://192.168.1.1:8080/boot.ipxe"));
        assert!(!script.contains("vmlinuz"), "{script}");
        assert!(script.contains("&waits=1 || goto again\n"), "{script}");
        let boots = Boots::for_strangers(Unknown::Wait, &["525400123456".parse().unwrap()]);
        let settings = ScriptSettings { boots, ..settings };
        let asked = parse("mac=525400123456&waits=1").unwrap();
        let script = render(&settings, asked.as_ref(), &Told::default()).unwrap();
        assert!(script.ends_with("\nexit\n"), "{script}");
    }

    #[test]
    fn who_does_not_say_who_it_is_is_asked() {
        check(
            "",
            None,
            "\
#!ipxe
# BootTorrent: says which node asks, and gets the script for it.
:again
chain --replace http://192.168.1.1:8080/boot.ipxe?mac=${netX/mac}&uuid=${uuid}&arch=${buildarch}&platform=${platform} || goto failed
:failed
echo BootTorrent: no script from http://192.168.1.1:8080; trying again in 5 s
sleep 5
goto again
",
        );
    }

    #[test]
    fn a_node_of_another_architecture_is_told() {
        check(
            "mac=525400123456&arch=arm64",
            None,
            "\
#!ipxe
# BootTorrent: nothing for this node yet; it looks again, as that can change.
echo BootTorrent: this server has no phase 1 for the architecture of this node
echo BootTorrent: looking again in 60 s
:again
sleep 60
chain --replace http://192.168.1.1:8080/boot.ipxe?mac=${netX/mac}&uuid=${uuid}&arch=${buildarch}&platform=${platform} || goto again
",
        );
    }

    #[test]
    fn what_ipxe_says_is_read() {
        let asked = parse(FULL).unwrap().unwrap();
        assert_eq!(asked.mac.to_string(), "52:54:00:12:34:ab");
        assert_eq!(asked.uuid.as_deref(), Some("4c4c4544-0035-5a10-8057-b9c04f4a3332"));
        assert_eq!((asked.arch, asked.firmware), (Some(Arch::X86_64), Some(Firmware::Uefi)));
        let blank = parse("mac=525400123456&uuid=00000000-0000-0000-0000-000000000000");
        assert_eq!(blank.unwrap().unwrap().uuid, None);
        let bios = parse("mac=525400123456&uuid=&arch=i386&platform=pcbios").unwrap().unwrap();
        let arch = Some(Arch::X86_64);
        assert_eq!((bios.uuid, bios.arch, bios.firmware), (None, arch, Some(Firmware::Bios)));
        // Under UEFI it says what the firmware is, not what the processor is.
        let efi = parse("mac=525400123456&arch=i386&platform=efi").unwrap().unwrap();
        assert_eq!(efi.arch, None);
    }

    #[test]
    fn a_stranger_gets_no_line_of_its_own_into_the_script() {
        for query in [
            "mac=52:54:00:12:34:56%0Ashell",
            "mac=${net0/mac}",
            "mac=x",
            &format!("mac=525400123456&x={}", "y".repeat(QUERY_LEN_MAX)),
        ] {
            assert_eq!(parse(query), Err(QueryError), "{query}");
        }
        let hostile = "mac=525400123456&uuid=%0Ashell&arch=%0Ashell&platform=%0Ashell&name=shell";
        let asked = parse(hostile).unwrap();
        let script = render(&settings(), asked.as_ref(), &Told::default()).unwrap();
        assert!(!script.contains("shell"), "{script}");
    }

    proptest::proptest! {
        #[test]
        fn a_script_has_the_lines_of_its_template(query in ".{0,80}", mac in "([0-9a-f%]{12}|.{0,20})") {
            if let Ok(Some(asked)) = parse(&format!("mac={mac}&{query}")) {
                let script = render(&settings(), Some(&asked), &Told::default()).unwrap();
                assert!(matches!(script.lines().count(), 7 | 14));
            }
        }
    }
}
