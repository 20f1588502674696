"""Documents promise only what is there: their commands, options, files and links are looked up."""

import os
import re

import pytest
from style.commands import inline_problem, locate, problem, python_problem
from style.sources import ROOT, where

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "egs/README.md")),
    *sorted(ROOT.glob("egs/*/*/README.md")),
]
MADE_BY_A_RECIPE = re.compile(r"(egs/\w+/\w+)/(?:RESULTS\.md|images/\w+\.png)")
COMMAND = re.compile(
    r"(\$ )?(speechkit |\./run\.sh|utils/|tools/|test/run\.sh|egs/\S+/run\.sh|python |torchrun )"
)


def blocks(text):
    """(first line, language, text) of fenced blocks; indented commands are blocks of bash of their own."""
    found, fence, gathered, going_on = [], None, [], False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            if fence is not None:
                found.append((fence[0], fence[1], "\n".join(gathered)))
            fence, gathered = (None if fence else (number + 1, line.strip("` "))), []
        elif fence is not None:
            gathered.append(line)
        elif line.startswith("    ") and going_on:
            start, language, above = found[-1]
            found[-1] = (start, language, f"{above}\n{line.strip()}")
        elif line.startswith("    ") and COMMAND.match(line.strip()):
            found.append((number, "bash", line.strip().removeprefix("$ ")))
        going_on = bool(found) and fence is None and found[-1][2].endswith("\\")
    return found


def lines(number, text):
    """(line number, command) of a block of bash, with continued lines joined and comments left out."""
    start, gathered = number, ""
    for here, line in enumerate(text.splitlines(), number):
        start = start if gathered else here
        gathered += line.removesuffix("\\")
        if not line.endswith("\\"):
            if gathered.strip() and not gathered.lstrip().startswith("#"):
                yield start, gathered.strip()
            gathered = ""


