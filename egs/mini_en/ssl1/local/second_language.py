#!/usr/bin/env python3
"""Stage 0: Spanish speech without text, for pre-training on two languages.

    local/second_language.py --out downloads/second_language --count 800 --jobs 2

A small grammar, the voices of mini_en's training speech, rooms and telephone lines as there (no noise). Makes
<out>/{text.txt,audio/*.flac}; the same seed gives the same bytes for any number of jobs.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from functools import partial
from pathlib import Path

import numpy as np

from speechkit.bin.__main__ import true_or_false
from speechkit.data.synthesis import in_fresh_processes
from speechkit.errors import InputError
from speechkit.files import atomic_folder, write_text
from speechkit.stamp import Stamp

SIBLING = Path(__file__).resolve().parents[2] / "asr1/local"
sys.path.insert(0, str(SIBLING))

from acoustics import RATE, draw_condition  # noqa: E402
from grammar import Grammar  # noqa: E402
from spoken_sets import make_audio  # noqa: E402
from voices import VOICES, draw_voice  # noqa: E402

LANGUAGE = "es"
RULES = {
    "SENTENCE": """
        4* WHEN SUBJECT VERB OBJECT PLACE
        3* SUBJECT VERB OBJECT y luego VERB OBJECT
        2* SUBJECT dice que WHO no VERB OBJECT WHEN
        2* WHEN QUESTION VERB OBJECT
        porque ALSO WHO VERB OBJECT PLACE
    """,
    "WHEN": "hoy | ayer | mañana | por la tarde | cada lunes | después de comer | a las siete | en invierno",
    "SUBJECT": "MAN | WOMAN | MAN MANLY | WOMAN WOMANLY",
    "WHO": "nadie | alguien | su hermano | su hija | mi vecino | nuestra abuela",
    "MAN": "el médico | el niño | el jardinero | el panadero | un viajero | el pescador | aquel hombre",
    "WOMAN": "la maestra | la niña | la reina | una pintora | la cocinera | aquella mujer | mi amiga",
    "MANLY": "viejo | joven | cansado | alegre | del pueblo",
    "WOMANLY": "vieja | joven | cansada | alegre | de la ciudad",
    "VERB": "compra | busca | quiere | encuentra | vende | olvida | guarda | lleva | mira | pide",
    "OBJECT": """
        el pan | la leche | un queso | las flores rojas | el libro | una carta | los zapatos | la llave
        dos guitarras | un caballo | agua fría | cinco naranjas | el periódico | una manta | muchas gracias
    """,
    "PLACE": """
        en el mercado | junto al río | cerca de la iglesia | en la cocina | bajo el árbol | detrás del muro
        en la calle mayor | sobre la mesa | -
    """,
    "QUESTION": "quién | cuándo WHO | por qué WHO | dónde WHO",
    "ALSO": "también | siempre | a veces | casi nunca",
}


def plan(count: int, seed: int) -> list[dict]:
    """A row an utterance: its name, text, voice, condition and file.

    Raises:
        InputError: the grammar has fewer sentences than that.
    """
    grammar, rng = Grammar(RULES), random.Random(f"second language {seed}")
    if not 0 < count <= grammar.count("SENTENCE") // 10:
        raise InputError(f"--count {count}: must be in [1, {grammar.count('SENTENCE') // 10}]")
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(grammar.draw("SENTENCE", rng))] = None
    rows = []
    for number, text in enumerate(texts):
        voice = draw_voice(rng.choice(VOICES["train"]), rng, LANGUAGE)
        name = f"{LANGUAGE}_{voice.variant.lower()}-{number:05d}"
        rows.append(
            {
                "utterance": name,
                "text": text,
                "voice": vars(voice),
                "condition": draw_condition(rng, without=("noise",)),
                "path": f"audio/{name}.flac",
            }
        )
    return rows


def write_corpus(out: Path, count: int, seed: int, jobs: int) -> float:
    """Writes everything below `out`; returns seconds of audio."""
    rows = plan(count, seed)
    (out / "audio").mkdir(parents=True)
    silence = np.zeros(RATE, np.float32)
    lengths = list(in_fresh_processes(partial(make_audio, folder=out / "audio", babble=silence), rows, jobs))
    lines = sorted(f"{row['utterance']} {row['text']}\n" for row in rows)
    write_text(out / "text.txt", "".join(lines))
    return sum(lengths) / RATE


def main() -> None:
    """Makes the corpus unless it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write, made or replaced as a whole"
    )
    parser.add_argument("--count", type=int, default=800, help="utterances (default 800)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes; no part of the result")
    parser.add_argument("--force", type=true_or_false, default=False, help="true: make it again")
    args = parser.parse_args()
    sources = [Path(__file__), *sorted(SIBLING.glob("*.py"))]
    stamp = Stamp(args.out, "synthesise", [args.seed, args.count], sources, args.force)
    if stamp.fresh():
        return
    with atomic_folder(args.out) as folder:
        seconds = write_corpus(folder, args.count, args.seed, args.jobs)
    stamp.write()
    print(f"second language: {args.out}: {seconds / 60:.1f} minutes of speech", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"local/second_language.py: error: {error}")
