"""What each program in a wav.scp pipe may be told: options are allowed by name, everything else is refused.

The programs read files that exist or the pipe, and write to the pipe: no output files, no commands
inside arguments (sox's `|command` inputs, playlists), no devices, no network, no plug-ins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable


class Refused(ValueError):
    """An argument that is not allowed; its text says which and why."""


SOX_FLAGS = {
    "-q",
    "-D",
    "-G",
    "-R",
    "-S",
    "-m",
    "-M",
    "-L",
    "-B",
    "-x",
    "-N",
    "-X",
    "--norm",
    "--no-dither",
    "--guard",
}
SOX_FLAGS |= {"--no-show-progress", "--ignore-length", "--single-threaded", "--multi-threaded"}
SOX_VALUES = {
    "-r",
    "-b",
    "-c",
    "-v",
    "-C",
    "--rate",
    "--bits",
    "--channels",
    "--volume",
    "--compression",
    "--buffer",
}
SOX_TYPES = set("wav wavpcm raw flac mp3 ogg vorbis opus sph nist au snd aiff aif w64 caf voc gsm".split())
SOX_TYPES |= set("sw sb sl ub uw ul al la lu s8 s16 s24 s32 u8 u16 f32 f64 amr-nb amr-wb".split())
SOX_ENCODINGS = {"signed-integer", "unsigned-integer", "floating-point", "signed", "unsigned", "float"}
SOX_ENCODINGS |= {"mu-law", "a-law", "u-law", "mu", "a"}
SOX_EFFECTS = set(
    "allpass band bandpass bandreject bass bend biquad channels chorus compand contrast dcshift deemph delay "
    "dither downsample earwax echo echos equalizer fade flanger gain highpass hilbert loudness lowpass "
    "mcompand norm oops overdrive pad phaser pitch rate remix repeat reverb reverse riaa silence sinc speed "
    "stretch swap tempo treble tremolo trim upsample vad vol".split()
)
# These write files, load plug-ins, read other files or open further outputs.
SOX_REFUSED = set(
    "divide fir firfit input ladspa noiseprof noisered output spectrogram splice stat stats synth newfile "
    "restart :".split()
)
FFMPEG_FLAGS = {"-nostdin", "-hide_banner", "-nostats", "-vn", "-sn", "-dn", "-bitexact"}
FFMPEG_VALUES = {
    "-v": r"quiet|panic|fatal|error|warning|info",
    "-loglevel": r"quiet|panic|fatal|error|warning|info",
    "-ss": r"[0-9:.]+",
    "-t": r"[0-9:.]+",
    "-to": r"[0-9:.]+",
    "-ar": r"[0-9]+",
    "-ac": r"[0-9]+",
    "-threads": r"[0-9]+",
    "-map": r"0:(a(:[0-9]+)?|[0-9]+)",
    "-map_metadata": r"-1",
    "-f": r"wav|flac|mp3|ogg|opus|mp4|mov|matroska|aac|s16le|s24le|s32le|f32le|mulaw|alaw|u8",
    "-acodec": r"pcm_[a-z0-9]+|flac|libopus|opus|copy",
    "-c:a": r"pcm_[a-z0-9]+|flac|libopus|opus|copy",
    "-codec:a": r"pcm_[a-z0-9]+|flac|libopus|opus|copy",
    "-sample_fmt": r"[a-z0-9]+",
}
NUMBER = r"[-+]?[0-9]+(\.[0-9]+)?k?"


def _input(word: str) -> None:
    """Refuses what is neither the pipe nor an existing file."""
    if word == "-":
        return
    if word.startswith("-"):
        raise Refused(f"option '{word}' is not allowed")
    if "|" in word or "://" in word or word.lower().endswith((".m3u", ".pls", ".m3u8")):
        raise Refused(f"input '{word}' is a command, address or playlist, not an audio file")
    if not os.path.isfile(word):
        raise Refused(f"input '{word}' is no file")


def check_cat(words: list[str]) -> list[str]:
    """Only existing files."""
    for word in words:
        _input(word)
    return words


def check_sph2pipe(words: list[str]) -> list[str]:
    """One input; a second name would be an output file."""
    inputs, index = 0, 0
    while index < len(words):
        word, value = words[index], words[index + 1] if index + 1 < len(words) else ""
        if word in ("-p", "-u", "-a"):
            index += 1
        elif word in ("-f", "-c", "-t", "-s"):
            if not re.fullmatch(r"[a-z0-9]+|[0-9.]*:[0-9.]*", value):
                raise Refused(f"value '{value}' of {word} is not allowed")
            index += 2
        else:
            _input(word)
            inputs, index = inputs + 1, index + 1
    if inputs != 1:
        raise Refused("needs exactly one input file and no output file")
    return words


def check_flac(words: list[str]) -> list[str]:
    """Decoding to standard output."""
    flags = set()
    for word in words:
        if re.fullmatch(r"-[dcsF]+", word):
            flags |= set(word[1:])
        elif word in ("--decode", "--stdout"):
            flags.add({"--decode": "d", "--stdout": "c"}[word])
        elif re.fullmatch(r"--(skip|until)=[-+0-9:.]+|--silent|--totally-silent", word):
            continue
        else:
            _input(word)
    if not {"d", "c"} <= flags:
        raise Refused("must decode to standard output: flac -d -c -s file")
    return words


def check_sox(words: list[str]) -> list[str]:
    """Inputs that exist, output `-`, then harmless effects."""
    files, index = [], 0
    while index < len(words) and not (files and words[index] in SOX_EFFECTS | SOX_REFUSED):
        word = words[index]
        if word.startswith("-") and word != "-":
            index += _sox_option(word, words[index + 1] if index + 1 < len(words) else "")
            continue
        files.append(word)
        index += 1
    if len(files) < 2 or files[-1] != "-":
        raise Refused("the output must be '-', as in: sox in.wav -t wav -")
    for name in files[:-1]:
        if name in SOX_EFFECTS | SOX_REFUSED:
            raise Refused(f"input '{name}' has the name of an effect; write ./{name}")
        _input(name)
    for word in words[index:]:
        if word in SOX_REFUSED or "|" in word:
            raise Refused(f"effect '{word}' is not allowed")
    return words


def _sox_option(word: str, value: str) -> int:
    """How many words an option takes; Refused when it is not allowed."""
    if word in SOX_FLAGS or re.fullmatch(r"-V[0-6]?|--norm=-?[0-9.]+", word):
        return 1
    name, attached = (word[:2], word[2:]) if re.fullmatch(r"-[rbcvCte].+", word) else (word, "")
    name, equals, after = name.partition("=") if name.startswith("--") else (name, "", "")
    given = attached or after or value
    rules = {"-t": SOX_TYPES, "--type": SOX_TYPES, "-e": SOX_ENCODINGS, "--encoding": SOX_ENCODINGS}
    if name in rules:
        allowed = given.lower() in rules[name]
    elif name == "--endian":
        allowed = given in ("little", "big", "swap")
    elif name == "--combine":
        allowed = given in ("concatenate", "merge", "mix", "mix-power", "multiply", "sequence")
    elif name in SOX_VALUES:
        allowed = re.fullmatch(NUMBER, given) is not None
    else:
        raise Refused(f"option '{word}' is not allowed")
    if not allowed:
        raise Refused(f"value '{given}' of {name} is not allowed")
    return 1 if attached or equals else 2


def check_ffmpeg(words: list[str]) -> list[str]:
    """Files in, pipe out; only the file and pipe protocols may be opened, whatever a file says."""
    checked, inputs, outputs, index = ["-nostdin"], 0, 0, 0
    while index < len(words):
        word, value = words[index], words[index + 1] if index + 1 < len(words) else ""
        if word == "-i":
            if value not in ("-", "pipe:0", "pipe:"):
                _input(value)
                if ":" in value or "," in value.split("/")[0]:
                    raise Refused(f"input '{value}': protocols are not allowed")
                value = f"file:{value}"
            checked += ["-protocol_whitelist", "file,pipe", "-i", value]
            inputs, index = inputs + 1, index + 2
        elif word in FFMPEG_FLAGS:
            checked.append(word)
            index += 1
        elif word in FFMPEG_VALUES:
            if not re.fullmatch(FFMPEG_VALUES[word], value):
                raise Refused(f"value '{value}' of {word} is not allowed")
            checked += [word, value]
            index += 2
        elif word in ("-", "pipe:1", "pipe:") and index == len(words) - 1:
            checked.append("pipe:1")
            outputs, index = 1, index + 1
        else:
            raise Refused(f"'{word}' is not allowed")
    if not inputs or not outputs:
        raise Refused("needs -i file, and '-' or pipe:1 as its last word")
    return checked


# program -> check of its words, which returns the words to run it with
PROGRAMS: dict[str, Callable[[list[str]], list[str]]] = {
    "sox": check_sox,
    "flac": check_flac,
    "ffmpeg": check_ffmpeg,
    "sph2pipe": check_sph2pipe,
    "cat": check_cat,
}
