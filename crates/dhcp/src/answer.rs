//! What all answers have in common: where they go, and what there is to boot.

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::MessageType;

use crate::asker::Asker;
use crate::boot_files::FileName;
use crate::config::{Config, Role};
use crate::io::{Output, Port};
use crate::message::{Draft, Message, code};
use crate::vendor;

/// Where an answer from port 67 goes (RFC 2131 section 4.1). Without an address the asker could be
/// sent a unicast only by somebody who may write the kernel's ARP table; a broadcast reaches it in
/// any case, and a fleet sends few of them.
pub(crate) fn destination(ask: &Message, kind: MessageType) -> SocketAddrV4 {
    if !ask.giaddr.is_unspecified() {
        SocketAddrV4::new(ask.giaddr, Port::Server.number())
    } else if ask.ciaddr.is_unspecified() || kind == MessageType::Nak {
        SocketAddrV4::new(Ipv4Addr::BROADCAST, Port::Client.number())
    } else {
        SocketAddrV4::new(ask.ciaddr, Port::Client.number())
    }
}

/// The datagram, if it could be written.
pub(crate) fn send(draft: Draft, port: Port, to: SocketAddrV4) -> Option<Output> {
    draft.encode().map(|bytes| Output::Send { port, to, bytes })
}

/// Adds what there is to boot, and returns it.
pub(crate) fn add_boot<'a>(
    draft: &mut Draft,
    ask: &Message,
    asker: Asker,
    config: &'a Config,
    role: Role,
) -> Option<&'a FileName> {
    let boot = &config.boot;
    let file = boot.of(asker)?;
    draft.header().set_siaddr(boot.next_server).set_sname_str(boot.next_server.to_string());
    draft.file(file.as_str());
    if ask.asks_for(code::TFTP_SERVER) {
        draft.option(code::TFTP_SERVER, boot.next_server.to_string().as_bytes());
    }
    let by_http = matches!(asker, Asker::UefiHttp(_));
    if by_http || ask.asks_for(code::BOOT_FILE) || draft.header().fname().is_none() {
        draft.option(code::BOOT_FILE, file.as_str().as_bytes());
    }
    if let Some(id) = ask.option(code::MACHINE_ID) {
        draft.option(code::MACHINE_ID, id);
    }
    add_vendor(draft, asker, role);
    if let (Asker::Bios, Some(pxelinux)) = (asker, &boot.pxelinux) {
        draft.option(code::PXELINUX_CONFIG, pxelinux.config.as_str().as_bytes());
        if let Some(prefix) = &pxelinux.prefix {
            draft.option(code::PXELINUX_PREFIX, prefix.as_str().as_bytes());
        }
    }
    Some(file)
}

/// Options 60, 43 and 175, which decide how a ROM goes on.
///
/// UEFI (the code that all vendors have from EDK II) takes an offer with option 60 but no valid
/// option 43 for one that it must ask about again, at port 4011; of a proxy it understands nothing
/// else reliably, as older versions throw away proxy offers with option 43. In an offer with an
/// address it boots the file at once when neither is there. A BIOS ROM believes only offers with
/// option 60, and would look for boot servers or show a menu without option 43.
fn add_vendor(draft: &mut Draft, asker: Asker, role: Role) {
    let boot_at_once = match (asker, role) {
        (Asker::Bios, _) | (Asker::Ipxe { .. }, Role::Proxy) => true,
        (Asker::Uefi(_), Role::Server) => return,
        (Asker::Ipxe { .. }, Role::Server) => {
            draft.option(code::IPXE, &vendor::IPXE_NO_PROXY);
            return;
        }
        _ => false,
    };
    draft.option(code::CLASS, asker.class());
    if boot_at_once {
        draft.option(code::VENDOR, &vendor::BOOT_AT_ONCE);
    }
}
