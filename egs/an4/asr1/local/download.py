"""Downloads AN4 from CMU into FOLDER/an4: download.py FOLDER [--url MIRROR]

An interrupted download goes on when the same command is given again. CMU gives no checksum: what is unpacked
is checked by local/data.py, which misses no recording, and by stage 2, which decodes every one.
"""

import argparse
import sys
from pathlib import Path

from speechkit.data.download import download, unpack_folder
from speechkit.errors import InputError

URL = "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz"


def fetch(folder: Path, url: str) -> None:
    """Downloads and unpacks folder/an4; the archive is removed."""
    if (folder / "an4").is_dir():
        print(f"{folder / 'an4'} is there", file=sys.stderr)
        return
    archive = download(url, folder / "an4_sphere.tar.gz")
    unpack_folder(archive, "an4", folder / "an4")
    archive.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="an4 goes there")
    parser.add_argument("--url", default=URL, help="a mirror of it (default: %(default)s)")
    args = parser.parse_args()
    try:
        fetch(args.folder, args.url)
    except (InputError, OSError) as error:
        sys.exit(f"local/download.py: error: {error}")
