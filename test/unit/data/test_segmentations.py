"""Phones in time: every form says the same, whatever is in it; files find their utterances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechkit.data.segmentations import open_segmentation
from speechkit.data.textgrid import read_textgrid
from speechkit.errors import InputError

RATE = 16000
WORDS = st.text("abɪʃː#-'\"é", min_size=1, max_size=4)


def long_grid(intervals, tier="phones", before=""):
    """A TextGrid as Praat writes it."""
    end = intervals[-1][1]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0 ", f"xmax = {end} "]
    lines += ["tiers? <exists> ", "size = 2 ", "item []: ", "    item [1]:", '        class = "TextTier" ']
    lines += ['        name = "marks" ', "        xmin = 0 ", f"        xmax = {end} "]
    lines += ["        points: size = 1 ", "        points [1]:", "            number = 0.1 "]
    lines += ['            mark = "a ""1"" [2] " ', "    item [2]:", '        class = "IntervalTier" ']
    lines += [f'        name = "{tier}" ', "        xmin = 0 ", f"        xmax = {end} "]
    lines += [f"        intervals: size = {len(intervals)} "]
    for number, (start, stop, label) in enumerate(intervals, 1):
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {start} ",
            f"            xmax = {stop} ",
        ]
        lines += ['            text = "{}" '.format(label.replace('"', '""'))]
    return before + "\n".join(lines) + "\n"


def short_grid(intervals, tier="phones"):
    """The same in the short form, without the tier of points."""
    end = intervals[-1][1]
    lines = ['File type = "ooTextFile"', '"TextGrid"', "", "0", str(end), "<exists>", "1"]
    lines += ['"IntervalTier"', f'"{tier}"', "0", str(end), str(len(intervals))]
    for start, stop, label in intervals:
        lines += [str(start), str(stop), '"{}"'.format(label.replace('"', '""'))]
    return "\n".join(lines) + "\n"


@st.composite
def spoken(draw):
    """Phones in whole hundredths of a second, some with gaps between them."""
    edges = np.cumsum(draw(st.lists(st.integers(1, 40), min_size=2, max_size=10))).tolist()
    rows = [(start / 100, end / 100, draw(WORDS)) for start, end in zip(edges, edges[1:])]
    return [row for row in rows if draw(st.booleans())] or rows


def heard(path, **options):
    segmentation = open_segmentation(path, ["u1"], **options)
    found = segmentation.of("u1")
    names = [segmentation.names[number] for number in found.phones]
    return list(zip(found.starts.round(6).tolist(), found.ends.round(6).tolist(), names))


@settings(max_examples=25, deadline=None)
@given(rows=spoken(), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"]))
def test_every_form_says_the_same(rows, encoding, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    phn, grids, short = (folder / name for name in ("phn", "grids", "short"))
    for each in (phn, grids, short):
        each.mkdir()
    lines = [f"{round(a * RATE)} {round(b * RATE)} {label}\n" for a, b, label in rows]
    (phn / "U1.PHN").write_text("".join(lines), "utf-8")
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (grids / "u1.TextGrid").write_bytes((mark + long_grid(rows)).encode(encoding))
    (short / "u1.textgrid").write_bytes((mark + short_grid(rows).replace("\n", "\r\n")).encode(encoding))
    lines = [f"u1 1 {a:.2f} {b - a:.2f} {label} 0.9\n" for a, b, label in rows]
    (folder / "phones.ctm").write_text(";; phones\n" + "".join(lines), "utf-8")
    assert heard(phn) == heard(grids) == heard(short) == heard(folder / "phones.ctm") == rows


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.sampled_from(["a", "b", "ʃ"]), max_size=30))
def test_a_table_becomes_runs(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "phones.txt"
    path.write_text(" ".join(["u1", *rows]) + "\n", "utf-8")
    found = heard(path, rate=50.0)
    again = [label for start, end, label in found for _ in range(round((end - start) * 50))]
    assert again == rows and all(a[2] != b[2] for a, b in zip(found, found[1:]))


def test_intervals_without_a_label_are_no_phones(tmp_path):
    (tmp_path / "u1.TextGrid").write_text(long_grid([(0, 0.5, ""), (0.5, 1, " a "), (1, 2, " ")]))
    assert heard(tmp_path) == [(0.5, 1.0, "a")]


def test_tiers_are_chosen_by_name(tmp_path):
    path = tmp_path / "u1.TextGrid"
    path.write_text(long_grid([(0, 1, "a")], tier="MAU"))
    assert read_textgrid(path) == read_textgrid(path, "MAU") == [(25, 0.0, 1.0, "a")]
    with pytest.raises(InputError, match="no tier of intervals called 'phones'; there are: 'MAU'"):
        read_textgrid(path, "phones")
    two = short_grid([(0, 1, "hi")], tier="words").replace("<exists>\n1\n", "<exists>\n2\n")
    path.write_text(two + '"IntervalTier"\n"other"\n0\n1\n1\n0\n1\n"x"\n')
    with pytest.raises(InputError, match="which tier holds the phones.*'words', 'other'"):
        read_textgrid(path)
    assert read_textgrid(path, "other")[0][1:] == (0.0, 1.0, "x")


def test_files_find_their_utterances(tmp_path):
    for place in ("TRAIN/DR1/FCJF0/SA1", "TRAIN/DR1/MDAB0/SA1", "TEST/DR1/FAKS0/SA1"):
        path = tmp_path / f"{place}.PHN"
        path.parent.mkdir(parents=True)
        path.write_text("0 800 h#\n")
    found = open_segmentation(tmp_path, ["fcjf0-sa1", "MDAB0_SA1"])
    assert {name: path.parent.name for name, path in found.files.items()} == {
        "fcjf0-sa1": "FCJF0",
        "MDAB0_SA1": "MDAB0",
    }
    found = open_segmentation(tmp_path / "TEST/DR1/FAKS0", ["test-dr1-faks0-sa1"])
    assert list(found.files) == ["test-dr1-faks0-sa1"]
    with pytest.raises(InputError, match="no phones for 1 utterance.s., the first is fcjf0-sa2"):
        open_segmentation(tmp_path, ["fcjf0-sa1", "fcjf0-sa2"])
    with pytest.raises(InputError, match="a file of utterance sa1, too"):
        open_segmentation(tmp_path, ["sa1"])
    with pytest.raises(InputError, match="differ only in capitals"):
        open_segmentation(tmp_path, ["fcjf0-sa1", "FCJF0-SA1"])


def test_what_a_segmentation_is_told_by_its_names(tmp_path):
    with pytest.raises(InputError, match="neither .phn nor .TextGrid files"):
        open_segmentation(tmp_path, ["u1"])
    (tmp_path / "u1.phn").write_text("0 800 a\n")
    (tmp_path / "u1.TextGrid").write_text(short_grid([(0, 0.1, "b")]))
    with pytest.raises(InputError, match="both .phn and .TextGrid files"):
        open_segmentation(tmp_path, ["u1"])
    assert heard(tmp_path, form="phn") == [(0.0, 0.05, "a")]
    assert heard(tmp_path, form="phn", samples=8000.0) == [(0.0, 0.1, "a")]
    assert heard(tmp_path, form="textgrid") == [(0.0, 0.1, "b")]


@pytest.mark.parametrize(
    "content, says",
    [
        ("hello\n", 'ends where "ooTextFile" should follow'),
        ('"ooTextFile"\n"PitchTier"\n', "no TextGrid in text form"),
        (short_grid([(0, 1, "a")])[:-6], "u1.TextGrid:13: ends where its end should follow"),
        (short_grid([(0, 1, "a")]).replace('"a"', '"a'), "u1.TextGrid:15: expected its label"),
        (short_grid([(0, 1, "a")]).replace('"IntervalTier"', "7"), "u1.TextGrid:8: expected"),
        (short_grid([(0, 1, "a")]).replace("<exists>\n1", "<exists>\n-1"), "expected a number of tiers"),
        (b'"ooTextFile"\n"\xff"\n', "u1.TextGrid:2: neither UTF-8 nor UTF-16"),
    ],
)
def test_damaged_textgrids(tmp_path, content, says):
    path = tmp_path / "u1.TextGrid"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        heard(tmp_path)
    assert says in str(error.value) and "\n" not in str(error.value)
