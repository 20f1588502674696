"""From data directories to batches: which utterances a model can use, in which order, and what reads them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from speechkit.config import load_kind
from speechkit.data.array_readers import check_frames
from speechkit.data.augment import Augment, speed_samples
from speechkit.data.crop import check_extractor
from speechkit.data.dataset import BatchReader, Context, Loaded, MixedReader, read_ahead, tables_of
from speechkit.data.label_checks import check_labels, check_records
from speechkit.data.ledger import Ledger
from speechkit.data.manifest import Manifest, read_manifest
from speechkit.data.plan import BatchPlan, deal
from speechkit.data.plan import Config as PlanConfig
from speechkit.data.tables import features_table
from speechkit.data.text_plan import ChainedPlan, MixedPlan
from speechkit.errors import BadSample, InputError
from speechkit.files import hash_bytes, write_jsonl
from speechkit.frontends import FEATURES
from speechkit.models.assets import Assets
from speechkit.train.distributed import Ranks
from speechkit.train.known_labels import known_labels
from speechkit.train.run import RunConfig
from speechkit.train.text_sets import make_text_set, part_folders
from speechkit.train.usable import (
    check_mixing,
    choose,
    encode_fields,
    output_frames,
    settle,
    too_long,
    too_short,
)


@dataclass
class DataSet:
    """A data set ready to be read.

    Attributes:
        manifest: the usable utterances; of a model of text alone, the sentences.
        plan: its batches.
        reader: makes them.
        texts: sentences of text sets beside speech, or None.
    """

    manifest: Manifest
    plan: BatchPlan | MixedPlan | ChainedPlan
    reader: BatchReader | MixedReader
    texts: Manifest | None = None

    @property
    def size(self) -> int:
        """Utterances and sentences."""
        return len(self.manifest) + (len(self.texts) if self.texts is not None else 0)

    @property
    def hash(self) -> str:
        """Hash of what training sees of the data."""
        if self.texts is None:
            return self.manifest.hash
        return hash_bytes(self.manifest.hash.encode(), self.texts.hash.encode())

    def stream(self, config: RunConfig, ranks: Ranks, start: int, end: int) -> Iterator[Loaded]:
        """This rank's micro-batches of updates start to end, read ahead; close it to stop."""
        rows = (self.plan.row(update) for update in range(start, end))
        mine = (micro_batch for row in rows for micro_batch in deal(row, ranks.rank, ranks.world))
        return read_ahead(self.reader, mine, config.data)


def make_data_set(
    name: str,
    config: RunConfig,
    exp: Path,
    ranks: Ranks,
    assets: Assets,
    model: nn.Module,
    folders: Sequence[str | Path],
) -> DataSet:
    """Reads directories, checks every utterance against the model, and plans the batches.

    Args:
        name: "train" or "dev"; an evaluation set is neither augmented, cropped nor shuffled.
        config: of the run.
        exp: the experiment folder; the ledgers and the list of odd labels are written there.
        ranks: this process and the others.
        assets: tokenizer, statistics, BERT's vocabulary.
        model: decides what is read, and how long it must be.
        folders: the data directories, text sets among them.

    Raises:
        InputError: data that cannot be used; see `choose` and `part_folders`.
    """
    if not folders:
        raise InputError("no data directory given")
    speech, texts = part_folders(model, config.model.name, folders)
    common = (name, config, exp, ranks, assets, model)
    if not texts:
        return DataSet(*_make_speech_set(*common, speech))
    sentences, text_plan, text_reader = make_text_set(*common, texts)
    if not speech:
        return DataSet(sentences, text_plan, text_reader)
    manifest, plan, reader = _make_speech_set(*common, speech)
    if name == "train":
        both = MixedPlan(plan, text_plan, config.plan.text.every)
    else:
        both = ChainedPlan([plan, text_plan])
    return DataSet(manifest, both, MixedReader(reader, text_reader), sentences)


def _make_speech_set(
    name: str,
    config: RunConfig,
    exp: Path,
    ranks: Ranks,
    assets: Assets,
    model: nn.Module,
    folders: Sequence[str | Path],
) -> tuple[Manifest, BatchPlan, BatchReader]:
    """The same for directories with speech."""
    training = name == "train"
    extractor = load_kind(FEATURES, config.features.name).build(config.features)
    speeds = config.augment.speeds if training else [1.0]
    dumped = map(features_table, speeds) if "features" in model.requires else ()
    check_frames(folders, assets.video)
    check_records(folders, getattr(model, "label_sets", ()))
    partial = tables_of(getattr(model, "optional", ())) if training else ()
    manifest = read_manifest(
        folders, tables_of(model.requires), [*dumped, "utt2lang"], extractor.rate, config.features, partial
    )

    encoded, unknown = encode_fields(model.requires, manifest, assets)
    tokens = encoded.get("tokens")
    emitted = output_frames(model, manifest, _input_length(model, extractor, max(speeds)))
    frames = emitted if "ctc" in model.weights else None
    labelled = frames is not None or "tokens" in model.requires  # else there are masked and other frames
    unknown = too_short(manifest, emitted, 1 if labelled else 2) | unknown
    longest = getattr(model, "longest_text", None)
    if training and longest is not None:
        unknown |= too_long(manifest, encoded["bert_tokens"], longest)
    unknown |= _unlabelled(name, model, manifest, exp, ranks)
    ledger = Ledger(f"{name} set", "train" if training else "evaluation", config.data.max_dropped)
    kept = choose(manifest, ledger, config.plan if training else None, tokens, unknown, frames)
    settle(ledger, exp / f"ledger_{name}.jsonl", ranks.first)
    if len(kept) < len(manifest):
        manifest = manifest.select(kept)
        encoded = {field: ids.select(kept) for field, ids in encoded.items()}
    if hasattr(model, "check_targets"):
        model.check_targets(manifest.ids, encoded["tokens"])
    if training and hasattr(model, "hear_of"):
        model.hear_of(torch.from_numpy(np.unique(encoded["bert_tokens"].flat)).long())

    if training and manifest.absent and not getattr(model, "mixes", False):
        check_mixing(config.plan, manifest, _sources(config, manifest), folders)
    augment = Augment(config.augment) if training else None
    if training and config.plan.crops:
        _check_crops(config, model, extractor)
    if training and hasattr(model, "know_labels"):
        model.know_labels(known_labels(model.requires, manifest))
    rates = {labels.field: labels.rate for labels in getattr(model, "label_sets", ())}
    unchanged = plain(config) or not training
    context = Context(manifest, extractor, augment, unchanged, label_rates=rates, **encoded)
    return manifest, _plan(config, manifest, training), BatchReader(context, model.requires)


