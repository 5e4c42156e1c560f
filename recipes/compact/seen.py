"""List what the compact backbone's pretraining has seen of a data set, for `flawsmith evaluate --seen`.

    python recipes/compact/seen.py mvtec_ad:DATA/ball_screw > seen.txt

One CATEGORY/GROUP per line, by the rule of data_card.md: a group is held out when the first byte of SHA-256 of
"set/group" is below 64. Only ball_screw, cookie and road_potholes were pretrained on; other sets give an empty list.
"""

from __future__ import annotations

import argparse
import hashlib

from flawsmith import datasets

PRETRAINED = ("ball_screw", "cookie", "road_potholes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="READER:DIR")
    records = datasets.read_source(parser.parse_args().source)
    names = dict.fromkeys(f"{r.category}/{r.group}" for r in records if r.category in PRETRAINED)
    for name in names:
        if hashlib.sha256(name.encode()).digest()[0] >= 64:
            print(name)


if __name__ == "__main__":
    main()
