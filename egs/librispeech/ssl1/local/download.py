"""Downloads Libri-Light's fine-tuning sets (10 min, 1 h, 10 h; 0.6 GB): download.py FOLDER [--url ARCHIVE]

An interrupted download goes on when the same command is given again; what is there is kept.
"""

import argparse
import sys
from pathlib import Path

from speechkit.data.download import download, unpack_folder
from speechkit.errors import InputError

NAME = "librispeech_finetuning"
URL = f"https://dl.fbaipublicfiles.com/librilight/data/{NAME}.tgz"
SHA256 = "5d1efdc777b548194d7e09ba89126e2188026df9fd57aa57eb14408d2b2342af"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help=f"{NAME} goes there")
    parser.add_argument("--url", default=URL, help="where the archive is (default: %(default)s)")
    args = parser.parse_args()
    try:
        if not (args.folder / NAME).is_dir():
            archive = download(args.url, args.folder / f"{NAME}.tgz", f"sha256:{SHA256}")
            unpack_folder(archive, NAME, args.folder / NAME)
            archive.unlink()
    except (InputError, OSError) as error:
        sys.exit(f"local/download.py: error: {error}")
