"""Makes a torrent with libtorrent, for `cargo xtask interop`.

    libtorrent_create.py v1|hybrid|v2 PIECE_LENGTH [--announce URL] -o FILE PATH
"""

import argparse
import os

import libtorrent as lt

parser = argparse.ArgumentParser()
parser.add_argument("format", choices=["v1", "hybrid", "v2"])
parser.add_argument("piece_length", type=int)
parser.add_argument("--announce")
parser.add_argument("-o", dest="out", required=True)
parser.add_argument("path")
args = parser.parse_args()

flags = {"v1": lt.create_torrent.v1_only, "hybrid": 0, "v2": lt.create_torrent.v2_only}
storage = lt.file_storage()
lt.add_files(storage, args.path)
torrent = lt.create_torrent(storage, args.piece_length, flags[args.format])
if args.announce:
    torrent.add_tracker(args.announce)
lt.set_piece_hashes(torrent, os.path.dirname(args.path))
with open(args.out, "wb") as file:
    file.write(lt.bencode(torrent.generate()))
