"""One libtorrent peer for `cargo xtask interop`, with libtorrent's own settings.

    libtorrent_interop.py ROLE METAINFO DIR ADDRESS:PORT [--lsd]

Roles: `seed` hashes its files first. `seed-unchecked` does not, so that it does not know the hashes
of blocks and has to refuse them. `get` downloads. `get-without-layers` knows only the info
dictionary, as after a magnet link, and has to ask for the hashes of pieces.

Prints `everything is here` once it is, and stays.
"""

import hashlib
import signal
import sys

import libtorrent as lt

SETTINGS = {
    # There is no way to the Internet, nor a router to ask.
    "enable_dht": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "alert_mask": lt.alert.category_t.status_notification
    | lt.alert.category_t.error_notification
    | lt.alert.category_t.connect_notification
    | lt.alert.category_t.peer_notification
    | lt.alert.category_t.tracker_notification,
}


def without_layers(metainfo):
    """The torrent as resume data, which has no room for the hashes of pieces."""
    with open(metainfo, "rb") as file:
        whole = lt.bdecode(file.read())
    info = lt.bencode(whole[b"info"])
    resume = {
        b"file-format": b"libtorrent resume file",
        b"file-version": 1,
        b"info-hash": hashlib.sha1(info).digest(),
        b"info-hash2": hashlib.sha256(info).digest(),
        b"info": whole[b"info"],
    }
    if b"pieces" not in whole[b"info"]:
        del resume[b"info-hash"]
    if b"announce" in whole:
        resume[b"trackers"] = [[whole[b"announce"]]]
    return lt.read_resume_data(lt.bencode(resume))


def main(role, metainfo, directory, listen, *options):
    settings = dict(SETTINGS, listen_interfaces=listen, enable_lsd="--lsd" in options)
    session = lt.session(settings)
    if role == "get-without-layers":
        parameters = without_layers(metainfo)
    else:
        parameters = lt.add_torrent_params()
        parameters.ti = lt.torrent_info(metainfo)
    parameters.save_path = directory
    parameters.flags &= ~lt.torrent_flags.paused & ~lt.torrent_flags.auto_managed
    if role == "seed-unchecked":
        parameters.flags |= lt.torrent_flags.seed_mode
    torrent = session.add_torrent(parameters)
    told = False
    while True:
        session.wait_for_alert(1_000)
        for alert in session.pop_alerts():
            print(type(alert).__name__, alert.message(), flush=True)
            if isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert)):
                sys.exit(1)
        status = torrent.status()
        if not told and status.is_seeding:
            print("everything is here", flush=True)
            told = True


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main(*sys.argv[1:])