def _check_crops(config: RunConfig, model: nn.Module, extractor: object) -> None:
    """Raises InputError for crops that begin between two frames or hold fewer than two."""
    if "features" in model.requires:
        if config.plan.crop_align == "free":
            raise InputError("plan.crop_align=free: features are cut between frames; leave it at hop")
        check_extractor(extractor)
    seconds = config.plan.crop_seconds
    if seconds is not None:
        length = _input_length(model, extractor, 1.0)(round(seconds * extractor.rate))
        if int(model.output_lengths(torch.tensor([length]))) < 2:
            raise InputError(f"plan.crop_seconds={seconds}: the model makes fewer than 2 frames of that")


def plain(config: RunConfig) -> bool:
    """Whether augmentation changes nothing but the speed of waveforms."""
    parts = (config.augment.noise, config.augment.reverb, config.augment.gain)
    return all(part.probability == 0 for part in parts)


def _unlabelled(
    name: str, model: nn.Module, manifest: Manifest, exp: Path, ranks: Ranks
) -> dict[int, BadSample]:
    """Utterances without the frame labels that the model needs; those of an odd length are listed."""
    missing, odd = check_labels(manifest, getattr(model, "label_sets", ()))
    if odd and ranks.first:
        path = exp / f"odd_labels_{name}.jsonl"
        write_jsonl(path, odd)
        print(
            f"speechkit train: {len(odd)} of {len(manifest)} utterances of the {name} set have labels that "
            f"are more than 0.1 s longer or shorter than the audio; they are listed in {path}",
            file=sys.stderr,
        )
    return missing


def _input_length(model: nn.Module, extractor: object, speed: float) -> Callable[[int], int]:
    """Samples at speed 1 to the length of the model's first input at a speed."""
    if model.inputs[0] == "features":
        return lambda samples: extractor.frames(speed_samples(samples, speed))
    return lambda samples: speed_samples(samples, speed)


def _plan(config: RunConfig, manifest: Manifest, training: bool) -> BatchPlan:
    if training:
        return BatchPlan(
            manifest.hashes,
            manifest.seconds,
            config.plan,
            config.seed,
            speeds=config.augment.speeds,
            sources=_sources(config, manifest),
            rate=manifest.rate,
        )
    # One micro-batch a row: the ranks take rows in turn, and sum what they find.
    budget = PlanConfig(
        seconds=config.validation.seconds,
        quadratic=config.plan.quadratic,
        max_utterances=config.plan.max_utterances,
    )
    return BatchPlan(manifest.hashes, manifest.seconds, budget, shuffle=False)


def _sources(config: RunConfig, manifest: Manifest) -> np.ndarray:
    """`(N,)` number of the data directory or of the language of each utterance."""
    if config.plan.sources == "folders":
        return manifest.sources
    languages = manifest.tables.get("utt2lang")
    if languages is None:
        raise InputError("plan.sources=languages: every training directory needs utt2lang")
    return np.unique([languages[i] for i in range(len(languages))], return_inverse=True)[1]


def dev_stream(data: DataSet, config: RunConfig, ranks: Ranks) -> Iterator[Loaded]:
    """This rank's dev batches, read ahead."""
    rows = range(ranks.rank, data.plan.updates(0), ranks.world)
    return read_ahead(data.reader, (data.plan.row(row)[0] for row in rows), config.data)


def references(data: DataSet, assets: Assets) -> Callable[[str], str]:
    """Normalised reference text by utterance id."""
    manifest = data.manifest
    where = {manifest.ids[i]: i for i in range(len(manifest))}
    return lambda utterance: assets.tokenizer.normaliser(manifest.tables["text"][where[utterance]])


def watched(data: DataSet, count: int) -> list[str]:
    """Ids of a few utterances that depend on nothing but the ids of the set."""
    chosen = np.argsort(data.manifest.hashes, kind="stable")[:count]
    return [data.manifest.ids[int(i)] for i in chosen]
