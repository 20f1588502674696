"""Writes the systems of one fine-tuning: systems.py TEMPLATE OUT --setting S --sources en --targets ky ...

TEMPLATE is conf/systems.yaml or conf/systems_quick.yaml. In OUT, L, M and N are the directories of these
languages; a pre-training is named after the languages that it hears, so that fine-tunings from it find
the same one: pretrained_unispeech_en, pretrained_unispeech_plus_en_and_ky, finetuned_unispeech_en_to_ky.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from speechkit.config import dump, load_config, read_yaml
from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.systems import System, Systems, select

SETTINGS = "one_to_one", "many_to_one", "many_to_many"


def sets_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """L, M, N and what belongs to them -> directories after formatting, as stages 2 and 3 name them."""
    sources, targets = "_".join(args.sources), "_".join(args.targets)
    of_l, of_n = args.source_vocabulary, args.vocabulary
    return {
        "L": [f"dump/{language}_labelled_{of_l}" for language in args.sources],
        "M": [f"dump/{language}_unlabelled" for language in args.targets],
        "N": [f"dump/{language}_train_{of_n}" for language in args.targets],
        "dev_of_L": [f"dump/{sources}_labelled_dev_{of_l}"],
        "dev_of_N": [f"dump/{targets}_dev_{of_n}"],
        "test_of_N": [f"dump/{language}_test_{of_n}" for language in args.targets],
        "tokens_of_L": [f"data/tokens/{sources}_{of_l}"],
        "tokens_of_N": [f"data/tokens/{targets}_{of_n}"],
    }


def rename(name: str, systems: dict[str, System], args: argparse.Namespace) -> str:
    """The name of a system of the template with its languages."""
    sources, targets = "_".join(args.sources), "_".join(args.targets)
    if name.startswith("finetuned_"):
        kind = f"_{args.vocabulary}" if args.setting == "many_to_many" else ""
        return f"{name}_{sources}_to_{targets}{kind}"
    return f"{name}_{sources}" + (f"_and_{targets}" if "M" in systems[name].train_sets else "")


def paper_of(model: str, sets: dict[str, list[str]], args: argparse.Namespace) -> dict:
    """The paper's numbers for a fine-tuned model, as `System.paper` has them."""
    table, _ = read_yaml(Path(args.template).parent / "paper.yaml")
    kind = f"_{args.vocabulary}" if args.setting == "many_to_many" else ""
    numbers = table[args.setting + kind].get(model, {})
    rows = {Path(path).name: numbers.get(path.split("/")[1].split("_")[0]) for path in sets["test_of_N"]}
    rows = {name: value for name, value in rows.items() if value is not None}
    return {"greedy": rows} if rows else {}


def fill(systems: Systems, args: argparse.Namespace) -> Systems:
    """The template with languages for L, M and N, and the chosen models only."""
    sets, chosen = sets_of(args), {}
    wanted = ",".join(f"finetuned_{model}" for model in args.methods.split(","))
    for name in select(systems, wanted):
        while name is not None and name not in chosen:
            chosen[name] = systems.systems[name]
            name = chosen[name].init_encoder
    names = {name: rename(name, chosen, args) for name in chosen}
    filled = {}
    for name in sorted(chosen, key=list(systems.systems).index):
        system = chosen[name]
        options = system.options
        for old, new in names.items():
            options = [option.replace(f"/{old}/", f"/{new}/") for option in options]
        tuned = name.startswith("finetuned_")
        own = args.vocabulary == "separate" and args.setting == "many_to_many"
        filled[names[name]] = replace(
            system,
            options=options,
            train_sets=[path for part in system.train_sets or ["N"] for path in sets[part]],
            dev_set=sets[system.dev_set or "dev_of_N"][0],
            tokenizer=sets[system.tokenizer or "tokens_of_N"][0],
            init_encoder=names.get(system.init_encoder),
            decodes=[*system.decodes, *(["own_language"] if tuned and own else [])],
            paper=paper_of(name.removeprefix("finetuned_"), sets, args) if tuned else {},
        )
    return replace(
        systems, train_sets=sets["N"], dev_set=sets["dev_of_N"][0], tokenizer=sets["tokens_of_N"][0],
        test_sets=sets["test_of_N"], systems=filled, paper="PER % of UniSpeech (Wang et al., 2021)",
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("template", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--setting", choices=SETTINGS, required=True)
    for name in ("sources", "targets"):
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), required=True)
    for name in ("source-vocabulary", "vocabulary"):
        parser.add_argument(f"--{name}", choices=("shared", "separate"), default="shared")
    parser.add_argument("--methods", required=True)
    args = parser.parse_args()
    try:
        write_text(args.out, dump(fill(load_config(Systems, args.template), args)))
    except (InputError, OSError) as error:
        sys.exit(f"local/systems.py: error: {error}")
