"""What a trained model needs beside its weights, kept in the checkpoint's `assets/` folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from speechkit.encoders.bert import BertAssets
from speechkit.files import read_json, write_json
from speechkit.text.tokenizer import Tokenizer, load_tokenizer


@dataclass
class Assets:
    """The outside knowledge of a model.

    Attributes:
        tokenizer: text to ids and back, with its normaliser; None for models without text.
        cmvn: per-dimension `{"mean": [F], "std": [F], "frames": n}` of the input features, or None.
        bert: architecture and linguistic vocabulary of a BERT, or None.
        video: `{"mean": [3], "std": [3]}` of the colours of video, or None.
        av_bert: of the AV-BERT that a recogniser reads, see `speechkit.models.deep_fusion`; or None.
    """

    tokenizer: Tokenizer | None = None
    cmvn: dict | None = None
    bert: BertAssets | None = None
    video: dict | None = None
    av_bert: dict | None = None

    def save(self, folder: Path) -> None:
        """Writes the assets into an existing folder."""
        if self.tokenizer is not None:
            self.tokenizer.save(folder / "tokenizer")
        if self.cmvn is not None:
            write_json(folder / "cmvn.json", self.cmvn)
        if self.bert is not None:
            self.bert.save(folder / "bert")
        for name, values in (("video_stats", self.video), ("av_bert", self.av_bert)):
            if values is not None:
                write_json(folder / f"{name}.json", values)

    @classmethod
    def load(cls, folder: Path) -> Assets:
        """Reads what `save` wrote; InputError names what is broken."""
        tokenizer, cmvn, bert = (folder / name for name in ("tokenizer", "cmvn.json", "bert"))
        video, av_bert = (folder / name for name in ("video_stats.json", "av_bert.json"))
        return cls(
            load_tokenizer(tokenizer) if tokenizer.exists() else None,
            read_json(cmvn) if cmvn.exists() else None,
            BertAssets.load(bert) if bert.exists() else None,
            read_json(video) if video.exists() else None,
            read_json(av_bert) if av_bert.exists() else None,
        )
