"""A trained model with a search, ready to turn audio into text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speechkit.config import load_config, load_kind
from speechkit.data import plan
from speechkit.data.audio import read_audio
from speechkit.data.batch import Batch
from speechkit.data.collate import collate
from speechkit.data.dataset import BatchReader, Context, read_ahead, tables_of
from speechkit.data.dataset import Config as ReadConfig
from speechkit.data.manifest import Manifest, read_manifest
from speechkit.decoding import SEARCHES, DecodeConfig
from speechkit.decoding.heads import refuse_nan
from speechkit.decoding.resources import Resources
from speechkit.errors import BadSample, InputError
from speechkit.frontends import FEATURES
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.language_mask import LanguageMask
from speechkit.train.checkpoint import find_checkpoint, load_model

Heads = dict[str, tuple[Tensor, Tensor]]


class Recognizer:
    """Encodes batches and searches them.

    Args:
        model: in eval mode, on its device.
        run: the `RunConfig` that it was trained with.
        resources: what the search reads beside the model's outputs.
        config: the search and the size of batches.
        checkpoint: the folder that the model came from.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        run: object,
        resources: Resources,
        config: DecodeConfig,
        checkpoint: Path,
    ) -> None:
        self.model, self.run, self.resources, self.config, self.checkpoint = (
            model,
            run,
            resources,
            config,
            checkpoint,
        )
        self.device = next(model.parameters()).device
        self.extractor = load_kind(FEATURES, run.features.name).build(run.features)
        self.searcher = load_kind(SEARCHES, config.search.name).build(config.search, resources)
        own = getattr(config.search, "own_language", False)
        self.mask = LanguageMask(resources.assets.tokenizer.vocab) if own else None

    @classmethod
    def load(
        cls,
        exp: str | Path,
        config: DecodeConfig | str | Path | None = None,
        *,
        lexicon: str | Path | None = None,
        lm: str | Path | None = None,
        bert: str | Path | None = None,
        device: str | None = None,
    ) -> Recognizer:
        """Opens an experiment (`exp/ctc/seed1`: its `final`) or one of its checkpoint folders.

        Args:
            exp: the folder.
            config: how to search, or a YAML file that says so; None is the greedy search.
            lexicon: words that the search is confined to, or their spellings.
            lm: ARPA language model, or the folder of a neural one.
            bert: folder of the BERT that rescores.
            device: such as "cuda"; None takes a GPU when there is one.

        Raises:
            InputError: anything missing, damaged, or not fitting together.
        """
        if not isinstance(config, DecodeConfig):
            config = load_config(DecodeConfig, config)
        device = choose_device(device)
        checkpoint = find_checkpoint(Path(exp))
        model, run, assets = load_model(checkpoint, device)
        files = (Path(path) if path else None for path in (lexicon, lm, bert))
        resources = Resources(model, assets, *files)
        return cls(model, run, resources, config, checkpoint)

    def with_search(self, **options: float) -> Recognizer:
        """The same recogniser with some options of its search changed; the model is shared."""
        search = replace(self.config.search, **options)
        return Recognizer(
            self.model, self.run, self.resources, replace(self.config, search=search), self.checkpoint
        )

    @torch.no_grad()
    def encode(self, batch: Batch) -> Heads:
        """The model's heads for a batch; halves a batch that does not fit the GPU's memory.

        With `search.own_language`, the head that is searched has no other languages' phones.

        Raises:
            BadSample: an utterance's outputs are NaN.
            InputError: one utterance alone does not fit the GPU's memory.
        """
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                heads = self.model.encode(batch.to(self.device))
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise InputError(
                    f"utterance {batch.ids[0]}: does not fit the memory of {self.device}"
                ) from None
            torch.cuda.empty_cache()
            half = len(batch) // 2
            parts = [self.encode(part(batch, slice(0, half))), self.encode(part(batch, slice(half, None)))]
            return {name: _join([heads[name] for heads in parts]) for name in parts[0]}
        refuse_nan(heads, batch.ids)
        name = self.config.search.head
        if self.mask is not None and name in heads:
            heads = heads | {name: (self.mask(heads[name][0], batch.languages), heads[name][1])}
        return heads

    def search(self, heads: Heads) -> list[list[Hypothesis]]:
        """N-best hypotheses of each utterance, best first.

        Raises:
            InputError: the model has no such head as the search reads.
        """
        self.check_head(heads)
        return self.searcher(heads)

    def check_head(self, heads: Heads) -> None:
        """Raises InputError unless the model has the head that the search reads."""
        if self.config.search.head not in heads:
            has = ", but " + ", ".join(heads) if heads else ": it is a pre-training model; fine-tune it first"
            raise InputError(f"search.head={self.config.search.head}: the model has no such head{has}")

    def batches(self, folder: str | Path) -> tuple[Manifest, Iterator[Batch]]:
        """The utterances of a data directory, longest batches last.

        Raises:
            InputError: an utterance cannot be read; nothing is left out of what is decoded.
        """
        tables = tables_of(self.model.inputs)
        optional = ("feats.scp",) if "features" in self.model.inputs else ()
        optional += ("utt2lang",) if self.mask is not None else ()
        manifest = read_manifest([folder], tables, optional, self.extractor.rate, self.run.features)
        for i, samples in enumerate(manifest.samples.tolist()):
            self._check_length(manifest.ids[i], samples)
        reader = BatchReader(Context(manifest, self.extractor), self.model.inputs)
        budget = plan.Config(seconds=self.config.seconds)
        order = plan.BatchPlan(manifest.hashes, manifest.seconds, budget, shuffle=False)
        micro_batches = (order.row(update)[0] for update in range(order.updates(0)))
        return manifest, self._read(reader, micro_batches)

    def _read(self, reader: BatchReader, micro_batches: Iterator) -> Iterator[Batch]:
        for loaded in read_ahead(reader, micro_batches, ReadConfig()):
            if loaded.bad:
                raise BadSample(*loaded.bad[0])
            yield loaded.batch

    def transcribe(
        self,
        audio: str | Path | np.ndarray | Sequence,
        *,
        rate: int | None = None,
        channel: int | None = None,
    ) -> str | list[str]:
        """Recognises files or waveforms.

        Args:
            audio: a file of any supported format, a mono waveform `(S,)` in [-1, 1], or a list of these.
            rate: samples a second of waveforms; None takes the model's.
            channel: which channel of files with several, from 0.

        Returns:
            The text, or a list of texts for a list.

        Raises:
            BadSample: a file that is missing, damaged, empty, or has several channels and none was chosen.
        """
        if isinstance(audio, (str, Path)) or (isinstance(audio, np.ndarray) and audio.ndim == 1):
            return self.transcribe([audio], rate=rate, channel=channel)[0]
        waveforms = [self._waveform(item, rate, channel) for item in audio]
        texts = [""] * len(waveforms)
        order = sorted(range(len(waveforms)), key=lambda i: len(waveforms[i]))
        for group in self._groups(order, waveforms):
            batch = self.batch([waveforms[i] for i in group], [str(audio[i])[:200] for i in group])
            for i, nbest in zip(group, self.search(self.encode(batch))):
                texts[i] = self.searcher.text(nbest[0]) if nbest else ""
        return texts

    def batch(self, waveforms: Sequence[np.ndarray], names: Sequence[str]) -> Batch:
        """What the model reads of `(S_i,)` waveforms at its rate; BadSample, with the name, if too short."""
        rows = [self._fields(*pair) for pair in zip(waveforms, names)]
        return collate(list(names), [0] * len(rows), rows)

    def _waveform(self, item: str | Path | np.ndarray, rate: int | None, channel: int | None) -> np.ndarray:
        if isinstance(item, np.ndarray):
            if item.ndim != 1 or not len(item) or not np.isfinite(item).all():
                raise InputError(f"a waveform must be (S,) finite samples, got {item.shape} {item.dtype}")
            from speechkit.data.audio import resample

            item = item.astype(np.float32, copy=False)
            return item if rate in (None, self.extractor.rate) else resample(item, rate, self.extractor.rate)
        return read_audio(str(item), rate=self.extractor.rate, channel=channel, utterance=str(item))

    def _fields(self, waveform: np.ndarray, name: str) -> dict[str, Tensor]:
        fields = {}
        if "speech" in self.model.inputs:
            self._check_length(name, len(waveform))
            fields["speech"] = torch.from_numpy(waveform)
        if "features" in self.model.inputs:
            features = self.extractor(waveform)
            if not len(features):
                raise BadSample(name, "too short", f"{len(waveform)} samples hold no feature frame")
            fields["features"] = torch.from_numpy(features)
        return fields

    def _check_length(self, name: str, samples: int) -> None:
        """Raises BadSample for a waveform that is too short for one frame of a model that takes samples."""
        if "speech" not in self.model.inputs or self.model.output_lengths(torch.tensor([samples])).any():
            return
        fewest = 1 + int((self.model.output_lengths(torch.arange(1, self.extractor.rate)) == 0).sum())
        raise BadSample(name, "too short", f"{samples} samples; the model's first frame takes {fewest}")

    def _groups(self, order: list[int], waveforms: list[np.ndarray]) -> Iterator[list[int]]:
        """Indices in batches of at most the budget, padding included; `order` is shortest first."""
        group: list[int] = []
        for i in order:
            if group and (len(group) + 1) * len(waveforms[i]) > self.config.seconds * self.extractor.rate:
                yield group
                group = []
            group.append(i)
        if group:
            yield group


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or a GPU when there is one; InputError when it cannot be used."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # whatever torch says it with
        why = str(error).splitlines()[0][:120]
        raise InputError(f"--device {name}: cannot be used here ({why}); leave it out, or try cpu") from None
    return device


def part(batch: Batch, rows: slice) -> Batch:
    """Some utterances of a batch."""
    fields = {
        name: replace(padded, values=padded.values[rows], lengths=padded.lengths[rows])
        for name, padded in batch.fields.items()
    }
    languages = batch.languages[rows] if batch.languages is not None else None
    return replace(batch, ids=batch.ids[rows], keys=batch.keys[rows], languages=languages, fields=fields)


def _join(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    width = max(values.shape[1] for values, _ in parts)
    padded = [torch.nn.functional.pad(values, (0, 0, 0, width - values.shape[1])) for values, _ in parts]
    return torch.cat(padded), torch.cat([lengths for _, lengths in parts])
