"""Checkpoints: folders that are complete or absent, and hold all that resuming and decoding need.

step_N/model.safetensors   weights; tied ones once, with a map of ties in the header
       ema.safetensors     averaged weights, when an EMA is kept
       state.pt            everything else to resume; loads with weights_only=True
       config.yaml         the complete configuration
       assets/             tokenizer, normaliser, CMVN ...
       run.json            command, data, versions, hardware: for reports
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechkit import config as configuration
from speechkit.config import load_kind
from speechkit.errors import InputError
from speechkit.files import atomic_folder, disk_full, write_json, write_text

FORMAT = 1


def save_weights(path: Path, state: dict[str, Tensor]) -> None:
    """Writes tensors as safetensors; names that share one tensor are stored once."""
    from safetensors.torch import save_file

    first: dict[tuple, str] = {}
    kept, ties = {}, {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            ties[name] = first[place]
        else:
            first[place] = name
            kept[name] = tensor.detach().cpu().contiguous().clone()
    save_file(kept, path, {"speechkit": str(FORMAT), "ties": json.dumps(ties)})


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint's file, ties restored.

    Raises:
        InputError: missing, damaged, or of a later format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if int(header.get("speechkit", FORMAT)) > FORMAT:
                raise InputError(f"{path}: written by a later version of speechkit; update this one")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; is this a checkpoint folder?") from None
    except SafetensorError as error:
        raise InputError(
            f"{path}: damaged weights ({error}); remove the folder to use an earlier one"
        ) from None
    for name, source in json.loads(header.get("ties", "{}")).items():
        state[name] = state[source]
    return state


def save_checkpoint(
    folder: Path,
    state: dict[str, Tensor],
    config: Any,
    assets: Any,
    *,
    training: dict | None = None,
    ema: dict[str, Tensor] | None = None,
    run: dict | None = None,
) -> None:
    """Writes a checkpoint folder; it appears complete or not at all.

    Args:
        folder: its final place; an existing one is replaced.
        state: the model's `state_dict()`.
        config: a configuration dataclass.
        assets: anything with `save(folder)`.
        training: what resuming needs: only tensors, str, int, float, bool, None, list and dict.
        ema: averaged weights under the same names.
        run: facts for reports, JSON-able.

    Raises:
        InputError: the disk is full, or has too little room to begin; what was there is untouched.
    """
    tensors = [*state.values(), *(ema or {}).values(), *_tensors(training)]
    _check_space(folder, sum(t.numel() * t.element_size() for t in tensors))
    with atomic_folder(folder) as temporary:
        try:
            save_weights(temporary / "model.safetensors", state)
            if ema is not None:
                save_weights(temporary / "ema.safetensors", ema)
            if training is not None:
                with open(temporary / "state.pt", "wb") as file:
                    torch.save({"format": FORMAT, **training}, file)
        except Exception as error:
            raise _as_os_error(error) from error
        write_text(temporary / "config.yaml", configuration.dump(config))
        (temporary / "assets").mkdir()
        assets.save(temporary / "assets")
        write_json(temporary / "run.json", run or {})


def _as_os_error(error: BaseException) -> BaseException:
    """The full disk that torch and safetensors wrap into errors of their own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) or "os error 28" in str(cause):
            return OSError(getattr(cause, "errno", None) or errno.ENOSPC, str(cause))
        cause = cause.__context__
    return error


