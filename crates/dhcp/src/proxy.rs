//! Boot programs without addresses: proxyDHCP beside the network's own server, and what UEFI asks at
//! port 4011 (PXE 2.1 section 2.2; the variant without option 43 that UEFI uses comes from
//! Microsoft's Boot Information Negotiation Layer and has no specification).

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::MessageType;

use crate::answer::{add_boot, destination, send};
use crate::asker::Asker;
use crate::config::{Config, Role};
use crate::io::{Event, Output, Port};
use crate::message::{Draft, Message, code};
use crate::vendor;

/// A request that came to port 67 of a proxy. Plain systems are the other server's affair, and so is
/// the choice of an address.
pub(crate) fn handle(config: &Config, ask: &Message, out: &mut VecDeque<Output>) {
    let asker = Asker::of(ask);
    if ask.kind == MessageType::Discover && asker.boots() {
        let to = destination(ask, MessageType::Offer);
        if answer(config, ask, asker, MessageType::Offer, Port::Server, to, out) {
            out.push_back(Output::Event(Event::Offered { mac: ask.mac, address: None }));
        }
    }
}

/// Whether a request to port 67 looks for a boot server: it has an address and names a boot item.
pub(crate) fn is_boot_server_request(ask: &Message) -> bool {
    ask.kind == MessageType::Request
        && !ask.ciaddr.is_unspecified()
        && ask.option(code::VENDOR).and_then(vendor::boot_item).is_some()
}

/// A request for a boot program, which came to port 4011 or was broadcast to port 67.
pub(crate) fn handle_boot_server(
    config: &Config,
    ask: &Message,
    port: Port,
    from: SocketAddrV4,
    out: &mut VecDeque<Output>,
) {
    let asker = Asker::of(ask);
    let other = ask.address(code::SERVER_ID).is_some_and(|id| id != config.address);
    if !asker.boots() || (other && port != Port::Binl) {
        return;
    }
    let kind = match ask.kind {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request | MessageType::Inform => MessageType::Ack,
        _ => return,
    };
    let to = match *from.ip() {
        Ipv4Addr::UNSPECIFIED => destination(ask, kind),
        _ => from,
    };
    answer(config, ask, asker, kind, port, to, out);
}

/// Sends a boot program, if there is one for this asker.
fn answer(
    config: &Config,
    ask: &Message,
    asker: Asker,
    kind: MessageType,
    port: Port,
    to: SocketAddrV4,
    out: &mut VecDeque<Output>,
) -> bool {
    let mac = ask.mac;
    let mut draft = Draft::answer(ask, kind);
    draft.address(code::SERVER_ID, config.address);
    draft.header().set_ciaddr(ask.ciaddr);
    let Some(file) = add_boot(&mut draft, ask, asker, config, Role::Proxy) else {
        out.push_back(Output::Event(Event::NoBootProgram { mac, asker }));
        return false;
    };
    if let Some(item) = ask.option(code::VENDOR).and_then(vendor::boot_item) {
        draft.option(code::VENDOR, &item);
    }
    out.extend(send(draft, port, to));
    let file = file.as_str().to_owned();
    out.push_back(Output::Event(Event::BootProgram { mac, asker, file }));
    true
}
