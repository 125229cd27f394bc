"""One libtorrent peer for `cargo xtask bench` and `cargo xtask interop`.

    libtorrent_peer.py seed|get METAINFO DIR ADDRESS:PORT

Prints `ready`, waits for a line on standard input (so that loading an interpreter is not part of
a transfer), then takes part in the swarm until it is told to end. Prints `complete` once it has
everything. Settings are for a switched LAN where everybody is willing.
"""

import signal
import sys

import libtorrent as lt

SETTINGS = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "in_enc_policy": lt.enc_policy.pe_disabled,
    "out_enc_policy": lt.enc_policy.pe_disabled,
    "announce_to_all_trackers": True,
    "allow_multiple_connections_per_ip": False,
    # Everything starts within a second: do not ration dialling.
    "connection_speed": 500,
    "torrent_connect_boost": 255,
    "min_reconnect_time": 1,
    "no_connect_privileged_ports": False,
    # The default looks for better peers every 15 s, most of such a transfer.
    "unchoke_interval": 1,
    "optimistic_unchoke_interval": 2,
    "num_optimistic_unchoke_slots": 1,
    "unchoke_slots_limit": 4,
    "choking_algorithm": lt.choking_algorithm_t.fixed_slots_choker,
    "seed_choking_algorithm": lt.seed_choking_algorithm_t.fastest_upload,
    # Rarest first from the first piece.
    "initial_picker_threshold": 0,
    "request_queue_time": 1,
    "whole_pieces_threshold": 0,
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
}


def main(role, metainfo, directory, listen):
    settings = dict(SETTINGS, listen_interfaces=listen)
    session = lt.session(settings)
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(metainfo)
    parameters.save_path = directory
    parameters.flags &= ~lt.torrent_flags.paused & ~lt.torrent_flags.auto_managed
    if role == "seed":
        parameters.flags |= lt.torrent_flags.seed_mode
    print("ready", flush=True)
    sys.stdin.readline()
    session.add_torrent(parameters)
    while True:
        session.wait_for_alert(60_000)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.torrent_finished_alert):
                print("complete", flush=True)
            elif isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert)):
                sys.exit(alert.message())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main(*sys.argv[1:])
