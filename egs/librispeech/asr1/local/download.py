"""Downloads parts of LibriSpeech from openslr.org, verified: download.py FOLDER PART ... [--url MIRROR]

An interrupted download goes on when the same command is given again; a part that is there is kept. The
checksums are SHA-256; md5sum.txt on openslr.org/12 has the publisher's MD5 of the same files.
"""

import argparse
import sys
from pathlib import Path

from speechkit.data.download import download, unpack_folder
from speechkit.errors import InputError

URL = "https://www.openslr.org/resources/12"
SHA256 = {
    "dev-clean": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other": "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "test-clean": "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other": "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
    "train-clean-100": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500": "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
}


def fetch(folder: Path, parts: list[str], url: str) -> None:
    """Downloads and unpacks parts into folder/LibriSpeech/<part>; the archives are removed."""
    for part in parts:
        target = folder / "LibriSpeech" / part
        if target.is_dir():
            print(f"{target} is there", file=sys.stderr)
            continue
        if part not in SHA256:
            raise InputError(f"no part '{part}'; LibriSpeech has {', '.join(SHA256)}")
        archive = download(f"{url}/{part}.tar.gz", folder / f"{part}.tar.gz", f"sha256:{SHA256[part]}")
        unpack_folder(archive, f"LibriSpeech/{part}", target)
        archive.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="LibriSpeech/<part> goes there")
    parser.add_argument("parts", nargs="+", help=", ".join(SHA256))
    parser.add_argument("--url", default=URL, help="a mirror of openslr.org/12 (default: %(default)s)")
    args = parser.parse_args()
    try:
        fetch(args.folder, args.parts, args.url)
    except (InputError, OSError) as error:
        sys.exit(f"local/download.py: error: {error}")
