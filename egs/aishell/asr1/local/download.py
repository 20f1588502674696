"""Downloads AISHELL-1 (15 GB) from openslr.org, verified: download.py FOLDER [--url ARCHIVE]

An interrupted download goes on when the same command is given again; what is there is kept.
"""

import argparse
import sys
from pathlib import Path

from speechkit.data.download import download, unpack_folder
from speechkit.errors import InputError

NAME = "data_aishell"
URL = f"https://www.openslr.org/resources/33/{NAME}.tgz"
MD5 = "2f494334227864a8a8fec932999db9d8"


def fetch(folder: Path, url: str) -> None:
    """Makes folder/data_aishell; the speakers' own archives inside are unpacked too."""
    if (folder / NAME).is_dir():
        print(f"{folder / NAME} is there", file=sys.stderr)
        return
    archive = download(url, folder / f"{NAME}.tgz", f"md5:{MD5}")
    unpack_folder(archive, NAME, folder / NAME, nested="wav/*.tar.gz")
    archive.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help=f"{NAME} goes there")
    parser.add_argument("--url", default=URL, help="where the archive is (default: %(default)s)")
    args = parser.parse_args()
    try:
        fetch(args.folder, args.url)
    except (InputError, OSError) as error:
        sys.exit(f"local/download.py: error: {error}")
