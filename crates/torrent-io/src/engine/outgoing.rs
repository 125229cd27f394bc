//! From outputs of a swarm to bytes on sockets.

use torrent::swarm::{CloseReason, Input, Output, PeerKey, Urgency};
use torrent::wire::Message;

use super::connection::FlushError;
use super::reactor::Reactor;
use super::torrent::Reader;
use super::{TorrentEvent, WebSeedTrouble};

impl Reactor {
    /// Gives an input to a swarm and does all that it then wants done.
    pub(super) fn feed(&mut self, at: usize, input: Input) {
        let Some(torrent) = &mut self.torrents[at] else { return };
        let verdict = matches!(input, Input::Verified { .. }).then(|| input.clone());
        torrent.swarm.handle(self.now, input);
        if let Some(verdict) = verdict {
            self.after_verdict(at, &verdict);
        }
        while let Some(output) = self.torrents[at].as_mut().and_then(|t| t.swarm.poll()) {
            self.act(at, output);
        }
    }

    fn act(&mut self, at: usize, output: Output) {
        match output {
            Output::Dial { addr } => self.dial(at, addr),
            Output::Close { peer, reason } => self.close(at, peer, reason),
            Output::Send { peer, message, urgency } => self.send(at, peer, message, urgency),
            Output::SendBlock { peer, block } => {
                if let Some(token) = self.token(at, peer)
                    && let Some(connection) = &mut self.connections[token]
                {
                    connection.moved_at = self.now;
                    connection.send_block(block);
                    self.mark_dirty(token);
                }
            }
            Output::Verify { unit } => {
                let Some(torrent) = &mut self.torrents[at] else { return };
                if let Some(verdict) = torrent.unit_is_whole(unit) {
                    torrent.swarm.handle(self.now, verdict.clone());
                    self.after_verdict(at, &verdict);
                }
            }
            Output::RequestHashes { peer, piece } => {
                let is_own = self
                    .token(at, peer)
                    .and_then(|token| self.connections[token].as_ref())
                    .is_some_and(|connection| connection.is_own);
                let Some(torrent) = &mut self.torrents[at] else { return };
                for message in torrent.request_hashes(peer, is_own, piece) {
                    self.send(at, peer, message, Urgency::Now);
                }
            }
            Output::RequestJudgement { peer, unit } => {
                let Some(torrent) = &mut self.torrents[at] else { return };
                if let Some(message) = torrent.request_judgement(peer, unit) {
                    self.send(at, peer, message, Urgency::Now);
                }
            }
            Output::NeedPeers => self.tell(at, TorrentEvent::NeedPeers),
            Output::Ban { addr } => {
                tracing::warn!(peer = %addr, "a peer sent corrupt data and is banned");
                self.ban(addr);
                self.tell(at, TorrentEvent::Banned(addr));
            }
            Output::WebSeedLied { web_seed } => {
                self.end_web_seed(at, web_seed, WebSeedTrouble::Corrupt);
            }
            Output::UnitDone { .. } => {}
            Output::Completed => {
                if let Some(torrent) = &mut self.torrents[at] {
                    torrent.tell_sources();
                }
                self.tell(at, TorrentEvent::Completed);
            }
        }
    }

    fn token(&self, at: usize, peer: PeerKey) -> Option<usize> {
        self.torrents[at].as_ref()?.token(peer)
    }

    pub(super) fn forget_key(&mut self, at: usize, key: PeerKey) {
        if let Some(torrent) = &mut self.torrents[at] {
            torrent.connections[key.0 as usize] = None;
            torrent.forget_asked(key);
        }
    }

    fn close(&mut self, at: usize, peer: PeerKey, reason: CloseReason) {
        if let Some(token) = self.token(at, peer) {
            if let Some(connection) = &self.connections[token] {
                tracing::debug!(peer = %connection.addr, ?reason, "closing a connection");
            }
            self.forget_key(at, peer);
            self.drop_connection(token);
        }
    }

    fn send(&mut self, at: usize, peer: PeerKey, message: Message, urgency: Urgency) {
        let now = self.now;
        let Some(token) = self.token(at, peer) else { return };
        let Some(connection) = &mut self.connections[token] else { return };
        match urgency {
            Urgency::Now => {
                connection.send(&message);
                self.mark_dirty(token);
            }
            Urgency::Lazy => connection.send_lazily(now, message),
        }
    }

    /// Writes what is to be written. Acknowledgements found on the way may cause more.
    pub(super) fn flush_all(&mut self) {
        while !self.dirty.is_empty() {
            for token in std::mem::take(&mut self.dirty) {
                self.flush(token);
            }
        }
    }

    pub(super) fn flush(&mut self, token: usize) {
        let Some(connection) = &mut self.connections[token] else { return };
        connection.dirty = false;
        let torrent = match connection.phase {
            super::connection::Phase::Open { torrent, .. }
            | super::connection::Phase::Connecting { torrent }
            | super::connection::Phase::Handshaking { torrent: Some(torrent) } => torrent,
            super::connection::Phase::Handshaking { torrent: None } => return,
        };
        let Some(storage) = self.torrents[torrent].as_ref().map(|t| t.storage.clone()) else {
            return;
        };
        match connection.flush(&Reader(&storage), &mut self.scratch, &mut self.upload.bucket) {
            Ok(()) => {
                if connection.holds_blocks() && !connection.blocked {
                    self.upload.wait(token);
                }
                if connection.awaits_acknowledgement() {
                    self.await_acknowledgements();
                }
            }
            Err(FlushError::Socket) => self.lose(token),
            Err(FlushError::Storage(error)) => self.fail(torrent, error),
        }
    }
}
