"""`speechkit report`: structure of RESULTS.md, its numbers, and that writing it again changes nothing."""

import json
import random

import pytest

from speechkit.bin.__main__ import main
from speechkit.metrics.groups import mean_sd
from speechkit.metrics.markdown import escape
from speechkit.metrics.report import END, START

SYSTEMS = """\
train_sets: [dump/train]
dev_set: dump/dev
tokenizer: data/tokens/char
test_sets: [dump/test, dump/hard]
seeds: 2
baseline: small/greedy
decodes:
  greedy: {config: a.yaml}
  beam: {config: b.yaml}
systems:
  small: {title: "Small | one", train: a.yaml, decodes: [greedy, beam]}
  big: {title: Large, train: b.yaml, decodes: [beam]}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Two systems, two seeds, scored by the real command."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    words = [f"w{number}" for number in range(30)]
    texts = {f"s{s}-{u:02d}": [rng.choice(words) for _ in range(8)] for s in range(6) for u in range(8)}
    data = tmp_path / "dump" / "test"
    data.mkdir(parents=True)
    (data / "text").write_text("".join(f"{u} {' '.join(t)}\n" for u, t in texts.items()))
    (data / "utt2spk").write_text("".join(f"{u} {u[:2]}\n" for u in texts))
    (data / "word_tags").write_text(
        "".join(f"{u} {' '.join(['far,seen', 'other,seen'] * 4)}\n" for u in texts)
    )
    folders = []
    for system, how, chance in (("small", "greedy", 0.4), ("small", "beam", 0.38), ("big", "beam", 0.1)):
        for seed in (1, 2):
            folder = tmp_path / "exp" / system / f"seed{seed}" / f"decode_test_{how}"
            folder.mkdir(parents=True)
            heard = (
                f"{u} {' '.join('x' if rng.random() < chance else w for w in t)}\n" for u, t in texts.items()
            )
            (folder / "text").write_text("".join(heard))
            commands = {
                "train": f"speechkit train --exp exp/{system}/seed{seed}",
                "decode": "speechkit decode",
            }
            tuned = {"set": "dump/dev", "trials": [{"lm_weight": 0.5}], "chosen": {"lm_weight": 0.5 * seed}}
            record = {
                "tuned_on": tuned if how == "beam" else None,
                "parameters": 1234567,
                "commands": commands,
                "hardware": "2 cores",
            }
            (folder / "decode.json").write_text(json.dumps(record))
            curve = [
                {"update": step, "kind": kind, "loss": 100 / step, "wer": 5000 / step}
                for step in range(50, 500, 50)
                for kind in ("train", "dev")
            ]
            (folder.parent / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve))
            folders.append(str(folder.relative_to(tmp_path)))
    (tmp_path / "systems.yaml").write_text(SYSTEMS)
    assert main(["score", "--data", "dump/test", *folders]) == 0
    return tmp_path


def report(*options):
    return main(["report", "--exp", "exp", "--out", "RESULTS.md", *options])


def cells(text, name):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_table_by_the_systems_file(recipe):
    assert report("--systems", "systems.yaml") == 0
    text = (recipe / "RESULTS.md").read_text()
    assert text.startswith("# Results\n") and text.rstrip().endswith(END)
    head = "| system | decode | seeds | WER % | 95 % interval | best run | CER % | far % | other % | seen % |"
    assert head in text
    order = [text.index(f"| {name} |") for name in ("small | greedy", "small | beam", "big | beam")]
    assert order == sorted(order)
    results = [
        json.loads((recipe / f"exp/big/seed{seed}/decode_test_beam/result.json").read_text())
        for seed in (1, 2)
    ]
    row = cells(text, "big | beam")
    assert row[2] == "2" and row[3] == mean_sd([result["rate"] for result in results])
    best = min(results, key=lambda result: result["rate"])["counts"]
    assert row[5].startswith(f"[ {best['errors']} / 384, ")
    far = 100 * sum(result["classes"]["far"]["errors"] for result in results) / 384
    assert row[7] == f"{far:.2f}"
    assert (
        row[-2].startswith("-")
        and row[-2].endswith("p < 0.001")
        and row[-1] == "dev (1 tried): lm_weight 0.5; dev (1 tried): lm_weight 1.0"
    )
    assert cells(text, "small | greedy")[-2:] == ["baseline", "nothing"]
    assert "not distinguishable (p = 0." in cells(text, "small | beam")[-2]
    assert "- small/greedy on hard: not run, or failed" in text
    assert "### small: Small \\| one" in text and "- parameters: 1,234,567" in text
    assert (
        "speechkit train --exp exp/big/seed1\n" in text and "speechkit score --data dump/test exp/big" in text
    )
    assert "- scored with: python 3." in text
    assert "This set has been scored with 6 different hypotheses so far" in text


def test_pictures_are_png_and_linked(recipe):
    assert report() == 0
    text = (recipe / "RESULTS.md").read_text()
    for name in ("wer_test", "classes_test", "learning_curves"):
        assert f"](images/{name}.png)" in text
        assert (recipe / "images" / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_writing_again_changes_no_byte(recipe):
    files = lambda: {p.name: p.read_bytes() for p in (recipe / "RESULTS.md", *(recipe / "images").iterdir())}  # noqa: E731
    assert report("--systems", "systems.yaml") == 0
    before = files()
    assert report("--systems", "systems.yaml") == 0
    assert files() == before


def test_text_around_the_generated_part_stays(recipe):
    out = recipe / "RESULTS.md"
    old = START.replace("below", "anything")
    out.write_text(f"# Mine\n\nabove \\1 $\n\n{old}\nold\n{END}\n\nbelow\n")
    assert report("--plots", "false") == 0
    text = out.read_text()
    assert text.startswith(f"# Mine\n\nabove \\1 $\n\n{START}\n") and text.endswith(f"{END}\n\nbelow\n")
    assert "old" not in text.replace("below", "") and "images/" not in text


def test_failed_seeds_are_listed(recipe):
    (recipe / "exp/big/seed2/decode_test_beam/result.json").unlink()
    assert report("--systems", "systems.yaml", "--plots", "false") == 0
    text = (recipe / "RESULTS.md").read_text()
    assert "- big/beam on test: 1 of 2 seeds" in text and "±" not in cells(text, "big | beam")[3]


def test_another_baseline(recipe):
    assert report("--baseline", "big/beam", "--plots", "false") == 0
    text = (recipe / "RESULTS.md").read_text()
    assert cells(text, "big | beam")[-2] == "baseline"
    assert cells(text, "small | beam")[-2].startswith("+")


def test_other_references_are_not_compared(recipe):
    path = recipe / "exp/big/seed1/decode_test_beam/utterances.jsonl"
    path.write_text(path.read_text().replace('"words": 8', '"words": 9', 1))
    (recipe / "exp/big/seed2/decode_test_beam/result.json").unlink()
    assert report("--plots", "false") == 0
    text = (recipe / "RESULTS.md").read_text()
    assert "not comparable" in cells(text, "small | beam")[-2]


def test_mean_and_deviation():
    assert mean_sd([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    assert mean_sd([4.321]) == "4.32" and mean_sd([]) == "-"


def test_markup_from_data_is_escaped():
    assert escape("a|b `c` <img> [x](y) *z* _u_ snake_case\nline") == (
        "a\\|b \\`c\\` \\<img\\> \\[x\\](y) \\*z\\* \\_u\\_ snake_case line"
    )


# ---- curves over labelled speech, further tables, tuning ----------------------------------------------

CURVES = SYSTEMS.replace(
    "decodes: [greedy, beam]}", "decodes: [greedy, beam], curve: plain, minutes: 10}"
).replace(
    "decodes: [beam]}", "decodes: [beam], curve: better, minutes: 3, against: small, tune: {grid: {lr: [1]}}}"
)


def test_points_are_compared_by_characters(recipe):
    (recipe / "systems.yaml").write_text(CURVES)
    assert report("--systems", "systems.yaml") == 0
    text = (recipe / "RESULTS.md").read_text()
    section = text.partition("## Over labelled speech")[2].partition("##")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| test")]
    assert [row[1:4] for row in rows] == [
        ["beam", "3", "better"],
        ["beam", "10", "plain"],
        ["greedy", "10", "plain"],
    ]
    rates = {
        system: [
            json.loads((recipe / f"exp/{system}/seed{seed}/decode_test_beam/result.json").read_text())["cer"][
                "rate"
            ]
            for seed in (1, 2)
        ]
        for system in ("small", "big")
    }
    assert rows[0][6] == mean_sd(rates["big"])
    difference = sum(rates["big"]) / 2 - sum(rates["small"]) / 2
    assert rows[0][7].startswith(f"small: {difference:+.2f} [") and rows[0][7].endswith("p < 0.001")
    for how in ("beam", "greedy"):
        assert (recipe / f"images/labelled_speech_test_{how}.png").read_bytes()[:4] == b"\x89PNG"


def test_compare_counts_characters_on_request(recipe, capsys):
    folders = [[f"exp/{name}/seed{seed}/decode_test_beam" for seed in (1, 2)] for name in ("big", "small")]
    results = [[json.loads((recipe / f / "result.json").read_text()) for f in side] for side in folders]
    assert main(["compare", *folders[0], "--with", *folders[1], "--characters", "true"]) == 0
    line = capsys.readouterr().out
    first, second = (sum(r["cer"]["rate"] for r in side) / 2 for side in results)
    assert line.startswith(f"all characters: {first:.2f} - {second:.2f} = {first - second:+.2f} [")
    characters = results[0][0]["cer"]["counts"]["characters"]
    assert f"the first is better ({characters} characters," in line
    assert (
        main(["compare", *folders[0], "--with", *folders[1], "--characters", "true", "--class", "far"]) == 2
    )


def test_further_tables_and_what_was_tuned(recipe):
    (recipe / "systems.yaml").write_text(CURVES)
    rows = {"mfcc": {"purity": 0.43219, "labels": 100}, "layer | 3": {"labels": 100, "note": "x"}}
    (recipe / "cluster_quality.json").write_text(json.dumps(rows))
    trials = [{"options": ["lr=1"], "cer": 40.123}]
    tuned = {"set": "dump/dev", "seed": 0, "metric": "cer", "trials": trials, "chosen": ["lr=1"]}
    (recipe / "exp/big/tuned.json").write_text(json.dumps(tuned))
    options = ["--systems", "systems.yaml", "--plots", "false", "--tables", "cluster_quality.json"]
    assert report(*options) == 0
    text = (recipe / "RESULTS.md").read_text()
    assert "## Cluster quality\n\n|  | purity | labels | note |\n" in text
    assert "| mfcc | 0.4322 | 100 |  |" in text and "| layer \\| 3 |  | 100 | x |" in text
    assert "- chosen on dev before training: cer of seed 0: lr=1 40.12; chosen lr=1" in text
    (recipe / "cluster_quality.json").write_text("[1]")
    assert report(*options) == 1


def test_error_rates_on_dev_stand_under_a_system(recipe):
    for system, seed, dev in (
        ("big", 10, {"wer": 19.5}),
        ("big", 2, {"wer": 20.5}),
        ("small", 1, {"loss": 1}),
    ):
        (recipe / f"exp/{system}/seed{seed}/final").mkdir(parents=True)
        (recipe / f"exp/{system}/seed{seed}/final/run.json").write_text(json.dumps({"dev": dev}))
    assert report("--plots", "false") == 0
    text = (recipe / "RESULTS.md").read_text()
    assert text.count("greedy on dev") == 1
    assert "- greedy on dev, in training: WER 20.00 ± 0.71 (20.50, 19.50)" in text.partition("### big")[2]


def test_further_pictures_are_brought_along(recipe, capsys):
    drawn = recipe / "exp/big/codes_of_phones.png"
    drawn.write_bytes(b"\x89PNG drawn elsewhere")
    assert report("--plots", "false", "--pictures", str(drawn)) == 0
    assert "![Codes of phones](images/codes_of_phones.png)" in (recipe / "RESULTS.md").read_text()
    assert (recipe / "images/codes_of_phones.png").read_bytes() == drawn.read_bytes()
    drawn.unlink()
    assert report("--plots", "false", "--pictures", str(drawn)) == 1
    assert "codes_of_phones.png: no such picture" in capsys.readouterr().err


# ---- what stands beside the results ------------------------------------------------------------------

BESIDE = (
    SYSTEMS.replace("decodes: [beam]}", "decodes: [beam], text: 40k sentences, paper: {beam: {hard: 4.9}}}")
    .replace("{config: b.yaml}", "{config: b.yaml, text: the transcripts}")
    .replace("seeds: 2", 'seeds: 2\npaper: "CER % of Someone (2021), table 2"')
)


def edit(path, **changes):
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **changes}))


def section(text, name):
    """Title -> cells of the table of a set."""
    lines = text.partition(f"## Set {name}\n\n")[2].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {title: [row[place] for row in rows[2:]] for place, title in enumerate(rows[0])}


def test_text_units_and_speed_have_columns_where_anything_says_them(recipe):
    (recipe / "systems.yaml").write_text(BESIDE)
    for system, how, after in (("small", "greedy", None), ("small", "beam", 1.0), ("big", "beam", 3.0)):
        for seed in (1, 2):
            timed = {"seconds_audio": 100.0 * seed, "seconds_wall": 12.0, "seconds_after_encoder": after}
            path = recipe / f"exp/{system}/seed{seed}/decode_test_{how}/result.json"
            edit(path, **timed, units="characters" if system == "small" else "pieces")
    assert report("--systems", "systems.yaml", "--plots", "false") == 0
    table = section((recipe / "RESULTS.md").read_text(), "test")
    assert table["units"] == ["characters", "characters", "pieces"]
    assert table["text"] == ["-", "the transcripts", "40k sentences; the transcripts"]
    assert table["RTF"] == ["0.08"] * 3  # 24 s for 300 s
    assert table["RTF after encoder"] == ["-", "0.00667", "0.02"]
    assert "paper %" not in table and "oracle %" not in table


def test_the_papers_numbers_stand_in_lines_of_their_own_where_nothing_was_run(recipe):
    (recipe / "systems.yaml").write_text(BESIDE.replace("{hard: 4.9}", "{hard: 4.9, test: 10}"))
    assert report("--systems", "systems.yaml", "--plots", "false") == 0
    text = (recipe / "RESULTS.md").read_text()
    assert text.index("## Set test") < text.index("## Set hard")
    assert section(text, "test")["paper %"] == ["-", "-", "10"]
    hard = section(text, "hard")
    assert hard == {
        **{"system": ["big"], "decode": ["beam"], "text": ["40k sentences; the transcripts"]},
        **{"WER %": ["-"], "CER %": ["-"], "paper %": ["4.9"], "against": ["not run"]},
    }
    assert text.count("Paper: CER % of Someone (2021), table 2.") == 2


@pytest.mark.parametrize(
    "numbers, message",
    [("{bean: {test: 1}}", "no decode or test set 'bean'"), ("{beam: {tests: 1}}", "did you mean 'test'?")],
)
def test_numbers_of_a_paper_name_decodes_and_sets(recipe, numbers, message, capsys):
    (recipe / "systems.yaml").write_text(BESIDE.replace("{beam: {hard: 4.9}}", numbers))
    assert report("--systems", "systems.yaml") == 1
    assert message in capsys.readouterr().err


def test_the_oracle_of_nbest_lists(recipe):
    """Of 48 utterances of 8 words 47 have their reference in the list."""
    texts = dict(line.split(maxsplit=1) for line in (recipe / "dump/test/text").read_text().splitlines())
    first, *rest = texts
    for seed in (1, 2):
        folder = recipe / f"exp/big/seed{seed}/decode_test_beam"
        lists = {u: ["x", texts[u], "y"] for u in rest} | {first: ["x", texts[first].rpartition(" ")[0]]}
        rows = ({"utterance": u, "nbest": [{"text": t} for t in found]} for u, found in lists.items())
        (folder / "text").write_text("".join(f"{u} x\n" for u in texts))
        (folder / "nbest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert main(["score", "--data", "dump/test", str(folder)]) == 0
        oracle = json.loads((folder / "result.json").read_text())["oracle"]
        assert oracle["nbest"] == 3 and oracle["counts"] == {
            **{"words": 384, "errors": 1, "ins": 0, "del": 1, "sub": 0}
        }
        assert "%ORACLE 0.26 [ 1 / 384, 0 ins, 1 del, 0 sub ] of 3\n" in (folder / "wer").read_text()
    assert report("--plots", "false") == 0
    text = (recipe / "RESULTS.md").read_text()
    assert section(text, "test")["oracle %"][0] == "0.26 ± 0.00 of 3"
    assert "Oracle: the best hypothesis of every N-best list." in text


def test_lists_of_one_have_no_oracle_and_broken_ones_are_named(recipe, capsys):
    folder = recipe / "exp/big/seed1/decode_test_beam"
    texts = dict(line.split(maxsplit=1) for line in (folder / "text").read_text().splitlines())
    rows = [json.dumps({"utterance": u, "nbest": [{"text": t}]}) for u, t in texts.items()]
    (folder / "nbest.jsonl").write_text("\n".join(rows) + "\n")
    assert main(["score", "--data", "dump/test", str(folder)]) == 0
    assert json.loads((folder / "result.json").read_text())["oracle"] is None
    (folder / "nbest.jsonl").write_text("\n".join([rows[0], '{"utterance": "x"}']) + "\n")
    assert main(["score", "--data", "dump/test", str(folder)]) == 1
    assert "nbest.jsonl:2: not an N-best list" in capsys.readouterr().err
