//! Every key of every file: the one table that reading, its errors and `docs/configuration.md` are
//! made from.

/// A key of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// `section.key`, or `key` where a file has no sections.
    pub(crate) path: &'static str,
    /// What its value is, in the documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test writes the documentation"))]
    pub(crate) kind: &'static str,
    pub(crate) presence: Presence,
    /// For the documentation: a sentence or two.
    pub(crate) meaning: &'static str,
}

/// What is, if the key is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// An error, which shows this as an example.
    Required(&'static str),
    /// As if this were written.
    Default(&'static str),
    /// Nothing is; said so in the documentation.
    Optional(&'static str),
    /// It meant something once: a warning if it is there, with what to do.
    Obsolete(&'static str),
}

use Presence::{Default, Obsolete, Optional, Required};

const fn key(
    path: &'static str,
    kind: &'static str,
    presence: Presence,
    meaning: &'static str,
) -> Key {
    Key { path, kind, presence, meaning }
}

/// `Boottorrent.yaml`, version 1.
pub(crate) const SERVER: &[Key] = &[
    key("version", "1", Required("1"), "The format of this file."),
    key(
        "server.interface",
        "name",
        Required("eth0"),
        "The network interface that nodes are on; `ip link` shows their names.",
    ),
    key(
        "server.address",
        "IPv4 address",
        Required("192.168.1.1"),
        "The server's address on that interface, as nodes reach it.",
    ),
    key(
        "boot.default",
        "image",
        Optional("the only image"),
        "What a node boots if nobody chooses: the name of a folder in `oss/`. Needed if there are \
         several.",
    ),
    key(
        "boot.timeout",
        "time or `never`",
        Default("30s"),
        "How long the menu waits before the default image is booted. `0` boots it at once, without \
         a menu; `never` (or a number below zero) waits for somebody to choose.",
    ),
    key(
        "boot.seed_time",
        "time or `auto`",
        Default("30s"),
        "How long a node goes on sending to others after its image is whole, before it loads it. A \
         good value is the time that the image takes over a node's link, plus the time between the \
         first node's start and the last one's. `0` loads at once. `auto` is until the server says that \
         nobody downloads the image any more, 12 s at least and 10 min at most.",
    ),
    key(
        "menu.shell",
        "`allowed`, `forbidden` or `password`",
        Default("allowed"),
        "Who gets a shell at a node: whoever presses the key, nobody, or who knows the password.",
    ),
    key(
        "menu.shell_password",
        "hash",
        Optional("required by `menu.shell: password`"),
        "The hash of that password, as `boottorrent password` makes it.",
    ),
    key(
        "console.serial",
        "`ttyS0`, `ttyS1` and so on",
        Optional("the screen alone"),
        "The serial line that is a console of nodes beside the screen.",
    ),
    key("console.serial_speed", "baud", Default("115200"), "Its speed; 8 bits, no parity."),
    key(
        "console.keyboard",
        "layout",
        Optional("that of the United States"),
        "The layout of nodes' keyboards, by the name that loadkeys(1) has for it, such as `de-latin1` or \
         `fr`. Takes the packages kbd and console-data on the server.",
    ),
    key(
        "console.log_level",
        "0 to 7",
        Optional("the kernel's own, 7 in Debian"),
        "Which messages of its kernel a node shows: those that are more important than this, where 0 is \
         an emergency and 7 for debugging. `4` shows errors alone.",
    ),
    key(
        "dhcp.mode",
        "`auto`, `server`, `proxy` or `off`",
        Default("auto"),
        "`server` leases addresses. `proxy` adds the boot options to what another DHCP server \
         leases. `auto` asks the network at start: `proxy` if another server answers twice, else \
         `server`. `off` leaves it to a server that is told so by hand.",
    ),
    key(
        "dhcp.ranges",
        "range or list of them",
        Default("[]"),
        "The addresses to lease, such as `192.168.1.50-192.168.1.150`. They must not overlap or hold \
         the server's.",
    ),
    key("dhcp.lease_time", "time", Default("12h"), "How long a lease holds."),
    key("dhcp.router", "IPv4 address", Optional("none is told"), "The gateway told to nodes."),
    key(
        "dhcp.dns",
        "IPv4 address or list of them",
        Default("[]"),
        "The name servers told to nodes. This server is none.",
    ),
    key("dhcp.domain", "domain", Optional("none is told"), "The domain told to nodes."),
    key(
        "dhcp.force",
        "bool",
        Default("false"),
        "Lease addresses though another DHCP server on the network does, too. Nodes may then get \
         either's.",
    ),
    key(
        "tftp.enabled",
        "bool",
        Default("true"),
        "Whether the first boot programs are served over TFTP, which most firmware needs.",
    ),
    key("tftp.port", "port", Default("69"), "UDP. Firmware asks only on 69."),
    key(
        "http.port",
        "port",
        Default("8080"),
        "TCP: scripts, phase 1, manifest, images, reports, status.",
    ),
    key(
        "swarm.tracker",
        "bool",
        Default("true"),
        "Whether this server runs a BitTorrent tracker. Of `tracker`, `trackers` and `lsd` at least \
         one is needed, else peers could not find each other.",
    ),
    key("swarm.tracker_port", "port", Default("10001"), "TCP and UDP of that tracker."),
    key(
        "swarm.trackers",
        "URL or list of them",
        Default("[]"),
        "Other trackers, `http://…/announce` or `udp://…`, that peers announce to as well.",
    ),
    key(
        "swarm.lsd",
        "bool",
        Default("false"),
        "Local service discovery (BEP 14) by multicast, on the server and on nodes. Alone it is \
         slow.",
    ),
    key(
        "swarm.pex",
        "bool",
        Default("true"),
        "Peer exchange (BEP 11) on the server and on nodes: peers tell each other of peers.",
    ),
    key(
        "swarm.web_seeds",
        "URL or list of them",
        Default("[]"),
        "Other web servers that have the images, such as `http://10.0.0.9/oss/`: below it lies `NAME/` \
         with the image's files. `{infohash}` stands for the version. Nodes get from them what no \
         peer has for them.",
    ),
    key("swarm.port", "port", Default("6881"), "TCP: the server's own peer."),
    key(
        "swarm.upload_limit",
        "bytes per second",
        Optional("no limit"),
        "The most that the server's own peer sends, such as `50MB/s` or `10MiB`.",
    ),
    key(
        "swarm.booted_upload_limit",
        "bytes per second",
        Optional("no limit; `32MiB/s` under a guest"),
        "The most that a node sends while the system of its image (`livenet`) runs, or a guest \
         (`bin-qemu-x86_64`).",
    ),
    key(
        "phase1.kernel",
        "version or path",
        Optional("the newest that is installed"),
        "The kernel of phase 1: one that is installed, such as `6.1.0-28-amd64`, or the `.deb` of one, \
         by its path from this file.",
    ),
    key(
        "phase1.cmdline",
        "text",
        Default(""),
        "Added to the kernel command line of phase 1, such as `console=ttyS0`.",
    ),
    key(
        "phase1.modules",
        "name or list of them",
        Default("[]"),
        "Kernel modules for phase 1 beside those that the usual network cards need; `all-net` is all drivers for wired networks.",
    ),
    key(
        "phase1.loader",
        "`ipxe` or `pxelinux`",
        Default("ipxe"),
        "What loads phase 1. PXELINUX knows only BIOS and TFTP.",
    ),
    key(
        "log.level",
        "`error`, `warn`, `info`, `debug` or `trace`",
        Default("info"),
        "How much is logged.",
    ),
    key(
        "log.format",
        "`text` or `json`",
        Default("text"),
        "How it is logged: lines for people, or a JSON object a line, as with `start -o json`.",
    ),
    key(
        "nodes.unknown",
        "`boot`, `wait` or `ignore`",
        Default("boot"),
        "What becomes of a node that nodes.yaml does not name. `boot`: it boots the default image, or gets \
         the menu. `wait`: its screen says that it waits, and it boots as soon as it is accepted \
         (`boottorrent node pending`, `accept`); not with PXELINUX. `ignore`: it gets no answer, neither \
         an address nor a boot program, as if this server were not there.",
    ),
    key(
        "history.keep",
        "time",
        Default("90d"),
        "How long what nodes did is kept in `state/history.db`: events and boots, 32 and 16 of each node at \
         most. A node that nodes.yaml does not name and that was silent for so long is forgotten.",
    ),
    key(
        "power.hook",
        "text or list of them",
        Optional("nodes cannot be switched"),
        "The program that switches nodes on and off, or a list of it and its first arguments; NAME, MAC and \
         `on`, `off`, `cycle` or `status` follow them. It is run without a shell, as the server's user, from \
         the lab's folder ([power.md](power.md)).",
    ),
    key(
        "power.timeout",
        "time",
        Default("30s"),
        "How long it may take for one node; then it is killed.",
    ),
    key(
        "dashboard.access",
        "`network`, `localhost` or `off`",
        Default("network"),
        "Who may look at the dashboard, `/v1` and `/metrics` on the HTTP port: everybody on the \
         network, only this machine, or nobody. To change something through them takes the token of \
         `boottorrent dashboard token`, or the password.",
    ),
    key(
        "dashboard.password",
        "hash",
        Optional("the token alone opens actions"),
        "The hash of a password that opens actions, as `boottorrent password` prints it \
         (`$argon2id$…`, in quotes).",
    ),
    key(
        "dashboard.certificate",
        "path",
        Optional("not encrypted"),
        "A certificate in PEM, with those above it: with it and its key the dashboard, `/v1` and \
         `/metrics` are served over TLS alone. Read again with each reload.",
    ),
    key("dashboard.key", "path", Optional("none"), "The certificate's key in PEM."),
    key("dashboard.tls_port", "port", Default("8443"), "TCP, for those, if they are encrypted."),
    key(
        "dashboard.names",
        "name or list of them",
        Default("[]"),
        "Names by which browsers ask for the dashboard, such as `boot.example.org`; this server's \
         addresses and `localhost` always work. Other names are refused, so that no other site can be \
         made to point here.",
    ),
];

/// What a key of the years before version 0 was settled gets.
const GONE: &str = "remove it";

/// `Boottorrent.yaml`, version 0: that of the original.
pub(crate) const ORIGINAL: &[Key] = &[
    key("boottorrent.version", "0", Required("0"), "The format of this file."),
    key(
        "boottorrent.timeout",
        "number",
        Required("30"),
        "`boot.timeout` in seconds; `0` boots at once, below zero waits for ever.",
    ),
    key("boottorrent.default_os", "image", Required("NAME"), "`boot.default`."),
    key(
        "boottorrent.seed_time",
        "number",
        Required("30"),
        "`boot.seed_time` in seconds; below zero is zero.",
    ),
    key("boottorrent.host_ip", "IPv4 address", Required("192.168.1.1"), "`server.address`."),
    key(
        "boottorrent.display_oss",
        "list",
        Obsolete("remove it, every folder in oss/ is shown"),
        "Which images the menu shows.",
    ),
    key(
        "dnsmasq.enable_dhcp",
        "bool",
        Required("True"),
        "`dhcp.mode`: `server` if true, `off` if false.",
    ),
    key(
        "dnsmasq.user",
        "text",
        Obsolete("the service's unit says as whom it runs; remove it"),
        "The user that dnsmasq became.",
    ),
    key("dnsmasq.interface", "name", Required("eth0"), "`server.interface`."),
    key(
        "dnsmasq.bind_interfaces",
        "bool",
        Obsolete("only the one interface is ever served; remove it"),
        "Whether dnsmasq served the one interface alone.",
    ),
    key(
        "dnsmasq.dhcp_range",
        "text",
        Required("192.168.1.50,192.168.1.150,12h"),
        "`dhcp.ranges` and `dhcp.lease_time`: first address, last address, perhaps a netmask, \
         perhaps how long a lease holds (`1h` if not).",
    ),
    key("dnsmasq.enable_tftp", "bool", Required("True"), "`tftp.enabled`."),
    key("opentracker.enable", "bool", Required("True"), "`swarm.tracker`."),
    key(
        "opentracker.port",
        "port",
        Default("10001"),
        "`swarm.tracker_port`; required if the tracker is enabled.",
    ),
    key("aria2.bt_enable_lpd", "bool", Required("False"), "`swarm.lsd`."),
    key("aria2.enable_peer_exchange", "bool", Default("True"), "`swarm.pex`."),
    key(
        "aria2.console_log_level",
        "`debug`, `info`, `notice`, `warn` or `error`",
        Required("error"),
        "`log.level`.",
    ),
    key("aria2.enable_dht", "bool", Obsolete(GONE), "There is no DHT in a lab."),
    key(
        "aria2.check_integrity",
        "bool",
        Obsolete("every byte is always verified; remove it"),
        "Whether the image was verified.",
    ),
    key("hefur.enable", "bool", Obsolete(GONE), "A tracker before opentracker."),
    key("hefur.port", "port", Obsolete(GONE), "Its port."),
    key("transmission.rpc_port", "port", Obsolete(GONE), "The seeder before aria2."),
    key("transmission.dht_enabled", "bool", Obsolete(GONE), "There is no DHT in a lab."),
    key("transmission.lpd_enabled", "bool", Obsolete(GONE), "`aria2.bt_enable_lpd`."),
];

/// `oss/NAME/config.yaml`.
pub(crate) const IMAGE: &[Key] = &[
    key(
        "dispname",
        "text",
        Required("Debian 12"),
        "What the menu shows; no two images may have the same.",
    ),
    key(
        "description",
        "text",
        Optional("none"),
        "What the image is, for who chooses: a sentence or two, shown beside the menu.",
    ),
    key(
        "password",
        "hash",
        Optional("none is asked for"),
        "Who chooses the image in the menu must know this password: its hash, as `boottorrent password` \
         makes it. Not asked for where the lab has assigned the image.",
    ),
    key(
        "method",
        "`kexec`, `livenet`, `nfs`, `bin`, `bin-qemu-x86_64` or `extension`",
        Required("kexec"),
        "How the image is run: its kernel in place of phase 1's; its root in memory, or one that an \
         NFS server has, on phase 1's kernel; a program of it in place of the agent; or a virtual \
         machine. An `extension` is none, but has programs that other images need, and is made by \
         `boottorrent extension build`.",
    ),
    key("kernel", "path", Optional("required by `kexec`"), "The kernel, within the folder."),
    key(
        "initrd",
        "path or list of them",
        Optional("required by `kexec`"),
        "The initrd within the folder, or several, which are joined in this order. `[]` for a kernel \
         that needs none.",
    ),
    key(
        "cmdline",
        "text",
        Optional("`kexec`, `livenet`, `nfs`: empty"),
        "The kernel command line, as the kernel shall see it, without quotes around it. With `livenet` \
         and `nfs` it is added to that of phase 1.",
    ),
    key(
        "rootfs",
        "path",
        Optional("required by `livenet`, `extension`"),
        "The root, within the folder: a squashfs, which is mounted under a writable layer in memory, or \
         as it is if this is an extension.",
    ),
    key(
        "kernel_version",
        "version",
        Optional("`livenet`, `nfs`: phase 1's own"),
        "The kernel that the root is for, such as `6.1.0-40-amd64`: a node runs its phase 1 on that \
         one. It is looked for in the lab's `kernels/`, then among what is installed.",
    ),
    key(
        "root",
        "address:path",
        Optional("required by `nfs`"),
        "Where the root is, such as `10.0.0.1:/srv/nfs/{node}`. `{node}` stands for the node's name or, \
         if it has none, its Ethernet address with dashes.",
    ),
    key(
        "options",
        "text",
        Default("vers=4.2,rw"),
        "`nfs`: the options of the mount, with commas between them. NFS 4 over TCP.",
    ),
    key("bin", "path", Optional("required by `bin`"), "The program, within the folder."),
    key("binargs", "text", Optional("`bin`: none"), "Its arguments, split as a shell splits them."),
    key(
        "args",
        "text",
        Optional("required by `bin-qemu-x86_64`"),
        "The arguments of qemu-system-x86_64, run in the folder, such as `-cdrom disc.iso`. What they do \
         not say of accelerator, memory, processors and display is added. Needs the extension `qemu`: \
         `boottorrent extension build qemu`.",
    ),
    key(
        "writes",
        "`memory` or `disk LABEL`",
        Optional("`bin-qemu-x86_64`: `memory`"),
        "Where what the guest writes to disks of the image goes: into memory, gone with the guest; or into a \
         file on the node's own disk, where it stays, as long as the image is the same: on the ext4 file \
         system with that label, which nobody makes but you (`mkfs.ext4 -L LABEL`). Needs \
         `phase1.modules: [ext4]`.",
    ),
    key(
        "display",
        "`screen`, `serial` or `vnc ADDRESS`",
        Optional("`bin-qemu-x86_64`: `screen`"),
        "Where the guest is seen: on the node's screen, which shows text alone; its first serial line on \
         the node's console; or by VNC, at an address of the node such as `0.0.0.0` for all, and a port \
         if not 5900: `vnc 0.0.0.0:5901`. The node's screen shows the password of each run.",
    ),
    key(
        "after",
        "`menu`, `reboot` or `poweroff`",
        Optional("`bin-qemu-x86_64`: `menu`"),
        "What the node does when the guest has ended: decide anew what to boot, boot anew, or switch itself \
         off.",
    ),
];

/// `nodes.yaml`, at the top.
pub(crate) const NODES: &[Key] = &[
    key("groups", "map", Optional("none"), "Groups by name, each with the keys of a group."),
    key("nodes", "map", Optional("none"), "Nodes by name, each with the keys of a node."),
    key(
        "ignored",
        "Ethernet address or list of them",
        Default("[]"),
        "Machines that get no answer, whatever `nodes.unknown` is; `boottorrent node ignore` writes them. \
         Who is under `nodes`, too, is one of the lab's nodes.",
    ),
];

/// `nodes.yaml`, a group.
pub(crate) const GROUP: &[Key] = &[
    key("image", "image", Optional("none"), "What its nodes boot, without a menu."),
    key(
        "boot",
        "`image`, `classic` or `disk`",
        Optional("`image`"),
        "How they boot, as with a node.",
    ),
    key(
        "cmdline",
        "template",
        Default(""),
        "Added to the image's command line on its nodes, before their own.",
    ),
    key("vars", "map", Optional("none"), "Values by name, for templates and for `power.hook`."),
    key(
        "match.mac",
        "beginning of an Ethernet address or list of them",
        Optional("any"),
        "Nodes that name no group are in the first one whose `match` holds: each key that is there, by any \
         of its values. This is the maker's part of the address, such as `52:54:00`, or more of it.",
    ),
    key("match.uuid", "UUID or list of them", Optional("any"), "The machine's identifier."),
    key("match.arch", "`x86_64`, `arm64` or list of them", Optional("any"), "Its architecture."),
    key(
        "match.subnet",
        "network or list of them",
        Optional("any"),
        "Where its address is, such as `10.0.7.0/24`.",
    ),
    key(
        "match.nodes",
        "set of nodes or list of them",
        Optional("any"),
        "Its name, such as `c[001-100]`.",
    ),
];

/// `nodes.yaml`, a node.
pub(crate) const NODE: &[Key] = &[
    key(
        "mac",
        "Ethernet address",
        Required("52:54:00:12:34:56"),
        "That of the interface it boots from. No two nodes may have the same.",
    ),
    key("address", "IPv4 address", Optional("any of the ranges"), "Leased to it and to no other."),
    key(
        "group",
        "group",
        Optional("the first whose `match` holds"),
        "The group whose image, boot, cmdline and vars it has where it has none of its own.",
    ),
    key("uuid", "UUID", Optional("not known"), "Its identifier, for `match` and templates."),
    key("arch", "`x86_64` or `arm64`", Optional("not known"), "The same of its architecture."),
    key(
        "vars",
        "map",
        Optional("its group's"),
        "Values by name, for templates and for `power.hook`.",
    ),
    key("image", "image", Optional("its group's, else the menu"), "What it boots, without a menu."),
    key(
        "boot",
        "`image`, `classic` or `disk`",
        Optional("its group's, else `image`"),
        "`disk` leaves it to its own disk: its image is kept for when that is taken back. `classic` boots \
         its image by the `boot.ipxe` in its folder, with the initramfs of the distribution: from this \
         server alone, and nothing verifies what it loads. Both with iPXE.",
    ),
    key(
        "cmdline",
        "template",
        Default(""),
        "Added to the image's command line on this node, which without an image of its own or its \
         group's then boots the default one.",
    ),
];
