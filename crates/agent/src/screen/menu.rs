//! The menu's pages.

use boot::report::Machine;
use boot::{Image, Loader};
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;

use super::{BOLD, PLAIN, REVERSED, head, line, wrap};
use crate::console::mib;
use crate::menu::{Menu, Page};

/// Columns from which on details stand beside the list.
const BESIDE: u16 = 72;

/// Lines of details below the list, on narrower screens that are tall enough.
const BELOW: u16 = 5;

/// What pages say of this node.
#[derive(Clone, Debug)]
pub(crate) struct About<'a> {
    /// What it is called: the Ethernet address by which the lab knows it.
    pub(crate) node: &'a str,
    pub(crate) machine: &'a Machine,
    /// The server, as a URL.
    pub(crate) server: &'a str,
    /// The latest lines of the log, oldest first.
    pub(crate) log: &'a [String],
}

/// Draws the page that is in front, on the whole of `buffer`.
pub(crate) fn draw(menu: &Menu, about: &About<'_>, buffer: &mut Buffer) {
    let area = buffer.area;
    let title = match menu.page() {
        Page::List => "What shall this node boot?",
        Page::Node => "This node",
        Page::Log => "What has happened",
    };
    head(buffer, area, title, about.node);
    let (body, foot) = split(area);
    match menu.page() {
        Page::List => list(menu, buffer, body),
        Page::Node => node(about, buffer, body),
        Page::Log => log(about, buffer, body),
    }
    line(buffer, foot, 0, &format!(" {}", menu.prompt()), BOLD);
    let keys = match menu.page() {
        Page::List => " Enter boot   type to find   Esc all   ^S shell   F1 node   F2 log",
        Page::Node | Page::Log => " Esc back   ^S shell   F1 node   F2 log",
    };
    line(buffer, foot, 1, keys, PLAIN);
}

/// What is between the line at the top and the two at the bottom, with an empty line around it if
/// there is room; and those two, the first of which stays longest.
fn split(area: Rect) -> (Rect, Rect) {
    let foot_len = area.height.saturating_sub(2).min(2);
    let spare = u16::from(area.height >= 12);
    let top = (1 + spare).min(area.height);
    let body_len = area.height.saturating_sub(top + foot_len + spare);
    let body = Rect { y: area.y + top, height: body_len, ..area };
    let foot = Rect { y: area.y + area.height - foot_len, height: foot_len, ..area };
    (body, foot)
}

fn list(menu: &Menu, buffer: &mut Buffer, area: Rect) {
    let shown = menu.shown();
    let (names, details) = if area.width >= BESIDE {
        let names = Rect { width: area.width * 3 / 5, ..area };
        let rest = area.width - names.width;
        (names, Rect { x: area.x + names.width + 2, width: rest - 3, ..area })
    } else if area.height >= 3 * BELOW {
        let names = Rect { height: area.height - BELOW, ..area };
        let below = Rect { x: area.x + 1, width: area.width.saturating_sub(1), ..area };
        (names, Rect { y: area.y + names.height, height: BELOW, ..below })
    } else {
        (area, Rect { height: 0, ..area })
    };
    let names = filter(menu, shown.len(), buffer, names);
    let height = usize::from(names.height);
    // What is selected stays in the middle of a list that is longer than the screen.
    let first = menu.selected().saturating_sub(height / 2).min(shown.len().saturating_sub(height));
    for (row, (at, image)) in (0..).zip(shown.iter().enumerate().skip(first).take(height)) {
        let (mark, style) = if at == menu.selected() { ('>', REVERSED) } else { (' ', PLAIN) };
        let len = mib(image.len);
        let width = usize::from(names.width).saturating_sub(5 + len.len());
        let default = if menu.is_default(image) { '*' } else { ' ' };
        let title: String = image.title.chars().take(width).collect();
        let text = format!(" {mark}{default}{title:<width$} {len} ");
        line(buffer, names, row, &text, style);
    }
    if let Some(image) = shown.get(menu.selected()) {
        for (row, (text, style)) in
            (0..).zip(describe(image, menu.is_default(image), details.width))
        {
            line(buffer, details, row, &text, style);
        }
    }
}