def prose(text):
    """(line number, line) of what stands in no block."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            yield number, line


def command_problems(text, folder):
    """(line number, what is wrong) of the commands and programs in the blocks of a document."""
    for number, language, block in blocks(text):
        if language == "bash":
            here = folder
            for line, command in lines(number, block):
                if wrong := problem(command, here):
                    yield line, wrong
                if command.startswith("cd "):
                    here = locate(command.split()[1], here) or here
        elif language == "python":
            if wrong := python_problem(block):
                yield number, wrong
        elif language != "text":
            yield number, "say what the block is: bash and python are checked, text is not"


def inline_problems(text, folder):
    """(line number, what is wrong) of the code in running text."""
    for number, line in prose(text):
        for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", line):
            if code.strip() and (wrong := inline_problem(code.strip(), folder)):
                yield number, f"`{code}`: {wrong}"


def anchors(text):
    """The anchors that headings make."""
    headings = (line.lstrip("#").strip().lower() for _, line in prose(text) if line.startswith("#"))
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}


def link_problems(text, folder):
    """(line number, what is wrong) of the relative links."""
    for number, line in prose(text):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            file, _, anchor = target.partition("#")
            if "://" in file:
                continue
            path = folder / file
            made = MADE_BY_A_RECIPE.fullmatch(os.path.relpath(path, ROOT))
            if file and not path.exists() and not (made and (ROOT / made[1] / "run.sh").exists()):
                yield number, f"no file {file}"
            elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8")):
                yield number, f"{file} has no heading #{anchor}"
            elif anchor and not file and anchor not in anchors(text):
                yield number, f"no heading #{anchor}"


@pytest.mark.parametrize("check", [command_problems, inline_problems, link_problems])
@pytest.mark.parametrize("document", DOCUMENTS, ids=where)
def test_documents_tell_the_truth(document, check):
    found = check(document.read_text(encoding="utf-8"), document.parent)
    wrong = [f"{where(document)}:{number}: {what}" for number, what in found]
    assert not wrong, "\n".join(wrong)


def test_the_commands_are_seen():
    """That nothing is wrong means something only if commands, links and code are found."""
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    commands = [
        command
        for text in texts
        for number, language, block in blocks(text)
        if language == "bash"
        for _, command in lines(number, block)
    ]
    assert len(commands) >= 12 and {"speechkit", "./run.sh", "cd"} <= {line.split()[0] for line in commands}
    assert sum("](" in line for text in texts for _, line in prose(text)) >= 8


RECIPE = ROOT / "egs/TEMPLATE/asr1"


@pytest.mark.parametrize(
    "line, said",
    [
        ("speechkit trian --config x", "no verb trian"),
        ("speechkit validate data/train --read-audoi true", "unrecognized arguments: --read-audoi"),
        ("speechkit validate data/train --read-audio yes", "neither true nor false"),
        ("speechkit score exp/a/seed1/decode_test_greedy", "--data"),
        ("speechkit train --config conf/no_such.yaml --exp exp/x", "no file conf/no_such.yaml"),
        ("./run.sh --stop_stage 3", "no option --stop_stage"),
        ("./run.sh --stage", "needs a value"),
        ("./run.sh --force yes", "takes true or false"),
        ("./run.sh --stage three", "takes a number"),
        ("cd egs/my_corpus/asr1 && ./run.sh --quick true", "no option --quick"),
        ("utils/no_such.sh data/train", "no file utils/no_such.sh"),
        ("utils/new_recipe.py foo asr1 --force true", "no option --force"),
        ("tools/setup.sh epsnet", "no part epsnet"),
        ("test/run.sh --slwo", "no option --slwo"),
        ("python local/no_such.py data", "no file local/no_such.py"),
        ("torchrun --nproc-per-node 4 -m speechkit.bni train", "no module speechkit.bni"),
        ("torchrun -m speechkit.bin train --cofnig x", "--cofnig"),
        ("tr a b", "unknown program tr"),
        ("speechkit 'validate", "No closing quotation"),
    ],
)
def test_a_wrong_command_is_found(line, said):
    assert said in problem(line, RECIPE)


@pytest.mark.parametrize(
    "line",
    [
        "speechkit train --train dump/train --dev dump/dev --exp exp/x/seed1 optim.lr=5e-4  # a note",
        "speechkit ngram train --text data/lm/text --order 4 --out data/lm/4gram.arpa",
        "OMP_NUM_THREADS=1 ./run.sh --stage 5 --stop-stage 7 --corpus-dir /path/to/corpus",
        "python local/data.py /path/to/corpus data",
        "egs/mini_en/asr1/run.sh --quick true && less egs/mini_en/asr1/RESULTS.md",
        "tools/setup.sh espnet video",
    ],
)
def test_a_right_command_is_not(line):
    assert problem(line, RECIPE) is None


def test_a_wrong_document_is_found():
    text = """# A title
Use `speechkit valdate` or `--stop-stge 3`, see `local/none.py`, [here](none.md) and [there](#a-tite);
`speechkit validate x`, `--stop-stage`, `local/data.py`, `conf/*.yaml`, [a](README.md), [b](#a-title).

    ./run.sh --stage 1 \\
      --no-such-option 2

```bash
# a comment
speechkit tokenizer --text data/train/text \\
  --kind letters --out data/tokens/x
```

```python
from speechkit.data.kaldi_dir import DataDir, NoSuchName
```

```
anything
```
"""
    problems = [*inline_problems(text, RECIPE), *link_problems(text, RECIPE), *command_problems(text, RECIPE)]
    expected = [
        (2, "no verb valdate"),
        (2, "no option --stop-stge"),
        (2, "no file local/none.py"),
        (2, "no file none.md"),
        (2, "no heading #a-tite"),
        (5, "no option --no-such-option"),
        (10, "letters"),
        (15, "no NoSuchName"),
        (19, "say what the block is"),
    ]
    assert [number for number, _ in problems] == [number for number, _ in expected]
    assert all(said in told for (_, told), (_, said) in zip(problems, expected)), problems
