"""`speechkit convert`: models from other toolkits, encoders back to them; BERTs that were trained here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        required=True,
        help="Hugging Face folder, fairseq .pt, ESPnet .pth with its config.yaml beside it, torchaudio state "
        "dict or folder, or SpeechKit checkpoint",
    )
    add("--out", type=Path, required=True, help="folder to write")
    add(
        "--to",
        choices=("speechkit", "huggingface", "torchaudio"),
        default="speechkit",
        help="whose format to write (default: %(default)s)",
    )
    add(
        "--from",
        dest="origin",
        choices=("huggingface", "fairseq", "espnet", "torchaudio"),
        help="whose model it must be (default: whatever is found)",
    )
    add(
        "--dictionary",
        type=Path,
        help="letters of the CTC head: fairseq's dict.ltr.txt, torchaudio's labels; ESPnet's bpe.model",
    )
    add(
        "--legacy-weight-norm",
        type=true_or_false,
        default=False,
        help="huggingface: name the positional convolution weight_g and weight_v, as before torch 2.1",
    )
    add("--force", type=true_or_false, default=False, help="do it although nothing changed")
    add(
        "overrides",
        nargs="*",
        help="values that the file lacks, or that should differ: model.encoder.heads=8",
    )


def run(args: argparse.Namespace) -> int:
    """Reads, prints what became of every weight, and writes; the folder appears complete or not at all."""
    from speechkit.errors import UsageError
    from speechkit.stamp import Stamp

    if args.legacy_weight_norm and args.to != "huggingface":
        raise UsageError("--legacy-weight-norm true belongs to --to huggingface")
    final = Path(args.model) / "final"  # of an experiment, whose logs may grow
    inputs = [final if final.is_dir() else args.model, *([args.dictionary] if args.dictionary else [])]
    options = [args.to, args.legacy_weight_norm, args.overrides]
    stamp = Stamp(args.out, "convert", options, inputs, args.force)
    if stamp.fresh():
        return 0
    model, config, assets, what, lines = _open(args)
    lines += _write(args, model, config, assets, what)
    stamp.write()
    print("\n".join(lines))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    about = f"{what} -> {args.to} {config.model.name}, {parameters / 1e6:.1f} M parameters"
    print(f"speechkit convert: {args.out}: {about}", file=sys.stderr)
    return 0


def _open(args: argparse.Namespace) -> tuple[Any, Any, Any, str, list[str]]:
    """Model, configuration, assets, what it was, and the account of its weights."""
    from speechkit.errors import UsageError
    from speechkit.integrations.reading import is_speechkit

    if args.origin is not None or not is_speechkit(args.model):
        return _from_foreign(args)
    from speechkit.layers.adapters import merge_lora
    from speechkit.train.checkpoint import load_model

    if args.to == "speechkit" or args.overrides or args.dictionary:
        raise UsageError(
            f"{args.model}: SpeechKit's already; say --to huggingface or torchaudio, and no more"
        )
    model, config, assets = load_model(args.model)
    merged = merge_lora(model)
    if merged:
        config.model.encoder.lora = None
    return model, config, assets, "SpeechKit", [f"low-rank changes added: {name}" for name in merged]


def _from_foreign(args: argparse.Namespace) -> tuple[Any, Any, Any, str, list[str]]:
    from speechkit.config import load_config, parse_override
    from speechkit.errors import UsageError
    from speechkit.integrations.foreign import load_foreign, model_values
    from speechkit.integrations.reading import read_foreign
    from speechkit.models.assets import Assets
    from speechkit.train.run import RunConfig
    from speechkit.train.setup import build_model

    stated: dict[str, Any] = {}
    for override in args.overrides:
        stated = _merged(stated, parse_override(override)[0])
    if stated.keys() - {"model"} or not isinstance(stated.get("model", {}), dict):
        raise UsageError("only values of model.* can be said here, such as model.encoder.heads=8")
    encoder = stated.get("model", {}).pop("encoder", {})
    foreign = read_foreign(args.model, args.dictionary, encoder)
    if args.origin and not foreign.source.lower().replace(" ", "").startswith(args.origin):
        raise UsageError(f"{args.model}: is {foreign.source}, and --from says {args.origin}")
    sections = {"features": foreign.features} if foreign.features else {}
    model_section = {**model_values(foreign), **stated.get("model", {})}
    config = load_config(RunConfig, model=model_section, **sections)
    assets = Assets(foreign.tokenizer, foreign.cmvn)
    model = build_model(config, assets)
    state, account = load_foreign(model.state_dict(), foreign, args.model)
    model.load_state_dict(state)
    return model, config, assets, foreign.source, account.lines()


def _merged(below: dict, above: dict) -> dict:
    """Two nested tables as one."""
    both = below.keys() & above.keys()
    joined = {key: _merged(below[key], above[key]) for key in both if isinstance(above[key], dict)}
    return {**below, **above, **joined}


def _write(args: argparse.Namespace, model: Any, config: Any, assets: Any, what: str) -> list[str]:
    from speechkit.files import atomic_folder
    from speechkit.integrations import bert_export, huggingface_export, torchaudio
    from speechkit.train.checkpoint import save_checkpoint

    state = model.state_dict()
    if args.to == "speechkit":
        facts = {"convert": {"from": str(args.model), "what": what}}
        save_checkpoint(args.out, state, config, assets, run=facts)
        return []
    with atomic_folder(args.out) as folder:
        if args.to == "huggingface" and config.model.name == "masked_lm":
            lines = bert_export.write(folder, state, assets.bert)
        elif args.to == "huggingface":
            legacy = args.legacy_weight_norm
            lines = huggingface_export.write(folder, config.model, state, assets.tokenizer, legacy)
        else:
            lines = torchaudio.write(folder, config.model, state, assets.tokenizer)
    return [f"note: {line}" for line in lines]
