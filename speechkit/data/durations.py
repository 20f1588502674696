"""How long each utterance is: from the tables when they say, else by decoding."""

from __future__ import annotations

from speechkit.data.kaldi_dir import DataDir


def utterance_seconds(data: DataDir, rate: int = 16000, allow_pipes: bool = False) -> dict[str, float]:
    """Seconds of every utterance, from the first of: segments, utt2dur, utt2num_samples, the audio.

    Args:
        data: the data set.
        rate: samples a second behind utt2num_samples.
        allow_pipes: run pipes in wav.scp when there is no table.

    Raises:
        BadSample: there is no table and a recording cannot be decoded.
    """
    told = told_seconds(data, rate)
    if told is not None:
        return told
    from speechkit.data.audio import audio_info

    seconds = {}
    for utterance in data.utterances:
        info = audio_info(data.wav[utterance], utterance=utterance, allow_pipes=allow_pipes)
        seconds[utterance] = info.samples / info.rate
    return seconds


def told_seconds(data: DataDir, rate: int = 16000) -> dict[str, float] | None:
    """The same from a table alone; None where there is none of segments, utt2dur and utt2num_samples."""
    if data.segments:
        return {utterance: segment.end - segment.start for utterance, segment in data.segments.items()}
    if "utt2dur" in data.tables:
        return {utterance: float(value) for utterance, value in data.tables["utt2dur"].items()}
    if "utt2num_samples" in data.tables:
        return {utterance: int(n) / rate for utterance, n in data.tables["utt2num_samples"].items()}
    return None