/// The line that says what is typed, if anything is; and what is left for the list.
fn filter(menu: &Menu, count: usize, buffer: &mut Buffer, area: Rect) -> Rect {
    if menu.filter().is_empty() || area.height < 2 {
        return area;
    }
    let found = if count == 0 { "  nothing is called so" } else { "" };
    line(buffer, area, 0, &format!(" Find: {}_{found}", menu.filter()), BOLD);
    Rect { y: area.y + 1, height: area.height - 1, ..area }
}

/// An image, for who thinks about it.
fn describe(
    image: &Image,
    is_default: bool,
    width: u16,
) -> Vec<(String, ratatui_core::style::Style)> {
    let how = match &image.loader {
        Loader::Kexec { kernel, .. } => format!("starts its kernel {kernel}"),
        Loader::Qemu { kept_on: Some(label), .. } => {
            format!("runs as a virtual machine; what it writes stays on {label}")
        }
        Loader::Qemu { .. } => "runs as a virtual machine".to_owned(),
        Loader::Exec { bin, .. } => format!("runs its program {bin}"),
        Loader::Livenet { .. } => "runs from memory".to_owned(),
        Loader::Nfs { .. } => "runs from an NFS server".to_owned(),
        Loader::Extension { .. } => "is not booted but used by others".to_owned(),
        Loader::Unknown => "started in a way that this agent does not know".to_owned(),
    };
    let mut lines: Vec<_> =
        wrap(&image.title, width).into_iter().map(|text| (text, BOLD)).collect();
    let mut facts = vec![image.description.clone()];
    facts.retain(|text| !text.is_empty());
    facts.extend([format!("{}, {}", image.name, mib(image.len)), how]);
    if image.password.is_some() {
        facts.push("asks for a password".to_owned());
    }
    if is_default {
        facts.push("* if nobody chooses".to_owned());
    }
    for fact in facts {
        lines.extend(wrap(&fact, width).into_iter().map(|text| (text, PLAIN)));
    }
    lines
}

fn node(about: &About<'_>, buffer: &mut Buffer, area: Rect) {
    let machine = about.machine;
    let unknown = || "not known".to_owned();
    let facts = [
        ("Ethernet address", about.node.to_owned()),
        ("IP address", machine.address.as_ref().map_or_else(unknown, ToString::to_string)),
        ("Interface", machine.interface.clone().unwrap_or_else(unknown)),
        ("Driver", machine.driver.clone().unwrap_or_else(unknown)),
        ("Server", about.server.to_owned()),
        ("Memory", mib(machine.memory_bytes)),
        ("Processors", machine.processors.to_string()),
        ("Firmware", format!("{:?}", machine.firmware).to_uppercase()),
        ("Product", machine.product.clone().unwrap_or_else(unknown)),
        ("Serial number", machine.serial_number.clone().unwrap_or_else(unknown)),
        ("Machine", machine.uuid.clone().unwrap_or_else(unknown)),
        ("Kernel", machine.kernel.clone()),
        ("Agent", machine.agent.clone()),
    ];
    for (row, (name, value)) in (0..).zip(facts) {
        line(buffer, area, row, &format!("  {name:<18}{value}"), PLAIN);
    }
}

