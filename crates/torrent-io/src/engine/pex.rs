//! Peer exchange (BEP 11): who tells whom is decided in [`PexState`]; here are the connections that
//! it is about.

use std::net::SocketAddr;

use torrent::swarm::{Direction, Input, PexState};
use torrent::wire::{ExtensionIds, Message, Pex, PexPeer};

use super::connection::{Connection, Phase};
use super::reactor::Reactor;

impl Connection {
    /// Where the other end listens, as far as we know.
    fn listens_at(&self) -> Option<PexPeer> {
        let (addr, flags) = match self.direction {
            Direction::Outgoing => (Some(self.addr), PexPeer::REACHABLE),
            Direction::Incoming => (self.listens_on, 0),
        };
        addr.map(|addr| PexPeer { addr, flags })
    }
}

impl Reactor {
    /// Whether peers of a torrent are told of one another.
    pub(super) fn exchanges_peers(&self, at: usize) -> bool {
        self.config.pex && self.torrents[at].as_ref().is_some_and(|torrent| !torrent.is_private)
    }

    /// A peer's extended handshake has come: it may want to hear of others.
    pub(super) fn start_pex(&mut self, token: usize, at: usize) {
        let exchanges = self.exchanges_peers(at);
        if let Some(connection) = &mut self.connections[token] {
            connection.pex = exchanges.then(|| PexState::new(self.now));
        }
    }

    /// Tells all peers what they have not heard; once a second.
    pub(super) fn tell_of_peers(&mut self) {
        for at in 0..self.torrents.len() {
            if !self.exchanges_peers(at) {
                continue;
            }
            let Some(torrent) = &self.torrents[at] else { continue };
            let tokens: Vec<usize> = torrent.connections.iter().copied().flatten().collect();
            let connections = tokens.iter().filter_map(|&token| self.connections[token].as_ref());
            let peers: Vec<PexPeer> = connections.filter_map(Connection::listens_at).collect();
            for token in tokens {
                self.tell_peer(token, &peers);
            }
        }
    }

    fn tell_peer(&mut self, token: usize, peers: &[PexPeer]) {
        let Some(connection) = &mut self.connections[token] else { return };
        let own: Option<SocketAddr> = connection.listens_at().map(|peer| peer.addr);
        let (Some(state), Some(id)) = (&mut connection.pex, connection.ids.pex) else { return };
        if self.now < state.next_timeout() {
            return;
        }
        let others: Vec<PexPeer> =
            peers.iter().copied().filter(|peer| Some(peer.addr) != own).collect();
        if let Some(pex) = state.poll(self.now, &others) {
            let mut payload = vec![];
            pex.encode(&mut payload);
            connection.send(&Message::Extended { id: id.get(), payload });
            self.mark_dirty(token);
        }
    }

    /// An extended message with a number that we gave out.
    pub(super) fn on_extended(&mut self, token: usize, id: u8, payload: &[u8]) {
        let Some(connection) = &mut self.connections[token] else { return };
        let Phase::Open { torrent, .. } = connection.phase else { return };
        if ExtensionIds::OURS.pex.is_none_or(|pex| pex.get() != id) {
            return;
        }
        // Off, or before the handshake: it was not asked to say anything.
        let Some(state) = &mut connection.pex else { return };
        match Pex::decode(payload) {
            Ok(pex) => {
                let addrs = state.handle(self.now, &pex);
                if !addrs.is_empty() {
                    self.feed(torrent, Input::PeersFound { addrs });
                }
            }
            Err(error) => {
                tracing::debug!(peer = %connection.addr, %error, "a peer broke the protocol");
                self.lose(token);
            }
        }
    }
}