def _check_space(folder: Path, needed: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < needed * 1.05:
        raise InputError(
            f"{folder}: a checkpoint needs {needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free; "
            "free some and run the same command again"
        ) from disk_full(OSError(errno.ENOSPC, ""), folder)


def _tensors(value: Any) -> Iterable[Tensor]:
    """All tensors inside; TypeError for what `weights_only=True` would refuse to read back."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)
    elif type(value) not in (str, int, float, bool, type(None)):
        raise TypeError(f"a checkpoint holds no {type(value).__name__}: {value!r}")


def load_state(folder: Path) -> dict:
    """Reads `state.pt`; InputError when it is missing, damaged, or of a later format."""
    path = folder / "state.pt"
    if not path.exists():
        raise InputError(f"{path}: no such file; only step_N folders can be resumed from")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage as RuntimeError, EOFError, UnpicklingError ...
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{path}: damaged ({why}); remove the folder to use an earlier one") from None
    if state["format"] > FORMAT:
        raise InputError(f"{path}: written by a later version of speechkit; update this one")
    return state


def load_model(folder: str | Path, device: str | torch.device = "cpu", ema: bool = True) -> tuple:
    """Builds the model of a checkpoint folder; nothing else is needed.

    Args:
        folder: `step_N`, `final`, or an experiment folder, which stands for its `final`.
        device: where the model goes.
        ema: take the averaged weights where there are some.

    Returns:
        The model in eval mode, the `RunConfig`, and the `Assets`.

    Raises:
        InputError: anything missing, damaged, or not fitting.
    """
    from speechkit.models import MODELS
    from speechkit.models.assets import Assets
    from speechkit.train.run import RunConfig

    folder = find_checkpoint(Path(folder))
    config = configuration.load_config(RunConfig, folder / "config.yaml")
    assets = Assets.load(folder / "assets")
    model = load_kind(MODELS, config.model.name).build(config.model, assets)
    averaged = folder / "ema.safetensors"
    load_strictly(model, averaged if ema and averaged.exists() else folder / "model.safetensors")
    return model.to(device).eval(), config, assets


def find_checkpoint(exp: Path) -> Path:
    """`exp` itself if it is a checkpoint, else its `final`; InputError says what is there instead."""
    if not exp.is_dir():
        raise InputError(f"{exp}: no such experiment folder")
    for folder in (exp, exp / "final"):
        if (folder / "model.safetensors").is_file():
            return folder
    steps = sorted(p.name for p in exp.glob("step_*"))
    there = f"; training has not finished, name one of its checkpoints: {', '.join(steps)}" if steps else ""
    raise InputError(f"{exp}: holds no trained model{there}")


def load_strictly(model: nn.Module, path: Path) -> None:
    """Puts a file's weights into a model; InputError unless names and shapes are the same."""
    weights, own = load_weights(path), model.state_dict()
    wrong = [
        f"{name}: {tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    wrong += [f"{name}: not in the file" for name in own.keys() - weights.keys()]
    wrong += [f"{name}: not in the model" for name in weights.keys() - own.keys()]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError(f"{path}: weights of another model: {'; '.join(sorted(wrong)[:5])}{more}")
    model.load_state_dict(weights)


def checkpoints(exp: Path) -> list[tuple[int, Path]]:
    """The complete `step_N` folders of an experiment, by N."""
    steps = [p for p in exp.glob("step_*") if p.is_dir() and p.name[5:].isdigit()]
    return sorted((int(p.name[5:]), p) for p in steps)


def prune(exp: Path, keep: Iterable[int]) -> None:
    """Removes all checkpoints but the listed updates, and what killed processes left half-written."""
    keep = set(keep)
    for update, folder in checkpoints(exp):
        if update not in keep:
            # Renamed first: a folder with a part of its files must never look complete.
            gone = folder.with_name(f".{folder.name}.old")
            folder.rename(gone)
            shutil.rmtree(gone)
    remove_leftovers(exp)


def remove_leftovers(exp: Path) -> None:
    """Removes the temporary folders of processes that were killed while saving."""
    for pattern in (".step_*.tmp", ".step_*.old", ".final.*.tmp", ".final.*.old"):
        for folder in exp.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def average(folders: Sequence[Path], ema: bool = True) -> dict[str, Tensor]:
    """The mean of the weights of several checkpoints, summed in float64.

    Whole-number entries (counters) are taken from the last one.

    Raises:
        InputError: no folder, or folders of differing models.
    """
    if not folders:
        raise InputError("no checkpoints to average")
    files = [f / "ema.safetensors" for f in folders]
    files = [e if ema and e.exists() else e.with_name("model.safetensors") for e in files]
    total: dict[str, Tensor] = {}
    for file in files:
        weights = load_weights(file)
        shapes = {name: value.shape for name, value in weights.items()}
        if total and shapes != {name: value.shape for name, value in total.items()}:
            raise InputError(f"{file}: weights of another model than {files[0]}")
        for name, value in weights.items():
            floating = value.is_floating_point()
            total[name] = total[name] + value.double() if floating and name in total else value
            total[name] = total[name].double() if floating else value
    kinds = {name: value.dtype for name, value in weights.items()}
    return {
        name: (value / len(files)).to(kinds[name]) if kinds[name].is_floating_point else value
        for name, value in total.items()
    }
