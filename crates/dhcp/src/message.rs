//! DHCP messages (RFC 2131 section 2): what is read of a stranger's, and how ours are written.
//!
//! `dhcproto` finds the options and writes messages; what an option says is read here. Its own
//! reader stops at the first option that is not as it should be, and the ones after it are lost:
//! boot ROMs send host names in any encoding, architectures of odd lengths and machine identifiers
//! without a type, and must boot all the same.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::borrowed;
use dhcproto::v4::{self, DhcpOption, Flags, HType, MessageType, Opcode, OptionCode};
use dhcproto::{Encodable as _, v4::UnknownOption};

use crate::mac::Mac;

/// The longest message that is read: what an Ethernet frame holds. The longest that real firmware
/// sends has 590 bytes.
pub const MESSAGE_LEN_MAX: usize = 1_500;

/// Shorter messages are padded, as BOOTP relays drop them (RFC 1542 section 2.1).
const REPLY_LEN_MIN: usize = 300;

/// What `file` holds besides its final NUL.
pub(crate) const FILE_LEN_MAX: usize = 127;

/// The options that this crate reads and writes (RFC 2132 and those named beside them).
pub(crate) mod code {
    pub(crate) const SUBNET_MASK: u8 = 1;
    pub(crate) const ROUTER: u8 = 3;
    pub(crate) const DNS: u8 = 6;
    pub(crate) const HOSTNAME: u8 = 12;
    pub(crate) const DOMAIN: u8 = 15;
    pub(crate) const VENDOR: u8 = 43;
    pub(crate) const REQUESTED_ADDRESS: u8 = 50;
    pub(crate) const LEASE_TIME: u8 = 51;
    pub(crate) const OVERLOAD: u8 = 52;
    pub(crate) const MESSAGE_TYPE: u8 = 53;
    pub(crate) const SERVER_ID: u8 = 54;
    pub(crate) const PARAMETERS: u8 = 55;
    pub(crate) const TEXT: u8 = 56;
    pub(crate) const RENEWAL: u8 = 58;
    pub(crate) const REBINDING: u8 = 59;
    pub(crate) const CLASS: u8 = 60;
    pub(crate) const CLIENT_ID: u8 = 61;
    pub(crate) const TFTP_SERVER: u8 = 66;
    pub(crate) const BOOT_FILE: u8 = 67;
    /// RFC 3004.
    pub(crate) const USER_CLASS: u8 = 77;
    /// RFC 3046.
    pub(crate) const RELAY_AGENT: u8 = 82;
    /// RFC 4578.
    pub(crate) const ARCHITECTURE: u8 = 93;
    /// RFC 4578.
    pub(crate) const MACHINE_ID: u8 = 97;
    /// iPXE's encapsulated options.
    pub(crate) const IPXE: u8 = 175;
    /// RFC 5071.
    pub(crate) const PXELINUX_CONFIG: u8 = 209;
    /// RFC 5071.
    pub(crate) const PXELINUX_PREFIX: u8 = 210;
    /// For private use (RFC 3942): by which BootTorrent servers know one another, see `probe.rs`.
    pub(crate) const MARKER: u8 = 224;
    /// The same, by which they prove it, see `proof.rs`.
    pub(crate) const PROOF: u8 = 225;
}

/// A datagram that is no DHCP message for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Less than the fixed part of a message, or more than [`MESSAGE_LEN_MAX`].
    #[error("a message of {0} bytes")]
    Length(usize),
    /// The magic cookie is missing: plain BOOTP, or something else altogether.
    #[error("not DHCP: the magic cookie is missing")]
    Cookie,
    /// `op` is neither 1 nor 2.
    #[error("op is {0}")]
    Op(u8),
    /// No Ethernet address in `chaddr`.
    #[error("hardware type {kind} with an address of {len} bytes: only Ethernet is served")]
    Hardware {
        /// `htype`.
        kind: u8,
        /// `hlen`.
        len: u8,
    },
    /// Option 53 is missing: BOOTP.
    #[error("not DHCP: the message type (option 53) is missing")]
    Type,
}

/// A message that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// From a server (`op` 2).
    pub is_reply: bool,
    /// Option 53.
    pub kind: MessageType,
    /// `chaddr`.
    pub mac: Mac,
    /// Chosen by who asks, the same in the answer.
    pub xid: u32,
    /// With the broadcast bit.
    pub flags: u16,
    /// The address that the sender has and answers ARP for.
    pub ciaddr: Ipv4Addr,
    /// The address that is given.
    pub yiaddr: Ipv4Addr,
    /// Where to boot from.
    pub siaddr: Ipv4Addr,
    /// The relay agent.
    pub giaddr: Ipv4Addr,
    /// `file`, up to its NUL; empty if it was used for options (RFC 2132 section 9.3).
    pub file: Vec<u8>,
    /// In their order, those that came in parts put together (RFC 3396).
    options: Vec<(u8, Vec<u8>)>,
}