/// The end of the log: what has happened last is what people ask for.
fn log(about: &About<'_>, buffer: &mut Buffer, area: Rect) {
    let width = area.width.saturating_sub(1);
    let lines: Vec<String> = about.log.iter().flat_map(|text| wrap(text, width)).collect();
    let first = lines.len().saturating_sub(usize::from(area.height));
    for (row, text) in (0..).zip(&lines[first..]) {
        line(buffer, area, row, &format!(" {text}"), PLAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::tests::manifest;
    use crate::events::Key;
    use crate::screen::tests::{check_sizes, check_snapshot, shot};
    use boot::{Arch, Firmware, PasswordHash};

    fn machine() -> Machine {
        Machine {
            arch: Arch::X86_64,
            firmware: Firmware::Uefi,
            uuid: Some("b0077044-0000-4000-8000-000000000001".to_owned()),
            product: Some("QEMU Standard PC".to_owned()),
            serial_number: Some("BT-0001".to_owned()),
            memory_bytes: 512 << 20,
            processors: 2,
            interface: Some("eth0".to_owned()),
            driver: Some("virtio_net".to_owned()),
            address: Some("10.77.200.51".to_owned()),
            agent: "0.1.0".to_owned(),
            kernel: "6.1.0-40-amd64".to_owned(),
        }
    }

    fn with_menu(keys: &[Key], test: impl Fn(&dyn Fn(&mut Buffer))) {
        let mut manifest = manifest(Some(30));
        manifest.images[1].title = "Debian 12 for the whole lab, with everything".to_owned();
        manifest.images[1].description = "For the course in networks.".to_owned();
        manifest.images[0].password = Some(PasswordHash::of("x", [1; 16]).unwrap());
        manifest.images[1].loader = Loader::Kexec {
            kernel: "boot/vmlinuz".parse().unwrap(),
            initrds: vec![],
            cmdline: String::new(),
        };
        let mut menu = Menu::new(&manifest, Some(30));
        for key in keys {
            menu.handle(*key);
        }
        let log = ["BOOTTORRENT stage=agent".to_owned(), "Link is up".to_owned()];
        let machine = machine();
        let about = About {
            node: "52:54:00:b7:00:01",
            machine: &machine,
            server: "http://10.77.0.1:8080",
            log: &log,
        };
        test(&|buffer| draw(&menu, &about, buffer));
    }

    #[track_caller]
    fn check(keys: &[Key], (width, height): (u16, u16), name: &str) {
        with_menu(keys, |draw| check_snapshot(name, &shot(width, height, draw)));
    }

    #[test]
    fn a_serial_terminal_shows_the_list_and_what_is_selected() {
        check(&[], (80, 14), "menu-80x14");
    }

    #[test]
    fn an_image_says_that_it_asks_for_a_password() {
        check(&[Key::Home], (80, 14), "menu-locked-80x14");
    }

    #[test]
    fn a_narrow_screen_has_details_below() {
        check(&[], (40, 24), "menu-40x24");
    }

    #[test]
    fn what_is_typed_is_shown_with_what_it_finds() {
        let keys = ['m', 'e', 'm'].map(Key::Char);
        check(&keys, (80, 14), "find-80x14");
        let keys = ['x', 'y'].map(Key::Char);
        check(&keys, (40, 8), "nothing-40x8");
    }

    #[test]
    fn the_node_tells_what_it_is() {
        check(&[Key::Function(1)], (80, 18), "node-80x18");
    }

    #[test]
    fn the_log_shows_its_end() {
        check(&[Key::Function(2)], (40, 8), "log-40x8");
    }

    #[test]
    fn no_screen_is_too_small() {
        for keys in [&[][..], &[Key::Function(1)], &[Key::Function(2)], &[Key::Char('a')]] {
            with_menu(keys, |draw| check_sizes(draw));
        }
        with_menu(&[], |draw| assert_eq!(shot(1, 5, draw), "B\n5\n>\nI\nE\n"));
    }

    #[test]
    fn a_long_list_scrolls_with_what_is_selected() {
        let mut manifest = manifest(None);
        let image = manifest.images[0].clone();
        manifest.images = (0..100)
            .map(|number| Image {
                name: format!("i{number}").parse().unwrap(),
                title: format!("Image {number}"),
                ..image.clone()
            })
            .collect();
        let mut menu = Menu::new(&manifest, None);
        let machine = machine();
        let about = About { node: "n", machine: &machine, server: "s", log: &[] };
        for (key, expect) in
            [(Key::Home, "Image 0 "), (Key::PageDown, "Image 10 "), (Key::End, "Image 99 ")]
        {
            menu.handle(key);
            let found = shot(60, 10, |buffer| draw(&menu, &about, buffer));
            let selected = found.lines().find(|line| line.starts_with(" >")).unwrap_or_default();
            assert!(selected[3..].starts_with(expect), "{found}");
        }
    }
}
