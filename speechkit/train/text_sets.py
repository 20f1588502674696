"""Text sets in training: which directories are read for their text alone, and their sentences in batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from speechkit.config import differences, to_dict
from speechkit.data.dataset import BatchReader, Context
from speechkit.data.kaldi_dir import holds_text_only
from speechkit.data.ledger import Ledger
from speechkit.data.manifest import Manifest, read_texts
from speechkit.data.plan import BatchPlan
from speechkit.data.plan import Config as PlanConfig
from speechkit.errors import InputError
from speechkit.models.assets import Assets
from speechkit.train.distributed import Ranks
from speechkit.train.run import RunConfig
from speechkit.train.usable import choose_texts, encode_fields, settle


def part_folders(
    model: nn.Module, name: str, folders: Sequence[str | Path]
) -> tuple[list[str | Path], list[str | Path]]:
    """Data directories that are read for their speech, and those that are read for their text alone.

    A model that needs no speech takes the text of any directory.

    Args:
        model: a `speechkit.models.Model`.
        name: of its kind.
        folders: data directories and text sets.

    Raises:
        InputError: a text set for a model that cannot learn from it, or only text sets for one that needs
            speech.
    """
    if not model.requires:
        return [], list(folders)
    texts = [folder for folder in folders if holds_text_only(folder)]
    speech = [folder for folder in folders if folder not in texts]
    if texts and not getattr(model, "text_requires", ()):
        raise InputError(f"{texts[0]}: has no wav.scp; model {name} learns from speech, not from text alone")
    if texts and not speech:
        raise InputError(
            f"model {name} needs speech, and there are only text sets ({', '.join(map(str, texts))})"
        )
    return speech, texts


def check_text_options(config: RunConfig) -> None:
    """Refuses options about speech in a run without any.

    Raises:
        InputError: names those that differ from their defaults.
    """
    changed = []
    for line in differences(to_dict(type(config)()), to_dict(config)):
        key = line.partition(":")[0]
        if key.startswith(("augment.", "features.", "plan.")) and not key.startswith("plan.text."):
            changed.append(key)
    if changed:
        raise InputError(
            f"{', '.join(changed)}: about speech, and model {config.model.name} learns from text alone; "
            "leave that out (batches of text have plan.text.*)"
        )
    if config.plan.text.every != 1:
        raise InputError("plan.text.every: is for text beside speech, and there is none; leave it out")


def check_dealing(option: str, micro_batches: int, ranks: Ranks) -> None:
    """Raises InputError unless every rank gets as many micro-batches of an update."""
    if micro_batches % ranks.world:
        raise InputError(
            f"{option}.micro_batches={micro_batches} must be a multiple of the {ranks.world} processes, "
            "so that every process gets as many"
        )


def make_text_set(
    name: str,
    config: RunConfig,
    exp: Path,
    ranks: Ranks,
    assets: Assets,
    model: nn.Module,
    folders: Sequence[str | Path],
) -> tuple[Manifest, BatchPlan, BatchReader]:
    """Reads the text of directories, checks every sentence, and plans the batches.

    Args:
        name: "train" or "dev"; an evaluation set is neither shuffled nor filtered.
        config: of the run.
        exp: the experiment folder, for the ledger.
        ranks: this process and the others.
        assets: tokenizer and BERT's vocabulary.
        model: `text_requires` is read; its first field gives the lengths.
        folders: the data directories.

    Raises:
        InputError: no sentence that can be used, or too many that cannot.
    """
    training, fields, limits = name == "train", model.text_requires, config.plan.text
    if training:
        check_dealing("plan.text", limits.micro_batches, ranks)
    manifest = read_texts(folders)
    encoded, bad = encode_fields(fields, manifest, assets)
    ledger = Ledger(f"{name} text", "train" if training else "evaluation", config.data.max_dropped)
    lengths = encoded[fields[0]].lengths
    kept = choose_texts(manifest, ledger, lengths, bad, limits if training else None)
    settle(ledger, exp / f"ledger_{name}_text.jsonl", ranks.first)
    if len(kept) < len(manifest):
        manifest, lengths = manifest.select(kept), lengths[kept]
        encoded = {field: ids.select(kept) for field, ids in encoded.items()}
    plan = BatchPlan(
        manifest.hashes,
        lengths.astype(np.float64),
        PlanConfig(
            seconds=float(limits.tokens),
            micro_batches=limits.micro_batches if training else 1,
            max_utterances=limits.sentences,
            bucket_ratio=limits.bucket_ratio,
        ),
        config.seed,
        shuffle=training,
        unit="tokens",
    )
    return manifest, plan, BatchReader(Context(manifest, **encoded), fields)