impl Message {
    /// Reads a datagram.
    ///
    /// # Errors
    /// If it is not DHCP over Ethernet. Options that make no sense are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let length = DecodeError::Length(bytes.len());
        if bytes.len() > MESSAGE_LEN_MAX {
            return Err(length);
        }
        let header = borrowed::Message::new(bytes).map_err(|_| length)?;
        let is_reply = match header.opcode() {
            Opcode::BootRequest => false,
            Opcode::BootReply => true,
            Opcode::Unknown(op) => return Err(DecodeError::Op(op)),
        };
        // Before `chaddr`, which believes it.
        let (kind, len) = (u8::from(header.htype()), header.hlen());
        let address = (kind == 1 && len == 6).then(|| header.chaddr().try_into().ok()).flatten();
        let mac = Mac(address.ok_or(DecodeError::Hardware { kind, len })?);
        if bytes[236..240] != v4::MAGIC {
            return Err(DecodeError::Cookie);
        }
        let mut options = vec![];
        gather(&mut options, header.opts());
        // RFC 2132 section 9.3: 1 for `file`, 2 for `sname`, 3 for both.
        let overload = match find(&options, code::OVERLOAD) {
            Some(&[value @ 1..=3]) => value,
            _ => 0,
        };
        if overload & 1 != 0 {
            gather(&mut options, borrowed::DhcpOptionIterator::new(&bytes[108..236]));
        }
        if overload & 2 != 0 {
            gather(&mut options, borrowed::DhcpOptionIterator::new(&bytes[44..108]));
        }
        let kind = match find(&options, code::MESSAGE_TYPE) {
            Some(&[kind]) => MessageType::from(kind),
            _ => return Err(DecodeError::Type),
        };
        Ok(Self {
            is_reply,
            kind,
            mac,
            xid: header.xid(),
            flags: header.flags().into(),
            ciaddr: header.ciaddr(),
            yiaddr: header.yiaddr(),
            siaddr: header.siaddr(),
            giaddr: header.giaddr(),
            file: if overload & 1 == 0 { header.fname().to_vec() } else { vec![] },
            options,
        })
    }

    /// The bytes of an option, possibly none.
    #[must_use]
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        find(&self.options, code)
    }

    /// An option that is one address.
    #[must_use]
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(bytes.into())
    }

    /// Whether option 55 asks for an option.
    #[must_use]
    pub fn asks_for(&self, code: u8) -> bool {
        self.option(code::PARAMETERS).is_some_and(|codes| codes.contains(&code))
    }
}

fn gather(options: &mut Vec<(u8, Vec<u8>)>, found: borrowed::DhcpOptionIterator<'_>) {
    for option in found {
        let code = option.code().into();
        match options.iter_mut().find(|(other, _)| *other == code) {
            Some((_, data)) => data.extend_from_slice(option.data()),
            None => options.push((code, option.data().to_vec())),
        }
    }
}

fn find(options: &[(u8, Vec<u8>)], code: u8) -> Option<&[u8]> {
    options.iter().find(|(other, _)| *other == code).map(|(_, data)| data.as_slice())
}

/// A message of ours that is being written.
pub(crate) struct Draft {
    header: v4::Message,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Draft {
    /// An answer to `request` with its `xid`, `flags`, `giaddr`, `chaddr`, client identifier (RFC
    /// 6842) and relay agent information (RFC 3046 section 2.2).
    pub(crate) fn answer(request: &Message, kind: MessageType) -> Self {
        let mut draft = Self::new(Opcode::BootReply, kind, request.mac, request.xid);
        draft.header.set_flags(Flags::new(request.flags)).set_giaddr(request.giaddr);
        for code in [code::CLIENT_ID, code::RELAY_AGENT] {
            if let Some(bytes) = request.option(code) {
                draft.option(code, bytes);
            }
        }
        draft
    }

    /// A question of our own.
    pub(crate) fn question(kind: MessageType, mac: Mac, xid: u32) -> Self {
        Self::new(Opcode::BootRequest, kind, mac, xid)
    }

    fn new(op: Opcode, kind: MessageType, mac: Mac, xid: u32) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut header = v4::Message::new_with_id(xid, none, none, none, none, &mac.0);
        header.set_opcode(op).set_htype(HType::Eth);
        let mut draft = Self { header, options: BTreeMap::new() };
        draft.option(code::MESSAGE_TYPE, &[kind.into()]);
        draft
    }

    pub(crate) fn header(&mut self) -> &mut v4::Message {
        &mut self.header
    }

    /// Sets an option, or takes it back if there are no bytes.
    pub(crate) fn option(&mut self, code: u8, bytes: &[u8]) -> &mut Self {
        self.options.insert(code, bytes.to_vec());
        self
    }

    pub(crate) fn address(&mut self, code: u8, address: Ipv4Addr) -> &mut Self {
        self.option(code, &address.octets())
    }

    pub(crate) fn addresses(&mut self, code: u8, addresses: &[Ipv4Addr]) -> &mut Self {
        let bytes: Vec<u8> = addresses.iter().flat_map(Ipv4Addr::octets).collect();
        self.option(code, &bytes)
    }

    pub(crate) fn number(&mut self, code: u8, number: u32) -> &mut Self {
        self.option(code, &number.to_be_bytes())
    }

    /// Fills `file`, if the name fits.
    pub(crate) fn file(&mut self, name: &str) -> &mut Self {
        if name.len() <= FILE_LEN_MAX {
            self.header.set_fname_str(name);
        }
        self
    }

    /// The datagram; none if it cannot be written, which only an over-long option could cause.
    pub(crate) fn encode(mut self) -> Option<Vec<u8>> {
        let options = self.options.into_iter().map(|(code, bytes)| {
            let code = OptionCode::from(code);
            (code, DhcpOption::Unknown(UnknownOption::new(code, bytes)))
        });
        self.header.set_opts(options.collect());
        let mut bytes = self.header.to_vec().ok()?;
        if bytes.len() < REPLY_LEN_MIN {
            bytes.resize(REPLY_LEN_MIN, 0);
        }
        (bytes.len() <= MESSAGE_LEN_MAX).then_some(bytes)
    }
}
